# SPDX-License-Identifier: Apache-2.0
"""How fast networks are costed, and how near the compiler the costs are when weights are not known.

    python benches/cost_model.py [MODEL.tflite ...] [--networks 4096] [--npus 10000] [--no-vela]

For each model, on one core and ethos-u55-128, beside the floors that npusim sets itself:

- one query, in ms: `new`, totals of a program of which nothing is known (a batch of one); `totals`,
  the same once its arrays are known; `query`, what `npusim.estimate` tells of the network, its
  operations not looked at; `explained`, these too; `from file`, with reading the file and measuring
  its weights.
- networks of its family a second, whose widths are 1/4 to 5/4 of the model's in steps of 1/8:
  `cold`, with nothing known but compiled kernels, from widths to costs; `dense`, arrays at hand,
  with blocks and plans known from other networks; `table`, from numbers of operations that are
  known. All with the arena.
- `NPUs, s`: one network on as many machines that differ in their memories, these made too.
- Arm's compiler in a process of its own that is kept, on the same model, and how many times as fast
  all of these are.

Without models, those of NPUSIM_DATA. The last table is of the same networks and the compiler's
figures: what is lost where of the weights nothing but bits, or their entropies, is known.
"""

from __future__ import annotations

import argparse
import os
import time
from collections.abc import Callable
from dataclasses import replace
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
from npusim.cost.weight_sizes import ExpectedSizes, Statistics
from npusim.hardware import machine
from npusim.vela import Compiled, Compiler
from npusim.weights.expected import TRAINED, WeightStatistics
from npusim.weights.measures import weights_entropy_bits

NPU = "ethos-u55-128"
MODELS = (
    *("mlperf_ad_autoencoder_int8", "mlperf_resnet8_int8", "mlperf_kws_dscnn_int8"),
    *("openmv_face_landmarks192", "coral_automl_traffic"),
)
QUERIES = ("new", "totals", "query", "explained", "from file")
RATES = ("cold", "dense", "table")
RATIOS = ("query", *RATES)
FLOORS = (2, 2, 2, None, None, 10_000, 30_000, 500_000, 2, None, 1000, 1000, 1000, 1000)
"""Of each figure; None: no floor."""
WIDTHS = np.arange(2, 11) / 8


def best_s(call: Callable[[], Any], n: int = 5) -> float:
    """Least time of several runs."""
    times = []
    for _ in range(n):
        start = time.perf_counter()
        call()
        times.append(time.perf_counter() - start)
    return min(times)


def widths_of(family: Family, n: int, seed: int = 0) -> np.ndarray:
    """Widths of n networks of a family."""
    rng = np.random.default_rng(seed)
    own = np.array(list(family.widths.values()), np.int64)
    return np.maximum(own * rng.choice(WIDTHS, (n, len(own))), 1).astype(np.int64)


def machines_s(lowered: Program, n: int) -> float:
    """Seconds to cost a program on n machines with other memories."""
    rates = np.linspace(1, 16, n)
    start = time.perf_counter()
    several = [machine(NPU, overrides={"sram_bytes_per_cycle": float(rate)}) for rate in rates]
    BatchEstimator(several)(Batch.of([lowered]))
    return time.perf_counter() - start


def queries(path: Path) -> list[float]:
    """Milliseconds of one query, by `QUERIES`."""
    network, target = npusim.load(path), machine(NPU)
    lowered = program(network)
    BatchEstimator(target)(Batch.of([lowered])), npusim.estimate(network, target)  # compiled
    calls: tuple[tuple[Callable[[], object], int], ...] = (
        (lambda: BatchEstimator(target)(Batch.of([replace(lowered)])), 20),
        (lambda: BatchEstimator(target)(Batch.of([lowered])), 20),
        (lambda: npusim.estimate(network, target), 20),
        (lambda: list(npusim.estimate(network, target).ops), 10),
        (lambda: npusim.estimate(npusim.load(path), target), 3),
    )
    return [1e3 * best_s(call, n) for call, n in calls]


def rates(path: Path, n_networks: int) -> list[float]:
    """Networks a second, by `RATES`."""
    target = machine(NPU)
    family = Family(program(npusim.load(path)))
    widths, others = widths_of(family, n_networks), widths_of(family, n_networks, seed=1)
    BatchEstimator(target)(family.batch(widths[:8]))  # kernels are compiled
    cold = best_s(lambda: BatchEstimator(target)(family.batch(widths)), 3)
    batch, estimator = family.batch(widths), BatchEstimator(target)
    estimator(family.batch(others)), estimator(batch)
    dense = best_s(lambda: estimator(batch))
    entries = estimator.entries(batch)
    table = best_s(lambda: estimator.costs(batch, entries))
    return [n_networks / seconds for seconds in (cold, dense, table)]


def speeds(path: Path, n_networks: int, n_npus: int, vela: Compiler | None) -> list[float | None]:
    """Figures of one model, by `QUERIES`, `RATES`, `NPUS` and `RATIOS`."""
    asked, many = queries(path), rates(path, n_networks)
    lowered = program(npusim.load(path))
    machines_s(lowered, min(n_npus, 65))  # kernels are compiled
    found = [*asked, *many, machines_s(lowered, n_npus)]
    if vela is None:
        return [*found]
    seconds = best_s(lambda: vela.compile(path, machine(NPU)), 3)
    ratios = (1e3 * seconds / asked[QUERIES.index("query")], *(rate * seconds for rate in many))
    return [*found, 1e3 * seconds, *ratios]


def speed_table(paths: list[Path], args: argparse.Namespace, vela: Compiler | None) -> Table:
    """One line per figure, with its floor, and one column per model; a miss is marked."""
    table = Table("figure", "floor", title="one query in ms, networks a second")
    columns = []
    for path in paths:
        lowered = program(npusim.load(path))
        n_widths = len(Family(lowered).widths)
        name = f"{path.stem}\n{len(lowered.ops)} ops, {n_widths} widths"
        table.add_column(name, justify="right")
        columns.append(speeds(path, args.networks, args.npus, vela))
    names = [*(f"{name}, ms" for name in QUERIES), *(f"{name}, 1/s" for name in RATES)]
    names += [f"{args.npus:,} NPUs, s", "Vela, ms", *(f"Vela / {name}" for name in RATIOS)]
    for name, floor, values in zip(names, FLOORS, zip(*columns, strict=True), strict=False):
        sign = "" if floor is None else "<=" if name.endswith((", ms", ", s")) else ">="
        shown = []
        for value in values:
            is_met = floor is None or (value <= floor if sign == "<=" else value >= floor)
            shown.append(f"{value:,.{0 if value >= 100 else 2}f}{'' if is_met else ' !'}")
        table.add_row(name, "" if floor is None else f"{sign} {floor:,}", *shown)
    return table


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
    console = Console(width=140)
    if args.no_vela:
        console.print(speed_table(paths, args, None))
        return
    second = Table("model", title="% off the compiler, weights not known")
    for known in ("bits", "entropy"):
        for what in ("cycles", "SRAM", "flash"):
            second.add_column(f"{what}, {known}", justify="right")
    with Compiler() as vela:
        console.print(speed_table(paths, args, vela))
        for path in paths:
            second.add_row(*losses(path, vela.compile(path, machine(NPU))))
    console.print(second)


if __name__ == "__main__":
    main()
