# SPDX-License-Identifier: Apache-2.0
"""Resizing: rows and columns are doubled on reading, until the last pool sees the final size.

* RESIZE_NEAREST_NEIGHBOR with aligned corners ends with a depthwise convolution.
* RESIZE_BILINEAR by 2 with half pixel centres becomes four depthwise convolutions, one for each
  parity of row and column, of a map with margins.
* A map of one element is added to zeros.
* Where it is a part of a larger map, the compiler counts all channels of that one in the pools
  before the last and, with half pixel centres, its whole size.

Source: [VELA] regor 5.2.0, found by comparing with its compiled operations.
"""

from __future__ import annotations

from dataclasses import replace

from npusim.cost.lowering import weights
from npusim.cost.lowering.elementwise import constant
from npusim.cost.lowering.graph import Graph, Link, Shape, Step, Window, whole


def lower_resize(graph: Graph, step: Step) -> None:
    """Make RESIZE_BILINEAR and RESIZE_NEAREST_NEIGHBOR a resize, a sum or a copy."""
    if step.ifm.shape == step.ofm.shape:
        step.kind = "copy"
    elif step.ifm.shape[1:3] == (1, 1):
        zeros = constant("zeros", step.ofm.shape, step.ofm.value.dtype)
        step.read(zeros)
        step.kind = "add"
    else:
        step.kind = "resize"


def cut_resize(graph: Graph, step: Step) -> list[Step]:
    """The pools and depthwise convolutions that a resize becomes."""
    op = step.op
    assert op is not None
    bilinear = op.kind == "RESIZE_BILINEAR"
    if bilinear and op.attributes.get("half_pixel_centers"):
        return _half_pixels(graph, step)
    corners = int(bool(op.attributes.get("align_corners")))
    factors = [
        (long - corners) // (short - corners) if short > corners else 1
        for short, long in zip(step.ifm.shape[1:3], step.ofm.taken[1:3], strict=True)
    ]
    step.remove()
    steps: list[Step] = []
    link, left = step.ifm, max(factors)
    depth = step.ofm.shape[3]
    while left > 2:
        shape: Shape = (
            1,
            *(
                length * min(2, factor)
                for length, factor in zip(link.shape[1:3], factors, strict=True)
            ),
            depth,
        )
        ofm = whole(step.ofm.value.like(f"_{shape[1]}x{shape[2]}", shape))
        steps.append(_doubling(graph, step, "average_pool", link, ofm))
        link, left = ofm, left // 2
    height, width = factors
    aligned = _is_aligned(step, max(factors))
    if bilinear:
        margins = (0, 0, 0, 0) if aligned else (0, 0, height - 1, width - 1)
        window = Window((height, width), padding=margins)
        steps.append(_doubling(graph, step, "average_pool", link, step.ofm, window))
    elif aligned:
        window = Window((height, width))
        last = _doubling(graph, step, "depthwise", link, step.ofm, window)
        last.weights = weights.centre(op, (height, width), depth)
        last.has_scales = True
        steps.append(last)
    else:
        steps.append(_doubling(graph, step, "average_pool", link, step.ofm))
    return steps


def _is_aligned(step: Step, factor: int) -> bool:
    """Whether the corners of ifm and ofm lie upon each other."""
    return (
        max(
            (long - 1) / max(short - 1, 1)
            for short, long in zip(step.ifm.shape[1:3], step.ofm.taken[1:3], strict=True)
        )
        == factor
    )


def _doubling(
    graph: Graph, step: Step, kind: str, ifm: Link, ofm: Link, window: Window | None = None
) -> Step:
    made = graph.add(kind, [ifm], ofm, step, upscale=(2, 2), nearest=True, scaled=False)
    made.suffix = f"{ofm.shape[1]}x{ofm.shape[2]}"
    if window is not None:
        made.window = window
    return made


def _half_pixels(graph: Graph, step: Step) -> list[Step]:
    """Copies with margins and one depthwise convolution for each parity of row and column."""
    op = step.op
    assert op is not None
    step.remove()
    _, height, width, depth = step.ifm.taken
    outer = (1, height + 2, width + 2, depth)
    padded = whole(step.ifm.value.like("_margins", outer))
    padded.value.is_variable = False
    steps = [
        graph.add("copy", [step.ifm], padded.at((0, 1, 1, 0), (1, height, width, depth)), step)
    ]
    for source, target in ((0, 0), (height - 1, height + 1)):
        row = (1, 1, width, depth)
        read, written = step.ifm.at((0, source, 0, 0), row), padded.at((0, target, 1, 0), row)
        steps.append(graph.add("copy", [read], written, step, reverse="height"))
    for source, target in ((width, width + 1), (1, 0)):
        column = (1, height + 2, 1, depth)
        read, written = padded.at((0, 0, source, 0), column), padded.at((0, 0, target, 0), column)
        steps.append(graph.add("copy", [read], written, step, reverse="width"))
    for row_parity in (0, 1):
        for column_parity in (0, 1):
            offset = (0, row_parity, column_parity, 0)
            source_link = padded.at(offset, (1, height + 1, width + 1, depth))
            part = (1, step.ofm.shape[1] - 1, step.ofm.shape[2] - 1, step.ofm.shape[3])
            target_link = replace(step.ofm.at(offset, part), stride=(1, 2, 2, 1))
            made = graph.add("depthwise", [source_link], target_link, step, scaled=False)
            made.window = Window((2, 2))
            made.weights = weights.half_pixels(op, row_parity, column_parity, part[3])
            made.has_scales = True
            made.suffix = f"rows {row_parity}, columns {column_parity}"
            steps.append(made)
    return steps
