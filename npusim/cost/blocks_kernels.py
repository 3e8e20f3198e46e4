# SPDX-License-Identifier: Apache-2.0
"""Kernel of `npusim.cost.blocks`; twin: `npusim.cost.reference_blocks`.

geometry i64 [17]: ifm height, width, depth; ofm height, width, depth; and in pairs of height and
width kernel, stride, dilation, upscale; ifm bits; traversal (0 depth-first, 1 part-kernel, 2
depthwise); nearest (0, 1). npu i64 [8]: ofm ublock height, width, depth; ifm ublock depth; SHRAM
banks for ifm and accumulators; granules of both in banks; accumulator bits. block i64 [6] as in
`BlockConfig`.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from npusim._jit import kernel

_HEIGHT_MAX = 32
_WIDTH_MAX = 64
_DEPTH_MAX = 128
_DEPTH_STEP = 16
_SUB_KERNEL = 8
_TIE_EXTENT = 4


@kernel
def round_up(value: Any, step: Any) -> Any:
    """The least multiple of step that is not less; both i64."""
    return (value + step - 1) // step * step


@kernel
def banks(n_bytes: Any, granule: Any) -> Any:
    """Banks of 1024 bytes for two buffers of n_bytes, in whole granules; both i64."""
    return round_up(2 * ((n_bytes + 1023) // 1024), granule)


@kernel
def ifm_extent(extent: Any, axis: Any, geometry: Any, npu: Any) -> Any:
    """Rows (axis 0) or columns (axis 1) of the ifm that `extent` ones of the ofm block need."""
    dilated = (geometry[6 + axis] - 1) * geometry[10 + axis] + 1
    span = (extent - 1) * geometry[8 + axis] + min(dilated, _SUB_KERNEL)
    upscale = geometry[12 + axis]
    if geometry[16] == 1 and upscale == 2:
        return round_up(span // 2 + 1, npu[axis])
    return round_up((span + upscale - 1) // upscale, npu[axis])


@kernel
def ifm_block_depth(depth: Any, geometry: Any, npu: Any) -> Any:
    """Ifm channels of a block of `depth` ofm channels."""
    if geometry[15] == 2:
        return depth
    if geometry[14] == 16:
        return round_up(min(geometry[2], 16), 4)
    return round_up(min(geometry[2], 16 if geometry[15] == 1 else 32), npu[3])


@kernel
def columns(geometry: Any, npu: Any, widths: Any) -> Any:
    """Fill widths i64 [64, 3] with width, ifm columns and blocks side by side; return their number.

    The rows do not depend on height or depth of a block, so that they are worked out once.
    """
    most = min(round_up(geometry[4], npu[1]), _WIDTH_MAX)
    n = 0
    for width in range(npu[1], most + 1, npu[1]):
        widths[n, 0] = width
        widths[n, 1] = ifm_extent(width, 1, geometry, npu)
        widths[n, 2] = (geometry[4] + width - 1) // width
        n += 1
    return n


@kernel
def sub_kernels(geometry: Any) -> Any:
    """Number of sub-kernels of at most 8 x 8 that the dilated kernel is cut into."""
    dilated_h = (geometry[6] - 1) * geometry[10] + 1
    dilated_w = (geometry[7] - 1) * geometry[11] + 1
    return ((dilated_h + _SUB_KERNEL - 1) // _SUB_KERNEL) * (
        (dilated_w + _SUB_KERNEL - 1) // _SUB_KERNEL
    )


@kernel
def coverage(block: Any, geometry: Any) -> Any:
    """How many times the ifm is as large as the part of it that one block reads, f32."""
    area = min(block[3], geometry[0]) * min(block[4], geometry[1])
    return np.float32(geometry[0] * geometry[1]) / np.float32(area)


@kernel
def best_width(
    block: Any, best: Any, widths: Any, n_widths: Any, rows: Any, geometry: Any, npu: Any
) -> Any:
    """Try every width with height and depth of `block`; leave the better one in `best`.

    block i64 [6] with heights and depths set, best f32 [2] least cost and, among equals, coverage,
    widths i64 [64, 3] and n_widths i64 as from `columns`, rows i64 that are computed. Returns the
    index of the width that improved on best, else -1. The order of the operations on f32 decides
    ties.
    """
    ofm_w, ifm_c, improved = geometry[4], geometry[2], -1
    n_deep, weight_c = 1, 1
    if geometry[15] != 2:
        n_deep, weight_c = (geometry[5] + block[2] - 1) // block[2], ifm_c
    n_high = (geometry[3] + block[0] - 1) // block[0]
    high = np.float32(geometry[3]) / np.float32(rows)
    elements = np.float32(geometry[3] * ofm_w * geometry[5])
    n_sub = np.float32(sub_kernels(geometry))
    n_weights = np.float32(geometry[6] * geometry[7] * weight_c)
    ifm_bytes = ifm_extent(rows, 0, geometry, npu) * round_up(block[5] * geometry[14] // 8, 8)
    acc_bits = rows * round_up(block[2], 8) * npu[7]
    n_ifm = geometry[0] * geometry[1] * ifm_c
    small = block[0] <= _TIE_EXTENT
    for i in range(n_widths):
        width, ifm_w = widths[i, 0], widths[i, 1]
        if banks(ifm_bytes * ifm_w, npu[5]) + banks(acc_bits * width // 8, npu[6]) > npu[4]:
            break
        area = block[3] * ifm_w
        reads = np.float32(area * ifm_c) * n_sub * (np.float32(ofm_w) / np.float32(width))
        reads = reads * high * np.float32(n_deep)
        reads += n_weights * np.float32(n_high * widths[i, 2]) * np.float32(geometry[5])
        if n_ifm < 2 * area * block[5]:
            reads *= np.float32(0.5)
        cost = reads / elements
        if cost < best[0]:
            best[0], best[1], improved = cost, np.float32(np.inf), i
        elif cost == best[0] and small and width <= _TIE_EXTENT:
            block[4] = ifm_w
            covered = coverage(block, geometry)
            if covered <= best[1]:
                best[1], improved = covered, i
    return improved


@kernel
def find_block(geometry: Any, npu: Any, widths: Any, best: Any, trial: Any, block: Any) -> Any:
    """Write the best block; return whether any fits.

    Room to work in: widths i64 [64, 3], best f32 [2] that starts as infinity, trial i64 [6].
    """
    ofm_h, ofm_c = geometry[3], geometry[5]
    # one row of a block two rows high is enough for an ofm and a kernel of one row
    flat = ofm_h == 1 and geometry[6] == 1 and npu[0] == 2
    max_h = min(round_up(ofm_h, npu[0]), _HEIGHT_MAX)
    max_depth = min(round_up(ofm_c, npu[2]), _DEPTH_MAX)
    n_widths = columns(geometry, npu, widths)
    depth = min(max_depth, _DEPTH_STEP)
    found = False
    while depth <= max_depth:
        trial[2] = depth
        trial[5] = ifm_block_depth(depth, geometry, npu)
        for height in range(npu[0], max_h + 1, npu[0]):
            rows = 1 if flat else height
            trial[0] = height
            trial[3] = ifm_extent(height, 0, geometry, npu)
            at = best_width(trial, best, widths, n_widths, rows, geometry, npu)
            if at >= 0:
                trial[1] = widths[at, 0]
                trial[4] = widths[at, 1]
                for i in range(6):
                    block[i] = trial[i]
                found = True
        depth += npu[2]
        if depth < ofm_c:
            depth = round_up(depth, _DEPTH_STEP)
    return found
