# SPDX-License-Identifier: Apache-2.0
"""Energies of inferences as tables for people and as rows for CSV; bands, not digits."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from npusim.cost.energy import COMPONENTS, Energy
from npusim.cost.energy_constants import Band, EnergyConstants
from npusim.report.names import short_name

if TYPE_CHECKING:
    from rich.table import Table

_ENDS = ("low", "value", "high")
_ENERGY_UNITS = ((1e3, "mJ"), (1.0, "µJ"), (1e-3, "nJ"), (1e-6, "pJ"))
_POWER_UNITS = ((1e3, "W"), (1.0, "mW"), (1e-3, "µW"))
ENERGY_COLUMNS = (
    *("model", "npu", "system_config", "memory_mode", "calibrated", "node_nm", "name", "op"),
    *(f"energy_uj_{end}" for end in _ENDS),
    *(f"{name}_uj_{end}" for name in COMPONENTS for end in _ENDS),
)
"""Columns of `energy_rows`."""


def band_text(band: Band, units: Sequence[tuple[float, str]]) -> str:
    """A band with its unit, to two digits: they are not known better.

    Args:
        band: in the unit whose size is 1.
        units: (size, name), the largest first.

    >>> band_text(Band(12.3, 45.6, 789.0), [(1000.0, "mJ"), (1.0, "µJ")])
    '46 µJ (12..790)'
    """
    size, unit = next(((size, unit) for size, unit in units if abs(band.value) >= size), units[-1])
    low, value, high = (_two_digits(getattr(band, end) / size) for end in _ENDS)
    return f"{value} {unit} ({low}..{high})"


def energy_text(band_pj: Band) -> str:
    """Picojoules in a unit that suits them.

    >>> energy_text(Band(1.2e6, 3.4e6, 1e7))
    '3.4 µJ (1.2..10)'
    """
    return band_text(band_pj.times(1e-6), _ENERGY_UNITS)


def _two_digits(number: float) -> str:
    rounded = float(f"{number:.2g}")
    return f"{rounded:,.0f}" if rounded >= 10 else f"{rounded:g}"


def energy_rows(energy: Energy) -> list[dict[str, Any]]:
    """A flat row for each operation: microjoules, low, value and high, in all and by component."""
    common = {name: getattr(energy, name) for name in ENERGY_COLUMNS[:6]}
    rows = []
    for op in energy.ops:
        row = {**common, "name": op.name, "op": op.op}
        for what, band in (("energy", op.total_pj), *op.by_component.items()):
            row |= {f"{what}_uj_{end}": getattr(band, end) / 1e6 for end in _ENDS}
        rows.append(row)
    return rows


def energy_table(energy: Energy) -> Table:
    """A row for each operation with its best guess by component and its band, the totals below."""
    from rich.table import Table

    parts = energy.by_component
    shown = [name for name in COMPONENTS if parts[name].high > 0]
    table = Table(
        title=f"{energy.model} on {energy.npu}, {energy.system_config}, {energy.memory_mode}: "
        f"energy of an inference, µJ ({energy.label})",
        caption=_caption(energy),
        show_footer=True,
    )
    table.add_column("operation", "total", overflow="fold", min_width=20)
    table.add_column("op", no_wrap=True)
    for name in shown:
        table.add_column(name, _microjoules(parts[name]), justify="right", no_wrap=True)
    table.add_column("energy", energy_text(energy.total_pj), justify="right", no_wrap=True)
    for op in energy.ops:
        table.add_row(
            short_name(op.name),
            op.op,
            *(_microjoules(op.by_component[name]) for name in shown),
            energy_text(op.total_pj),
        )
    return table


def _microjoules(band: Band) -> str:
    return f"{float(f'{band.value / 1e6:.2g}'):g}" if band.value else "0"


def _caption(energy: Energy) -> str:
    made_of = ", ".join(f"{role}: {name}" for role, name in energy.technologies.items())
    text = f"at {energy.node_nm:g} nm; {made_of or 'no memory'}; bands from the constants' extremes"
    power = band_text(energy.average_mw, _POWER_UNITS)
    return f"{text}; {power} on average" if energy.inference_s else text


def component_table(energies: Sequence[Energy]) -> Table:
    """A row for each network and NPU: bands in all and by component."""
    from rich.table import Table

    labels = dict.fromkeys(energy.label for energy in energies)
    table = Table(title=f"energy of an inference ({'; '.join(labels)})")
    table.add_column("model", overflow="fold", min_width=12)
    table.add_column("npu", no_wrap=True)
    table.add_column("energy", justify="right", no_wrap=True)
    parts = [energy.by_component for energy in energies]
    shown = [name for name in COMPONENTS if any(part[name].high > 0 for part in parts)]
    for name in shown:
        table.add_column(name, justify="right", no_wrap=True)
    for energy, part in zip(energies, parts, strict=True):
        table.add_row(
            energy.model,
            energy.npu,
            energy_text(energy.total_pj),
            *(energy_text(part[name]) for name in shown),
        )
    return table


def constants_table(constants: EnergyConstants) -> Table:
    """What one event costs and where that is from."""
    from rich.table import Table

    state = constants.calibration or "uncalibrated"
    table = Table(title=f"energy constants ({state})")
    for name in ("constant", "low", "value", "high", "unit", "node", "tag", "source"):
        numeric = name in (*_ENDS, "node")
        table.add_column(name, justify="right" if numeric else "left", overflow="fold")
    for constant in constants.by_name.values():
        table.add_row(
            constant.name,
            *(f"{getattr(constant, end):g}" for end in _ENDS),
            constant.unit,
            "" if constant.node_nm is None else f"{constant.node_nm:g} nm",
            constant.tag,
            constant.source,
        )
    return table
