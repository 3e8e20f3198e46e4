# SPDX-License-Identifier: Apache-2.0
"""ONNX models as plain nodes: constants apart, int8 grids read, batch norm and activations fused.

Source: [ONNX] operators, onnx.proto.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from npusim.errors import ConfigError, MissingExtraError

Array = npt.NDArray[Any]
FUSING: Final = ("Add", "Conv", "ConvTranspose", "Gemm", "MatMul")
"""Kinds that a ReLU behind them becomes part of."""
TO_NHWC: Final = (0, 2, 3, 1)
CODE_MAX: Final = 127
_RELU6: Final = 6.0
_ALIASES: Final = ("Dropout", "Identity")
_QUANTIZED: Final = ("int8", "uint8", "int32")


@dataclass(frozen=True, slots=True)
class Constant:
    """Values, or the codes of values with their scales.

    Attributes:
        values: float, integer, or codes: int8 or int32.
        scales: float32, one or one for each index of `axis`; None for values.
        axis: of the scales.
    """

    values: Array
    scales: npt.NDArray[np.float32] | None = None
    axis: int = 0


@dataclass(slots=True)
class Node:
    """An operation.

    Attributes:
        kind, name: of the node; the name is that of its first output where it has none.
        inputs, outputs: names of values; empty for inputs left out.
        attributes: as stored.
        fused: activation that is part of it.
    """

    kind: str
    name: str
    inputs: list[str]
    outputs: list[str]
    attributes: dict[str, Any]
    fused: str = "NONE"

    def __str__(self) -> str:
        return f"{self.kind} {self.name!r}"


@dataclass(slots=True)
class Graph:
    """A model's main graph.

    Attributes:
        inputs: name and shape of each; lengths that are not known count as 1.
        outputs: names of values.
        nodes: in order of execution.
        constants: by name of the value.
        grids: scale and zero point of int8 maps, by name of the value, where the model says them.
    """

    inputs: list[tuple[str, tuple[int, ...]]]
    outputs: list[str]
    nodes: list[Node]
    constants: dict[str, Constant]
    grids: dict[str, tuple[float, int]] = field(default_factory=dict)

    def uses(self) -> Counter[str]:
        """How often each value is read, by nodes or as an output."""
        read = Counter(name for node in self.nodes for name in node.inputs)
        return read + Counter(self.outputs)


def read_graph(data: bytes) -> Graph:
    """The main graph of an ONNX file's content.

    Raises:
        ConfigError: it is no ONNX model, or quantized in a way that int8 networks are not.
        MissingExtraError: onnx is not installed.
    """
    try:
        import onnx
        from onnx import numpy_helper
    except ImportError as error:
        raise MissingExtraError("ONNX models", "onnx", error) from error
    try:
        model = onnx.load_model_from_string(data)
    except Exception as error:  # protobuf's own, by version
        raise ConfigError(f"content must be an ONNX model: {error}") from None
    proto = model.graph
    if not proto.node or not proto.output:
        raise ConfigError(f"ONNX model must have operations and outputs, got {len(proto.node)}")
    constants = {each.name: Constant(numpy_helper.to_array(each)) for each in proto.initializer}
    inputs = [
        (each.name, tuple(axis.dim_value or 1 for axis in each.type.tensor_type.shape.dim))
        for each in proto.input
        if each.name not in constants
    ]
    nodes = [
        Node(
            each.op_type,
            each.name or (each.output[0] if each.output else each.op_type),
            list(each.input),
            list(each.output),
            {a.name: onnx.helper.get_attribute_value(a) for a in each.attribute},
        )
        for each in proto.node
    ]
    graph = Graph(inputs, [each.name for each in proto.output], nodes, constants)
    _take_constants(graph, model)
    _resolve_grids(graph)
    _fold_batch_norm(graph)
    _fuse_activations(graph)
    return graph


def _take_constants(graph: Graph, model: Any) -> None:
    """Nodes that give constants alone leave; what they compute is the reference evaluator's."""
    from onnx import TensorProto, helper, numpy_helper
    from onnx.reference import ReferenceEvaluator

    kept = []
    for node, proto in zip(graph.nodes, model.graph.node, strict=True):
        if node.kind == "Constant" and "value" in node.attributes:
            value = numpy_helper.to_array(node.attributes["value"])
            graph.constants[node.outputs[0]] = Constant(value)
            continue
        known = all(name in graph.constants for name in node.inputs if name)
        if not known or node.kind in ("QuantizeLinear", "DequantizeLinear"):
            kept.append(node)
            continue
        outputs = [
            helper.make_tensor_value_info(n, TensorProto.UNDEFINED, None) for n in node.outputs
        ]
        names = [name for name in node.inputs if name]
        given = [helper.make_tensor_value_info(n, TensorProto.UNDEFINED, None) for n in names]
        alone = helper.make_model(
            helper.make_graph([proto], "constant", given, outputs),
            opset_imports=model.opset_import,
        )
        values = {name: graph.constants[name].values for name in names}
        found = ReferenceEvaluator(alone).run(None, values)
        for name, value in zip(node.outputs, found, strict=True):
            graph.constants[name] = Constant(np.asarray(value))
    graph.nodes = kept


def _resolve_grids(graph: Graph) -> None:
    """Quantizing and dequantizing nodes leave; maps get grids and constants codes."""
    alias: dict[str, str] = {}
    kept = []
    for node in graph.nodes:
        node.inputs = [alias.get(name, name) for name in node.inputs]
        if node.kind in _ALIASES:
            alias[node.outputs[0]] = node.inputs[0]
        elif node.kind not in ("QuantizeLinear", "DequantizeLinear"):
            kept.append(node)
        else:
            source, output = node.inputs[0], node.outputs[0]
            scales, points = _parameters(graph, node)
            axis = int(node.attributes.get("axis", 1))
            if source in graph.constants:
                constant = graph.constants[source]
                graph.constants[output] = (
                    _codes(node, constant, points, scales, axis)
                    if constant.scales is None
                    else constant
                )
                continue
            if scales.size != 1:
                raise ConfigError(f"maps must have one scale, got {scales.size} at {node!s}")
            shift = 128 if points.dtype == np.uint8 else 0
            graph.grids.setdefault(source, (float(scales[0]), int(points[0]) - shift))
            alias[output] = source
    graph.nodes = kept
    graph.outputs = [alias.get(name, name) for name in graph.outputs]


def _parameters(graph: Graph, node: Node) -> tuple[npt.NDArray[np.float32], Array]:
    given = [graph.constants.get(name) for name in node.inputs[1:]]
    if not given or any(each is None for each in given):
        raise ConfigError(f"scales and zero points must be constants, got others at {node!s}")
    scales = np.atleast_1d(given[0].values).astype(np.float32)  # type: ignore[union-attr]
    points = np.zeros(scales.shape, np.uint8 if node.kind == "QuantizeLinear" else np.int8)
    if len(given) > 1:
        points = np.atleast_1d(given[1].values)  # type: ignore[union-attr]
    if str(points.dtype) not in _QUANTIZED:
        raise ConfigError(f"codes must be int8, uint8 or int32, got {points.dtype} at {node!s}")
    return scales, points


def _codes(
    node: Node, constant: Constant, points: Array, scales: npt.NDArray[np.float32], axis: int
) -> Constant:
    """A constant's codes, which have zero point 0 as int8."""
    values = constant.values
    shape = [1] * values.ndim
    if scales.size > 1:
        shape[axis] = scales.size
    if node.kind == "QuantizeLinear":
        limits = np.iinfo(points.dtype)
        values = np.rint(values / scales.reshape(shape)) + points.reshape(shape)
        values = np.clip(values, limits.min, limits.max).astype(points.dtype)
    if values.dtype == np.int32:
        return Constant(values, scales, axis)
    values = values.astype(np.int16) - points.astype(np.int16).reshape(shape)
    if values.size and (values.min() < -128 or values.max() > 127):
        raise ConfigError(f"codes of constants must be symmetric, got others at {node!s}")
    return Constant(values.astype(np.int8), scales, axis)


def _fold_batch_norm(graph: Graph) -> None:
    uses, kept = graph.uses(), []
    producers: dict[str, Node] = {}
    for node in graph.nodes:
        before = producers.get(node.inputs[0]) if node.inputs else None
        if (
            node.kind == "BatchNormalization"
            and before is not None
            and before.kind == "Conv"
            and uses[node.inputs[0]] == 1
            and graph.constants[before.inputs[1]].scales is None
        ):
            factor, shift = batch_norm(graph, node)
            weights = graph.constants[before.inputs[1]].values
            by_channel = factor.reshape(-1, *(1,) * (weights.ndim - 1))
            bias = np.zeros_like(shift)
            if len(before.inputs) > 2:
                bias = graph.constants[before.inputs[2]].values
            names = [f"{node.name}.weights", f"{node.name}.bias"]
            graph.constants[names[0]] = Constant(weights * by_channel)
            graph.constants[names[1]] = Constant(bias * factor + shift)
            before.inputs, before.outputs = [before.inputs[0], *names], node.outputs[:1]
            producers[node.outputs[0]] = before
            continue
        kept.append(node)
        producers |= dict.fromkeys(node.outputs, node)
    graph.nodes = kept


def batch_norm(graph: Graph, node: Node) -> tuple[Array, Array]:
    """Factor and shift of each channel of a batch norm."""
    scale, bias, mean, variance = (graph.constants[name].values for name in node.inputs[1:5])
    factor = scale / np.sqrt(variance + node.attributes.get("epsilon", 1e-5))
    return factor, bias - mean * factor


def _fuse_activations(graph: Graph) -> None:
    uses, kept = graph.uses(), []
    producers: dict[str, Node] = {}
    for node in graph.nodes:
        fused = activation(graph, node)
        before = producers.get(node.inputs[0]) if node.inputs else None
        if (
            fused != "NONE"
            and before is not None
            and before.kind in FUSING
            and before.fused == "NONE"
            and uses[node.inputs[0]] == 1
            and node.inputs[0] not in graph.grids
        ):
            before.fused, before.outputs = fused, node.outputs[:1]
            producers[node.outputs[0]] = before
            continue
        kept.append(node)
        producers |= dict.fromkeys(node.outputs, node)
    graph.nodes = kept


def activation(graph: Graph, node: Node) -> str:
    """What a node clamps to, as TFLite names it; "NONE" for others."""
    if node.kind == "Relu":
        return "RELU"
    if node.kind != "Clip":
        return "NONE"
    ends = [node.attributes.get("min"), node.attributes.get("max")]
    for i, name in enumerate(node.inputs[1:3]):
        if name in graph.constants:
            ends[i] = float(graph.constants[name].values.reshape(()))
    known: dict[tuple[Any, Any], str] = {
        (0.0, _RELU6): "RELU6",
        (0.0, None): "RELU",
        (-1.0, 1.0): "RELU_N1_TO_1",
    }
    return known.get((ends[0], ends[1]), "NONE")


def text(value: Any) -> str:
    """An attribute that is text, as text."""
    return value.decode() if isinstance(value, bytes) else str(value)
