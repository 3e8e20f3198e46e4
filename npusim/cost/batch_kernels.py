# SPDX-License-Identifier: Apache-2.0
"""Kernels of `npusim.cost.batch`; twin: `npusim.cost.schedule`, operation by operation.

ops i64 [n_ops, OP_COLUMNS] is a row of `npusim.cost.columns`, then the flags named below, then
entropy and part of zeros of the weights, whose 64 bits are those of a f64. entries i64 [n_entries,
ENTRY_COLUMNS] is what one machine makes of one such operation on its own; machine (npu, rates,
memories, roles), roles i64 [4]: lines of memories for maps, constants and buffers, and the bytes
that the NPU's own port moves in a cycle.

plan i64 [PLAN_COLUMNS] is how an operation runs after the one before it. memo (keys i64 [n,
KEY_COLUMNS], plans i64 [n, PLAN_COLUMNS], slots i64, moves i64 [m, 2], counts i64 [2]) keeps plans
by what they depend on; plan 0 is that of every operation of the CPU. slots is the index of keys,
moves tells the plan that follows another one, both of a power of two; counts says how many plans
and moves there are.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from npusim._jit import kernel
from npusim.cost import buffering_kernels as buf
from npusim.cost import columns as col
from npusim.cost.blocks_kernels import find_block
from npusim.cost.cycles_kernels import (
    byte_access,
    copy_cycles,
    element_access,
    memory_traffic,
    min_read_cycles,
    op_cycles,
    transfer_cycles,
)
from npusim.cost.memory_kernels import find_ranges, peak
from npusim.cost.weight_sizes_kernels import slice_bytes

HAS_WEIGHTS, CAN_SLICE, CAN_STAGE_IFM = range(col.ROW_COLUMNS, col.ROW_COLUMNS + 3)
"""Whether it has weights; whether they may be cut; whether the NPU computes the ifm."""
IFM_IS_CONSTANT, IFM2_IS_CONSTANT, TABLE_BYTES = range(col.ROW_COLUMNS + 3, col.ROW_COLUMNS + 6)
"""Bytes of a table that the operation waits for."""
STATISTICS = col.ROW_COLUMNS + 6
OP_COLUMNS = STATISTICS + 2

READER, N_SHARING, SAME_AS_BEFORE, SAME_WEIGHTS, NEW_SCALES = range(5)
"""Of links: the first operation that reads the ofm, or -1; operations that read the same weights if
the neighbour is one of them, else 1; whether the one before is; the last earlier one, or -1;
whether the scales are not those of that one."""
LINK_COLUMNS = 5

_BLOCK = 0
_PERF = _BLOCK + col.BLOCKS_COLUMNS
_RUN = _PERF + buf.N_PERF
_WEIGHTS, _SCALES, FITS = range(_RUN + 1, _RUN + 4)
_MOVED = FITS + 1
_FETCHES = _MOVED + col.WEIGHT_FETCHES
ENTRY_COLUMNS = _MOVED + col.ACCESS_COLUMNS

NPU_CYCLES, TOTAL_CYCLES, SLACK_CYCLES, SLACK_BYTES = range(4)
"""Cycles of the NPU, of the slower of it and the memories; what the next one hides a transfer
under, and room for its buffer."""
WEIGHT_BYTES, SCALE_BYTES, HALF0, HALF1, PRE_BUFFERED, N_SLICES = range(4, 10)
PLAN_COLUMNS = 10
KEY_COLUMNS = 5

MAX_SLICES = 4096
_UNLIMITED = 1 << 30
_FREE = -1
_MIX = np.uint64(0x9E3779B97F4A7C15)
_SHIFT = np.uint64(29)
_FULL = 0.6
_ENTRY_BITS = 20
ENTRIES_MAX = 1 << _ENTRY_BITS


@kernel
def mixed(key: Any, n_columns: Any) -> Any:
    """A hash of the first n_columns of key i64, u64."""
    found = np.uint64(n_columns)
    for i in range(n_columns):
        found = (found ^ np.uint64(key[i])) * _MIX
        found ^= found >> _SHIFT
    return found


@kernel
def same(first: Any, second: Any, n_columns: Any) -> Any:
    """Whether the first n_columns of two lines are equal."""
    n = 0
    while n < n_columns and first[n] == second[n]:
        n += 1
    return n == n_columns


@kernel
def find_entries(ops: Any, known: Any, n: Any, slots: Any, found: Any) -> Any:
    """Fill found i64 [n_ops] with each operation's line in known; return how many that has.

    known i64 [n_max, OP_COLUMNS] gets what is new behind its first n lines; slots i64, of a power
    of two larger than n_max, is its index: -1 where nothing is.
    """
    mask = np.uint64(slots.size - 1)
    for i in range(ops.shape[0]):
        at = mixed(ops[i], OP_COLUMNS) & mask
        while slots[at] != _FREE and not same(known[slots[at]], ops[i], OP_COLUMNS):
            at = (at + np.uint64(1)) & mask
        if slots[at] == _FREE:
            known[n] = ops[i]
            slots[at] = n
            n += 1
        found[i] = slots[at]
    return n


@kernel
def index_entries(known: Any, first: Any, n: Any, slots: Any) -> None:
    """Put lines first..n-1 of known, none of which are equal, into slots."""
    mask = np.uint64(slots.size - 1)
    for i in range(first, n):
        at = mixed(known[i], OP_COLUMNS) & mask
        while slots[at] != _FREE:
            at = (at + np.uint64(1)) & mask
        slots[at] = i


@kernel
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
        row, block = ops[i, : col.ROW_COLUMNS], entry[_BLOCK:_PERF]
        entry[FITS] = find_block(row, npu, search, extents, best, trial, block)


@kernel
def fill_entries(ops: Any, statistics: Any, law: Any, machine: Any, entries: Any) -> None:
    """Write the rest of entries that have blocks; statistics f64 [n_ops, 2] as the last columns of
    ops."""
    npu, rates, memories, roles = machine
    places, at = np.empty(col.PLACE_COLUMNS, np.int64), np.empty(col.PLACE_COLUMNS, np.int64)
    elements = np.empty(col.ACCESS_COLUMNS, np.int64)
    cycles = np.empty(col.CYCLE_COLUMNS, np.int64)
    depths, n_bytes = np.zeros(2, np.int64), np.empty(1, np.int64)
    how = np.zeros(4, np.int64)
    for i in range(ops.shape[0]):
        op, entry = ops[i], entries[i]
        row, block = op[: col.ROW_COLUMNS], entry[_BLOCK:_PERF]
        entry[_PERF:FITS] = 0
        entry[_MOVED:] = 0
        if row[col.UNIT] == col.CPU or not entry[FITS]:
            continue
        set_places(op, roles, places)
        at[:] = places
        at[col.BUFFER_PLACE] = -1
        op_cycles(row, block, npu, rates, memories, at, cycles)
        element_access(row, block, npu, elements)
        byte_access(row, block, npu, memories, at, elements, entry[_MOVED:])
        entry[_RUN] = cycles[col.OP_CYCLES]
        if op[HAS_WEIGHTS]:
            streams, scales = slice_bytes(row, npu, row[col.OFM_DEPTH], statistics[i], law)
            entry[_WEIGHTS], entry[_SCALES] = streams, scales
            depths[1], n_bytes[0], how[0] = (
                row[col.OFM_DEPTH],
                streams + scales,
                row[col.OFM_HEIGHT],
            )
            buf.performance(
                *(row, block, (npu, rates, memories, places), depths, n_bytes, how),
                entry[_PERF:_RUN],
            )


@kernel
def set_facts(op: Any, entry: Any, before: Any, sharing: Any, machine: Any, facts: Any) -> None:
    """Write what the choice of a buffer depends on; before (plan, whether there is one, whether the
    NPU executes it)."""
    _, _, memories, roles = machine
    plan, exists, on_npu = before
    stored, staging = roles[1], roles[2]
    n_bytes = entry[_WEIGHTS] + entry[_SCALES]
    facts[:] = 0.0
    facts[buf.OFM_DEPTH], facts[buf.BLOCK_DEPTH] = op[col.OFM_DEPTH], entry[col.OFM_BLOCK_DEPTH]
    facts[buf.WEIGHT_BYTES], facts[buf.FETCHES] = n_bytes, entry[_FETCHES]
    facts[buf.TRANSFER_CYCLES] = copy_cycles(n_bytes, stored, staging, memories)
    facts[buf.STORED_CYCLES] = min_read_cycles(n_bytes, stored, memories) * entry[_FETCHES]
    facts[buf.BUFFER_CYCLES] = min_read_cycles(n_bytes, staging, memories) * entry[_FETCHES]
    facts[buf.SLACK_CYCLES] = plan[SLACK_CYCLES] if exists else 0
    facts[buf.SLACK_BYTES] = plan[SLACK_BYTES] if exists else _UNLIMITED
    facts[buf.LIMIT_BYTES] = _UNLIMITED
    facts[buf.CAN_SLICE], facts[buf.CAN_PRE_BUFFER] = op[CAN_SLICE], exists
    facts[buf.STARTS_NPU] = not exists or not on_npu
    facts[buf.N_SHARING], facts[buf.N_STRIPES] = sharing, 1
    facts[buf.RUN_CYCLES] = entry[_PERF + buf.RUN]
    facts[buf.READ_CYCLES] = entry[_PERF + buf.WEIGHT_READ]
    facts[buf.STAGED_IFM_CYCLES] = entry[_PERF + buf.STAGED_IFM_READ]
    facts[buf.CAN_STAGE_IFM] = op[CAN_STAGE_IFM]


@kernel
def measure_slices(
    op: Any, npu: Any, depths: Any, n: Any, statistics: Any, law: Any, sizes: Any
) -> Any:
    """Write the bytes i64 [n, 2] of n slices; return the most of one."""
    most = 0
    for i in range(n):
        depth = depths[i + 1] - depths[i]
        if i > 1 and depth == depths[i] - depths[i - 1]:
            sizes[i] = sizes[i - 1]
        else:
            streams, scales = slice_bytes(op, npu, depth, statistics, law)
            sizes[i, 0], sizes[i, 1] = streams, scales
        most = max(most, sizes[i, 0] + sizes[i, 1])
    return most


@kernel
def cut_depth(first: Any, step: Any, depth: Any, depths: Any) -> Any:
    """Write where slices begin and the last ends; return how many there are."""
    n, at = 1, first
    depths[0] = 0
    while at < depth:
        depths[n] = at
        at, n = at + step, n + 1
    depths[n] = depth
    return n


@kernel
def first_run(op: Any, entry: Any, depth: Any, machine: Any) -> Any:
    """Cycles of a first slice of `depth` channels, unbuffered, before the next one."""
    npu, rates, memories, roles = machine
    row, places = op[: col.ROW_COLUMNS].copy(), np.empty(col.PLACE_COLUMNS, np.int64)
    cycles = np.empty(col.CYCLE_COLUMNS, np.int64)
    set_places(op, roles, places)
    places[col.BUFFER_PLACE] = -1
    row[col.OFM_DEPTH] = depth
    op_cycles(row, entry[_BLOCK:_PERF], npu, rates, memories, places, cycles)
    return cycles[col.OP_CYCLES] - cycles[col.DRAIN_CYCLES]


@kernel
def cut_weights(
    op: Any,
    entry: Any,
    facts: Any,
    machine: Any,
    statistics: Any,
    law: Any,
    depths: Any,
    sizes: Any,
) -> Any:
    """Write where weights are cut, and the slices' bytes; return how many there are, 0 where they
    would waste too much of their blocks. The twin is `npusim.cost.buffering.Buffering._cut`."""
    depth, half = int(facts[buf.OFM_DEPTH]), int(facts[buf.LIMIT_BYTES]) // 2
    ratio = buf.first_slice_ratio(facts)
    n = cut_depth(depth, depth, depth, depths)
    if ratio >= 1.0:
        measure_slices(op, machine[0], depths, n, statistics, law, sizes)
        return n
    first, step = int(buf.first_slice_depth(facts, ratio)), 0
    if first < depth:
        step = int(buf.next_slices_depth(facts, first_run(op, entry, first, machine)))
    if not step:
        measure_slices(op, machine[0], depths, n, statistics, law, sizes)
    while step:
        step = int(buf.whole_blocks(facts, step))
        n = cut_depth(first, step, depth, depths)
        largest = measure_slices(op, machine[0], depths, n, statistics, law, sizes)
        if largest <= half or (first == buf.SPLIT_DEPTH and step == buf.SPLIT_DEPTH):
            break
        if step > first:
            step = (step // 2 + buf.SPLIT_DEPTH - 1) // buf.SPLIT_DEPTH * buf.SPLIT_DEPTH
        else:
            first = (first // 2 + buf.SPLIT_DEPTH - 1) // buf.SPLIT_DEPTH * buf.SPLIT_DEPTH
    if n > 2 and not buf.fills_blocks(facts, step):
        return 0
    return n


@kernel
def yields(facts: Any, entry: Any, next_entry: Any, perf: Any, buffer_bytes: Any, room: Any) -> Any:
    """Whether the arena is better left to the ifm of the operation that reads the ofm. The twin is
    `npusim.cost.buffering.Buffering._yields`."""
    run, after = entry[_PERF:_RUN], next_entry[_PERF:_RUN]
    together = after[buf.IFM_BYTES] + perf[buf.IFM_BYTES] + buffer_bytes
    read = max(after[buf.WEIGHT_READ], after[buf.IFM_READ])
    if after[buf.WEIGHT_READ] <= 0 or after[buf.IFM_READ] <= 2 * after[buf.WEIGHT_READ]:
        return False
    if after[buf.RUN] > read or after[buf.IFM_BYTES] >= facts[buf.LIMIT_BYTES] or together <= room:
        return False
    longest = run[buf.RUN] > max(run[buf.WEIGHT_READ], run[buf.IFM_READ])
    return longest or after[buf.IFM_READ] > perf[buf.IFM_READ]


@kernel
def set_buffer(
    op: Any,
    entry: Any,
    next_entry: Any,
    before: Any,
    how: Any,
    machine: Any,
    known: Any,
    depths: Any,
    sizes: Any,
    plan: Any,
) -> Any:
    """Write the plan's bytes, buffer and slack if the weights are worth a buffer; return the number
    of cycles of the first transfer. how (sharing, whether the ofm has a reader on the NPU); known
    (statistics, law)."""
    sharing, has_reader = how
    statistics, law = known
    _, _, memories, roles = machine
    facts = np.empty(buf.N_FACTS, np.float64)
    set_facts(op, entry, before, sharing, machine, facts)
    if roles[1] == roles[2]:
        return 0
    way = buf.choose_way(facts)
    if way == buf.UNBUFFERED:
        return 0
    if way == buf.SLICED:
        n = cut_weights(op, entry, facts, machine, statistics, law, depths, sizes)
        if n == 0:
            return 0
    else:
        n = cut_depth(op[col.OFM_DEPTH], 1, op[col.OFM_DEPTH], depths)
        sizes[0, 0], sizes[0, 1] = entry[_WEIGHTS], entry[_SCALES]
    totals = np.empty(n, np.int64)
    half0, half1 = 0, 0
    for i in range(n):
        totals[i] = sizes[i, 0] + sizes[i, 1]
        if i % 2:
            half1 = max(half1, totals[i])
        else:
            half0 = max(half0, totals[i])
    double = half1 > 0 and half0 + half1 <= _UNLIMITED
    if not double:
        half0, half1 = max(half0, half1), 0
        if half0 > _UNLIMITED:
            return 0
    early = facts[buf.CAN_PRE_BUFFER] and half0 < facts[buf.SLACK_BYTES]
    slack = int(facts[buf.SLACK_CYCLES]) if early else 0
    if not early and buf.starts_network(facts):
        slack = buf.STARTUP_CYCLES
    places, perf = np.empty(col.PLACE_COLUMNS, np.int64), np.empty(buf.N_PERF, np.int64)
    set_places(op, roles, places)
    row = op[: col.ROW_COLUMNS]
    run_as = np.array([row[col.OFM_HEIGHT], slack, 1, double], np.int64)
    npu, rates, memories, _ = machine
    buf.performance(
        row,
        entry[_BLOCK:_PERF],
        (npu, rates, memories, places),
        depths[: n + 1],
        totals,
        run_as,
        perf,
    )
    if way != buf.SHARED:
        room = before[0][SLACK_BYTES] if before[1] else 0
        staged = facts[buf.CAN_STAGE_IFM] and has_reader
        if staged and yields(facts, entry, next_entry, perf, half0 + half1, room):
            return 0
        if not buf.is_worth_it(facts, perf, n, half0 + half1):
            return 0
    plan[WEIGHT_BYTES], plan[SCALE_BYTES] = sizes[:n, 0].sum(), sizes[:n, 1].sum()
    plan[HALF0], plan[HALF1], plan[PRE_BUFFERED], plan[N_SLICES] = half0, half1, early, n
    plan[SLACK_CYCLES] = perf[buf.LAST_SLICE]
    last = half1 if double and (n - 1) % 2 else half0
    plan[SLACK_BYTES] = _UNLIMITED - last
    return totals[0]


@kernel
def table_wait(n_bytes: Any, machine: Any) -> Any:
    """Cycles to copy a look-up table to the NPU's own memory, i64."""
    _, _, memories, roles = machine
    stored = roles[1]
    read = transfer_cycles(n_bytes, stored, memories) + int(memories[stored, col.READ_LATENCY])
    return max(read, n_bytes // roles[3] + int(memories[stored, col.WRITE_LATENCY]))


@kernel
def make_plan(
    op: Any,
    entry: Any,
    next_entry: Any,
    before: Any,
    how: Any,
    machine: Any,
    known: Any,
    room: Any,
    plan: Any,
) -> None:
    """Write the plan of an operation of the NPU; arguments as of `set_buffer`, room (depths i64
    [MAX_SLICES], sizes i64 [MAX_SLICES, 2], traffic i64 [n_memories, 4])."""
    npu, rates, memories, roles = machine
    depths, sizes, traffic = room
    plan[:] = 0
    plan[SLACK_CYCLES], plan[SLACK_BYTES], plan[N_SLICES] = entry[_RUN], _UNLIMITED, 1
    plan[WEIGHT_BYTES], plan[SCALE_BYTES] = entry[_WEIGHTS], entry[_SCALES]
    first = 0
    if op[HAS_WEIGHTS]:
        first = set_buffer(op, entry, next_entry, before, how, machine, known, depths, sizes, plan)
    places, cycles = np.empty(col.PLACE_COLUMNS, np.int64), np.empty(col.CYCLE_COLUMNS, np.int64)
    moved = entry[_MOVED:].copy()
    set_places(op, roles, places)
    copied, run = 0, entry[_RUN]
    if plan[HALF0]:
        hidden = first if plan[PRE_BUFFERED] else 0
        copied = max(plan[WEIGHT_BYTES] - hidden, 0)
        op_cycles(
            *(op[: col.ROW_COLUMNS], entry[_BLOCK:_PERF], npu, rates, memories, places, cycles)
        )
        run = cycles[col.OP_CYCLES]
    else:
        places[col.BUFFER_PLACE] = -1
    moved[col.WEIGHTS_READ] = entry[_FETCHES] * plan[WEIGHT_BYTES]
    moved[col.SCALES_READ] = entry[_FETCHES] * plan[SCALE_BYTES]
    memory_traffic(moved, copied, memories, places, traffic)
    table = table_wait(op[TABLE_BYTES], machine) if op[TABLE_BYTES] else 0
    slack = before[0][SLACK_CYCLES] if before[1] else 0
    if plan[HALF0]:
        stored, staging = roles[1], roles[2]
        whole = copy_cycles(entry[_WEIGHTS] + entry[_SCALES], stored, staging, memories)
        waiting = run + max(copy_cycles(first, stored, staging, memories) - slack, 0)
        plan[NPU_CYCLES] = max(whole - slack + plan[SLACK_CYCLES], waiting) + table
    else:
        plan[NPU_CYCLES] = run + max(table - slack, 0)
    slowest = 0
    for at in range(traffic.shape[0]):
        slowest = max(slowest, traffic[at, col.MEMORY_CYCLES])
    plan[TOTAL_CYCLES] = max(plan[NPU_CYCLES], slowest)


@kernel
def find_slot(key: Any, keys: Any, slots: Any) -> Any:
    """Where in slots the line of key i64 [KEY_COLUMNS] is or belongs."""
    mask = np.uint64(slots.size - 1)
    at = mixed(key, KEY_COLUMNS) & mask
    while slots[at] != _FREE and not same(keys[slots[at]], key, KEY_COLUMNS):
        at = (at + np.uint64(1)) & mask
    return np.int64(at)


@kernel
def find_move(code: Any, moves: Any) -> Any:
    """Where in moves code i64 is or belongs."""
    mask = np.uint64(moves.shape[0] - 1)
    mix = np.uint64(code) * _MIX
    at = (mix ^ (mix >> _SHIFT)) & mask
    while moves[at, 0] != _FREE and moves[at, 0] != code:
        at = (at + np.uint64(1)) & mask
    return np.int64(at)


@kernel
def find_plan(
    numbers: Any,
    before: Any,
    how: Any,
    known: Any,
    entries: Any,
    law: Any,
    machine: Any,
    memo: Any,
    room: Any,
) -> Any:
    """The line of an operation's plan, which is made if it is new; -1 where the operation does not
    fit. numbers: its entry, and that of the operation that reads its ofm."""
    ops, statistics = known
    keys, plans, slots, _, counts = memo
    number, next_number = numbers
    op, entry = ops[number], entries[number]
    if op[col.UNIT] == col.CPU:
        return 0
    if not entry[FITS]:
        return -1
    plan, exists, on_npu = before
    sharing, has_reader = how
    key = keys[counts[0]]
    key[0], key[1] = number, next_number
    key[2], key[3] = plan[SLACK_CYCLES], plan[SLACK_BYTES]
    key[4] = ((sharing * 2 + exists) * 2 + on_npu) * 2 + has_reader
    at = find_slot(key, keys, slots)
    if slots[at] == _FREE:
        line = counts[0]
        make_plan(
            *(op, entry, entries[next_number], before, how, machine, (statistics[number], law)),
            *(room, plans[line]),
        )
        slots[at] = line
        counts[0] += 1
    return slots[at]


@kernel
def plan_program(
    index: Any,
    links: Any,
    known: Any,
    entries: Any,
    law: Any,
    machine: Any,
    memo: Any,
    room: Any,
    lines: Any,
) -> Any:
    """Write the line of each operation's plan, i64 [n_ops]; return whether all fit the NPU.

    index i64 [n_ops]: of each operation in known (ops, statistics) and entries.
    """
    _, plans, _, moves, counts = memo
    nothing = np.zeros(PLAN_COLUMNS, np.int64)
    last = -1
    for i in range(index.size):
        number, reader = index[i], links[i, READER]
        next_number = index[reader] if reader >= 0 else number
        sharing = links[i, N_SHARING]
        if sharing > 1 and last >= 0 and plans[last, N_SLICES] > 1:
            sharing = 1
        code = ((last + 1) << _ENTRY_BITS | number) << _ENTRY_BITS | next_number
        code = (code << 1 | (1 if sharing > 1 else 0)) << 1 | (1 if reader >= 0 else 0)
        at = find_move(code, moves)
        if moves[at, 0] == _FREE:
            before = plans[last] if last >= 0 else nothing
            line = find_plan(
                (number, next_number),
                (before, last >= 0, last > 0),
                (sharing, reader >= 0),
                known,
                entries,
                law,
                machine,
                memo,
                room,
            )
            if line < 0:
                return False
            moves[at, 0], moves[at, 1] = code, line
            counts[1] += 1
        last = moves[at, 1]
        lines[i] = last
    return True


@kernel
def is_repeated(i: Any, index: Any, links: Any, entries: Any, lines: Any, plans: Any) -> Any:
    """Whether an earlier operation has the weights of operation i in the same slices and order."""
    other = links[i, SAME_WEIGHTS]
    depth = entries[index[i], col.OFM_BLOCK_DEPTH]
    while other >= 0:
        alike = plans[lines[other], N_SLICES] == plans[lines[i], N_SLICES]
        alike &= plans[lines[other], WEIGHT_BYTES] == plans[lines[i], WEIGHT_BYTES]
        if alike and entries[index[other], col.OFM_BLOCK_DEPTH] == depth:
            return True
        other = links[other, SAME_WEIGHTS]
    return False


@kernel
def weight_costs(index: Any, links: Any, entries: Any, lines: Any, plans: Any) -> Any:
    """Bytes in flash of weights and scales of one program, and those of the weights, counted once
    however they are cut."""
    flash, streams = 0, 0
    for i in range(index.size):
        other = links[i, SAME_WEIGHTS]
        streams += plans[lines[i], WEIGHT_BYTES]
        if other >= 0:
            streams -= plans[lines[other], WEIGHT_BYTES]
        if not is_repeated(i, index, links, entries, lines, plans):
            flash += plans[lines[i], WEIGHT_BYTES] + plans[lines[i], SCALE_BYTES]
        elif links[i, NEW_SCALES]:
            flash += plans[lines[i], SCALE_BYTES]
    return flash, streams


@kernel
def peak_of(table: Any, formats: Any, links: Any, lines: Any, plans: Any, room: Any) -> Any:
    """Bytes that one program has in the arena at once; table (accesses, maps, in_place), room
    (schedule i64 [n_ops, 9], ranges, owners) as of `memory_kernels`."""
    accesses, maps, in_place = table
    schedule, ranges, owners = room
    for i in range(in_place.size):
        line = schedule[i]
        line[:] = 0
        line[0], line[1], line[2] = in_place[i], plans[lines[i], HALF0], plans[lines[i], HALF1]
        line[3] = plans[lines[i], PRE_BUFFERED]
        line[4] = (plans[lines[i], N_SLICES] - 1) % 2 if plans[lines[i], HALF1] else 0
        line[5] = i
        if (
            i
            and links[i, SAME_AS_BEFORE]
            and plans[lines[i], HALF0]
            and plans[lines[i], N_SLICES] == 1
        ):
            alike = (
                plans[lines[i - 1], N_SLICES] == 1
                and plans[lines[i - 1], HALF0] == plans[lines[i], HALF0]
            )
            if alike:
                line[5] = schedule[i - 1, 5]
    n, n_steps = find_ranges(accesses, maps, schedule[: in_place.size], formats, ranges, owners)
    return peak(n, n_steps, ranges)


@kernel
def cost_programs(
    first: Any,
    starts: Any,
    index: Any,
    links: Any,
    table: Any,
    formats: Any,
    known: Any,
    entries: Any,
    law: Any,
    machine: Any,
    memo: Any,
    room: Any,
    costs: Any,
) -> Any:
    """Write costs i64 [n_programs, 5] from program `first` on; return the next one to do.

    They are total cycles, cycles of the NPU, bytes in the arena, in flash, of the weights; -1 where
    an operation does not fit. Stops where memo is full, for it to be emptied. room (lines, that of
    make_plan, that of peak_of).
    """
    accesses, maps, in_place = table
    lines, plan_room, peak_room = room
    keys, plans, _, moves, counts = memo
    for program in range(first, costs.shape[0]):
        a0, m0, o0 = starts[program, 0], starts[program, 1], starts[program, 2]
        a1, m1, o1 = starts[program + 1, 0], starts[program + 1, 1], starts[program + 1, 2]
        n_ops = o1 - o0
        if counts[0] + n_ops >= keys.shape[0] or counts[1] + n_ops > _FULL * moves.shape[0]:
            return program
        own, link, line = index[o0:o1], links[o0:o1], lines[:n_ops]
        if not plan_program(own, link, known, entries, law, machine, memo, plan_room, line):
            costs[program] = -1
            continue
        total, npu = 0, 0
        for i in range(n_ops):
            total += plans[line[i], TOTAL_CYCLES]
            npu += plans[line[i], NPU_CYCLES]
        costs[program, 0], costs[program, 1], costs[program, 2] = total, npu, 0
        if in_place.size:
            uses = accesses[a0:a1], maps[m0:m1], in_place[o0:o1]
            costs[program, 2] = peak_of(uses, formats[m0:m1], link, line, plans, peak_room)
        flash, streams = weight_costs(own, link, entries, line, plans)
        costs[program, 3], costs[program, 4] = flash, streams
    return costs.shape[0]
