# SPDX-License-Identifier: Apache-2.0
"""Kernels of `npusim.cost.blocks`; twin: `npusim.cost.reference_blocks`.

row i64 [35], npu i64 [24] and block i64 [12] as `npusim.cost.columns` lays them out. Room to work
in: search i64 [SEARCH_COLUMNS], extents i64 [2, longest side of a block, 3], best f32 [2], trial
i64 [6].
"""

from __future__ import annotations

from typing import Any

import numpy as np

from npusim._jit import kernel, leaf_kernel
from npusim.cost import columns as col

_DEPTH_STEP = 16
_TIE_EXTENT = 4
_OFM_BANKS = 2
_TABLE_BANKS = 2
_SMALL_SHRAM_BANKS = 16
_FIT_EXTENT = 4

_IFM, _OFM, _N_IFM, _WEIGHTS, _SUB_KERNELS = 0, 3, 6, 7, 8
_IFM_GRANULE, _IFM_AREAS, _ACC_GRANULE, _ACC_BITS, _BANKS = range(9, 14)
_BITS, _SAME_DEPTH, _IFM_BLOCK_DEPTH, _FLAT, _BANK_BYTES = range(14, 19)
_N_HEIGHTS, _N_WIDTHS, _N_DEEP, _IFM_PIXEL_BYTES, _ACC_PIXEL_BITS = range(19, 24)
SEARCH_COLUMNS = 24


@leaf_kernel
def round_up(value: Any, step: Any) -> Any:
    """The least multiple of step that is not less; both i64."""
    return (value + step - 1) // step * step


@leaf_kernel
def ifm_extent(extent: Any, axis: Any, row: Any, npu: Any) -> Any:
    """Rows (axis 0) or columns (1) of the ifm block that `extent` ones of the ofm block need."""
    dilated = (row[col.KERNEL_HEIGHT + axis] - 1) * row[col.DILATION_HEIGHT + axis] + 1
    span = (extent - 1) * row[col.STRIDE_HEIGHT + axis] + min(dilated, npu[col.SUB_KERNEL_MAX])
    upscale = row[col.UPSCALE_HEIGHT + axis]
    ublock = npu[col.OFM_UBLOCK_HEIGHT + axis]
    if row[col.NEAREST] == 1 and upscale == 2:
        return round_up(span // 2 + 1, ublock)
    return round_up((span + upscale - 1) // upscale, ublock)


@leaf_kernel
def set_granules(row: Any, npu: Any, search: Any) -> None:
    """Write what of SHRAM an operation may use, and in which pieces."""
    bits, elementwise = row[col.IFM_BITS], row[col.UNIT] == col.ELEMENTWISE
    granule = npu[col.IFM32_GRANULE]
    if bits == 8:
        granule = npu[col.ELEMENTWISE8_GRANULE] if elementwise else npu[col.IFM8_GRANULE]
    elif bits == 16:
        granule = npu[col.ELEMENTWISE16_GRANULE] if elementwise else npu[col.IFM16_GRANULE]
    search[_IFM_GRANULE] = granule
    n_ifm = row[col.IFM_HEIGHT] * row[col.IFM_WIDTH] * row[col.IFM_DEPTH]
    n_ifm2 = row[col.IFM2_HEIGHT] * row[col.IFM2_WIDTH] * row[col.IFM2_DEPTH]
    scalar = bits <= 16 and (n_ifm == 1 or n_ifm2 == 1)
    search[_IFM_AREAS] = 2 if elementwise and not scalar else 1
    acc40 = row[col.ACC_BITS] == 40
    search[_ACC_GRANULE] = npu[col.ACC40_GRANULE] if acc40 else npu[col.ACC32_GRANULE]
    search[_ACC_BITS] = 0 if elementwise else row[col.ACC_BITS]
    kept = _TABLE_BANKS if npu[col.SHRAM_BANKS] > _SMALL_SHRAM_BANKS else 0
    search[_BANK_BYTES] = npu[col.BANK_BYTES]
    search[_BANKS] = npu[col.SHRAM_BANKS] - _OFM_BANKS - max(kept, row[col.TABLE_BANKS])


@leaf_kernel
def set_search(row: Any, npu: Any, search: Any) -> None:
    """Write what does not depend on the block. The larger operand counts as ifm."""
    unit, bits = row[col.UNIT], row[col.IFM_BITS]
    n_ifm = row[col.IFM_HEIGHT] * row[col.IFM_WIDTH] * row[col.IFM_DEPTH]
    n_ifm2 = row[col.IFM2_HEIGHT] * row[col.IFM2_WIDTH] * row[col.IFM2_DEPTH]
    first = col.IFM2_HEIGHT if n_ifm2 > n_ifm else col.IFM_HEIGHT
    ofm = col.IFM_HEIGHT if unit == col.TRANSPOSE else col.OFM_HEIGHT
    for axis in range(3):
        search[_IFM + axis] = row[first + axis]
        search[_OFM + axis] = row[ofm + axis]
    # wide copies move halves of their elements
    factor = 2 if unit == col.POOLING and bits == 32 and row[col.OFM_BITS] == 32 else 1
    search[_IFM + 2] *= factor
    search[_OFM + 2] *= factor
    search[_BITS] = bits // factor
    set_granules(row, npu, search)
    if factor == 2:
        search[_IFM_GRANULE] = npu[col.IFM16_GRANULE]
    search[_N_IFM] = max(n_ifm, n_ifm2) * factor
    search[_WEIGHTS] = 0
    if unit <= col.DEPTHWISE:
        search[_WEIGHTS] = row[col.KERNEL_HEIGHT] * row[col.KERNEL_WIDTH] * search[_IFM + 2]
    n_sub, most = 1, npu[col.SUB_KERNEL_MAX]
    for axis in range(2):
        dilated = (row[col.KERNEL_HEIGHT + axis] - 1) * row[col.DILATION_HEIGHT + axis] + 1
        n_sub *= (dilated + most - 1) // most
    search[_SUB_KERNELS] = n_sub
    search[_SAME_DEPTH] = unit == col.DEPTHWISE or unit == col.POOLING or unit == col.ELEMENTWISE
    depth = search[_IFM + 2]
    if search[_BITS] == 16:
        search[_IFM_BLOCK_DEPTH] = round_up(min(depth, 16), 4)
    else:
        most = 16 if row[col.TRAVERSAL] == col.PART_KERNEL else 32
        search[_IFM_BLOCK_DEPTH] = round_up(min(depth, most), npu[col.IFM_UBLOCK_DEPTH])
    # one row of a block two rows high is enough for an ofm and a kernel of one row
    flat = search[_OFM] == 1 and row[col.KERNEL_HEIGHT] == 1
    search[_FLAT] = flat and npu[col.OFM_UBLOCK_HEIGHT] == 2


@leaf_kernel
def set_extents(row: Any, npu: Any, search: Any, extents: Any) -> None:
    """Fill extents with what heights (0) and widths (1) of a block cost, on their own.

    Each line: rows or columns of the block, those of its ifm, and blocks in that direction.
    """
    for axis in range(2):
        step, extent = npu[col.OFM_UBLOCK_HEIGHT + axis], search[_OFM + axis]
        most = round_up(min(extent, npu[col.BLOCK_HEIGHT_MAX + axis]), step)
        n = 0
        for size in range(step, most + 1, step):
            extents[axis, n, 0] = size
            extents[axis, n, 1] = ifm_extent(size, axis, row, npu)
            extents[axis, n, 2] = (extent + size - 1) // size
            n += 1
        search[_N_HEIGHTS + axis] = n


@leaf_kernel
def set_depth(depth: Any, trial: Any, search: Any) -> None:
    """Write what a block of `depth` channels costs, whatever its height and width."""
    trial[2] = depth
    trial[5] = depth if search[_SAME_DEPTH] else search[_IFM_BLOCK_DEPTH]
    search[_N_DEEP] = 1 if search[_SAME_DEPTH] else (search[_OFM + 2] + depth - 1) // depth
    search[_IFM_PIXEL_BYTES] = round_up(trial[5] * search[_BITS] // 8, 8)
    search[_ACC_PIXEL_BITS] = round_up(depth, 8) * search[_ACC_BITS]


@leaf_kernel
def two_buffers(n_bytes: Any, granule: Any, search: Any) -> Any:
    """Banks of two buffers of n_bytes, in whole granules; all i64."""
    # in floating point, exact for such numbers, since divisions of integers take most of the time
    return np.ceil(2.0 * np.ceil(n_bytes / search[_BANK_BYTES]) / granule) * granule


@leaf_kernel
def fitting_widths(trial: Any, extents: Any, n_widths: Any, search: Any) -> Any:
    """How many of the first n_widths fit SHRAM with height and depth of trial, i64: ifm and
    accumulators, each twice and in whole granules."""
    rows = 1 if search[_FLAT] else trial[0]
    for i in range(n_widths, 0, -1):
        width, ifm_width = extents[1, i - 1, 0], extents[1, i - 1, 1]
        ifm_bytes = trial[3] * ifm_width * search[_IFM_PIXEL_BYTES]
        used = two_buffers(ifm_bytes, search[_IFM_GRANULE], search) * search[_IFM_AREAS]
        acc_bytes = rows * width * search[_ACC_PIXEL_BITS] // 8
        if used + two_buffers(acc_bytes, search[_ACC_GRANULE], search) <= search[_BANKS]:
            return i
    return 0


@leaf_kernel
def coverage(ifm_height: Any, ifm_width: Any, search: Any) -> Any:
    """How many times the ifm is as large as the part of it that one block reads, f32."""
    area = min(ifm_height, search[_IFM]) * min(ifm_width, search[_IFM + 1])
    return np.float32(search[_IFM] * search[_IFM + 1]) / np.float32(area)


@leaf_kernel
def best_width(
    trial: Any, best: Any, extents: Any, n_high: Any, n_widths: Any, unit: Any, search: Any
) -> Any:
    """Try the first n_widths with height and depth of trial; leave the better one in `best`.

    best f32 [2]: least cost and, among equals, coverage; n_high i64 blocks on top of each other.
    Returns the index of the width that improved on it, else -1. The order of the operations on f32
    decides ties.
    """
    height, depth, ifm_height, ifm_depth = trial[0], trial[2], trial[3], trial[5]
    n_ofm = np.float32(search[_OFM] * search[_OFM + 1] * search[_OFM + 2])
    high = np.float32(search[_OFM]) / np.float32(1 if search[_FLAT] else height)
    n_deep, depths = np.float32(search[_N_DEEP]), np.float32(1)
    if unit != col.DEPTHWISE:
        depths = np.float32(search[_OFM + 2]) / np.float32(depth) * np.float32(depth)
    # locals, since loads from arrays are repeated after every store
    n_ifm, buffers = search[_N_IFM], 2 * ifm_height * ifm_depth
    column_reads = ifm_height * search[_IFM + 2] * search[_SUB_KERNELS]
    weights, ofm_width = search[_WEIGHTS] * n_high, np.float32(search[_OFM + 1])
    small, improved, least = height <= _TIE_EXTENT, -1, best[0]
    for i in range(n_widths):
        width, ifm_width = extents[1, i, 0], extents[1, i, 1]
        if unit == col.ELEMENTWISE:
            cost = n_ofm / np.float32(height * width * depth)
        else:
            reads = np.float32(ifm_width * column_reads) * (ofm_width / np.float32(width))
            reads = reads * high * n_deep
            cost = (reads + np.float32(weights * extents[1, i, 2]) * depths) / n_ofm
        if n_ifm < buffers * ifm_width:
            cost *= np.float32(0.5)
        if cost < least:
            least, best[1], improved = cost, np.float32(np.inf), i
        elif cost == least and small and width <= _TIE_EXTENT:
            covered = coverage(ifm_height, ifm_width, search)
            if covered <= best[1]:
                best[1], improved = covered, i
    best[0] = least
    return improved


@leaf_kernel
def search_block(
    row: Any, npu: Any, search: Any, extents: Any, best: Any, trial: Any, block: Any
) -> Any:
    """Write the best block of a plain operation to block i64 [6]; return whether any fits."""
    set_search(row, npu, search)
    set_extents(row, npu, search, extents)
    ofm_depth, step = search[_OFM + 2], npu[col.OFM_UBLOCK_DEPTH]
    max_depth = round_up(min(ofm_depth, npu[col.BLOCK_DEPTH_MAX]), step)
    best[:] = np.inf
    found = False
    depth = min(max_depth, _DEPTH_STEP)
    while depth <= max_depth:
        set_depth(depth, trial, search)
        n_widths = search[_N_WIDTHS]
        for i in range(search[_N_HEIGHTS]):
            trial[0], trial[3] = extents[0, i, 0], extents[0, i, 1]
            n_widths = fitting_widths(trial, extents, n_widths, search)
            if n_widths == 0:
                break  # nor does a higher one fit
            if i == 0:
                search[_N_WIDTHS] = n_widths  # nor do wider ones that are deeper
            n_high = extents[0, i, 2]
            at = best_width(trial, best, extents, n_high, n_widths, row[col.UNIT], search)
            if at >= 0:
                trial[1], trial[4] = extents[1, at, 0], extents[1, at, 1]
                for column in range(col.BLOCK_COLUMNS):
                    block[column] = trial[column]
                found = True
        depth += step
        if depth < ofm_depth:
            depth = round_up(depth, _DEPTH_STEP)
    return found


@leaf_kernel
def fit_stripes(extents: Any, npu: Any) -> None:
    """Cut extents i64 [3] so that several blocks fit one after the other: a third or a half of
    the width, or of the height where that is more than a block's."""
    axis = 0 if extents[0] > npu[col.BLOCK_HEIGHT_MAX] else 1
    if extents[axis] > npu[col.BLOCK_HEIGHT_MAX + axis]:
        return
    for n_pieces in range(3, 1, -1):
        if extents[axis] >= _FIT_EXTENT * n_pieces:
            extents[axis] = (extents[axis] + n_pieces - 1) // n_pieces
            return


@kernel
def search_matmul(
    row: Any, npu: Any, search: Any, extents: Any, best: Any, trial: Any, block: Any
) -> Any:
    """Write the blocks of a matmul's sums and, behind them, of its products; return whether both
    fit."""
    part = row.copy()
    ifm = part[col.IFM_HEIGHT : col.IFM_HEIGHT + 3]
    ofm = part[col.OFM_HEIGHT : col.OFM_HEIGHT + 3]
    fit_stripes(ifm, npu)
    ofm[:] = ifm
    part[col.IFM2_HEIGHT], part[col.IFM2_WIDTH] = row[col.OFM_HEIGHT], 1
    part[col.UNIT] = col.ELEMENTWISE
    products = block[col.BLOCK_COLUMNS :]
    found = search_block(part, npu, search, extents, best, trial, products)
    ofm[0], ofm[1], ofm[2] = row[col.OFM_HEIGHT], row[col.IFM_WIDTH], 1
    fit_stripes(ofm, npu)
    part[col.UNIT], part[col.IFM_BITS] = col.REDUCE_SUM, 32
    return search_block(part, npu, search, extents, best, trial, block) and found


@leaf_kernel
def find_block(
    row: Any, npu: Any, search: Any, extents: Any, best: Any, trial: Any, block: Any
) -> Any:
    """Write the block of an operation to block i64 [12]; return whether it has one, i64: 1 for
    yes, 0 for none that fits, 2 for an operation without blocks."""
    block[:] = 0
    if row[col.UNIT] >= col.DMA:
        return 2
    if row[col.UNIT] == col.MATMUL:
        return 1 if search_matmul(row, npu, search, extents, best, trial, block) else 0
    return 1 if search_block(row, npu, search, extents, best, trial, block) else 0


@kernel
def find_blocks(rows: Any, npu: Any, search: Any, extents: Any, blocks: Any, found: Any) -> None:
    """Write the blocks i64 [n_ops, 12] of rows i64 [n_ops, 35], and to found i64 [n_ops] what
    `find_block` returns."""
    best, trial = np.empty(2, np.float32), np.empty(col.BLOCK_COLUMNS, np.int64)
    for i in range(rows.shape[0]):
        found[i] = find_block(rows[i], npu, search, extents, best, trial, blocks[i])
