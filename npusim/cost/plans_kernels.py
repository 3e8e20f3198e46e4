# SPDX-License-Identifier: Apache-2.0
"""How an operation gets its weights after the one before it: kernels of `npusim.cost.buffering` and
`npusim.cost.batch`; twin: `npusim.cost.reference_plans`.

ops, entries and machine are those of `npusim.cost.entries_kernels`. plan i64 [PLAN_COLUMNS] is how
an operation runs, as `npusim.cost.plan_columns` lays it out; before (plan, whether there is one,
whether the NPU executes it) is that of the operation before. form (neighbours that read the same
weights, whether the ofm has a reader on the NPU, rows of a stripe, whether the operation is in a
cascade, whether it reads a rolling buffer), all i64. known (number i64, statistics f64 [2], law,
table) tells bytes of weights: where table, one of slices, has heads, those of operation `number`
are exact ones. room (depths i64 [n + 2], sizes i64 [n + 2, 2], wanted i64 [3], totals i64 [n + 2],
facts f64 [N_FACTS], rows i64 `ROWS`) is for as many slices as there may be; wanted is written where
the table does not have them: depth of the block, of the first slice, and of the next ones.
"""

from __future__ import annotations

from typing import Any

from npusim._jit import leaf_kernel
from npusim.cost import buffering_kernels as buf
from npusim.cost import columns as col
from npusim.cost.cycles_kernels import (
    copy_cycles,
    memory_traffic,
    min_read_cycles,
    op_cycles,
    put,
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
from npusim.cost.plan_columns import (
    FIRST_BYTES,
    FIRST_DEPTH,
    HALF0,
    HALF1,
    N_SLICES,
    NEXT_DEPTH,
    NPU_CYCLES,
    PRE_BUFFERED,
    SCALE_BYTES,
    SLACK_BYTES,
    SLACK_CYCLES,
    TOTAL_CYCLES,
    TRANSFER_CYCLES,
    UNLIMITED_BYTES,
    WEIGHT_BYTES,
)
from npusim.cost.weight_sizes_kernels import find_slices, slice_bytes
from npusim.weights.format import SCALE_BYTES as CHANNEL_BYTES

MAX_SLICES = 4096
ROWS = buf.ROOM[0] + 4, buf.ROOM[1]
"""Shape of room for short arrays: that of `buffering_kernels.performance`, and those named next."""
_PLACES, _PERF, _MOVED, PLAN_BEFORE = range(buf.ROOM[0], ROWS[0])
_MISSING, _SPOILT = -1, 0
READER, N_SHARING = range(2)
"""Of links: the first operation that reads the ofm, or -1; operations that read the same weights if
the neighbour is one of them, else 1."""


@leaf_kernel
def whole_plan(op: Any, entry: Any, plan: Any) -> None:
    """Write the plan of an operation that reads its weights where they are stored."""
    plan[:] = 0
    plan[N_SLICES], plan[FIRST_DEPTH], plan[NEXT_DEPTH] = 1, op[col.OFM_DEPTH], op[col.OFM_DEPTH]
    if op[col.UNIT] == col.CPU:
        return
    plan[SLACK_CYCLES], plan[SLACK_BYTES] = entry[ENTRY_RUN], UNLIMITED_BYTES
    plan[WEIGHT_BYTES], plan[SCALE_BYTES] = entry[ENTRY_WEIGHTS], entry[ENTRY_SCALES]
    plan[FIRST_BYTES] = unpadded_bytes(entry[ENTRY_WEIGHTS], entry[ENTRY_SCALES], op[col.OFM_DEPTH])


@leaf_kernel
def is_buffered_alike(first: Any, second: Any) -> Any:
    """Whether two plans of an operation cut its weights and buffer them in one way."""
    cuts = first[N_SLICES] == second[N_SLICES] and first[FIRST_DEPTH] == second[FIRST_DEPTH]
    halves = (first[HALF0] > 0) == (second[HALF0] > 0) and (first[HALF1] > 0) == (second[HALF1] > 0)
    return cuts and halves and first[NEXT_DEPTH] == second[NEXT_DEPTH]


@leaf_kernel
def whole_plans(ops: Any, entries: Any, plans: Any) -> None:
    """Write the plans of all operations whose weights stay where they are stored."""
    for i in range(ops.shape[0]):
        whole_plan(ops[i], entries[i], plans[i])


@leaf_kernel
def unpadded_bytes(n_weights: Any, n_scales: Any, depth: Any) -> Any:
    """Bytes of a slice, without what pads its biases and scales; all i64."""
    return n_weights + (CHANNEL_BYTES * depth if n_scales > 0 else 0)


@leaf_kernel
def set_facts(
    op: Any, entry: Any, before: Any, form: Any, machine: Any, plan: Any, facts: Any
) -> None:
    """Write what the choice of a buffer depends on."""
    _, _, memories, roles = machine
    last_plan, exists, on_npu = before
    sharing, _, height, in_cascade, rolls = form
    stored, staging = roles[1], roles[2]
    n_bytes = entry[ENTRY_WEIGHTS] + entry[ENTRY_SCALES]
    n_stripes = (op[col.OFM_HEIGHT] + height - 1) // height if in_cascade else 1
    fetches = entry[ENTRY_FETCHES] * n_stripes
    facts[:] = 0.0
    facts[buf.OFM_DEPTH], facts[buf.BLOCK_DEPTH] = op[col.OFM_DEPTH], entry[col.OFM_BLOCK_DEPTH]
    facts[buf.WEIGHT_BYTES], facts[buf.FETCHES] = n_bytes, fetches
    facts[buf.TRANSFER_CYCLES] = copy_cycles(n_bytes, stored, staging, memories)
    facts[buf.STORED_CYCLES] = min_read_cycles(n_bytes, stored, memories) * fetches
    facts[buf.BUFFER_CYCLES] = min_read_cycles(n_bytes, staging, memories) * fetches
    facts[buf.SLACK_CYCLES] = last_plan[SLACK_CYCLES] if exists else 0
    facts[buf.SLACK_BYTES] = last_plan[SLACK_BYTES] if exists else plan[SLACK_BYTES]
    facts[buf.LIMIT_BYTES] = plan[SLACK_BYTES]
    facts[buf.CAN_SLICE] = op[CAN_SLICE] != 0 and not in_cascade
    facts[buf.CAN_PRE_BUFFER] = exists and not rolls
    facts[buf.STARTS_NPU] = not exists or not on_npu
    facts[buf.N_SHARING], facts[buf.N_STRIPES] = sharing, n_stripes
    facts[buf.RUN_CYCLES] = entry[ENTRY_PERF + buf.RUN]
    facts[buf.READ_CYCLES] = entry[ENTRY_PERF + buf.WEIGHT_READ]
    facts[buf.STAGED_IFM_CYCLES] = entry[ENTRY_PERF + buf.STAGED_IFM_READ]
    facts[buf.CAN_STAGE_IFM] = op[CAN_STAGE_IFM] != 0 and not rolls


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


@leaf_kernel
def measure_slices(
    op: Any, block_depth: Any, npu: Any, first: Any, step: Any, known: Any, room: Any
) -> Any:
    """Write where slices begin, and their bytes; return how many they are, or `_MISSING`, and the
    most bytes of one. first and step i64: channels of the first slice and of the next ones."""
    number, statistics, law, table = known
    depths, sizes, wanted, _, _, _ = room
    n, most = cut_depth(first, step, op[col.OFM_DEPTH], depths), 0
    if n <= 2:
        step = op[col.OFM_DEPTH]
    if table[0].size > 0:
        at, n = find_slices(number, block_depth, first, step, table)
        if n == 0:
            wanted[0], wanted[1], wanted[2] = block_depth, first, step
            return _MISSING, 0
        for i in range(n):
            sizes[i, 0], sizes[i, 1] = table[2][at + i, 0], table[2][at + i, 1]
            most = max(most, sizes[i, 0] + sizes[i, 1])
        return n, most
    for i in range(n):
        depth = depths[i + 1] - depths[i]
        if i > 0 and depth == depths[i] - depths[i - 1]:
            sizes[i, 0], sizes[i, 1] = sizes[i - 1, 0], sizes[i - 1, 1]
        else:
            streams, scales = slice_bytes(op, npu, depth, statistics, law)
            sizes[i, 0], sizes[i, 1] = streams, scales
        most = max(most, sizes[i, 0] + sizes[i, 1])
    return n, most


@leaf_kernel
def take_whole(op: Any, entry: Any, room: Any) -> Any:
    """Write the only slice of weights that are not cut, and its bytes; return that it is one."""
    depths, sizes = room[0], room[1]
    sizes[0, 0], sizes[0, 1] = entry[ENTRY_WEIGHTS], entry[ENTRY_SCALES]
    return cut_depth(op[col.OFM_DEPTH], 1, op[col.OFM_DEPTH], depths)


@leaf_kernel
def first_run(op: Any, entry: Any, depth: Any, machine: Any, rows: Any) -> Any:
    """Cycles of a first slice of `depth` channels, buffered, before the next one."""
    npu, rates, memories, roles = machine
    places, row, cycles = rows[0, : col.PLACE_COLUMNS], rows[1], rows[2, : col.CYCLE_COLUMNS]
    put(op[: col.ROW_COLUMNS], row)
    set_places(op, roles, places)
    row[col.OFM_DEPTH] = depth
    op_cycles(row, entry[ENTRY_BLOCK:ENTRY_PERF], npu, rates, memories, places, cycles)
    return cycles[col.OP_CYCLES] - cycles[col.DRAIN_CYCLES]


@leaf_kernel
def cut_weights(op: Any, entry: Any, facts: Any, machine: Any, known: Any, room: Any) -> Any:
    """Write where weights are cut, and the slices' bytes; return how many there are, `_MISSING`,
    or `_SPOILT` where they would waste too much of their blocks."""
    depth, half = int(facts[buf.OFM_DEPTH]), int(facts[buf.LIMIT_BYTES]) // 2
    block_depth, npu = entry[col.OFM_BLOCK_DEPTH], machine[0]
    ratio = buf.first_slice_ratio(facts)
    first, step = depth, 0
    if ratio < 1.0:
        first = int(buf.first_slice_depth(facts, ratio))
    if first < depth:
        step = int(buf.next_slices_depth(facts, first_run(op, entry, first, machine, room[-1])))
    if not step:
        return take_whole(op, entry, room)
    while True:
        step = int(buf.whole_blocks(facts, step))
        n, largest = measure_slices(op, block_depth, npu, first, step, known, room)
        smallest = first == buf.SPLIT_DEPTH and step == buf.SPLIT_DEPTH
        if n == _MISSING or largest <= half or smallest:
            break
        if step > first:
            step = (step // 2 + buf.SPLIT_DEPTH - 1) // buf.SPLIT_DEPTH * buf.SPLIT_DEPTH
        else:
            first = (first // 2 + buf.SPLIT_DEPTH - 1) // buf.SPLIT_DEPTH * buf.SPLIT_DEPTH
    if n > 2 and not buf.fills_blocks(facts, step):
        return _SPOILT
    return n


@leaf_kernel
def yields(facts: Any, entry: Any, next_entry: Any, perf: Any, buffer_bytes: Any, room: Any) -> Any:
    """Whether the arena is better left to the ifm of the operation that reads the ofm."""
    run, after = entry[ENTRY_PERF:ENTRY_RUN], next_entry[ENTRY_PERF:ENTRY_RUN]
    together = after[buf.IFM_BYTES] + perf[buf.IFM_BYTES] + buffer_bytes
    read = max(after[buf.WEIGHT_READ], after[buf.IFM_READ])
    if after[buf.WEIGHT_READ] <= 0 or after[buf.IFM_READ] <= 2 * after[buf.WEIGHT_READ]:
        return False
    if after[buf.RUN] > read or after[buf.IFM_BYTES] >= facts[buf.LIMIT_BYTES] or together <= room:
        return False
    longest = run[buf.RUN] > max(run[buf.WEIGHT_READ], run[buf.IFM_READ])
    return longest or after[buf.IFM_READ] > perf[buf.IFM_READ]


@leaf_kernel
def set_buffer(
    op: Any,
    entry: Any,
    next_entry: Any,
    before: Any,
    form: Any,
    machine: Any,
    known: Any,
    room: Any,
    plan: Any,
) -> Any:
    """Change the plan of whole weights to one with a buffer, if they are worth one; return whether
    all bytes that this depends on are known. plan comes with the slack of the operation, whose
    bytes are the room for a buffer."""
    _, has_reader, height, _, rolls = form
    depths, sizes, _, totals, facts, rows = room
    npu, rates, memories, roles = machine
    set_facts(op, entry, before, form, machine, plan, facts)
    plan[TRANSFER_CYCLES], limit = facts[buf.TRANSFER_CYCLES], plan[SLACK_BYTES]
    if roles[1] == roles[2]:
        return True
    way = buf.choose_way(facts)
    if way == buf.UNBUFFERED:
        return True
    if way == buf.SLICED:
        n = cut_weights(op, entry, facts, machine, known, room)
        if n == _MISSING:
            return False
        if n == _SPOILT:
            return True
    else:
        n = take_whole(op, entry, room)
    half0, half1 = 0, 0
    for i in range(n):
        totals[i] = sizes[i, 0] + sizes[i, 1]
        if i % 2:
            half1 = max(half1, totals[i])
        else:
            half0 = max(half0, totals[i])
    double = half1 > 0 and half0 + half1 <= limit
    if not double:
        half0, half1 = max(half0, half1), 0
        if half0 > limit:
            return True
    early = facts[buf.CAN_PRE_BUFFER] and half0 < facts[buf.SLACK_BYTES]
    slack = int(facts[buf.SLACK_CYCLES]) if early else 0
    if not early and buf.starts_network(facts):
        slack = buf.STARTUP_CYCLES
    places, perf = rows[_PLACES, : col.PLACE_COLUMNS], rows[_PERF, : buf.N_PERF]
    set_places(op, roles, places)
    if rolls:
        places[col.IFM_PLACE] = places[col.BUFFER_PLACE]
    buf.performance(
        op[: col.ROW_COLUMNS],
        entry[ENTRY_BLOCK:ENTRY_PERF],
        (npu, rates, memories, places),
        depths[: n + 1],
        totals[:n],
        (height, slack, 1, int(double)),
        rows,
        perf,
    )
    if way != buf.SHARED:
        free = before[0][SLACK_BYTES] if before[1] else 0
        staged = facts[buf.CAN_STAGE_IFM] and has_reader
        if staged and yields(facts, entry, next_entry, perf, half0 + half1, free):
            return True
        if not buf.is_worth_it(facts, perf, n, half0 + half1):
            return True
    plan[WEIGHT_BYTES] = plan[SCALE_BYTES] = 0
    for i in range(n):
        plan[WEIGHT_BYTES] += sizes[i, 0]
        plan[SCALE_BYTES] += sizes[i, 1]
    plan[HALF0], plan[HALF1], plan[PRE_BUFFERED], plan[N_SLICES] = half0, half1, early, n
    plan[FIRST_DEPTH] = depths[1]
    plan[NEXT_DEPTH] = depths[2] - depths[1] if n > 2 else op[col.OFM_DEPTH]
    plan[FIRST_BYTES] = unpadded_bytes(sizes[0, 0], sizes[0, 1], depths[1])
    plan[SLACK_CYCLES] = perf[buf.LAST_SLICE]
    plan[SLACK_BYTES] = limit - (half1 if double and (n - 1) % 2 else half0)
    return True


@leaf_kernel
def plan_ops(
    span: Any,
    program: Any,
    form: Any,
    usage: Any,
    machine: Any,
    known: Any,
    room: Any,
    plans: Any,
) -> Any:
    """Write plans i64 [n_ops, PLAN_COLUMNS] of operations span[0]..span[1]; return the first one
    for which bytes are missing, or the one behind the last.

    program (ops, links); form (rows of stripes i64 [n_ops], entries, last operation of cascades i64
    [n_ops], plans so far); usage (limit i64 [1] of the arena, bytes of maps i64 [n_steps], of
    buffers i64 [n_steps], time step of each operation i64 [n_ops]), to which buffers are added;
    known (statistics f64 [n_ops, 2], law, table); plans hold that of the operation before.
    """
    ops, links = program
    heights, entries, cascade, old = form
    limit, map_bytes, buffer_bytes, op_time = usage
    statistics, law, table = known
    for i in range(span[0], span[1] + 1):
        op, entry, plan, time = ops[i], entries[i], plans[i], op_time[i]
        whole_plan(op, entry, plan)
        if op[col.UNIT] == col.CPU:
            continue
        others = max(buffer_bytes[time] - old[i, HALF0] - old[i, HALF1], 0)
        plan[SLACK_CYCLES] = old[i, SLACK_CYCLES]
        plan[SLACK_BYTES] = max(limit[0] - others - map_bytes[time], 0)
        if op[HAS_WEIGHTS] == 0:
            continue
        exists = i > 0
        last = i - 1 if exists else i
        before = plans[last], exists, exists and ops[last, col.UNIT] != col.CPU
        sharing, reader = links[i, N_SHARING], links[i, READER]
        if sharing > 1 and exists and plans[last, N_SLICES] > 1:
            sharing = 1
        rolls = cascade[i] > 0 and exists and cascade[last] == cascade[i]
        how = sharing, reader >= 0, heights[i], cascade[i] > 0, rolls
        after = entries[reader if reader >= 0 else i]
        sizes = i, statistics[i], law, table
        if not set_buffer(op, entry, after, before, how, machine, sizes, room, plan):
            return i
        buffer_bytes[time] += plan[HALF0] + plan[HALF1]
    return span[1] + 1


@leaf_kernel
def table_wait(n_bytes: Any, machine: Any) -> Any:
    """Cycles to copy a look-up table to the NPU's own memory, which takes a byte a cycle, i64."""
    _, _, memories, roles = machine
    stored = roles[1]
    read = transfer_cycles(n_bytes, stored, memories) + int(memories[stored, col.READ_LATENCY])
    return max(read, n_bytes)


@leaf_kernel
def busy_cycles(run: Any, slack: Any, table: Any, machine: Any, plan: Any) -> Any:
    """Cycles of an operation that takes `run` on its own, with the transfers of weights, and of
    `table` bytes, that it waits for; slack hides them. All i64."""
    _, _, memories, roles = machine
    wait = table_wait(table, machine) if table else 0
    if plan[HALF0] == 0:
        return run + max(wait - slack, 0)
    first = copy_cycles(plan[FIRST_BYTES], roles[1], roles[2], memories)
    all_copied = plan[TRANSFER_CYCLES] - slack + plan[SLACK_CYCLES]
    return max(all_copied, run + max(first - slack, 0)) + wait


@leaf_kernel
def all_busy_cycles(ops: Any, plans: Any, runs: Any, machine: Any, busy: Any) -> None:
    """Write `busy_cycles` i64 [n_ops] of all operations of a program, which take runs i64 [n_ops]
    on their own."""
    for i in range(ops.shape[0]):
        slack = plans[i - 1, SLACK_CYCLES] if i > 0 else 0
        busy[i] = busy_cycles(runs[i], slack, ops[i, TABLE_BYTES], machine, plans[i])


@leaf_kernel
def make_plan(
    op: Any,
    entry: Any,
    next_entry: Any,
    before: Any,
    form: Any,
    machine: Any,
    known: Any,
    room: Any,
    plan: Any,
) -> Any:
    """Write the plan of an operation of the NPU, with what it costs; return whether all bytes that
    it depends on are known. Arguments as of `set_buffer`, room (that of set_buffer, traffic i64
    [n_memories, 4])."""
    npu, rates, memories, roles = machine
    for_slices, traffic = room
    whole_plan(op, entry, plan)
    if op[HAS_WEIGHTS] and not set_buffer(
        op, entry, next_entry, before, form, machine, known, for_slices, plan
    ):
        return False
    rows = for_slices[-1]
    places, cycles = rows[_PLACES, : col.PLACE_COLUMNS], rows[0, : col.CYCLE_COLUMNS]
    moved = rows[_MOVED, : col.ACCESS_COLUMNS]
    put(entry[ENTRY_MOVED:], moved)
    set_places(op, roles, places)
    copied, run = 0, entry[ENTRY_RUN]
    if plan[HALF0]:
        hidden = plan[FIRST_BYTES] if plan[PRE_BUFFERED] else 0
        copied = max(plan[WEIGHT_BYTES] - hidden, 0)
        row, block = op[: col.ROW_COLUMNS], entry[ENTRY_BLOCK:ENTRY_PERF]
        op_cycles(row, block, npu, rates, memories, places, cycles)
        run = cycles[col.OP_CYCLES]
    else:
        places[col.BUFFER_PLACE] = -1
    moved[col.WEIGHTS_READ] = entry[ENTRY_FETCHES] * plan[WEIGHT_BYTES]
    moved[col.SCALES_READ] = entry[ENTRY_FETCHES] * plan[SCALE_BYTES]
    memory_traffic(moved, copied, memories, places, traffic)
    slack = before[0][SLACK_CYCLES] if before[1] else 0
    plan[NPU_CYCLES] = busy_cycles(run, slack, op[TABLE_BYTES], machine, plan)
    slowest = 0
    for at in range(traffic.shape[0]):
        slowest = max(slowest, traffic[at, col.MEMORY_CYCLES])
    plan[TOTAL_CYCLES] = max(plan[NPU_CYCLES], slowest)
    return True
