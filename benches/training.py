#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""What training reaches: the digits, and the paper's number format beside the usual one.

    python benches/training.py digits [--seeds 5]
    python benches/training.py number-format [--seeds 10] [--start RUN]
    python benches/training.py number-format-sgd [--seeds 10]
    python benches/training.py speed [--seeds 10]
    python benches/training.py files [--seeds 5]

Raw figures go to ``benches/results``. Torch has one thread; times are CPU seconds of the process.
Errors are standard errors over the seeds; each seed has first weights, order and draws of its own.
For "speed" the two precisions are measured in turn on random images, so that the ratio says more
than either figure. For "number-format" networks that are pruned and not quantized are the control.
"files" is of the 200 images of NPUSIM_DATA/sr/BSDS200, as JPEGs of 500x375 pixels.
"""

from __future__ import annotations

import argparse
import csv
import itertools
import os
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
import torch
from torch import Tensor

import spaces
from npusim.report.plots import matplotlib_module
from searchers.data.image_files import N_TRIES, N_UNIFORMS, ImageFiles
from searchers.data.splits import Split, open_image, require
from searchers.data.super_resolution import Pairs
from searchers.store import read_json
from searchers.training.loop import Training
from searchers.training.recipes import Recipe, from_mapping, get
from searchers.training.runs import Run, scale_of, train
from searchers.training.tasks import PEAK, Classification, SuperResolution, Task
from spaces.base import Candidate, Space
from spaces.digits import digits
from spaces.nets import CandidateNet, CompressedWeight, build, magnitude_mask
from spaces.nets.files import load_net

RESULTS = Path(__file__).parent / "results"
PAIRED_BY = ("sparsity", "number_format", "seed")
SGD = {"optimizer": "sgd", "learning_rate": 0.1, "weight_decay": 4e-5, "clip_norm": 5.0}
"""Momentum and little weight decay, as is usual for MobileNetV2 on ImageNet."""
FORMATS = {"q": "Q, 4 bits", "q-hat": "Q-hat, 4 bits", "none": "pruned alone"}


def candidate(space: Space, bitwidth: int, sparsity: float) -> Candidate:
    """Full width, the same bits and the same fraction of non-zeros in all layers."""
    chosen = {"width": 1.0, "bitwidth": bitwidth, "sparsity": sparsity}
    return space.from_options({each.name: chosen[each.kind] for each in space.decisions})


def trained(run: Run, folder: Path) -> tuple[dict[str, Any], CandidateNet]:
    """Results and network of a training."""
    return train(run, folder), load_net(folder / "net.pt", run.space)


def bench_digits(seeds: range) -> Iterator[dict[str, Any]]:
    """Test accuracy in floating point, and at 4 bits with half of the weights zero."""
    space = digits()
    for seed in seeds:
        for name, chosen in (("float", space.largest()), ("4 bit", candidate(space, 4, 0.5))):
            with tempfile.TemporaryDirectory() as folder:
                run = Run(space, chosen, get("digits"), seed, quantized=name != "float")
                results, _ = trained(run, Path(folder) / "run")
            scores = results["scores"]
            yield {
                "network": name,
                "seed": seed,
                "accuracy": scores["float_maps"]["accuracy"],
                "accuracy_int8_maps": scores.get("int8_maps", {}).get("accuracy", ""),
                "wall_s": round(results["wall_s"], 2),
                "cpu_s": round(results["cpu_s"], 2),
            }


def layer_figures(weight: CompressedWeight, before: Tensor) -> dict[str, float]:
    """What a format makes of a layer; `before` are its dense weights before finetuning."""
    deployed = weight().detach()
    kept_before = before * magnitude_mask(before, weight.n_nonzero)
    return {
        "levels": len(deployed[deployed != 0].unique()),
        "norm_growth": float(weight.theta.detach().square().sum() / before.square().sum()),
        "kept_norm_growth": float(deployed.square().sum() / kept_before.square().sum()),
    }


def by_format(
    start: Run, net: Path, recipe: Recipe, seed: int, sparsities: tuple[float, ...]
) -> Iterator[dict[str, Any]]:
    """Q, Q-hat and no quantization from the same float network, a row for each layer.

    Args:
        start: the training that it is of.
        net: its file.
        recipe: of finetuning, but for the number format.
        seed: of finetuning.
        sparsities: fractions of non-zeros.
    """
    dense = load_net(net, start.space)
    before = {name: weight.theta.detach() for name, weight in dense.weights().items()}
    for sparsity in sparsities:
        for name in FORMATS:
            chosen = candidate(start.space, 32 if name == "none" else 4, sparsity)
            changed = recipe.but(number_format="q" if name == "none" else name)
            run = replace(
                start, candidate=chosen, recipe=changed, seed=seed, quantized=True, start=net
            )
            with tempfile.TemporaryDirectory() as folder:
                results, found = trained(run, Path(folder))
            for layer, weight in found.weights().items():
                yield {
                    "sparsity": sparsity,
                    "number_format": name,
                    "seed": seed,
                    "layer": layer,
                    "accuracy": results["scores"]["float_maps"]["accuracy"],
                    "loss": results["loss"],
                    **layer_figures(weight, before[layer]),
                }


def bench_number_format(
    seeds: range, changes: Mapping[str, Any] = MappingProxyType({})
) -> Iterator[dict[str, Any]]:
    """The formats on the digits, at two sparsities, each seed from a float network of its own.

    Args:
        seeds: of all that is drawn.
        changes: to the recipe of finetuning.
    """
    space, recipe = digits(bitwidths=(4, 32)), get("digits")
    finetuning = recipe.but(epochs=20, **changes)
    for seed in seeds:
        with tempfile.TemporaryDirectory() as folder:
            run = Run(space, space.largest(), recipe, seed, quantized=False)
            train(run, Path(folder))
            net = Path(folder) / "net.pt"
            yield from by_format(run, net, finetuning, seed, (0.2, 0.1))


def bench_formats_from(start: Path, seeds: range) -> Iterator[dict[str, Any]]:
    """Two epochs of `SGD` from a float network of "npusim train", a tenth of the weights kept."""
    space = load_net(start / "net.pt").space
    header = read_json(start / "training.json")
    recipe = from_mapping(header["recipe"]).but(epochs=2, **SGD)
    run = Run(space, space.largest(), recipe, quantized=False, data_set=header["data_set"])
    for seed in seeds:
        yield from by_format(run, start / "net.pt", recipe, seed, (0.1,))


def by_seed(rows: list[dict[str, Any]], figure: str) -> dict[tuple[Any, ...], float]:
    """Means over the layers by (sparsity, number format, seed); of growths, of their logarithms."""
    found: dict[tuple[Any, ...], list[float]] = {}
    for row in rows:
        value = np.log(row[figure]) if figure.endswith("growth") else row[figure]
        found.setdefault(tuple(row[key] for key in PAIRED_BY), []).append(float(value))
    return {key: float(np.mean(values)) for key, values in found.items()}


def paired(rows: list[dict[str, Any]]) -> str:
    """What Q-hat changes, seed by seed, as lines of text: growths by what factor."""
    lines = []
    sparsities = dict.fromkeys(row["sparsity"] for row in rows)
    for sparsity, other in itertools.product(sparsities, ("q", "none")):
        parts = []
        for figure in ("accuracy", "loss", "levels", "norm_growth", "kept_norm_growth"):
            values = by_seed(rows, figure)
            seeds = sorted({key[2] for key in values})
            gains = [
                values[sparsity, "q-hat", seed] - values[sparsity, other, seed] for seed in seeds
            ]
            error = np.std(gains, ddof=1) / np.sqrt(len(gains)) if len(gains) > 1 else np.nan
            mean = np.mean(gains)
            if figure.endswith("growth"):
                mean = np.exp(mean)
            parts.append(f"{figure} {mean:.4g} +- {error:.2g}")
        lines.append(f"{sparsity} q-hat beside {other}, {len(seeds)} seeds: {', '.join(parts)}")
    return "\n".join(lines)


def plot(rows: list[dict[str, Any]], path: Path) -> None:
    """Growth of each layer's norm by format, with standard errors over the seeds."""
    figure = matplotlib_module().figure.Figure(figsize=(8, 3), layout="constrained")
    layers = list(dict.fromkeys(row["layer"] for row in rows))
    sparsities = list(dict.fromkeys(row["sparsity"] for row in rows))
    panels = figure.subplots(1, len(sparsities), sharey=True, squeeze=False)[0]
    for axes, sparsity in zip(panels, sparsities, strict=True):
        for i, (name, label) in enumerate(FORMATS.items()):
            grown = [
                [
                    row["norm_growth"]
                    for row in rows
                    if (row["sparsity"], row["number_format"], row["layer"])
                    == (sparsity, name, layer)
                ]
                for layer in layers
            ]
            means = [np.mean(each) for each in grown]
            errors = [np.std(each, ddof=1) / np.sqrt(len(each)) for each in grown]
            axes.bar(np.arange(len(layers)) + 0.27 * i, means, 0.25, yerr=errors, label=label)
        axes.set_xticks(np.arange(len(layers)) + 0.27, layers, rotation=90 * (len(layers) > 9))
        axes.set_title(f"{sparsity:.0%} non-zeros")
    figure.axes[0].set_ylabel("squared norm grows by")
    figure.axes[0].legend()
    figure.savefig(path, dpi=80)


SPEED: dict[str, tuple[str, dict[str, Any]]] = {
    "wide ResNet 20-1": ("cifar100", {"multiplier": 1}),
    "wide ResNet 20-2": ("cifar100", {"multiplier": 2}),
    "MobileNetV2 x0.5, 64x64": ("tiny_imagenet", {"widen": 0.5}),
    "super-resolution x4": ("super_resolution", {"features": 56, "shrunk": 12, "layers": 4}),
}
N_CLASSES = 100


def noise_task(space: Space, recipe: Recipe, n_batches: int) -> Task:
    """Random images to train a space's networks on."""
    noise, device = np.random.default_rng(0), torch.device("cpu")
    height, width, depth = space.image_shape
    if space.name == "super_resolution":
        scale = scale_of(space)
        sides = (recipe.patch, scale * recipe.patch)
        low, high = ((np.float32(PEAK) * noise.random((side, side), np.float32),) for side in sides)
        recipe = recipe.but(patches=n_batches * recipe.batch_size)
        return SuperResolution(Pairs(high, low), scale, recipe, device)
    n = n_batches * recipe.batch_size
    images = noise.integers(0, 256, (n, height, width, depth), np.uint8)
    classes = noise.integers(0, N_CLASSES, n)
    recipe = recipe.but(crop_area=1.0)
    return Classification(Split(images, classes, (128.0,), (64.0,)), recipe, device)


def bench_speed(seeds: range) -> Iterator[dict[str, Any]]:
    """Images a CPU second in float32 and with products in bfloat16, in turn."""
    for title, (name, options) in SPEED.items():
        space = spaces.get(name, **options)
        for seed in seeds:
            for precision in ("float32", "bfloat16"):
                recipe = get(space.data_set).but(epochs=1, bfloat16=precision == "bfloat16")
                task = noise_task(space, recipe, n_batches=3)
                net = build(space, space.largest(), torch.Generator().manual_seed(seed))
                spent_s: list[float] = []
                training = Training(net, task, recipe, seed, quantized=False)
                training.run(lambda progress, spent_s=spent_s: spent_s.append(progress.cpu_s))
                rate = recipe.batch_size / (spent_s[-1] - spent_s[-2])  # the first allocates
                yield {
                    "network": title,
                    "precision": precision,
                    "seed": seed,
                    "images_per_cpu_s": round(rate, 1),
                }


def bench_files(seeds: range) -> Iterator[dict[str, Any]]:
    """JPEGs a CPU second that are read as ImageNet's, beside the network that is trained on them.

    Rates by the clock are with all cores.
    """
    space, recipe = spaces.get("imagenet"), get("imagenet").but(epochs=1, batch_size=16)
    source = require(Path(os.environ["NPUSIM_DATA"]) / "sr" / "BSDS200", "bsds200", "see load")
    with tempfile.TemporaryDirectory() as folder:
        paths = [Path(folder) / f"{i}.jpg" for i in range(200)]
        for path, png in zip(paths, sorted(source.iterdir()), strict=True):
            open_image(png).resize((500, 375)).save(path, quality=95)
        files = ImageFiles(paths, 224)
        for seed in seeds:
            uniforms = np.random.default_rng(seed).random((200, N_TRIES, N_UNIFORMS))
            noise = noise_task(space, recipe, n_batches=3)
            net = build(space, space.largest(), torch.Generator().manual_seed(seed))
            ways: dict[str, tuple[int, Callable[[], object]]] = {
                "random resized crops": (200, lambda drawn=uniforms: files.crops(drawn, 0.08)),
                "middles": (200, lambda: np.asarray(files)),
                "training": (48, Training(net, noise, recipe, seed, quantized=False).run),
            }
            for name, (n_images, do) in ways.items():
                wall_s, cpu_s = time.perf_counter(), time.process_time()
                do()
                yield {
                    "what": name,
                    "seed": seed,
                    "images_per_cpu_s": round(n_images / (time.process_time() - cpu_s), 1),
                    "images_per_s": round(n_images / (time.perf_counter() - wall_s), 1),
                }


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
    str, tuple[Callable[[range], Iterator[dict[str, Any]]], int, tuple[str, ...], tuple[str, ...]]
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
        ("sparsity", "number_format", "layer"),
        ("accuracy", "loss", "levels", "norm_growth", "kept_norm_growth"),
    ),
    "number-format-sgd": (
        partial(bench_number_format, changes=SGD),
        10,
        ("sparsity", "number_format", "layer"),
        ("accuracy", "loss", "levels", "norm_growth", "kept_norm_growth"),
    ),
    "speed": (bench_speed, 10, ("network", "precision"), ("images_per_cpu_s",)),
    "files": (bench_files, 5, ("what",), ("images_per_cpu_s", "images_per_s")),
}


def main() -> None:
    """Run one bench, write its rows, print their means."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("bench", choices=sorted(BENCHES))
    parser.add_argument("--seeds", type=int, help="repetitions; by default 5 or 10")
    parser.add_argument("--start", type=Path, help='number-format of this RUN of "npusim train"')
    arguments = parser.parse_args()
    bench, seeds, by, figures = BENCHES[arguments.bench]
    name = arguments.bench.replace("-", "_")
    if arguments.start is not None:
        if bench is not bench_number_format:
            parser.error(f"--start must go with number-format, got {arguments.bench}")
        bench, name = partial(bench_formats_from, arguments.start), f"{name}_{arguments.start.name}"
    torch.set_num_threads(1)
    path = RESULTS / f"training_{name}.csv"
    rows = []
    with path.open("w", newline="") as file:
        for row in bench(range(seeds if arguments.seeds is None else arguments.seeds)):
            if not rows:
                writer = csv.DictWriter(file, list(row), lineterminator="\n")
                writer.writeheader()
            writer.writerow(row)
            file.flush()
            rows.append(row)
    print(summary(rows, by, figures))
    if arguments.bench.startswith("number-format"):
        print(paired(rows))
        plot(rows, path.with_suffix(".png"))


if __name__ == "__main__":
    main()
