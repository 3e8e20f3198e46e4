# SPDX-License-Identifier: Apache-2.0
"""SOFTMAX: the largest element of a row, a table of exponentials, and a reciprocal in steps.

With 8 bits the reciprocal takes three Newton-Raphson iterations in 32 bits, with 16 bits a second
table. Constants are operands like feature maps.

Source: [VELA] regor 5.2.0, found by comparing with its compiled operations.
"""

from __future__ import annotations

import math
from collections.abc import Hashable
from typing import Final

from npusim.cost.lowering.elementwise import WORD_TABLE, constant, scalar
from npusim.cost.lowering.graph import Graph, Link, Shape, Step, Value, Window, whole

_WIDE_TABLE: Final = 1024
_N_ITERATIONS: Final = 3


class _Sequence:
    """Adds steps of one softmax, each named after its position."""

    def __init__(self, graph: Graph, step: Step):
        self.graph = graph
        self.step = step
        self.n_steps = 0

    def add(self, kind: str, *inputs: Link, dtype: str = "int32", shape: Shape = ()) -> Link:
        """A step whose ofm is as large as its largest operand."""
        shape = shape or max((link.shape for link in inputs), key=_size)
        ofm = whole(Value(f"{self.step.ofm.value.name}_{self.n_steps}", shape, dtype))
        self.end(kind, *inputs, ofm=ofm)
        return ofm

    def table(self, link: Link, dtype: str, n_bytes: int, content: Hashable) -> Link:
        """A look-up table of a dtype; tables of equal content are in flash once."""
        ofm = self.add("activation", link, dtype=dtype)
        writer = ofm.value.writers[0]
        writer.table_bytes = n_bytes
        writer.attributes["table_content"] = ("softmax", content)
        return ofm

    def end(self, kind: str, *inputs: Link, ofm: Link) -> None:
        """A step with a given ofm."""
        suffix, scaled = f"step {self.n_steps}", kind == "reduce_sum"
        self.graph.add(kind, inputs, ofm, self.step, suffix=suffix, scaled=scaled)
        self.n_steps += 1


def _size(shape: Shape) -> int:
    size = 1
    for length in shape:
        size *= length
    return size


def _number(name: str) -> Link:
    return scalar(name, "int32")


def _decay(step: Step) -> float:
    """By what the exponent falls from one code to the next."""
    beta = 1.0 if step.op is None else step.op.attributes.get("beta", 1.0)
    scale = 1.0 if step.ifm.quantization is None else step.ifm.quantization.scales[0]
    return float(scale) * float(beta)  # type: ignore[arg-type]


def _mantissa(step: Step) -> float:
    """The same without its power of two, which is a shift."""
    return math.frexp(_decay(step))[0]


def lower_softmax(graph: Graph, step: Step) -> None:
    """Make SOFTMAX the steps above."""
    step.remove()
    shape = (1,) * (4 - len(step.ifm.shape)) + step.ifm.shape
    if len(shape) == 4 and shape[0] > 1:
        shape = (1, shape[0] * shape[1], *shape[2:])
    ifm, ofm = step.ifm.seen(shape), step.ofm.seen(shape)
    sequence = _Sequence(graph, step)
    _, height, width, depth = shape
    row_shape, rows = (1, height, width, 1), height * width
    largest = whole(ifm.value.like("_largest", row_shape))
    pool = graph.add(
        "max_pool", [ifm.seen((1, rows, depth, 1))], largest.seen((1, rows, 1, 1)), step
    )
    pool.suffix = "largest"
    pool.window = Window((1, depth))
    lower = _lower_words if step.ifm_bits == 16 else _lower_bytes
    exponential, factor, shift = lower(sequence, ifm, largest)
    scaled = sequence.add("mul", exponential, factor)
    repeated = sequence.add("add", constant("zeros", shape, "int32"), scaled)
    sequence.end("shift_right", repeated, shift, ofm=ofm)


def _lower_bytes(sequence: _Sequence, ifm: Link, largest: Link) -> tuple[Link, Link, Link]:
    add = sequence.add
    difference = add("sub", ifm, largest, dtype="int8")
    exponential = sequence.table(difference, "int32", _WIDE_TABLE, _decay(sequence.step))
    small = add("shift_right", exponential, _number("12"))
    total = add("reduce_sum", small, shape=(*ifm.shape[:3], 1))
    headroom = add("clz", total)
    shift = add("sub", _number("offset"), headroom)
    left = add("sub", headroom, _number("1"))
    half = add("shift_left", total, left)
    guess = add("add", add("mul", half, _number("-32/17")), _number("48/17"))
    for _ in range(_N_ITERATIONS):
        rest = add("sub", _number("1.0"), add("mul", guess, half))
        step = add("mul", add("mul", guess, rest), _number("4"))
        guess = add("add", guess, step)
    return exponential, guess, shift


def _lower_words(sequence: _Sequence, ifm: Link, largest: Link) -> tuple[Link, Link, Link]:
    add = sequence.add
    difference = add("sub", ifm, largest)
    scale = scalar("scale", "int32", depends_on=(_mantissa(sequence.step),))
    scaled = add("mul", difference, scale)
    index = add("add", scaled, _number("32767"), dtype="int16")
    exponential = sequence.table(index, "int16", WORD_TABLE, "exponential")
    total = add("reduce_sum", exponential, shape=(*ifm.shape[:3], 1))
    headroom = add("clz", total)
    shift = add("sub", _number("31"), headroom)
    one = add("shift_left", _number("1"), shift)
    rest = add("shift_left", add("sub", total, one), headroom)
    narrow = add("shift_right", rest, _number("15"))
    argument = add("sub", narrow, _number("32768"), dtype="int16")
    reciprocal = sequence.table(argument, "int16", WORD_TABLE, "reciprocal")
    return exponential, reciprocal, shift
