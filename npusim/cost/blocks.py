# SPDX-License-Identifier: Apache-2.0
"""The block of an operation: the piece of its ofm the NPU works on at a time.

The block decides how often ifm and weights are read, and in which order the weights are stored.
Its ifm and its accumulators share the NPU's internal memory (SHRAM) in banks. Of all blocks that
fit, Arm's compiler takes the one for which

    (ifm elements read + weights read) / ofm elements

is least, with blocks counted in fractions along height and width; for elementwise operations, which
read everything once, the one that makes the fewest blocks. It computes in single precision, whose
rounding often decides between blocks that are equally good; so do the kernel and its twin.

A transpose is searched as if its ofm were its ifm, a copy of 32-bit elements as one of twice as
many halves, and a matmul has two blocks: of the products, which are kept in memory, and of their
sums.

Source: [VELA] regor 5.2.0, found by comparing with its compiled operations.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from npusim._arguments import choice, integer
from npusim.cost import columns as col
from npusim.cost.rows import TABLE_BANKS, Int64Array, checked_rows, npu_array
from npusim.errors import ConfigError
from npusim.npu import NpuConfig, get
from npusim.weights.reorder import TRAVERSALS, check_ifm_bits

_DIM_MAX: Final = 1 << 16
_STRIDE_MAX: Final = 3
_DILATION_MAX: Final = 2
_UPSCALE_MAX: Final = 2

Pair = tuple[int, int]


@dataclass(frozen=True, slots=True)
class MacGeometry:
    """Sizes of one convolution, depthwise convolution or matrix product as the NPU executes it.

    A fully connected layer has ifm and ofm of one row and as many columns as the batch is large.

    Attributes:
        ifm_shape: (height, width, depth) of the part of the ifm that is read.
        ofm_shape: (height, width, depth) of the ofm.
        traversal: "depth-first", "part-kernel" or "depthwise".
        kernel: (height, width) of the kernel, not dilated.
        stride: (height, width), each 1..3.
        dilation: (height, width), each 1 or 2.
        upscale: (height, width), 2 where a row or column of zeros is read after every one of the
            ifm, as in a transpose convolution; else 1.
        nearest: whether upscaling repeats rows and columns instead.
        ifm_bits: 8 or 16.
        table: whether a table look-up, such as a logistic function, follows in the same operation.

    Raises:
        ConfigError: a number is not an integer in its range.
        UnknownNameError: no such traversal.
    """

    ifm_shape: tuple[int, int, int]
    ofm_shape: tuple[int, int, int]
    traversal: str
    kernel: Pair = (1, 1)
    stride: Pair = (1, 1)
    dilation: Pair = (1, 1)
    upscale: Pair = (1, 1)
    nearest: bool = False
    ifm_bits: int = 8
    table: bool = False

    def __post_init__(self) -> None:
        choice("traversal", self.traversal, TRAVERSALS)
        check_ifm_bits(self.ifm_bits)
        _check_axes("ifm_shape", self.ifm_shape, 3, _DIM_MAX)
        _check_axes("ofm_shape", self.ofm_shape, 3, _DIM_MAX)
        _check_axes("kernel", self.kernel, 2, _DIM_MAX)
        _check_axes("stride", self.stride, 2, _STRIDE_MAX)
        _check_axes("dilation", self.dilation, 2, _DILATION_MAX)
        _check_axes("upscale", self.upscale, 2, _UPSCALE_MAX)
        for what, value in (("nearest", self.nearest), ("table", self.table)):
            if not isinstance(value, bool):
                raise ConfigError(f"{what} must be True or False, got {value!r}")
        if self.traversal == "depthwise" and self.ifm_shape[2] != self.ofm_shape[2]:
            raise ConfigError(
                f"ofm depth of a depthwise operation must equal its ifm depth {self.ifm_shape[2]}, "
                f"got {self.ofm_shape[2]}"
            )


@dataclass(frozen=True, slots=True)
class BlockConfig:
    """A block: elements of the ofm, and of the ifm that they are computed from.

    Attributes:
        ofm_block_height: rows, a multiple of the ofm ublock's.
        ofm_block_width: columns, a multiple of the ofm ublock's.
        ofm_block_depth: channels of all cores, a multiple of the ofm ublock's.
        ifm_block_height: rows of the ifm for those of the ofm.
        ifm_block_width: columns of the ifm for those of the ofm.
        ifm_block_depth: channels that are read at a time.
    """

    ofm_block_height: int
    ofm_block_width: int
    ofm_block_depth: int
    ifm_block_height: int
    ifm_block_width: int
    ifm_block_depth: int

    @property
    def ofm_block(self) -> tuple[int, int, int]:
        """(height, width, depth) of the ofm block."""
        return self.ofm_block_height, self.ofm_block_width, self.ofm_block_depth

    @property
    def ifm_block(self) -> tuple[int, int, int]:
        """(height, width, depth) of the ifm block."""
        return self.ifm_block_height, self.ifm_block_width, self.ifm_block_depth


def choose_block(geometry: MacGeometry, npu: str | NpuConfig = "ethos-u55-128") -> BlockConfig:
    """The block Arm's compiler takes for an operation that it does not cut into stripes.

    Args:
        geometry: the operation.
        npu: preset name or record.

    Raises:
        ConfigError: no block fits the NPU's SHRAM.
        UnknownNameError: no such npu.

    Source: [VELA] regor 5.2.0.

    >>> geometry = MacGeometry((32, 32, 16), (32, 32, 24), "part-kernel", kernel=(3, 3))
    >>> choose_block(geometry).ofm_block_depth
    24
    """
    config = get(npu)
    blocks, found = search_blocks(geometry_row(geometry)[None], config)
    if not found[0]:
        raise ConfigError(
            f"block must fit the {config.shram_banks} SHRAM banks of {config.name}, got none for "
            f"{geometry}"
        )
    return BlockConfig(*blocks[0, : col.BLOCK_COLUMNS].tolist())


def find_blocks(rows: npt.ArrayLike, npu: str | NpuConfig = "ethos-u55-128") -> Int64Array:
    """The blocks Arm's compiler takes for many operations that it does not cut into stripes.

    Args:
        rows: as from `npusim.cost.rows`, int64, shape [n_ops, columns.ROW_COLUMNS].
        npu: preset name or record.

    Returns:
        int64, shape [n_ops, columns.BLOCKS_COLUMNS]; zeros for operations without blocks.

    Raises:
        ConfigError: rows have another shape or type, or no block fits the NPU's SHRAM.
        UnknownNameError: no such npu.

    Source: [VELA] regor 5.2.0.

    >>> from npusim.cost.rows import table
    >>> ofm = {"ofm_height": 32, "ofm_width": 32, "ofm_depth": [16, 24]}
    >>> ifm = {"ifm_height": 32, "ifm_width": 32, "ifm_depth": 16}
    >>> rows = table(2, unit=0, kernel_height=3, kernel_width=3, **ifm, **ofm)
    >>> find_blocks(rows)[:, :3].tolist()
    [[5, 16, 16], [5, 16, 24]]
    """
    config = get(npu)
    blocks, found = search_blocks(checked_rows(rows), config)
    if not found.all():
        raise ConfigError(
            f"block must fit the {config.shram_banks} SHRAM banks of {config.name}, got none for "
            f"operation {int(np.argmin(found))}"
        )
    return blocks


def search_blocks(rows: Int64Array, npu: NpuConfig) -> tuple[Int64Array, Int64Array]:
    """Blocks as from `find_blocks`, and for each whether it fits, which not all have to."""
    from npusim.cost.blocks_kernels import SEARCH_COLUMNS
    from npusim.cost.blocks_kernels import find_blocks as fill

    blocks = np.zeros((len(rows), col.BLOCKS_COLUMNS), np.int64)
    found = np.zeros(len(rows), np.int64)
    most = max(npu.ofm_block_height_max, npu.ofm_block_width_max)
    room = np.empty(SEARCH_COLUMNS, np.int64), np.empty((2, most, 3), np.int64)
    fill(rows, npu_array(npu), *room, blocks, found)
    return blocks, found


def geometry_row(geometry: MacGeometry) -> Int64Array:
    """The row of an operation with weights."""
    row = np.zeros(col.ROW_COLUMNS, np.int64)
    depthwise, wide = geometry.traversal == "depthwise", geometry.ifm_bits == 16
    row[col.UNIT] = col.DEPTHWISE if depthwise else col.CONVOLUTION
    row[col.TRAVERSAL] = TRAVERSALS.index(geometry.traversal)
    row[col.IFM_HEIGHT : col.IFM2_HEIGHT] = geometry.ifm_shape
    row[col.OFM_HEIGHT : col.KERNEL_HEIGHT] = geometry.ofm_shape
    row[col.KERNEL_HEIGHT : col.NEAREST] = (
        *(*geometry.kernel, *geometry.stride, *geometry.dilation, *geometry.upscale),
    )
    row[col.NEAREST] = geometry.nearest
    row[col.STEP_HEIGHT : col.IFM_BITS] = 1
    row[col.IFM_BITS] = row[col.OFM_BITS] = geometry.ifm_bits
    row[col.ACC_BITS] = 40 if wide else 32
    row[col.TABLE_BANKS] = TABLE_BANKS if geometry.table else 0
    row[col.OUTPUT_RATE] = 3 if wide else 7
    row[col.ACTIVATION_RATE] = 0 if geometry.table else 2
    row[col.IFM_FORMAT] = row[col.IFM2_FORMAT] = row[col.OFM_FORMAT] = col.NHCWB16
    row[col.HAS_SCALES] = 1
    return row


def _check_axes(what: str, values: tuple[int, ...], n_axes: int, high: int) -> None:
    if not isinstance(values, tuple) or len(values) != n_axes:
        raise ConfigError(f"{what} must be a tuple of {n_axes} integers, got {values!r}")
    for value in values:
        if type(value) is not int or not 1 <= value <= high:  # `integer` takes a microsecond
            integer(what, value, 1, high)
