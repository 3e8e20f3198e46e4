# SPDX-License-Identifier: Apache-2.0
"""Kernels of `npusim.cost.batch`: many programs, and what is kept of the plans of operations.

ops, entries and machine are those of `npusim.cost.entries_kernels`, plans those of
`npusim.cost.plan_columns`, contexts, alone, heads, moves and what is listed of programs those of
`npusim.cost.lookup_kernels`, laws those of `npusim.cost.weight_sizes_kernels` for each outcome of
the first step. memo (keys i64 [n, KEY_COLUMNS], plans i64 [n, PLAN_COLUMNS], slots i64, heads,
moves, counts i64 [2]) keeps plans by what they depend on, and the slacks that they leave as plans
of nothing else; plan 0 is that of every operation of the CPU. slots, of a power of two, is the
index of keys; counts says how many plans and moves there are. Plans are made in a room (that of
`plans_kernels.make_plan`, that of `entries_kernels.resize_entry`, an entry).
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
    HAS_WEIGHTS,
    fill_entries,
    mixed,
    resize_entry,
    same,
)
from npusim.cost.lookup_kernels import (
    AFTER,
    BEFORE,
    N_ALONE,
    N_OUTCOMES,
    N_STEPS,
    NUMBER,
    SHARING,
    SLACK,
    add_move,
    find_move,
    look_up,
)
from npusim.cost.plan_columns import (
    N_SLICES,
    PLAN_COLUMNS,
    SLACK_BYTES,
    SLACK_CYCLES,
    UNLIMITED_BYTES,
)
from npusim.cost.plans_kernels import PLAN_BEFORE, is_buffered_alike, make_plan

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
    outcome: Any,
    known: Any,
    entries: Any,
    laws: Any,
    machine: Any,
    memo: Any,
    room: Any,
) -> Any:
    """The line of the plan of a context, which is made if it is new; -1 where the operation does
    not fit. before (plan, whether there is one, whether the NPU executes it); outcome i64."""
    ops, statistics, table = known
    for_plan, for_entry, other = room
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
    key[4] = (((sharing * 2 + exists) * 2 + on_npu) * 2 + has_reader) * N_OUTCOMES + outcome
    at = find_slot(key, keys, slots)
    if slots[at] == FREE:
        line, cascaded = counts[0], number < 0
        form = sharing, has_reader, op[col.OFM_HEIGHT], cascaded, cascaded
        if outcome:
            resize_entry(op, statistics[number], laws[outcome], machine, entry, for_entry, other)
            entry = other
        make_plan(
            *(op, entry, entries[after], before, form, machine),
            *((number, statistics[number], laws[outcome], table), for_plan, plans[line]),
        )
        slots[at] = line
        counts[0] += 1
    return slots[at]


@leaf_kernel
def find_slack(plan: Any, memo: Any) -> Any:
    """The line of the slack that a plan i64 [PLAN_COLUMNS] leaves, which is made if it is new: a
    plan of nothing else."""
    keys, plans, slots, _, _, counts = memo
    key = keys[counts[0]]
    key[0], key[1], key[4] = FREE, FREE, plan[N_SLICES] > 1
    key[2], key[3] = plan[SLACK_CYCLES], plan[SLACK_BYTES]
    at = find_slot(key, keys, slots)
    if slots[at] == FREE:
        slack = plans[counts[0]]
        slack[:] = 0
        slack[SLACK_CYCLES], slack[SLACK_BYTES] = plan[SLACK_CYCLES], plan[SLACK_BYTES]
        slack[N_SLICES] = plan[N_SLICES]
        slots[at] = counts[0]
        counts[0] += 1
    return slots[at]


@leaf_kernel
def is_open(
    context: Any,
    known: Any,
    entries: Any,
    laws: Any,
    machine: Any,
    memo: Any,
    room: Any,
) -> Any:
    """Whether nothing hides the transfer of the weights of a program's first step, and its plan
    would be another one if their streams were a little smaller or larger."""
    plans, plan = memo[1], room[0][0][-1][PLAN_BEFORE, :PLAN_COLUMNS]
    exists, on_npu = set_before(context, 0, known[0], entries, plans, plan)
    if on_npu or not known[0][context[NUMBER], HAS_WEIGHTS]:
        return False
    before, how = (plan, exists, on_npu), (known, entries, laws, machine, memo, room)
    line = find_plan(context, before, 0, *how)
    for outcome in range(1, N_OUTCOMES):
        other = find_plan(context, before, outcome, *how)
        if not is_buffered_alike(plans[line], plans[other]):
            return True
    return False


@leaf_kernel
def plan_steps(
    steps: Any,
    outcome: Any,
    contexts: Any,
    known: Any,
    entries: Any,
    laws: Any,
    machine: Any,
    memo: Any,
    room: Any,
) -> Any:
    """Make the plans of steps with an outcome of the first, and note what they cost; return whether
    all operations fit the NPU."""
    _, plans, _, heads, moves, counts = memo
    plan, slack = room[0][0][-1][PLAN_BEFORE, :PLAN_COLUMNS], 0
    for k in range(steps.size):
        at, before = steps[k] >> 1, slack if steps[k] & 1 else 0
        which, from_line = (0, before) if k else (outcome, -outcome)
        move = find_move(at, from_line, heads, moves)
        if move >= 0:
            slack = moves[move, SLACK]
            continue
        exists, on_npu = set_before(contexts[at], before, known[0], entries, plans, plan)
        line = find_plan(
            *(contexts[at], (plan, exists, on_npu), which, known, entries, laws),
            *(machine, memo, room),
        )
        if line < 0:
            return False
        slack = find_slack(plans[line], memo)
        depth = entries[contexts[at, NUMBER], col.OFM_BLOCK_DEPTH]
        add_move(at, from_line, slack, plans[line], depth, heads, moves, counts)
    return True


@leaf_kernel
def plan_program(
    numbers: Any,
    steps: Any,
    contexts: Any,
    known: Any,
    entries: Any,
    laws: Any,
    machine: Any,
    memo: Any,
    room: Any,
) -> Any:
    """Make the plans of all steps, and note what they cost; return whether all operations fit the
    NPU.

    numbers i64 [n_alone] of known (ops, statistics, table) and entries, steps i64 [n_steps] as
    `lookup_kernels.set_steps` lists them.
    """
    ops = known[0]
    for number in numbers:
        if ops[number, col.UNIT] != col.CPU and not entries[number, FITS]:
            return False
    if not plan_steps(steps, 0, contexts, known, entries, laws, machine, memo, room):
        return False
    if steps.size and is_open(contexts[steps[0] >> 1], known, entries, laws, machine, memo, room):
        for outcome in range(1, N_OUTCOMES):
            plan_steps(steps, outcome, contexts, known, entries, laws, machine, memo, room)
    return True


@leaf_kernel
def cost_programs(
    first: Any,
    starts: Any,
    listed: Any,
    contexts: Any,
    known: Any,
    entries: Any,
    alone: Any,
    laws: Any,
    machine: Any,
    memo: Any,
    room: Any,
    costs: Any,
) -> Any:
    """Write costs i64 [n_programs, 7] from program `first` on; return the next one to do.

    They are total cycles, cycles of the NPU, bytes in the arena, in flash, of the weights, least
    and most total cycles; -1 where an operation does not fit. Stops where memo is full, for it to
    be emptied. room (places i64 [n], that of plans); used, which is part of listed, is empty where
    the arena is not followed.
    """
    places, plan_room = room
    numbers, steps, _, used, heads = listed
    keys, _, _, memo_heads, moves, counts = memo
    with_usage = used.shape[0] > 0
    for program in range(first, costs.shape[0]):
        o0, head, cost = starts[program, 2], heads[program], costs[program]
        o1 = o0 + head[N_STEPS]
        if not look_up(o0, head, listed, with_usage, alone, memo_heads, moves, places, cost):
            n = N_OUTCOMES * (head[N_STEPS] + 1)
            if counts[0] + 2 * n >= keys.shape[0] or counts[1] + n >= moves.shape[0]:
                return program
            if not plan_program(
                *(numbers[o0 : o0 + head[N_ALONE]], steps[o0:o1], contexts, known, entries),
                *(laws, machine, memo, plan_room),
            ):
                cost[:] = -1
                continue
            look_up(o0, head, listed, with_usage, alone, memo_heads, moves, places, cost)
    return costs.shape[0]


@leaf_kernel
def empty_memo(memo: Any) -> None:
    """Forget all plans but that of operations of the CPU."""
    _, _, slots, heads, _, counts = memo
    slots[:] = FREE
    heads[:] = FREE
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
    laws: Any,
    memo: Any,
    room: Any,
    costs: Any,
) -> Any:
    """Write costs i64 [n_machines, n_programs, 7] from machine `first` on, and keep nothing; return
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
                *(laws, machine, memo, room, costs[at]),
            )
            if done < n_programs:
                if memo[0].shape[0] < most:
                    return at
                empty_memo(memo)
    return costs.shape[0]
