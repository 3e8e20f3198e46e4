# SPDX-License-Identifier: Apache-2.0
"""Random networks of the depth that search spaces have: chains, residuals, branches, views."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from npusim.network import Network
from npusim.network_builder import NetworkBuilder
from npusim.tensor import Tensor

SCALE = 0.05


class DeepNetwork:
    """Draws the sizes of one network.

    Args:
        rng: source of all choices.
        family: a key of `FAMILIES`.
    """

    def __init__(self, rng: np.random.Generator, family: str):
        self.rng, self.net = rng, NetworkBuilder(family)
        self.outputs: list[Tensor] = []
        side = self.pick(8, 65)
        image = self.net.input((1, side, self.pick(8, 65), self.pick(1, 5)), "int8", scale=SCALE)
        self.outputs.append(FAMILIES[family](self, image))

    def build(self) -> Network:
        return self.net.build(*self.outputs)

    def pick(self, low: int, high: int) -> int:
        return int(self.rng.integers(low, high))

    def maybe(self, probability: float) -> bool:
        return bool(self.rng.random() < probability)

    def op(self, kind: str, *inputs: Any, **attributes: Any) -> Tensor:
        return self.net.op(kind, *inputs, scale=SCALE, **attributes)

    def conv(
        self, x: Tensor, depth: int, kernel: int = 1, stride: int = 1, relu: bool = True
    ) -> Tensor:
        shape = (depth, kernel, kernel, x.shape[3])
        weights = self.weights(shape)
        bias = self.net.bias([0] * depth, x, weights)
        return self.op("CONV_2D", x, weights, bias, **window(stride, relu))

    def depthwise(self, x: Tensor, kernel: int = 3, stride: int = 1) -> Tensor:
        depth = x.shape[3]
        weights = self.weights((1, kernel, kernel, depth), axis=3)
        bias = self.net.bias([0] * depth, x, weights)
        return self.op(
            "DEPTHWISE_CONV_2D", x, weights, bias, depth_multiplier=1, **window(stride, True)
        )

    def weights(self, shape: tuple[int, ...], axis: int = 0) -> Tensor:
        return self.net.constant(self.codes(shape), scales=self.scales(shape[axis]), axis=axis)

    def scales(self, n_channels: int) -> Any:
        return 0.01

    def codes(self, shape: tuple[int, ...]) -> Any:
        return np.rint(self.rng.laplace(0, 12, shape)).clip(-127, 127).astype(np.int8)

    def head(self, x: Tensor) -> Tensor:
        x = self.op("MEAN", x, np.array([1, 2], np.int32))
        n_classes = self.pick(2, 40)
        weights = self.weights((n_classes, x.shape[-1]))
        y = self.op("FULLY_CONNECTED", x, weights, self.net.bias([0] * n_classes, x, weights))
        if self.maybe(0.5):
            y = self.net.op("SOFTMAX", y, scale=1 / 256, zero_point=-128)
        return y


def window(stride: int, relu: bool) -> dict[str, Any]:
    activation = "RELU" if relu else "NONE"
    return {
        "stride_h": stride,
        "stride_w": stride,
        "padding": "SAME",
        "fused_activation": activation,
    }


def _separable(draw: DeepNetwork, x: Tensor) -> Tensor:
    x = draw.conv(x, draw.pick(4, 65), draw.pick(1, 6), 2)
    for _ in range(draw.pick(2, 6)):
        x = draw.depthwise(x, 3, draw.pick(1, 3))
        x = draw.conv(x, draw.pick(4, 129))
    return draw.head(x)


def _inverted_residuals(draw: DeepNetwork, x: Tensor) -> Tensor:
    x = draw.conv(x, draw.pick(4, 33), 3, 2)
    for _ in range(draw.pick(2, 7)):
        stride = draw.pick(1, 3)
        depth = x.shape[3] if stride == 1 and draw.maybe(0.7) else draw.pick(4, 65)
        y = draw.depthwise(draw.conv(x, x.shape[3] * draw.pick(1, 7)), 3, stride)
        y = draw.conv(y, depth, relu=False)
        x = draw.op("ADD", x, y) if y.shape == x.shape else y
    return draw.head(x)


def _residuals(draw: DeepNetwork, x: Tensor) -> Tensor:
    x = draw.conv(x, draw.pick(4, 33), 3)
    for _ in range(draw.pick(1, 5)):
        stride, depth = draw.pick(1, 3), draw.pick(4, 65)
        y = draw.conv(draw.conv(x, depth, 3, stride), depth, 3, relu=False)
        x = x if y.shape == x.shape else draw.conv(x, depth, 1, stride, relu=False)
        kind = ("ADD", "SUB", "MUL", "MAXIMUM")[draw.pick(0, 4)]
        x = draw.op(kind, *((x, y) if draw.maybe(0.5) else (y, x)))
    return draw.head(x)


def _branches(draw: DeepNetwork, x: Tensor) -> Tensor:
    x = draw.conv(x, draw.pick(4, 33), 3, 2)
    for _ in range(draw.pick(1, 4)):
        parts = [draw.conv(x, draw.pick(1, 3) * (16, 5)[draw.pick(0, 2)]) for _ in range(3)]
        parts[0] = draw.conv(parts[0], draw.pick(1, 3) * 16, 3)
        if draw.maybe(0.3):
            parts[1] = draw.op("LOGISTIC", parts[1])
        x = draw.op("CONCATENATION", *parts[: draw.pick(2, 4)], axis=3)
        if draw.maybe(0.3):
            draw.outputs.append(x)
    return draw.head(x)


def _views(draw: DeepNetwork, x: Tensor) -> Tensor:
    """Elementwise operations on reshaped, split and padded maps."""
    x = draw.conv(x, 2 * draw.pick(2, 20), 3, 2)
    for _ in range(draw.pick(1, 5)):
        kind = draw.pick(0, 7)
        shape = x.shape
        if kind == 0:
            new = (1, shape[1] * shape[2], 1, shape[3])
            x = draw.op("RESHAPE", x, np.array(new, np.int32))
            x = draw.net.op("ABS", x, shape=x.shape) if draw.maybe(0.5) else x
            x = draw.op("RESHAPE", x, np.array(shape, np.int32))
        elif kind == 1:
            x = draw.op(
                ("HARD_SWISH", "LOGISTIC", "TANH", "LEAKY_RELU", "RELU")[draw.pick(0, 5)], x
            )
        elif kind == 2:
            x = draw.op("PAD", x, np.array([[0, 0], [1, 1], [1, 1], [0, 0]], np.int32))
        elif kind == 3:
            x = draw.op("MUL", x, draw.op("MEAN", x, np.array([1, 2], np.int32), keep_dims=True))
        elif kind == 4:
            x = draw.op("ADD", x, draw.net.op("ABS", x, shape=x.shape))
        elif kind == 5:
            half = (1, shape[1], shape[2], shape[3] // 2)
            begin = np.array([0, 0, 0, shape[3] - half[3]], np.int32)
            x = draw.net.op("SLICE", x, begin, np.array(half, np.int32), shape=half)
            x = draw.conv(x, 2 * half[3])
        else:
            other = draw.net.constant(draw.codes((1, 1, 1, shape[3])), scales=0.1)
            x = draw.op("MUL", x, other)
    return draw.head(x)


FAMILIES: dict[str, Callable[[DeepNetwork, Tensor], Tensor]] = {
    "separable": _separable,
    "inverted residuals": _inverted_residuals,
    "residuals": _residuals,
    "branches": _branches,
    "views": _views,
}
