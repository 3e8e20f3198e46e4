#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""What is in the recorded benchmark: accuracies, noise, fidelities, limits, fronts.

    python benches/recorded_statistics.py [--plot benches/results/recorded.png]

Everything is looked up in the table of `searchers.recorded`; nothing is trained.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.table import Table as Printed
from scipy.stats import spearmanr

from searchers.recorded import Table, recorded
from spaces.base import Candidate, Space
from spaces.costs import costs
from spaces.digits import digits_recorded
from spaces.limits import format_size, parse_size

LIMITS = ("0.5KB", "0.6KB", "0.8KB", "1KB", "1.2KB", "1.5KB", "2KB", "10KB")
BLUE, ORANGE, GREY = "#4e79a7", "#f28e2b", "#9a9aa0"


class Accuracies:
    """The table's accuracies in percent, and the sizes of its candidates in bits.

    Attributes:
        validation, test: [n, n_seeds, n_epochs].
        size_bits, macs: [n].
    """

    def __init__(self, space: Space, table: Table):
        self.space, self.table = space, table
        self.validation = 100 * table.validation / table.header["n_validation"]
        self.test = 100 * table.test / table.header["n_test"]
        choices = table.choices.astype(np.int64)
        self.size_bits = costs(space, choices, "size_bits")
        self.macs = costs(space, choices, "macs")

    def last(self, what: str) -> np.ndarray:
        """Means over the trainings after all epochs, [n]."""
        found: np.ndarray = getattr(self, what)[:, :, -1].mean(axis=1)
        return found

    def options(self, row: int) -> str:
        """The options of a candidate that differ from candidate to candidate."""
        candidate = Candidate(self.space.content_hash, tuple(self.table.choices[row].tolist()))
        chosen = self.space.options_of(candidate)
        several = [each.name for each in self.space.decisions if len(each.options) > 1]
        return " ".join(str(chosen[name]) for name in several)


def noise(values: np.ndarray) -> tuple[float, float]:
    """Standard deviations of trainings of one candidate, and of candidates without that noise.

    Args:
        values: [n, n_seeds].

    Source: analysis of variance with one random factor.
    """
    within = values.var(axis=1, ddof=1).mean()
    between = values.mean(axis=1).var(ddof=1) - within / values.shape[1]
    return float(np.sqrt(within)), float(np.sqrt(between))


def accuracies_table(found: Accuracies) -> Printed:
    """Quantiles over candidates, and noise, by data and epochs."""
    quantiles = (0, 0.05, 0.25, 0.5, 0.75, 0.95, 1)
    printed = Printed(title="accuracy in %, mean of the trainings of a candidate")
    headings = ("after epochs", *(f"{100 * q:.0f} %" for q in quantiles))
    for heading in ("data", *headings, "sd of seeds", "sd of candidates"):
        printed.add_column(heading, justify="left" if heading == "data" else "right")
    for what in ("validation", "test"):
        for i, epochs in enumerate(found.table.header["epochs"]):
            values = getattr(found, what)[:, :, i]
            shown = np.quantile(values.mean(axis=1), quantiles)
            figures = [f"{value:.1f}" for value in shown]
            spread = [f"{each:.2f}" for each in noise(values)]
            printed.add_row(what, str(epochs), *figures, *spread)
    return printed


def fidelities_table(found: Accuracies) -> Printed:
    """Rank correlation of one training after some epochs with what is to be found in the end."""
    title = "rank correlation with the mean test accuracy after all epochs"
    printed = Printed(title=title)
    names = ("one training, all", "one training, best quarter", "mean of trainings, all")
    for heading in ("validation after epochs", *names, "training CPU s"):
        printed.add_column(heading, justify="right")
    final = found.last("test")
    top = final >= np.quantile(final, 0.75)
    for i, epochs in enumerate(found.table.header["epochs"]):
        values = found.validation[:, :, i]
        single, best = (
            np.mean([spearmanr(column[rows], final[rows]).statistic for column in values.T])
            for rows in (slice(None), top)
        )
        mean = spearmanr(values.mean(axis=1), final).statistic
        seconds = found.table.train_ms[:, :, i].mean() / 1000
        figures = [f"{each:.2f}" for each in (single, best, mean, seconds)]
        printed.add_row(str(epochs), *figures)
    size = spearmanr(found.size_bits, final).statistic
    printed.caption = f"compressed size instead: {size:.2f}; MACs: "
    printed.caption += f"{spearmanr(found.macs, final).statistic:.2f}"
    return printed


def limits_table(found: Accuracies) -> Printed:
    """What a limit leaves, how good the best of it is, and what a perfect search would lose."""
    printed = Printed(title="limits on the compressed size; test accuracy in %")
    headings = ("limit", "candidates", "share %", "mean", "best", "best by validation", "of 1 %")
    for heading in headings:
        printed.add_column(heading, justify="right")
    test, validation = found.last("test"), found.last("validation")
    for limit in LIMITS:
        within = found.size_bits <= parse_size(limit)
        if not within.any():
            continue
        best = test[within].max()
        chosen = test[within][validation[within].argmax()]
        printed.add_row(
            limit,
            str(within.sum()),
            f"{100 * within.mean():.1f}",
            f"{test[within].mean():.2f}",
            f"{best:.2f}",
            f"{chosen:.2f}",
            str(int((test[within] >= best - 1).sum())),
        )
    printed.caption = (
        "best by validation: of the highest mean validation accuracy, which is all a search can "
        "know; of 1 %: candidates within one percentage point of the best"
    )
    return printed


def front(cost: np.ndarray, score: np.ndarray) -> list[int]:
    """Rows that no other beats in both, by rising cost."""
    order = np.lexsort((-score, cost))
    best = np.maximum.accumulate(np.r_[-np.inf, score[order][:-1]])
    return [int(row) for row in order[score[order] > best]]


def front_table(found: Accuracies) -> Printed:
    """The front of size and mean test accuracy."""
    several = [each.name for each in found.space.decisions if len(each.options) > 1]
    printed = Printed(title="front of compressed size and test accuracy")
    for heading in ("size", "stream", "cycles", "test %", "validation %", "options"):
        printed.add_column(heading, justify="left" if heading == "options" else "right")
    test, validation = found.last("test"), found.last("validation")
    for row in front(found.size_bits, test):
        printed.add_row(
            format_size(found.size_bits[row]),
            format_size(8 * found.table.stream_bytes[row].mean()),
            f"{found.table.cycles[row].mean():,.0f}",
            f"{test[row]:.2f}",
            f"{validation[row]:.2f}",
            found.options(row),
        )
    printed.caption = "options: " + ", ".join(several)
    return printed


def plot(found: Accuracies, path: Path) -> None:
    """All candidates by size and accuracy, and what short trainings say."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(11, 4), layout="constrained")
    by_size, by_epochs = figure.subplots(1, 2)
    test, kilobytes = found.last("test"), found.size_bits / 8000
    by_size.scatter(kilobytes, test, s=7, color=GREY, alpha=0.6, linewidths=0, label="candidates")
    best = front(found.size_bits, test)
    by_size.step(kilobytes[best], test[best], where="post", color=ORANGE, label="front")
    by_size.set_xscale("log")
    ticks = [each for each in (0.3, 0.5, 1, 2, 3, 5, 10) if each <= kilobytes.max() * 1.1]
    by_size.set_xticks(ticks, [str(each) for each in ticks], minor=False)
    by_size.set_xticks([], minor=True)
    by_size.set_xlabel("compressed size [KB]")
    by_size.set_ylabel("test accuracy [%]")
    by_size.set_title(f"{len(test)} candidates, mean of {found.test.shape[1]} trainings (tabular)")
    by_size.legend(loc="lower right")
    epochs = found.table.header["epochs"]
    spread = np.array([noise(found.validation[:, :, i]) for i in range(len(epochs))])
    by_epochs.plot(epochs, spread[:, 1], "o-", color=BLUE, label="between candidates")
    by_epochs.plot(epochs, spread[:, 0], "o-", color=ORANGE, label="between seeds")
    by_epochs.set_ylim(bottom=0)
    by_epochs.set_xlabel("epochs")
    by_epochs.set_ylabel("standard deviation of validation accuracy [points]")
    by_epochs.set_title("what there is to find, and the noise on it")
    by_epochs.legend()
    figure.savefig(path, dpi=110)


def main() -> None:
    """Print all tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--plot", type=Path)
    arguments = parser.parse_args()
    space, table = digits_recorded(), recorded()
    found, console = Accuracies(space, table), Console(width=118)
    origin = ", ".join(f"{name} {value}" for name, value in table.header["provenance"].items())
    console.print(f"{space.name}, tabular: {len(table.choices)} candidates, {origin}")
    for make in (accuracies_table, fidelities_table, limits_table, front_table):
        console.print(make(found))
    if arguments.plot:
        plot(found, arguments.plot)


if __name__ == "__main__":
    main()
