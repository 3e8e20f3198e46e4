# SPDX-License-Identifier: Apache-2.0
"""From lowered steps to a program: fusing activations, gathering the CPU's operations, numbering.

* An activation joins the step right before it if that alone writes, and the activation alone
  reads, what is between them, and neither is wanted by the caller; but not a convolution that
  sees the maps of a batch as one.
* Operations of the CPU that read only what the caller provides come first, those that write only
  what the caller gets last; others move towards the end past operations that do not need them.

Source: [VELA] regor 5.2.0, found by comparing with its compiled operations.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Hashable
from dataclasses import replace
from hashlib import blake2b

import numpy as np

from npusim.cost.lowering.graph import Graph, Link, Shape, Step, Value, whole
from npusim.cost.program import UNITS, FeatureMap, NpuOp, Program, Shape4, View
from npusim.tensor import Tensor


def fuse_activations(steps: list[Step]) -> list[Step]:
    """Join activations with the steps before them."""
    n_reads = Counter(id(link.value) for step in steps for link in step.inputs)
    fused: list[Step] = []
    for step in steps:
        if fused and step.kind == "activation" and _can_join(fused[-1], step, n_reads):
            _join(fused[-1], step)
        else:
            fused.append(step)
    return fused


def _can_join(before: Step, activation: Step, n_reads: Counter[int]) -> bool:
    if before.kind in ("cpu", "activation") or "activation" in before.attributes:
        return False
    if "squared" in before.attributes:
        return False
    if before.kind == "copy" and not (_is_whole(before.ifm) and _is_whole(before.ofm)):
        return False
    if UNITS[before.kind] in ("compound", "dma"):
        transposes = before.kind == "transpose" and before.ofm.value.dtype in ("int8", "uint8")
        if not transposes:
            return False
    between = before.ofm.value
    if between is not activation.ifm.value or between.is_output:
        return False
    if between.is_variable != activation.ofm.value.is_variable:
        return False
    if len(between.writers) != 1 or n_reads[id(between)] != 1:
        return False
    if not (_covers(before.ofm) and _covers(activation.ifm)):
        return False
    is_shaped = before.attributes.get("deepened") or _is_windowed(before)
    is_shaped = is_shaped or activation.ofm.part is not None
    if is_shaped and before.ofm.shape != activation.ifm.shape:
        return False
    return same_scales(activation.ifm, activation.ofm)


def _is_whole(link: Link) -> bool:
    return link.part is None or link.part == link.shape


def _is_windowed(step: Step) -> bool:
    if UNITS[step.kind] == "pooling":
        return step.window.kernel != (1, 1) or step.window.stride != (1, 1)
    return UNITS[step.kind] in ("convolution", "depthwise")


def _covers(link: Link) -> bool:
    if link.part is None:
        return True
    shape = link.shape[-len(link.taken) :]
    return shape == link.taken and math.prod(link.shape) == math.prod(link.taken)


def same_scales(first: Link, second: Link) -> bool:
    """Whether two links understand codes with the same scales."""
    scales = [
        () if link.quantization is None else link.quantization.scales for link in (first, second)
    ]
    return np.array_equal(scales[0], scales[1])


def _join(step: Step, activation: Step) -> None:
    step.attributes["activation"] = activation
    step.table_bytes = activation.table_bytes
    ofm, target = step.ofm, activation.ofm
    activation.remove()
    if target.part is None:
        target = replace(ofm, value=target.value)
    step.write_instead(0, replace(target, quantization=ofm.quantization))


def gather_cpu_steps(steps: list[Step]) -> list[Step]:
    """Order steps so that there are fewer changes between NPU and CPU."""
    early: list[Step] = []
    late: list[Step] = []
    others: list[Step] = []
    first: set[int] = set()
    for step in steps:
        if step.kind == "cpu" and _is_early(step, first):
            early.append(step)
            first.add(id(step))
        elif step.kind == "cpu" and _is_late(step):
            late.append(step)
        else:
            others.append(step)
    for start in range(len(others) - 1, -1, -1):
        position = start
        while position + 1 < len(others) and _may_follow(others[position], others[position + 1]):
            others[position : position + 2] = others[position + 1], others[position]
            position += 1
    return early + others + late


def _is_early(step: Step, first: set[int]) -> bool:
    values = [link.value for link in step.inputs]
    if all(value.is_constant or value.is_input for value in values):
        return True
    return all(id(writer) in first for value in values for writer in value.writers)


def _is_late(step: Step) -> bool:
    return all(link.value.is_output and not link.value.readers for link in step.outputs)


def _may_follow(step: Step, other: Step) -> bool:
    if step.kind != "cpu" or other.kind == "cpu":
        return False
    written = {id(link.value) for link in step.outputs}
    return not any(id(link.value) in written for link in other.inputs)


class _Maps:
    """Numbers the values that are in memory."""

    def __init__(self) -> None:
        self.maps: list[FeatureMap] = []
        self._positions: dict[Value, int] = {}

    def position(self, value: Value) -> int:
        value = value.home
        if value not in self._positions:
            self._positions[value] = len(self.maps)
            shape = (0,) if value.shape is None else value.shape  # unknown: takes no memory
            self.maps.append(
                FeatureMap(
                    value.name,
                    four_axes(shape),
                    value.dtype,
                    is_input=value.is_input,
                    is_output=value.is_output,
                    is_constant=value.is_constant,
                    is_variable=value.is_variable,
                    n_constant_bytes=value.n_constant_bytes,
                    content=_content(value.content),
                )
            )
        return self._positions[value]

    def view(self, link: Link) -> View:
        """A link as a program has it."""
        shape = four_axes(link.shape)
        if link.part is None or not (_is_partial(link)):
            return View(self.position(link.value), shape, bits=link.bits)
        assert link.offset is not None
        stride = (1, 1) if link.stride is None else (link.stride[-3], link.stride[-2])
        offset = _folded_offset(link.offset, link.shape)
        part = four_axes(link.part)
        return View(self.position(link.value), shape, offset, part, stride)


def _is_partial(link: Link) -> bool:
    strided = link.stride is not None and max(link.stride) > 1
    return strided or link.part != link.shape


def four_axes(shape: Shape) -> Shape4:
    """A shape with ones in front, or with all axes before the last three in one."""
    height, width, depth = *((1,) * (3 - len(shape))), *shape[-3:]
    return math.prod(shape[:-3]), height, width, depth


def _folded_offset(offset: Shape, shape: Shape) -> Shape4:
    offset = (0,) * (len(shape) - len(offset)) + offset
    batch = 0
    for start, length in zip(offset[:-3], shape[:-3], strict=True):
        batch = batch * length + start
    height, width, depth = (*((0,) * (3 - len(offset))), *offset[-3:])
    return batch, height, width, depth


def assemble(graph: Graph, steps: list[Step]) -> Program:
    """The program of steps in order of execution."""
    maps = _Maps()
    ops = [_npu_op(maps, step) for step in steps]
    constants = {
        id(link.value): link.value.n_constant_bytes
        for step in steps
        if step.kind == "cpu"
        for link in step.inputs
        if link.value.is_constant
    }
    return Program(graph.name, tuple(maps.maps), tuple(ops), sum(constants.values()))


def _npu_op(maps: _Maps, step: Step) -> NpuOp:
    assert step.op is not None
    name = f"{step.op.name} ({step.suffix})" if step.suffix else step.op.name
    if step.kind == "cpu":
        inputs = [maps.view(link) for link in step.inputs if not link.value.is_constant]
        outputs = [maps.view(link) for link in step.outputs]
        ifm, *rest = [*inputs, *outputs]
        return NpuOp(
            name,
            "cpu",
            ifm if inputs else outputs[0],
            outputs[0],
            source=step.op,
            others=tuple(view for view in rest if view is not outputs[0]),
            obstacle=step.obstacle,
        )
    window = step.window
    return NpuOp(
        name,
        "reverse" if step.reverse else step.kind,
        maps.view(step.ifm),
        maps.view(step.ofm),
        maps.view(step.inputs[1]) if len(step.inputs) > 1 else None,
        source=step.op,
        kernel=window.kernel,
        stride=window.stride,
        dilation=window.dilation,
        padding=window.padding,
        upscale=step.upscale,
        nearest=step.nearest,
        weights=step.weights,
        has_scales=step.has_scales,
        activation=_activation(step),
        table_bytes=step.table_bytes,
        table_content=_table_content(step),
        scaled=step.scaled,
        transposed=step.kind == "transpose" and step.permutation != (0, 1, 2, 3),
        scratch=None if step.scratch is None else maps.position(_scratch(step)),
    )


def _activation(step: Step) -> str:
    activation = step if step.kind == "activation" else step.attributes.get("activation")
    if activation is None:
        return "none"
    return "relu" if activation.attributes.get("clamps") else "table"


def _table_content(step: Step) -> Hashable:
    activation = step.attributes.get("activation", step)
    content: Hashable = activation.attributes.get("table_content")
    return content


def _content(content: Hashable) -> Hashable:
    """The bytes of a tensor in short; anything else as it is."""
    if isinstance(content, Tensor):
        if content.data is None or content.data.dtype == object:
            return None
        return content.dtype, blake2b(content.data.tobytes()).digest()
    return content


def _scratch(step: Step) -> Value:
    return Value(f"scratch of {step.ofm.value.name}", step.scratch, "int32")


__all__ = ["assemble", "fuse_activations", "gather_cpu_steps", "whole"]
