# SPDX-License-Identifier: Apache-2.0
"""Draws the pictures of the texts here: python docs/pictures.py."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from matplotlib.figure import Figure
from matplotlib.patches import FancyArrowPatch, FancyBboxPatch

import npusim
from npusim.cost.explain import STAGES, op_waterfall
from npusim.cost.result import Cost
from npusim.network_builder import NetworkBuilder

FOLDER = Path(__file__).parent / "pictures"
NPU = "ethos-u55-128"
BLUE, ORANGE, GREEN, RED, GREY = "#4e79a7", "#f28e2b", "#59a14f", "#e15759", "#9a9aa0"
COLOURS = (BLUE, ORANGE, GREEN, RED, "#76b7b2", "#edc948", "#b07aa1", "#ff9da7", "#9c755f", GREY)


def convolutions(*layers: tuple[str, int, int], size: int = 16) -> Cost:
    """The cost of convolutions one after the other: name, channels, kernel."""
    net, rng = NetworkBuilder("picture"), np.random.default_rng(0)
    x = net.input((1, size, size, 16), scale=0.02)
    for name, depth, kernel in layers:
        codes = rng.laplace(0, 8, (depth, kernel, kernel, x.shape[3])).round().clip(-127, 127)
        weights = net.constant(codes.astype(np.int8), scales=0.01)
        x = net.op("CONV_2D", x, weights, net.bias([0] * depth, x, weights), scale=0.1, name=name)
    return npusim.estimate(net.build(x), npu=NPU)


def box(axes: Any, x: float, y: float, width: float, text: str, colour: str) -> None:
    """A box with text in it, half a unit high."""
    style = "round,pad=0.02,rounding_size=0.06"
    axes.add_patch(
        FancyBboxPatch((x, y), width, 0.5, boxstyle=style, facecolor=colour, edgecolor="none")
    )
    axes.text(x + width / 2, y + 0.25, text, ha="center", va="center", color="white", fontsize=9)


def arrow(axes: Any, start: tuple[float, float], end: tuple[float, float], text: str = "") -> None:
    """An arrow, and what flows along it."""
    axes.add_patch(
        FancyArrowPatch(start, end, arrowstyle="-|>", mutation_scale=11, color="#596579")
    )
    if text:
        middle = (start[0] + end[0]) / 2, (start[1] + end[1]) / 2 + 0.07
        axes.text(*middle, text, ha="center", va="bottom", fontsize=7.5, color="#596579")


def npu() -> Figure:
    """What is in an Ethos-U, and what flows between its parts."""
    figure = Figure(figsize=(8.6, 3.0))
    axes = figure.add_axes((0, 0, 1, 1))
    axes.set_xlim(-0.1, 8.5)
    axes.set_ylim(-0.2, 2.8)
    axes.axis("off")
    axes.add_patch(
        FancyBboxPatch(
            *((1.75, -0.05), 4.9, 2.7),
            **{"boxstyle": "round,pad=0.02", "facecolor": "#eef2f7", "edgecolor": "#c5cedb"},
        )
    )
    axes.text(1.85, 2.5, "Ethos-U", fontsize=9, color="#596579", va="center")
    box(axes, 0, 1.7, 1.2, "flash", GREY)
    box(axes, 2.0, 1.7, 1.5, "weight decoder", ORANGE)
    box(axes, 4.1, 1.7, 1.0, "multipliers", BLUE)
    box(axes, 5.4, 1.0, 1.1, "output stage", GREEN)
    box(axes, 4.1, 0.2, 1.0, "SHRAM", "#76b7b2")
    box(axes, 7.2, 0.2, 1.2, "SRAM", GREY)
    arrow(axes, (1.22, 1.95), (1.98, 1.95), "weights")
    arrow(axes, (3.52, 1.95), (4.08, 1.95))
    arrow(axes, (4.6, 0.72), (4.6, 1.68), "")
    axes.text(4.72, 1.2, "ifm block", fontsize=7.5, color="#596579", va="center")
    arrow(axes, (5.12, 1.9), (5.7, 1.52), "sums")
    arrow(axes, (6.52, 1.2), (7.6, 0.72), "ofm")
    arrow(axes, (7.18, 0.4), (5.12, 0.4), "ifm")
    return figure


def stream() -> Figure:
    """The fields of a slice of the weight stream, as wide as their bits."""
    from npusim.weights import format as fields

    header = (
        ("ZDIV", fields.ZDIV_FIELD_BITS),
        ("SLICE_LEN", fields.SLICE_LEN_FIELD_BITS),
        ("WDIV", fields.WDIV_FIELD_BITS),
        ("WTRUNC", 1),
        ("NEW_PALETTE", 1),
    )
    palette = (
        ("DIRECT_OFFSET", fields.DIRECT_OFFSET_FIELD_BITS),
        ("PALETTE_SIZE", fields.PALETTE_SIZE_FIELD_BITS),
        ("PALETTE_BITS", fields.PALETTE_BITS_FIELD_BITS),
        ("entries", 10),
    )
    chunk = (("WUNARY0", 6), ("ZUNARY", 6), ("WUNARY1", 4), ("weight remainders", 8), ("runs", 5))
    figure = Figure(figsize=(8.6, 2.3))
    axes = figure.add_axes((0.13, 0.02, 0.86, 0.96))
    rows = (("slice header", header), ("palette", palette), ("each chunk", chunk))
    for row, (name, parts) in enumerate(rows):
        start, y = 0.0, -1.1 * row
        axes.text(-0.4, y, name, ha="right", va="center", fontsize=9)
        for place, (text, bits) in enumerate(parts):
            width = max(bits, 0.36 * len(text) + 0.6)
            axes.barh(y, width - 0.08, 0.55, left=start, color=COLOURS[place + row])
            fixed = name != "each chunk" and text != "entries"
            unit = "bit" if bits == 1 else "bits"
            label = f"{text}\n{bits} {unit}" if fixed else text
            axes.text(
                *(start + width / 2, y, label),
                **{"ha": "center", "va": "center", "fontsize": 7, "color": "white"},
            )
            start += width
    axes.set_xlim(0, 33)
    axes.set_ylim(-2.6, 0.4)
    axes.axis("off")
    return figure


def widths() -> Figure:
    """Cycles of a convolution against its channels."""
    channels = range(4, 65)
    cycles = [convolutions(("conv", n, 3)).total_cycles / 1000 for n in channels]
    figure = Figure(figsize=(7, 2.9), layout="constrained")
    axes = figure.subplots()
    axes.step(channels, cycles, where="mid", color=BLUE)
    axes.set_xlabel("channels of a 3×3 convolution of 16×16×16")
    axes.set_ylabel("thousand cycles")
    axes.set_ylim(bottom=0)
    axes.set_title(f"{NPU}: multipliers work on groups of channels", fontsize=10, loc="left")
    return figure


def density() -> Figure:
    """Bits a weight against the fraction of zeros."""
    weights = np.random.default_rng(0).laplace(0, 12, 60_000).round().clip(-127, 127)
    zeros = np.linspace(0, 0.95, 20)
    stream, entropy = [], []
    for fraction in zeros:
        pruned = npusim.weights.prune(weights.astype(np.int16), 1 - fraction)
        stream.append(8 * npusim.weights.encoded_size(pruned, encoder="regor") / pruned.size)
        counts = np.unique(pruned, return_counts=True)[1] / pruned.size
        entropy.append(float(-(counts * np.log2(counts)).sum()))
    figure = Figure(figsize=(7, 2.9), layout="constrained")
    axes = figure.subplots()
    axes.axhline(8, color=GREY, linestyle=":", label="8 bits")
    axes.plot(100 * zeros, stream, color=BLUE, marker="o", markersize=3, label="weight stream")
    axes.plot(100 * zeros, entropy, color=ORANGE, linestyle="--", label="order-0 entropy")
    axes.set_xlabel("zeros among the weights, %")
    axes.set_ylabel("bits a weight")
    axes.set_ylim(bottom=0)
    axes.legend(frameon=False, fontsize=8)
    axes.set_title("the stream stays near the entropy", fontsize=10, loc="left")
    return figure


def waterfall() -> Figure:
    """Stages of three layers."""
    cost = convolutions(("32 channels", 32, 3), ("17 channels", 17, 3), ("1×1 kernel", 64, 1))
    figure = Figure(figsize=(7, 2.4), layout="constrained")
    axes = figure.subplots()
    start = np.zeros(len(cost.ops))
    for place, stage in enumerate(STAGES):
        cycles = np.array([op_waterfall(op, NPU).cycles_by_stage[stage] for op in cost.ops]) / 1000
        if cycles.any():
            names = [op.name for op in cost.ops]
            axes.barh(names, cycles, left=start, label=stage, color=COLOURS[place], height=0.6)
            start += cycles
    axes.invert_yaxis()
    axes.set_xlabel("thousand cycles")
    axes.legend(frameon=False, fontsize=8, loc="center left", bbox_to_anchor=(1, 0.5))
    axes.set_title("what each slower limit adds", fontsize=10, loc="left")
    return figure


PICTURES = (npu, stream, widths, density, waterfall)
"""Each makes the picture of its name."""


def main() -> None:
    """Draw all pictures."""
    FOLDER.mkdir(exist_ok=True)
    style = {"svg.hashsalt": "npusim", "axes.spines.top": False, "axes.spines.right": False}
    with matplotlib.rc_context({**style, "svg.fonttype": "none", "font.family": "sans-serif"}):
        for draw in PICTURES:
            draw().savefig(
                FOLDER / f"{draw.__name__}.svg", facecolor="white", metadata={"Date": None}
            )


if __name__ == "__main__":
    main()
