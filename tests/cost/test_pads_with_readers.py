# SPDX-License-Identifier: Apache-2.0
"""A PAD that two operations read, against the compiler: which of them pads by itself.

It depends on their order, since a pad that has been dealt with is no longer there to be joined.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from itertools import product
from typing import Any

import numpy as np
import pytest
from compared_costs import differing, differs

from npusim.network import Network
from npusim.network_builder import NetworkBuilder
from npusim.tensor import Tensor

DEPTH = 18


class Padded:
    """A map with margins, and operations that read it."""

    def __init__(self, margin: tuple[int, int]):
        self.net = NetworkBuilder("pad")
        self.rng = np.random.default_rng(0)
        image = self.net.input((1, 9, 13, DEPTH), scale=0.1)
        sides = np.array([(0, 0), margin, margin, (0, 0)], np.int32)
        shape = (1, 9 + sum(margin), 13 + sum(margin), DEPTH)
        self.pad = self.net.op("PAD", image, sides, shape=shape)

    def op(self, kind: str, *inputs: Any, scale: float = 0.1, **given: Any) -> Tensor:
        return self.net.op(kind, self.pad, *inputs, scale=scale, **given)

    def conv(self, kernel: int, padding: str, stride: int = 1, kind: str = "CONV_2D") -> Tensor:
        is_deep = kind == "CONV_2D"
        shape = (8 if is_deep else 1, kernel, kernel, DEPTH)
        codes = self.rng.integers(-90, 90, shape).astype(np.int8)
        weights = self.net.constant(codes, scales=0.01)
        bias = self.net.bias([0] * (8 if is_deep else DEPTH), self.pad, weights)
        given: dict[str, Any] = {} if is_deep else {"depth_multiplier": 1}
        window = {"stride_h": stride, "stride_w": stride, "padding": padding}
        return self.op(kind, weights, bias, **window, **given)

    def mean(self) -> Tensor:
        axes, shape = np.array([1, 2], np.int32), (1, 1, 1, DEPTH)
        return self.op("MEAN", axes, scale=0.05, keep_dims=True, shape=shape)


READERS: dict[str, Callable[[Padded], Tensor]] = {
    "3 x 3": partial(Padded.conv, kernel=3, padding="VALID"),
    "5 x 5": partial(Padded.conv, kernel=5, padding="VALID"),
    "3 x 3, stride 2": partial(Padded.conv, kernel=3, padding="VALID", stride=2),
    "3 x 3, same": partial(Padded.conv, kernel=3, padding="SAME"),
    "1 x 1": partial(Padded.conv, kernel=1, padding="VALID"),
    "depthwise": partial(Padded.conv, kernel=3, padding="VALID", kind="DEPTHWISE_CONV_2D"),
    "relu": partial(Padded.op, kind="RELU"),
    "sum of itself": lambda padded: padded.op("ADD", padded.pad),
    "mean": Padded.mean,
    "caller": lambda padded: padded.pad,
}


def network(first: str, second: str, margin: tuple[int, int]) -> Network:
    padded = Padded(margin)
    return padded.net.build(READERS[first](padded), READERS[second](padded))


@pytest.mark.parametrize("first", READERS)
def test_the_compiler_says_the_same(first):
    cases = product(READERS, ((1, 1), (0, 1), (3, 3)))
    networks = {case: network(first, *case) for case in cases}
    assert differing(networks, "ethos-u55-64") == []


def test_attention_to_a_padded_map():
    padded = Padded((1, 1))
    gated = padded.op("MUL", padded.mean())
    assert differs(padded.net.build(gated)) is None


@pytest.mark.parametrize("kind", ["REDUCE_MAX", "REDUCE_MIN", "MEAN"])
def test_reductions_of_parts(kind):
    networks = {}
    for axis, cut in product(range(4), repeat=2):
        net = NetworkBuilder("part")
        image = net.input((1, 6, 10, 16), scale=0.1)
        begin = [n // 2 if at == cut else 0 for at, n in enumerate(image.shape)]
        size = [n - start for n, start in zip(image.shape, begin, strict=True)]
        part = net.op(
            *("SLICE", image, np.array(begin, np.int32), np.array(size, np.int32)), shape=size
        )
        shape = [1 if at == axis else n for at, n in enumerate(size)]
        scale = {"scale": 0.3} if kind == "MEAN" else {}
        networks[axis, cut] = net.build(
            net.op(kind, part, np.array([axis], np.int32), shape=shape, keep_dims=True, **scale)
        )
    assert differing(networks, "ethos-u55-64") == []
