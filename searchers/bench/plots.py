# SPDX-License-Identifier: Apache-2.0
"""Anytime curves of a benchmark as a picture."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from searchers.bench.curves import AXES, curves
from searchers.report import figure_of


def plot_curves(results: Mapping[str, Any], path: Path) -> None:
    """Best score so far with 95 % bands: a row for each problem; by trials, images, seconds."""
    problems = results["problems"]
    drawn = {axis: rows for axis in AXES if (rows := curves(results, axis))} or {"trials": []}
    figure, panels = figure_of(columns=len(drawn), rows=len(problems))
    for i, problem in enumerate(problems):
        unit, scale = problem["score_unit"]
        tabular = ", tabular" if problem["is_tabular"] else ""
        for axes, (axis, rows) in zip(panels[i], drawn.items(), strict=True):
            own = [row for row in rows if row["problem"] == problem["name"]]
            for name in dict.fromkeys(row["searcher"] for row in own):
                points = [row for row in own if row["searcher"] == name]
                spent = [row["spent"] for row in points]
                low, mean, high = (
                    [scale * row[key] for row in points] for key in ("low", "mean", "high")
                )
                (line,) = axes.step(spent, mean, where="post", label=name)
                axes.fill_between(spent, low, high, step="post", alpha=0.2, color=line.get_color())
            axes.set_xlabel(AXES[axis])
            axes.set_title(f"{problem['name']}{tabular}")
            if own:
                axes.legend(loc="lower right")
        panels[i][0].set_ylabel(f"best score so far{f' [{unit}]' if unit else ''}")
    figure.savefig(path, dpi=90)
