# SPDX-License-Identifier: Apache-2.0
"""Bytes of weights in depth slices, kept where kernels find them."""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
import numpy.typing as npt

from npusim.cost import columns as col
from npusim.cost.program import NpuOp
from npusim.cost.weight_sizes import WeightSizes

Int64Array = npt.NDArray[np.int64]
Arrays = tuple[Int64Array, Int64Array, Int64Array]
"""A table of slices as `npusim.cost.weight_sizes_kernels` takes it."""

_LINES_PER_OP = 4


def slice_depths(first: int, step: int, depth: int) -> tuple[int, ...]:
    """Where weights are cut that have slices of `first` channels, then of `step`: 0, every start of
    a further slice, the depth.

    >>> slice_depths(16, 32, 90), slice_depths(90, 90, 90)
    ((0, 16, 48, 80, 90), (0, 90))
    """
    return (0, *range(first, depth, step), depth)


class SliceTable:
    """The bytes that the weights of one program take, in every way of cutting that was asked for.

    Args:
        n_ops: operations of the program.
        sizes: tells the bytes.
    """

    def __init__(self, n_ops: int, sizes: WeightSizes):
        from npusim.cost.weight_sizes_kernels import LINE_COLUMNS

        self.sizes = sizes
        self._heads = np.full(n_ops + 1, -1, np.int64)  # one more: without any it is no table
        self._lines = np.empty((_LINES_PER_OP * n_ops + 1, LINE_COLUMNS), np.int64)
        self._bytes = np.empty((_LINES_PER_OP * n_ops + 1, 2), np.int64)
        self._n_lines = self._n_bytes = 0

    @property
    def arrays(self) -> Arrays:
        """What kernels take, until more is added."""
        return self._heads, self._lines, self._bytes

    def add(
        self, index: int, op: NpuOp, row: Int64Array, block_depth: int, first: int, step: int
    ) -> None:
        """Find out about the weights of an operation, cut as `slice_depths` says.

        Args:
            index, op: of the operation.
            row: of `npusim.cost.rows`, int64 [ROW_COLUMNS].
            block_depth: channels of its ofm block.
            first, step: channels of the first slice, and of the next ones.
        """
        from npusim.cost import weight_sizes_kernels as kernels

        depths = slice_depths(first, step, int(row[col.OFM_DEPTH]))
        found = self.sizes.slices(op, int(row[col.IFM_BITS]), block_depth, depths)
        self._lines = _with_room(self._lines, self._n_lines, 1)
        self._bytes = _with_room(self._bytes, self._n_bytes, len(found))
        line = self._lines[self._n_lines]
        line[kernels.BLOCK_DEPTH], line[kernels.FIRST], line[kernels.NEXT] = (
            block_depth,
            first,
            step,
        )
        line[kernels.AT], line[kernels.COUNT] = self._n_bytes, len(found)
        line[kernels.NEXT_LINE] = self._heads[index]
        self._heads[index] = self._n_lines
        self._bytes[self._n_bytes : self._n_bytes + len(found)] = found
        self._n_lines += 1
        self._n_bytes += len(found)


def _with_room(array: Int64Array, n: int, n_more: int) -> Int64Array:
    """The first n lines with room for more."""
    if n + n_more <= len(array):
        return array
    grown = np.empty((2 * (n + n_more), array.shape[1]), np.int64)
    grown[:n] = array[:n]
    return grown


@cache
def no_slices() -> Arrays:
    """A table of nothing: bytes are what weights are expected to take."""
    from npusim.cost.weight_sizes_kernels import LINE_COLUMNS

    return (
        np.empty(0, np.int64),
        np.empty((0, LINE_COLUMNS), np.int64),
        np.empty((0, 2), np.int64),
    )


def slices_room(n_slices: int) -> tuple[npt.NDArray[Any], ...]:
    """Room for so many slices, as `npusim.cost.plans_kernels` takes it."""
    from npusim.cost.buffering_kernels import N_FACTS
    from npusim.cost.plans_kernels import ROWS

    return (
        np.empty(n_slices + 2, np.int64),
        np.empty((n_slices + 2, 2), np.int64),
        np.empty(3, np.int64),
        np.empty(n_slices + 2, np.int64),
        np.empty(N_FACTS, np.float64),
        np.empty(ROWS, np.int64),
    )
