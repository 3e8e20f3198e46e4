# SPDX-License-Identifier: Apache-2.0
"""Convolutions, fully connected layers and pools.

* A stride along an axis on which the ofm has one element is 1, so is a dilation of one kernel
  element; a dilation above 2 is built from zeros between the kernel's elements.
* A convolution in groups becomes one for each group, whose results are put side by side.
* A depthwise convolution of one input channel is a convolution; with a depth multiplier it
  becomes one for each of its kernels, and a transpose.
* A convolution or pool whose stride is above 3 is computed ofm element by ofm element.
* The rows of a batch of a fully connected layer are arranged as a map that is nearly square, so is
  the batch of a convolution of one by one.
* A pad joins each convolution that reads it if what is needed of it, by the strides as they were
  given, is smaller than the kernel on every side, and if the way from the last output back reaches
  that convolution before the pad itself.

Source: [VELA] regor 5.2.0, found by comparing with its compiled operations.
"""

from __future__ import annotations

import math
from dataclasses import replace

from npusim.cost.lowering import weights
from npusim.cost.lowering.graph import Graph, Link, Step, Window, whole
from npusim.cost.placement import STRIDE_MAX, effective_strides, integers, same_padding
from npusim.cost.program import Pair
from npusim.network import Op

UNPADDED = (0, 0, 0, 0)


def split_groups(graph: Graph, step: Step) -> None:
    """Make a convolution in groups one convolution for each group."""
    op = step.op
    assert op is not None
    assert op.weights is not None
    ifm_shape, depth = step.ifm.shape, op.weights.shape[3]
    n_groups = ifm_shape[3] // depth
    if n_groups == 1:
        return
    step.remove()
    parts: list[Link] = []
    for group in range(n_groups):
        ofm_shape = (*step.ofm.shape[:3], step.ofm.shape[3] // n_groups)
        ofm = step.ofm.value.like(f"_group{group}", ofm_shape)
        source = step.ifm.at((0, 0, 0, group * depth), (*ifm_shape[:3], depth))
        part = graph.add(op.kind, [source], whole(ofm), step, suffix=f"group {group}")
        part.weights = weights.convolution(op, step.ifm_bits, group, n_groups)
        parts.append(whole(ofm))
    graph.add("CONCATENATION", parts, step.ofm, step, axis=3)


def lower_convolution(graph: Graph, step: Step) -> None:
    """Make CONV_2D a convolution of the hardware."""
    op = step.op
    assert op is not None
    step.kind = "conv"
    step.has_scales = True
    step.weights = step.weights or weights.convolution(op, step.ifm_bits)
    step.window = _window(op, *weights.spread_kernel(op))
    join_pad(step)
    is_pointwise = step.window == Window() and integers(op, "stride_h", "stride_w") == (1, 1)
    if step.ifm.taken[0] > 1 and is_pointwise:
        step.read_instead(0, _squared(step.ifm, step.weights.shape[3]))
        step.write_instead(0, _squared(step.ofm, step.weights.shape[0]))
        step.attributes["squared"] = True
    unroll_strides(graph, step)


def lower_depthwise(graph: Graph, step: Step) -> None:
    """Make DEPTHWISE_CONV_2D a convolution, or one or several depthwise convolutions."""
    op = step.op
    assert op is not None
    step.has_scales = True
    step.window = _window(op, *weights.spread_kernel(op))
    join_pad(step)
    multiplier = step.ofm.shape[3] // step.ifm.shape[3]
    if multiplier == 1 or step.ifm.shape[3] == 1:
        step.kind = "conv" if multiplier > 1 else "depthwise"
        step.weights = weights.depthwise(op, step.ifm_bits, multiplier)
    else:
        step.kind = "depthwise"
        step.attributes["multiplier"] = multiplier


def lower_transpose_convolution(graph: Graph, step: Step) -> None:
    """Make TRANSPOSE_CONV a convolution of its ifm with zeros between the elements."""
    op = step.op
    assert op is not None
    assert op.weights is not None
    step.kind = "conv"
    step.has_scales = True
    step.weights = weights.transpose_convolution(op, step.ifm_bits)
    upscale = integers(op, "stride_h", "stride_w")
    step.upscale = (upscale[0], upscale[1])
    kernel = op.weights.shape[1:3]
    same = op.attributes.get("padding") == "SAME"
    sides = [
        _transpose_margins(ifm, ofm, size, step.upscale, axis, same)
        for axis, (ifm, ofm, size) in enumerate(
            zip(step.ifm.shape[1:3], step.ofm.shape[1:3], kernel, strict=True)
        )
    ]
    (top, bottom), (left, right) = sides
    step.window = Window((kernel[0], kernel[1]), padding=(top, left, bottom, right))


def _transpose_margins(
    ifm: int, ofm: int, kernel: int, upscale: Pair, axis: int, same: bool
) -> Pair:
    """Padding before and after along one axis of a transpose convolution."""
    stride = upscale[axis]
    total = max(ofm - 1 + kernel - ifm * stride, 0)
    if max(upscale) == 1:
        return (total + 1) // 2, total // 2
    if not same:
        return kernel - 1, max(kernel - 2, 0)
    after = max((total + 1) // stride - 1, 0)
    return max(kernel - 1 - after, 0), after


def lower_fully_connected(graph: Graph, step: Step) -> None:
    """Make FULLY_CONNECTED with constant weights a product of the hardware."""
    op = step.op
    assert op is not None
    assert op.weights is not None
    step.kind = "fully_connected"
    step.has_scales = True
    step.weights = weights.product(op, op.weights, step.ifm_bits)
    arrange_rows(step)


def arrange_rows(step: Step) -> None:
    """Let a product see the rows of its ifm and ofm as a map."""
    assert step.weights is not None
    ofm_depth, _, _, ifm_depth = step.weights.shape
    step.read_instead(0, _squared(step.ifm, ifm_depth))
    if math.prod(step.ofm.shape) > ofm_depth:
        step.write_instead(0, _squared(step.ofm, ofm_depth))


def _squared(link: Link, depth: int) -> Link:
    n_rows = math.prod(link.taken) // depth
    width = max(n_rows // 16, math.isqrt(n_rows - 1) + 1)
    while n_rows % width:
        width += 1
    shape = (1, n_rows // width, width, depth)
    return link.seen(shape) if link.part is None else replace(link, part=shape)


def lower_pool(graph: Graph, step: Step) -> None:
    """Make MAX_POOL_2D and AVERAGE_POOL_2D pools of the hardware."""
    op = step.op
    assert op is not None
    step.kind = "max_pool" if op.kind == "MAX_POOL_2D" else "average_pool"
    height, width = integers(op, "filter_h", "filter_w")
    step.window = _window(op, (height, width), (1, 1))
    window = step.window
    if window.kernel == window.stride == step.ifm.shape[1:3] and window.padding == UNPADDED:
        step.window = replace(window, stride=(1, 1))
    unroll_strides(graph, step)


def _window(op: Op, kernel: Pair, dilation: Pair) -> Window:
    assert op.ifm is not None
    window = Window(kernel, effective_strides(op), dilation)
    if op.attributes.get("padding") != "SAME":
        return window
    totals = [
        same_padding(length, extent, stride, 1)
        for length, extent, stride in zip(
            *(op.ifm.shape[1:3], window.extent, integers(op, "stride_h", "stride_w")), strict=True
        )
    ]
    top, left = (total // 2 for total in totals)
    bottom, right = (total - total // 2 for total in totals)
    return replace(window, padding=(top, left, bottom, right))


def join_pad(step: Step) -> None:
    """Do the padding of a PAD before a convolution in the convolution itself."""
    writers = step.ifm.value.writers
    if step.window.padding != UNPADDED or len(writers) != 1 or writers[0].kind != "PAD":
        return
    if writers[0].attributes.get("passed"):
        return
    assert step.op is not None
    pad, strides = writers[0], integers(step.op, "stride_h", "stride_w")
    margins = pad_margins(pad)
    if pad.ifm.quantization != pad.ofm.quantization or pad.ifm.value.dtype != pad.ofm.value.dtype:
        return
    if len(margins) != 4 or any(margins[0]) or any(margins[3]):
        return
    sides = [
        (before, _needed_after(length, before, after, stride, extent))
        for length, (before, after), stride, extent in zip(
            *(pad.ifm.taken[1:3], margins[1:3], strides, step.window.extent),
            strict=True,
        )
    ]
    if any(max(side) >= extent for side, extent in zip(sides, step.window.extent, strict=True)):
        return
    (top, bottom), (left, right) = sides
    step.window = replace(step.window, padding=(top, left, bottom, right))
    step.read_instead(0, pad.ifm)
    if not pad.ofm.value.readers:
        pad.remove()


def pass_pad(graph: Graph, step: Step) -> None:
    """Close a PAD for the convolutions that are reached after it."""
    del graph
    step.attributes["passed"] = True


def _needed_after(length: int, before: int, after: int, stride: int, extent: int) -> int:
    """Padding behind an axis: not more of it than the last position of the kernel reaches."""
    total = same_padding(length, extent, stride, 1)
    surplus = after % stride - int(math.fmod(total - before, stride))
    return max(0, after - surplus - (0 if surplus >= 0 else stride))


def pad_margins(step: Step) -> list[Pair]:
    """Padding before and after along each axis of a PAD; empty if it is not constant."""
    assert step.op is not None
    tensor = step.op.inputs[1]
    if tensor is None or tensor.data is None:
        return []
    return [(int(before), int(after)) for before, after in tensor.data.reshape(-1, 2)]


def unroll_strides(graph: Graph, step: Step) -> None:
    """Compute a step whose stride the hardware does not have ofm element by ofm element."""
    window = step.window
    if max(window.stride) <= STRIDE_MAX:
        return
    step.remove()
    batch, height, width, depth = step.ofm.shape
    for y in range(height):
        for x in range(width):
            source = step.ifm.at(
                (0, y * window.stride[0], x * window.stride[1], 0),
                (step.ifm.shape[0], *window.kernel, step.ifm.shape[3]),
            )
            target = step.ofm.at((0, y, x, 0), (batch, 1, 1, depth))
            cell = graph.add(step.kind, [source], target, step, suffix=f"row {y}, column {x}")
            cell.window = replace(window, stride=(1, 1))
            cell.weights = step.weights
            cell.has_scales = step.has_scales
