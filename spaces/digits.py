# SPDX-License-Identifier: Apache-2.0
"""A small convolutional net for scikit-learn's 8x8 handwritten digits.

Small enough that a candidate trains in about a second on one CPU core, and of the same make as the
larger spaces: each layer has its own width, bitwidth and sparsity.
"""

from __future__ import annotations

from collections.abc import Sequence

from spaces.base import DecisionVariable, Kind, Layer, LayerKind, Option, Space

WIDTHS = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0)
BITWIDTHS = (1, 2, 4, 8)
SPARSITIES = (0.01, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0)


def digits(
    widths: Sequence[float] = WIDTHS,
    bitwidths: Sequence[int] = BITWIDTHS,
    sparsities: Sequence[float] = SPARSITIES,
) -> Space:
    """Three 3x3 convolutions (16, 32 and 48 channels at full width) and a classifier.

    Args:
        widths: fractions of the channels of each convolution.
        bitwidths: bits of a non-zero weight, in every layer with weights.
        sparsities: fractions of weights that are not zero, in every layer with weights.

    Source: [UDC] section 6, the options of the CIFAR100 space.
    Differs: bitwidths are those an NPU with 8-bit weights can run; the paper's are (1, 4, 8, 32).
    """
    decisions: list[DecisionVariable] = []

    def decide(kind: Kind, layer: str, options: Sequence[Option]) -> str:
        decisions.append(DecisionVariable(f"{layer}.{kind}", kind, tuple(options)))
        return decisions[-1].name

    def conv(name: str, source: str, ofm_depth: int, stride: int) -> Layer:
        return Layer(
            name,
            LayerKind.CONV,
            (source,),
            ofm_depth,
            kernel=3,
            stride=stride,
            width=decide(Kind.WIDTH, name, widths),
            bitwidth=decide(Kind.BITWIDTH, name, bitwidths),
            sparsity=decide(Kind.SPARSITY, name, sparsities),
        )

    layers = (
        Layer("image", LayerKind.INPUT),
        conv("conv1", "image", 16, stride=2),
        conv("conv2", "conv1", 32, stride=1),
        conv("conv3", "conv2", 48, stride=2),
        Layer("pool", LayerKind.GLOBAL_POOL, ("conv3",)),
        Layer(
            "classifier",
            LayerKind.DENSE,
            ("pool",),
            10,
            bitwidth=decide(Kind.BITWIDTH, "classifier", bitwidths),
            sparsity=decide(Kind.SPARSITY, "classifier", sparsities),
        ),
    )
    return Space("digits", "digits", (8, 8, 1), tuple(decisions), layers)
