# SPDX-License-Identifier: Apache-2.0
"""Candidates deployed: codes beside LiteRT's, eq. (4) and streams beside what Vela encodes.

    python benches/deployment.py [RUN ...] [-o KEY=VALUE ...] [--out FILE.json]

Networks of normally distributed weights, half of them pruned, at 3 to 6 bits in number format
Q-hat, their batch norm and int8 grids from random images. RUNs are directories of trainings
("npusim train"), measured too, on random codes; options are those of their space. Raw results of
one run are in results/deployment.json.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch

import spaces
from npusim.deployment import measure, random_samples, runtimes
from npusim.hardware import machine
from npusim.weights.conditioning import least_error_clip
from npusim.weights.format import WEIGHT_MAX
from searchers.deployment.trained import Data, load_trained
from spaces.cli import parse_option
from spaces.costs import cost
from spaces.export import export
from spaces.nets import CandidateNet, CompressedWeight, build
from spaces.nets.candidate_net import observe_activations, recalibrate

NETWORKS: dict[str, tuple[str, dict[str, Any]]] = {
    "digits": ("digits", {}),
    "MobileNetV2 x0.5, 64x64": ("tiny_imagenet", {"widen": 0.5}),
    "wide ResNet 20-1": ("cifar100", {"multiplier": 1}),
    "super-resolution x2": ("super_resolution", {"scale": 2, "layers": 4}),
    "super-resolution x4": ("super_resolution", {"scale": 4, "layers": 4}),
}
BITWIDTHS = (3, 4, 5, 6)
SPARSITY = 0.5
N_SAMPLES = 4


@torch.no_grad()
def set_range(weight: CompressedWeight) -> None:
    """The range of least squared error beyond beta; training finds its own."""
    kept = weight.theta[weight.mask > 0].abs() - weight.beta
    step = float(kept.max()) / WEIGHT_MAX
    codes = np.rint(kept.numpy() / step).astype(np.int64)
    weight.log_range.fill_(math.log(step * least_error_clip(codes, weight.bitwidth)))


def untrained(name: str, options: dict[str, Any], bitwidth: int) -> CandidateNet:
    """A space's largest candidate at one bitwidth, pruned, calibrated on random images."""
    if name == "super_resolution":
        options = {**options, "bitwidths": (bitwidth,), "sparsities": (SPARSITY,)}
    else:
        options = {**options, "bitwidths": BITWIDTHS}
    space, generator = spaces.get(name, **options), torch.Generator().manual_seed(0)
    chosen: dict[str, Any] = {"bitwidth": bitwidth, "sparsity": SPARSITY}
    candidate = space.from_options(
        {d.name: chosen.get(d.kind, d.options[-1]) for d in space.decisions}
    )
    net = build(space, candidate, generator, offset=True)
    net.prune(1.0)
    for weight in net.weights().values():
        set_range(weight)
    height, width, depth = space.image_shape
    images = torch.randn(16, depth, height, width, generator=generator)
    recalibrate(net, [images])
    observe_activations(net, [images])
    return net


def measured(title: str, net: CandidateNet) -> dict[str, Any]:
    """The figures of one network."""
    network = export(net, fine_bias=False)
    eq4_bytes = math.ceil(cost(net.space, net.candidate, "size_bits") / 8)
    found = measure(network, machine(), eq4_bytes=eq4_bytes)
    runs = runtimes(network, random_samples(network, N_SAMPLES))
    assert found.compiled is not None
    equal = {each.name: each.to_integers.to_json() for each in runs if each.to_integers is not None}
    return {
        "network": title,
        **found.to_json(),
        "vela_cpu_ops": found.compiled.n_cpu_ops,
        "n_ops": len(network.ops),
        "codes": equal,
    }


def rows(directories: list[Path], options: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """All figures, one after the other."""
    for title, (name, own) in NETWORKS.items():
        for bitwidth in BITWIDTHS:
            found = measured(title, untrained(name, own, bitwidth))
            yield {**found, "bits": bitwidth}
    for directory in directories:
        yield measured(directory.name, load_trained(directory, options, Data()))


def line(found: dict[str, Any]) -> str:
    """What is printed of one network."""
    codes = found["codes"].values()
    ours, theirs = found["stream_bytes"], found["vela_stream_bytes"]
    unequal = sum(each["codes"] - each["equal"] for each in codes)
    return (
        f"{found['network']:24} {found.get('bits', ''):>2} {found['n_weights']:>9,} "
        f"{found['eq4_bytes']:>9,} {ours:>9,} {theirs:>9,} "
        f"{100 * (found['eq4_bytes'] / theirs - 1):>+7.2f} % {ours - theirs:>+5} "
        f"{found['vela_cpu_ops']:>3} {unequal:>5} of {sum(each['codes'] for each in codes):>9,} "
        f"{found['total_cycles'] - found['vela_total_cycles']:>+6}"
    )


def main() -> None:
    """Measure and print; with --out write all figures too."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("runs", nargs="*", type=Path)
    parser.add_argument("-o", "--option", action="append", default=[])
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    print(
        f"{'network':24} {'b':>2} {'weights':>9} {'eq. (4)':>9} {'stream':>9} {'Vela':>9} "
        f"{'eq. (4)':>9} {'':>5} {'CPU':>3} {'codes that differ':>22} {'cycles':>6}"
    )
    found = []
    for each in rows(arguments.runs, dict(map(parse_option, arguments.option))):
        found.append(each)
        print(line(each), flush=True)
    worst = max(abs(each["eq4_bytes"] / each["vela_stream_bytes"] - 1) for each in found)
    print(f"eq. (4) is at most {100 * worst:.2f} % from what Vela encodes")
    if arguments.out is not None:
        lines = ",\n".join(json.dumps(each) for each in found)
        arguments.out.write_text(f"[\n{lines}\n]\n", encoding="utf-8")


if __name__ == "__main__":
    np.seterr(all="raise", under="ignore")
    sys.exit(main())
