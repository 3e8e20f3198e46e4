# SPDX-License-Identifier: Apache-2.0
"""Reshapes: a tensor that is only seen in another shape is not moved.

The step before a reshape and those after it then share a value, unless both ends of the reshape
must stay where they are, or others read the tensor in its old shape: a copy is made for these.
Such another reader is a SHAPE from which the new shape is computed, as in converted Keras models
with batches of any size. Shapes are known here, so it leads to no output any more and is never
executed; yet it goes on as a reader, in the compiler as here.

Source: [VELA] regor 5.2.0, found by comparing with its compiled operations.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Final

from npusim.cost.lowering.graph import Graph, Link, Step, Value, whole

RESHAPING_KINDS: Final = ("RESHAPE", "SQUEEZE", "EXPAND_DIMS")


def find_reshape(graph: Graph, step: Step) -> None:
    """Make a TRANSPOSE that only moves axes of length 1 a reshape."""
    del graph
    assert step.op is not None
    order = step.op.inputs[1]
    assert order is not None
    assert order.data is not None
    shape = step.ifm.shape
    axes = [int(axis) % len(shape) for axis in order.data.ravel()]
    moved = [axis for axis in axes if shape[axis] > 1]
    if moved == sorted(moved):
        step.kind = "RESHAPE"


def remove_reshapes(graph: Graph) -> None:
    """Take all reshapes out of a graph."""
    for step in graph.from_outputs():
        if step.kind in RESHAPING_KINDS:
            _remove(graph, step)


def _remove(graph: Graph, reshape: Step) -> None:
    ifm, ofm = reshape.ifm.value, reshape.ofm.value
    stays = ofm.is_output or any(reader.kind == "cpu" for reader in ofm.readers)
    fixed = ifm.is_input or ifm.is_output or ifm.is_constant
    fixed = fixed or any(writer.kind == "cpu" for writer in ifm.writers)
    if (fixed and stays) or (len(ifm.readers) > 1 and ifm.shape != ofm.shape):
        _copy(graph, reshape)
        ifm = reshape.ifm.value
    reshape.remove()
    if stays:
        for writer in list(ifm.writers):
            _rewrite(writer, ifm, ofm)
        for reader in list(ifm.readers):
            _reread(reader, ifm, ofm)
    else:
        for reader in list(ofm.readers):
            _reread(reader, ofm, ifm)
        ifm.shape = ofm.shape


def _copy(graph: Graph, reshape: Step) -> None:
    """Copy what a reshape reads; all other readers read the copy from now on."""
    ifm = reshape.ifm.value
    copied = ifm.like("_copy")
    readers = list(ifm.readers)
    graph.add("copy", [Link(ifm, ifm.shape or (), ifm.quantization)], whole(copied), reshape)
    for reader in readers:
        for index, link in enumerate(reader.inputs):
            if link.value is ifm:
                reader.read_instead(index, replace(link, value=copied))


def _rewrite(step: Step, old: Value, new: Value) -> None:
    for index, link in enumerate(step.outputs):
        if link.value is old:
            step.write_instead(index, replace(link, value=new))


def _reread(step: Step, old: Value, new: Value) -> None:
    for index, link in enumerate(step.inputs):
        if link.value is old:
            step.read_instead(index, replace(link, value=new))
