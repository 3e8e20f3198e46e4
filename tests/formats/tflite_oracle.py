# SPDX-License-Identifier: Apache-2.0
"""Independent readings of .tflite files: the schema classes and interpreter of ai-edge-litert."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

import numpy as np
import pytest

from npusim.formats import tflite_schema
from npusim.network import Network, Op
from npusim.tensor import Tensor

RESOLVERS = ("BUILTIN_REF", "BUILTIN_WITHOUT_DEFAULT_DELEGATES")

ATTRIBUTES = {
    "dilation_d": "dilationDFactor",
    "dilation_h": "dilationHFactor",
    "dilation_w": "dilationWFactor",
    "filter_h": "filterHeight",
    "filter_w": "filterWidth",
    "fused_activation": "fusedActivationFunction",
}
"""Attributes that the schema calls otherwise than in camel case of our name."""

ENUMS = {
    "activation": "ActivationFunctionType",
    "combiner": "CombinerType",
    "dtype": "TensorType",
    "lsh_projection": "LSHProjectionType",
    "lstm_kernel": "LSTMKernelType",
    "mirror_pad": "MirrorPadMode",
    "padding": "Padding",
    "weights_format": "FullyConnectedOptionsWeightsFormat",
}


def require() -> None:
    """Skip the test if there is no independent reader."""
    pytest.importorskip("ai_edge_litert.schema_py_generated")


def schema() -> Any:
    """The classes generated from the schema."""
    from ai_edge_litert import schema_py_generated

    return schema_py_generated


def compare(network: Network, content: bytes) -> int:
    """Assert that every field of `network` is what the schema's classes read in `content`.

    Returns:
        The number of operations compared.
    """
    model = schema().ModelT.InitFromPackedBuf(content, 0)
    assert (model.description or b"").decode() == network.description
    assert len(model.subgraphs) == 1 + len(network.subgraphs)
    for (name, ours), entry in zip(network.metadata, model.metadata or [], strict=True):
        assert name == entry.name.decode()
        assert np.array_equal(np.frombuffer(ours, np.uint8), _data(model, entry.buffer))
    for number, graph in enumerate(model.subgraphs):
        _compare_graph(network.subgraph(number), graph, model, named=number > 0)
    return sum(len(graph.operators) for graph in model.subgraphs)


def _compare_graph(network: Network, graph: Any, model: Any, named: bool) -> None:
    if named:
        assert network.name == (graph.name or b"").decode()
    assert [t.index for t in network.inputs] == list(graph.inputs)
    assert [t.index for t in network.outputs] == list(graph.outputs)
    for ours, theirs in zip(network.tensors, graph.tensors, strict=True):
        _compare_tensor(ours, theirs, model)
    for op, operator in zip(network.ops, graph.operators, strict=True):
        _compare_op(op, operator, model.operatorCodes[operator.opcodeIndex])


def _data(model: Any, number: int) -> np.ndarray:
    data = model.buffers[number].data if number else None
    return np.zeros(0, np.uint8) if data is None else np.asarray(data, np.uint8)


def _compare_tensor(ours: Tensor, theirs: Any, model: Any) -> None:
    assert ours.name == (theirs.name or b"").decode()
    assert ours.shape == tuple([] if theirs.shape is None else theirs.shape)
    assert getattr(schema().TensorType, ours.dtype.upper()) == theirs.type
    assert ours.is_variable == theirs.isVariable
    signature = theirs.shapeSignature
    assert ours.shape_signature == (None if signature is None else tuple(signature))
    raw = _data(model, theirs.buffer)
    assert (ours.data is not None) == (raw.size > 0)
    if ours.data is not None and ours.dtype in ("int8", "uint8", "int16", "int32", "float32"):
        assert np.array_equal(ours.data.ravel().view(np.uint8), raw)
    quantization = theirs.quantization
    if quantization is None or quantization.scale is None:
        assert ours.quantization is None
        return
    assert ours.quantization is not None
    assert np.array_equal(ours.quantization.scales, quantization.scale)
    assert np.array_equal(ours.quantization.zero_points, quantization.zeroPoint)
    if len(ours.shape) != 1:
        assert ours.quantization.axis == quantization.quantizedDimension


def _indices(tensors: tuple[Tensor | None, ...]) -> list[int]:
    return [-1 if tensor is None else tensor.index for tensor in tensors]


def _compare_op(op: Op, operator: Any, code: Any) -> None:
    number = max(code.builtinCode, code.deprecatedBuiltinCode)
    if number == schema().BuiltinOperator.CUSTOM:
        assert op.custom_code == code.customCode.decode()
    else:
        assert getattr(schema().BuiltinOperator, op.kind) == number
    assert op.version == code.version
    assert _indices(op.inputs) == ([] if operator.inputs is None else list(operator.inputs))
    assert _indices(op.outputs) == ([] if operator.outputs is None else list(operator.outputs))
    intermediates = operator.intermediates
    assert _indices(op.intermediates) == ([] if intermediates is None else list(intermediates))
    custom = operator.customOptions
    assert op.custom_options == bytes([] if custom is None else list(custom))
    options = operator.builtinOptions
    if options is None:
        return
    fields = {field.name: field for field in tflite_schema.fields(op.kind) if field.name}
    names = {camel(name) for name in fields}
    assert names == {name for name in vars(options) if not name.startswith("_")}, op
    assert set(op.attributes) == set(fields)
    for name, field in fields.items():
        assert op.attributes[name] == value_of(getattr(options, camel(name)), field), (op, name)


def camel(name: str) -> str:
    """The generated classes' name for an attribute."""
    if name in ATTRIBUTES:
        return ATTRIBUTES[name]
    first, *others = name.split("_")
    return first + "".join(word.capitalize() for word in others)


def value_of(value: Any, field: tflite_schema.Field) -> Any:
    """A value of the generated classes as `Op.attributes` has it."""
    if field.type in ENUMS:
        names = {code: name for name, code in vars(getattr(schema(), ENUMS[field.type])).items()}
        return names[value].lower() if field.type == "dtype" else names[value]
    if field.type in ("ints", "floats", "bytes"):
        return () if value is None else tuple(value)
    if field.type == "string":
        return (value or b"").decode()
    return value


def interpreter(content: bytes, resolver: str) -> Any:
    """A LiteRT interpreter for a model, ready to run."""
    from ai_edge_litert.interpreter import Interpreter, OpResolverType

    made = Interpreter(
        model_content=content,
        experimental_op_resolver_type=getattr(OpResolverType, resolver),
    )
    made.allocate_tensors()
    return made


def run(
    interpreter: Any, seed: int, given: Mapping[int, np.ndarray] = MappingProxyType({})
) -> list[np.ndarray]:
    """The outputs for random inputs, or those `given` by the tensor's index."""
    rng = np.random.default_rng(seed)
    for details in interpreter.get_input_details():
        shape, dtype = details["shape"], np.dtype(details["dtype"])
        if details["index"] in given:
            value = given[details["index"]]
        elif dtype.kind == "f":
            value = rng.uniform(-1, 1, shape).astype(dtype)
        else:
            limits = np.iinfo(dtype)
            value = rng.integers(limits.min, limits.max, shape, dtype, endpoint=True)
        interpreter.set_tensor(details["index"], value)
    interpreter.invoke()
    return [interpreter.get_tensor(d["index"]) for d in interpreter.get_output_details()]
