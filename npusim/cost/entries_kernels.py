# SPDX-License-Identifier: Apache-2.0
"""What a machine makes of operations on their own: kernels of `npusim.cost.forms` and
`npusim.cost.batch`; twin: `npusim.cost.reference_plans.Planner.whole`.

ops i64 [n_ops, OP_COLUMNS] is a row of `npusim.cost.columns`, then the flags named below, then
entropy and part of zeros of the weights, whose 64 bits are those of a f64. entries i64 [n_entries,
ENTRY_COLUMNS] is what one machine makes of each; machine (npu, rates, memories, roles), roles i64
[3]: lines of memories for maps, constants and buffers.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from npusim._jit import kernel, leaf_kernel
from npusim.cost import buffering_kernels as buf
from npusim.cost import columns as col
from npusim.cost.blocks_kernels import find_block
from npusim.cost.cycles_kernels import byte_access, element_access, memory_traffic, op_cycles, put
from npusim.cost.weight_sizes_kernels import find_slices, slice_bytes

HAS_WEIGHTS, CAN_SLICE, CAN_STAGE_IFM = range(col.ROW_COLUMNS, col.ROW_COLUMNS + 3)
"""Whether it has weights; whether they may be cut; whether the NPU computes the ifm."""
IFM_IS_CONSTANT, IFM2_IS_CONSTANT, TABLE_BYTES = range(col.ROW_COLUMNS + 3, col.ROW_COLUMNS + 6)
"""Bytes of a table that the operation waits for."""
STATISTICS = col.ROW_COLUMNS + 6
OP_COLUMNS = STATISTICS + 2

ENTRY_BLOCK = 0
ENTRY_PERF = ENTRY_BLOCK + col.BLOCKS_COLUMNS
ENTRY_RUN = ENTRY_PERF + buf.N_PERF
ENTRY_WEIGHTS, ENTRY_SCALES, FITS = range(ENTRY_RUN + 1, ENTRY_RUN + 4)
ENTRY_MOVED = FITS + 1
ENTRY_FETCHES = ENTRY_MOVED + col.WEIGHT_FETCHES
ENTRY_COLUMNS = ENTRY_MOVED + col.ACCESS_COLUMNS
"""The block; how the operation runs with all weights in one piece where they are stored; its cycles
then; bytes of the streams, and of biases and scales; whether a block fits; what is moved."""

FREE = -1
_MIX = np.uint64(0x9E3779B97F4A7C15)
_SHIFT = np.uint64(29)
_PLACES, _BYTES = range(buf.ROOM[0], buf.ROOM[0] + 2)
ROWS = buf.ROOM[0] + 2, buf.ROOM[1]
"""Short arrays of `fill_entry`, behind those of `buffering_kernels.performance`."""


@leaf_kernel
def mixed(key: Any, n_columns: Any) -> Any:
    """A hash of the first n_columns of key i64, u64."""
    found = np.uint64(n_columns)
    for i in range(n_columns):
        found = (found ^ np.uint64(key[i])) * _MIX
        found ^= found >> _SHIFT
    return found


@leaf_kernel
def same(first: Any, second: Any, n_columns: Any) -> Any:
    """Whether the first n_columns of two lines are equal."""
    n = 0
    while n < n_columns and first[n] == second[n]:
        n += 1
    return n == n_columns


@leaf_kernel
def find_entries(ops: Any, known: Any, n: Any, slots: Any, found: Any) -> Any:
    """Fill found i64 [n_ops] with the line of each of ops in known; return how many that has.

    ops i64 [n_ops, n_columns] may be lines of any kind; known i64 [n_max, n_columns] gets what is
    new behind its first n lines; slots i64, of a power of two larger than n_max, is its index: -1
    where nothing is.
    """
    n_columns = ops.shape[1]
    mask = np.uint64(slots.size - 1)
    for i in range(ops.shape[0]):
        at = mixed(ops[i], n_columns) & mask
        while slots[at] != FREE and not same(known[slots[at]], ops[i], n_columns):
            at = (at + np.uint64(1)) & mask
        if slots[at] == FREE:
            put(ops[i], known[n])
            slots[at] = n
            n += 1
        found[i] = slots[at]
    return n


@leaf_kernel
def index_lines(known: Any, n: Any, slots: Any) -> None:
    """Put the first n lines of known i64 [n_max, n_columns], no two of them equal, into slots."""
    mask = np.uint64(slots.size - 1)
    for i in range(n):
        at = mixed(known[i], known.shape[1]) & mask
        while slots[at] != FREE:
            at = (at + np.uint64(1)) & mask
        slots[at] = i


@leaf_kernel
def set_places(op: Any, roles: Any, places: Any) -> None:
    """Write where an operation's data is, i64 [6], with the place of a buffer."""
    maps, stored, staging = roles[0], roles[1], roles[2]
    places[col.IFM_PLACE] = stored if op[IFM_IS_CONSTANT] else maps
    places[col.IFM2_PLACE] = stored if op[IFM2_IS_CONSTANT] else maps
    places[col.OFM_PLACE] = places[col.SCRATCH_PLACE] = maps
    places[col.CONSTANT_PLACE], places[col.BUFFER_PLACE] = stored, staging


@kernel
def fill_blocks(ops: Any, npu: Any, room: Any, entries: Any) -> None:
    """Write blocks to entries, and whether there are any; room (search, extents) as of
    `blocks_kernels.find_block`."""
    search, extents = room
    best, trial = np.empty(2, np.float32), np.empty(col.BLOCK_COLUMNS, np.int64)
    for i in range(ops.shape[0]):
        entry = entries[i]
        row, block = ops[i, : col.ROW_COLUMNS], entry[ENTRY_BLOCK:ENTRY_PERF]
        entry[FITS] = find_block(row, npu, search, extents, best, trial, block)


@leaf_kernel
def fill_sizes(ops: Any, statistics: Any, law: Any, npu: Any, entries: Any) -> None:
    """Write the bytes that weights are expected to take to entries that have blocks; statistics f64
    [n_ops, 2] as the last columns of ops."""
    for i in range(ops.shape[0]):
        op, entry = ops[i], entries[i]
        entry[ENTRY_WEIGHTS] = entry[ENTRY_SCALES] = 0
        if entry[FITS] and op[HAS_WEIGHTS]:
            row = op[: col.ROW_COLUMNS]
            streams, scales = slice_bytes(row, npu, row[col.OFM_DEPTH], statistics[i], law)
            entry[ENTRY_WEIGHTS], entry[ENTRY_SCALES] = streams, scales


@leaf_kernel
def find_sizes(first: Any, ops: Any, table: Any, entries: Any) -> Any:
    """Write the bytes of weights, from operation `first` on, that a table of slices has in one
    piece; return the first operation whose it does not have, or how many operations there are."""
    for i in range(first, ops.shape[0]):
        op, entry = ops[i], entries[i]
        entry[ENTRY_WEIGHTS] = entry[ENTRY_SCALES] = 0
        if op[HAS_WEIGHTS] == 0 or op[col.UNIT] == col.CPU:
            continue
        depth = op[col.OFM_DEPTH]
        at, n = find_slices(i, entry[col.OFM_BLOCK_DEPTH], depth, depth, table)
        if n == 0:
            return i
        entry[ENTRY_WEIGHTS], entry[ENTRY_SCALES] = table[2][at, 0], table[2][at, 1]
    return ops.shape[0]


@leaf_kernel
def fill_entry(op: Any, height: Any, machine: Any, room: Any, entry: Any, alone: Any) -> None:
    """`fill_entries` of one operation; room (rows i64 `ROWS`, where the only slice begins and ends
    i64 [2], from 0 on, traffic i64 [n_memories, TRAFFIC_COLUMNS])."""
    npu, rates, memories, roles = machine
    rows, once, traffic = room
    row, block = op[: col.ROW_COLUMNS], entry[ENTRY_BLOCK:ENTRY_PERF]
    entry[ENTRY_PERF:ENTRY_WEIGHTS] = 0
    entry[ENTRY_MOVED:] = 0
    alone[:] = 0
    if row[col.UNIT] == col.CPU:
        return
    if not entry[FITS]:
        alone[:] = -1
        return
    at, places = rows[0, : col.PLACE_COLUMNS], rows[_PLACES, : col.PLACE_COLUMNS]
    elements, cycles = rows[2, : col.ACCESS_COLUMNS], rows[3, : col.CYCLE_COLUMNS]
    set_places(op, roles, places)
    put(places, at)
    at[col.BUFFER_PLACE] = -1
    op_cycles(row, block, npu, rates, memories, at, cycles)
    element_access(row, block, npu, elements)
    byte_access(row, block, npu, memories, at, elements, entry[ENTRY_MOVED:])
    entry[ENTRY_RUN] = cycles[col.OP_CYCLES]
    if op[HAS_WEIGHTS]:
        n_bytes = rows[_BYTES, :1]
        n_bytes[0] = entry[ENTRY_WEIGHTS] + entry[ENTRY_SCALES]
        once[1] = row[col.OFM_DEPTH]
        buf.performance(
            *(row, block, (npu, rates, memories, places), once, n_bytes),
            *((height, 0, 0, 0), rows, entry[ENTRY_PERF:ENTRY_RUN]),
        )
        return
    memory_traffic(entry[ENTRY_MOVED:], 0, memories, at, traffic)
    alone[0] = alone[1] = cycles[col.OP_CYCLES]
    for memory in range(traffic.shape[0]):
        alone[0] = max(alone[0], traffic[memory, col.MEMORY_CYCLES])


@leaf_kernel
def resize_entry(
    op: Any, statistics: Any, law: Any, machine: Any, entry: Any, room: Any, own: Any
) -> None:
    """Write to own i64 [ENTRY_COLUMNS] what entry is, all rows at a time, if the bytes of the
    weights follow another law; statistics f64 [2] of them; room (that of `fill_entry`, alone i64
    [2])."""
    for_entry, alone = room
    put(entry, own)
    streams, scales = slice_bytes(op, machine[0], op[col.OFM_DEPTH], statistics, law)
    own[ENTRY_WEIGHTS], own[ENTRY_SCALES] = streams, scales
    fill_entry(op, op[col.OFM_HEIGHT], machine, for_entry, own, alone)


@kernel
def fill_entries(ops: Any, heights: Any, machine: Any, entries: Any, alone: Any) -> None:
    """Write the rest of entries that have blocks and sizes, for stripes of so many rows, heights
    i64 [n_ops]. And to alone i64 [n_ops, 2] cycles, total and of the NPU, of operations without
    weights and tables; -1 where no block fits."""
    memories = machine[2]
    rows, once = np.empty(ROWS, np.int64), np.zeros(2, np.int64)
    traffic = np.empty((memories.shape[0], col.TRAFFIC_COLUMNS), np.int64)
    for i in range(ops.shape[0]):
        fill_entry(ops[i], heights[i], machine, (rows, once, traffic), entries[i], alone[i])
