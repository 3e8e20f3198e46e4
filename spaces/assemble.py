# SPDX-License-Identifier: Apache-2.0
"""A candidate as the operations of an int8 network: the one description of what is deployed.

What the values are - weights, scales, zero points - is up to who assembles: `spaces.lower` has
shapes alone, for costs; `spaces.export` has a trained network's.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final, NamedTuple, Protocol

import numpy as np
import numpy.typing as npt

from npusim.errors import ConfigError
from npusim.network import Network
from npusim.network_builder import NetworkBuilder
from npusim.tensor import Tensor
from spaces.base import LayerKind
from spaces.concrete import ConcreteLayer

POOL_MAX: Final = 256
"""Most positions that an NPU's average pool takes at once."""
_FUSED: Final = {"none": "NONE", "relu": "RELU", "relu6": "RELU6", "prelu": "NONE"}


class Grid(NamedTuple):
    """Int8 codes of real values: ``scale * (code - zero_point)``."""

    scale: float
    zero_point: int


@dataclass(frozen=True, slots=True, eq=False)
class Weights:
    """Weights of a layer in TFLite's layout, and its bias.

    Attributes:
        codes: int8, of `weights_shape`.
        scales: one, or one for each output channel.
        bias: codes in steps of the ifm's scale times the channel's, i64 [O].
    """

    codes: npt.NDArray[np.int8]
    scales: npt.ArrayLike
    bias: npt.NDArray[np.int64]


class Values(Protocol):
    """Where numbers come from."""

    def grid(self, name: str) -> Grid:
        """Of the result of a layer that does not keep its input's."""

    def grid_before(self, name: str) -> Grid:
        """Of what a layer's PReLU reads."""

    def weights(self, each: ConcreteLayer[int], ifm: Grid) -> Weights:
        """Of a layer that reads a map on a grid; of batch norm alone, one weight a channel."""

    def slopes(self, each: ConcreteLayer[int]) -> tuple[npt.NDArray[np.int8], float]:
        """Codes [1, 1, C] of a layer's PReLU, and their scale."""


def weights_shape(each: ConcreteLayer[int]) -> tuple[int, ...]:
    """Of a layer's weights in TFLite's layout: OHWI, [1, H, W, O] by channel, [O, I] if dense."""
    k = each.kernel
    if each.layer.kind is LayerKind.DENSE:
        return each.ofm_depth, each.ifm_depth
    if each.layer.kind in (LayerKind.DEPTHWISE, LayerKind.ACTIVATION):
        return 1, k, k, each.ofm_depth
    return each.ofm_depth, k, k, each.ifm_depth


def assemble(
    name: str, found: tuple[ConcreteLayer[int], ...], values: Values, average_pool: bool = False
) -> Network:
    """The network of a candidate's layers.

    Args:
        name: of the network.
        found: the layers, as `spaces.concrete.concrete_layers` has them.
        values: the numbers in it.
        average_pool: means over height and width as pools where they are small enough. That saves
            the weights a mean is made of, and leaves its result on the grid of what it reads.

    Raises:
        ConfigError: a layer is one of a network that is there already.
    """
    return _Assembly(name, found, values, average_pool).run()


def _grid(tensor: Tensor) -> Grid:
    quantization = tensor.quantization
    assert quantization is not None
    return Grid(float(quantization.scales[0]), int(quantization.zero_points[0]))


class _Assembly:
    """Adds one layer after the other to a network."""

    def __init__(
        self, name: str, found: tuple[ConcreteLayer[int], ...], values: Values, average_pool: bool
    ):
        self.found, self.values, self.average_pool = found, values, average_pool
        self.net = NetworkBuilder(name)
        self.maps: dict[str, Tensor] = {}
        convolution, pool = self._convolution, self._pool
        self._rules: dict[LayerKind, Callable[[ConcreteLayer[int], list[Tensor]], Tensor]] = {
            LayerKind.CONV: convolution,
            LayerKind.DEPTHWISE: convolution,
            LayerKind.TRANSPOSE_CONV: convolution,
            LayerKind.DENSE: convolution,
            LayerKind.ADD: self._add,
            LayerKind.ACTIVATION: self._activation,
            LayerKind.AVERAGE_POOL: pool,
            LayerKind.MAX_POOL: pool,
            LayerKind.GLOBAL_POOL: self._global_pool,
            LayerKind.MATCH_DEPTH: self._match_depth,
            LayerKind.DEPTH_TO_SPACE: self._depth_to_space,
            LayerKind.ZERO: self._zero,
        }

    def run(self) -> Network:
        image, name = self.found[0], self.found[0].layer.name
        shape = (1, image.ofm_height, image.ofm_width, image.ofm_depth)
        self.maps[name] = self.net.input(shape, name=name, **self.values.grid(name)._asdict())
        for each in self.found[1:]:
            rule = self._rules.get(each.layer.kind)
            if rule is None:
                raise ConfigError(
                    f"layer {each.layer.name!r} must not be one of a network to be lowered, "
                    f"got {each.layer.kind}: lower the network"
                )
            self.maps[each.layer.name] = rule(each, [self.maps[name] for name in each.inputs])
        return self.net.build(self.maps[self.found[-1].layer.name])

    def _convolution(self, each: ConcreteLayer[int], inputs: list[Tensor]) -> Tensor:
        (ifm,) = inputs
        values = self.values.weights(each, _grid(ifm))
        by_channel = each.layer.kind in (LayerKind.DEPTHWISE, LayerKind.ACTIVATION)
        axis = 3 if by_channel else 0
        weights = self.net.constant(values.codes, scales=values.scales, axis=axis, name="weights")
        bias = self.net.bias(values.bias, ifm, weights)
        stride: dict[str, Any] = {"stride_h": each.layer.stride, "stride_w": each.layer.stride}
        if each.layer.kind is LayerKind.DENSE:
            return self._op("FULLY_CONNECTED", each, ifm, weights, bias)
        if by_channel:
            kind = "DEPTHWISE_CONV_2D"
            return self._op(kind, each, ifm, weights, bias, depth_multiplier=1, **stride)
        if each.layer.kind is LayerKind.CONV:
            return self._op("CONV_2D", each, ifm, weights, bias, **stride)
        shape = np.array([1, each.ofm_height, each.ofm_width, each.ofm_depth], np.int32)
        return self._op("TRANSPOSE_CONV", each, shape, weights, ifm, bias, **stride)

    def _op(self, kind: str, each: ConcreteLayer[int], *operands: Any, **attributes: Any) -> Tensor:
        """An operation with the activation in it, or behind it where it cannot be."""
        name, activation = each.layer.name, each.layer.activation
        before = activation == "prelu"
        grid = self.values.grid_before(name) if before else self.values.grid(name)
        fused = {"fused_activation": _FUSED[activation]}
        ofm = self.net.op(kind, *operands, name=name, **grid._asdict(), **fused, **attributes)
        return self._prelu(each, ofm, f"{name}.prelu") if before else ofm

    def _prelu(self, each: ConcreteLayer[int], ifm: Tensor, name: str) -> Tensor:
        codes, scale = self.values.slopes(each)
        slopes = self.net.constant(codes, scales=scale, name="slopes")
        return self.net.op(
            "PRELU", ifm, slopes, name=name, **self.values.grid(each.layer.name)._asdict()
        )

    def _add(self, each: ConcreteLayer[int], inputs: list[Tensor]) -> Tensor:
        total = inputs[0]
        for i, x in enumerate(inputs[1:-1], start=1):
            name, grid = f"{each.layer.name}.part{i}", _grid_of_sum(_grid(total), _grid(x))
            total = self.net.op("ADD", total, x, name=name, **grid._asdict())
        return self._op("ADD", each, total, inputs[-1])

    def _activation(self, each: ConcreteLayer[int], inputs: list[Tensor]) -> Tensor:
        layer, (ifm,) = each.layer, inputs
        if layer.norm:  # a scale and a shift for each channel
            return self._convolution(each, inputs)
        if layer.activation == "none":
            return ifm
        if layer.activation == "prelu":
            return self._prelu(each, ifm, layer.name)
        grid = self.values.grid(layer.name)
        return self.net.op(_FUSED[layer.activation], ifm, name=layer.name, **grid._asdict())

    def _pool(self, each: ConcreteLayer[int], inputs: list[Tensor]) -> Tensor:
        average = each.layer.kind is LayerKind.AVERAGE_POOL
        return self.net.op(
            "AVERAGE_POOL_2D" if average else "MAX_POOL_2D",
            *inputs,
            name=each.layer.name,
            filter_h=each.kernel,
            filter_w=each.kernel,
            stride_h=each.layer.stride,
            stride_w=each.layer.stride,
        )

    def _global_pool(self, each: ConcreteLayer[int], inputs: list[Tensor]) -> Tensor:
        (ifm,), name = inputs, each.layer.name
        _, height, width, _ = ifm.shape
        if self.average_pool and height * width <= POOL_MAX:
            window = {"filter_h": height, "filter_w": width, "padding": "VALID"}
            return self.net.op("AVERAGE_POOL_2D", ifm, name=name, **window)
        axes, grid = np.array([1, 2], np.int32), self.values.grid(name)
        return self.net.op("MEAN", ifm, axes, keep_dims=False, name=name, **grid._asdict())

    def _match_depth(self, each: ConcreteLayer[int], inputs: list[Tensor]) -> Tensor:
        (ifm,), more = inputs, each.ofm_depth - each.ifm_depth
        if more == 0:
            return ifm
        if more > 0:
            margins = np.array([[0, 0], [0, 0], [0, 0], [0, more]], np.int32)
            return self.net.op("PAD", ifm, margins, name=each.layer.name)
        begin = np.zeros(4, np.int32)
        size = np.array([*ifm.shape[:3], each.ofm_depth], np.int32)
        shape = size.tolist()
        return self.net.op("SLICE", ifm, begin, size, shape=shape, name=each.layer.name)

    def _depth_to_space(self, each: ConcreteLayer[int], inputs: list[Tensor]) -> Tensor:
        """Transpose convolutions by 2 whose weights pick one channel for each pixel: exact."""
        x, name = inputs[0], each.layer.name
        n_steps = each.layer.stride.bit_length() - 1
        for step in range(1, n_steps + 1):
            _, height, width, depth = x.shape
            picks = np.eye(depth, dtype=np.int8).reshape(2, 2, depth // 4, depth)
            weights = self.net.constant(picks.transpose(2, 0, 1, 3), scales=1.0, name="picks")
            bias = self.net.bias(np.zeros(depth // 4, np.int64), x, weights)
            shape = np.array([1, 2 * height, 2 * width, depth // 4], np.int32)
            x = self.net.op(
                "TRANSPOSE_CONV",
                *(shape, weights, x, bias),
                name=name if step == n_steps else f"{name}.part{step}",
                stride_h=2,
                stride_w=2,
            )
        return x

    def _zero(self, each: ConcreteLayer[int], inputs: list[Tensor]) -> Tensor:
        x, stride = inputs[0], each.layer.stride
        if stride > 1:
            x = self.net.op("AVERAGE_POOL_2D", x, stride_h=stride, stride_w=stride)
        zero = self.net.constant(np.zeros((1, 1, 1, 1), np.int8), scales=1.0, name="zero")
        return self.net.op("MUL", x, zero, name=each.layer.name)


def _grid_of_sum(a: Grid, b: Grid) -> Grid:
    """Wide enough for any sum."""
    scale = a.scale + b.scale
    low = (-128 - a.zero_point) * a.scale + (-128 - b.zero_point) * b.scale
    return Grid(scale, int(np.clip(round(-128 - low / scale), -128, 127)))
