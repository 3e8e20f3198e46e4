#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""What training reaches: the digits, and the paper's number format beside the usual one.

    python benches/training.py digits [--seeds 5]
    python benches/training.py number-format [--seeds 10]

Raw figures go to ``benches/results``. Torch has one thread; times are CPU seconds of the process.
Errors are standard errors over the seeds; each seed has first weights, order and draws of its own.
"""

from __future__ import annotations

import argparse
import csv
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from searchers.training.recipes import get
from searchers.training.runs import Run, train
from spaces.base import Candidate, Space
from spaces.digits import digits
from spaces.nets import CandidateNet
from spaces.nets.files import load_net

RESULTS = Path(__file__).parent / "results"
LAYER = "conv3"
"""The largest: 32 to 48 channels, 13,824 weights."""


def candidate(space: Space, bitwidth: int, sparsity: float) -> Candidate:
    """Full width, the same bits and the same fraction of non-zeros in all layers."""
    chosen = {"width": 1.0, "bitwidth": bitwidth, "sparsity": sparsity}
    return space.from_options({each.name: chosen[each.kind] for each in space.decisions})


def trained(run: Run, folder: Path) -> tuple[dict[str, Any], CandidateNet]:
    """Results and network of a training."""
    return train(run, folder), load_net(folder / "net.pt", run.space)


def bench_digits(seeds: int) -> list[dict[str, Any]]:
    """Test accuracy in floating point, and at 4 bits with half of the weights zero."""
    space = digits()
    rows = []
    for seed in range(seeds):
        for name, chosen in (("float", space.largest()), ("4 bit", candidate(space, 4, 0.5))):
            with tempfile.TemporaryDirectory() as folder:
                run = Run(space, chosen, get("digits"), seed, quantized=name != "float")
                results, _ = trained(run, Path(folder) / "run")
            scores = results["scores"]
            rows.append(
                {
                    "network": name,
                    "seed": seed,
                    "accuracy": scores["float_maps"]["accuracy"],
                    "accuracy_int8_maps": scores.get("int8_maps", {}).get("accuracy", ""),
                    "wall_s": round(results["wall_s"], 2),
                    "cpu_s": round(results["cpu_s"], 2),
                }
            )
    return rows


def layer_figures(net: CandidateNet, before: Tensor) -> dict[str, float]:
    """What the format makes of the layer; `before` are its dense weights before finetuning."""
    weight = net.weights()[LAYER]
    deployed = weight().detach()
    kept = weight.theta.detach() * weight.mask
    return {
        "levels": len(deployed[deployed != 0].unique()),
        "norm_growth": float(weight.theta.detach().square().sum() / before.square().sum()),
        "kept_norm_growth": float(kept.square().sum() / (before * weight.mask).square().sum()),
    }


def bench_number_format(seeds: int) -> list[dict[str, Any]]:
    """Q and Q-hat from the same float network, at 4 bits and two sparsities."""
    space = digits()
    rows = []
    for seed in range(seeds):
        with tempfile.TemporaryDirectory() as folder:
            start = Path(folder) / "float"
            run = Run(space, space.largest(), get("digits"), seed, quantized=False)
            _, net = trained(run, start)
            before = net.weights()[LAYER].theta.detach()
            for sparsity in (0.2, 0.1):
                for number_format in ("q", "q-hat"):
                    recipe = get("digits").but(epochs=20, number_format=number_format)
                    chosen = candidate(space, 4, sparsity)
                    run = Run(space, chosen, recipe, seed, start=start / "net.pt")
                    results, net = trained(run, Path(folder) / f"{sparsity}-{number_format}")
                    rows.append(
                        {
                            "sparsity": sparsity,
                            "number_format": number_format,
                            "seed": seed,
                            "accuracy": results["scores"]["float_maps"]["accuracy"],
                            "loss": results["loss"],
                            **layer_figures(net, before),
                        }
                    )
    return rows


def summary(rows: list[dict[str, Any]], by: tuple[str, ...], figures: tuple[str, ...]) -> str:
    """Means and standard errors as lines of text."""
    lines = []
    for key in sorted({tuple(row[name] for name in by) for row in rows}, key=str):
        found = [row for row in rows if tuple(row[name] for name in by) == key]
        parts = []
        for figure in figures:
            values = np.array([row[figure] for row in found if row[figure] != ""], dtype=float)
            if values.size:
                error = values.std(ddof=1) / np.sqrt(values.size) if values.size > 1 else np.nan
                parts.append(
                    f"{figure} {values.mean():.4g} +- {error:.2g} (least {values.min():.4g})"
                )
        lines.append(f"{' '.join(map(str, key))}: {', '.join(parts)}; {len(found)} seeds")
    return "\n".join(lines)


BENCHES: dict[
    str, tuple[Callable[[int], list[dict[str, Any]]], int, tuple[str, ...], tuple[str, ...]]
]
BENCHES = {
    "digits": (
        bench_digits,
        5,
        ("network",),
        ("accuracy", "accuracy_int8_maps", "wall_s", "cpu_s"),
    ),
    "number-format": (
        bench_number_format,
        10,
        ("sparsity", "number_format"),
        ("accuracy", "loss", "levels", "norm_growth", "kept_norm_growth"),
    ),
}


def main() -> None:
    """Run one bench, write its rows, print their means."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("bench", choices=sorted(BENCHES))
    parser.add_argument("--seeds", type=int, help="repetitions; by default 5 or 10")
    arguments = parser.parse_args()
    bench, seeds, by, figures = BENCHES[arguments.bench]
    torch.set_num_threads(1)
    rows = bench(seeds if arguments.seeds is None else arguments.seeds)
    path = RESULTS / f"training_{arguments.bench.replace('-', '_')}.csv"
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
    print(summary(rows, by, figures))


if __name__ == "__main__":
    main()
