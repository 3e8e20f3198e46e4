# SPDX-License-Identifier: Apache-2.0
"""Networks of many operations that have nothing to do with each other, one for each unit and rule
of the NPU: what the compiler says of one tells nothing of its neighbours."""

from __future__ import annotations

from typing import Any

import numpy as np

from npusim.network import Network
from npusim.network_builder import NetworkBuilder
from npusim.tensor import Tensor

CODES = {"int8": 1 / 256, "int16": 1 / 32768}


class SingleOps:
    """Draws operations; all randomness comes from `rng`."""

    def __init__(self, rng: np.random.Generator):
        self.rng, self.net, self.outputs = rng, NetworkBuilder("single"), []
        self.dtype = "int8"

    def pick(self, low: int, high: int) -> int:
        """An integer in low..high."""
        return int(self.rng.integers(low, high + 1))

    def maybe(self, probability: float) -> bool:
        return bool(self.rng.random() < probability)

    def input(self, *shape: int, dtype: str = "") -> Tensor:
        return self.net.input(shape, dtype or self.dtype, scale=0.05)

    def image(self, most: int = 120, max_depth: int = 300) -> Tensor:
        limit = min(int(self.rng.choice([4, 12, 40, 120])), most)
        height, width = self.pick(1, limit), self.pick(1, limit)
        if self.maybe(0.25):
            height, width = [(1, width), (height, 1)][self.pick(0, 1)]
        depth = self.pick(1, min(int(self.rng.choice([8, 40, 150, 300])), max_depth))
        return self.input(1, height, width, depth)

    def mac(self, kind: str, ifm: Tensor, size: tuple[int, ...], **attributes: Any) -> Tensor:
        axis = 3 if kind == "DEPTHWISE_CONV_2D" else 0
        codes = self.rng.integers(-127, 128, size).astype(np.int8)
        weights = self.net.constant(codes, scales=np.full(size[axis], 0.01), axis=axis)
        dtype = "int64" if ifm.dtype == "int16" else "int32"
        bias = self.net.bias(np.zeros(size[axis], int), ifm, weights, dtype=dtype)
        if kind == "TRANSPOSE_CONV":
            ofm = np.array(attributes["shape"], np.int32)
            return self.net.op(kind, ofm, weights, ifm, bias, scale=0.5, **attributes)
        return self.net.op(kind, ifm, weights, bias, scale=0.5, **attributes)

    def window(self) -> dict[str, Any]:
        names = ("stride_h", "stride_w") if self.maybe(0.5) else ("dilation_h", "dilation_w")
        most = 3 if names[0] == "stride_h" else 2
        return {name: self.pick(1, most) for name in names} | {"padding": "SAME"}

    def activation(self) -> dict[str, Any]:
        return {"fused_activation": ["NONE", "RELU", "RELU6"][self.pick(0, 2)]}

    def conv(self) -> Tensor:
        ifm, most = self.image(max_depth=150), int(self.rng.choice([1, 3, 11]))
        shape = (self.pick(1, 200), self.pick(1, most), self.pick(1, most), ifm.shape[3])
        return self.mac("CONV_2D", ifm, shape, **self.window(), **self.activation())

    def depthwise(self) -> Tensor:
        ifm, most = self.image(), int(self.rng.choice([3, 11]))
        shape = (1, self.pick(1, most), self.pick(1, most), ifm.shape[3])
        attributes = self.window() | self.activation() | {"depth_multiplier": 1}
        return self.mac("DEPTHWISE_CONV_2D", ifm, shape, **attributes)

    def transpose_conv(self) -> Tensor:
        ifm = self.image(most=30, max_depth=80)
        shape = (self.pick(1, 80), self.pick(2, 5), self.pick(2, 5), ifm.shape[3])
        ofm = (1, 2 * ifm.shape[1], 2 * ifm.shape[2], shape[0])
        attributes = {"stride_h": 2, "stride_w": 2, "padding": "SAME", "shape": ofm}
        return self.mac("TRANSPOSE_CONV", ifm, shape, **attributes)

    def fully_connected(self) -> Tensor:
        ifm = self.input(int(self.rng.choice([1, 1, 2, 5, 16, 30, 64])), self.pick(1, 300))
        return self.mac("FULLY_CONNECTED", ifm, (self.pick(1, 300), ifm.shape[1]))

    def pool(self) -> Tensor:
        kind = ["AVERAGE_POOL_2D", "MAX_POOL_2D"][self.pick(0, 1)]
        strides = {"stride_h": self.pick(1, 3), "stride_w": self.pick(1, 3), "padding": "SAME"}
        size = {"filter_h": self.pick(1, 8), "filter_w": self.pick(1, 8)}
        return self.net.op(kind, self.image(), **strides, **size, **self.activation())

    def binary(self) -> Tensor:
        kind = ["ADD", "SUB", "MUL", "MINIMUM", "MAXIMUM"][self.pick(0, 4)]
        ifm = self.image()
        _, height, width, depth = ifm.shape
        shapes = [ifm.shape, (1, 1, 1, depth), (1, 1, 1, 1), (1, height, width, 1)]
        shape = shapes[self.pick(0, 3)]
        other: Tensor = self.input(*shape)
        if self.maybe(0.3):
            other = self.net.constant(np.full(shape, 3, self.dtype), scales=0.05)
        pair = (other, ifm) if self.maybe(0.3) else (ifm, other)
        attributes = {} if kind.endswith("IMUM") else self.activation()
        return self.net.op(kind, *pair, shape=ifm.shape, scale=0.05, **attributes)

    def unary(self) -> Tensor:
        ifm, which = self.image(), self.pick(0, 3)
        if which == 0:
            return self.net.op("ABS", ifm, shape=ifm.shape)
        if which == 1:
            return self.net.op("LEAKY_RELU", ifm, alpha=0.1, scale=0.04)
        return self.net.op(["RELU", "RELU6"][which - 2], ifm, scale=0.07)

    def lookup(self) -> Tensor:
        return self.table(self.image())

    def table(self, ifm: Tensor) -> Tensor:
        return self.net.op(["LOGISTIC", "TANH"][self.pick(0, 1)], ifm, scale=CODES[ifm.dtype])

    def copy(self) -> Tensor:
        ifm = self.image()
        if self.maybe(0.5):
            return self.net.op("PAD", ifm, np.array([[0, 0], [1, 2], [0, 3], [0, 0]], np.int32))
        other = self.input(*ifm.shape[:3], self.pick(1, 40))
        return self.net.op("CONCATENATION", ifm, other, axis=3)

    def resize(self) -> Tensor:
        ifm = self.image(most=40)
        size = np.array([2 * ifm.shape[1], 2 * ifm.shape[2]], np.int32)
        kind = ["RESIZE_NEAREST_NEIGHBOR", "RESIZE_BILINEAR"][self.pick(0, 1)]
        shape = (1, *size.tolist(), ifm.shape[3])
        return self.net.op(kind, ifm, size, shape=shape, half_pixel_centers=self.maybe(0.3))

    def softmax(self) -> Tensor:
        ifm = self.input(1, self.pick(1, 300), dtype="int8")
        return self.net.op("SOFTMAX", ifm, beta=1.0, scale=1 / 256, zero_point=-128)

    def matmul(self) -> Tensor:
        batch, rows, depth, columns = (self.pick(1, most) for most in (6, 40, 64, 20))
        first = self.input(1, batch, rows, depth, dtype="int8")
        second = self.input(1, batch, depth, columns, dtype="int8")
        ofm = (1, batch, rows, columns)
        return self.net.op("BATCH_MATMUL", first, second, scale=0.5, shape=ofm)

    def transpose(self) -> Tensor:
        ifm = self.image(most=30, max_depth=60)
        axes = [(0, 2, 1, 3), (0, 3, 1, 2), (0, 1, 3, 2), (0, 3, 2, 1)][self.pick(0, 3)]
        ofm = tuple(ifm.shape[axis] for axis in axes)
        return self.net.op("TRANSPOSE", ifm, np.array(axes, np.int32), shape=ofm)

    def mean(self) -> Tensor:
        ifm = self.image()
        ofm, axes = (1, 1, 1, ifm.shape[3]), np.array([1, 2], np.int32)
        return self.net.op("MEAN", ifm, axes, shape=ofm, keep_dims=True, scale=0.02)

    def add(self) -> None:
        """One operation, sometimes with one more that joins it."""
        self.dtype = "int16" if self.maybe(0.3) else "int8"
        ofm = getattr(self, KINDS[self.pick(0, len(KINDS) - 1)])()
        followed = self.maybe(0.35) and ofm.dtype == self.dtype
        self.outputs.append(self.table(ofm) if followed else ofm)


KINDS = (
    *("conv", "conv", "depthwise", "transpose_conv", "fully_connected", "pool", "binary"),
    *("binary", "unary", "lookup", "copy", "resize", "softmax", "matmul", "transpose", "mean"),
)


def random_ops(seed: int, n_ops: int = 14) -> Network:
    """A network of `n_ops` operations, each with an input and an output of its own."""
    single = SingleOps(np.random.default_rng(seed))
    for _ in range(n_ops):
        single.add()
    return single.net.build(*single.outputs)
