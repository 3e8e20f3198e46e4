# SPDX-License-Identifier: Apache-2.0
"""Speed and size of the weight stream beside Arm's C and C++ codecs, in one process.

    python benches/weight_stream.py [--models DIR] [--repeat 5] [--json FILE]

Arm's codecs are called through ctypes on the libraries of the ethos-u-vela wheel, without its
Python lists (but for the row that says so). Both sides run on one thread, in turns; a figure is
the minimum of the repetitions' CPU times. Kernels are compiled before the first measurement.
"""

from __future__ import annotations

import argparse
import gc
import json
import platform
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

import npusim
from npusim.cost.layers import weight_layers
from npusim.weights import decode, encode, encoded_size, estimate_size, estimate_size_from_counts
from npusim.weights.estimate import value_counts

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT / "tests"))
from weights import arm  # noqa: E402

NPU = "ethos-u55-128"
Values = npt.NDArray[np.int16]


class Row(NamedTuple):
    """One figure of the table."""

    what: str
    target: str
    measured: str
    detail: str


def seconds(calls: Sequence[Callable[[], Any]], repeat: int) -> list[float]:
    """Least CPU seconds of each call, over repetitions in which they take turns."""
    best = [float("inf")] * len(calls)
    for _ in range(repeat):
        for number, call in enumerate(calls):
            gc.collect()
            start = time.thread_time()
            call()
            best[number] = min(best[number], time.thread_time() - start)
    return best


def over(function: Callable[..., Any], items: Iterable[Any], *args: Any) -> Callable[[], None]:
    """A call of `function` on each item."""
    stored = list(items)

    def run() -> None:
        for item in stored:
            function(item, *args)

    return run


def synthetic(n: int = 400_000) -> dict[str, Values]:
    """Tensors by name, from fixed seeds."""
    rng = np.random.default_rng(0)
    laplace = {b: np.rint(rng.laplace(0, b, n)).clip(-127, 127) for b in (2, 8, 30)}
    data = {f"Laplace b={b}": values for b, values in laplace.items()}
    data["uniform 8 bit"] = rng.integers(-127, 128, n)
    for share in (50, 80, 95, 99):
        data[f"b=8, {share} % zeros"] = laplace[8] * (rng.random(n) * 100 >= share)
    return {name: values.astype(np.int16) for name, values in data.items()}


class Layer(NamedTuple):
    """Weights of a layer, their stream order, and the runs of zeros that it adds."""

    weights: npt.NDArray[np.int16]
    values: Values
    padding: npt.NDArray[np.int64]


def models(folder: Path) -> dict[str, list[Layer]]:
    """Layer by layer, each model with weights on the NPU."""
    found = {}
    for path in sorted(folder.glob("*.tflite")):
        layers = []
        for layer in weight_layers(npusim.load(path), NPU):
            weights = layer.weights_ohwi()
            values = npusim.weights.reorder(weights, NPU, **layer.reorder_options)
            padding = npusim.weights.padding_runs(weights.shape, NPU, **layer.reorder_options)
            layers.append(Layer(weights, values, padding))
        if layers:
            found[path.stem] = layers
    return found


def speed_rows(name: str, tensors: list[Values], repeat: int, real: bool) -> list[Row]:
    """Ratios to Arm's codecs on some tensors, all of them in one timed call."""
    n = sum(tensor.size for tensor in tensors)
    streams = [encode(tensor, encoder="legacy") for tensor in tensors]
    calls = [
        over(arm.legacy_encode, tensors),
        over(encode, tensors, "legacy"),
        over(encoded_size, tensors, "legacy"),
        over(estimate_size, tensors, "legacy"),
        over(arm.regor_encode, tensors),
        over(encode, tensors, "regor"),
        over(encoded_size, tensors, "regor"),
        over(estimate_size, tensors, "regor"),
        over(arm.decode, streams),
        over(decode, streams),
        over(encoded_size, tensors, "tight"),
    ]
    times = seconds(calls, repeat)
    legacy, regor, c_decode = times[0], times[4], times[8]

    def row(what: str, target: str, reference: float, number: int) -> Row:
        rate = n / times[number] / 1e6
        return Row(
            f"{name}: {what}", target, f"{reference / times[number]:.1f}x", f"{rate:.0f} Mw/s"
        )

    dense = real or "zeros" not in name
    sparse = any(share in name for share in ("95 %", "99 %"))
    return [
        row("encode, to legacy C", "10x" if sparse else "5x" if dense else "", legacy, 1),
        row("encode, to regor C++", "3x" if dense else "1x", regor, 5),
        row("exact size, to legacy C", "8x" if real else "", legacy, 2),
        row("exact size, to regor C++", "5x" if real else "", regor, 6),
        row("estimate, to legacy C", "50x" if real else "", legacy, 3),
        row("estimate, to regor C++", "20x" if real else "", regor, 7),
        row("decode, to C", "4x" if real else "", c_decode, 9),
        Row(f"{name}: tight, speed", "1 Mw/s", f"{n / times[10] / 1e6:.1f} Mw/s", ""),
    ]


def python_decode_row(tensors: list[Values], repeat: int) -> Row:
    """Decoding beside ``ethosu.mlw_codec.decode``, which returns a list."""
    from ethosu import mlw_codec

    streams = [encode(tensor) for tensor in tensors]
    arrays = [bytearray(stream) for stream in streams]
    peer, ours = seconds([over(mlw_codec.decode, arrays), over(decode, streams)], repeat)
    return Row("models: decode, to Arm's Python call", "9x", f"{peer / ours:.1f}x", "")


def quadratic_row() -> Row:
    """The legacy encoder's worst case: 33 non-zeros, then 40,000 zeros."""
    values = np.zeros(40_000, np.int16)
    values[:33] = range(1, 34)
    peer, ours = seconds(
        [lambda: arm.legacy_encode(values), lambda: encode(values, encoder="legacy")], 3
    )
    return Row(
        "33 non-zeros, 40,000 zeros: encode, to legacy C", "linear", f"{peer / ours:.0f}x", ""
    )


def identity_row(tensors: list[Values]) -> Row:
    """Layers whose streams equal Arm's, of both encoders."""
    same = sum(
        encode(tensor, encoder="legacy") == arm.legacy_encode(tensor)
        and encode(tensor, encoder="regor") == arm.regor_encode(tensor)
        for tensor in tensors
    )
    return Row(
        "models: layers identical with regor and legacy", "all", f"{same}", f"of {len(tensors)}"
    )


def tight_rows(found: dict[str, list[Layer]]) -> list[Row]:
    """Tight streams over legacy ones: each model's, and all together."""
    ratios, sums = {}, np.zeros(2, np.int64)
    for name, layers in found.items():
        sizes = [
            (encoded_size(layer.values, "tight"), encoded_size(layer.values, "legacy"))
            for layer in layers
        ]
        total = np.sum(sizes, axis=0)
        ratios[name] = total[0] / total[1]
        sums += total
    rows = [Row("models: tight / legacy, bytes", "0.985", f"{sums[0] / sums[1]:.4f}", "all models")]
    for name in ratios:
        if "uint8" in name:
            rows.append(Row(f"{name}: tight / legacy", "0.95", f"{ratios[name]:.4f}", ""))
    low, high = min(ratios, key=ratios.__getitem__), max(ratios, key=ratios.__getitem__)
    detail = f"{low} .. {high}"
    rows.append(
        Row("models: tight / legacy, range", "", f"{ratios[low]:.3f}..{ratios[high]:.4f}", detail)
    )
    return rows


def estimate_rows(found: dict[str, list[Layer]]) -> list[Row]:
    """Errors of both estimates: layers of 2,000 weights or more, and model totals."""
    rows = []
    for kind in ("stream", "histogram"):
        for encoder in ("regor", "legacy"):
            errors, totals = [], {}
            for name, layers in found.items():
                exact = guess = 0
                for weights, values, padding in layers:
                    size = encoded_size(values, encoder)
                    if kind == "stream":
                        about = estimate_size(values, encoder)
                    else:
                        about = estimate_size_from_counts(value_counts(weights), padding, encoder)
                    exact, guess = exact + size, guess + about
                    if values.size >= 2000:
                        errors.append(abs(about / size - 1))
                totals[name] = abs(guess / exact - 1)
            worst = max(totals, key=totals.__getitem__)
            what = f"models: estimate from {kind}, {encoder}"
            p95 = f"{100 * np.percentile(errors, 95):.2f} %"
            rows.append(Row(f"{what}, p95 of layers", "3 %", p95, f"{len(errors)} layers"))
            total = f"{100 * totals[worst]:.2f} %"
            rows.append(Row(f"{what}, worst model total", "1.5 %", total, worst))
    return rows


def histogram_row() -> Row:
    """Time of an estimate from counts, which does not depend on the tensor's size."""
    counts = value_counts(synthetic()["Laplace b=8"])
    padding = npusim.weights.padding_runs((128, 1, 1, 257))
    call = over(estimate_size_from_counts, [counts] * 1000, padding)
    return Row("estimate from a histogram", "30 µs", f"{1e3 * seconds([call], 5)[0]:.1f} µs", "")


def machine() -> str:
    """This machine and the versions in use, in a line."""
    cpu = platform.processor()
    info = Path("/proc/cpuinfo")
    if info.exists():
        names = [line for line in info.read_text().splitlines() if line.startswith("model name")]
        cpu = f"{len(names)} cores, {names[0].split(':', 1)[1].strip()}"
    packages = ", ".join(f"{name} {version(name)}" for name in ("numba", "numpy", "ethos-u-vela"))
    return f"{cpu}; Python {platform.python_version()}, {packages}"


def write_record(path: Path, rows: Sequence[Any]) -> None:
    """Rows, named tuples, as JSON, with the machine and the command."""
    record = {"machine": machine(), "command": sys.argv, "rows": [row._asdict() for row in rows]}
    path.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--models", type=Path, help="folder of .tflite models")
    parser.add_argument("--repeat", type=int, default=5)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    tiny = np.array([0, 0, 5, -3], np.int16)
    for encoder in ("regor", "legacy", "tight"):
        decode(encode(tiny, encoder))
    estimate_size(tiny), estimate_size_from_counts(value_counts(tiny))
    rows = []
    if options.models:
        found = models(options.models)
        tensors = [layer.values for layers in found.values() for layer in layers]
        rows += [identity_row(tensors), *speed_rows("models", tensors, options.repeat, real=True)]
        rows += [python_decode_row(tensors, options.repeat)]
        rows += [*tight_rows(found), *estimate_rows(found)]
    for name, values in synthetic().items():
        rows += speed_rows(name, [values], options.repeat, real=False)
    rows += [quadratic_row(), histogram_row()]
    if options.json:
        write_record(options.json, rows)
    width = max(len(row.what) for row in rows)
    print(machine())
    for row in rows:
        print(f"{row.what:{width}}  {row.target:>8}  {row.measured:>14}  {row.detail}")


if __name__ == "__main__":
    main()
