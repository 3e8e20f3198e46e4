# SPDX-License-Identifier: Apache-2.0
"""Candidates deployed: codes beside LiteRT's, eq. (4) and streams beside what Vela encodes.

    python benches/deployment.py [RUN ...] [-o KEY=VALUE ...] [--runs-alone] [--out FILE.json]

Networks of normally distributed weights, half of them pruned, at 3 to 6 bits in number format
Q-hat, their batch norm and int8 grids from random images; of the same in format Q, and with 60 % of
the weights pruned, sizes alone. RUNs are directories of trainings ("npusim train"), measured too,
on random codes, or alone; options are those of their space, for files of networks that do not say
it. Those trained in floating point are pruned and quantized as they are as well, without training
on, for their sizes. Beside Vela's streams there are those of its encoder before version 5,
"legacy", and of ours, "tight". Raw results of one run are in results/deployment.json.
"""

from __future__ import annotations

import argparse
import itertools
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch

import spaces
from npusim.compress import compress
from npusim.deployment import measure, random_samples, runtimes
from npusim.hardware import machine
from npusim.network import Network
from searchers.deployment import trained
from spaces.cli import parse_option
from spaces.export import export
from spaces.nets import CandidateNet, CompressedWeight, build
from spaces.nets.candidate_net import observe_activations, recalibrate
from spaces.nets.modules import Weighted

NETWORKS: dict[str, tuple[str, dict[str, Any]]] = {
    "digits": ("digits", {}),
    "MobileNetV2 x0.5, 64x64": ("tiny_imagenet", {"widen": 0.5}),
    "wide ResNet 20-1": ("cifar100", {"multiplier": 1}),
    "super-resolution x2": ("super_resolution", {"scale": 2, "layers": 4}),
    "super-resolution x4": ("super_resolution", {"scale": 4, "layers": 4}),
}
BITWIDTHS = (3, 4, 5, 6)
FORMATS = (("q-hat", 0.5), ("q-hat", 0.4), ("q", 0.5))
"""Number formats, fractions of non-zeros; of all but the first sizes alone."""
NONZEROS = (0.5, 0.4)
"""Fractions that are left of networks trained in floating point."""
N_SAMPLES = 4


def untrained(
    name: str, options: dict[str, Any], bitwidth: int, number_format: str, sparsity: float
) -> CandidateNet:
    """A space's largest candidate at one bitwidth, pruned, calibrated on random images."""
    if name == "super_resolution":
        options = {**options, "bitwidths": (bitwidth,), "sparsities": (sparsity,)}
    else:
        options = {**options, "bitwidths": BITWIDTHS}
    space, generator = spaces.get(name, **options), torch.Generator().manual_seed(0)
    chosen: dict[str, Any] = {"bitwidth": bitwidth, "sparsity": sparsity}
    candidate = space.from_options(
        {d.name: chosen.get(d.kind, d.options[-1]) for d in space.decisions}
    )
    net = build(space, candidate, generator, offset=number_format == "q-hat")
    net.prune(1.0)
    for weight in net.weights().values():
        weight.fit_range()  # training finds its own
    height, width, depth = space.image_shape
    images = torch.randn(16, depth, height, width, generator=generator)
    recalibrate(net, [images])
    observe_activations(net, [images])
    return net


@torch.no_grad()
def compressed(net: CandidateNet, bitwidth: int, sparsity: float) -> CandidateNet:
    """A network trained in floating point, pruned and quantized in format Q-hat as it is."""
    for block in net.modules():
        if isinstance(block, Weighted):
            theta = block.weight.theta
            n_nonzero = max(1, round(sparsity * theta.numel()))
            new = CompressedWeight(tuple(theta.shape), bitwidth, n_nonzero, torch.Generator())
            new.offset = True
            new.theta.copy_(theta)
            new.prune(1.0)
            new.fit_range()
            block.weight = new
    return net


def sizes(title: str, net: CandidateNet, network: Network) -> dict[str, Any]:
    """What eq. (4), the entropy and three encoders say of a network, in bytes."""
    found = compress(network, machine().npu, encoders=("regor", "legacy", "tight")).stored
    names = ("entropy", "regor", "legacy", "tight")
    n_bytes = {f"{name}_bytes": sum(each.n_bytes[name] for each in found) for name in names}
    n_coded = sum(each.n_coded for each in found)
    return {
        "network": title,
        "n_weights": network.n_weights,
        "n_coded": n_coded,
        "n_zeros": sum(each.n_zeros for each in found),
        "eq4_bytes": trained.eq4_bytes(net),
        **n_bytes,
    }


def measured(title: str, net: CandidateNet) -> dict[str, Any]:
    """All figures of one network."""
    network = export(net, fine_bias=False)
    of_encoders = sizes(title, net, network)
    found = measure(network, machine(), eq4_bytes=of_encoders["eq4_bytes"])
    runs = runtimes(network, random_samples(network, N_SAMPLES))
    assert found.compiled is not None
    equal = {each.name: each.to_integers.to_json() for each in runs if each.to_integers is not None}
    return {
        **of_encoders,
        **found.to_json(),
        "vela_cpu_ops": found.compiled.n_cpu_ops,
        "n_ops": len(network.ops),
        "codes": equal,
    }


def rows_of_untrained() -> Iterator[dict[str, Any]]:
    """All figures of networks that nobody trained."""
    for title, (name, own) in NETWORKS.items():
        for bitwidth in BITWIDTHS:
            for number_format, sparsity in FORMATS:
                net = untrained(name, own, bitwidth, number_format, sparsity)
                whole = (number_format, sparsity) == FORMATS[0]
                kind = {"bits": bitwidth, "number_format": number_format, "nonzeros": sparsity}
                yield kind | (measured(title, net) if whole else sizes(title, net, export(net)))


def rows_of_trained(directories: list[Path], options: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """All figures of trainings."""
    for directory in directories:
        net = trained.load_trained(directory, options, trained.Data().of(directory))
        (offset,) = {each.offset for each in net.weights().values()}
        kind = {"bits": None, "number_format": "q-hat" if offset else "q", "nonzeros": None}
        yield kind | measured(directory.name, net)
        if any(each.quantizes for each in net.weights().values()):
            continue
        for bitwidth, sparsity in itertools.product(BITWIDTHS, NONZEROS):
            kind = {"bits": bitwidth, "number_format": "q-hat", "nonzeros": sparsity}
            net = compressed(net, bitwidth, sparsity)
            yield kind | sizes(f"{directory.name}, compressed", net, export(net))


def line(found: dict[str, Any]) -> str:
    """What is printed of one network."""
    eq4_bytes = found["eq4_bytes"]
    above = (
        f"{100 * (eq4_bytes / found[f'{name}_bytes'] - 1):>+7.2f}"
        for name in ("entropy", "regor", "legacy", "tight")
    )
    kind = f"{found['bits'] or '':>2} {found['number_format']:5} {found['nonzeros'] or '':>3}"
    text = (
        f"{found['network']:24} {kind} {found['n_weights']:>9,} {eq4_bytes:>9,} {' '.join(above)}"
    )
    if "codes" not in found:
        return text
    codes = found["codes"].values()
    ours, theirs = found["stream_bytes"], found["vela_stream_bytes"]
    unequal = sum(each["codes"] - each["equal"] for each in codes)
    return (
        f"{text} {theirs:>9,} {ours - theirs:>+4} {found['vela_cpu_ops']:>3} "
        f"{unequal:>5} of {sum(each['codes'] for each in codes):>9,} "
        f"{found['total_cycles'] - found['vela_total_cycles']:>+6}"
    )


def main() -> None:
    """Measure and print; with --out write all figures too."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("runs", nargs="*", type=Path)
    parser.add_argument("-o", "--option", action="append", default=[])
    parser.add_argument("--runs-alone", action="store_true")
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    print(
        f"{'network':24} {'b':>2} {'':9} {'weights':>9} {'eq. (4)':>9} {'beside':>7} {'Vela':>7} "
        f"{'legacy':>7} {'tight':>7} {'Vela':>9} {'off':>4} {'CPU':>3} {'codes that differ':>18} "
        f"{'cycles':>6}\n{'':56} {'entropy':>7} {'%':>7} {'%':>7} {'%':>7}"
    )
    found = []
    of_runs = rows_of_trained(arguments.runs, dict(map(parse_option, arguments.option)))
    untrained_first = () if arguments.runs_alone else rows_of_untrained()
    for each in itertools.chain(untrained_first, of_runs):
        found.append(each)
        print(line(each), flush=True)
    if arguments.out is not None:
        lines = ",\n".join(json.dumps(each) for each in found)
        arguments.out.write_text(f"[\n{lines}\n]\n", encoding="utf-8")


if __name__ == "__main__":
    np.seterr(all="raise", under="ignore")
    sys.exit(main())
