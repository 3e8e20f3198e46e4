# SPDX-License-Identifier: Apache-2.0
"""Kernels of `npusim.cost.batch`: how an operation gets its weights after the one before it.

ops, entries and machine are those of `npusim.cost.entries_kernels`. plan i64 [PLAN_COLUMNS] is how
an operation runs; before (plan, whether there is one, whether the NPU executes it) is that of the
operation before. The twins are `npusim.cost.buffering.Buffering` and `npusim.cost.schedule`.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from npusim._jit import kernel, leaf_kernel
from npusim.cost import buffering_kernels as buf
from npusim.cost import columns as col
from npusim.cost.cycles_kernels import (
    copy_cycles,
    memory_traffic,
    min_read_cycles,
    op_cycles,
    transfer_cycles,
)
from npusim.cost.entries_kernels import (
    CAN_SLICE,
    CAN_STAGE_IFM,
    ENTRY_BLOCK,
    ENTRY_FETCHES,
    ENTRY_MOVED,
    ENTRY_PERF,
    ENTRY_RUN,
    ENTRY_SCALES,
    ENTRY_WEIGHTS,
    HAS_WEIGHTS,
    TABLE_BYTES,
    set_places,
)
from npusim.cost.weight_sizes_kernels import slice_bytes
from npusim.weights.format import SCALE_BYTES as CHANNEL_BYTES

NPU_CYCLES, TOTAL_CYCLES, SLACK_CYCLES, SLACK_BYTES = range(4)
"""Cycles of the NPU, of the slower of it and the memories; what the next one hides a transfer
under, and room for its buffer."""
WEIGHT_BYTES, SCALE_BYTES, HALF0, HALF1, PRE_BUFFERED, N_SLICES = range(4, 10)
PLAN_COLUMNS = 10
MAX_SLICES = 4096
UNLIMITED = 1 << 30


@leaf_kernel
def set_facts(op: Any, entry: Any, before: Any, sharing: Any, machine: Any, facts: Any) -> None:
    """Write what the choice of a buffer depends on; before (plan, whether there is one, whether the
    NPU executes it)."""
    _, _, memories, roles = machine
    plan, exists, on_npu = before
    stored, staging = roles[1], roles[2]
    n_bytes = entry[ENTRY_WEIGHTS] + entry[ENTRY_SCALES]
    facts[:] = 0.0
    facts[buf.OFM_DEPTH], facts[buf.BLOCK_DEPTH] = op[col.OFM_DEPTH], entry[col.OFM_BLOCK_DEPTH]
    facts[buf.WEIGHT_BYTES], facts[buf.FETCHES] = n_bytes, entry[ENTRY_FETCHES]
    facts[buf.TRANSFER_CYCLES] = copy_cycles(n_bytes, stored, staging, memories)
    facts[buf.STORED_CYCLES] = min_read_cycles(n_bytes, stored, memories) * entry[ENTRY_FETCHES]
    facts[buf.BUFFER_CYCLES] = min_read_cycles(n_bytes, staging, memories) * entry[ENTRY_FETCHES]
    facts[buf.SLACK_CYCLES] = plan[SLACK_CYCLES] if exists else 0
    facts[buf.SLACK_BYTES] = plan[SLACK_BYTES] if exists else UNLIMITED
    facts[buf.LIMIT_BYTES] = UNLIMITED
    facts[buf.CAN_SLICE], facts[buf.CAN_PRE_BUFFER] = op[CAN_SLICE], exists
    facts[buf.STARTS_NPU] = not exists or not on_npu
    facts[buf.N_SHARING], facts[buf.N_STRIPES] = sharing, 1
    facts[buf.RUN_CYCLES] = entry[ENTRY_PERF + buf.RUN]
    facts[buf.READ_CYCLES] = entry[ENTRY_PERF + buf.WEIGHT_READ]
    facts[buf.STAGED_IFM_CYCLES] = entry[ENTRY_PERF + buf.STAGED_IFM_READ]
    facts[buf.CAN_STAGE_IFM] = op[CAN_STAGE_IFM]


@leaf_kernel
def measure_slices(
    op: Any, npu: Any, depths: Any, n: Any, statistics: Any, law: Any, sizes: Any
) -> Any:
    """Write the bytes i64 [n, 2] of n slices; return the most of one."""
    most = 0
    for i in range(n):
        depth = depths[i + 1] - depths[i]
        if i > 1 and depth == depths[i] - depths[i - 1]:
            sizes[i, 0], sizes[i, 1] = sizes[i - 1, 0], sizes[i - 1, 1]
        else:
            streams, scales = slice_bytes(op, npu, depth, statistics, law)
            sizes[i, 0], sizes[i, 1] = streams, scales
        most = max(most, sizes[i, 0] + sizes[i, 1])
    return most


@leaf_kernel
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
    """Cycles of a first slice of `depth` channels, buffered, before the next one."""
    npu, rates, memories, roles = machine
    row, places = op[: col.ROW_COLUMNS].copy(), np.empty(col.PLACE_COLUMNS, np.int64)
    cycles = np.empty(col.CYCLE_COLUMNS, np.int64)
    set_places(op, roles, places)
    row[col.OFM_DEPTH] = depth
    op_cycles(row, entry[ENTRY_BLOCK:ENTRY_PERF], npu, rates, memories, places, cycles)
    return cycles[col.OP_CYCLES] - cycles[col.DRAIN_CYCLES]


@leaf_kernel
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


@leaf_kernel
def yields(facts: Any, entry: Any, next_entry: Any, perf: Any, buffer_bytes: Any, room: Any) -> Any:
    """Whether the arena is better left to the ifm of the operation that reads the ofm. The twin is
    `npusim.cost.buffering.Buffering._yields`."""
    run, after = entry[ENTRY_PERF:ENTRY_RUN], next_entry[ENTRY_PERF:ENTRY_RUN]
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
        sizes[0, 0], sizes[0, 1] = entry[ENTRY_WEIGHTS], entry[ENTRY_SCALES]
    totals = np.empty(n, np.int64)
    half0, half1 = 0, 0
    for i in range(n):
        totals[i] = sizes[i, 0] + sizes[i, 1]
        if i % 2:
            half1 = max(half1, totals[i])
        else:
            half0 = max(half0, totals[i])
    double = half1 > 0 and half0 + half1 <= UNLIMITED
    if not double:
        half0, half1 = max(half0, half1), 0
        if half0 > UNLIMITED:
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
        entry[ENTRY_BLOCK:ENTRY_PERF],
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
    plan[SLACK_BYTES] = UNLIMITED - last
    return sizes[0, 0] + (CHANNEL_BYTES * (depths[1] - depths[0]) if sizes[0, 1] > 0 else 0)


@leaf_kernel
def table_wait(n_bytes: Any, machine: Any) -> Any:
    """Cycles to copy a look-up table to the NPU's own memory, which takes a byte a cycle, i64."""
    _, _, memories, roles = machine
    stored = roles[1]
    read = transfer_cycles(n_bytes, stored, memories) + int(memories[stored, col.READ_LATENCY])
    return max(read, n_bytes)


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
    plan[SLACK_CYCLES], plan[SLACK_BYTES], plan[N_SLICES] = entry[ENTRY_RUN], UNLIMITED, 1
    plan[WEIGHT_BYTES], plan[SCALE_BYTES] = entry[ENTRY_WEIGHTS], entry[ENTRY_SCALES]
    first = 0
    if op[HAS_WEIGHTS]:
        first = set_buffer(op, entry, next_entry, before, how, machine, known, depths, sizes, plan)
    places, cycles = np.empty(col.PLACE_COLUMNS, np.int64), np.empty(col.CYCLE_COLUMNS, np.int64)
    moved = entry[ENTRY_MOVED:].copy()
    set_places(op, roles, places)
    copied, run = 0, entry[ENTRY_RUN]
    if plan[HALF0]:
        hidden = first if plan[PRE_BUFFERED] else 0
        copied = max(plan[WEIGHT_BYTES] - hidden, 0)
        op_cycles(
            *(
                op[: col.ROW_COLUMNS],
                entry[ENTRY_BLOCK:ENTRY_PERF],
                npu,
                rates,
                memories,
                places,
                cycles,
            )
        )
        run = cycles[col.OP_CYCLES]
    else:
        places[col.BUFFER_PLACE] = -1
    moved[col.WEIGHTS_READ] = entry[ENTRY_FETCHES] * plan[WEIGHT_BYTES]
    moved[col.SCALES_READ] = entry[ENTRY_FETCHES] * plan[SCALE_BYTES]
    memory_traffic(moved, copied, memories, places, traffic)
    table = table_wait(op[TABLE_BYTES], machine) if op[TABLE_BYTES] else 0
    slack = before[0][SLACK_CYCLES] if before[1] else 0
    if plan[HALF0]:
        stored, staging = roles[1], roles[2]
        whole = copy_cycles(entry[ENTRY_WEIGHTS] + entry[ENTRY_SCALES], stored, staging, memories)
        waiting = run + max(copy_cycles(first, stored, staging, memories) - slack, 0)
        plan[NPU_CYCLES] = max(whole - slack + plan[SLACK_CYCLES], waiting) + table
    else:
        plan[NPU_CYCLES] = run + max(table - slack, 0)
    slowest = 0
    for at in range(traffic.shape[0]):
        slowest = max(slowest, traffic[at, col.MEMORY_CYCLES])
    plan[TOTAL_CYCLES] = max(plan[NPU_CYCLES], slowest)
