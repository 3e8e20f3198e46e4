# SPDX-License-Identifier: Apache-2.0
"""Comparisons with Arm's compiler as tables for people."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Final

from npusim.validate import MEASURES, WHERE, Comparison, summaries

if TYPE_CHECKING:
    from rich.table import Table

COLUMNS: Final = (
    *WHERE,
    *(column for name in MEASURES for column in (name, f"vela_{name}", f"{name}_error")),
    "obstacle",
)
"""Columns of `Comparison.to_json`."""
_TITLES: Final = {
    **{"total_cycles": "cycles", "npu_cycles": "NPU cycles"},
    **{"sram_peak_bytes": "SRAM", "dram_peak_bytes": "DRAM", "flash_bytes": "flash"},
}


def comparison_table(comparisons: Sequence[Comparison]) -> Table:
    """A row for each model and machine."""
    from rich.table import Table

    table = Table(title="npusim beside Vela (regor)")
    table.add_column("model", overflow="fold", min_width=12)
    for name in ("npu", "system config", "memory mode"):
        table.add_column(name, no_wrap=True)
    shown = [name for name in MEASURES if name != "npu_cycles" and _occurs(name, comparisons)]
    for name in shown:
        table.add_column(_TITLES[name], justify="right", no_wrap=True)
        table.add_column("Vela's", justify="right", no_wrap=True)
        table.add_column("error", justify="right", no_wrap=True)
    for found in comparisons:
        cells = [getattr(found, name) for name in WHERE]
        for name in shown:
            ours = "" if found.ours is None else f"{found.ours[name]:,}"
            theirs = "" if found.theirs is None else f"{found.theirs[name]:,}"
            cells += [ours, theirs, _percent(found.error(name))]
        table.add_row(*cells)
    return table


def summary_table(comparisons: Sequence[Comparison]) -> Table:
    """A row for each measure with its errors."""
    from rich.table import Table

    table = Table(title=f"errors of {len(comparisons):,} comparisons")
    table.add_column("measure")
    for name in ("compared", "exact", "MAPE", "largest"):
        table.add_column(name, justify="right")
    for found in summaries(comparisons):
        if not _occurs(found.measure, comparisons):
            continue
        largest = f"{100 * found.largest:.4f} %"
        counts = (f"{found.n:,}", f"{found.n_exact:,}")
        table.add_row(_TITLES[found.measure], *counts, f"{100 * found.mape:.4f} %", largest)
    return table


def _occurs(measure: str, comparisons: Sequence[Comparison]) -> bool:
    """Whether a measure is told: DRAM only where there is one."""
    both = [side for found in comparisons for side in (found.ours, found.theirs) if side]
    return measure != "dram_peak_bytes" or any(side[measure] for side in both)


def notes(comparisons: Sequence[Comparison]) -> list[str]:
    """A line for each model that could not be compared."""
    lines = [f"{c.model} on {c.npu}: {c.obstacle}" for c in comparisons if c.obstacle]
    return list(dict.fromkeys(lines))


def to_json(comparisons: Sequence[Comparison]) -> dict[str, Any]:
    """JSON values: every comparison, and the errors by measure."""
    return {
        "comparisons": [found.to_json() for found in comparisons],
        "summary": {found.measure: found.to_json() for found in summaries(comparisons)},
    }


def _percent(share: float | None) -> str:
    if share is None:
        return ""
    return "0" if share == 0 else f"{100 * share:+.3f} %"
