# SPDX-License-Identifier: Apache-2.0
"""Kernel of `npusim.weights.reorder`; twin: `npusim.weights.reference_reorder`.

One function, since a call for each row of lanes would take three times as long.
"""

from __future__ import annotations

from typing import Any

from npusim._jit import kernel


@kernel
def walk(weights: Any, values: Any, elements: Any, starts: Any, depths: Any, restoring: Any) -> Any:
    """Visit every position of the stream once, copying weights to values or back.

    weights i16 [O, H*W, I], values i16 [n_coded], elements i64 [n_elements] (kernel element, -1
    for padding), starts i64 [n_sub_kernels + 1], depths i64 [5] (ofm block, ofm ublock, ifm block,
    ifm step of the outer loop, ifm ublock), restoring bool.
    Returns the first position whose padding is not zero when restoring, else -1.
    """
    ofm_depth, _, ifm_depth = weights.shape
    ofm_block, ofm_ublock, ifm_block, ifm_step, n_lanes = depths
    n_ublocks = ifm_step // n_lanes
    at = 0
    stray = -1
    for o0 in range(0, ofm_depth, ofm_block):
        for i0 in range(0, ifm_depth, ifm_block):
            for s in range(starts.size - 1):
                for i in range(i0, min(i0 + ifm_block, ifm_depth), ifm_step):
                    for ou in range(o0, min(o0 + ofm_block, ofm_depth), ofm_ublock):
                        for e in range(starts[s], starts[s + 1]):
                            element = elements[e]
                            for u in range(n_ublocks):
                                iu = i + u * n_lanes
                                n_i = min(n_lanes, ifm_depth - iu) if element >= 0 else 0
                                for o in range(ou, ou + ofm_ublock):
                                    n = n_i if o < ofm_depth else 0
                                    if restoring:
                                        for lane in range(n_lanes):
                                            if lane < n:
                                                weights[o, element, iu + lane] = values[at + lane]
                                            elif values[at + lane] != 0 and stray < 0:
                                                stray = at + lane
                                    elif n == 8 and n_lanes == 8:  # known length: a vector move
                                        for lane in range(8):
                                            values[at + lane] = weights[o, element, iu + lane]
                                    else:
                                        for lane in range(n_lanes):
                                            inside = lane < n
                                            values[at + lane] = (
                                                weights[o, element, iu + lane] if inside else 0
                                            )
                                    at += n_lanes
    return stray
