# SPDX-License-Identifier: Apache-2.0
"""What writes its result where a concatenation or a pad wants it, against the compiler.

Every kind of step before a concatenation, along every axis, of maps alone and in batches.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import product
from typing import Any

import numpy as np
import pytest
from compared_costs import differing

from npusim.network import Network
from npusim.network_builder import NetworkBuilder
from npusim.tensor import Tensor

Shape = tuple[int, ...]


class Parts:
    """A network of one step of a kind whose result becomes part of a larger map."""

    def __init__(self, kind: str, shape: Shape):
        self.net = NetworkBuilder("parts")
        self.rng = np.random.default_rng(0)
        self.image = self.net.input(shape, scale=0.1)
        self.made: Tensor = KINDS[kind](self)

    def op(self, kind: str, *inputs: Any, scale: float = 0.1, **given: Any) -> Tensor:
        return self.net.op(kind, self.image, *inputs, scale=scale, **given)

    def weighted(self, kind: str, weights: Shape, depth: int, **given: Any) -> Tensor:
        codes = self.rng.integers(-90, 90, weights).astype(np.int8)
        known = self.net.constant(codes, scales=0.01)
        bias = self.net.bias([0] * depth, self.image, known)
        return self.op(kind, known, bias, **given)

    def resize(self, kind: str, factor: int, **given: Any) -> Tensor:
        batch, height, width, depth = self.image.shape
        size = (height * factor, width * factor)
        target = np.array(size, np.int32)
        return self.net.op(kind, self.image, target, shape=(batch, *size, depth), **given)

    def transposed(self) -> Tensor:
        order = [*range(len(self.image.shape) - 2), -1, -2]
        axes = np.array(order, np.int32) % len(order)
        shape = [self.image.shape[axis] for axis in axes]
        return self.net.op("TRANSPOSE", self.image, axes.astype(np.int32), shape=shape)

    def joined(self, axis: int) -> Network:
        """Side by side with an input."""
        known = self.made.quantization
        assert known is not None
        other = self.net.input(
            self.made.shape, scale=known.scales, zero_point=int(known.zero_points[0])
        )
        shape = list(self.made.shape)
        shape[axis] *= 2
        return self.net.build(
            self.net.op("CONCATENATION", self.made, other, axis=axis, shape=shape)
        )

    def padded(self, axis: int) -> Network:
        """With a margin on both sides."""
        margins = np.zeros((len(self.made.shape), 2), np.int32)
        margins[axis] = 1
        shape = [n + int(sides.sum()) for n, sides in zip(self.made.shape, margins, strict=True)]
        return self.net.build(self.net.op("PAD", self.made, margins, shape=shape))


SAME: dict[str, Any] = {"stride_h": 1, "stride_w": 1, "padding": "SAME"}
ON_MAPS: dict[str, Callable[[Parts], Tensor]] = {
    "convolution of 1 x 1": lambda p: p.weighted("CONV_2D", (8, 1, 1, 8), 8),
    "convolution": lambda p: p.weighted("CONV_2D", (8, 3, 3, 8), 8, **SAME),
    "convolution in groups": lambda p: p.weighted("CONV_2D", (8, 3, 3, 4), 8, **SAME),
    "depthwise": lambda p: p.weighted(
        "DEPTHWISE_CONV_2D", (1, 3, 3, 8), 8, depth_multiplier=1, **SAME
    ),
    "pool": lambda p: p.net.op("MAX_POOL_2D", p.image, filter_h=2, filter_w=2, **SAME),
    "nearest by 2": lambda p: p.resize("RESIZE_NEAREST_NEIGHBOR", 2),
    "nearest by 4": lambda p: p.resize("RESIZE_NEAREST_NEIGHBOR", 4),
    "bilinear by 2": lambda p: p.resize("RESIZE_BILINEAR", 2),
}
KINDS: dict[str, Callable[[Parts], Tensor]] = {
    **ON_MAPS,
    "fully connected": lambda p: p.weighted("FULLY_CONNECTED", (8, 8), 8, keep_num_dims=True),
    "relu": lambda p: p.op("RELU"),
    "tanh": lambda p: p.op("TANH", scale=1 / 128),
    "add": lambda p: p.op("ADD", p.image),
    "softmax": lambda p: p.op("SOFTMAX", scale=1 / 256, zero_point=-128, beta=1.0),
    "transpose": Parts.transposed,
}
SHAPES: list[Shape] = [(1, 4, 6, 8), (2, 4, 6, 8), (3, 1, 1, 8), (3, 4, 8), (5, 8)]


@pytest.mark.parametrize("kind", KINDS)
def test_the_compiler_says_the_same(kind):
    networks = {}
    for shape, way in product(SHAPES, (Parts.joined, Parts.padded)):
        if kind in ON_MAPS and (len(shape) < 4 or ("by" in kind and shape[0] > 1)):
            continue  # the compiler fails at resizes of batches, and at some that become one
        for axis in range("by 4" in kind, len(shape)):
            networks[shape, way.__name__, axis] = way(Parts(kind, shape), axis)
    assert len(networks) >= 6
    assert differing(networks) == []
