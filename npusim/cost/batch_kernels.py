# SPDX-License-Identifier: Apache-2.0
"""Kernels of `npusim.cost.batch`: many programs, and what is kept of the plans of operations.

ops, entries and machine are those of `npusim.cost.entries_kernels`, plans those of
`npusim.cost.plan_columns`, contexts, alone, moves, variants and what is listed of programs those
of `npusim.cost.lookup_kernels`. memo (keys i64 [n, KEY_COLUMNS], plans i64 [n, PLAN_COLUMNS], slots
i64, moves, variants, counts i64 [2]) keeps plans by what they depend on; plan 0 is that of every
operation of the CPU. slots, of a power of two, is the index of keys; counts says how many plans and
variants there are.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from npusim._jit import kernel, leaf_kernel
from npusim.cost import columns as col
from npusim.cost.cycles_kernels import put
from npusim.cost.entries_kernels import (
    ENTRY_RUN,
    FITS,
    FREE,
    fill_entries,
    mixed,
    same,
)
from npusim.cost.lookup_kernels import (
    AFTER,
    BEFORE,
    LEAST_BYTES,
    N_ALONE,
    N_STEPS,
    NUMBER,
    REPEATS,
    SHARING,
    add_move,
    find_move,
    late_bytes,
    look_up,
)
from npusim.cost.plan_columns import (
    HALF0,
    HALF1,
    N_SLICES,
    PLAN_COLUMNS,
    PRE_BUFFERED,
    SCALE_BYTES,
    SLACK_BYTES,
    SLACK_CYCLES,
    UNLIMITED_BYTES,
    WEIGHT_BYTES,
)
from npusim.cost.plans_kernels import make_plan

KEY_COLUMNS = 5
ENTRIES_MAX = 1 << 20


@leaf_kernel
def find_slot(key: Any, keys: Any, slots: Any) -> Any:
    """Where in slots the line of key i64 [KEY_COLUMNS] is or belongs."""
    mask = np.uint64(slots.size - 1)
    at = mixed(key, KEY_COLUMNS) & mask
    while slots[at] != FREE and not same(keys[slots[at]], key, KEY_COLUMNS):
        at = (at + np.uint64(1)) & mask
    return np.int64(at)


@leaf_kernel
def set_before(context: Any, line: Any, ops: Any, entries: Any, plans: Any, before: Any) -> Any:
    """Write the plan i64 [PLAN_COLUMNS] of the operation before that of a context: the one on
    `line` if that is not 0; return whether there is one, and whether the NPU executes it."""
    number = context[BEFORE]
    on_npu = number >= 0 and ops[number, col.UNIT] != col.CPU
    if line:
        put(plans[line], before)
    else:
        put(plans[0], before)
        if on_npu:
            before[SLACK_CYCLES], before[SLACK_BYTES] = entries[number, ENTRY_RUN], UNLIMITED_BYTES
    return number >= 0, on_npu


@leaf_kernel
def find_plan(
    context: Any,
    before: Any,
    known: Any,
    entries: Any,
    law: Any,
    machine: Any,
    memo: Any,
    room: Any,
) -> Any:
    """The line of the plan of a context, which is made if it is new; -1 where the operation does
    not fit. before (plan, whether there is one, whether the NPU executes it)."""
    ops, statistics, table = known
    keys, plans, slots, _, _, counts = memo
    number, after = context[NUMBER], context[AFTER]
    op, entry = ops[number], entries[number]
    if not entry[FITS]:
        return -1
    plan, exists, on_npu = before
    has_reader = after >= 0
    if not has_reader:
        after = number
    sharing = context[SHARING]
    if sharing > 1 and exists and plan[N_SLICES] > 1:
        sharing = 1
    key = keys[counts[0]]
    key[0], key[1] = number, after
    key[2], key[3] = plan[SLACK_CYCLES], plan[SLACK_BYTES]
    key[4] = ((sharing * 2 + exists) * 2 + on_npu) * 2 + has_reader
    at = find_slot(key, keys, slots)
    if slots[at] == FREE:
        line, cascaded = counts[0], number < 0
        form = sharing, has_reader, op[col.OFM_HEIGHT], cascaded, cascaded
        make_plan(
            *(op, entry, entries[after], before, form, machine),
            *((number, statistics[number], law, table), room, plans[line]),
        )
        slots[at] = line
        counts[0] += 1
    return slots[at]


@kernel
def plan_program(
    numbers: Any,
    steps: Any,
    contexts: Any,
    known: Any,
    entries: Any,
    law: Any,
    machine: Any,
    memo: Any,
    room: Any,
    lines: Any,
) -> Any:
    """Write the line of each step's plan, i64 [n_steps]; return whether all operations fit the NPU.

    numbers i64 [n_alone] of known (ops, statistics, table) and entries, steps i64 [n_steps] as
    `lookup_kernels.set_steps` lists them.
    """
    _, plans, _, moves, variants, counts = memo
    ops = known[0]
    for number in numbers:
        if ops[number, col.UNIT] != col.CPU and not entries[number, FITS]:
            return False
    plan = np.empty(PLAN_COLUMNS, np.int64)
    for i in range(steps.size):
        at, line = steps[i] >> 1, lines[i - 1] if steps[i] & 1 else 0
        found = find_move(at, line, moves, variants)
        if found < 0:
            exists, on_npu = set_before(contexts[at], line, ops, entries, plans, plan)
            found = find_plan(
                *(contexts[at], (plan, exists, on_npu), known, entries, law, machine, memo, room)
            )
            if found < 0:
                return False
            add_move(at, line, found, plans[found], moves, variants, counts)
        lines[i] = found
    return True


@leaf_kernel
def is_repeated(
    i: Any, steps: Any, earlier: Any, contexts: Any, entries: Any, lines: Any, plans: Any
) -> Any:
    """Whether an earlier step has the weights of step i in the same slices and order."""
    depth = entries[contexts[steps[i] >> 1, NUMBER], col.OFM_BLOCK_DEPTH]
    other = earlier[i] >> 2
    while other >= 0:
        alike = plans[lines[other], N_SLICES] == plans[lines[i], N_SLICES]
        alike &= plans[lines[other], WEIGHT_BYTES] == plans[lines[i], WEIGHT_BYTES]
        if alike and entries[contexts[steps[other] >> 1, NUMBER], col.OFM_BLOCK_DEPTH] == depth:
            return True
        other = earlier[other] >> 2
    return False


@leaf_kernel
def share_weights(
    steps: Any, earlier: Any, contexts: Any, entries: Any, lines: Any, plans: Any, costs: Any
) -> None:
    """Take from costs i64 [5] of one program the bytes in flash of what is there already, and the
    streams of weights that were counted, however they are cut."""
    for i in range(steps.size):
        if earlier[i] < 0:
            continue
        costs[4] -= plans[lines[earlier[i] >> 2], WEIGHT_BYTES]
        if is_repeated(i, steps, earlier, contexts, entries, lines, plans):
            costs[3] -= plans[lines[i], WEIGHT_BYTES]
            if not earlier[i] & 2:
                costs[3] -= plans[lines[i], SCALE_BYTES]


@leaf_kernel
def peak_of(head: Any, used: Any, steps: Any, earlier: Any, lines: Any, plans: Any) -> Any:
    """Bytes that one program has in the arena at once, neighbours with the same weights in one
    piece sharing a buffer; head, used, steps and earlier as `lookup_kernels.set_steps` lists
    them."""
    most, late = head[LEAST_BYTES], 0
    for i in range(steps.size):
        plan = plans[lines[i]]
        if not steps[i] & 1:
            late = 0
        early = plan[HALF0] if plan[PRE_BUFFERED] else 0
        if steps[i] & 1 and earlier[i] >= 0 and earlier[i] & 1 and plan[N_SLICES] == 1:
            other = plans[lines[i - 1]]
            if other[N_SLICES] == 1 and other[HALF0] == plan[HALF0]:
                early = 0
        most = max(most, used[i, 0] + late + early, used[i, 1] + plan[HALF0] + plan[HALF1])
        late = late_bytes(plan)
    return most


@leaf_kernel
def cost_programs(
    first: Any,
    starts: Any,
    listed: Any,
    contexts: Any,
    known: Any,
    entries: Any,
    alone: Any,
    law: Any,
    machine: Any,
    memo: Any,
    room: Any,
    costs: Any,
) -> Any:
    """Write costs i64 [n_programs, 5] from program `first` on; return the next one to do.

    They are total cycles, cycles of the NPU, bytes in the arena, in flash, of the weights; -1 where
    an operation does not fit. Stops where memo is full, for it to be emptied. room (lines, that of
    make_plan); used, which is part of listed, is empty where the arena is not followed.
    """
    lines, plan_room = room
    numbers, steps, earlier, used, heads = listed
    keys, plans, _, moves, variants, counts = memo
    with_usage = used.shape[0] > 0
    for program in range(first, costs.shape[0]):
        o0, head, cost = starts[program, 2], heads[program], costs[program]
        o1 = o0 + head[N_STEPS]
        if not look_up(o0, head, listed, with_usage, alone, moves, variants, lines, cost):
            n = head[N_STEPS]
            if counts[0] + n >= keys.shape[0] or counts[1] + n >= variants.shape[0]:
                return program
            if not plan_program(
                *(numbers[o0 : o0 + head[N_ALONE]], steps[o0:o1], contexts, known, entries),
                *(law, machine, memo, plan_room, lines),
            ):
                cost[:] = -1
                continue
            look_up(o0, head, listed, with_usage, alone, moves, variants, lines, cost)
        if head[REPEATS]:
            own, others = steps[o0:o1], earlier[o0:o1]
            share_weights(own, others, contexts, entries, lines, plans, cost)
            if with_usage:
                cost[2] = peak_of(head, used[o0:o1], own, others, lines, plans)
    return costs.shape[0]


@leaf_kernel
def empty_memo(memo: Any) -> None:
    """Forget all plans but that of operations of the CPU."""
    _, _, slots, moves, _, counts = memo
    slots[:] = FREE
    moves[:] = FREE
    counts[0], counts[1] = 1, 0


@kernel
def cost_machines(
    first: Any,
    most: Any,
    machines: Any,
    blocks: Any,
    starts: Any,
    listed: Any,
    contexts: Any,
    known: Any,
    entries: Any,
    alone: Any,
    law: Any,
    memo: Any,
    room: Any,
    costs: Any,
) -> Any:
    """Write costs i64 [n_machines, n_programs, 5] from machine `first` on, and keep nothing; return
    the next one to do.

    machines (npus, rates, memories, roles, blocks' numbers): one line per machine of what
    `entries_kernels` takes, memories as many for all. blocks i64 [n, n_ops, FITS + 1] is the
    beginning of entries. Stops where memo is full and has less than `most` plans, for a larger one.
    """
    npus, rates, memories, roles, numbers = machines
    ops, heights = known[0], known[0][:, col.OFM_HEIGHT].copy()
    n_programs = costs.shape[1]
    for at in range(first, costs.shape[0]):
        machine = npus[at], rates[at], memories[at], roles[at]
        for i in range(ops.shape[0]):
            put(blocks[numbers[at], i], entries[i])
        fill_entries(ops, heights, machine, entries, alone)
        empty_memo(memo)
        done = 0
        while done < n_programs:
            done = cost_programs(
                *(done, starts, listed, contexts, known, entries, alone),
                *(law, machine, memo, room, costs[at]),
            )
            if done < n_programs:
                if memo[0].shape[0] < most:
                    return at
                empty_memo(memo)
    return costs.shape[0]
