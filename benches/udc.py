# SPDX-License-Identifier: Apache-2.0
"""The figures of the UDC paper beside ours.

    python benches/udc.py table2
    python benches/udc.py tune
    python benches/udc.py ablation
    python benches/udc.py train
    python benches/udc.py summary

Raw results go to ``benches/results/udc_NAME``; all but the first go on where they stopped.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import Any

import click
import numpy as np
import torch

import spaces
from searchers.data import load
from searchers.evaluators import TrainConfig, training
from searchers.training import recipes
from searchers.training.tasks import Classification
from searchers.udc.config import ROWS, UdcConfig, config
from searchers.udc.cost import RelaxedCost
from searchers.udc.projection import project, xi
from searchers.udc.result import decode
from searchers.udc.sampling import Decisions, Noise, draw
from searchers.udc.search import Search
from spaces.base import Space
from spaces.costs import costs
from spaces.feasible import feasible_set
from spaces.limits import Limit

RESULTS = Path(__file__).parent / "results"

TABLE2 = np.array([[0.04, 0.33, 0.27, 0.18], [0.53, 0.61, 0.60, 0.59]])
"""[UDC] Table 2: rows tau, columns xi and theta."""
TEMPERATURES = (0.66, 10.0)
COLUMNS = ((None, 0.0), (0.5, 0.0), (0.5, 0.5), (0.5, 0.99))
READINGS = {
    "A": ({}, "0.5MB", "MB", {}),
    "B": ({"widen": 1.5, "kernel": 5}, "1.25MB", "relative", {"count_input_width": False}),
    "as printed": ({}, "0.5MB", "MB", {"bound": "as_printed"}),
}
"""What the paper leaves open: network, target, unit of the penalty, what `RelaxedCost` counts."""
PEAKS = (0.8, 0.85, 0.9, 0.93, 0.95, 0.96, 0.97, 0.975, 0.98, 0.985, 0.99, 0.995, 0.998)
N_CANDIDATES, N_SAMPLES = 24, 32


@click.group()
def main() -> None:
    """Reproduce figures of the UDC paper."""


def save(name: str, found: dict[str, Any]) -> None:
    """Keep raw results."""
    RESULTS.mkdir(exist_ok=True)
    path = RESULTS / f"udc_{name}.json"
    path.write_text(json.dumps(found, indent=1) + "\n")
    click.echo(f"raw results in {path.relative_to(RESULTS.parent.parent)}")


@main.command()
def table2() -> None:
    """Table 2: the size penalty of relaxed samples, where the most likely network fits exactly.

    One figure is fitted, that the paper does not give: how likely the most likely option is.
    """
    torch.set_num_threads(1)
    found = {}
    click.echo(f"{'':>12}  tau    vanilla  xi .5  theta .5  theta .99")
    for tau, row in zip(TEMPERATURES, TABLE2, strict=True):
        click.echo(f"{'paper':>12} {tau:5.2f}  " + "  ".join(f"{x:7.2f}" for x in row))
    for name, (network, target, unit, reading) in READINGS.items():
        space = spaces.get("imagenet", **network)
        cost = RelaxedCost(space, **reading)
        choices = near(space, Limit.size(target))
        cells = {p: penalties(space, cost, choices, p, unit) for p in PEAKS}
        errors = {p: float(np.sqrt(np.mean(np.log(x / TABLE2) ** 2))) for p, x in cells.items()}
        peak = min(errors, key=errors.__getitem__)
        for tau, row in zip(TEMPERATURES, cells[peak], strict=True):
            click.echo(f"{name:>12} {tau:5.2f}  " + "  ".join(f"{x:7.2f}" for x in row))
        click.echo(f"{'':>12} rms log error {errors[peak]:.3f}, most likely option {peak}")
        found[name] = {
            "settings": {**network, **reading, "target": target, "unit": unit},
            "rms_log_error": errors[peak],
            "peak": peak,
            "cells": cells[peak].tolist(),
            "rms_log_errors": errors,
        }
    save("table2", {"paper": TABLE2.tolist(), "readings": found})


def near(space: Space, limit: Limit) -> np.ndarray:
    """The candidates nearest to a limit of a hundred times as many uniform draws below it."""
    drawn = feasible_set(space, limit).sample_many(np.random.default_rng(0), 100 * N_CANDIDATES)
    order = np.argsort(-costs(space, drawn, limit.measure), kind="stable")
    return drawn[order[:N_CANDIDATES]]


def penalties(
    space: Space, cost: RelaxedCost, choices: np.ndarray, peak: float, unit: str
) -> np.ndarray:
    """Mean of ``|E(z) - e*|`` for the cells of Table 2, [n_temperatures, n_columns]."""
    decisions, rng = Decisions.of(space), np.random.default_rng(1)
    n_options = decisions.n_options
    shape = tuple(decisions.valid.shape)
    total = np.zeros(TABLE2.shape)
    for gamma in decisions.one_hot(torch.from_numpy(choices)):
        target = cost(gamma[None])[0]
        scale = target if unit == "relative" else 8e6
        rest = (1 - peak) / (n_options[:, None] - 1).clamp(min=1)
        pi = torch.where(gamma > 0, peak, rest)
        log_pi = decisions.log_pi(pi.log())
        for column, (level, theta) in enumerate(COLUMNS):
            at = log_pi
            if level is not None:
                at = project(log_pi, 1 / n_options + xi("constant", 0, 1, n_options, level))
            for row, tau in enumerate(TEMPERATURES):
                noise = Noise.draw(rng, N_SAMPLES, shape)
                z = draw(at, noise, temperature=tau, theta=theta)
                total[row, column] += float(((cost(z) - target).abs() / scale).mean())
    return total / len(choices)


SIZES = ("1.5KB", "0.8KB")
WEIGHTS = (0.3, 1.0, 3.0, 10.0)
"""Of the penalty: lambda."""
TUNING_SEEDS, SEEDS = range(100, 102), range(20)


@main.command()
def tune() -> None:
    """Lambda of every row of Table 3 on digits, by how far gamma is from the target on average."""
    with Rows("tune") as rows:
        for row, size, weight, seed in product(ROWS, SIZES, WEIGHTS, TUNING_SEEDS):
            rows.add({"row": row, "size": size, "penalty_weight": weight, "seed": seed}, searched)


@main.command()
@click.option("--lambdas", default="fixed", type=click.Choice(("fixed", "tuned")))
@click.option("--rows", "names", default=",".join(reversed(ROWS)), help="Of Table 3.")
@click.option("--sizes", default=",".join(SIZES))
def ablation(lambdas: str, names: str, sizes: str) -> None:
    """Rows of Table 3 on digits, on seeds that nothing was chosen by, lambda fixed or tuned."""
    best = tuned() if lambdas == "tuned" else dict.fromkeys(ROWS, UdcConfig().penalty_weight)
    with Rows("ablation") as rows:
        for row, size, seed in product(names.split(","), sizes.split(","), SEEDS):
            rows.add(
                {"row": row, "size": size, "penalty_weight": best[row], "seed": seed}, searched
            )


@main.command()
def train() -> None:
    """What `ablation` decoded, trained afresh as the final test of a search does."""
    with Rows("trained") as rows:
        for each in sorted(Rows("ablation").found, key=lambda each: each["seed"]):
            key = {what: each[what] for what in ("row", "size", "penalty_weight", "seed")}
            rows.add({**key, "choices": each["choices"]}, trained)


@main.command()
def summary() -> None:
    """What `ablation` found: means and 95 % bootstrap intervals over seeds."""
    found, tests = Rows("ablation").found, Rows("trained").found
    heads = ("lambda", "gamma E/e*, min..max", "|E/e*-1| %", "over", "decoded E/e*", "test %")
    click.echo(f"{'':>24}" + "".join(f"{head:>22}" for head in heads) + "    ms/image")
    for size, row in product(SIZES, ROWS):
        for weight in WEIGHTS:
            key = {"row": row, "size": size, "penalty_weight": weight}
            mine = [each for each in found if key.items() <= each.items()]
            tested = [each["accuracy"] for each in tests if key.items() <= each.items()]
            if mine:
                click.echo(line(f"{size} {row}", weight, mine, tested))


def line(name: str, weight: float, rows: list[dict[str, Any]], tested: list[float]) -> str:
    """One line of `summary`."""
    gamma = np.array([each["gamma_ratio"] for each in rows])
    decoded = [each["ratio"] for each in rows]
    cells = (
        f"{weight:g}",
        f"{gamma.mean():.3f}, {gamma.min():.3f}..{gamma.max():.3f}",
        interval(100 * np.abs(gamma - 1), 1),
        f"{int((gamma > 1).sum())}/{len(rows)}",
        f"{min(decoded):.3f}..{max(decoded):.3f}",
        interval(100 * np.array(tested), 2) if tested else "",
    )
    ms = 1e3 * np.median([each["search_cpu_s"] / each["n_images"] for each in rows])
    return f"{name:>24}" + "".join(f"{cell:>22}" for cell in cells) + f"{ms:12.3f}"


def interval(values: np.ndarray, digits: int) -> str:
    """Mean and 95 % bootstrap interval."""
    rng = np.random.default_rng(0)
    means = rng.choice(values, (2000, len(values))).mean(1)
    low, high = np.percentile(means, (2.5, 97.5))
    return f"{values.mean():.{digits}f} [{low:.{digits}f}, {high:.{digits}f}]"


def tuned() -> dict[str, float]:
    """The best lambda of each row by `tune`."""
    found = Rows("tune").found
    best = {}
    for row in ROWS:
        off = {
            weight: np.mean(
                [
                    abs(each["gamma_ratio"] - 1)
                    for each in found
                    if (each["row"], each["penalty_weight"]) == (row, weight)
                ]
            )
            for weight in WEIGHTS
        }
        best[row] = min(off, key=off.__getitem__)
    return best


class Rows:
    """Raw results, one line each, kept as they come."""

    def __init__(self, name: str):
        RESULTS.mkdir(exist_ok=True)
        self._path = RESULTS / f"udc_{name}.jsonl"
        text = self._path.read_text() if self._path.exists() else ""
        self.found = [json.loads(each) for each in text.splitlines()]

    def __enter__(self) -> Rows:
        torch.set_num_threads(1)
        torch.set_flush_denormal(True)
        return self

    def __exit__(self, *error: object) -> None:
        torch.set_flush_denormal(False)
        click.echo(f"{len(self.found)} raw results in {self._path.name}")

    def add(self, key: dict[str, Any], measure: Callable[..., dict[str, Any]]) -> None:
        """Measure what is not there yet."""
        if any(key.items() <= each.items() for each in self.found):
            return
        self.found.append({**key, **measure(**key)})
        with self._path.open("a") as file:
            file.write(json.dumps(self.found[-1]) + "\n")


def searched(row: str, size: str, penalty_weight: float, seed: int) -> dict[str, Any]:
    """One search on digits."""
    space, limit = spaces.get("digits"), Limit.size(size)
    settings = config("cpu", row, penalty_weight=penalty_weight)
    settings = replace(settings, n_together=settings.n_mc)
    task = Classification(load("digits").train, recipes.get("digits"), torch.device("cpu"))
    found = Search(space, (limit,), task, settings, seed)
    start = time.process_time()
    while found.t < found.n_steps:
        step = found.step()
    cpu_s = time.process_time() - start
    decoded = decode(space, (limit,), found.log_pi().detach().numpy(), settings.fill)
    return {
        "gamma_ratio": decoded.gamma_ratio,
        "ratio": decoded.ratio,
        "how": decoded.how,
        "log_odds": decoded.log_odds,
        "loss": step.loss,
        "surest": step.surest,
        "choices": list(decoded.candidate.choices),
        "n_images": found.n_images,
        "search_cpu_s": cpu_s,
    }


def trained(
    row: str, size: str, penalty_weight: float, seed: int, choices: list[int]
) -> dict[str, Any]:
    """The test of what a search found."""
    space = spaces.get("digits")
    return dict(training(space, TrainConfig()).test(space.candidate(choices), seed).metrics)


if __name__ == "__main__":
    main()
