# SPDX-License-Identifier: Apache-2.0
"""Tables, scales and weights that operations share in flash, and steps that do each other's work,
against the compiler."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from compared_costs import differing, differs

from npusim.network import Network
from npusim.network_builder import NetworkBuilder
from npusim.tensor import Tensor


class Net:
    """A network of operations one after the other; weights are the same in all of them."""

    def __init__(self, dtype: str = "int8", scale: float = 0.1):
        self.net = NetworkBuilder("shared")
        self.last: Tensor = self.net.input((1, 4, 6, 8), dtype, scale=scale)

    def op(self, kind: str, *inputs: Any, **given: Any) -> Net:
        self.last = self.net.op(kind, self.last, *inputs, **given)
        return self

    def conv(self, scale: float, activation: str = "NONE", *, seed: int = 0) -> Net:
        codes = np.random.default_rng(seed).integers(-90, 90, (8, 1, 1, 8)).astype(np.int8)
        weights = self.net.constant(codes, scales=0.01)
        bias = self.net.bias([0] * 8, self.last, weights)
        return self.op("CONV_2D", weights, bias, scale=scale, fused_activation=activation)

    def build(self) -> Network:
        return self.net.build(self.last)


@pytest.mark.parametrize("dtype", ["int8", "int16"])
def test_tables_of_softmax(dtype):
    networks = {}
    for first, second in ((0.1, 0.1), (0.1, 0.2), (0.1, 0.15)):
        net = Net(dtype, first).op("SOFTMAX", beta=1.0, scale=1 / 256, zero_point=0)
        net.op("ADD", net.last, scale=second).op("SOFTMAX", beta=1.0, scale=1 / 256)
        networks[first, second] = net.build()
    assert differing(networks) == []


def test_tables_of_fused_functions():
    networks = {
        scales: Net().conv(scales[0], "TANH").conv(scales[1], "TANH", seed=1).build()
        for scales in ((0.05, 0.05), (0.05, 0.1), (0.01, 0.3))
    }
    alone = Net().conv(0.1, "TANH").conv(0.1, "TANH", seed=1).op("TANH", scale=0.1)
    assert differing(networks | {"alone": alone.build()}) == []


def test_scales_of_the_same_weights():
    networks = {
        scales: Net().conv(scales[0]).conv(scales[1]).build()
        for scales in ((0.1, 0.1), (0.1, 0.2), (0.2, 0.4))
    }
    assert differing(networks) == []


def test_quantize_beside_a_product_of_maps():
    other = (1, 4, 8, 5)
    for before in (True, False):
        net = Net()
        if before:
            net.op("QUANTIZE", shape=net.last.shape, scale=0.1)
        net.op("BATCH_MATMUL", net.net.input(other, scale=0.1), shape=(1, 4, 6, 5), scale=0.5)
        if not before:
            net.op("QUANTIZE", shape=net.last.shape, scale=0.5, zero_point=3)
        assert differs(net.build()) is None


def test_a_function_of_a_part_is_a_step_of_its_own():
    net = Net().op("ABS", shape=(1, 4, 6, 8))
    part = np.array([0, 0, 0, 0], np.int32), np.array([1, 4, 3, 8], np.int32)
    net.op("SLICE", *part, shape=(1, 4, 3, 8)).op("LOGISTIC", scale=1 / 256, zero_point=-128)
    assert differs(net.build()) is None


@pytest.mark.parametrize("padding", ["SAME", "VALID"])
def test_sizes_of_transposed_convolutions(padding):
    networks = {}
    for kernel in (1, 2, 3):
        for less in (0, 1):
            net = NetworkBuilder("transposed")
            image = net.input((1, 5, 6, 8), scale=0.1)
            codes = np.random.default_rng(0).integers(-90, 90, (8, kernel, kernel, 8))
            weights = net.constant(codes.astype(np.int8), scales=0.01)
            more = 0 if padding == "SAME" else max(kernel - 2, 0)
            shape = (1, 10 + more - less, 12 + more, 8)
            window = {"stride_h": 2, "stride_w": 2, "padding": padding, "shape": shape}
            inputs = (np.array(shape, np.int32), weights, image, net.bias([0] * 8, image, weights))
            made = net.op("TRANSPOSE_CONV", *inputs, scale=0.1, **window)
            networks[kernel, less] = net.build(made)
    assert differing(networks) == []
