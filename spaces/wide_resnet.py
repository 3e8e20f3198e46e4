# SPDX-License-Identifier: Apache-2.0
"""The wide ResNet that the paper searches on CIFAR100."""

from __future__ import annotations

from collections.abc import Sequence

from npusim._arguments import integer
from npusim.errors import ConfigError
from spaces.base import Space
from spaces.builder import SpaceBuilder
from spaces.options import BITWIDTHS, SPARSITIES, WIDTHS

MULTIPLIER_MAX = 64
DEPTH_MAX = 302


def cifar100(
    multiplier: int = 10,
    depth: int = 20,
    widths: Sequence[float] = WIDTHS,
    bitwidths: Sequence[int] = BITWIDTHS,
    sparsities: Sequence[float] = SPARSITIES,
) -> Space:
    """A residual network of three stages on 32x32 images, with 100 classes.

    Args:
        multiplier: the first stage has 16 times as many channels, the others twice and four times
            that.
        depth: layers with weights; 6 n + 2 for n blocks in each stage.
        widths: fractions of the channels of each stage and of each block's inside.
        bitwidths: bits of a non-zero weight, in every layer with weights.
        sparsities: fractions of weights that are not zero, in every layer with weights.

    Raises:
        ConfigError: `multiplier` or `depth` is out of range, or there is no network of that depth.

    Source: [UDC] section 6; shortcuts without weights as in [UDC] [52], McDonnell 2018, so that
    there are as many weights: 26.8 million at depth 20 and multiplier 10.
    Differs: batch norm follows each convolution, so that it becomes part of it on the NPU; there
    it comes before. Shortcuts average 2x2 windows where those are of 3x3.

    >>> cifar100().count() == 10**12 * 44**20
    True
    """
    integer("multiplier of cifar100", multiplier, 1, MULTIPLIER_MAX)
    integer("depth of cifar100", depth, 8, DEPTH_MAX)
    if depth % 6 != 2:
        raise ConfigError(f"depth of cifar100 must be 6 n + 2, got {depth}")
    net = SpaceBuilder(
        "cifar100",
        "cifar100",
        (32, 32, 3),
        widths=widths,
        bitwidths=bitwidths,
        sparsities=sparsities,
        limits=["0.55MB", "0.7MB"],
    )
    x = net.conv(net.input(), 16 * multiplier, name="stem")
    for stage, ofm_depth in enumerate((16, 32, 64), start=1):
        for block in range(1, depth // 6 + 1):
            name, stride = f"stage{stage}.block{block}", 2 if stage > 1 and block == 1 else 1
            y = net.conv(x, ofm_depth * multiplier, stride=stride, name=f"{name}.conv1")
            y = net.conv(y, ofm_depth * multiplier, activation="none", name=f"{name}.conv2")
            if stride > 1:
                x = net.match_depth(net.average_pool(x, 2, stride), like=y)
            x = net.add(x, y, activation="relu", name=f"{name}.add")
    net.dense(net.global_pool(x), 100, name="classifier")
    return net.build()
