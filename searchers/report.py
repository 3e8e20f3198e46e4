# SPDX-License-Identifier: Apache-2.0
"""Results as tables, plots and files."""

from __future__ import annotations

import csv
import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from npusim.errors import MissingExtraError
from searchers.base import Evaluation, Trial
from searchers.bench import REFERENCE
from searchers.stats import bootstrap_mean
from searchers.study import Study, StudyResult
from spaces.limits import Limit, format_size

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from rich.table import Table

TOP = 5
"""Trials listed in the table of a search."""


def require_plots() -> None:
    """Raise MissingExtraError where matplotlib is not installed."""
    try:
        import matplotlib  # noqa: F401
    except ImportError as error:
        raise MissingExtraError("a plot", "plot", error) from error


def study_table(result: StudyResult) -> Table:
    """The best trials of a search, the first with its test accuracy."""
    from rich.table import Table

    study = result.study
    table = Table(
        title=f"{study.searcher} on {study.space.name} within {_within(study)}, "
        f"seed {study.seed}: best of {len(result.history)} trials"
    )
    unit, scale = _unit(result.history)
    test_unit, test_scale = _unit(() if result.test is None else (result.test,))
    score = f"validation {unit}" if unit else "score"
    for heading in ("trial", score, f"test {test_unit}", "size", "limit used %", "MACs"):
        table.add_column(heading, justify="right")
    ranked = sorted((t for t in result.history if t.valid), key=lambda t: -t.merit)
    for i, trial in enumerate(ranked[:TOP]):
        used = trial.costs[study.limit.measure] / study.limit.most
        tested = result.test is not None and i == 0
        table.add_row(
            str(trial.index),
            f"{scale * trial.merit:.2f}" if unit else f"{trial.merit:.6g}",
            f"{test_scale * result.test.score:.2f}" if result.test is not None and tested else "",
            format_size(trial.costs["size_bits"]),
            f"{100 * used:.1f}",
            f"{trial.costs['macs']:,}",
        )
    return table


def _within(study: Study) -> str:
    """All limits of a study, in words."""
    return ", ".join(map(str, (study.limit, *study.further)))


def _unit(scored: Iterable[Trial | Evaluation]) -> tuple[str, float]:
    """Unit that scores are shown in, and what they are multiplied by.

    Percent for accuracies, dB for PSNR, nothing for what else evaluators say.
    """
    for name, unit, scale in (("accuracy", "%", 100.0), ("psnr", "dB", 1.0)):
        if all(each.metrics.get(name) == each.score for each in scored):
            return unit, scale
    return "", 1.0


def plot_study(result: StudyResult, path: Path) -> None:
    """Cost against validation score of all trials, the best one and the limit marked."""
    from matplotlib.ticker import MaxNLocator

    figure, (axes,) = _figure()
    study = result.study
    valid = [trial for trial in result.history if trial.valid]
    unit, scale = _unit(result.history)
    in_kb = study.limit.measure == "size_bits"
    part = 8000 if in_kb else 1

    def cost(trial: Trial) -> float:
        return trial.costs[study.limit.measure] / part

    points = axes.scatter(
        [cost(trial) for trial in valid],
        [scale * trial.merit for trial in valid],
        c=[trial.index for trial in valid],
        cmap="viridis",
    )
    figure.colorbar(points, ax=axes, label="trial", ticks=MaxNLocator(integer=True))
    if result.best is not None:
        best = (cost(result.best), scale * result.best.merit)
        axes.scatter(*best, s=180, facecolors="none", edgecolors="tab:red", label="best")
    axes.axvline(study.limit.most / part, color="tab:red", linestyle="--", label="limit")
    axes.set_xlabel("compressed size [KB]" if in_kb else study.limit.measure)
    what = {"%": "validation accuracy [%]", "dB": "validation PSNR [dB]", "": "score"}
    axes.set_ylabel(what[unit])
    axes.set_title(f"{study.searcher} on {study.space.name}, seed {study.seed}")
    axes.legend(loc="lower right")
    figure.savefig(path, dpi=120)


def bench_table(results: Mapping[str, Any]) -> Table:
    """Test accuracy by limit and strategy, with intervals over seeds.

    Gains are percentage points, paired by seed; "over one random" is the relative improvement in
    percent over the average random candidate.
    """
    from rich.table import Table

    table = Table(title="test accuracy over seeds, 95 % bootstrap intervals")
    table.add_column("limit", justify="right")
    table.add_column("strategy")
    gain = f"gain on {results['cells'][0]['searcher']} %"
    for heading in ("seeds", "accuracy %", gain, "over one random %", "limit used %"):
        table.add_column(heading, justify="right")
    previous = None
    for row in results["summary"]:
        limit = Limit(results["cells"][0]["limit"]["measure"], row["limit"])
        if previous not in (None, row["limit"]):
            table.add_section()
        previous = row["limit"]
        improvement = row["relative_improvement"]
        table.add_row(
            str(limit),
            row["searcher"],
            str(row["n"]),
            _interval(row["accuracy"]),
            "" if row["gain"] is None else _interval(row["gain"], sign="+"),
            "" if improvement is None else f"{improvement:+.1f}",
            f"{100 * row['limit_used']:.1f}",
        )
    return table


def _interval(found: Mapping[str, float], sign: str = "") -> str:
    mean, low, high = (100 * found[key] for key in ("mean", "low", "high"))
    return f"{mean:{sign}.1f} [{low:{sign}.1f}, {high:{sign}.1f}]"


def plot_bench(results: Mapping[str, Any], path: Path) -> None:
    """Best validation accuracy so far against trials: mean over seeds and 95 % band."""
    limits = list(dict.fromkeys(cell["limit"]["most"] for cell in results["cells"]))
    figure, panels = _figure(columns=len(limits))
    for axes, most in zip(panels, limits, strict=True):
        cells = [cell for cell in results["cells"] if cell["limit"]["most"] == most]
        for label in dict.fromkeys(cell["searcher"] for cell in cells):
            if label != REFERENCE:
                _plot_curve(axes, label, [c for c in cells if c["searcher"] == label])
        axes.set_title(f"limit {Limit(cells[0]['limit']['measure'], most)}")
        axes.set_xlabel("trials")
        axes.legend(loc="lower right")
    panels[0].set_ylabel("best validation accuracy so far [%]")
    figure.savefig(path, dpi=120)


def _plot_curve(axes: Axes, label: str, cells: Sequence[Mapping[str, Any]]) -> None:
    n_trials = min(len(cell["best_scores"]) for cell in cells)
    scores = np.array(
        [[math.nan if s is None else s for s in c["best_scores"][:n_trials]] for c in cells]
    )
    known = ~np.isnan(scores).any(axis=0)
    bands = [bootstrap_mean(100 * column) for column in scores[:, known].T]
    trials = 1 + np.flatnonzero(known)
    (line,) = axes.plot(trials, [band.mean for band in bands], label=label)
    axes.fill_between(
        trials,
        [band.low for band in bands],
        [band.high for band in bands],
        alpha=0.2,
        color=line.get_color(),
    )


def write_bench_csv(results: Mapping[str, Any], path: Path) -> None:
    """One row for each study."""
    rows = [_csv_row(cell) for cell in results["cells"]]
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, rows[0])
        writer.writeheader()
        writer.writerows(rows)


def _csv_row(cell: Mapping[str, Any]) -> dict[str, Any]:
    best, test = cell["best"] or {}, cell["test"] or {}
    return {
        "measure": cell["limit"]["measure"],
        "limit": cell["limit"]["most"],
        "searcher": cell["searcher"],
        "seed": cell["seed"],
        "n_trials": cell["n_trials"],
        "n_images": cell["n_images"],
        "best_trial": best.get("index"),
        "cost": best.get("costs", {}).get(cell["limit"]["measure"]),
        "validation_accuracy": best.get("score"),
        "test_accuracy": test.get("accuracy"),
        "cpu_s": cell["cpu_s"],
        "wall_s": cell["wall_s"],
    }


def _figure(columns: int = 1) -> tuple[Figure, list[Axes]]:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6.4 * columns, 4.8), layout="constrained")
    return figure, list(figure.subplots(1, columns, sharey=True, squeeze=False)[0])
