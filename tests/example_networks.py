# SPDX-License-Identifier: Apache-2.0
"""Small networks that several test files use."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from npusim.network import Network
from npusim.network_builder import NetworkBuilder
from npusim.tensor import Tensor

SOFTMAX_SCALE = 1 / 256
Step = Callable[[NetworkBuilder, np.random.Generator, Tensor], Tensor]


def _codes(rng: np.random.Generator, *shape: int) -> np.ndarray:
    return rng.integers(-127, 128, shape).astype(np.int8)


def _scales(rng: np.random.Generator, n: int) -> np.ndarray:
    return rng.uniform(0.001, 0.02, n)


def _ofm(rng: np.random.Generator) -> dict[str, float | int]:
    return {"scale": float(rng.uniform(0.05, 0.5)), "zero_point": int(rng.integers(-128, 128))}


def conv(net: NetworkBuilder, rng: np.random.Generator, x: Tensor) -> Tensor:
    """CONV_2D with a random kernel, stride or dilation, padding, activation, per-channel scales."""
    depth, kernel = int(rng.integers(1, 13)), [int(size) for size in rng.integers(1, 4, 2)]
    weights = net.constant(
        _codes(rng, depth, *kernel, x.shape[3]), scales=_scales(rng, depth), name="weights"
    )
    step = rng.integers(1, 3, 2)
    names = ("stride_h", "stride_w") if rng.random() < 0.7 else ("dilation_h", "dilation_w")
    fits = all((size - 1) * 2 < length for size, length in zip(kernel, x.shape[1:3], strict=True))
    return net.op(
        "CONV_2D",
        *(x, weights, net.bias(rng.integers(-1000, 1000, depth), x, weights)),
        padding=str(rng.choice(["SAME", "VALID"])) if fits else "SAME",
        fused_activation=str(rng.choice(["NONE", "RELU", "RELU6"])),
        **dict(zip(names, step.tolist(), strict=True)),
        **_ofm(rng),
    )


def depthwise(net: NetworkBuilder, rng: np.random.Generator, x: Tensor) -> Tensor:
    """DEPTHWISE_CONV_2D with a depth multiplier of 1 or 2."""
    multiplier = int(rng.integers(1, 3))
    depth = x.shape[3] * multiplier
    weights = net.constant(_codes(rng, 1, 3, 2, depth), scales=_scales(rng, depth), axis=3)
    bias = net.bias(rng.integers(-1000, 1000, depth), x, weights)
    return net.op(
        "DEPTHWISE_CONV_2D", x, weights, bias, depth_multiplier=multiplier, stride_h=2, **_ofm(rng)
    )


def transpose_conv(net: NetworkBuilder, rng: np.random.Generator, x: Tensor) -> Tensor:
    """TRANSPOSE_CONV that doubles height and width."""
    batch, height, width, ifm_depth = x.shape
    weights = net.constant(_codes(rng, 4, 3, 2, ifm_depth), scales=_scales(rng, 4))
    shape = np.array([batch, 2 * height, 2 * width, 4], np.int32)
    bias = net.bias(rng.integers(-1000, 1000, 4), x, weights)
    return net.op("TRANSPOSE_CONV", shape, weights, x, bias, stride_h=2, stride_w=2, **_ofm(rng))


def residual(net: NetworkBuilder, rng: np.random.Generator, x: Tensor) -> Tensor:
    """A 1x1 CONV_2D and an ADD with its input."""
    depth = x.shape[3]
    weights = net.constant(_codes(rng, depth, 1, 1, depth), scales=_scales(rng, depth))
    branch = net.op("CONV_2D", x, weights, net.bias(np.zeros(depth, int), x, weights), **_ofm(rng))
    return net.op("ADD", x, branch, **_ofm(rng))


def pool(net: NetworkBuilder, rng: np.random.Generator, x: Tensor) -> Tensor:
    """AVERAGE_POOL_2D or MAX_POOL_2D of 2x2."""
    kind = str(rng.choice(["AVERAGE_POOL_2D", "MAX_POOL_2D"]))
    return net.op(kind, x, filter_h=2, filter_w=2, stride_h=2, stride_w=2)


def pad(net: NetworkBuilder, rng: np.random.Generator, x: Tensor) -> Tensor:
    """PAD of height and width."""
    paddings = np.zeros((4, 2), np.int32)
    paddings[1:3] = rng.integers(0, 3, (2, 2))
    return net.op("PAD", x, paddings)


def concatenation(net: NetworkBuilder, rng: np.random.Generator, x: Tensor) -> Tensor:
    """CONCATENATION of a tensor with itself along the last axis."""
    return net.op("CONCATENATION", x, x, axis=-1)


def leaky_relu(net: NetworkBuilder, rng: np.random.Generator, x: Tensor) -> Tensor:
    """LEAKY_RELU, whose attribute is a float."""
    return net.op("LEAKY_RELU", x, alpha=0.1)


STEPS: tuple[Step, ...] = (
    *(conv, depthwise, transpose_conv, residual, pool, pad, concatenation, leaky_relu),
)


def classifier_end(net: NetworkBuilder, rng: np.random.Generator, x: Tensor) -> Tensor:
    """MEAN, RESHAPE, FULLY_CONNECTED and SOFTMAX to 10 classes."""
    x = net.op("MEAN", x, np.array([1, 2], np.int32), keep_dims=True)
    x = net.op("RESHAPE", x, np.array([1, -1], np.int32))
    weights = net.constant(_codes(rng, 10, x.shape[1]), scales=0.01)
    x = net.op("FULLY_CONNECTED", x, weights, net.bias(np.arange(10), x, weights), **_ofm(rng))
    return net.op("SOFTMAX", x, beta=1.0, scale=SOFTMAX_SCALE, zero_point=-128)


def random_network(seed: int, n_steps: int = 6) -> Network:
    """A chain of random steps on an int8 image, with a classifier at its end."""
    rng = np.random.default_rng(seed)
    net = NetworkBuilder(f"random{seed}")
    x = net.input((1, 12, 10, 3), scale=0.02, zero_point=3)
    for _ in range(n_steps):
        small = min(x.shape[1:3]) < 2
        step = conv if small or x.n_elements > 5000 else STEPS[rng.integers(len(STEPS))]
        x = step(net, rng, x)
    return net.build(classifier_end(net, rng, x))


def every_step_network() -> Network:
    """One network with each of `STEPS` once."""
    rng = np.random.default_rng(0)
    net = NetworkBuilder("every_step")
    x = net.input((1, 12, 10, 3), scale=0.02, zero_point=3)
    for step in STEPS:
        x = step(net, rng, x)
    return net.build(classifier_end(net, rng, x))
