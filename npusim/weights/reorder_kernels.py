# SPDX-License-Identifier: Apache-2.0
"""Kernels of `npusim.weights.reorder`; twin: `npusim.weights.reference_reorder`."""

from __future__ import annotations

from typing import Any

from npusim._jit import kernel


@kernel
def copy_tile(
    weights: Any, values: Any, at: Any, o0: Any, element: Any, i0: Any, tile: Any, restoring: Any
) -> Any:
    """Copy one tile of weights to values or back: the lanes of one kernel element and two ublocks.

    weights i16 [O, H*W, I], values i16 [n_coded], at i64 first position, o0, element, i0 i64 first
    weight (element -1: all padding), tile (i64, i64) output and input lanes, restoring bool.
    Returns the first position whose padding is not zero when restoring, else -1.
    """
    ofm_lanes, ifm_lanes = tile
    n_o = min(ofm_lanes, weights.shape[0] - o0)
    n_i = min(ifm_lanes, weights.shape[2] - i0)
    if element < 0 or n_i < 0:
        n_o = 0
        n_i = 0
    if restoring:
        for o in range(n_o):
            for i in range(n_i):
                weights[o0 + o, element, i0 + i] = values[at + o * ifm_lanes + i]
        for o in range(ofm_lanes):
            for i in range(n_i if o < n_o else 0, ifm_lanes):
                if values[at + o * ifm_lanes + i] != 0:
                    return at + o * ifm_lanes + i
        return -1
    if n_o < ofm_lanes or n_i < ifm_lanes:
        values[at : at + ofm_lanes * ifm_lanes] = 0
    for o in range(n_o):
        for i in range(n_i):
            values[at + o * ifm_lanes + i] = weights[o0 + o, element, i0 + i]
    return -1


@kernel
def walk(weights: Any, values: Any, elements: Any, starts: Any, depths: Any, restoring: Any) -> Any:
    """Visit every position of the stream once, copying weights to values or back.

    weights i16 [O, H*W, I], values i16 [n_coded], elements i64 [n_elements] (kernel element, -1
    for padding), starts i64 [n_sub_kernels + 1], depths i64 [5] (ofm block, ofm ublock, ifm block,
    ifm step of the outer loop, ifm ublock), restoring bool.
    Returns the first position whose padding is not zero when restoring, else -1.
    """
    ofm_depth, _, ifm_depth = weights.shape
    ofm_block, ofm_ublock, ifm_block, ifm_step, ifm_ublock = depths
    tile = (ofm_ublock, ifm_ublock)
    at = 0
    stray = -1
    for o0 in range(0, ofm_depth, ofm_block):
        o1 = min(o0 + ofm_block, ofm_depth)
        for i0 in range(0, ifm_depth, ifm_block):
            i1 = min(i0 + ifm_block, ifm_depth)
            for s in range(starts.size - 1):
                for i in range(i0, i1, ifm_step):
                    for ou in range(o0, o1, ofm_ublock):
                        for e in range(starts[s], starts[s + 1]):
                            for iu in range(i, i + ifm_step, ifm_ublock):
                                bad = copy_tile(
                                    weights, values, at, ou, elements[e], iu, tile, restoring
                                )
                                if bad >= 0 and stray < 0:
                                    stray = bad
                                at += ofm_ublock * ifm_ublock
    return stray
