# SPDX-License-Identifier: Apache-2.0
"""Calibrations of the cost model, and AXI beats beside published ones, as tables for people."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from npusim.cost.axi import axi_beats
from npusim.cost.calibrate import Calibration, PublishedPoint
from npusim.cost.result import Cost

if TYPE_CHECKING:
    from rich.table import Table

BEAT_COLUMNS = ("model", "port", "direction", "predicted_beats", "published_beats", "error")
"""Columns of `beat_rows`."""


def calibration_table(calibration: Calibration) -> Table:
    """A row for each point with its errors; what was fitted, and how little is left to test it."""
    from rich.table import Table

    table = Table(
        title="cycles, model to measured", caption=calibration_text(calibration), show_footer=True
    )
    table.add_column("network", "largest")
    table.add_column("measured", justify="right", no_wrap=True)
    columns = {"before": "before the fit", "after": "after", "left_out": "fitted to the others"}
    for what, title in columns.items():
        largest = max(calibration.errors(what), key=abs)
        table.add_column(title, _percent(largest), justify="right", no_wrap=True)
    for i, (name, measured) in enumerate(zip(calibration.names, calibration.measured, strict=True)):
        errors = (_percent(calibration.errors(what)[i]) for what in columns)
        table.add_row(name, f"{measured:,.0f}", *errors)
    return table


def calibration_text(calibration: Calibration) -> str:
    """What was fitted, in one line."""
    fitted = ", ".join(
        f"{name} {getattr(calibration.corrections, name):.4g} ({low:.4g}..{high:.4g})"
        for name, (low, high) in calibration.ranges.items()
    )
    n_points, free = len(calibration.measured), calibration.degrees_of_freedom
    text = (
        f"{fitted}; {len(calibration.parameters)} parameters from {n_points} points leave {free} "
    )
    text += f"degree{'s' * (free != 1)} of freedom; expect {_percent(calibration.band, sign=False)}"
    if calibration.without_effect:
        text += f"; without effect: {', '.join(calibration.without_effect)}"
    return text


def beat_rows(cost: Cost, published: PublishedPoint) -> list[dict[str, Any]]:
    """Beats of a network beside those that were published: a row for each port and direction."""
    beats = axi_beats(cost)
    pairs = (
        ("axi0", "read", beats["axi0"].read, published.axi0_read_beats),
        ("axi0", "written", beats["axi0"].written, published.axi0_written_beats),
        ("axi1", "read", beats["axi1"].read, published.axi1_read_beats),
    )
    return [
        dict(zip(BEAT_COLUMNS, (cost.model, *pair, pair[2] / pair[3] - 1), strict=True))
        for pair in pairs
    ]


def beat_table(rows: Sequence[dict[str, Any]]) -> Table:
    """Rows of `beat_rows`."""
    from rich.table import Table

    table = Table(title="AXI beats of an inference")
    for name in BEAT_COLUMNS:
        text = name in BEAT_COLUMNS[:3]
        table.add_column(name.replace("_", " "), justify="left" if text else "right")
    for row in rows:
        table.add_row(
            *(row[name] for name in BEAT_COLUMNS[:3]),
            f"{row['predicted_beats']:,}",
            f"{row['published_beats']:,}",
            _percent(row["error"]),
        )
    return table


def _percent(share: float, *, sign: bool = True) -> str:
    return f"{100 * share:+.1f} %" if sign else f"±{100 * abs(share):.1f} %"
