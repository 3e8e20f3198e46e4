# SPDX-License-Identifier: Apache-2.0
"""Small random networks with every operation that takes weights on the NPU, and its variants."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from npusim.network import Network
from npusim.network_builder import NetworkBuilder
from npusim.tensor import Tensor

MAC_KINDS = ("CONV_2D", "DEPTHWISE_CONV_2D", "TRANSPOSE_CONV", "FULLY_CONNECTED")
TABLE_KINDS = ("LOGISTIC", "TANH", "HARD_SWISH", "LEAKY_RELU")


class RandomNetwork:
    """Draws shapes and attributes; one network per instance.

    Args:
        rng: source of all choices.
        variant: a key of `VARIANTS`.
    """

    def __init__(self, rng: np.random.Generator, variant: str):
        self.rng = rng
        self.net = NetworkBuilder(variant)
        self.dtype = "int16" if rng.random() < 0.25 else "int8"
        self.outputs: list[Tensor] = []
        self.outputs.append(VARIANTS[variant](self))

    def build(self) -> Network:
        return self.net.build(*self.outputs)

    def pick(self, low: int, high: int) -> int:
        return int(self.rng.integers(low, high))

    def maybe(self, probability: float) -> bool:
        return bool(self.rng.random() < probability)

    def image(self, depth: int = 0) -> Tensor:
        height, width = self.pick(1, 30), self.pick(1, 30)
        if self.maybe(0.3):
            height, width = [(1, width), (height, 1)][self.pick(0, 2)]
        return self.input(1, height, width, depth or self.pick(1, 70))

    def input(self, *shape: int) -> Tensor:
        return self.net.input(shape, self.dtype, scale=0.05)

    def weights(self, shape: tuple[int, ...], axis: int) -> Tensor:
        codes = self.rng.integers(-127, 128, shape).astype(np.int8)
        return self.net.constant(codes, scales=np.full(shape[axis], 0.01), axis=axis)

    def mac(self, kind: str, x: Tensor, shape: tuple[int, ...], **attributes: Any) -> Tensor:
        """An operation of MAC_KINDS with weights of `shape`."""
        axis = 3 if kind == "DEPTHWISE_CONV_2D" else 0
        weights = self.weights(shape, axis)
        bias = self.net.bias(
            self.rng.integers(-100, 100, shape[axis]),
            *(x, weights),
            dtype="int64" if self.dtype == "int16" else "int32",
        )
        inputs: list[Any] = [x, weights, bias]
        if kind == "TRANSPOSE_CONV":
            inputs = [np.array(attributes.pop("ofm_shape"), np.int32), weights, x, bias]
        return self.net.op(kind, *inputs, scale=0.5, **attributes)

    def conv(self, x: Tensor, *, groups: int = 1, stride_end: int = 4, **attributes: Any) -> Tensor:
        kernel = (self.pick(1, 6), self.pick(1, 6))
        ofm_depth = groups * self.pick(1, 100 // groups)
        shape = (ofm_depth, *kernel, x.shape[3] // groups)
        return self.mac("CONV_2D", x, shape, **self.window(x, kernel, stride_end), **attributes)

    def depthwise(self, x: Tensor, multiplier: int = 1) -> Tensor:
        kernel = (self.pick(1, 6), self.pick(1, 6))
        shape = (1, *kernel, x.shape[3] * multiplier)
        window = self.window(x, kernel, 4)
        return self.mac("DEPTHWISE_CONV_2D", x, shape, depth_multiplier=multiplier, **window)

    def window(self, x: Tensor, kernel: tuple[int, int], stride_end: int) -> dict[str, Any]:
        """Stride, dilation and padding for a kernel on `x`."""
        strides = [self.pick(1, stride_end) for _ in "hw"] if self.maybe(0.6) else [1, 1]
        dilations = [self.pick(1, 6) for _ in "hw"] if self.maybe(0.3) else [1, 1]
        extents = zip(x.shape[1:3], kernel, dilations, strict=True)
        fits = all(length > (size - 1) * step for length, size, step in extents)
        return {
            "stride_h": strides[0],
            "stride_w": strides[1],
            "dilation_h": dilations[0],
            "dilation_w": dilations[1],
            "padding": "VALID" if fits and self.maybe(0.5) else "SAME",
            "fused_activation": ("NONE", "RELU6", "TANH")[self.pick(0, 3)],
        }


def _transpose_conv(draw: RandomNetwork) -> Tensor:
    x = draw.image()
    kernel = [draw.pick(1, 6), draw.pick(1, 6)]
    strides = ((1, 1), (2, 2), (1, 2), (2, 1), (3, 3))[draw.pick(0, 5)]
    same = draw.maybe(0.5)
    extents = [
        length * stride + (0 if same else max(size - stride, 0))
        for length, stride, size in zip(x.shape[1:3], strides, kernel, strict=True)
    ]
    ofm_depth = draw.pick(1, 100)
    return draw.mac(
        "TRANSPOSE_CONV",
        x,
        (ofm_depth, *kernel, x.shape[3]),
        ofm_shape=(1, *extents, ofm_depth),
        padding="SAME" if same else "VALID",
        stride_h=strides[0],
        stride_w=strides[1],
    )


def _fully_connected(draw: RandomNetwork) -> Tensor:
    keep = draw.maybe(0.5)
    if keep:
        x = draw.input(1, draw.pick(1, 9), draw.pick(1, 9), draw.pick(1, 60))
    else:
        x = draw.input(draw.pick(1, 30), draw.pick(1, 200))
    shape = (draw.pick(1, 100), x.shape[-1])
    return draw.mac("FULLY_CONNECTED", x, shape, keep_num_dims=keep)


def _table(draw: RandomNetwork) -> Tensor:
    kind = TABLE_KINDS[draw.pick(0, 4)] if draw.dtype == "int8" else "LOGISTIC"
    x = draw.conv(draw.image())
    if draw.maybe(0.2):
        draw.outputs.append(x)
    alpha = {"alpha": (0.0, 0.1)[draw.pick(0, 2)]} if kind == "LEAKY_RELU" else {}
    scale = 1 / 256 if draw.dtype == "int8" else 1 / 32768
    zero_point = -128 if draw.dtype == "int8" else 0
    return draw.net.op(kind, x, scale=scale, zero_point=zero_point, **alpha)


def _padded(draw: RandomNetwork) -> Tensor:
    margins = np.zeros((4, 2), np.int32)
    margins[1:3] = draw.rng.integers(0, 4, (2, 2))
    margins[3, 1] = draw.maybe(0.1)
    x = draw.net.op("PAD", draw.image(), margins)
    if draw.maybe(0.3):
        draw.outputs.append(draw.conv(x))
    elif draw.maybe(0.1):
        draw.outputs.append(x)
    return draw.conv(x) if draw.maybe(0.5) else draw.depthwise(x)


def _mean(draw: RandomNetwork) -> Tensor:
    rank = draw.pick(1, 5)
    end = (40, 100)[draw.pick(0, 2)]
    shape = [1 if draw.maybe(0.25) else draw.pick(1, end) for _ in range(min(rank, 3))]
    x = draw.input(*[1] * (rank == 4), *shape)
    axes = sorted({draw.pick(0, rank) for _ in range(draw.pick(1, 4))})
    return draw.net.op("MEAN", x, np.array(axes, np.int32), keep_dims=True, scale=0.04)


def _resize(draw: RandomNetwork) -> Tensor:
    kind = ("RESIZE_BILINEAR", "RESIZE_NEAREST_NEIGHBOR")[draw.pick(0, 2)]
    corners, half = ((0, 0), (0, 1), (1, 0))[draw.pick(0, 3)]
    x, scale = draw.image(), (2, 2, 4, 8, 3)[draw.pick(0, 5)]
    size = [(length - corners) * scale + corners for length in x.shape[1:3]]
    return draw.net.op(
        kind,
        *(x, np.array(size, np.int32)),
        align_corners=bool(corners),
        half_pixel_centers=bool(half),
    )


VARIANTS: dict[str, Callable[[RandomNetwork], Tensor]] = {
    "convolution": lambda draw: draw.conv(draw.image()),
    "wide stride": lambda draw: draw.conv(draw.image(), stride_end=7),
    "groups": lambda draw: draw.conv(draw.image(4 * draw.pick(1, 5)), groups=2),
    "depthwise": lambda draw: draw.depthwise(draw.image(), draw.pick(1, 4)),
    "one channel": lambda draw: draw.depthwise(draw.image(1), draw.pick(1, 20)),
    "chain": lambda draw: draw.conv(draw.depthwise(draw.conv(draw.image()))),
    "transpose convolution": _transpose_conv,
    "fully connected": _fully_connected,
    "table": _table,
    "padded": _padded,
    "mean": _mean,
    "resize": _resize,
}


def equal_weights(seed: int, scale: float = 0.01) -> Network:
    """Convolutions in a row, every tensor of weights a copy of the first, some others between."""
    rng = np.random.default_rng((6, seed))
    side, depth, kernel = (int(rng.integers(*ends)) for ends in ((4, 20), (8, 48), (1, 4)))
    net = NetworkBuilder("equal")
    x = net.input((1, side, side, depth), scale=0.05)
    values = rng.integers(-127, 128, (depth, kernel, kernel, depth)).astype(np.int8)
    for number in range(4):
        changed = values if number % 3 or rng.random() < 0.5 else values[::-1]
        weights = net.constant(changed.copy(), scales=scale if number == 2 else 0.01)
        x = net.op("CONV_2D", x, weights, net.bias([0] * depth, x, weights), scale=0.05)
    return net.build(x)
