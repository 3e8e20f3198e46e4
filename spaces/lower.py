# SPDX-License-Identifier: Apache-2.0
"""A candidate as a network of shapes, and as what an NPU executes: what the cost model takes.

Weights are there as shapes alone, parts of one array of zeros. What they take in flash is known
from their bitwidth and sparsity, cycles and memory from the shapes.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Final

import numpy as np

from npusim.cost.lowering import program
from npusim.cost.program import NpuOp, Program
from npusim.errors import ConfigError
from npusim.network import Network
from npusim.network_builder import NetworkBuilder
from npusim.tensor import Tensor
from spaces.base import Candidate, LayerKind, Space
from spaces.concrete import ConcreteLayer, concrete_layers
from spaces.costs import size_bits

SCALE: Final = 0.05
"""Of every feature map and all weights: shapes do not depend on it."""
_FUSED: Final = {"none": "NONE", "relu": "RELU", "relu6": "RELU6", "prelu": "NONE"}


@dataclass(frozen=True, slots=True, eq=False)
class Lowered:
    """A candidate as the cost model sees it.

    Attributes:
        network: operations and shapes, every weight zero.
        program: what the NPU executes; the weights' values are not known.
        weight_bits: compressed size of the weights, by the name of the network's operation; see
            `spaces.costs.size_bits`.
    """

    network: Network
    program: Program
    weight_bits: Mapping[str, int]


def lower(space: Space, candidate: Candidate) -> Lowered:
    """A candidate's network, program and the size of its weights.

    Raises:
        ConfigError: `candidate` is of another space, or of one made from a network, which is to be
            lowered itself.
    """
    found = concrete_layers(space, candidate)
    lowering = _Lowering(space, found)
    network = lowering.run()
    lowered = program(network)
    ours = set(lowering.weight_bits)
    ops = tuple(_without_values(op, ours) for op in lowered.ops)
    return Lowered(network, replace(lowered, ops=ops), lowering.weight_bits)


def _without_values(op: NpuOp, ours: set[str]) -> NpuOp:
    if op.weights is None or op.source is None or op.source.name not in ours:
        return op
    return replace(op, weights=replace(op.weights, ohwi=None))


class _Lowering:
    """Adds one layer after the other to a network."""

    def __init__(self, space: Space, found: tuple[ConcreteLayer[int], ...]):
        self.found = found
        self.net = NetworkBuilder(space.name)
        self.maps: dict[str, Tensor] = {}
        self.weight_bits: dict[str, int] = {}
        most = max(each.n_weights + each.ofm_depth for each in found)  # a norm has one a channel
        self.zeros = np.zeros(most, np.int8)
        self.zeros.flags.writeable = False
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
        image = self.found[0]
        shape = (1, image.ofm_height, image.ofm_width, image.ofm_depth)
        self.maps[image.layer.name] = self.net.input(shape, scale=SCALE, name=image.layer.name)
        for each in self.found[1:]:
            rule = self._rules.get(each.layer.kind)
            if rule is None:
                raise ConfigError(
                    f"layer {each.layer.name!r} must not be one of a network to be lowered, "
                    f"got {each.layer.kind}: lower the network"
                )
            self.maps[each.layer.name] = rule(each, [self.maps[name] for name in each.inputs])
        return self.net.build(self.maps[self.found[-1].layer.name])

    def _weights(self, shape: tuple[int, ...]) -> Tensor:
        zeros = self.zeros[: math.prod(shape)].reshape(shape)
        return self.net.constant(zeros, scales=SCALE, name="weights")

    def _convolution(self, each: ConcreteLayer[int], inputs: list[Tensor]) -> Tensor:
        layer, (ifm,), k = each.layer, inputs, each.kernel
        windows: dict[str, Any] = {"stride_h": layer.stride, "stride_w": layer.stride}
        operands: list[Tensor | np.ndarray | None]
        if layer.kind is LayerKind.DENSE:
            kind, windows = "FULLY_CONNECTED", {}
            weights = self._weights((each.ofm_depth, each.ifm_depth))
            operands = [ifm, weights]
        elif layer.kind is LayerKind.DEPTHWISE:
            kind, weights = "DEPTHWISE_CONV_2D", self._weights((1, k, k, each.ofm_depth))
            operands, windows = [ifm, weights], {**windows, "depth_multiplier": 1}
        elif layer.kind is LayerKind.CONV:
            kind, weights = "CONV_2D", self._weights((each.ofm_depth, k, k, each.ifm_depth))
            operands = [ifm, weights]
        else:
            shape = (1, each.ofm_height, each.ofm_width, each.ofm_depth)
            kind, weights = "TRANSPOSE_CONV", self._weights((each.ofm_depth, k, k, each.ifm_depth))
            operands = [np.array(shape, np.int32), weights, ifm]
        if layer.norm or layer.bias:
            operands.append(self.net.bias(np.zeros(each.ofm_depth, np.int64), ifm, weights))
        ofm = self._op(kind, layer.name, layer.activation, *operands, **windows)
        arrays = {
            "bitwidth": each.bitwidth,
            "n_weights": each.n_weights,
            "n_nonzero": each.n_nonzero,
        }
        counts = replace(each, **{what: np.asarray(n) for what, n in arrays.items()})  # type: ignore[arg-type]
        self.weight_bits[layer.name] = int(size_bits(counts))  # type: ignore[arg-type]
        return ofm

    def _op(
        self, kind: str, name: str, activation: str, *operands: Any, **attributes: Any
    ) -> Tensor:
        """An operation with the activation in it, or behind it where it cannot be."""
        fused = _FUSED[activation]
        ofm = self.net.op(
            kind, *operands, scale=SCALE, name=name, fused_activation=fused, **attributes
        )
        if activation != "prelu":
            return ofm
        slopes = self.net.constant(np.ones((1, 1, ofm.shape[-1]), np.int8), scales=SCALE)
        return self.net.op("PRELU", ofm, slopes, scale=SCALE, shape=ofm.shape, name=f"{name}.prelu")

    def _add(self, each: ConcreteLayer[int], inputs: list[Tensor]) -> Tensor:
        total = inputs[0]
        for i, x in enumerate(inputs[1:], start=1):
            last = i == len(inputs) - 1
            name = each.layer.name if last else f"{each.layer.name}.part{i}"
            total = self._op("ADD", name, each.layer.activation if last else "none", total, x)
        return total

    def _activation(self, each: ConcreteLayer[int], inputs: list[Tensor]) -> Tensor:
        layer, (ifm,) = each.layer, inputs
        if layer.norm:  # a scale and a shift for each channel
            weights = self._weights((1, 1, 1, each.ofm_depth))
            bias = self.net.bias(np.zeros(each.ofm_depth, np.int64), ifm, weights)
            kind, name = "DEPTHWISE_CONV_2D", layer.name
            return self._op(kind, name, layer.activation, ifm, weights, bias, depth_multiplier=1)
        if layer.activation == "none":
            return ifm
        if layer.activation == "prelu":
            slopes = self.net.constant(np.ones((1, 1, ifm.shape[-1]), np.int8), scales=SCALE)
            return self.net.op("PRELU", ifm, slopes, scale=SCALE, shape=ifm.shape, name=layer.name)
        return self.net.op(_FUSED[layer.activation], ifm, name=layer.name)

    def _pool(self, each: ConcreteLayer[int], inputs: list[Tensor]) -> Tensor:
        layer = each.layer
        average = layer.kind is LayerKind.AVERAGE_POOL
        return self.net.op(
            "AVERAGE_POOL_2D" if average else "MAX_POOL_2D",
            *inputs,
            name=layer.name,
            filter_h=each.kernel,
            filter_w=each.kernel,
            stride_h=layer.stride,
            stride_w=layer.stride,
        )

    def _global_pool(self, each: ConcreteLayer[int], inputs: list[Tensor]) -> Tensor:
        axes = np.array([1, 2], np.int32)
        return self.net.op("MEAN", *inputs, axes, keep_dims=False, name=each.layer.name)

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
        """Transpose convolutions by 2 whose weights pick one channel for each pixel."""
        x, name = inputs[0], each.layer.name
        n_steps = each.layer.stride.bit_length() - 1
        for step in range(1, n_steps + 1):
            _, height, width, depth = x.shape
            picks = np.eye(depth, dtype=np.int8).reshape(2, 2, depth // 4, depth)
            weights = self.net.constant(picks.transpose(2, 0, 1, 3), scales=1.0, name="picks")
            shape = np.array([1, 2 * height, 2 * width, depth // 4], np.int32)
            step_name = name if step == n_steps else f"{name}.part{step}"
            windows = {"stride_h": 2, "stride_w": 2}
            x = self._op("TRANSPOSE_CONV", step_name, "none", shape, weights, x, **windows)
        return x

    def _zero(self, each: ConcreteLayer[int], inputs: list[Tensor]) -> Tensor:
        x, stride = inputs[0], each.layer.stride
        if stride > 1:
            x = self.net.op("AVERAGE_POOL_2D", x, stride_h=stride, stride_w=stride)
        zero = self.net.constant(np.zeros((1, 1, 1, 1), np.int8), scales=SCALE)
        return self.net.op("MUL", x, zero, scale=SCALE, name=each.layer.name)
