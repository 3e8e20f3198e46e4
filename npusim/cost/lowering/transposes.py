# SPDX-License-Identifier: Apache-2.0
"""Transposes: the hardware exchanges any two of the last three axes, others take several turns.

Source: [VELA] regor 5.2.0, found by comparing with its compiled operations.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import replace
from typing import Final

from npusim.cost.lowering.copies import around, constant_input
from npusim.cost.lowering.graph import Graph, Link, Shape, Step, whole

_NATIVE: Final = ((0, 1, 2, 3), (0, 2, 1, 3), (0, 1, 3, 2), (0, 3, 2, 1))
Turn = tuple[Shape, int, int]
"""A shape and the two axes of it that are exchanged."""


def lower_transpose(graph: Graph, step: Step) -> None:
    """Make TRANSPOSE one of the hardware, whose axes are still in any order."""
    del graph
    assert step.op is not None
    step.kind = "transpose"
    rank = len(step.ifm.shape)
    step.permutation = tuple(axis % rank for axis in constant_input(step.op, 1))


def merge_transposes(graph: Graph, step: Step) -> None:
    """Make one transpose of two, none of one that changes nothing."""
    del graph
    value = step.ifm.value
    changes_nothing = step.permutation == tuple(range(len(step.permutation)))
    if changes_nothing and not value.writers and not step.ofm.value.readers:
        step.kind = "copy"
    if len(value.readers) != 1 or len(value.writers) != 1 or step.ifm.part is not None:
        return
    before = value.writers[0]
    if before.ofm.part is not None or before.kind == "cpu":
        return
    if changes_nothing:
        step.remove()
        before.write_instead(0, replace(step.ofm, shape=before.ofm.shape))
    elif before.kind == "transpose" and before.ofm.shape == step.ifm.shape:
        step.remove()
        before.permutation = tuple(before.permutation[axis] for axis in step.permutation)
        before.write_instead(0, step.ofm)


def cut_transpose(graph: Graph, step: Step) -> list[Step]:
    """The transposes of the hardware that a transpose becomes."""
    shape = step.ifm.taken
    rank = len(shape)
    shift = rank - len(step.permutation)
    permutation = (*range(shift), *(axis + shift for axis in step.permutation))
    step.permutation = permutation
    leading = math.prod(shape[:-3]) > 1 or math.prod(step.ofm.shape[:-3]) > 1
    if permutation in _NATIVE and not leading:
        return [step]
    if permutation == tuple(range(rank)):
        return _map_by_map(graph, step)
    step.remove()
    turns = list(_turns(shape, permutation))
    steps: list[Step] = []
    link = step.ifm
    for position, (seen, first, second) in enumerate(turns):
        axes = list(range(len(seen)))
        axes[first], axes[second] = second, first
        turned = tuple(seen[axis] for axis in axes)
        if position == len(turns) - 1:
            ofm = step.ofm.seen(_four(turned))
            if ofm.part is not None:
                ofm = ofm.at((0,) * len(ofm.shape), ofm.shape)
        else:
            ofm = whole(step.ofm.value.like(f"_turn{position}", _four(turned)))
        source = Link(link.value, _four(seen), link.quantization)
        n_missing = 4 - len(seen)
        padded = (*range(n_missing), *(axis + n_missing for axis in axes))
        made = graph.add("transpose", [source], ofm, step, permutation=padded, scaled=False)
        made.suffix = f"turn {position}"
        steps.append(made)
        link = ofm
    return steps


def _four(shape: Shape) -> Shape:
    return (1,) * (4 - len(shape)) + shape


def _map_by_map(graph: Graph, step: Step) -> list[Step]:
    """One step for each map of a batch whose axes stay as they are."""
    step.remove()
    shape = step.ifm.taken
    steps: list[Step] = []
    for number in range(math.prod(shape[:-3])):
        place: list[int] = []
        for length in shape[-4::-1]:
            place.insert(0, number % length)
            number //= length
        offset, part = (*place, 0, 0, 0), (*(1 for _ in place), *shape[-3:])
        source, target = step.ifm.at(offset, part), step.ofm.at(offset, part)
        made = graph.add("transpose", [source], target, step, permutation=step.permutation)
        steps.append(made)
    return steps


def _turns(shape: Shape, permutation: Shape) -> Iterator[Turn]:
    """Turns that bring each axis to its place, from the first on."""
    places = [permutation.index(axis) for axis in range(len(shape))]
    for axis in range(len(shape)):
        found = places.index(axis)
        if found != axis:
            yield from _exchange(shape, axis, found)
            shape = _swapped(shape, axis, found)
            places[axis], places[found] = places[found], places[axis]


def _swapped(shape: Shape, first: int, second: int) -> Shape:
    axes = list(shape)
    axes[first], axes[second] = axes[second], axes[first]
    return tuple(axes)


def _moved(shape: Shape, source: int, target: int) -> Shape:
    axes = list(shape)
    axes.insert(target, axes.pop(source))
    return tuple(axes)


def _exchange(shape: Shape, first: int, second: int) -> Iterator[Turn]:
    """Turns that exchange two axes, the first before the second."""
    last = len(shape) - 1
    inner = first >= last - 2 and math.prod(shape[:-3]) == 1
    if last <= 2 or inner:
        yield shape, first, second
    elif (first, second) == (0, 1):
        yield (shape[0], shape[1], math.prod(shape[2:])), 0, 1
    elif (first, second) == (last - 1, last):
        yield (math.prod(shape[:-2]), *shape[-2:]), 1, 2
    elif first != 0:
        yield around(shape, first), 0, 1
        shape = _moved(shape, first, 0)
        yield from _exchange(shape, 0, second)
        shape = _swapped(shape, 0, second)
        behind = math.prod(shape[first + 1 :])
        yield (shape[0], math.prod(shape[1 : first + 1]), behind), 0, 1
    elif second != last:
        yield around(shape, second), 1, 2
        shape = _moved(shape, second, last)
        yield from _exchange(shape, 0, last)
        shape = _swapped(shape, 0, last)
        yield (math.prod(shape[:second]), math.prod(shape[second:last]), shape[last]), 1, 2
    else:
        yield (shape[0], math.prod(shape[1:-1]), shape[last]), 0, 2
