# SPDX-License-Identifier: Apache-2.0
"""The compression lab beside what it must reach: speed, ratios, and a published file.

    python benches/schemes.py --models DIR [--squeezenet FILE] [--repeat 3] [--json FILE]

Kernels are compiled before anything is timed. Times are CPU seconds of all threads, the least of
the repetitions: on a machine of two idle cores the lab's threads finish in half of them.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from weight_stream import Layer, machine, models, write_record

import npusim
from npusim import schemes
from npusim.schemes.base import Scheme
from npusim.schemes.bounds import bounds
from npusim.schemes.condition import Condition, conditions
from npusim.schemes.lab import Comparison, compare
from npusim.weights import prune
from npusim.weights.measures import binary_entropy_bits

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT / "tests" / "schemes"))
from squeezenet_file import COUNT_BYTES, PLAIN, read_layers  # noqa: E402

LARGE, SMALL = "coral_mbv2_10_224_uint8", "coral_mbv1_025_128_uint8"
NONZEROS = (1.0, 0.5, 0.25, 0.1)
GOLOMB_RICE = ("mask-gr", "mask-rle-gr", "dead-zone-gr", "ethos-u-mlw")
LOSSY = "n-m"


class Row(NamedTuple):
    """One figure of the table."""

    what: str
    target: str
    measured: str
    detail: str
    reached: bool


def cpu_seconds(call: Callable[[], Any], repeat: int) -> float:
    """Least CPU seconds, those of all threads."""
    best = float("inf")
    for _ in range(repeat):
        start = time.process_time()
        call()
        best = min(best, time.process_time() - start)
    return best


def lab_rows(folder: Path, repeat: int) -> list[Row]:
    """All schemes on a model of 3.5 M weights and on one of some 300 k or more."""
    rows = []
    for name, most_s in ((LARGE, 10.0), (SMALL, 1.0)):
        network = npusim.load(folder / f"{name}.tflite")
        found = compare(network, simulate=False)
        (point,) = found.points
        taken = cpu_seconds(lambda network=network: compare(network, simulate=False), repeat)
        what = f"{len(point.results)} schemes, exact sizes, {name}"
        detail = f"{point.n_weights:,} weights; CPU seconds, so at most half on two cores"
        rows.append(Row(what, f"<= {most_s:g} s", f"{taken:.2f} s", detail, taken <= most_s))
    return rows


def golomb_rice_rows(values: Sequence[np.ndarray], repeat: int) -> list[Row]:
    """Exact sizes by Golomb-Rice codes, on one core."""
    rows = []
    n = sum(array.size for array in values)
    for name in GOLOMB_RICE:
        scheme = schemes.get(name)

        def sizes(scheme: Scheme = scheme) -> None:
            for array in values:
                scheme.size(array)

        rate = n / cpu_seconds(sizes, repeat) / 1e6
        detail = f"{n:,} weights of all models"
        rows.append(Row(f"{name}: sizes", ">= 100 Mw/s", f"{rate:.0f} Mw/s", detail, rate >= 100))
    return rows


def ratio_rows(folder: Path) -> list[Row]:
    """The smallest lossless scheme over all models together, beside the order-0 entropy."""
    found: list[Comparison] = []
    names = [name for name in schemes.names() if name != LOSSY]
    for path in sorted(folder.glob("*.tflite")):
        network = npusim.load(path)
        found.append(compare(network, names=names, conditions=conditions(NONZEROS), simulate=False))
    rows = []
    for number, nonzeros in enumerate(NONZEROS):
        points = [each.points[number] for each in found]
        entropy = sum(point.n_bytes["entropy"] for point in points)
        totals = {
            name: sum(point.results[i].n_bytes for point in points) for i, name in enumerate(names)
        }
        best = min(totals, key=totals.__getitem__)
        above = totals[best] / entropy - 1
        what = f"smallest lossless scheme above entropy, {Condition(nonzeros)}"
        rows.append(Row(what, "<= 2 %", f"{100 * above:+.2f} %", best, above <= 0.02))
    return rows


def mask_rows(found: dict[str, list[Layer]]) -> list[Row]:
    """The arithmetic-coded mask beside its entropy, as in [UDC] Table 4, in bits a weight."""
    scheme, rows = schemes.get("mask-arithmetic", bits=9), []
    for nonzeros in NONZEROS[1:]:
        coded = bound = n = 0.0
        for layers in found.values():
            for layer in layers:
                weights = prune(layer.weights.ravel(), nonzeros)
                share = np.count_nonzero(weights) / weights.size
                coded += 8 * scheme.mask_bytes(weights)
                bound += weights.size * float(binary_entropy_bits(share))
                n += weights.size
        same = abs(coded - bound) / n < 0.005
        measured = f"{coded / n:.4f} bits"
        what = f"arithmetic-coded mask, {Condition(nonzeros)}"
        rows.append(Row(what, f"{bound / n:.4f} bits", measured, "all models", same))
    return rows


def squeezenet_rows(path: Path) -> list[Row]:
    """The SqueezeNet that Deep Compression's authors published."""
    layers = read_layers(path.read_bytes())
    scheme = schemes.get("deep-compression", **PLAIN)
    same = ours = theirs = entropy = 0
    smallest = dict.fromkeys(("cabac", "ethos-u-mlw", "deep-compression"), 0)
    for layer in layers:
        n = layer.weights.size - int(np.argmax(layer.weights[::-1] != 0))  # zeros at the end
        entries = len(layer.payload) * 2 // 3
        stream = entries.to_bytes(COUNT_BYTES, "little") + layer.payload
        same += np.array_equal(scheme.decode(stream, n), layer.weights[:n])
        ours += len(scheme.encode(layer.weights)) - COUNT_BYTES
        theirs += len(layer.payload)
        entropy += bounds(layer.weights, 8)["entropy"]
        for name in smallest:
            smallest[name] += schemes.get(name).size(layer.weights)
    others = ", ".join(f"{name} {n_bytes:,}" for name, n_bytes in smallest.items())
    close = abs(ours / theirs - 1) <= 0.01
    return [
        Row("published SqueezeNet: layers decoded", f"{len(layers)}", f"{same}", "", same == 26),
        Row(
            "published SqueezeNet: our entries",
            f"{theirs:,} B",
            f"{ours:,} B",
            f"within 1 %; entropy {entropy:,}, {others}",
            close,
        ),
    ]


def main() -> None:
    """Print the table; exit with 1 if a target is missed."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--models", type=Path, required=True, help="folder of .tflite models")
    parser.add_argument("--squeezenet", type=Path, help="file of Deep Compression's authors")
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    found = models(options.models)
    values = [layer.values for layers in found.values() for layer in layers]
    rows = lab_rows(options.models, options.repeat)
    rows += golomb_rice_rows(values, options.repeat)
    rows += [*ratio_rows(options.models), *mask_rows(found)]
    rows += squeezenet_rows(options.squeezenet) if options.squeezenet else []
    if options.json:
        write_record(options.json, rows)
    width = max(len(row.what) for row in rows)
    print(machine())
    for row in rows:
        missed = "" if row.reached else "MISSED"
        print(f"{row.what:{width}}  {row.target:>12}  {row.measured:>12}  {missed:6}  {row.detail}")
    sys.exit(0 if all(row.reached for row in rows) else 1)


if __name__ == "__main__":
    main()
