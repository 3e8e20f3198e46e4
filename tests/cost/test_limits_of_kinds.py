# SPDX-License-Identifier: Apache-2.0
"""Which single operations are left to the CPU, and what others near the limits cost, beside the
compiler."""

from __future__ import annotations

from itertools import permutations, product
from typing import Any

import numpy as np
import pytest
from compared_costs import differing

from npusim.network import Network
from npusim.network_builder import NetworkBuilder


def one(kind: str, given: tuple[Any, ...], ifm_dtype: str = "int8", **attributes: Any) -> Network:
    """One operation of an ifm whose shape is given first, before its other inputs."""
    net = NetworkBuilder("one")
    image = net.input(given[0], ifm_dtype, scale=0.1)
    return net.build(net.op(kind, image, *given[1:], **attributes))


@pytest.mark.parametrize("padding", ["SAME", "VALID"])
def test_long_strides_with_dilation(padding):
    networks = {}
    for kernel, dilation, strides in product(
        product((1, 3), repeat=2), product((1, 2), repeat=2), ((3, 6), (4, 1), (1, 4))
    ):
        net = NetworkBuilder("strides")
        image = net.input((1, 27, 28, 2), scale=0.1)
        weights = net.constant(np.ones((4, *kernel, 2), np.int8), scales=0.01)
        window = dict(zip(("stride_h", "stride_w"), strides, strict=True))
        window |= dict(zip(("dilation_h", "dilation_w"), dilation, strict=True))
        bias = net.bias([0] * 4, image, weights)
        made = net.op("CONV_2D", image, weights, bias, scale=0.1, padding=padding, **window)
        networks[kernel, dilation, strides] = net.build(made)
    assert differing(networks) == []


@pytest.mark.parametrize(
    "shape",
    [(1, 65, 260, 16), (3, 200, 200, 3), (1, 300, 300, 4), (2, 300, 2, 300), (1, 256, 257, 2)],
)
def test_transposes_of_large_maps(shape):
    networks = {}
    for axes in list(permutations(range(4)))[1::3]:
        turned = [shape[axis] for axis in axes]
        networks[axes] = one("TRANSPOSE", (shape, np.array(axes, np.int32)), shape=turned)
    assert differing(networks) == []


@pytest.mark.parametrize("dtype", ["int8", "int16", "uint8"])
def test_functions_of_one_element_by_type(dtype):
    kinds = ("EXP", "LOG", "RSQRT", "ELU", "GELU", "HARD_SWISH")
    shape = (1, 5, 6, 8)
    networks = {
        kind: one(kind, (shape,), dtype, shape=shape, scale=0.1)
        for kind in kinds
        if dtype == "int8" or kind not in ("HARD_SWISH", "ELU")
    }
    assert differing(networks) == []


@pytest.mark.parametrize("dtype", ["int32", "int64"])
def test_positions_of_maxima_by_type(dtype):
    shapes = [(1, 8, 1, 16), (1, 3, 8, 4), (1, 1, 1, 10), (1, 300, 8, 1), (1, 65, 3, 1), (12, 20)]
    networks = {
        shape: one(
            *("ARG_MAX", (shape, np.array(len(shape) - 1, np.int32))),
            shape=shape[:-1],
            dtype=dtype,
            output_type=dtype,
        )
        for shape in shapes
    }
    assert differing(networks) == []


@pytest.mark.parametrize("activation", ["NONE", "RELU", "TANH"])
def test_batches_of_maps_of_one_line(activation):
    networks = {}
    for batch, size, depth in product((1, 2, 3, 4), ((1, 11), (11, 1), (1, 1), (2, 3)), (8, 32)):
        net = NetworkBuilder("batch")
        image = net.input((batch, *size, 17), scale=0.1)
        codes = np.random.default_rng(0).integers(-90, 90, (depth, 1, 1, 17)).astype(np.int8)
        weights = net.constant(codes, scales=0.01)
        bias = net.bias([0] * depth, image, weights)
        made = net.op("CONV_2D", image, weights, bias, scale=0.1, fused_activation=activation)
        networks[batch, size, depth] = net.build(made)
    assert differing(networks) == []
