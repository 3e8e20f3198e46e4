# SPDX-License-Identifier: Apache-2.0
"""Small model files for the commands that cost networks."""

from __future__ import annotations

import numpy as np

from npusim.network import Network
from npusim.network_builder import NetworkBuilder


def chain(name: str, depths: tuple[int, ...] = (17, 8), seed: int = 0) -> Network:
    """Convolutions one after the other, conv0 of `depths[0]` channels and so on."""
    rng = np.random.default_rng(seed)
    net = NetworkBuilder(name)
    x = net.input((1, 16, 16, 3), scale=0.02)
    for i, depth in enumerate(depths):
        shape = (depth, 3, 3, x.shape[3])
        weights = net.constant(rng.integers(-50, 51, shape).astype(np.int8), scales=0.01)
        bias = net.bias([0] * depth, x, weights)
        x = net.op("CONV_2D", x, weights, bias, scale=0.1, name=f"conv{i}")
    return net.build(x)


def with_cpu(name: str) -> Network:
    """A convolution after which the CPU must do something."""
    net = NetworkBuilder(name)
    x = net.input((1, 8, 8, 4), scale=0.02)
    weights = net.constant(np.ones((4, 1, 1, 4), np.int8), scales=0.01)
    x = net.op("CONV_2D", x, weights, net.bias([0] * 4, x, weights), scale=0.1, name="conv0")
    return net.build(net.op("L2_NORMALIZATION", x, scale=0.1, shape=x.shape, name="norm"))
