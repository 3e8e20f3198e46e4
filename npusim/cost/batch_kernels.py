# SPDX-License-Identifier: Apache-2.0
"""Kernels of `npusim.cost.batch`: many programs, and what is kept of the plans of operations.

ops, entries and machine are those of `npusim.cost.entries_kernels`, plans those of
`npusim.cost.plans_kernels`. memo (keys i64 [n, KEY_COLUMNS], plans i64 [n, PLAN_COLUMNS], slots
i64, moves i64 [m, 2], counts i64 [2]) keeps plans by what they depend on; plan 0 is that of every
operation of the CPU. slots is the index of keys, moves tells the plan that follows another one,
both of a power of two; counts says how many plans and moves there are.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from npusim._jit import kernel
from npusim.cost import columns as col
from npusim.cost.entries_kernels import FITS, FREE, mixed, same
from npusim.cost.memory_kernels import find_ranges, peak
from npusim.cost.plans_kernels import (
    HALF0,
    HALF1,
    N_SLICES,
    NPU_CYCLES,
    PLAN_COLUMNS,
    PRE_BUFFERED,
    SCALE_BYTES,
    SLACK_BYTES,
    SLACK_CYCLES,
    TOTAL_CYCLES,
    WEIGHT_BYTES,
    make_plan,
)

READER, N_SHARING, SAME_AS_BEFORE, SAME_WEIGHTS, NEW_SCALES = range(5)
"""Of links: the first operation that reads the ofm, or -1; operations that read the same weights if
the neighbour is one of them, else 1; whether the one before is; the last earlier one, or -1;
whether the scales are not those of that one."""
LINK_COLUMNS = 5

KEY_COLUMNS = 5
_MIX = np.uint64(0x9E3779B97F4A7C15)
_SHIFT = np.uint64(29)
_FULL = 0.6
_ENTRY_BITS = 20
ENTRIES_MAX = 1 << _ENTRY_BITS


@kernel
def find_slot(key: Any, keys: Any, slots: Any) -> Any:
    """Where in slots the line of key i64 [KEY_COLUMNS] is or belongs."""
    mask = np.uint64(slots.size - 1)
    at = mixed(key, KEY_COLUMNS) & mask
    while slots[at] != FREE and not same(keys[slots[at]], key, KEY_COLUMNS):
        at = (at + np.uint64(1)) & mask
    return np.int64(at)


@kernel
def find_move(code: Any, moves: Any) -> Any:
    """Where in moves code i64 is or belongs."""
    mask = np.uint64(moves.shape[0] - 1)
    mix = np.uint64(code) * _MIX
    at = (mix ^ (mix >> _SHIFT)) & mask
    while moves[at, 0] != FREE and moves[at, 0] != code:
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
    if slots[at] == FREE:
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
        if moves[at, 0] == FREE:
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
