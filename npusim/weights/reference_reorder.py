# SPDX-License-Identifier: Apache-2.0
"""The order of the weight stream in plain Python integers: the definition of correct.

Source: [VELA] mlw_codec.reorder_encode.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence


def positions(
    shape: Sequence[int],
    ofm_block_depth: int,
    ofm_ublock_depth: int,
    ifm_ublock_depth: int,
    traversal: str,
    ifm_bits: int,
    dilation: Sequence[int],
) -> Iterator[tuple[int, int, int, int] | None]:
    """(o, y, x, i) of every value of one core's stream in order, None for padding."""
    ofm_depth, height, width, ifm_depth = shape
    part_kernel = traversal == "part-kernel"
    depthwise = traversal == "depthwise"
    ifm_block_depth = 16 if part_kernel or ifm_bits == 16 else 32
    element_step = {"depth-first": 1, "depthwise": 4, "part-kernel": 4 if ifm_bits == 8 else 2}
    if depthwise:
        ifm_block_depth = ifm_ublock_depth = 1
    rows, columns = 8 // dilation[0], 8 // dilation[1]
    for o0 in range(0, ofm_depth, ofm_block_depth):
        o1 = min(o0 + ofm_block_depth, ofm_depth)
        for i0 in range(0, ifm_depth, ifm_block_depth):
            i1 = i0 + ifm_block_depth
            ifm_ublocks = list(range(i0, i1, ifm_ublock_depth))
            inside = [i for i in ifm_ublocks if i < ifm_depth]
            for y0 in range(0, height, rows):
                for x0 in range(0, width, columns):
                    elements: list[tuple[int, int] | None] = [
                        (y, x)
                        for y in range(y0, min(y0 + rows, height))
                        for x in range(x0, min(x0 + columns, width))
                    ]
                    while len(elements) % element_step[traversal]:
                        elements.append(None)
                    for ublocks in [[i] for i in inside] if part_kernel else [ifm_ublocks]:
                        for ou in range(o0, o1, ofm_ublock_depth):
                            for element in elements:
                                for iu in ublocks:
                                    for o in range(ou, ou + ofm_ublock_depth):
                                        for i in range(iu, iu + ifm_ublock_depth):
                                            if element and o < ofm_depth and i < ifm_depth:
                                                yield (o, *element, i)
                                            else:
                                                yield None


def reorder(
    weights: Sequence[Sequence[Sequence[Sequence[int]]]],
    ofm_block_depth: int,
    ofm_ublock_depth: int,
    ifm_ublock_depth: int,
    traversal: str,
    ifm_bits: int,
    dilation: Sequence[int],
) -> list[int]:
    """One core's weights [O][H][W][I] in stream order, zeros in padding."""
    shape = (len(weights), len(weights[0]), len(weights[0][0]), len(weights[0][0][0]))
    order = positions(
        shape, ofm_block_depth, ofm_ublock_depth, ifm_ublock_depth, traversal, ifm_bits, dilation
    )
    return [0 if p is None else int(weights[p[0]][p[1]][p[2]][p[3]]) for p in order]
