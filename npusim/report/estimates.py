# SPDX-License-Identifier: Apache-2.0
"""Costs of networks on machines with all that was asked of them: tables, rows, JSON, a plot."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Final

from npusim._arguments import choice
from npusim.cost.energy import COMPONENTS, Energy
from npusim.cost.explain import STAGES, bound_shares, op_waterfall, waterfall
from npusim.cost.result import Cost, memory_role
from npusim.cost.sensitivity import Sensitivity
from npusim.errors import ConfigError
from npusim.hardware import Machine
from npusim.report import costs as report
from npusim.report.energy import component_table, energy_rows, energy_table

if TYPE_CHECKING:
    from rich.table import Table

    from npusim.cost.explain import WidthSteps

PLOT_KINDS: Final = ("layers", "roofline", "memory", "waterfall")
_STAGE_COLUMNS: Final = tuple(f"{stage}_stage_cycles" for stage in STAGES)
_BAND_COLUMNS: Final = tuple(
    f"{name}_uj_{end}" for name in ("energy", *COMPONENTS) for end in ("low", "value", "high")
)
SENSITIVITY_COLUMNS: Final = (
    *("model", "npu", "system_config", "memory_mode", "name", "value", "low", "high"),
    *("total_cycles", "low_cycles", "high_cycles", "inference_s", "low_s", "high_s"),
    *("slope", "elasticity"),
)
"""Columns of `sensitivity_rows`."""


@dataclass(frozen=True, slots=True)
class Estimate:
    """A network on a machine.

    Attributes:
        cost: what it costs.
        target: the machine.
        overrides: fields of it that are not as its names say.
        energy: of an inference, if asked for.
        sensitivities: if asked for.
        widths: of layers, by name, if asked for.
        assumed_weights: what weights are taken to be instead of what they are, or None.
    """

    cost: Cost
    target: Machine
    overrides: Mapping[str, Any] = field(default_factory=dict)
    energy: Energy | None = None
    sensitivities: tuple[Sensitivity, ...] = ()
    widths: Mapping[str, WidthSteps] = field(default_factory=dict)
    assumed_weights: str | None = None

    def to_json(self, *, explain: bool = False) -> dict[str, Any]:
        """JSON values: those of `Cost.to_json` and what else there is."""
        record = {**self.cost.to_json(), "overrides": dict(self.overrides)}
        record["assumed_weights"] = self.assumed_weights
        if explain:
            record["waterfall"] = waterfall(self.cost, self.target.npu).to_json()
            record["bounds"] = [
                {"bound": s.bound, "n_ops": s.n_ops, "cycles": s.cycles, "share": s.share}
                for s in bound_shares(self.cost)
            ]
        if self.energy is not None:
            record["energy"] = self.energy.to_json()
        if self.sensitivities:
            record["sensitivities"] = [each.to_json() for each in self.sensitivities]
        if self.widths:
            record["widths"] = {name: steps.to_json() for name, steps in self.widths.items()}
        return record


def sorted_by(found: Estimate, column: str) -> Estimate:
    """The same with its operations in another order, see `npusim.report.costs.sorted_ops`."""
    order = report.op_order(found.cost, column, found.target.npu)
    cost = replace(found.cost, ops=tuple(found.cost.ops[i] for i in order))
    energy = found.energy
    if energy is not None:
        energy = replace(energy, ops=tuple(energy.ops[i] for i in order))
    return replace(found, cost=cost, energy=energy)


def op_columns(*, explain: bool, energy: bool) -> tuple[str, ...]:
    """Columns of `op_rows`."""
    stages, bands = _STAGE_COLUMNS if explain else (), _BAND_COLUMNS if energy else ()
    return (*report.ROW_COLUMNS, *stages, *bands)


def cost_columns(*, explain: bool, energy: bool) -> tuple[str, ...]:
    """Columns of `cost_rows`."""
    stages, bands = _STAGE_COLUMNS if explain else (), _BAND_COLUMNS if energy else ()
    return (*report.COST_COLUMNS, *stages, *bands)


def op_rows(found: Estimate, *, explain: bool) -> list[dict[str, Any]]:
    """A flat row for each operation, with its stages and energies if they are there."""
    rows = report.op_rows(found.cost, found.target.npu)
    if explain:
        for row, op in zip(rows, found.cost.ops, strict=True):
            row |= _stages(op_waterfall(op, found.target.npu).cycles_by_stage)
    if found.energy is not None:
        for row, energy in zip(rows, energy_rows(found.energy), strict=True):
            row |= {name: energy[name] for name in _BAND_COLUMNS}
    return rows


def cost_rows(found: Sequence[Estimate], *, explain: bool) -> list[dict[str, Any]]:
    """A flat row for each network and machine."""
    rows = report.cost_rows([each.cost for each in found], [each.target.npu for each in found])
    for row, each in zip(rows, found, strict=True):
        if explain:
            row |= _stages(waterfall(each.cost, each.target.npu).cycles_by_stage)
        if each.energy is not None:
            bands = {"energy": each.energy.total_pj, **each.energy.by_component}
            for what, band in bands.items():
                row |= {
                    f"{what}_uj_{end}": getattr(band, end) / 1e6 for end in ("low", "value", "high")
                }
    return rows


def _stages(cycles: Mapping[str, float]) -> dict[str, float]:
    return {f"{stage}_stage_cycles": value for stage, value in cycles.items()}


def tables(found: Sequence[Estimate], *, per_op: bool, explain: bool) -> list[Table | str]:
    """What people read: tables and lines."""
    parts: list[Table | str] = []
    if per_op:
        parts += [report.op_table(each.cost, each.target.npu) for each in found]
    if len(found) > 1 or not per_op:
        costs, machines = [each.cost for each in found], [each.target.npu for each in found]
        parts.append(report.cost_table(costs, machines))
    if explain:
        for each in found:
            parts.append(report.waterfall_table(waterfall(each.cost, each.target.npu)))
            parts.append(report.bound_table(each.cost))
    energies = [each.energy for each in found if each.energy is not None]
    if energies:
        parts += [energy_table(energy) for energy in energies] if per_op else []
        parts.append(component_table(energies))
    parts += [sensitivity_table(each) for each in found if each.sensitivities]
    parts += [width_text(name, steps) for each in found for name, steps in each.widths.items()]
    if found and found[0].overrides:
        changed = ", ".join(f"{name}={value}" for name, value in found[0].overrides.items())
        parts.append(f"hardware differs from its presets in {changed}")
    if found and found[0].assumed_weights is not None:
        parts.append(f"weights are not the model's, but of {found[0].assumed_weights}")
    lines = [line for each in found for line in report.notes(each.cost)]
    return [*parts, *dict.fromkeys(lines)]


def sensitivity_rows(found: Sequence[Estimate]) -> list[dict[str, Any]]:
    """A flat row for each thing of the hardware that was changed."""
    rows = []
    for each in found:
        where = {name: getattr(each.cost, name) for name in SENSITIVITY_COLUMNS[:4]}
        rows += [{**where, **sensitivity.to_json()} for sensitivity in each.sensitivities]
    return rows


def sensitivity_table(found: Estimate) -> Table:
    """What less and more of each thing of the hardware does, the most influential first."""
    from rich.table import Table

    cost = found.cost
    table = Table(
        title=f"{cost.model} on {cost.npu}: what {cost.total_cycles:,} cycles depend on",
        caption="elasticity: per cent of time for each per cent more; -1: all of the time",
    )
    table.add_column("what", no_wrap=True)
    for name in ("value", "less", "cycles", "more", "cycles", "cycles per unit", "elasticity"):
        table.add_column(name, justify="right", no_wrap=True)
    for each in found.sensitivities:
        table.add_row(
            each.name,
            *(_number(each.value), _number(each.low), _number(each.low_cycles)),
            *(_number(each.high), _number(each.high_cycles)),
            "" if each.slope is None else f"{each.slope:+,.4g}",
            "" if each.elasticity is None else f"{each.elasticity:+.3f}",
        )
    return table


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:,.10g}"


def width_text(name: str, steps: WidthSteps) -> str:
    """A layer's next cheaper width, and the widest that costs nothing, in one line."""
    text = f"{name}: {steps.width} channels, {steps.cost:,.0f} cycles in all"
    if steps.narrower is None or steps.narrower_cost is None:
        text += "; no narrower layer saves as much as was asked for"
    else:
        saved = 1 - steps.narrower_cost / steps.cost
        text += f"; {steps.narrower} channels: {steps.narrower_cost:,.0f} (-{100 * saved:.1f} %)"
    if steps.widest_free > steps.width:
        text += f"; up to {steps.widest_free} channels cost no more"
    return text


def plot(found: Sequence[Estimate], kind: str, path: str) -> None:
    """Draw a picture of one of `PLOT_KINDS`; all but the first are of one network on one machine.

    Raises:
        ConfigError: there are several, or `path` cannot be written.
        MissingExtraError: matplotlib is not installed.
        UnknownNameError: no such kind.
    """
    from npusim.report import cost_plots

    choice("--plot-kind", kind, PLOT_KINDS)
    if kind == "layers":
        machines = [each.target.npu for each in found]
        cost_plots.plot_op_cycles([each.cost for each in found], path, machines)
        return
    if len(found) > 1:
        raise ConfigError(f"plot {kind!r} must be of one model on one NPU, got {len(found)}")
    cost, target = found[0].cost, found[0].target
    if kind == "memory":
        cost_plots.plot_memory(cost, path)
    elif kind == "waterfall":
        cost_plots.plot_waterfall(cost, path, target.npu)
    else:
        memories = (target.feature_maps, target.constants, target.staging)
        bandwidths = {memory_role(memory.name): memory.bytes_per_cycle for memory in memories}
        cost_plots.plot_roofline(cost, path, bandwidths, target.npu)
