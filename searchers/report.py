# SPDX-License-Identifier: Apache-2.0
"""Results of searches as tables and plots."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from npusim.errors import MissingExtraError
from searchers.base import Trial
from searchers.study import Study, StudyResult
from spaces.limits import format_size

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
        title=f"{study.searcher} on {_space(result)} within {_within(study)}, "
        f"seed {study.seed}: best of {len(result.history)} trials"
    )
    unit, scale = unit_of((trial.score, trial.metrics) for trial in result.history)
    test = result.test
    test_unit, test_scale = unit_of(() if test is None else [(test.score, test.metrics)])
    score = f"validation {unit}" if unit else "score"
    for heading in ("trial", score, f"test {test_unit}", "size", "limit used %", "MACs"):
        table.add_column(heading, justify="right")
    ranked = sorted((t for t in result.history if t.valid), key=lambda t: -t.merit)
    for i, trial in enumerate(ranked[:TOP]):
        used = trial.costs[study.limit.measure] / study.limit.most
        table.add_row(
            str(trial.index),
            f"{scale * trial.merit:.2f}" if unit else f"{trial.merit:.6g}",
            f"{test_scale * test.score:.2f}" if test is not None and i == 0 else "",
            format_size(trial.costs["size_bits"]),
            f"{100 * used:.1f}",
            f"{trial.costs['macs']:,}",
        )
    return table


def _within(study: Study) -> str:
    """All limits of a study, in words."""
    return ", ".join(map(str, (study.limit, *study.further)))


def unit_of(scored: Iterable[tuple[float | None, Mapping[str, float]]]) -> tuple[str, float]:
    """Unit that scores are shown in, and what they are multiplied by.

    Percent for accuracies, dB for PSNR, nothing for what else evaluators say.

    Args:
        scored: scores with the metrics that came with them.

    >>> unit_of([(0.9, {"accuracy": 0.9, "loss": 0.1})])
    ('%', 100.0)
    """
    known = list(scored)
    for name, unit, scale in (("accuracy", "%", 100.0), ("psnr", "dB", 1.0)):
        if known and all(metrics.get(name) == score for score, metrics in known):
            return unit, scale
    return "", 1.0


def _space(result: StudyResult) -> str:
    return result.study.space.name + (" (tabular)" if result.is_tabular else "")


def plot_study(result: StudyResult, path: Path) -> None:
    """Cost against validation score of all trials, the best one and the limit marked."""
    from matplotlib.ticker import MaxNLocator

    figure, ((axes,),) = figure_of()
    study = result.study
    valid = [trial for trial in result.history if trial.valid]
    unit, scale = unit_of((trial.score, trial.metrics) for trial in result.history)
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
    axes.set_title(f"{study.searcher} on {_space(result)}, seed {study.seed}")
    axes.legend(loc="lower right")
    figure.savefig(path, dpi=120)


def figure_of(columns: int = 1, rows: int = 1) -> tuple[Figure, list[list[Axes]]]:
    """A figure and its panels, by row; those of a row share their vertical axis."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6.4 * columns, 4.8 * rows), layout="constrained")
    return figure, figure.subplots(rows, columns, sharey="row", squeeze=False).tolist()
