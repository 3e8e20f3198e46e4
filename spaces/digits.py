# SPDX-License-Identifier: Apache-2.0
"""A small convolutional net for scikit-learn's 8x8 handwritten digits.

Small enough that a candidate trains in about a second on one CPU core, and of the same make as the
larger spaces: each layer has its own width, bitwidth and sparsity.
"""

from __future__ import annotations

from collections.abc import Sequence

from spaces.base import Space
from spaces.builder import SpaceBuilder
from spaces.options import DEPLOYABLE_BITWIDTHS, SPARSITIES, WIDTHS


def digits(
    widths: Sequence[float] = WIDTHS,
    bitwidths: Sequence[int] = DEPLOYABLE_BITWIDTHS,
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
    net = SpaceBuilder(
        "digits",
        "digits",
        (8, 8, 1),
        widths=widths,
        bitwidths=bitwidths,
        sparsities=sparsities,
        limits=["1KB", "1.5KB"],
    )
    x = net.input()
    for ofm_depth, stride in ((16, 2), (32, 1), (48, 2)):
        x = net.conv(x, ofm_depth, stride=stride)
    net.dense(net.global_pool(x), 10, name="classifier")
    return net.build()


RECORDED_WIDTHS = (0.25, 0.5, 0.75, 1.0)
RECORDED_BITWIDTHS = (1, 2, 4)
RECORDED_SPARSITIES = (0.1, 0.3, 1.0)
ENDS = (4,)
"""Bits of the first and the last layer of `digits_recorded`, which have few weights."""


def digits_recorded() -> Space:
    """The net of `digits` with so few options that every candidate has been trained.

    The second and the third convolution have all decisions. The first one and the classifier are
    dense, of 4 bits. `searchers.recorded` has what the trainings gave.

    >>> digits_recorded().count()
    1728
    """
    net = SpaceBuilder(
        "digits_recorded",
        "digits",
        (8, 8, 1),
        widths=RECORDED_WIDTHS,
        bitwidths=RECORDED_BITWIDTHS,
        sparsities=RECORDED_SPARSITIES,
        limits=["0.8KB", "1.2KB"],
    )
    x = net.input()
    x = net.conv(x, 16, stride=2, widths=None, bitwidths=ENDS, sparsities=None)
    x = net.conv(net.conv(x, 32), 48, stride=2, sparsities=(0.03, *RECORDED_SPARSITIES))
    net.dense(net.global_pool(x), 10, bitwidths=ENDS, sparsities=None, name="classifier")
    return net.build()
