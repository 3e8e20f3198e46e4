# SPDX-License-Identifier: Apache-2.0
"""The block search in plain Python: every candidate is tried, none is left out early.

Single precision is NumPy's, one operation after the other; everything else is Python integers.
"""

from __future__ import annotations

from typing import TypeAlias

from numpy import float32

from npusim.cost.blocks import BlockConfig, MacGeometry, available_banks
from npusim.npu import NpuConfig

_Extents: TypeAlias = tuple[int, int, int]
_BLOCK_MAX = (32, 64, 128)


def _ceil_div(value: int, step: int) -> int:
    return -(-value // step)


def _round_up(value: int, step: int) -> int:
    return _ceil_div(value, step) * step


def _dilated(geometry: MacGeometry, axis: int) -> int:
    return (geometry.kernel[axis] - 1) * geometry.dilation[axis] + 1


def _ifm_extent(geometry: MacGeometry, npu: NpuConfig, extent: int, axis: int) -> int:
    """Rows or columns of the ifm below `extent` of the ofm, for one sub-kernel."""
    ublock = (npu.ofm_ublock_height, npu.ofm_ublock_width)[axis]
    span = (extent - 1) * geometry.stride[axis] + min(_dilated(geometry, axis), 8)
    if geometry.nearest and geometry.upscale[axis] == 2:
        return _round_up(span // 2 + 1, ublock)
    return _round_up(_ceil_div(span, geometry.upscale[axis]), ublock)


def _ifm_block_depth(geometry: MacGeometry, npu: NpuConfig, ofm_block_depth: int) -> int:
    if geometry.traversal == "depthwise":
        return ofm_block_depth
    ifm_depth = geometry.ifm_shape[2]
    if geometry.ifm_bits == 16:
        return _round_up(min(ifm_depth, 16), 4)
    most = 16 if geometry.traversal == "part-kernel" else 32
    return _round_up(min(ifm_depth, most), npu.ifm_ublock_depth)


def _ifm_block(geometry: MacGeometry, npu: NpuConfig, ofm_block: _Extents) -> _Extents:
    height, width, depth = ofm_block
    return (
        _ifm_extent(geometry, npu, height, 0),
        _ifm_extent(geometry, npu, width, 1),
        _ifm_block_depth(geometry, npu, depth),
    )


def _is_flat(geometry: MacGeometry, npu: NpuConfig) -> bool:
    """Whether ofm and kernel have one row and the ofm ublock two: only one row is computed."""
    one_row = geometry.ofm_shape[0] == geometry.kernel[0] == 1
    return one_row and npu.ofm_ublock_height == 2


def _fits(geometry: MacGeometry, npu: NpuConfig, ofm_block: _Extents) -> bool:
    height, width, depth = ofm_block
    rows = 1 if _is_flat(geometry, npu) else height
    ifm_height, ifm_width, ifm_depth = _ifm_block(geometry, npu, (rows, width, depth))
    wide = geometry.ifm_bits == 16
    ifm_bytes = ifm_height * ifm_width * _round_up(ifm_depth * geometry.ifm_bits // 8, 8)
    acc_bytes = rows * width * _round_up(depth, 8) * (40 if wide else 32) // 8
    ifm_granule = npu.ifm16_granule_banks if wide else npu.ifm8_granule_banks
    acc_granule = npu.acc40_granule_banks if wide else npu.acc32_granule_banks
    ifm_banks = _round_up(2 * _ceil_div(ifm_bytes, 1024), ifm_granule)
    acc_banks = _round_up(2 * _ceil_div(acc_bytes, 1024), acc_granule)
    return ifm_banks + acc_banks <= available_banks(npu, geometry.table)


def _cost(geometry: MacGeometry, npu: NpuConfig, ofm_block: _Extents) -> float32:
    """Elements of ifm and weights that are read for an element of the ofm."""
    height, width, depth = ofm_block
    ofm_height, ofm_width, ofm_depth = geometry.ofm_shape
    ifm_height, ifm_width, ifm_depth = geometry.ifm_shape
    block_height, block_width, block_depth = _ifm_block(geometry, npu, ofm_block)
    depthwise = geometry.traversal == "depthwise"
    rows = 1 if _is_flat(geometry, npu) else height

    n_sub_kernels = _ceil_div(_dilated(geometry, 0), 8) * _ceil_div(_dilated(geometry, 1), 8)
    ifm_reads = float32(block_height * block_width * ifm_depth) * float32(n_sub_kernels)
    ifm_reads = ifm_reads * (float32(ofm_width) / float32(width))
    ifm_reads = ifm_reads * (float32(ofm_height) / float32(rows))
    ifm_reads = ifm_reads * float32(1 if depthwise else _ceil_div(ofm_depth, depth))

    n_weights = geometry.kernel[0] * geometry.kernel[1] * (1 if depthwise else ifm_depth)
    n_blocks = _ceil_div(ofm_height, height) * _ceil_div(ofm_width, width)
    weight_reads = float32(n_weights) * float32(n_blocks) * float32(ofm_depth)

    reads = ifm_reads + weight_reads
    if ifm_height * ifm_width * ifm_depth < 2 * block_height * block_width * block_depth:
        reads = reads * float32(0.5)
    return reads / float32(ofm_height * ofm_width * ofm_depth)


def _coverage(geometry: MacGeometry, npu: NpuConfig, ofm_block: _Extents) -> float32:
    """The size of the ifm in parts that a block reads."""
    ifm_height, ifm_width, _ = geometry.ifm_shape
    block_height, block_width, _ = _ifm_block(geometry, npu, ofm_block)
    area = min(block_height, ifm_height) * min(block_width, ifm_width)
    return float32(ifm_height * ifm_width) / float32(area)


def _candidates(geometry: MacGeometry, npu: NpuConfig) -> list[_Extents]:
    ublock = (npu.ofm_ublock_height, npu.ofm_ublock_width, npu.ofm_ublock_depth)
    most = [
        min(_round_up(extent, step), limit)
        for extent, step, limit in zip(geometry.ofm_shape, ublock, _BLOCK_MAX, strict=True)
    ]
    depths = [min(16, most[2])]
    while depths[-1] + ublock[2] <= most[2]:
        depth = depths[-1] + ublock[2]
        depths.append(depth if depth >= geometry.ofm_shape[2] else _round_up(depth, 16))
    depths = [depth for depth in depths if depth <= most[2]]
    return [
        (height, width, depth)
        for depth in depths
        for height in range(ublock[0], most[0] + 1, ublock[0])
        for width in range(ublock[1], most[1] + 1, ublock[1])
    ]


def choose_block(geometry: MacGeometry, npu: NpuConfig) -> BlockConfig | None:
    """Twin of `npusim.cost.blocks.choose_block`; None where no block fits."""
    best = least = None
    least_coverage = float32("inf")
    for candidate in _candidates(geometry, npu):
        if not _fits(geometry, npu, candidate):
            continue
        cost = _cost(geometry, npu, candidate)
        if least is None or cost < least:
            best, least, least_coverage = candidate, cost, float32("inf")
        elif cost == least and candidate[0] <= 4 and candidate[1] <= 4:
            coverage = _coverage(geometry, npu, candidate)
            if coverage <= least_coverage:  # of equally good small blocks the last
                best, least_coverage = candidate, coverage
    return None if best is None else BlockConfig(*best, *_ifm_block(geometry, npu, best))
