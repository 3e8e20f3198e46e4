# SPDX-License-Identifier: Apache-2.0
"""The block of a multiply-accumulate operation: the piece of its ofm the NPU works on at a time.

The block decides how often ifm and weights are read, and in which order the weights are stored.
Its ifm and its accumulators share the NPU's internal memory (SHRAM) in banks of 1024 bytes. Of
all blocks that fit, Arm's compiler takes the one for which

    (ifm elements read + weights read) / ofm elements

is least, with blocks counted in fractions along height and width. It computes in single precision,
whose rounding often decides between blocks that are equally good; so do the kernel and its twin.

Source: [VELA] regor 5.2.0, found by comparing with its compiled operations.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from npusim._arguments import choice, integer
from npusim.errors import ConfigError
from npusim.npu import NpuConfig, get
from npusim.weights.reorder import TRAVERSALS, check_ifm_bits

OFM_BANKS: Final = 2
"""SHRAM banks kept for the ofm."""
TABLE_BANKS: Final = 2
"""SHRAM banks of a look-up table."""
_SMALL_SHRAM_BANKS: Final = 16
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
    from npusim.cost.blocks_kernels import find_block

    config = get(npu)
    best = np.full(2, np.inf, np.float32)
    widths, trial, block = np.empty((64, 3), np.int64), np.empty(6, np.int64), np.empty(6, np.int64)
    sizes = geometry_array(geometry), npu_array(config, geometry)
    if not find_block(*sizes, widths, best, trial, block):
        raise ConfigError(
            f"a block must fit the {config.shram_banks} SHRAM banks of {config.name}, "
            f"got none for {geometry}"
        )
    return BlockConfig(*block.tolist())


def _check_axes(what: str, values: tuple[int, ...], n_axes: int, high: int) -> None:
    if not isinstance(values, tuple) or len(values) != n_axes:
        raise ConfigError(f"{what} must be a tuple of {n_axes} integers, got {values!r}")
    for value in values:
        if type(value) is not int or not 1 <= value <= high:  # `integer` takes a microsecond
            integer(what, value, 1, high)


def available_banks(npu: NpuConfig, table: bool) -> int:
    """SHRAM banks for ifm and accumulators; only the smallest SHRAM lends them a table's banks."""
    lent = npu.shram_banks <= _SMALL_SHRAM_BANKS and not table
    return npu.shram_banks - OFM_BANKS - (0 if lent else TABLE_BANKS)


def geometry_array(geometry: MacGeometry) -> npt.NDArray[np.int64]:
    """What the search needs of an operation; see `npusim.cost.blocks_kernels`."""
    return np.array(
        [
            *geometry.ifm_shape,
            *geometry.ofm_shape,
            *geometry.kernel,
            *geometry.stride,
            *geometry.dilation,
            *geometry.upscale,
            geometry.ifm_bits,
            TRAVERSALS.index(geometry.traversal),
            geometry.nearest,
        ],
        np.int64,
    )


def npu_array(npu: NpuConfig, geometry: MacGeometry) -> npt.NDArray[np.int64]:
    """What the search needs of an NPU; see `npusim.cost.blocks_kernels`."""
    wide = geometry.ifm_bits == 16
    return np.array(
        [
            npu.ofm_ublock_height,
            npu.ofm_ublock_width,
            npu.ofm_ublock_depth,
            npu.ifm_ublock_depth,
            available_banks(npu, geometry.table),
            npu.ifm16_granule_banks if wide else npu.ifm8_granule_banks,
            npu.acc40_granule_banks if wide else npu.acc32_granule_banks,
            40 if wide else 32,
        ],
        np.int64,
    )
