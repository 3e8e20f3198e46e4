# SPDX-License-Identifier: Apache-2.0
"""How fast networks are costed, and how near the compiler the costs are when weights are not known.

    python benches/cost_model.py [MODEL.tflite ...] [--networks 4096] [--npus 10000] [--no-vela]

For each model, on one core and ethos-u55-128: one query for totals (a batch of one), one for all
all that `npusim.estimate` tells, and that with reading the file and measuring its weights; networks
of its family a second, whose widths are 1/4 to 5/4 of the model's in steps of 1/8: cold, with
nothing known but compiled kernels; again, with blocks and plans known; and from the table, cycles
and flash alone of operations that are known; machines with other memories a second; and Arm's
compiler in a process of its own that is kept, on the same model. Without models, those of
NPUSIM_DATA. The last table is of the same networks and the compiler's figures: what is lost where
of the weights nothing but bits, or their entropies, is known.
"""

from __future__ import annotations

import argparse
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table

import npusim
from npusim.cost.batch import Batch, BatchEstimator
from npusim.cost.family import Family
from npusim.cost.lowering import program
from npusim.cost.program import Program
from npusim.cost.weight_sizes import ExactSizes, ExpectedSizes, Statistics
from npusim.hardware import machine
from npusim.vela import Compiled, Compiler
from npusim.weights.expected import TRAINED, WeightStatistics
from npusim.weights.measures import weights_entropy_bits

NPU = "ethos-u55-128"
MODELS = (
    *("mlperf_ad_autoencoder_int8", "mlperf_resnet8_int8", "mlperf_kws_dscnn_int8"),
    "openmv_face_landmarks192",
)
WIDTHS = np.arange(2, 11) / 8


def best_s(call: Callable[[], Any], n: int = 5) -> float:
    """Least time of several runs."""
    times = []
    for _ in range(n):
        start = time.perf_counter()
        call()
        times.append(time.perf_counter() - start)
    return min(times)


def widths_of(family: Family, n: int) -> np.ndarray:
    """Widths of n networks of a family."""
    rng = np.random.default_rng(0)
    own = np.array(list(family.widths.values()), np.int64)
    return np.maximum(own * rng.choice(WIDTHS, (n, len(own))), 1).astype(np.int64)


def machines_s(lowered: Program, n: int) -> float:
    """Seconds to cost a program on n machines with other memories."""
    batch, rates = Batch.of([lowered]), np.linspace(1, 16, n)
    start = time.perf_counter()
    several = [machine(NPU, overrides={"sram_bytes_per_cycle": float(rate)}) for rate in rates]
    BatchEstimator(several)(batch)
    return time.perf_counter() - start


def speeds(path: Path, n_networks: int, n_npus: int, vela: Compiler | None) -> list[str]:
    """A row of the first table."""
    network, target = npusim.load(path), machine(NPU)
    lowered, sizes = program(network), ExactSizes(target.npu)
    family = Family(lowered)
    widths = widths_of(family, n_networks)
    BatchEstimator(target)(family.batch(widths[:8]))  # kernels are compiled
    totals = best_s(lambda: BatchEstimator(target)(Batch.of([lowered])), 20)
    query = best_s(lambda: npusim.estimate(lowered, target, weights=sizes))
    from_file = best_s(lambda: npusim.estimate(npusim.load(path), target), 3)
    cold = n_networks / best_s(lambda: BatchEstimator(target)(family.batch(widths)), 3)
    batch, estimator = family.batch(widths), BatchEstimator(target)
    entries = estimator.entries(batch)
    estimator.costs(batch, entries)
    again = n_networks / best_s(lambda: estimator.costs(batch, entries))
    estimator.sram = False
    known = n_networks / best_s(lambda: estimator.costs(batch, entries))
    npus = n_npus / machines_s(lowered, n_npus)
    row = [path.stem, str(len(lowered.ops)), f"{1e3 * totals:.2f}"]
    row += [f"{1e3 * query:.2f}", f"{1e3 * from_file:.1f}"]
    row += [f"{value:,.0f}" for value in (cold, again, known, npus)]
    if vela is not None:
        seconds = best_s(lambda: vela.compile(path, target), 3)
        ratios = (rate * seconds for rate in (cold, again, known))
        row += [f"{1e3 * seconds:.0f}", *(f"{ratio:,.0f}" for ratio in ratios)]
    return row


def entropies(lowered: Program) -> Statistics:
    """What is known of a program's weights when their values are not."""
    known = {"": TRAINED}
    for op in lowered.ops:
        if op.weights is not None and op.weights.ohwi is not None and op.source is not None:
            values = op.weights.ohwi()
            known[op.source.name] = WeightStatistics(
                entropy_bits=float(weights_entropy_bits(values)),
                nonzero_fraction=float((values != 0).mean()),
            )
    return known


def losses(path: Path, compiled: Compiled) -> list[str]:
    """A row of the second table."""
    lowered, target = program(npusim.load(path)), machine(NPU)
    row = [path.stem]
    for statistics in (TRAINED, entropies(lowered)):
        cost = npusim.estimate(lowered, target, weights=ExpectedSizes(target.npu, statistics))
        for measure in ("total_cycles", "sram_peak_bytes", "flash_bytes"):
            theirs = getattr(compiled, measure)
            row.append(f"{100 * (getattr(cost, measure) / theirs - 1):+.2f}" if theirs else "-")
    return row


def main() -> None:
    """Print both tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("models", nargs="*", type=Path)
    parser.add_argument("--networks", type=int, default=4096)
    parser.add_argument("--npus", type=int, default=10_000)
    parser.add_argument("--no-vela", action="store_true")
    args = parser.parse_args()
    folder = Path(os.environ.get("NPUSIM_DATA", "../shared/data")) / "models"
    paths = args.models or [folder / f"{name}.tflite" for name in MODELS]
    first = Table("model", "ops", title="networks a second")
    for column in ("totals, ms", "query, ms", "from file, ms"):
        first.add_column(column, justify="right")
    for column in ("cold", "again", "table", "NPUs a second"):
        first.add_column(column, justify="right")
    second = Table("model", title="% off the compiler, weights not known")
    for known in ("bits", "entropy"):
        for what in ("cycles", "SRAM", "flash"):
            second.add_column(f"{what}, {known}", justify="right")
    if args.no_vela:
        for path in paths:
            first.add_row(*speeds(path, args.networks, args.npus, None))
        Console(width=140).print(first)
        return
    for column in ("Vela, ms", "x cold", "x again", "x table"):
        first.add_column(column, justify="right")
    with Compiler() as vela:
        for path in paths:
            first.add_row(*speeds(path, args.networks, args.npus, vela))
            second.add_row(*losses(path, vela.compile(path, machine(NPU))))
    for table in (first, second):
        Console(width=140).print(table)


if __name__ == "__main__":
    main()
