# SPDX-License-Identifier: Apache-2.0
"""Sweeps over machines as tables for people, rows for CSV and plots."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Final

from npusim.cost.what_if import MEASURES, Axis, HardwareSweep, SweepPoint
from npusim.report.plots import matplotlib_module, save

if TYPE_CHECKING:
    from rich.table import Table

_GREY, _RED = "#bbbbbb", "#cc3311"
_LABELS_MAX: Final = 24
"""Best machines in a plot beyond which they are not named one by one."""


def n_machines(axes: Sequence[Axis]) -> int:
    """How many machines axes span."""
    return math.prod(len(axis.values) for axis in axes)


def sweep_columns(axes: Sequence[Axis]) -> tuple[str, ...]:
    """Columns of `sweep_rows`."""
    return ("model", *(axis.name for axis in axes), *MEASURES, "fits", "pareto", "obstacle")


def sweep_rows(found: HardwareSweep) -> list[dict[str, Any]]:
    """A flat row for each machine."""
    return [{"model": found.model, **point.to_json()} for point in found.points]


def sweep_table(found: HardwareSweep) -> Table:
    """A row for each machine; stars mark those that no other one beats."""
    from rich.table import Table

    n_best = sum(point.is_best for point in found.points)
    table = Table(
        title=f"{found.model} on {len(found.points):,} machines",
        caption=f"* {n_best:,} that no other one beats in {', '.join(found.objectives)}",
    )
    table.add_column("", no_wrap=True)
    for axis in found.axes:
        table.add_column(axis.name, justify="right", no_wrap=True)
    for name in ("cycles", "ms", "SRAM KiB", "flash KiB"):
        table.add_column(name, justify="right", no_wrap=True)
    if any(point.obstacle for point in found.points):
        table.add_column("cannot run", overflow="fold")
    for point in found.points:
        row = ["*" if point.is_best else "", *(_text(value) for value in point.values.values())]
        cost = point.cost
        if cost is None:
            table.add_row(*row, "", "", "", "", point.obstacle)
            continue
        table.add_row(
            *row,
            f"{cost.total_cycles:,}",
            f"{1000 * cost.inference_s:,.3f}",
            f"{cost.sram_peak_bytes / 1024:,.1f}" + ("" if cost.fits else " (too large)"),
            f"{cost.flash_bytes / 1024:,.1f}",
        )
    return table


def _text(value: Any) -> str:
    return f"{value:,.10g}" if isinstance(value, (int, float)) else str(value)


def plot_sweeps(found: Sequence[HardwareSweep], path: str) -> None:
    """Draw time against the other thing that differs most, best machines in front and named.

    Raises:
        ConfigError: `path` cannot be written.
        MissingExtraError: matplotlib is not installed.
    """
    figure = matplotlib_module().figure.Figure(figsize=(9, 5.5 * len(found)), layout="constrained")
    panels = figure.subplots(len(found), 1, squeeze=False)[:, 0]
    for axes, sweep in zip(panels, found, strict=True):
        _plot_sweep(axes, sweep)
    save(figure, path)


def _plot_sweep(axes: Any, sweep: HardwareSweep) -> None:
    points = [point for point in sweep.points if point.cost is not None]
    other = _second_objective(sweep, points)
    for best, color, size in ((False, _GREY, 18), (True, _RED, 40)):
        group = [point for point in points if point.is_best is best]
        axes.scatter(
            [point.objective(other) for point in group],
            [1000 * point.objective("inference_s") for point in group],
            color=color,
            s=size,
            edgecolors="black",
            linewidths=0.4,
            zorder=2 + best,
            label="that no other one beats" if best else "others",
        )
    named = [point for point in points if point.is_best]
    for point in named if len(named) <= _LABELS_MAX else ():
        text = ", ".join(_text(value) for value in point.values.values())
        place = (point.objective(other), 1000 * point.objective("inference_s"))
        axes.annotate(text, place, (4, 3), textcoords="offset points", fontsize=6)
    axes.margins(x=0.15, y=0.1)
    axes.set_xlabel(other.replace("_", " "))
    axes.set_ylabel("time, ms")
    axes.set_title(
        f"{sweep.model} on {len(points):,} machines; minimised: {', '.join(sweep.objectives)}",
        fontsize=10,
    )
    axes.legend(fontsize=8)


def _second_objective(sweep: HardwareSweep, points: Sequence[SweepPoint]) -> str:
    """What beside time is minimised and takes the most values; SRAM if nothing is."""
    names = [name for name in sweep.objectives if name not in ("inference_s", "total_cycles")]
    if not names:
        return "sram_peak_bytes"
    return max(names, key=lambda name: len({point.objective(name) for point in points}))
