# SPDX-License-Identifier: Apache-2.0
"""Kernels of `npusim.cost.batch`: programs as numbers, and their costs by looking these up.

What an operation without weights or table costs depends on nothing else: alone i64 [n, 2] has its
cycles (total, NPU), -1 where no block fits. Any other one is a *step*, whose plan depends on its
context i64 [CONTEXT_COLUMNS], and on the plan of the one before if that is a step too. moves i64
[n_contexts, MOVE_COLUMNS] tells for a context the plan and what it costs after one plan before;
after others, variants i64 [n, MOVE_COLUMNS] do.

The twin of looking up is `npusim.cost.batch_kernels.plan_program`.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from npusim._jit import leaf_kernel
from npusim.cost import columns as col
from npusim.cost.entries_kernels import FREE, HAS_WEIGHTS, TABLE_BYTES, mixed, same
from npusim.cost.memory_kernels import find_ranges, peak
from npusim.cost.plan_columns import (
    HALF0,
    HALF1,
    N_SLICES,
    NPU_CYCLES,
    PRE_BUFFERED,
    SCALE_BYTES,
    TOTAL_CYCLES,
    WEIGHT_BYTES,
)
from npusim.cost.plans_kernels import N_SHARING, READER

SAME_AS_BEFORE, SAME_WEIGHTS, NEW_SCALES = range(2, 5)
"""Of links: whether the operation before reads the same weights; the last earlier one that does, or
-1; whether the scales are not those of that one."""
LINK_COLUMNS = 5

BEFORE, NUMBER, AFTER, SHARING = range(4)
CONTEXT_COLUMNS = 4
"""Numbers of the operation before, of this one, of the one that reads its ofm, -1: none; and how
many neighbours read the same weights."""

N_ALONE, N_STEPS, REPEATS, LEAST_BYTES = range(4)
HEAD_COLUMNS = 4
"""Of a program: operations that depend on none before, steps; whether weights are used again; the
most that its maps take at once."""

PLAN_BEFORE, LINE, MOVE_TOTAL, MOVE_NPU, MOVE_WEIGHTS, MOVE_SCALES = range(6)
EARLY_BYTES, BUFFER_BYTES, LATE_BYTES, VARIANT = range(6, 10)
MOVE_COLUMNS = 10
"""Line of the plan before, 0 where it is no step's, or `FREE`; of the plan; its cycles and bytes;
what its buffer takes under the operation before, under its own and after it; the next variant."""


@leaf_kernel
def is_step(op: Any) -> Any:
    """Whether the plan of op i64 [OP_COLUMNS] may depend on the operation before."""
    return op[col.UNIT] != col.CPU and (op[HAS_WEIGHTS] != 0 or op[TABLE_BYTES] != 0)


@leaf_kernel
def set_usage(program: Any, starts: Any, table: Any, formats: Any, room: Any) -> Any:
    """Write the bytes of a program's maps in the arena at each time step to the last column of
    ranges; return the most. table (accesses, maps, in_place), room (schedule, ranges, owners) as of
    `memory_kernels`; schedule has but zeros."""
    accesses, maps, in_place = table
    schedule, ranges, owners, _ = room
    a0, m0, o0 = starts[program, 0], starts[program, 1], starts[program, 2]
    a1, m1, o1 = starts[program + 1, 0], starts[program + 1, 1], starts[program + 1, 2]
    ops = schedule[: o1 - o0]
    for i in range(o1 - o0):
        ops[i, 0] = in_place[o0 + i]
    n, n_steps = find_ranges(accesses[a0:a1], maps[m0:m1], ops, formats[m0:m1], ranges, owners)
    return peak(n, n_steps, ranges)


@leaf_kernel
def set_steps(
    span: Any,
    starts: Any,
    index: Any,
    links: Any,
    ops: Any,
    known: Any,
    table: Any,
    formats: Any,
    room: Any,
    listed: Any,
) -> Any:
    """Write what programs span[0]..span[1] - 1 consist of to listed; return how many contexts are
    known.

    index i64 [n_ops]: of each operation in ops i64 [n, OP_COLUMNS]. known (contexts i64 [n_max,
    CONTEXT_COLUMNS], their number, slots i64 as their index). table, formats, room as of
    `set_usage`; without usage in_place is empty. listed (alone i64 [n_ops], steps i64 [n_ops],
    earlier i64 [n_ops], used i64 [n_ops, 2], heads i64 [n_programs, HEAD_COLUMNS]): of each program
    from its first operation on, numbers of those that depend on none before; twice the contexts of
    its steps, and 1 if a step is before; for each step 4 times the last earlier one that has the
    same weights, 2 if the scales are others, 1 if it is the one before, or `FREE`; bytes of maps
    while the operation before runs and while the step does.
    """
    contexts, n, slots = known
    alone, steps, earlier, used, heads = listed
    step_of = room[3]
    mask = np.uint64(slots.size - 1)
    with_usage = table[2].size > 0
    for program in range(span[0], span[1]):
        o0, o1 = starts[program, 2], starts[program + 1, 2]
        least = set_usage(program, starts, table, formats, room) if with_usage else 0
        usage = room[1]
        n_alone, n_steps, repeats, before, follows = 0, 0, 0, -1, 0
        for i in range(o0, o1):
            number = index[i]
            step_of[i - o0] = FREE
            if not is_step(ops[number]):
                alone[o0 + n_alone] = number
                n_alone, before, follows = n_alone + 1, number, 0
                continue
            reader, context = links[i, READER], contexts[n]
            context[BEFORE], context[NUMBER] = before, number
            context[AFTER] = index[o0 + reader] if reader >= 0 else -1
            context[SHARING] = links[i, N_SHARING]
            at = mixed(context, CONTEXT_COLUMNS) & mask
            while slots[at] != FREE and not same(contexts[slots[at]], context, CONTEXT_COLUMNS):
                at = (at + np.uint64(1)) & mask
            if slots[at] == FREE:
                slots[at] = n
                n += 1
            steps[o0 + n_steps] = 2 * slots[at] + follows
            if with_usage:
                used[o0 + n_steps, 0] = usage[2 * (i - o0 - 1), 3] if i > o0 else 0
                used[o0 + n_steps, 1] = usage[2 * (i - o0), 3]
            step_of[i - o0], earlier[o0 + n_steps] = n_steps, FREE
            other = links[i, SAME_WEIGHTS]
            if other >= 0 and step_of[other] >= 0:
                repeats = 1
                flags = 2 * (links[i, NEW_SCALES] != 0) + (links[i, SAME_AS_BEFORE] != 0)
                earlier[o0 + n_steps] = 4 * step_of[other] + flags
            n_steps, before, follows = n_steps + 1, number, 1
        heads[program, N_ALONE], heads[program, N_STEPS] = n_alone, n_steps
        heads[program, REPEATS], heads[program, LEAST_BYTES] = repeats, least
    return n


@leaf_kernel
def late_bytes(plan: Any) -> Any:
    """Bytes of the half of its buffer that the last slice is in, i64."""
    return plan[HALF1] if plan[HALF1] and plan[N_SLICES] % 2 == 0 else plan[HALF0]


@leaf_kernel
def find_move(context: Any, before: Any, moves: Any, variants: Any) -> Any:
    """The line of the plan of a context after the plan on line `before`, -1 if it is not known."""
    if moves[context, PLAN_BEFORE] == before:
        return moves[context, LINE]
    at = moves[context, VARIANT]
    while at >= 0:
        if variants[at, PLAN_BEFORE] == before:
            return variants[at, LINE]
        at = variants[at, VARIANT]
    return -1


@leaf_kernel
def add_move(
    context: Any, before: Any, line: Any, plan: Any, moves: Any, variants: Any, counts: Any
) -> None:
    """Note that plan i64 [PLAN_COLUMNS], on `line`, is that of a context after another plan;
    counts i64 [2] has the number of variants in the last place."""
    if moves[context, PLAN_BEFORE] == FREE:
        move = moves[context]
        move[VARIANT] = -1
    else:
        move = variants[counts[1]]
        move[VARIANT] = moves[context, VARIANT]
        moves[context, VARIANT] = counts[1]
        counts[1] += 1
    move[PLAN_BEFORE], move[LINE] = before, line
    move[MOVE_TOTAL], move[MOVE_NPU] = plan[TOTAL_CYCLES], plan[NPU_CYCLES]
    move[MOVE_WEIGHTS], move[MOVE_SCALES] = plan[WEIGHT_BYTES], plan[SCALE_BYTES]
    move[EARLY_BYTES] = plan[HALF0] if plan[PRE_BUFFERED] else 0
    move[BUFFER_BYTES], move[LATE_BYTES] = plan[HALF0] + plan[HALF1], late_bytes(plan)


@leaf_kernel
def look_up(
    first: Any,
    head: Any,
    listed: Any,
    with_usage: Any,
    alone: Any,
    moves: Any,
    variants: Any,
    lines: Any,
    costs: Any,
) -> Any:
    """Write costs i64 [5] of one program whose operations begin at `first`, as those of
    `batch_kernels.cost_programs`, as if no weights were used twice, and lines i64 [n_steps] of its
    plans; return whether all its moves are known."""
    numbers, steps, _, used, _ = listed
    total, npu, weights, scales, fits = 0, 0, 0, 0, 0
    for i in range(first, first + head[N_ALONE]):
        number = numbers[i]
        total += alone[number, 0]
        npu += alone[number, 1]
        fits |= alone[number, 0]
    if fits < 0:
        return False
    most, line, late = head[LEAST_BYTES], 0, 0
    for i in range(first, first + head[N_STEPS]):
        follows, at = steps[i] & 1, steps[i] >> 1
        before = line if follows else 0
        if moves[at, PLAN_BEFORE] == before:
            line = moves[at, LINE]
            total += moves[at, MOVE_TOTAL]
            npu += moves[at, MOVE_NPU]
            weights += moves[at, MOVE_WEIGHTS]
            scales += moves[at, MOVE_SCALES]
            early, now, after = (
                moves[at, EARLY_BYTES],
                moves[at, BUFFER_BYTES],
                moves[at, LATE_BYTES],
            )
        else:
            at = moves[at, VARIANT]
            while at >= 0 and variants[at, PLAN_BEFORE] != before:
                at = variants[at, VARIANT]
            if at < 0:
                return False
            line = variants[at, LINE]
            total += variants[at, MOVE_TOTAL]
            npu += variants[at, MOVE_NPU]
            weights += variants[at, MOVE_WEIGHTS]
            scales += variants[at, MOVE_SCALES]
            early, now = variants[at, EARLY_BYTES], variants[at, BUFFER_BYTES]
            after = variants[at, LATE_BYTES]
        lines[i - first] = line
        if with_usage:
            most = max(most, used[i, 0] + (late if follows else 0) + early, used[i, 1] + now)
            late = after
    costs[0], costs[1], costs[2], costs[3], costs[4] = total, npu, most, weights + scales, weights
    return True
