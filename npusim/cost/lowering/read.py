# SPDX-License-Identifier: Apache-2.0
"""From a network to the graph that lowering starts with.

* A fused activation is a step of its own; later it may join the step before it again.
* What the NPU does not execute is a step of kind "cpu".
* What leads to no output is left out; what computes the shape of a reshape leads to one.
"""

from __future__ import annotations

from typing import Final

from npusim.cost.lowering.graph import Graph, Link, Shape, Step, Value, whole
from npusim.cost.placement import npu_obstacle, operands
from npusim.network import Network, Op
from npusim.tensor import Tensor

_FUSING_KINDS: Final = (
    *("CONV_2D", "DEPTHWISE_CONV_2D", "TRANSPOSE_CONV", "FULLY_CONNECTED"),
    *("MAX_POOL_2D", "AVERAGE_POOL_2D", "L2_POOL_2D", "CONCATENATION"),
    *("ADD", "SUB", "MUL", "DIV", "L2_NORMALIZATION", "SVDF"),
)


def read(network: Network) -> Graph:
    """The graph of a network's operations that lead to an output, none of them lowered yet."""
    values = {tensor.index: _value(tensor) for tensor in network.tensors}
    for tensor in network.inputs:
        values[tensor.index].is_input = True
    for tensor in network.outputs:
        values[tensor.index].is_output = True
    outputs = [values[tensor.index] for tensor in network.outputs]
    steps: list[Step] = []
    for op in network.ops:
        steps += _steps(op, values)
        if not op.outputs:
            ending = Value(f"end of {op.name}", None, "int8")
            steps[-1].write(Link(ending, ()))
            outputs.append(ending)
    has_variables = any(value.is_variable for value in values.values())
    graph = Graph(network.name, outputs, has_variables)
    needed = {id(step) for step in graph.execution_order()}
    for step in steps:
        if id(step) not in needed:
            step.remove()
    return graph


def _value(tensor: Tensor) -> Value:
    shape: Shape | None = tensor.shape
    signature = tensor.shape_signature
    if signature and -1 not in signature:
        shape = signature
    constant_bytes = None if tensor.data is None else tensor.n_bytes
    if not shape:
        shape = None if tensor.data is None else (1,)
    value = Value(
        tensor.name,
        shape,
        tensor.dtype,
        tensor.quantization,
        n_constant_bytes=constant_bytes,
        content=tensor,
    )
    value.is_variable = tensor.is_variable
    return value


def _steps(op: Op, values: dict[int, Value]) -> list[Step]:
    obstacle = npu_obstacle(op)
    if obstacle is not None:
        return [_cpu_step(op, values, obstacle)]
    activation = str(op.attributes.get("fused_activation", "NONE"))
    if activation == "NONE" or op.kind not in _FUSING_KINDS:
        return [_npu_step(op, values, [values[tensor.index] for tensor in op.outputs])]
    ofm = values[op.outputs[0].index]
    between = ofm.like("")
    following = Step(activation, op)
    following.read(whole(between))
    following.write(whole(ofm))
    return [_npu_step(op, values, [between]), following]


def _npu_step(op: Op, values: dict[int, Value], outputs: list[Value]) -> Step:
    step = Step(op.kind, op)
    tensors = list(operands(op))
    if op.kind == "PRELU" or (op.weights is not None and op.weights.data is None):
        tensors.append(op.inputs[1])
    if op.kind == "UNIDIRECTIONAL_SEQUENCE_LSTM":
        tensors += [op.input("state"), op.input("cell_state")]
    if op.kind == "RESHAPE":
        tensors += [shape for shape in op.inputs[1:] if shape is not None and shape.data is None]
    for tensor in tensors:
        if tensor is not None:
            step.read(whole(values[tensor.index]))
    for value in outputs:
        step.write(whole(value))
    return step


def _cpu_step(op: Op, values: dict[int, Value], obstacle: str) -> Step:
    step = Step("cpu", op, obstacle=obstacle)
    for tensor in op.inputs:
        if tensor is not None:
            step.read(whole(values[tensor.index]))
    for tensor in op.outputs:
        step.write(whole(values[tensor.index]))
    return step
