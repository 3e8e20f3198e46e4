# SPDX-License-Identifier: Apache-2.0
"""Operations that only move data become copies, each of a part into a part.

* A concatenation is one copy for each input into its place, a split one from each place.
* A pad is one copy for the input and one for each margin, from constants.
* A part that only one step reads is not copied: that step reads it where it is.
* What only becomes a part of another map is written there, but by transposes, and in batches by all
  steps that are not element-wise: their results are copied.

Source: [VELA] regor 5.2.0, found by comparing with its compiled operations.
"""

from __future__ import annotations

import math
from dataclasses import replace

from npusim.cost.lowering.convolutions import pad_margins
from npusim.cost.lowering.graph import Graph, Link, Shape, Step, Value, same, whole
from npusim.cost.program import UNITS
from npusim.network import Op
from npusim.tensor import DTYPES

_READ_WHOLE = ("TILE", "resize", "RESIZE_BILINEAR", "RESIZE_NEAREST_NEIGHBOR")
"""Kinds that read whole maps only."""


def around(shape: Shape, axis: int) -> Shape:
    """Three axes: all before one, that axis, and all behind it."""
    return math.prod(shape[:axis]), math.prod(shape[axis : axis + 1]), math.prod(shape[axis + 1 :])


def constant_input(op: Op, position: int) -> list[int]:
    """Numbers of a constant input."""
    tensor = op.inputs[position]
    assert tensor is not None
    assert tensor.data is not None
    return [int(value) for value in tensor.data.ravel()]


def _replaced(shape: Shape, axis: int, length: int) -> Shape:
    return (*shape[:axis], length, *shape[axis + 1 :])


def _zeros(shape: Shape) -> Shape:
    return (0,) * len(shape)


def lower_slice(graph: Graph, step: Step) -> None:
    """Make SLICE a copy of a part."""
    assert step.op is not None
    begin = tuple(constant_input(step.op, 1))
    sizes = constant_input(step.op, 2)
    part = tuple(
        length - start if size == -1 else size
        for length, start, size in zip(step.ifm.shape, begin, sizes, strict=True)
    )
    step.kind = "copy"
    step.inputs[0] = step.ifm.at(begin, part)


def lower_strided_slice(graph: Graph, step: Step) -> None:
    """Make STRIDED_SLICE a copy of a part."""
    op, shape = step.op, step.ifm.shape
    assert op is not None
    begins, ends, steps = (constant_input(op, position) for position in (1, 2, 3))
    masks = {
        name: int(op.attributes.get(f"{name}_mask", 0))  # type: ignore[arg-type]
        for name in ("begin", "end", "ellipsis", "shrink_axis")
    }
    offset, part, stride = list(_zeros(shape)), list(shape), [1] * len(shape)
    n_specs = min(len(begins), len(ends), len(steps))
    axis = 0
    for spec in range(n_specs):
        is_open = {name: mask >> spec & 1 for name, mask in masks.items()}
        if is_open["ellipsis"]:
            axis = len(shape) - (n_specs - spec - 1)
            continue
        shrinks, length = is_open["shrink_axis"], shape[axis]
        if not is_open["begin"] or shrinks:
            begin = begins[spec] + length if begins[spec] < 0 else begins[spec]
            offset[axis] = min(max(begin, 0), length - 1)
            part[axis] = 1 if shrinks else length - offset[axis]
        if not is_open["end"] and not shrinks:
            end = ends[spec] + length if ends[spec] < 0 else ends[spec]
            part[axis] = min(max(end, 1), length) - offset[axis]
        stride[axis] = steps[spec]
        axis += 1
    step.kind = "copy"
    link = step.ifm.at(tuple(offset), tuple(part))
    link.stride = tuple(stride)
    step.inputs[0] = link
    taken = tuple(-(-size // jump) for size, jump in zip(part, stride, strict=True))
    step.outputs[0] = step.ofm.seen(taken)


def lower_split(graph: Graph, step: Step) -> None:
    """Make SPLIT, SPLIT_V and UNPACK one copy for each output."""
    op = step.op
    assert op is not None
    axis = _axis(op)
    rank = len(step.ifm.shape)
    axis = axis + rank if axis < 0 else axis
    step.remove()
    start = 0
    for number, output in enumerate(step.outputs):
        length = 1 if op.kind == "UNPACK" else output.shape[axis]
        part = _replaced(step.ifm.shape, axis, length)
        offset = _replaced(_zeros(part), axis, start)
        source = step.ifm.at(offset, part)
        graph.add("copy", [source], output.seen(part), step, suffix=f"part {number}")
        start += length


def _axis(op: Op) -> int:
    if op.kind == "SPLIT":
        return constant_input(op, 0)[0]
    if op.kind == "SPLIT_V":
        return constant_input(op, 2)[0]
    axis = op.attributes.get("axis", 0)
    assert isinstance(axis, int)
    return axis


def lower_pack(graph: Graph, step: Step) -> None:
    """Make PACK a concatenation of inputs with one more axis."""
    assert step.op is not None
    axis = _axis(step.op)
    rank = len(step.ofm.shape)
    axis = axis + rank if axis < 0 else axis
    step.kind, step.axis = "CONCATENATION", axis
    step.attributes["packed"] = True
    step.inputs = [link.seen((*link.shape[:axis], 1, *link.shape[axis:])) for link in step.inputs]


def lower_concatenation(graph: Graph, step: Step) -> None:
    """Make a concatenation one copy for each input."""
    op = step.op
    assert op is not None
    axis = _axis(op) if op.kind == "CONCATENATION" else step.axis
    axis = axis + len(step.ofm.shape) if axis < 0 else axis
    step.remove()
    start = 0
    for number, link in enumerate(step.inputs):
        offset = _replaced(_zeros(step.ofm.shape), axis, start)
        target = step.ofm.at(offset, link.shape)
        graph.add("copy", [link], target, step, suffix=f"part {number}")
        start += link.shape[axis]


def lower_pad(graph: Graph, step: Step) -> None:
    """Make PAD and PADV2 copies of constants to the margins and one of the ifm."""
    margins = pad_margins(step)
    shape, ofm = step.ofm.shape, step.ofm
    step.remove()
    longest = max(
        math.prod(shape) // shape[axis] * max(sides) for axis, sides in enumerate(margins)
    )
    n_bytes = -(-longest * DTYPES[ofm.value.dtype].bits // 32) * 4
    zero = ofm.quantization and tuple(ofm.quantization.zero_points.tolist())
    fill = step.op.inputs[2] if step.op is not None and len(step.op.inputs) > 2 else zero
    margin = Value(
        f"margins of {ofm.value.name}",
        *((longest,), ofm.value.dtype),
        n_constant_bytes=n_bytes,
        content=("margins", ofm.value.dtype, n_bytes, fill),
    )
    flat = len(shape) > 4 or (len(shape) == 4 and step.ifm.shape[0] > 1)
    for axis, (before, after) in enumerate(margins):
        seen = around(shape, axis) if flat else shape
        along = 1 if flat else axis
        for length, start in ((before, 0), (after, seen[along] - after)):
            if length:
                part = _replaced(seen, along, length)
                offset = _replaced(_zeros(seen), along, start)
                target = ofm.seen(seen).at(offset, part)
                graph.add("copy", [Link(margin, part)], target, step, suffix="margin")
    target = ofm.at(tuple(before for before, _ in margins), step.ifm.shape)
    graph.add("copy", [step.ifm], target, step)


def lower_mirror_pad(graph: Graph, step: Step) -> None:
    """Make MIRROR_PAD a copy of the ifm and copies of its rows and columns turned round."""
    assert step.op is not None
    (top, bottom), (left, right) = pad_margins(step)[-3:-1]
    shift = 1 if step.op.attributes.get("mode") == "REFLECT" else 0
    ifm, ofm = step.ifm, step.ofm
    ifm_shape, shape = ifm.shape, ofm.shape
    height, width = len(shape) - 3, len(shape) - 2
    step.remove()

    def place(row: int, column: int) -> Shape:
        return _replaced(_replaced(_zeros(shape), height, row), width, column)

    graph.add("copy", [ifm], ofm.at(place(top, left), ifm_shape), step)
    rows = ((top, shift, 0), (bottom, ifm_shape[height] - bottom - shift, shape[height] - bottom))
    for length, start, target in rows:
        if length:
            part = _replaced(ifm_shape, height, length)
            source, written = ifm.at(place(start, 0), part), ofm.at(place(target, left), part)
            graph.add("copy", [source], written, step, reverse="height", suffix="rows")
    columns = (
        (left, left + shift, 0),
        (right, ifm_shape[width] + left - right - shift, shape[width] - right),
    )
    for length, start, target in columns:
        if length:
            part = _replaced(shape, width, length)
            source, written = ofm.at(place(0, start), part), ofm.at(place(0, target), part)
            graph.add("copy", [source], written, step, reverse="width", suffix="columns")


def lower_tile(graph: Graph, step: Step) -> None:
    """Make TILE copies side by side, axis by axis."""
    assert step.op is not None
    counts = constant_input(step.op, 1)
    axes = [axis for axis, count in enumerate(counts) if count > 1]
    step.remove()
    link = step.ifm
    for position, axis in enumerate(axes):
        shape = _replaced(link.shape, axis, step.ofm.shape[axis])
        last = position == len(axes) - 1
        ofm = step.ofm if last else whole(step.ofm.value.like(f"_tiled{axis}", shape))
        for number in range(counts[axis]):
            offset = _replaced(_zeros(shape), axis, number * link.shape[axis])
            target = ofm.at(offset, link.shape)
            graph.add("copy", [link], target, step, suffix=f"axis {axis}, tile {number}")
        link = ofm
    if not axes:
        graph.add("copy", [link], step.ofm, step)


def read_parts_in_place(graph: Graph) -> None:
    """Let steps that alone read a copy of a part read the part itself."""
    for step in graph.from_outputs():
        if step.kind == "copy" and step.ifm.offset is not None and not step.reverse:
            _read_in_place(step)


def _read_in_place(copy: Step) -> None:
    value = copy.ofm.value
    if value.is_variable or copy.ofm.part is not None or copy.ifm.value.dtype != value.dtype:
        return
    if not same(copy.ofm.shape, value.shape or ()):
        return
    for reader in list(value.readers):
        if reader.kind == "cpu":  # like the compiler, no later reader either
            break
        if reader.kind not in _READ_WHOLE and _keeps_axes(reader):
            _reread_in_place(copy, reader)
    if not value.readers and not value.is_output:
        copy.remove()


def _reread_in_place(copy: Step, reader: Step) -> None:
    for index, link in enumerate(reader.inputs[:2]):
        reads_all = link.part is None and same(link.shape, copy.ofm.shape)
        if link.value is copy.ofm.value and reads_all:
            moved = replace(copy.ifm, quantization=link.quantization)
            reader.read_instead(index, moved)


def _keeps_axes(step: Step) -> bool:
    return step.kind != "transpose" or step.permutation == tuple(range(len(step.permutation)))


def write_parts_in_place(graph: Graph) -> None:
    """Let steps whose result is only copied write it where the copy would."""
    for step in graph.from_outputs():
        if step.kind == "copy" and step.ifm.taken == step.ifm.shape and not step.reverse:
            _write_in_place(step)


def _write_in_place(copy: Step) -> None:
    value = copy.ifm.value
    if len(value.readers) != 1 or len(value.writers) != 1 or value.is_output or value.is_input:
        return
    writer = value.writers[0]
    if writer.kind in ("cpu", "copy", "transpose", "TRANSPOSE") or writer.ofm.part is not None:
        return
    if value.is_variable or value.dtype != copy.ofm.value.dtype:
        return
    if math.prod(writer.ofm.shape[:-3]) > 1 and UNITS.get(writer.kind) != "elementwise":
        return
    if copy.ofm.part is None or copy.ofm.part == copy.ofm.shape:
        return
    shape = writer.ofm.shape
    if writer.kind == "shift_right":  # the last step of a softmax, which has four axes always
        shape = shape[1:]
    if copy.ifm.quantization != copy.ofm.quantization or shape != copy.ifm.shape:
        return
    copy.remove()
    moved = copy.ofm
    writer.write_instead(
        0, Link(moved.value, moved.shape, writer.ofm.quantization, moved.offset, moved.part)
    )
