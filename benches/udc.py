# SPDX-License-Identifier: Apache-2.0
"""The figures of the UDC paper beside ours.

    python benches/udc.py table2

Raw results go to ``benches/results/udc_NAME.json``.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click
import numpy as np
import torch

import spaces
from searchers.udc.cost import RelaxedCost
from searchers.udc.projection import project, xi
from searchers.udc.sampling import Decisions, Noise, draw
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


if __name__ == "__main__":
    main()
