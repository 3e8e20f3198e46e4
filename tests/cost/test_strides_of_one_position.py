# SPDX-License-Identifier: Apache-2.0
"""Convolutions with strides that have one position, with and without a pad before them.

The compiler takes strides for 1 where the result is one row or column: most of the time. A pad
joins a convolution by the strides that were given, and a depthwise stride above 3 stays on the CPU.
"""

from __future__ import annotations

import numpy as np
import pytest
from compared_costs import differing

from npusim.network import Network
from npusim.network_builder import NetworkBuilder

KINDS = ["CONV_2D", "DEPTHWISE_CONV_2D"]


def network(
    kind: str, height: int, kernel: int, stride: int, margins: tuple[int, int] | None
) -> Network:
    """One convolution of 8 channels: of a square map, or of one 8 wide padded above and below."""
    net = NetworkBuilder("strides")
    found = net.input((1, height, height if margins is None else 8, 8), scale=0.1)
    if margins is not None:
        sides = np.array([(0, 0), margins, (0, 0), (0, 0)], np.int32)
        found = net.op("PAD", found, sides, scale=0.1)
    depthwise = kind == "DEPTHWISE_CONV_2D"
    shape = (1, kernel, kernel, 8) if depthwise else (8, kernel, kernel, 8)
    values = np.random.default_rng(0).integers(-90, 90, shape).astype(np.int8)
    weights = net.constant(values, scales=0.01)
    attributes = {"depth_multiplier": 1} if depthwise else {}
    padding = "SAME" if margins is None else "VALID"
    return net.build(
        net.op(
            kind,
            *(found, weights, net.bias([0] * 8, found, weights)),
            **dict(stride_h=stride, stride_w=stride, padding=padding, scale=0.1, **attributes),
        )
    )


@pytest.mark.parametrize("kind", KINDS)
def test_without_a_pad(kind):
    heights, kernels, strides = (1, 2, 3, 4, 5, 8), (1, 2, 3), (3, 4, 5)
    cases = [(h, k, s, None) for h in heights for k in kernels for s in strides]
    assert differing({case: network(kind, *case) for case in cases}) == []


@pytest.mark.parametrize("kind", KINDS)
def test_after_a_pad(kind):
    margins = ((0, 1), (0, 3), (1, 0), (1, 2), (2, 1))
    cases = [
        (height, kernel, stride, sides)
        for height in (1, 2, 3)
        for kernel in (1, 2, 3)
        for stride in (2, 3)
        for sides in margins
        if height + sum(sides) >= kernel
    ]
    assert differing({case: network(kind, *case) for case in cases}) == []
