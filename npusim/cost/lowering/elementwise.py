# SPDX-License-Identifier: Apache-2.0
"""Element-wise operations and activations.

* Relu-like activations clamp, others look up a table: of 256 bytes for 8 bits, of 2 KiB for 16
  bits, where the logistic function and tanh are built in.
* LEAKY_RELU and PRELU of 16 bits, and PRELU with several slopes, become products and a maximum,
  or where a slope is above 1 a minimum, a product, a clamp and a sum.
* SQUARED_DIFFERENCE is computed in 32 bits.
* Where both operands are repeated the first is added to zeros to have the ofm's shape.

Source: [VELA] regor 5.2.0, found by comparing with its compiled operations.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable, Mapping
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from npusim.cost.lowering.graph import Graph, Link, Shape, Step, Value, whole
from npusim.tensor import DTYPES, Quantization, Tensor

KINDS: Final[Mapping[str, str]] = {
    "ADD": "add",
    "SUB": "sub",
    "MUL": "mul",
    "MINIMUM": "minimum",
    "MAXIMUM": "maximum",
    "ABS": "abs",
    "QUANTIZE": "quantize",
}
CLAMPS: Final = ("RELU", "RELU6", "RELU_0_TO_1", "RELU_N1_TO_1")
TABLES: Final = ("LOGISTIC", "TANH", "HARD_SWISH", "ELU", "GELU", "EXP", "LOG", "RSQRT")
_FUNCTIONS: Final[Mapping[str, Callable[[Any], Any]]] = {
    "LOGISTIC": lambda x: 0.5 + 0.5 * np.tanh(x / 2),
    "TANH": np.tanh,
}
_BUILT_IN: Final = tuple(_FUNCTIONS)
BYTE_TABLE: Final = 256
WORD_TABLE: Final = 2048


def lower_elementwise(graph: Graph, step: Step) -> None:
    """Make an operation the element-wise one of the hardware that has its name."""
    step.kind = KINDS[step.kind]


def lower_clamp(graph: Graph, step: Step) -> None:
    """Make a relu-like operation an activation."""
    step.kind = "activation"
    step.attributes["clamps"] = True


def lower_table(graph: Graph, step: Step, *parameters: float) -> None:
    """Make a function of one element, with parameters that its operation lacks, a table, or the
    built-in function."""
    built_in = step.kind in _BUILT_IN and step.ifm.value.dtype == "int16"
    step.table_bytes = 0 if built_in else table_bytes(step)
    step.attributes["table_content"] = (*_table_content(step), *parameters)
    step.kind = "activation"
    if not built_in:  # a table does all scaling itself
        step.outputs[0] = Link(step.ofm.value, step.ofm.shape, step.ifm.quantization)


def _table_content(step: Step) -> tuple[Hashable, ...]:
    """The table itself if it is short and simple, else what it is made from."""
    ifm, ofm = step.ifm.quantization, step.ofm.quantization
    if step.kind not in _FUNCTIONS or step.ifm_bits != 8 or ifm is None or ofm is None:
        options = () if step.op is None else tuple(sorted(step.op.attributes.items()))
        return step.kind, options, codes(step)
    low, high = (0, 255) if step.ifm.value.dtype == "uint8" else (-128, 127)
    is_fused = step.op is not None and step.op.kind != step.kind  # the compiler leaves scales out
    scales = (1.0, 1.0) if is_fused else (float(ifm.scales[0]), float(ofm.scales[0]))
    real = scales[0] * (np.arange(low, high + 1) - ifm.zero_points[0])
    table = np.rint(_FUNCTIONS[step.kind](real) / scales[1]) + ofm.zero_points[0]
    return step.ofm.value.dtype, table.clip(low, high).astype(np.int16).tobytes()


def table_bytes(step: Step) -> int:
    """Bytes of a look-up table for the elements that a step reads."""
    return WORD_TABLE if step.ifm_bits == 16 else BYTE_TABLE


def lower_negation(graph: Graph, step: Step) -> None:
    """Make NEG a difference to zero."""
    step.kind = "sub"
    zero = scalar("zero", step.ifm.value.dtype)
    step.inputs.insert(0, zero)
    zero.value.readers.append(step)


def scalar(
    name: str,
    dtype: str,
    quantization: Quantization | None = None,
    *,
    depends_on: tuple[Hashable, ...] = (),
) -> Link:
    """A constant of one element, fixed by its name, its type and what it depends on."""
    n_bytes, content = DTYPES[dtype].bits // 8, (name, dtype, *depends_on)
    return whole(Value(name, (1,), dtype, quantization, n_constant_bytes=n_bytes, content=content))


def constant(name: str, shape: Shape, dtype: str) -> Link:
    """A constant of a shape, all of whose elements are the one that its name tells."""
    n_bytes = int(np.prod(shape)) * DTYPES[dtype].bits // 8
    content = (name, dtype, n_bytes)
    return whole(Value(name, shape, dtype, n_constant_bytes=n_bytes, content=content))


def codes(step: Step) -> tuple[Hashable, ...]:
    """What the quantization of a step's operands and ofm adds to the content of a constant."""
    return tuple(
        (link.value.dtype, q and (tuple(q.scales.tolist()), tuple(q.zero_points.tolist())))
        for link in (*step.inputs, *step.outputs)
        for q in [link.quantization]
    )


def lower_leaky_relu(graph: Graph, step: Step) -> None:
    """Make LEAKY_RELU a clamp, an absolute value, a table or products and a maximum."""
    assert step.op is not None
    alpha = step.op.attributes.get("alpha", 0.0)
    assert isinstance(alpha, (int, float))
    slope = float(np.float32(alpha))
    if not _is_small_leak(graph, step, slope):
        rescales = not _same_codes(step.ifm.quantization, step.ofm.quantization)
        if rescales or slope < 0:
            _leak(graph, step, slope, _slope(-1 if slope < 0 else 1), rescales=rescales)
        else:
            step.kind = "leaky_relu"


def _slope(code: int) -> Link:
    """A slope's code; one that is an attribute has 1 or -1, and its magnitude as the scale."""
    return scalar("one" if code == 1 else f"slope_{code}", "int16")


def _is_small_leak(graph: Graph, step: Step, slope: float) -> bool:
    """Whether a leak has been lowered to one step."""
    if slope == 0 or np.isinf(np.float32(1) / np.float32(slope)):
        lower_clamp(graph, step)
    elif slope == -1:
        step.kind = "abs"
    elif step.ifm_bits == 8:
        lower_table(graph, step, slope)
    else:
        return False
    return True


def _same_codes(first: Quantization | None, second: Quantization | None) -> bool:
    return (
        first is not None
        and second is not None
        and np.array_equal(first.scales, second.scales)
        and np.array_equal(first.zero_points, second.zero_points)
    )


def _leak(graph: Graph, step: Step, slope: float, alpha: Link, *, rescales: bool) -> None:
    """Products and a maximum, or for other slopes a minimum, a product, a clamp and a sum."""
    if not 0 <= slope <= 1:
        _two_sides(graph, step, alpha)
        return
    step.remove()
    ofm = step.ofm
    scaled = ofm.value.like("_alpha", ofm.shape)
    graph.add("mul", [step.ifm, alpha], Link(scaled, ofm.shape, ofm.quantization), step)
    identity = step.ifm
    if rescales:
        identity = _rescaled(graph, step)
    graph.add("maximum", [Link(scaled, ofm.shape, ofm.quantization), identity], ofm, step)


def _rescaled(graph: Graph, step: Step) -> Link:
    ofm = step.ofm
    value = ofm.value.like("_identity", ofm.shape)
    one = scalar("one", "int16" if step.ifm_bits == 16 else "int8")
    link = Link(value, ofm.shape, ofm.quantization)
    graph.add("mul", [step.ifm, one], link, step)
    return link


def _two_sides(graph: Graph, step: Step, alpha: Link) -> None:
    """The sum of what a clamp leaves of an ifm and of the rest times slopes."""
    step.remove()
    ifm, ofm = step.ifm, step.ofm
    negative = Link(ifm.value.like("_negative", ifm.shape), ifm.shape, ifm.quantization)
    graph.add("minimum", [ifm, scalar("zero", ifm.value.dtype)], negative, step)
    scaled = Link(ofm.value.like("_alpha", ofm.shape), ofm.shape, ofm.quantization)
    graph.add("mul", [negative, alpha], scaled, step)
    positive = Link(ofm.value.like("_positive", ofm.shape), ofm.shape, ofm.quantization)
    graph.add("activation", [ifm], positive, step, attributes={"clamps": True})
    operands = [positive, scaled] if step.kind == "LEAKY_RELU" else [scaled, positive]
    graph.add("add", operands, ofm, step)


def lower_prelu(graph: Graph, step: Step) -> None:
    """Make PRELU a LEAKY_RELU if all slopes are alike, else products and a maximum or a sum."""
    assert step.op is not None
    alpha = step.op.inputs[1]
    assert alpha is not None
    link = step.inputs[1]
    if alpha.data is None:
        _two_sides(graph, step, link)
        return
    slopes = slopes_of(alpha)
    if np.ptp(slopes) == 0:
        slope = float(slopes.min())
        step.inputs.pop()
        link.value.readers.remove(step)
        step.kind = "LEAKY_RELU"
        if not _is_small_leak(graph, step, slope):
            rescales = not _same_codes(step.ifm.quantization, step.ofm.quantization)
            _leak(graph, step, slope, _slope(int(alpha.data.flat[0])), rescales=rescales)
        return
    if slopes.max() > 1:
        _two_sides(graph, step, link)
        return
    rescales = step.ifm.quantization != step.ofm.quantization
    step.inputs.pop()
    _leak(graph, step, 0.5, link, rescales=rescales)


def slopes_of(alpha: Tensor) -> npt.NDArray[np.float32]:
    """The constant slopes of PRELU."""
    assert alpha.data is not None
    if alpha.quantization is None:
        return alpha.data.astype(np.float32)
    point, scale = alpha.quantization.zero_points[0], alpha.quantization.scales[0]
    slopes: npt.NDArray[np.float32] = (alpha.data.astype(np.int64) - point).astype(np.float32)
    return slopes * np.float32(scale)


def lower_squared_difference(graph: Graph, step: Step) -> None:
    """Make SQUARED_DIFFERENCE copies to 32 bits, products and a difference."""
    step.remove()
    sides: list[Link] = []
    scales = [_scale(link) for link in step.inputs]
    unit = 2 * max(scales)
    for number, (link, scale) in enumerate(zip(step.inputs, scales, strict=True)):
        wide = _wide(graph, step, link, f"_32bit{number}")
        scaled = whole(wide.value.like("_scaled"))
        graph.add("mul", [wide, _multiplier(scale / unit)], scaled, step)
        sides.append(scaled)
    shape = tuple(np.maximum(sides[0].shape, sides[1].shape).tolist())
    difference = whole(sides[0].value.like("_difference", shape))
    graph.add("sub", sides, difference, step)
    square = whole(difference.value.like("_square"))
    graph.add("mul", [difference, difference], square, step)
    graph.add("mul", [square, _multiplier(unit**2 / _scale(step.ofm))], step.ofm, step)


def _scale(link: Link) -> float:
    return 1.0 if link.quantization is None else float(link.quantization.scales[0])


def _multiplier(factor: float) -> Link:
    """A factor's 31 leading bits; which power of two it is is in the shift behind the product."""
    leading = round(math.frexp(factor)[0] * 2**31)
    return scalar("multiplier", "int32", depends_on=(leading,))


def _wide(graph: Graph, step: Step, link: Link, suffix: str) -> Link:
    """A copy of a value in 32 bits."""
    shape = (1,) * (4 - len(link.shape)) + link.shape
    wide = whole(link.value.like(suffix, shape, "int32"))
    graph.add("copy", [link], wide, step)
    return wide


def repeat_operand(graph: Graph, step: Step) -> None:
    """Give the first operand the ofm's shape if neither operand has it."""
    shape = step.ofm.taken
    ranks = [len(shape) - len(link.taken) for link in step.inputs]
    if any((1,) * n + link.taken == shape for n, link in zip(ranks, step.inputs, strict=True)):
        return
    first = step.ifm
    repeated = step.ofm.value.like("_repeated", shape, first.value.dtype)
    zeros = constant("zeros", shape, first.value.dtype)
    graph.add("add", [zeros, whole(first.value)], whole(repeated), step)
    step.read_instead(0, whole(repeated))
