# SPDX-License-Identifier: Apache-2.0
"""Reading ONNX models as int8 networks: shapes and weights, for costs above all.

Maps become ``[N, H, W, C]``. Models that are quantized (QuantizeLinear and DequantizeLinear) keep
their codes and grids. Weights of others are quantized to int8, each output channel by its largest
magnitude, and maps by the ranges that are given; where none are, all maps have one grid: shapes,
sizes and cycles do not depend on it, codes would.

Source: [ONNX] operators.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from npusim.errors import ConfigError
from npusim.formats.onnx_graph import CODE_MAX, TO_NHWC, Constant, Graph, Node, read_graph, text
from npusim.formats.onnx_rules import RULES
from npusim.network import Network
from npusim.network_builder import NetworkBuilder
from npusim.tensor import Tensor

Range = tuple[float, float]
DEFAULT_SCALE: Final = 0.05
"""Of all maps of a model without ranges."""


def read(data: bytes, name: str = "model", ranges: Mapping[str, Range] | None = None) -> Network:
    """The network in the content of an .onnx file.

    Args:
        data: of the file.
        name: of the network.
        ranges: least and largest value of maps, by the name of the value; for models that are not
            quantized. Maps that have none get that of the map they come from, or the default.

    Raises:
        ConfigError: it is no ONNX model, or has a node that cannot be read; its name is told.
        MissingExtraError: onnx is not installed.
    """
    return Reader(read_graph(data), name, ranges or {}).run()


class Reader:
    """Adds one node after the other to a network."""

    def __init__(self, graph: Graph, name: str, ranges: Mapping[str, Range]):
        self.graph, self.ranges = graph, ranges
        self.net = NetworkBuilder(name)
        self.maps: dict[str, Tensor] = {}
        self.flattened: dict[str, tuple[int, ...]] = {}
        """(C, H, W) of maps that a flattening left in the order of [H, W, C]."""

    def run(self) -> Network:
        """The network of all nodes."""
        for name, shape in self.graph.inputs:
            if len(shape) == 4:
                shape = tuple(shape[axis] for axis in TO_NHWC)
            self.maps[name] = self.net.input(shape, name=name, **self._grid(name))
        for node in self.graph.nodes:
            rule = RULES.get(node.kind)
            if rule is None:
                known = ", ".join(sorted(RULES))
                raise ConfigError(f"nodes must be of a known kind ({known}), got {node!s}")
            try:
                self.maps[node.outputs[0]] = rule(self, node)
            except (KeyError, IndexError, ValueError) as error:
                if isinstance(error, ConfigError):
                    raise ConfigError(f"{node!s}: {error}") from None
                raise ConfigError(f"{node!s} must have inputs that fit, got {error!r}") from None
        return self.net.build(*(self.map(name) for name in self.graph.outputs))

    def _grid(self, name: str) -> dict[str, Any]:
        if name in self.graph.grids:
            scale, zero_point = self.graph.grids[name]
            return {"scale": scale, "zero_point": zero_point}
        if name not in self.ranges:
            return {"scale": DEFAULT_SCALE, "zero_point": 0}
        low, high = min(self.ranges[name][0], 0.0), max(self.ranges[name][1], 0.0)
        scale = max((high - low) / 255, float(np.finfo(np.float32).tiny))
        return {"scale": scale, "zero_point": int(np.clip(round(-128 - low / scale), -128, 127))}

    def grid(self, node: Node, like: Tensor) -> dict[str, Any]:
        """Scale and zero point of a node's result; those of a map it comes from if not told."""
        name = node.outputs[0]
        if name in self.graph.grids or name in self.ranges:
            return self._grid(name)
        assert like.quantization is not None
        scale, zero_point = like.quantization.scales[0], like.quantization.zero_points[0]
        return {"scale": float(scale), "zero_point": int(zero_point)}

    def map(self, name: str, in_order: bool = True) -> Tensor:
        """The map of a value, which must not be a constant; in the order of its shape."""
        if name not in self.maps:
            what = "a constant" if name in self.graph.constants else "not known"
            raise ConfigError(f"input must be a map, got {name!r}, which is {what}")
        if in_order and name in self.flattened:
            raise ConfigError(f"flattened map {name!r} must go to a Gemm or MatMul")
        return self.maps[name]

    def values(self, name: str) -> npt.NDArray[Any]:
        """Values of a constant."""
        if name not in self.graph.constants:
            raise ConfigError(f"input must be constant, got {name!r}")
        return self.graph.constants[name].values

    def weights(
        self,
        name: str,
        order: tuple[int, ...],
        axis: int,
        columns: npt.NDArray[np.int64] | None = None,
    ) -> Tensor:
        """Weights in TFLite's layout.

        Args:
            name: of the constant.
            order: its axes there.
            axis: of output channels there.
            columns: order of the last axis; None for that of the constant.
        """
        self.values(name)
        codes, scales = _quantized(self.graph.constants[name], order[axis])
        codes = codes.transpose(order)
        if columns is not None:
            codes = codes[..., columns]
        codes = np.ascontiguousarray(codes)
        return self.net.constant(codes, scales=scales, axis=axis, name=name)

    def bias(self, node: Node, position: int, ifm: Tensor, weights: Tensor, depth: int) -> Tensor:
        """The bias of a node, or zeros, in steps of ifm times weights."""
        assert ifm.quantization is not None
        assert weights.quantization is not None
        name = node.inputs[position] if len(node.inputs) > position else ""
        codes = np.zeros(depth, np.int64)
        if name:
            constant = self.graph.constants[name]
            real = constant.values.astype(np.float64).ravel()
            if constant.scales is not None:
                real = real * constant.scales
            steps = ifm.quantization.scales.astype(np.float64) * weights.quantization.scales
            limit = (1 << 31) - 1
            codes = np.clip(np.rint(real / steps), -limit, limit).astype(np.int64)
        return self.net.bias(np.broadcast_to(codes, depth), ifm, weights)

    def padded(
        self, node: Node, ifm: Tensor, kernel: list[int], strides: list[int], lowest: bool = False
    ) -> tuple[Tensor, str]:
        """The ifm with margins where "SAME" and "VALID" are not what the node has, and which it is.

        Args:
            lowest: of a maximum, for which margins must not count.
        """
        auto = text(node.attributes.get("auto_pad", b"NOTSET"))
        dilations = node.attributes.get("dilations", [1, 1])
        if node.attributes.get("ceil_mode", 0):
            raise ConfigError("ceil_mode must be 0, got 1")
        if auto in ("SAME_UPPER", "VALID"):
            return ifm, auto.partition("_")[0]
        if auto != "NOTSET":
            raise ConfigError(f"auto_pad must be SAME_UPPER, VALID or NOTSET, got {auto}")
        pads = node.attributes.get("pads", [0, 0, 0, 0])
        if not any(pads):
            return ifm, "VALID"
        same = []
        for i in (0, 1):
            span = (kernel[i] - 1) * dilations[i] + 1
            total = max(
                (-(-ifm.shape[1 + i] // strides[i]) - 1) * strides[i] + span - ifm.shape[1 + i], 0
            )
            same.append((total // 2, total - total // 2))
        if same == [(pads[0], pads[2]), (pads[1], pads[3])]:
            return ifm, "SAME"
        margins = np.array([[0, 0], [pads[0], pads[2]], [pads[1], pads[3]], [0, 0]], np.int32)
        if not lowest:
            return self.net.op("PAD", ifm, margins, name=f"{node.name}.pad"), "VALID"
        assert ifm.quantization is not None
        fill = self.net.constant(
            np.array([-128], np.int8),
            scales=ifm.quantization.scales,
            zero_points=ifm.quantization.zero_points,
        )
        return self.net.op("PADV2", ifm, margins, fill, name=f"{node.name}.pad"), "VALID"


def _quantized(constant: Constant, channels: int) -> tuple[npt.NDArray[np.int8], npt.ArrayLike]:
    """Int8 codes of weights and their scales, by the axis of output channels if not given."""
    if constant.scales is not None:
        if constant.scales.size > 1 and constant.axis % constant.values.ndim != channels:
            raise ConfigError(f"scales must be along axis {channels}, got {constant.axis}")
        return constant.values, constant.scales
    values = constant.values.astype(np.float64)
    others = tuple(axis for axis in range(values.ndim) if axis != channels)
    largest = np.abs(values).max(axis=others, keepdims=True)
    step = np.maximum(largest / CODE_MAX, np.finfo(np.float32).tiny)
    return np.rint(values / step).astype(np.int8), step.ravel()
