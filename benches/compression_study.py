# SPDX-License-Identifier: Apache-2.0
"""The study of docs/compression_study.md: measures, and writes its tables and figures.

    python benches/compression_study.py --models DIR [--cifar FOLDER] [--only PART ...]

Each part is a CSV file in benches/results; figures and Markdown tables are made from all that are
there. FOLDER is what benches/cifar10_resnet.py wrote.
"""

from __future__ import annotations

import argparse
import csv
import math
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from weight_stream import models as layers_of_models

import npusim
from npusim import schemes
from npusim.cost.estimate import estimate
from npusim.hardware import machine
from npusim.report.plots import matplotlib_module
from npusim.report.schemes import comparison_rows
from npusim.report.streams import FIELDS
from npusim.schemes.accuracy import load_test_data
from npusim.schemes.condition import Condition, conditions
from npusim.schemes.lab import compare
from npusim.weights import encode, prune, slices
from npusim.weights.format import DIRECT_OFFSET_MAX, WEIGHT_MAX
from npusim.weights.measures import binary_entropy_bits, weights_entropy_bits

RESULTS = Path(__file__).parent / "results"
MODELS = (
    "mlperf_ad_autoencoder_int8",
    "mlperf_resnet8_int8",
    "mlperf_kws_dscnn_int8",
    "mlperf_vww96_int8",
    "mcunet_vww",
    "mlek_yolo_fastest_192_face_int8",
    "openmv_movenet192",
    "tflm_pt_mobilenet_v2_224_int8",
)
NPUS = ("ethos-u55-32", "ethos-u55-64", "ethos-u55-128", "ethos-u55-256")
NONZEROS = (1.0, 0.5, 0.25, 0.1)
OWN = "ethos-u-mlw"
TIGHT = f"{OWN}:encoder=tight"
SLOW = "zstd"
ENTROPY = "bound entropy"
SHOWN = (OWN, TIGHT, "dead-zone-gr", "rans", "cabac", "huffman", "mask-rle-gr", "deep-compression")
"""In the figure of sizes."""
RIVALS = (
    "dead-zone-gr",
    "cabac",
    "deep-compression",
    "huffman",
    "mask-arithmetic",
    "mask-gr",
    "mask-rle-gr",
    "zvc",
)
"""Schemes of one lane that are given as many as keep up with the NPU's own."""
FRONT_COLUMNS = (
    *("model", "nonzeros", "weights", "zero_fraction", "scheme", "bytes", "bits_per_weight"),
    *("above_entropy", "weights_per_cycle", "area_ge_low", "area_ge_high", "total_cycles"),
    *("flash_bytes", "decode_bound_cycles", "energy_uj_value", "on_front"),
)
Row = dict[str, Any]


def front(folder: Path) -> Iterable[Row]:
    """Every scheme on every model and sparsity, with an inference on the default machine."""
    names = [*(name for name in schemes.names() if name != SLOW), TIGHT]
    for model in MODELS:
        network = npusim.load(folder / f"{model}.tflite")
        found = compare(network, machine(), names=names, conditions=conditions(NONZEROS))
        sized = compare(network, names=[SLOW], conditions=conditions(NONZEROS), simulate=False)
        for comparison in (found, sized):
            for row in comparison_rows(comparison):
                if comparison is found:
                    yield {name: row[name] for name in FRONT_COLUMNS}
                elif row["scheme"] == SLOW:  # without cycles it is on no front
                    yield {name: row[name] for name in FRONT_COLUMNS} | {"on_front": ""}


def equal_rate(folder: Path) -> Iterable[Row]:
    """Rivals with lanes or states enough for the rate of the NPU's own scheme, by sparsity."""
    networks = [npusim.load(folder / f"{model}.tflite") for model in MODELS]

    def summed(names: Sequence[str], nonzeros: float, lanes: int | None = None) -> list[Row]:
        points = [
            compare(
                network, machine(), names=names, conditions=[Condition(nonzeros)], lanes=lanes
            ).points[0]
            for network in networks
        ]
        rows = []
        for number, name in enumerate(names):
            results = [point.results[number] for point in points]
            low, high = results[0].decoder.area_ge
            inferences = [result.inference for result in results if result.inference]
            rows.append(
                {
                    "nonzeros": nonzeros,
                    "scheme": name,
                    "lanes": lanes or 1,
                    "bytes": sum(result.n_bytes for result in results),
                    "weights_per_cycle": sum(point.n_coded for point in points)
                    / sum(result.cycles or 0 for result in results),
                    "area_ge_low": low,
                    "area_ge_high": high,
                    "total_cycles": sum(each.total_cycles for each in inferences),
                    "energy_uj_value": sum(each.energy_pj.value for each in inferences) / 1e6,
                }
            )
        return rows

    for nonzeros in NONZEROS:
        own, *others = summed([OWN, TIGHT, *RIVALS, "n-m", "ethos-u85-fast"], nonzeros)
        yield own
        rate = own["weights_per_cycle"]
        for row in others:
            lanes = math.ceil(rate / row["weights_per_cycle"] - 0.01)
            yield row if lanes == 1 else summed([row["scheme"]], nonzeros, lanes)[0]
        states = 1 << math.ceil(math.log2(rate))
        yield summed([f"rans:states={states}"], nonzeros)[0]


def fields(folder: Path) -> Iterable[Row]:
    """What the bits of the NPU's own streams are, over all models, beside their entropy.

    ``beyond_offset``: part of the weights in layers with more magnitudes from 1 on that do not
    occur than the format's offset can skip.
    """
    found = layers_of_models(folder)
    for nonzeros in NONZEROS:
        bits: dict[str, float] = defaultdict(float)
        for model in MODELS:
            for layer in found[model]:
                values = layer.values
                kept = nonzeros * layer.weights.size / values.size  # none of it is padding
                values = prune(values, min(1.0, kept)) if nonzeros < 1 else values
                stream = encode(values, encoder="regor")
                bits["weights"] += layer.weights.size
                bits["entropy"] += weights_entropy_bits(values) * values.size
                share = np.count_nonzero(values) / values.size
                bits["mask_entropy"] += float(binary_entropy_bits(share)) * values.size
                least = int(np.abs(values[values != 0]).min(initial=WEIGHT_MAX))
                bits["beyond_offset"] += layer.weights.size * (least - 1 > DIRECT_OFFSET_MAX // 2)
                parts = slices(stream)
                for name in FIELDS:
                    bits[name] += sum(part.bits[name] for part in parts)
                bits["end"] += 8 * len(stream) - sum(sum(part.bits.values()) for part in parts)
                bits["tight"] += 8 * npusim.weights.encoded_size(values, "tight")
        n = bits.pop("weights")
        yield {"nonzeros": nonzeros, **{name: round(each / n, 4) for name, each in bits.items()}}


def npus(folder: Path) -> Iterable[Row]:
    """Whether decoding counts: an inference with the NPU's own scheme on every Ethos-U55."""
    for model in MODELS:
        network = npusim.load(folder / f"{model}.tflite")
        for npu in NPUS:
            cost = estimate(network, npu, scheme=OWN)
            free = estimate(network, npu, scheme=OWN, decoder="compiler")
            waiting = sum(op.cycles for op in cost.ops if op.bound == "decode")
            moving = sum(op.cycles for op in cost.ops if op.bound in ("weight_dma", "flash"))
            yield {
                "model": model,
                "npu": npu,
                "total_cycles": cost.total_cycles,
                "compiler_cycles": free.total_cycles,
                "decode_bound": round(waiting / cost.total_cycles, 4),
                "weight_transfer_bound": round(moving / cost.total_cycles, 4),
            }


def accuracy(folder: Path) -> Iterable[Row]:
    """Bits a weight and top-1 accuracy of ResNet-20 on CIFAR-10, not retrained."""
    network = npusim.load(folder / "resnet20.tflite")
    data = load_test_data(str(folder / "test.npz"), network)
    some = [Condition(nonzeros=each) for each in (1.0, 0.9, 0.8, 0.7, 0.6, 0.5, 0.4)]
    some += [Condition(bits=each) for each in (7, 6, 5, 4, 3)]
    some += [Condition(clusters=each) for each in (64, 32, 16, 8)]
    some += [Condition(n_of_m=each) for each in ((3, 4), (2, 4))]
    some += [Condition(nonzeros=each, bits=4) for each in (0.8, 0.6)]
    names = [OWN, "cabac", "n-m", "palette"]
    found = compare(network, names=names, conditions=some, simulate=False, data=data)
    for point in found.points:
        assert point.accuracy is not None
        row = {
            "condition": str(point.condition),
            **{result.scheme: round(result.bits_per_weight, 3) for result in point.results},
        }
        row["sqnr_db"] = round(point.results[0].sqnr_db, 2)
        row["top1"] = round(point.accuracy.top1 or 0.0, 4)
        yield {**row, "n_inputs": point.accuracy.n_inputs}


PARTS: dict[str, Callable[[Path], Iterable[Row]]] = {
    "front": front,
    "equal_rate": equal_rate,
    "fields": fields,
    "npus": npus,
    "accuracy": accuracy,
}


def path_of(part: str) -> Path:
    """Where the figures of a part are."""
    return RESULTS / f"compression_{part}.csv"


def write(part: str, rows: Iterable[Row]) -> None:
    """Measure a part and store it."""
    found = list(rows)
    with path_of(part).open("w", newline="") as file:
        writer = csv.DictWriter(file, found[0], lineterminator="\n")
        writer.writeheader()
        writer.writerows(
            {k: round(v, 4) if isinstance(v, float) else v for k, v in row.items()} for row in found
        )


def read(part: str) -> list[dict[str, str]]:
    """What is stored of a part; nothing if it was not measured."""
    if not path_of(part).exists():
        return []
    with path_of(part).open(newline="") as file:
        return list(csv.DictReader(file))


def totals(rows: Sequence[dict[str, str]]) -> dict[tuple[str, str], dict[str, float]]:
    """Sums over the models by nonzeros and scheme; ``front``: on how many models' fronts it is."""
    found: dict[tuple[str, str], dict[str, float]] = defaultdict(lambda: defaultdict(float))
    for row in rows:
        total = found[row["nonzeros"], row["scheme"]]
        for name in ("weights", "bytes", "total_cycles", "energy_uj_value"):
            total[name] += float(row[name] or 0)
        total["front"] += row["on_front"] == "True"
    return found


def table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    """Print a table in Markdown."""
    print("|" + "|".join(f" {cell} " for cell in header) + "|")
    print("|" + "---|" * len(header))
    for row in rows:
        print("|" + "|".join(f" {cell} " for cell in row) + "|")
    print()


def print_tables() -> None:
    """All tables of the study."""
    sums = totals(read("front"))
    keys = [str(each) for each in NONZEROS]
    names = list(dict.fromkeys(scheme for _, scheme in sums))
    print("Bits a weight; on how many of the models' fronts\n")
    by_size = sorted(names, key=lambda name: sums[keys[2], name]["bytes"])
    rows = []
    for name in by_size:
        row = [f"`{name}`"]
        for key in keys:
            one = sums[key, name]
            row.append(f"{8 * one['bytes'] / one['weights']:.2f}")
        rows.append([*row, *(f"{sums[key, name]['front']:.0f}" for key in keys)])
    table(["scheme", *(f"{100 * n:g} %" for n in NONZEROS), *(f"front {n}" for n in keys)], rows)
    print("At the rate of the own scheme: relative to it\n")
    own: dict[str, str] = {}
    rows = []
    for row in read("equal_rate"):
        own = row if row["scheme"] == OWN else own
        ratios = [
            f"{100 * float(row[name]) / float(own[name]) - 100:+.1f} %"
            for name in ("bytes", "total_cycles", "energy_uj_value")
        ]
        area = f"{float(row['area_ge_low']) / 1e3:.1f}-{float(row['area_ge_high']) / 1e3:.0f}"
        rate = f"{float(row['weights_per_cycle']):.1f}"
        rows.append([row["nonzeros"], f"`{row['scheme']}`", row["lanes"], rate, area, *ratios])
    table(["nonzeros", "scheme", "lanes", "w/cycle", "kGE", "bytes", "cycles", "energy"], rows)
    for part in ("fields", "npus", "accuracy"):
        stored = read(part)
        if stored:
            print(f"{part}\n")
            table([*stored[0]], [[*row.values()] for row in stored])


def draw() -> None:
    """The figures of the study."""
    figure = matplotlib_module().figure.Figure(figsize=(9, 4), layout="constrained")
    left, right = figure.subplots(1, 2)
    sums = totals(read("front"))
    for name in SHOWN:
        keys = [str(each) for each in NONZEROS]
        above = [100 * sums[k, name]["bytes"] / sums[k, ENTROPY]["bytes"] - 100 for k in keys]
        left.plot([100 * each for each in NONZEROS], above, "o-", markersize=3, label=name)
    left.set(xlabel="non-zeros, %", ylabel="bytes above order-0 entropy, %", ylim=(-2, 45))
    left.invert_xaxis()
    rows = [row for row in read("equal_rate") if float(row["nonzeros"]) == 0.25]
    own = next(row for row in rows if row["scheme"] == OWN)
    for row in rows:
        area = (float(row["area_ge_low"]) + float(row["area_ge_high"])) / 2000
        at = (100 * float(row["bytes"]) / float(own["bytes"]) - 100, area)
        right.scatter(*at, s=18, color="#ee6677" if row is own else "#4477aa")
        right.annotate(f"{row['scheme']} x{row['lanes']}", at, fontsize=6, xytext=(3, 3),
                       textcoords="offset points")  # fmt: skip
    right.set(
        xlabel="bytes beside ethos-u-mlw, %", ylabel="area, kGE", yscale="log", xlim=(-12, 30)
    )
    right.set_title("25 % non-zeros, lanes for an equal rate", fontsize=9)
    left.legend(fontsize=7)
    for axes in (left, right):
        axes.grid(alpha=0.3)
    figure.savefig(RESULTS / "compression_front.png", dpi=80)
    rows = read("accuracy")
    if rows:
        figure = matplotlib_module().figure.Figure(figsize=(6, 4), layout="constrained")
        axes = figure.subplots()
        groups = {"non-zeros": "pruned", "bits": "quantized", "values": "clustered", ":": "N:M"}
        for word, label in groups.items():
            some = [r for r in rows if word in r["condition"] and "," not in r["condition"]]
            points = np.array([(float(r[OWN]), 100 * float(r["top1"])) for r in some])
            axes.plot(*points[np.argsort(points[:, 0])].T, "o-", label=label, markersize=4)
        axes.set(xlabel="bits a weight, ethos-u-mlw", ylabel="top-1 accuracy, %")
        axes.grid(alpha=0.3)
        axes.legend(fontsize=8)
        figure.savefig(RESULTS / "compression_accuracy.png", dpi=80)


def main() -> None:
    """Measure what is asked for, then print and draw all that is stored."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--models", type=Path, required=True, help="folder of .tflite models")
    parser.add_argument("--cifar", type=Path, help="folder of resnet20.tflite and test.npz")
    parser.add_argument(
        "--only", nargs="*", choices=PARTS, help="parts to measure; all if not given"
    )
    options = parser.parse_args()
    RESULTS.mkdir(exist_ok=True)
    for part in PARTS if options.only is None else options.only:
        folder = options.cifar if part == "accuracy" else options.models
        if folder is not None:
            write(part, PARTS[part](folder))
    print_tables()
    draw()


if __name__ == "__main__":
    main()
