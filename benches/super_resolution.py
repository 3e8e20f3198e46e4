# SPDX-License-Identifier: Apache-2.0
"""Whole test images through a deployed super-resolution network, each in one of its own size.

    python benches/super_resolution.py RUN [--data DIR] [--sets Set5,Set14] [--out FILE.json]

RUN is a directory of "npusim train". PSNR in dB of luminance, the scale's borders left out: of
bicubic interpolation, of torch with maps in floating point and in int8, of our integers and of
LiteRT, with the three ways it rounds; and how many codes LiteRT and our integers give alike.
"""

from __future__ import annotations

import argparse
import json
from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np
import torch

from npusim.deployment import runtimes
from searchers.data import Pairs, SuperResolutionData
from searchers.deployment import trained
from searchers.training.tasks import PEAK, scale_of, super_resolution_score
from spaces.export import export
from spaces.nets import CandidateNet


def of_image(net: CandidateNet, low: np.ndarray, high: np.ndarray) -> dict[str, Any]:
    """PSNR of one image by runtime; codes that LiteRT and our integers give, and give alike."""
    larger, scale = trained.resized(net, *low.shape), scale_of(net.space)
    samples = trained.Patches(low[None, ..., None] / np.float32(PEAK), high[None], scale)
    in_torch = trained.torch_outputs(larger, samples)

    def score(outputs: trained.Outputs) -> dict[str, float]:
        return samples.score(trained.real_outputs(larger, outputs))

    found = runtimes(export(larger), trained.input_codes(larger, samples), score, in_torch)
    alike = [each.to_integers for each in found if each.to_integers is not None]
    larger.quantize_activations("off")
    with_floats = super_resolution_score(larger, Pairs((high,), (low,)), scale)
    return {
        "torch, float maps": with_floats["psnr"],
        "torch, int8 maps": score(in_torch)["psnr"],
        **{each.name: each.scores["psnr"] for each in found},
        "n_codes": sum(each.n_codes for each in alike),
        "n_equal": sum(each.n_equal for each in alike),
    }


def main() -> None:
    """Measure and print; with --out write all figures too."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("run", type=Path)
    parser.add_argument("--data", type=Path)
    parser.add_argument("--sets", default="Set5")
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    source = trained.Data(directory=arguments.data).of(arguments.run)
    net = trained.load_trained(arguments.run, {}, source)
    data = source.load(net)
    assert isinstance(data, SuperResolutionData)
    rows = []
    for name in arguments.sets.split(","):
        pairs, columns = data.pairs(name, scale_of(net.space)), defaultdict(list)
        for low, high in zip(pairs.low, pairs.high, strict=True):
            for what, value in of_image(net, low, high).items():
                columns[what].append(value)
        codes = {what: sum(columns.pop(what)) for what in ("n_codes", "n_equal")}
        bicubic = data.bicubic_psnr(name, scale_of(net.space))
        scores = {what: float(np.mean(values)) for what, values in columns.items()}
        rows.append({"set": name, "bicubic": bicubic, **scores, **codes})
        print(f"{name}: {codes['n_equal']:,} of {codes['n_codes']:,} codes of LiteRT are ours")
        for what, value in {"bicubic": bicubic, **scores}.items():
            print(f"    {what:24} {value:6.2f} dB {value - bicubic:+.2f}", flush=True)
    if arguments.out is not None:
        arguments.out.write_text(json.dumps(rows, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
