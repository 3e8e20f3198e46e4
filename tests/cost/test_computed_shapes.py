# SPDX-License-Identifier: Apache-2.0
"""Reshapes to shapes that are computed, as converted Keras models have them, against the compiler.

Each network here takes the batch size from the SHAPE of some tensor. What is costed beside the same
network with a constant shape are copies, and larger arenas.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from compared_costs import differs

from npusim.cost.estimate import estimate
from npusim.network import Network
from npusim.network_builder import NetworkBuilder
from npusim.tensor import Tensor


class Net:
    """A network of convolutions, products and reshapes with weights drawn anew."""

    def __init__(self) -> None:
        self.net = NetworkBuilder("computed shapes")
        self.rng = np.random.default_rng(0)
        self.image = self.net.input((1, 6, 6, 8), scale=0.1)

    def weighted(self, kind: str, ifm: Tensor, *shape: int) -> Tensor:
        values = self.rng.integers(-90, 90, (*shape, ifm.shape[-1])).astype(np.int8)
        weights = self.net.constant(values, scales=0.01)
        bias = self.net.bias([0] * shape[0], ifm, weights)
        return self.net.op(kind, ifm, weights, bias, scale=0.1)

    def conv(self, ifm: Tensor, depth: int = 16) -> Tensor:
        return self.weighted("CONV_2D", ifm, depth, 3, 3)

    def product(self, ifm: Tensor, depth: int = 8) -> Tensor:
        return self.weighted("FULLY_CONNECTED", ifm, depth)

    def concatenated(self, *parts: Tensor) -> Tensor:
        return self.net.op("CONCATENATION", *parts, axis=3, scale=0.1)

    def reshaped(self, ifm: Tensor, *shape: int, batch_of: Tensor | None = None) -> Tensor:
        """`ifm` in that shape but for the batch size, which is that of another tensor."""
        net, source = self.net, ifm if batch_of is None else batch_of
        known = net.op("SHAPE", source, shape=(len(source.shape),), dtype="int32")
        masks = dict.fromkeys(("begin_mask", "end_mask", "ellipsis_mask", "new_axis_mask"), 0)
        ends = [np.array([at], np.int32) for at in (0, 1, 1)]
        batch = net.op(
            "STRIDED_SLICE", known, *ends, shape=(), dtype="int32", shrink_axis_mask=1, **masks
        )
        lengths = [np.array(length, np.int32) for length in shape]
        whole = (1, *shape)
        packed = net.op(
            "PACK",
            batch,
            *lengths,
            shape=(len(whole),),
            dtype="int32",
            axis=0,
            values_count=len(whole),
        )
        return net.op("RESHAPE", ifm, packed, shape=whole, scale=0.1)


def flattened_input(net: Net) -> list[Tensor]:
    return [net.product(net.reshaped(net.image, 288))]


def flattened(net: Net) -> list[Tensor]:
    return [net.product(net.reshaped(net.conv(net.image), 576))]


def to_output(net: Net) -> list[Tensor]:
    return [net.reshaped(net.conv(net.image), 576)]


def to_the_cpu(net: Net) -> list[Tensor]:
    found = net.reshaped(net.conv(net.image), 576)
    return [net.net.op("DEQUANTIZE", found, dtype="float32")]


def one_after_the_other(net: Net) -> list[Tensor]:
    return [net.product(net.reshaped(net.reshaped(net.conv(net.image), 36, 16), 576))]


def batch_of_an_earlier_tensor(net: Net) -> list[Tensor]:
    first = net.conv(net.image)
    return [net.product(net.reshaped(net.conv(first, 8), 288, batch_of=first))]


def batch_of_a_part(net: Net) -> list[Tensor]:
    first = net.conv(net.image)
    second = net.conv(first)
    whole = net.concatenated(first, second)
    return [net.product(net.reshaped(whole, 1152, batch_of=second))]


def also_read_as_it_was(net: Net) -> list[Tensor]:
    first = net.conv(net.image)
    return [net.product(net.reshaped(first, 576)), net.conv(first, 4)]


def network(outputs: Callable[[Net], list[Tensor]]) -> Network:
    net = Net()
    return net.net.build(*outputs(net))


NETWORKS = [
    *(flattened_input, flattened, to_output, to_the_cpu, one_after_the_other),
    *(batch_of_an_earlier_tensor, batch_of_a_part, also_read_as_it_was),
]


@pytest.mark.parametrize("outputs", NETWORKS)
@pytest.mark.parametrize("npu", ["ethos-u55-128", "ethos-u55-32"])
def test_the_compiler_says_the_same(outputs, npu):
    assert differs(network(outputs), npu) is None


def test_what_computes_a_shape_is_not_executed():
    ops = estimate(network(flattened), "ethos-u55-128").ops
    assert [op.op for op in ops] == ["conv", "copy", "fully_connected"]
