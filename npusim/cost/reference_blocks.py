# SPDX-License-Identifier: Apache-2.0
"""The block search in plain Python: every candidate is tried, none is left out early.

Single precision is NumPy's, one operation after the other; everything else is Python integers.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from math import prod
from typing import Any, TypeAlias

from numpy import float32

from npusim.cost import columns as c

Numbers: TypeAlias = Sequence[Any]
Extents: TypeAlias = tuple[int, int, int]


def _ceil_div(value: int, step: int) -> int:
    return -(-value // step)


def _round_up(value: int, step: int) -> int:
    return _ceil_div(value, step) * step


class _Search:
    """One operation on one NPU; the larger of two operands counts as its ifm."""

    def __init__(self, row: Numbers, npu: Numbers):
        self.row, self.npu = [int(value) for value in row], [int(value) for value in npu]
        self.unit, self.bits = self.row[c.UNIT], self.row[c.IFM_BITS]
        ifm, ifm2 = self.map(c.IFM_HEIGHT), self.map(c.IFM2_HEIGHT)
        self.scalar = self.bits <= 16 and 1 in (prod(ifm), prod(ifm2))
        self.ifm = max(ifm, ifm2, key=prod)
        self.ofm = ifm if self.unit == c.TRANSPOSE else self.map(c.OFM_HEIGHT)
        if self.unit == c.POOLING and self.bits == self.row[c.OFM_BITS] == 32:  # moves halves
            self.bits = 16
            self.ifm = (*self.ifm[:2], 2 * self.ifm[2])
            self.ofm = (*self.ofm[:2], 2 * self.ofm[2])
        self.same_depth = self.unit in (c.DEPTHWISE, c.POOLING, c.ELEMENTWISE)

    def map(self, first: int) -> Extents:
        height, width, depth = self.row[first : first + 3]
        return height, width, depth

    def dilated(self, axis: int) -> int:
        kernel, dilation = self.row[c.KERNEL_HEIGHT + axis], self.row[c.DILATION_HEIGHT + axis]
        return (kernel - 1) * dilation + 1

    def ifm_extent(self, extent: int, axis: int) -> int:
        """Rows or columns of the ifm below `extent` of the ofm, for one sub-kernel."""
        ublock = self.npu[c.OFM_UBLOCK_HEIGHT + axis]
        kernel = min(self.dilated(axis), self.npu[c.SUB_KERNEL_MAX])
        span = (extent - 1) * self.row[c.STRIDE_HEIGHT + axis] + kernel
        upscale = self.row[c.UPSCALE_HEIGHT + axis]
        if self.row[c.NEAREST] and upscale == 2:
            return _round_up(span // 2 + 1, ublock)
        return _round_up(_ceil_div(span, upscale), ublock)

    def ifm_block(self, ofm_block: Extents) -> Extents:
        height, width, depth = ofm_block
        if not self.same_depth:
            depth = self.ifm_block_depth()
        return self.ifm_extent(height, 0), self.ifm_extent(width, 1), depth

    def ifm_block_depth(self) -> int:
        if self.bits == 16:
            return _round_up(min(self.ifm[2], 16), 4)
        most = 16 if self.row[c.TRAVERSAL] == c.PART_KERNEL else 32
        return _round_up(min(self.ifm[2], most), self.npu[c.IFM_UBLOCK_DEPTH])

    def rows(self, height: int) -> int:
        """Rows of a block that are computed: one, if ofm and kernel have one and a ublock two."""
        one_row = self.ofm[0] == self.row[c.KERNEL_HEIGHT] == 1
        return 1 if one_row and self.npu[c.OFM_UBLOCK_HEIGHT] == 2 else height

    def banks(self) -> int:
        """SHRAM banks for ifm and accumulators; only a small SHRAM lends them a table's banks."""
        total = self.npu[c.SHRAM_BANKS]
        return total - 2 - max(self.row[c.TABLE_BANKS], 2 if total > 16 else 0)

    def ifm_granule(self) -> int:
        if self.unit == c.ELEMENTWISE and self.bits < 32:
            return self.npu[{8: c.ELEMENTWISE8_GRANULE, 16: c.ELEMENTWISE16_GRANULE}[self.bits]]
        return self.npu[{8: c.IFM8_GRANULE, 16: c.IFM16_GRANULE, 32: c.IFM32_GRANULE}[self.bits]]

    def two_buffers(self, n_bytes: int, granule: int) -> int:
        return _round_up(2 * _ceil_div(n_bytes, self.npu[c.BANK_BYTES]), granule)

    def fits(self, ofm_block: Extents) -> bool:
        height, width, depth = self.ifm_block(ofm_block)
        ifm_bytes = height * width * _round_up(depth * self.bits // 8, 8)
        ifm_banks = self.two_buffers(ifm_bytes, self.ifm_granule())
        if self.unit == c.ELEMENTWISE:  # one area for each operand, no accumulators
            return ifm_banks * (1 if self.scalar else 2) <= self.banks()
        acc_bits = self.row[c.ACC_BITS]
        granule = self.npu[c.ACC40_GRANULE if acc_bits == 40 else c.ACC32_GRANULE]
        elements = self.rows(ofm_block[0]) * ofm_block[1] * _round_up(ofm_block[2], 8)
        acc_banks = self.two_buffers(elements * acc_bits // 8, granule)
        return ifm_banks + acc_banks <= self.banks()

    def cost(self, ofm_block: Extents) -> float32:
        """Elements of ifm and weights that are read for an element of the ofm."""
        block = self.ifm_block(ofm_block)
        n_ofm = float32(prod(self.ofm))
        if self.unit == c.ELEMENTWISE:
            cost = n_ofm / float32(prod(ofm_block))
        else:
            cost = (self.ifm_reads(ofm_block, block) + self.weight_reads(ofm_block)) / n_ofm
        return cost * float32(0.5) if prod(self.ifm) < 2 * prod(block) else cost

    def ifm_reads(self, ofm_block: Extents, ifm_block: Extents) -> float32:
        height, width, depth = ofm_block
        most = self.npu[c.SUB_KERNEL_MAX]
        n_sub_kernels = prod(_ceil_div(self.dilated(axis), most) for axis in (0, 1))
        reads = float32(ifm_block[0] * ifm_block[1] * self.ifm[2] * n_sub_kernels)
        reads = reads * (float32(self.ofm[1]) / float32(width))
        reads = reads * (float32(self.ofm[0]) / float32(self.rows(height)))
        return reads * float32(1 if self.same_depth else _ceil_div(self.ofm[2], depth))

    def weight_reads(self, ofm_block: Extents) -> float32:
        if self.unit not in (c.CONVOLUTION, c.PRODUCT, c.DEPTHWISE):
            return float32(0)
        height, width, depth = ofm_block
        kernel = self.row[c.KERNEL_HEIGHT] * self.row[c.KERNEL_WIDTH]
        n_blocks = _ceil_div(self.ofm[0], self.rows(height)) * _ceil_div(self.ofm[1], width)
        reads = float32(kernel * self.ifm[2] * n_blocks)
        if self.unit == c.DEPTHWISE:
            return reads
        return reads * (float32(self.ofm[2]) / float32(depth) * float32(depth))

    def coverage(self, ofm_block: Extents) -> float32:
        """The size of the ifm in parts that a block reads."""
        height, width, _ = self.ifm_block(ofm_block)
        area = min(height, self.ifm[0]) * min(width, self.ifm[1])
        return float32(self.ifm[0] * self.ifm[1]) / float32(area)

    def candidates(self) -> Iterator[Extents]:
        ublock = self.npu[c.OFM_UBLOCK_HEIGHT : c.OFM_UBLOCK_HEIGHT + 3]
        limits = self.npu[c.BLOCK_HEIGHT_MAX : c.BLOCK_HEIGHT_MAX + 3]
        most = [
            _round_up(min(extent, limit), step)
            for extent, limit, step in zip(self.ofm, limits, ublock, strict=True)
        ]
        depth = min(16, most[2])
        while depth <= most[2]:
            for height in range(ublock[0], most[0] + 1, ublock[0]):
                for width in range(ublock[1], most[1] + 1, ublock[1]):
                    yield height, width, depth
            depth += ublock[2]
            if depth < self.ofm[2]:
                depth = _round_up(depth, 16)

    def best(self) -> list[int]:
        """Ofm and ifm extents of the block; zeros where none fits."""
        best = least = None
        least_coverage = float32("inf")
        for candidate in self.candidates():
            if not self.fits(candidate):
                continue
            cost = self.cost(candidate)
            if least is None or cost < least:
                best, least, least_coverage = candidate, cost, float32("inf")
            elif cost == least and candidate[0] <= 4 and candidate[1] <= 4:
                coverage = self.coverage(candidate)
                if coverage <= least_coverage:  # of equally good small blocks the last
                    best, least_coverage = candidate, coverage
        return [0] * 6 if best is None else [*best, *self.ifm_block(best)]


def _stripes(extents: Extents, npu: Numbers) -> Extents:
    """Extents cut in three or two, so that several blocks follow one another."""
    axis = 0 if extents[0] > npu[c.BLOCK_HEIGHT_MAX] else 1
    cut = list(extents)
    if extents[axis] <= npu[c.BLOCK_HEIGHT_MAX + axis] and extents[axis] >= 8:
        cut[axis] = _ceil_div(extents[axis], 3 if extents[axis] >= 12 else 2)
    return cut[0], cut[1], cut[2]


def _matmul(row: Numbers, npu: Numbers) -> list[int]:
    """Blocks of the sums and of the products that are summed."""
    n_batches, ifm = int(row[c.OFM_HEIGHT]), _Search(row, npu).map(c.IFM_HEIGHT)
    part = list(row)
    part[c.IFM_HEIGHT : c.IFM_HEIGHT + 3] = part[c.OFM_HEIGHT : c.OFM_HEIGHT + 3] = _stripes(
        ifm, npu
    )
    part[c.IFM2_HEIGHT], part[c.IFM2_WIDTH], part[c.UNIT] = n_batches, 1, c.ELEMENTWISE
    products = _Search(part, npu).best()
    part[c.OFM_HEIGHT : c.OFM_HEIGHT + 3] = _stripes((n_batches, ifm[1], 1), npu)
    part[c.UNIT], part[c.IFM_BITS] = c.REDUCE_SUM, 32
    return [*_Search(part, npu).best(), *products]


def find_block(row: Numbers, npu: Numbers) -> list[int]:
    """Twin of the kernel: block i64 [12], zeros for operations without and where none fits."""
    if row[c.UNIT] in (c.DMA, c.CPU):
        return [0] * c.BLOCKS_COLUMNS
    if row[c.UNIT] == c.MATMUL:
        return _matmul(row, npu)
    return _Search(row, npu).best() + [0] * c.BLOCK_COLUMNS
