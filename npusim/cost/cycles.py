# SPDX-License-Identifier: Apache-2.0
"""Cycles and memory traffic of operations, each on its own, from the tables of `npusim.cost.rows`.

An operation on the multipliers works on a block of the ofm at a time, while the output stage
finishes the block before: the slower of the two sets the pace, and neither is faster than the
hardware's queue of commands is filled, one block in a quarter of all that happens to it. To the
blocks comes the time to read the first ifm block and to write the last ofm block. Elementwise
operations are paced by the output stage alone. Memories work beside all this: an operation takes
as long as the slowest of NPU and memories.

A feature map is moved in bursts. Where fewer bytes are contiguous than a burst holds, the memory
is busy as long as for whole bursts; so are the bytes counted.

What the weights cost depends on where they are read from: their buffer, if the scheduler gives
them one, or where they are stored, once for every block along height and width. The weight decoder
emits a fixed number of weights a cycle (`NpuConfig.weight_decoder_weights_per_cycle`), as Arm's
compiler assumes whatever the weights are; the column `decode_cycles` bounds it further by what the
decoder needs for the stream at hand.

Source: [VELA] regor 5.2.0, which the tests compare operation by operation.
Differs: `decode_cycles`, which is not in the compiler; 0 leaves it out.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from npusim._arguments import integer_array
from npusim.cost import columns as col
from npusim.cost.rows import (
    Float64Array,
    Int64Array,
    checked_rows,
    memory_array,
    npu_array,
    rate_array,
)
from npusim.errors import ConfigError
from npusim.memories import Memory
from npusim.npu import NpuConfig, get


@dataclass(frozen=True, slots=True, eq=False)
class OpCycles:
    """What operations take, one line each, columns as in `npusim.cost.columns`.

    Attributes:
        cycles: `OP_CYCLES` and its parts, shape [n_ops, CYCLE_COLUMNS].
        elements: of feature maps, shape [n_ops, ACCESS_COLUMNS].
        moved_bytes: in whole bursts, shape [n_ops, ACCESS_COLUMNS].
        memory_cycles: of every memory, shape [n_ops, n_memories, TRAFFIC_COLUMNS].
    """

    cycles: Int64Array
    elements: Int64Array
    moved_bytes: Int64Array
    memory_cycles: Int64Array

    @property
    def total(self) -> Int64Array:
        """Cycles of the slower of NPU and memories, shape [n_ops]."""
        slowest: Int64Array = self.memory_cycles[:, :, col.MEMORY_CYCLES].max(axis=1)
        return np.maximum(self.cycles[:, col.OP_CYCLES], slowest)


def op_cycles(
    rows: npt.ArrayLike,
    blocks: npt.ArrayLike,
    npu: str | NpuConfig,
    memories: Sequence[Memory],
    places: npt.ArrayLike,
    *,
    dma_bytes: npt.ArrayLike = 0,
) -> OpCycles:
    """Cycles and traffic of operations, without the time to fill buffers and tables before them.

    Args:
        rows: as from `npusim.cost.rows`, shape [n_ops, columns.ROW_COLUMNS].
        blocks: as from `npusim.cost.blocks.find_blocks`, shape [n_ops, columns.BLOCKS_COLUMNS].
        npu: preset name or record.
        memories: that places refer to.
        places: indices into memories, shape [n_ops, columns.PLACE_COLUMNS]; -1 as `BUFFER_PLACE`
            where weights are not buffered.
        dma_bytes: weights that are copied to their buffer while the operation runs, shape [n_ops]
            or one number.

    Raises:
        ConfigError: an array has another shape or type, an operation has no block, or a place is
            not an index of a memory.
        UnknownNameError: no such npu.

    Source: [VELA] regor 5.2.0.

    >>> from npusim.cost.blocks import find_blocks
    >>> from npusim.cost.rows import table
    >>> rows = table(1, unit=col.CONVOLUTION, ifm_height=32, ifm_width=32, ifm_depth=16,
    ...              ofm_height=32, ofm_width=32, ofm_depth=16, kernel_height=3, kernel_width=3)
    >>> sram = Memory("sram", 8.0, 32, 32, 32)
    >>> places = np.array([[0, 0, 0, 0, -1, 0]])
    >>> taken = op_cycles(rows, find_blocks(rows), "ethos-u55-128", [sram], places)
    >>> 32 * 32 * 16 * 9 * 16 // 128 <= int(taken.total[0])  # at most 128 MACs a cycle
    True
    """
    config, table = get(npu), checked_rows(rows)
    n_ops, n_memories = len(table), len(memories)
    block_array = _checked("blocks", blocks, (n_ops, col.BLOCKS_COLUMNS))
    blockless = table[:, col.UNIT] >= col.DMA
    if (block_array[~blockless, : col.BLOCK_COLUMNS] < 1).any():
        raise ConfigError("blocks must have extents of at least 1, got an operation without")
    place_array = _checked("places", places, (n_ops, col.PLACE_COLUMNS))
    lowest = np.where(np.arange(col.PLACE_COLUMNS) == col.BUFFER_PLACE, -1, 0)
    if ((place_array < lowest) | (place_array >= n_memories)).any():
        raise ConfigError(
            f"places must be indices of {n_memories} memories, got {place_array.min()} to "
            f"{place_array.max()}"
        )
    dma = np.broadcast_to(integer_array("dma_bytes", dma_bytes), (n_ops,)).astype(np.int64)
    machine = npu_array(config), rate_array(config), memory_array(memories)
    return measured(table, block_array, machine, place_array, dma)


def measured(
    rows: Int64Array,
    blocks: Int64Array,
    machine: tuple[Int64Array, Float64Array, Float64Array],
    places: Int64Array,
    dma_bytes: Int64Array,
) -> OpCycles:
    """As `op_cycles`, of arrays that are known to be right; machine: npu, rates and memories."""
    from npusim.cost.cycles_kernels import table_cycles

    n_ops, n_memories = len(rows), len(machine[2])
    cycles = np.zeros((n_ops, col.CYCLE_COLUMNS), np.int64)
    access = np.zeros((2, n_ops, col.ACCESS_COLUMNS), np.int64)
    traffic = np.zeros((n_ops, n_memories, col.TRAFFIC_COLUMNS), np.int64)
    op = np.concatenate([rows, blocks, places, dma_bytes[:, None]], axis=1)
    table_cycles(op, *machine, cycles, access, traffic)
    return OpCycles(cycles, access[0], access[1], traffic)


def _checked(what: str, values: npt.ArrayLike, shape: tuple[int, int]) -> Int64Array:
    array = integer_array(what, values)
    if array.shape != shape:
        raise ConfigError(f"{what} must have shape {shape}, got {array.shape}")
    return np.require(array, np.int64, ("C", "W"))
