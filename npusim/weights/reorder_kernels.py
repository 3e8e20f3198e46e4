# SPDX-License-Identifier: Apache-2.0
"""Kernel of `npusim.weights.reorder`; twin: `npusim.weights.reference_reorder`."""

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
    ofm_block, ofm_ublock, ifm_block, ifm_step, ifm_ublock = depths
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
                            element = elements[e]
                            for iu in range(i, i + ifm_step, ifm_ublock):
                                for o in range(ou, ou + ofm_ublock):
                                    n = 0
                                    if element >= 0 and o < ofm_depth:
                                        n = max(0, min(ifm_ublock, ifm_depth - iu))
                                    if restoring:
                                        for lane in range(n):
                                            weights[o, element, iu + lane] = values[at + lane]
                                        for lane in range(n, ifm_ublock):
                                            if values[at + lane] != 0 and stray < 0:
                                                stray = at + lane
                                    else:
                                        for lane in range(n):
                                            values[at + lane] = weights[o, element, iu + lane]
                                        for lane in range(n, ifm_ublock):
                                            values[at + lane] = 0
                                    at += ifm_ublock
    return stray
