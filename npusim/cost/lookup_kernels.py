# SPDX-License-Identifier: Apache-2.0
"""Kernels of `npusim.cost.batch`: programs as numbers, and their costs by looking these up.

What an operation without weights or table costs depends on nothing else: alone i64 [n, 2] has its
cycles (total, NPU), -1 where no block fits. Any other one is a *step*, whose plan depends on its
context i64 [CONTEXT_COLUMNS], and on the slack that the one before leaves if that is a step too.
moves i64 [n, MOVE_COLUMNS] tell what its plan costs after each slack that the plan before may
leave; heads i64 [n_contexts] is the line of the first one of a context, -1 if it has none.

Of the first step nothing may hide the transfer of weights, and a few bytes decide whether it has a
buffer. Where the bytes that are likely leave that open, there are two more outcomes, for streams
that are smaller and larger: moves after the slacks on lines -1 and -2.

The twin of looking up is `npusim.cost.batch_kernels.plan_program`.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from npusim._jit import leaf_kernel
from npusim.cost import columns as col
from npusim.cost.entries_kernels import FREE, HAS_WEIGHTS, TABLE_BYTES, mixed, same
from npusim.cost.memory_kernels import accesses_of, find_ranges, peak
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

SLACK_BEFORE, SLACK, OTHER, MOVE_TOTAL, MOVE_NPU, MOVE_WEIGHTS, MOVE_SCALES = range(7)
EARLY_BYTES, BUFFER_BYTES, LATE_BYTES, CODING = range(7, 11)
MOVE_COLUMNS = 11
"""Line of the slack that the plan before leaves, 0 where it is no step's; of the slack that is
left; of the context's move after another slack, or -1; cycles and bytes of the plan; what its
buffer takes under the operation before, under its own and after it; what tells streams of the same
weights apart."""
N_OUTCOMES = 3
"""Of the first step: with streams as large as expected, smaller, larger."""
LEAST_CYCLES, MOST_CYCLES = range(5, 7)
"""Of costs: total cycles of the outcomes, the same where none is open."""
_CODING_SLICES = 32
_SEVERAL = 2 << _CODING_SLICES


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
    a0, a1 = accesses_of(program, starts, accesses.shape[0])
    m0, m1 = starts[program, 1], starts[program + 1, 1]
    o0, o1 = starts[program, 2], starts[program + 1, 2]
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

    index i64 [n_ops]: of each operation in ops i64 [n, OP_COLUMNS]. links i64 [n_ops,
    LINK_COLUMNS], or those of one program. known (contexts i64 [n_max,
    CONTEXT_COLUMNS], their number, slots i64 as their index). table, formats, room as of
    `set_usage`; without usage in_place is empty. listed (alone i32 [n_ops], steps i32 [n_ops],
    earlier i32 [n_ops], used i64 [n_ops, 2], heads i64 [n_programs, HEAD_COLUMNS]): of each program
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
        first = o0 if links.shape[0] == index.size else 0
        for i in range(o0, o1):
            link = links[first + i - o0]
            number = index[i]
            step_of[i - o0] = FREE
            if not is_step(ops[number]):
                alone[o0 + n_alone] = number
                n_alone, before, follows = n_alone + 1, number, 0
                continue
            reader, context = link[READER], contexts[n]
            context[BEFORE], context[NUMBER] = before, number
            context[AFTER] = index[o0 + reader] if reader >= 0 else -1
            context[SHARING] = link[N_SHARING]
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
            other = link[SAME_WEIGHTS]
            if other >= 0 and step_of[other] >= 0:
                repeats = 1
                flags = 2 * (link[NEW_SCALES] != 0) + (link[SAME_AS_BEFORE] != 0)
                earlier[o0 + n_steps] = 4 * step_of[other] + flags
            n_steps, before, follows = n_steps + 1, number, 1
        heads[program, N_ALONE], heads[program, N_STEPS] = n_alone, n_steps
        heads[program, REPEATS], heads[program, LEAST_BYTES] = repeats, least
    return n


@leaf_kernel
def find_move(context: Any, before: Any, heads: Any, moves: Any) -> Any:
    """The line of the move of a context after the slack on line `before`, -1 if it is not known."""
    at = heads[context]
    while at >= 0 and moves[at, SLACK_BEFORE] != before:
        at = moves[at, OTHER]
    return at


@leaf_kernel
def add_move(
    context: Any,
    before: Any,
    slack: Any,
    plan: Any,
    block_depth: Any,
    heads: Any,
    moves: Any,
    counts: Any,
) -> None:
    """Note that plan i64 [PLAN_COLUMNS], which leaves the slack on a line, is that of a context
    after another slack; counts i64 [2] has the number of moves in the last place."""
    move = moves[counts[1]]
    move[OTHER], heads[context] = heads[context], counts[1]
    counts[1] += 1
    move[SLACK_BEFORE], move[SLACK] = before, slack
    move[MOVE_TOTAL], move[MOVE_NPU] = plan[TOTAL_CYCLES], plan[NPU_CYCLES]
    move[MOVE_WEIGHTS], move[MOVE_SCALES] = plan[WEIGHT_BYTES], plan[SCALE_BYTES]
    move[EARLY_BYTES] = plan[HALF0] if plan[PRE_BUFFERED] else 0
    move[BUFFER_BYTES] = plan[HALF0] + plan[HALF1]
    in_second = plan[HALF1] > 0 and plan[N_SLICES] % 2 == 0
    move[LATE_BYTES] = plan[HALF1] if in_second else plan[HALF0]
    move[CODING] = (plan[N_SLICES] << _CODING_SLICES) + block_depth


@leaf_kernel
def repeated_bytes(k: Any, earlier: Any, places: Any, moves: Any) -> Any:
    """What of the bytes of step k, which an earlier step shares the weights of, is counted already:
    streams of the earlier one, however they are cut, and bytes that are in flash; both i64.

    earlier i64 [n_steps] as `set_steps` lists it, places i64 [n_steps] of moves.
    """
    move, other = moves[places[k]], earlier[k] >> 2
    streams = moves[places[other], MOVE_WEIGHTS]
    while other >= 0:
        first = moves[places[other]]
        if first[CODING] == move[CODING] and first[MOVE_WEIGHTS] == move[MOVE_WEIGHTS]:
            return streams, move[MOVE_WEIGHTS] + (0 if earlier[k] & 2 else move[MOVE_SCALES])
        other = earlier[other] >> 2
    return streams, 0


@leaf_kernel
def shares_buffer(k: Any, earlier: Any, places: Any, moves: Any) -> Any:
    """Whether step k uses the buffer of the one before: the same weights, both in one piece."""
    if earlier[k] < 0 or earlier[k] & 1 == 0:
        return False
    move, before = moves[places[k]], moves[places[k - 1]]
    in_one = move[CODING] < _SEVERAL and before[CODING] < _SEVERAL
    return in_one and before[BUFFER_BYTES] == move[BUFFER_BYTES]


@leaf_kernel
def follow(steps: Any, outcome: Any, heads: Any, moves: Any) -> Any:
    """Cycles of steps i64 [n_steps], total and of the NPU, with an outcome of the first; -1 where a
    move is not known."""
    total, npu, slack = 0, 0, 0
    for k in range(steps.size):
        before = slack if steps[k] & 1 else 0
        at = find_move(steps[k] >> 1, before if k else -outcome, heads, moves)
        if at < 0:
            return -1, -1
        slack = moves[at, SLACK]
        total += moves[at, MOVE_TOTAL]
        npu += moves[at, MOVE_NPU]
    return total, npu


@leaf_kernel
def set_cycles(steps: Any, alone: Any, npu_alone: Any, heads: Any, moves: Any, costs: Any) -> Any:
    """Write the cycles of a program whose first step is open to costs i64 [7]: the mean of both
    outcomes, and the least and most; return whether all moves are known. alone, npu_alone i64:
    cycles of what is no step."""
    low, npu_low = follow(steps, 1, heads, moves)
    high, npu_high = follow(steps, 2, heads, moves)
    if low < 0 or high < 0:
        return False
    costs[0], costs[1] = alone + (low + high) // 2, npu_alone + (npu_low + npu_high) // 2
    costs[LEAST_CYCLES], costs[MOST_CYCLES] = alone + min(low, high), alone + max(low, high)
    return True


@leaf_kernel
def look_up(
    first: Any,
    head: Any,
    listed: Any,
    with_usage: Any,
    alone: Any,
    heads: Any,
    moves: Any,
    places: Any,
    costs: Any,
) -> Any:
    """Write costs i64 [7] of one program whose operations begin at `first`, as those of
    `batch_kernels.cost_programs`; return whether all its moves are known. places i64 [n_steps] is
    room for their lines."""
    numbers, steps, earlier, used, _ = listed
    total, npu, weights, scales, fits = 0, 0, 0, 0, 0
    for i in range(first, first + head[N_ALONE]):
        number = numbers[i]
        total += alone[number, 0]
        npu += alone[number, 1]
        fits |= alone[number, 0]
    if fits < 0:
        return False
    most, slack, late, again, shared = head[LEAST_BYTES], 0, 0, 0, 0
    n, repeats, cycles, npu_alone = head[N_STEPS], head[REPEATS] != 0, total, npu
    own = earlier[first : first + n]
    for k in range(n):
        i = first + k
        follows = steps[i] & 1
        at = find_move(steps[i] >> 1, slack if follows else 0, heads, moves)
        if at < 0:
            return False
        move = moves[at]
        slack, early = move[SLACK], move[EARLY_BYTES]
        total += move[MOVE_TOTAL]
        npu += move[MOVE_NPU]
        weights += move[MOVE_WEIGHTS]
        scales += move[MOVE_SCALES]
        if repeats:
            places[k] = at
            if own[k] >= 0:
                streams, in_flash = repeated_bytes(k, own, places, moves)
                again += streams
                shared += in_flash
            if follows and shares_buffer(k, own, places, moves):
                early = 0
        if with_usage:
            before = late if follows else 0
            most = max(most, used[i, 0] + before + early, used[i, 1] + move[BUFFER_BYTES])
            late = move[LATE_BYTES]
    costs[0], costs[1], costs[2] = total, npu, most
    costs[3], costs[4] = weights + scales - shared, weights - again
    costs[LEAST_CYCLES] = costs[MOST_CYCLES] = total
    if n > 0 and find_move(steps[first] >> 1, -1, heads, moves) >= 0:
        return set_cycles(steps[first : first + n], cycles, npu_alone, heads, moves, costs)
    return True
