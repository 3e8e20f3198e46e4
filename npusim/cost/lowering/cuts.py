# SPDX-License-Identifier: Apache-2.0
"""Cutting steps to what the hardware does in one operation.

* Of several maps in a batch each is computed by itself, and so is each 65536th row, column and
  channel of long axes.
* Element-wise steps see shallow maps in a deeper shape.
* Two axes of three are exchanged at a time, others by several transposes.
* Resizing is done by pools that read with doubled rows and columns.

Source: [VELA] regor 5.2.0, found by comparing with its compiled operations.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import replace
from typing import Final

from npusim.cost.lowering import weights
from npusim.cost.lowering.copies import around
from npusim.cost.lowering.graph import Graph, Link, Shape, Step, same, whole
from npusim.cost.lowering.resizes import cut_resize
from npusim.cost.lowering.transposes import cut_transpose
from npusim.cost.program import UNITS

AXIS_MAX: Final = 1 << 16
_POINTWISE: Final = ("activation", "quantize", "copy")
_SMALL: Final = 16
_SHALLOW: Final = 8
_DEEP: Final = 16


def cut(graph: Graph, step: Step) -> list[Step]:
    """The steps of the hardware that a step becomes, in order; all axes from 4 on."""
    if step.kind == "cpu":
        return [step]
    if _is_pointwise(step):
        _deepen(step)
        _fold_batch(step)
    for index, link in enumerate(step.inputs):
        step.inputs[index] = _padded(link)
    step.outputs[0] = _padded(step.ofm)
    if step.kind == "resize":
        return cut_resize(graph, step)
    if step.kind == "transpose":
        return cut_transpose(graph, step)
    if step.kind == "reduce_max":
        _see_three_axes(step)
    if step.kind in ("reduce_max", "reduce_sum", "matmul"):
        return [step]
    if _is_pointwise(step):
        return list(_cut_axes(graph, step, len(step.ofm.shape) - 3))
    maps = _cut_axes(graph, step, len(step.ofm.shape) - 3)
    if step.kind == "depthwise" and "multiplier" in step.attributes:
        return [
            part for n, one in enumerate(maps) for part in _cut_multiplier(graph, one, first=n == 0)
        ]
    return list(maps)


def _is_pointwise(step: Step) -> bool:
    return UNITS.get(step.kind) == "elementwise" or step.kind in _POINTWISE


def _fold_batch(step: Step) -> None:
    """See the maps of a batch as one, without axes of length 1, if no operand is repeated."""
    links, shape = [*step.inputs, step.ofm], step.ofm.shape
    if math.prod(shape) == math.prod(shape[-3:]) or any(_is_partial(link) for link in links):
        return
    if any(link.shape != shape and math.prod(link.shape) > 1 for link in step.inputs):
        return
    folded = list(shape)
    while len(folded) > 3 and 1 in folded[-3:]:
        del folded[max(axis for axis, length in enumerate(folded) if length == 1)]
    folded = [math.prod(folded[:-2]), *folded[-2:]]
    links = [
        replace(link, shape=tuple(folded), offset=None, part=None) if link.shape == shape else link
        for link in links
    ]
    step.inputs, step.outputs = links[:-1], links[-1:]


def _padded(link: Link) -> Link:
    """With at least four axes."""
    n_missing = 4 - len(link.shape)
    n_missing_part = 4 - len(link.part or ())
    if n_missing <= 0 and (link.part is None or n_missing_part <= 0):
        return link
    ones = (1,) * n_missing
    padded = replace(link, shape=ones + link.shape)
    if link.part is not None:
        assert link.offset is not None
        padded.part = (1,) * n_missing_part + link.part
        padded.offset = (0,) * (4 - len(link.offset)) + link.offset
        if link.stride is not None:
            padded.stride = (1,) * (4 - len(link.stride)) + link.stride
    return padded


def _is_partial(link: Link) -> bool:
    strided = link.stride is not None and max(link.stride) > 1
    return strided or (link.part is not None and link.part != link.shape)


def _deepen(step: Step) -> None:
    """See all maps of an element-wise step in a shape with at least 16 channels if it can."""
    links = [*step.inputs, step.ofm]
    sizes = [math.prod(link.shape) for link in links]
    shapes = [link.shape for link, size in zip(links[:-1], sizes, strict=False) if size > 1]
    repeats = any(not same(shapes[0], shape) for shape in shapes[1:])
    if repeats or any(_is_partial(link) for link in links):
        return
    if sizes[-1] <= _SMALL or step.ofm.shape[-1] >= _SHALLOW:
        return
    for index, (link, size) in enumerate(zip(step.inputs, sizes, strict=False)):
        if size > 1:
            step.inputs[index] = replace(link, shape=deeper(size), offset=None, part=None)
    step.outputs[0] = replace(step.ofm, shape=deeper(sizes[-1]), offset=None, part=None)
    step.attributes["deepened"] = True


def deeper(size: int) -> Shape:
    """A shape of `size` elements whose depth is at least 16, or all of them."""
    factors = list(_prime_factors(size))
    depth, n_used = 1, 0
    while n_used < len(factors) and depth < _DEEP:
        depth *= factors[n_used]
        n_used += 1
    height = width = 1
    for factor in factors[n_used:]:
        if width < height:
            width *= factor
        else:
            height *= factor
    return 1, max(height, width), min(height, width), depth


def _prime_factors(number: int) -> Iterator[int]:
    factor = 2
    while number > 1:
        if factor * factor > number:
            factor = number
        while number % factor == 0:
            yield factor
            number //= factor
        factor += 1 if factor == 2 else 2


def _cut_axes(graph: Graph, step: Step, n_leading: int) -> Iterator[Step]:
    """One step for each index of the leading axes, and for each stretch of long ones."""
    shape = step.ofm.taken
    limits = [1] * n_leading + [AXIS_MAX] * (len(shape) - n_leading)
    if all(length <= limit for length, limit in zip(shape, limits, strict=True)):
        yield step
        return
    step.remove()
    ranges = [range(0, length, limit) for length, limit in zip(shape, limits, strict=True)]
    for starts in _products(ranges):
        part = tuple(
            min(limit, length - start)
            for limit, length, start in zip(limits, shape, starts, strict=True)
        )
        inputs = [_stretch(link, starts, part, shape) for link in step.inputs]
        yield _like(graph, step, inputs, _stretch(step.ofm, starts, part, shape))


def _products(ranges: list[range]) -> Iterator[Shape]:
    if not ranges:
        yield ()
        return
    for start in ranges[0]:
        for rest in _products(ranges[1:]):
            yield (start, *rest)


def _stretch(link: Link, starts: Shape, part: Shape, whole_part: Shape) -> Link:
    """A part of what a link takes; axes that are not those of the ofm are taken whole."""
    offset, sizes = list(link.offset or (0,) * len(link.shape)), list(link.taken)
    for axis, (start, length, total) in enumerate(zip(starts, part, whole_part, strict=True)):
        if sizes[axis] == total and total > length:
            offset[axis] += start
            sizes[axis] = length
    return replace(link, offset=tuple(offset), part=tuple(sizes))


def _like(graph: Graph, step: Step, inputs: list[Link], output: Link) -> Step:
    """A step like another with other operands."""
    made = replace(step, inputs=[], outputs=[])
    for link in inputs:
        made.read(link)
    made.write(output)
    return made


def _see_three_axes(step: Step) -> None:
    """Let a pool along one axis see that as width."""
    shape = step.ifm.shape
    if step.axis != -2 or math.prod(shape[:-3]) > 1:
        axis = step.axis + len(shape)
        seen, taken = ((1, *around(link.shape, axis)) for link in (step.ifm, step.ofm))
        step.inputs[0] = replace(step.ifm, shape=seen, offset=None, part=None)
        step.outputs[0] = replace(step.ofm, shape=taken, offset=None, part=None)
    step.window = replace(step.window, kernel=(1, step.ifm.taken[2]))


def _cut_multiplier(graph: Graph, step: Step, *, first: bool) -> list[Step]:
    """One depthwise convolution for each kernel of a channel, and a transpose of their ofms.

    Only the first map of a batch is transposed to where it belongs, the others are copied there.
    """
    assert step.op is not None
    multiplier = step.attributes["multiplier"]
    _, height, width, depth = step.ofm.taken
    step.remove()
    between = whole(
        step.ofm.value.like("_kernels", (multiplier, height, width, depth // multiplier))
    )
    between.quantization = step.ofm.quantization
    steps: list[Step] = []
    for index in range(multiplier):
        target = between.at((index, 0, 0, 0), (1, height, width, depth // multiplier))
        part = _like(graph, step, [step.ifm], target)
        part.suffix = f"kernel {index}"
        part.weights = weights.depthwise(step.op, step.ifm_bits, multiplier, index)
        steps.append(part)
    ofm, turned = step.ofm, (height, width, depth // multiplier, multiplier)
    if not first:
        ofm = whole(step.ofm.value.like("_turned", step.ofm.taken))
        ofm.quantization = step.ofm.quantization
    transpose = graph.add("transpose", [between], ofm.seen(turned), step, permutation=(1, 2, 3, 0))
    steps += cut_transpose(graph, transpose)
    if not first:
        steps.append(graph.add("copy", [ofm], step.ofm, step))
    return steps
