# SPDX-License-Identifier: Apache-2.0
"""Reductions and products of two feature maps.

* MEAN becomes depthwise convolutions by ones, of at most 64 rows and 4096 elements, and a product.
* REDUCE_MAX is a pool for each axis, REDUCE_MIN the same between two changes of sign.
* SUM adds up channels, after a transpose if other elements are to be added.
* ARG_MAX puts the number of the channel into the low bits, and takes them out after a pool.
* BATCH_MATMUL reads its second operand with height and width exchanged.

Source: [VELA] regor 5.2.0, found by comparing with its compiled operations.
"""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Final

from npusim.cost.lowering import weights
from npusim.cost.lowering.convolutions import join_pad
from npusim.cost.lowering.copies import around, constant_input
from npusim.cost.lowering.elementwise import WORD_TABLE, codes, scalar
from npusim.cost.lowering.graph import Graph, Link, Shape, Step, Value, Window, whole
from npusim.cost.placement import reduced_axes

_KERNEL_ROWS_MAX: Final = 64
_KERNEL_ELEMENTS_MAX: Final = 4096
_EXCHANGED: Final = (0, 1, 3, 2)


def lower_mean(graph: Graph, step: Step) -> None:
    """Make MEAN depthwise convolutions, sums of these and a product."""
    op = step.op
    assert op is not None
    axes = {axis + 4 - len(step.ifm.shape) for axis in reduced_axes(op)}
    shape = (1,) * (4 - len(step.ifm.shape)) + step.ifm.shape
    reduced = [axis in axes for axis in range(4)]
    ofm_shape: Shape = tuple(
        1 if is_reduced else length for is_reduced, length in zip(reduced, shape, strict=True)
    )
    if reduced[3] and shape[3] > 1:  # depth becomes width, in front of it whichever axis is left
        dropped = 2 if shape[2] == 1 else 1
        reduced = [*(r for axis, r in enumerate(reduced) if axis != dropped), False]
        shape, ofm_shape = (
            (*(length for axis, length in enumerate(of) if axis != dropped), 1)
            for of in (shape, ofm_shape)
        )
    batch, height, width, depth = shape
    flat = height > _KERNEL_ROWS_MAX and height * width <= _KERNEL_ELEMENTS_MAX
    if flat and reduced[1] and reduced[2]:
        height, width = 1, height * width
    kernel_height = height if reduced[1] else 1
    kernel_width = width if reduced[2] else 1
    rows = min(_KERNEL_ELEMENTS_MAX // kernel_width, kernel_height, _KERNEL_ROWS_MAX)
    step.remove()
    total: Link | None = None
    for start in range(0, kernel_height, rows):
        n_rows = min(rows, kernel_height - start)
        read = (batch, n_rows if reduced[1] else height, width, depth)
        ofm = Link(Value(f"{step.ofm.value.name}_{start}", ofm_shape, "int32"), ofm_shape)
        source = step.ifm.seen((batch, height, width, depth)).at((0, start, 0, 0), read)
        part = graph.add("depthwise", [source], ofm, step, suffix=f"from row {start}")
        part.window = Window((n_rows, kernel_width))
        part.weights = weights.ones(op, f"{n_rows}", part.window.kernel, depth)
        part.has_scales = True
        if source.taken == step.ifm.shape:
            join_pad(part)
        if total is not None:
            added = Link(ofm.value.like("_sum"), ofm_shape)
            graph.add("add", [total, ofm], added, step)
            ofm = added
        total = ofm
    assert total is not None
    target = step.ofm.seen(ofm_shape)
    n_elements = kernel_height * kernel_width
    multiplier = scalar("multiplier", "int32", depends_on=(n_elements, *codes(step)))
    graph.add("mul", [total, multiplier], target, step, suffix="scale")


def _axes(step: Step) -> list[int]:
    assert step.op is not None
    rank = len(step.ifm.shape)
    return [axis % rank for axis in constant_input(step.op, 1)]


def lower_reduce_max(graph: Graph, step: Step) -> None:
    """Make REDUCE_MAX and REDUCE_MIN one pool for each axis."""
    minimum = step.kind == "REDUCE_MIN"
    link, axes = step.ifm, _axes(step)
    step.remove()
    for position, axis in enumerate(axes):
        shape = (*link.shape[:axis], 1, *link.shape[axis + 1 :])
        last = position == len(axes) - 1
        name = step.ifm.value.name
        ofm = step.ofm if last else whole(Value(f"{name}_{axis}", shape, _dtype(step)))
        if minimum:
            link = _inverted(graph, step, link)
        pooled = whole(Value(f"{name}_{axis}_max", ofm.shape, _dtype(step))) if minimum else ofm
        from_end = axis - len(shape)
        graph.add("reduce_max", [link], pooled, step, axis=from_end, suffix=f"axis {axis}")
        if minimum:
            _inverted(graph, step, pooled, ofm)
        link = ofm


def _dtype(step: Step) -> str:
    return step.ifm.value.dtype


def _inverted(graph: Graph, step: Step, link: Link, ofm: Link | None = None) -> Link:
    """All ones less a value."""
    ofm = whole(link.value.like("_inverted", link.shape) if ofm is None else ofm.value)
    graph.add("sub", [scalar("ones", _dtype(step)), whole(link.value)], ofm, step, suffix="sign")
    return ofm


def lower_sum(graph: Graph, step: Step) -> None:
    """Make SUM a sum of channels."""
    shape, axis = step.ifm.shape, _axes(step)[0]
    points = step.ifm.quantization
    step.kind = "reduce_sum"
    step.axis = axis
    if axis != len(shape) - 1:
        seen = around(shape, axis)
        turned = whole(step.ifm.value.like("_transposed", (seen[0], seen[2], seen[1])))
        source = step.ifm.seen(seen)
        graph.add("transpose", [source], turned, step, permutation=(0, 2, 1))
        step.read_instead(0, Link(turned.value, turned.shape, points))
        step.write_instead(0, step.ofm.seen((*turned.shape[:2], 1)))
        step.axis = 2
    if points is not None and points.zero_points[0] != 0:
        _sum_by_weights(step)
    elif len(step.ifm.shape) > 3:
        seen = (math.prod(step.ifm.shape[:-2]), *step.ifm.shape[-2:])
        step.read_instead(0, step.ifm.seen(seen))
        step.write_instead(0, step.ofm.seen((*seen[:2], 1)))


def _sum_by_weights(step: Step) -> None:
    """Make a sum of codes with a zero point a convolution by ones."""
    assert step.op is not None
    shape = (1,) * (3 - len(step.ifm.shape)) + step.ifm.shape
    seen = (1, math.prod(shape[:-2]), *shape[-2:])
    step.kind = "conv"
    step.has_scales = True
    step.weights = weights.sum_of_channels(step.op, seen[3], step.ifm_bits)
    step.read_instead(0, step.ifm.seen(seen))
    step.write_instead(0, step.ofm.seen((*seen[:3], 1)))


def lower_arg_max(graph: Graph, step: Step) -> None:
    """Make ARG_MAX a depthwise convolution, a pool, a table and one or two sums that widen."""
    op = step.op
    assert op is not None
    shape = (1,) * (3 - len(step.ifm.shape)) + step.ifm.shape
    height, width, depth = shape[-3:]
    step.remove()
    name = step.ofm.value.name

    def made(part: str, part_shape: Shape) -> Link:
        return whole(Value(f"{name}_{part}", part_shape, "int16"))

    marked = made("marked", (height, width, depth))
    first = graph.add("depthwise", [step.ifm.seen(shape)], marked, step, suffix="marks")
    first.weights = weights.ones(op, "", (1, 1), depth, 128)
    first.has_scales = True
    largest = made("largest", (height, width, 1))
    rows = height * width
    source, target = marked.seen((1, rows, depth, 1)), largest.seen((1, rows, 1, 1))
    pool = graph.add("max_pool", [source], target, step, suffix="largest")
    pool.window = Window((1, depth))
    number = made("number", (height, width, 1))
    table = graph.add("activation", [largest], number, step, suffix="number")
    table.table_bytes, table.attributes["table_content"] = WORD_TABLE, ("number", depth)
    ofm_shape = (*step.ifm.shape[:-1], 1)
    ofm_shape = (1,) * (3 - len(ofm_shape)) + ofm_shape
    ofm = step.ofm.seen(ofm_shape)
    if ofm.value.dtype != "int64":
        graph.add("add", [number, scalar("zero", "int16")], ofm, step, suffix="widening")
        return
    words = whole(Value(f"{name}_32bit", ofm_shape, "int32"))
    graph.add("add", [number, scalar("zero", "int16")], words, step, suffix="widening")
    pairs = (*ofm_shape[:-1], 2)  # of half words, which the compiler widens in turn
    ofm.value.dtype = "int32"  # and has room for no more
    halves = replace(words, shape=pairs, bits=16)
    operands = [halves, scalar("zero", "int16")]
    graph.add("add", operands, ofm.seen(pairs), step, suffix="64 bits")


def turn_operands(graph: Graph, step: Step) -> None:
    """Give BATCH_MATMUL operands that it reads as they are."""
    op = step.op
    assert op is not None
    for index, name in enumerate(("adj_x", "adj_y")):
        if op.attributes.get(name):
            link = step.inputs[index]
            step.read_instead(index, _exchanged(graph, step, link.seen(_three_axes(link.shape))))


def lower_matmul(graph: Graph, step: Step) -> None:
    """Make BATCH_MATMUL products of two feature maps."""
    right = step.inputs[1].seen(_three_axes(step.inputs[1].shape))
    _product(graph, step, step.ifm, _exchanged(graph, step, right, always=True))


def lower_dynamic_product(graph: Graph, step: Step) -> None:
    """Make FULLY_CONNECTED with weights that are computed a product of two feature maps."""
    weights_shape = step.inputs[1].shape
    right = step.inputs[1].seen((1, 1, weights_shape[0], weights_shape[-1]))
    _product(graph, step, step.ifm, right)


def _product(graph: Graph, step: Step, left: Link, right: Link) -> None:
    step.remove()
    left, right, ofm = (link.seen(_three_axes(link.shape)) for link in (left, right, step.ofm))
    scratch = (*left.shape[:3], left.shape[3] + 1)
    graph.add("matmul", [left, right], ofm, step, scratch=scratch)


def _three_axes(shape: Shape) -> Shape:
    """All axes before the last two as one."""
    shape = (1,) * (3 - len(shape)) + shape
    return (1, math.prod(shape[:-2]), *shape[-2:])


def _exchanged(graph: Graph, step: Step, link: Link, *, always: bool = False) -> Link:
    """A link's value with its last axes exchanged."""
    shape = tuple(link.shape[axis] for axis in _EXCHANGED)
    turned = whole(link.value.like("_transposed", shape))
    turned.quantization = link.quantization
    kind = "transpose" if always or min(shape[-2:]) > 1 else "RESHAPE"
    graph.add(kind, [link], turned, step, permutation=_EXCHANGED, suffix="exchange")
    return turned
