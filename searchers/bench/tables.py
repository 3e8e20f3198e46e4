# SPDX-License-Identifier: Apache-2.0
"""Results of benchmarks as tables on a terminal and as CSV."""

from __future__ import annotations

import csv
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.table import Table


def results_table(results: Mapping[str, Any]) -> Table:
    """A row for each problem and strategy: test score, rank, gains, hypervolume, with intervals."""
    from rich.table import Table

    problems = results["problems"]
    tabular = " (tabular)" if all(problem["is_tabular"] for problem in problems) else ""
    table = Table(title=f"test scores over seeds{tabular}, 95 % bootstrap intervals")
    first = results["protocol"]["searchers"][0]["name"]
    headings = {
        "problem": "left",
        "strategy": "left",
        **dict.fromkeys(
            ["seeds", "test", "mean rank", f"gain on {first}", "over one random %"], "right"
        ),
    }
    has_regret = any(problem["optimum"] is not None for problem in problems)
    if has_regret:
        headings["regret"] = "right"
    headings |= dict.fromkeys(["hypervolume %", "limit used %"], "right")
    for heading, side in headings.items():
        table.add_column(heading, justify="left" if side == "left" else "right")
    for problem in problems:
        unit, scale = problem["unit"]
        for i, row in enumerate(problem["rows"]):
            volume = row["hypervolume"].get("size_bits")
            table.add_row(
                f"{problem['name']}{' (tabular)' if problem['is_tabular'] else ''}"
                if not i
                else "",
                row["searcher"],
                str(row["n"]),
                interval(row["test"], scale, unit=unit),
                "" if row["mean_rank"] is None else f"{row['mean_rank']:.2f}",
                interval(row["gain"], scale, sign="+"),
                interval(row["relative_improvement"], 1, sign="+", digits=1),
                *([interval(row["regret"], scale)] if has_regret else []),
                interval(volume, 100, digits=1),
                f"{100 * row['limit_used']:.1f}",
            )
        table.add_section()
    return table


def interval(
    found: Mapping[str, float] | None,
    scale: float,
    *,
    sign: str = "",
    digits: int = 2,
    unit: str = "",
) -> str:
    """A mean and its interval, nothing for None.

    >>> interval({"mean": 0.95, "low": 0.94, "high": 0.97}, 100, unit="%")
    '95.00 % [94.00, 97.00]'
    """
    if found is None:
        return ""
    mean, low, high = (f"{scale * found[key]:{sign}.{digits}f}" for key in ("mean", "low", "high"))
    return f"{mean}{' ' if unit else ''}{unit} [{low}, {high}]"


def costs_table(results: Mapping[str, Any]) -> Table:
    """What each strategy took in all, its tuning included."""
    from rich.table import Table

    table = Table(title="cost of each strategy, all problems and seeds; final tests not counted")
    table.add_column("strategy")
    headings = ("trials", "images", "training CPU s", "own CPU s", "tuning images")
    for heading in (*headings, "tuning CPU s", "total images", "total CPU s"):
        table.add_column(heading, justify="right")
    for row in results["costs"]:
        table.add_row(
            row["searcher"],
            f"{row['trials']:,}",
            f"{row['images']:,}",
            f"{row['evaluation_cpu_s']:.1f}",
            f"{row['own_cpu_s']:.2f}",
            f"{row['tuning']['images']:,}",
            f"{row['tuning']['cpu_s']:.1f}",
            f"{row['total_images']:,}",
            f"{row['total_cpu_s']:.1f}",
        )
    return table


CSV_HEADER = (
    *("task", "measure", "limit", "searcher", "seed", "n_trials", "n_images", "best_trial", "cost"),
    *("validation_score", "test_score", "wall_s", "cpu_s", "search_wall_s", "search_cpu_s"),
)


def write_csv(results: Mapping[str, Any], path: Path) -> None:
    """One row for each study."""
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, CSV_HEADER)
        writer.writeheader()
        for cell in results["cells"]:
            best = cell["best"] or {}
            writer.writerow(
                {
                    **{name: cell[name] for name in CSV_HEADER if name in cell},
                    "measure": cell["limit"]["measure"],
                    "limit": cell["limit"]["most"],
                    "best_trial": best.get("index"),
                    "cost": best.get("costs", {}).get(cell["limit"]["measure"]),
                    "validation_score": best.get("score"),
                }
            )
