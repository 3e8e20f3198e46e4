# SPDX-License-Identifier: Apache-2.0
"""QUANTIZE operations beside others, against the compiler: which are done by their neighbours.

It depends on the types, on whether the scale changes and on the zero points, and neither a reshape
in between nor another QUANTIZE changes it.
"""

from __future__ import annotations

from itertools import product
from typing import Any

import numpy as np
import pytest
from compared_costs import differs

from npusim.network import Network
from npusim.network_builder import NetworkBuilder
from npusim.tensor import Tensor

DTYPES = ("int8", "int16", "uint8")
SAME: dict[str, Any] = {"stride_h": 1, "stride_w": 1, "padding": "SAME"}


class Chain:
    """A network of one operation after the other, from an input of a type and its codes."""

    def __init__(self, dtype: str, scale: float = 0.1, zero_point: int = 0):
        self.net = NetworkBuilder("chain")
        self.rng = np.random.default_rng(0)
        self.last = self.net.input((1, 4, 6, 8), dtype, scale=scale, zero_point=zero_point)

    def add(self, kind: str) -> Chain:
        """An operation that keeps type and codes."""
        known = self.last.quantization
        assert known is not None
        codes = {"scale": known.scales, "zero_point": int(known.zero_points[0])}
        if kind == "conv":
            codes_of_weights = self.rng.integers(-90, 90, (8, 1, 1, 8))
            weights = self.net.constant(codes_of_weights.astype(np.int8), scales=0.01)
            dtype = "int64" if self.last.dtype == "int16" else "int32"
            bias = self.net.bias([0] * 8, self.last, weights, dtype=dtype)
            self.last = self.net.op("CONV_2D", self.last, weights, bias, **codes)
        elif kind in ("add", "mul"):
            self.last = self.net.op(kind.upper(), self.last, self.last, **codes)
        elif kind == "tanh":
            scale = 1 / 32768 if self.last.dtype == "int16" else 1 / 128
            self.last = self.net.op("TANH", self.last, scale=scale)
        elif kind == "pool":
            size = {"filter_h": 2, "filter_w": 2}
            self.last = self.net.op("MAX_POOL_2D", self.last, **size, **SAME)
        elif kind == "reshape":
            shape = (1, 6, 4, 8) if self.last.shape[1] == 4 else (1, 4, 6, 8)
            self.last = self.net.op("RESHAPE", self.last, np.array(shape, np.int32), shape=shape)
        return self

    def quantize(self, dtype: str, scale: float, zero_point: int = 0) -> Chain:
        given = {"dtype": dtype, "scale": scale, "zero_point": zero_point}
        self.last = self.net.op("QUANTIZE", self.last, shape=self.last.shape, **given)
        return self

    def build(self, *others: Tensor) -> Network:
        return self.net.build(self.last, *others)


def zero(dtype: str, point: int) -> int:
    return 0 if dtype == "int16" else point


@pytest.mark.parametrize("dtypes", list(product(DTYPES, repeat=2)), ids=" to ".join)
def test_between_two_operations(dtypes):
    found = []
    for before, after in product(("", "conv", "mul", "pool"), ("", "conv", "mul", "pool", "tanh")):
        for points, scale in product(((0, 0), (0, 5), (5, 5), (128, 0)), (0.1, 0.2)):
            first, second = map(zero, dtypes, points)
            chain = Chain(dtypes[0], zero_point=first).add(before)
            network = chain.quantize(dtypes[1], scale, second).add(after).build()
            if wrong := differs(network):
                found.append((before, after, points, scale, wrong))
    assert found == []


@pytest.mark.parametrize("dtypes", list(product(DTYPES, repeat=3)), ids=" to ".join)
def test_one_after_the_other(dtypes):
    found = []
    for before, after in product(("", "conv", "add"), ("", "conv", "tanh")):
        for scales in ((0.1, 0.1), (0.2, 0.1), (0.2, 0.2), (0.1, 0.2)):
            for points in ((0, 0), (3, 0)):
                chain = Chain(dtypes[0], zero_point=zero(dtypes[0], points[0])).add(before)
                for dtype, scale, point in zip(dtypes[1:], scales, (0, points[1]), strict=True):
                    chain.quantize(dtype, scale, zero(dtype, point))
                if wrong := differs(chain.add(after).build()):
                    found.append((before, after, scales, points, wrong))
    assert found == []


@pytest.mark.parametrize("dtypes", [("int8", "int8"), ("int8", "int16"), ("int16", "int8")])
def test_reshapes_are_not_in_the_way(dtypes):
    found = []
    for before, after in product(("", "conv", "mul", "pool"), ("", "conv", "mul")):
        for first, second in product(("", "reshape"), repeat=2):
            chain = Chain(dtypes[0]).add(before).add(first).quantize(dtypes[1], 0.1)
            if wrong := differs(chain.add(second).add(after).build()):
                found.append((before, first, second, after, wrong))
    assert found == []
