# SPDX-License-Identifier: Apache-2.0
"""Kernels of `npusim.cost.formats` and `npusim.cost.liveness`; twin: `reference_memory`.

accesses i64 [n_accesses, 8], maps i64 [n_maps, 7] and starts i64 [n_programs + 1, 3] are those of
`npusim.cost.memory_table.MemoryTable`; formats i8 [n_maps]: 0 NHWC, 1 NHCWB16.

ops i64 [n_ops, 9]: whether the ofm may take the place of an ifm; bytes of both halves of the weight
buffer; whether the first half is filled early; the half that is used last; the operation that the
buffer was made for; number of the cascade (0: none); bytes of the rolling buffer that an input is
(0: none), and which input. ranges i64 [n, 4], n at least n_maps + 2 * n_ops + 3: start, end, bytes
of live ranges, and room for the bytes in use at each time step. owners i64 [n_maps + n_ops, 3]: of
a map, its range or -1, how often it is read, how often written; of an operation, the ranges of both
halves or -1, and its time step.
"""

from __future__ import annotations

from typing import Any

from npusim._jit import leaf_kernel

_OP, _MAP, _ROLE, _WIDTH, _DEPTH, _PART_WIDTH, _PART_DEPTH, _NEEDS_NHWC = 0, 1, 2, 3, 4, 5, 6, 7
_READS, _WRITES, _WORKS_IN = 0, 1, 2
_DTYPE, _ELEMENT_BITS, _FLAGS = 4, 5, 6
_IS_INPUT, _IS_OUTPUT, _IS_ELSEWHERE, _IS_VARIABLE = 1, 2, 4, 8
_DEPTH_ALIGNMENT = 16
_ELEMENTS_MAX = (1 << 31) - 1
_QUANTUM = 16
_IN_PLACE, _HALF, _EARLY, _LAST_HALF, _BUFFER_OF, _CASCADE, _ROLLING, _ROLLING_INPUT = (
    0,
    1,
    3,
    4,
    5,
    6,
    7,
    8,
)
_NEVER = 1 << 62


@leaf_kernel
def padded_elements(i: Any, maps: Any, brick: Any) -> Any:
    """Elements of map i in memory, its depth padded if brick."""
    depth = maps[i, 3]
    if brick:
        depth = (depth + _DEPTH_ALIGNMENT - 1) // _DEPTH_ALIGNMENT * _DEPTH_ALIGNMENT
    return maps[i, 0] * maps[i, 1] * maps[i, 2] * depth


@leaf_kernel
def find_formats(accesses: Any, maps: Any, read: Any, formats: Any) -> Any:
    """Fill formats of one program; read i64 [n_maps, 3] is room for what readers agree on."""
    for i in range(maps.shape[0]):
        seen = maps[i, _FLAGS] != 0 or padded_elements(i, maps, True) > _ELEMENTS_MAX
        formats[i] = 0 if seen else 1
        read[i, 0] = -1
    for row in range(accesses.shape[0]):
        i = accesses[row, _MAP]
        if accesses[row, _NEEDS_NHWC]:
            formats[i] = 0
        if accesses[row, _ROLE] == _READS:
            read[i, 0], read[i, 1] = accesses[row, _PART_WIDTH], accesses[row, _PART_DEPTH]
    for row in range(accesses.shape[0]):
        i = accesses[row, _MAP]
        if formats[i] == 0 or read[i, 0] < 0 or accesses[row, _ROLE] == _WORKS_IN:
            continue
        same = accesses[row, _WIDTH] == read[i, 0] and accesses[row, _DEPTH] == read[i, 1]
        if accesses[row, _ROLE] == _READS:
            same &= accesses[row, _PART_WIDTH] == read[i, 0]
            same &= accesses[row, _PART_DEPTH] == read[i, 1]
        if not same:
            formats[i] = 0


@leaf_kernel
def accesses_of(program: Any, starts: Any, n: Any) -> Any:
    """The first of n accesses that a program has, and the one behind its last: all where every
    program starts at the first."""
    if starts[starts.shape[0] - 1, 0] == 0:
        return 0, n
    return starts[program, 0], starts[program + 1, 0]


@leaf_kernel
def find_all_formats(accesses: Any, maps: Any, starts: Any, read: Any, formats: Any) -> Any:
    """Fill formats of all programs; read i64 [n, 3], n the most maps of a program."""
    for program in range(starts.shape[0] - 1):
        a0, a1 = accesses_of(program, starts, accesses.shape[0])
        m0, m1 = starts[program, 1], starts[program + 1, 1]
        find_formats(accesses[a0:a1], maps[m0:m1], read, formats[m0:m1])


@leaf_kernel
def join(time: Any, step: Any, i: Any, ranges: Any) -> Any:
    """Extend range i to steps time .. time + step."""
    ranges[i, 0] = min(ranges[i, 0], max(time, 0))
    ranges[i, 1] = max(ranges[i, 1], time + step)


@leaf_kernel
def begin(n_bytes: Any, n: Any, ranges: Any) -> Any:
    """Make range n, of no time yet; return the number of ranges."""
    ranges[n, 0], ranges[n, 1], ranges[n, 2] = _NEVER, -1, n_bytes
    return n + 1


@leaf_kernel
def begin_map(i: Any, n: Any, maps: Any, formats: Any, ranges: Any, owners: Any) -> Any:
    """Give map i a range; return the number of ranges."""
    bits = padded_elements(i, maps, formats[i] == 1) * maps[i, _ELEMENT_BITS]
    owners[i, 0] = n
    return begin((bits + 8 * _QUANTUM - 1) // (8 * _QUANTUM) * _QUANTUM, n, ranges)


@leaf_kernel
def can_replace(ifm: Any, ofm: Any, maps: Any, formats: Any, owners: Any) -> Any:
    """Whether map ofm may take the place of map ifm, so far as the maps decide."""
    if maps[ifm, _FLAGS] & (_IS_OUTPUT | _IS_ELSEWHERE | _IS_VARIABLE):
        return False
    if maps[ofm, _FLAGS] & (_IS_ELSEWHERE | _IS_VARIABLE) or formats[ifm] != formats[ofm]:
        return False
    for column in range(_DTYPE + 1):
        if maps[ifm, column] != maps[ofm, column]:
            return False
    return owners[ifm, 1] == 1 and owners[ofm, 2] == 1


@leaf_kernel
def join_buffer(op: Any, n: Any, ops: Any, time: Any, ranges: Any, owners: Any) -> Any:
    """Live ranges of an operation's weight buffer; owners begins with the operations."""
    for half in range(2):
        if ops[op, _HALF + half] == 0:
            continue
        if ops[op, _BUFFER_OF] == op:
            owners[op, half] = n
            n = begin(ops[op, _HALF + half], n, ranges)
        else:
            owners[op, half] = owners[ops[op, _BUFFER_OF], half]
        early = 1 if half == 0 and ops[op, _EARLY] else 0
        late = 1 if half == ops[op, _LAST_HALF] else 0
        join(time - early, early + late, owners[op, half], ranges)
    return n


@leaf_kernel
def rolls_on(op: Any, ops: Any) -> Any:
    """Whether an operation of a cascade reads a rolling buffer and writes one of the same size."""
    if op + 1 == ops.shape[0] or ops[op + 1, _CASCADE] != ops[op, _CASCADE]:
        return False
    return ops[op, _ROLLING] > 0 and ops[op, _ROLLING] == ops[op + 1, _ROLLING]


@leaf_kernel
def find_ranges(accesses: Any, maps: Any, ops: Any, formats: Any, ranges: Any, owners: Any) -> Any:
    """Fill ranges and owners for one program; return the numbers of ranges and of time steps."""
    n_maps, n_ops = maps.shape[0], ops.shape[0]
    by_op = owners[n_maps:]
    owners[:n_maps, 0], owners[:n_maps, 1:] = -1, 0
    for row in range(accesses.shape[0]):
        if accesses[row, _ROLE] != _WORKS_IN:
            owners[accesses[row, _MAP], 1 + accesses[row, _ROLE]] += 1
    n, now, last = 0, 0, 0
    for op in range(n_ops):
        time, cascade, first = now, ops[op, _CASCADE], last
        if cascade and op and ops[op - 1, _CASCADE] == cascade:
            time = by_op[op - 1, 2]
        by_op[op, 2] = time
        while last < accesses.shape[0] and accesses[last, _OP] == op:
            last += 1
        if ops[op, _IN_PLACE] and last > first and (not cascade or rolls_on(op, ops)):
            ofm = accesses[last - 1, _MAP]
            begins, ends = first, last
            if cascade:
                begins = first + ops[op, _ROLLING_INPUT]
                ends = begins + 1
            for row in range(begins, ends):
                i = accesses[row, _MAP]
                reads = accesses[row, _ROLE] == _READS
                if reads and can_replace(i, ofm, maps, formats, owners):
                    if owners[i, 0] < 0:
                        n = begin_map(i, n, maps, formats, ranges, owners)
                    owners[ofm, 0] = owners[i, 0]
                    break
        by_op[op, 0], by_op[op, 1] = -1, -1
        if ops[op, _HALF] or ops[op, _HALF + 1]:
            n = join_buffer(op, n, ops, time, ranges, by_op)
        for row in range(first, last):
            i = accesses[row, _MAP]
            if maps[i, _FLAGS] & _IS_ELSEWHERE:
                continue
            if owners[i, 0] < 0:
                n = begin_map(i, n, maps, formats, ranges, owners)
            since = 0 if maps[i, _FLAGS] & _IS_INPUT else time
            join(since, time + 1 - since, owners[i, 0], ranges)
            if ops[op, _ROLLING] and row == first + ops[op, _ROLLING_INPUT]:
                ranges[owners[i, 0], 2] = ops[op, _ROLLING]
        if time == now:
            now += 2
    for i in range(n_maps):
        if owners[i, 0] >= 0 and maps[i, _FLAGS] & (_IS_OUTPUT | _IS_VARIABLE):
            join(now, 1, owners[i, 0], ranges)
            if maps[i, _FLAGS] & _IS_VARIABLE:
                join(0, 1, owners[i, 0], ranges)
    return n, now + 2


@leaf_kernel
def peak(n: Any, n_steps: Any, ranges: Any) -> Any:
    """The most bytes that the first n ranges need at once; the last column gets them over time."""
    ranges[: n_steps + 1, 3] = 0
    for i in range(n):
        ranges[ranges[i, 0], 3] += ranges[i, 2]
        ranges[ranges[i, 1] + 1, 3] -= ranges[i, 2]
    most, now = 0, 0
    for time in range(n_steps):
        now += ranges[time, 3]
        ranges[time, 3] = now
        most = max(most, now)
    return most


@leaf_kernel
def find_peaks(
    accesses: Any,
    maps: Any,
    ops: Any,
    starts: Any,
    formats: Any,
    ranges: Any,
    owners: Any,
    peaks: Any,
) -> Any:
    """Fill peaks i64 [n_programs]: bytes that each program needs at once; and formats."""
    for program in range(peaks.size):
        a0, a1 = accesses_of(program, starts, accesses.shape[0])
        m0, m1 = starts[program, 1], starts[program + 1, 1]
        o0, o1 = starts[program, 2], starts[program + 1, 2]
        uses, own, form = accesses[a0:a1], maps[m0:m1], formats[m0:m1]
        find_formats(uses, own, owners, form)
        n, n_steps = find_ranges(uses, own, ops[o0:o1], form, ranges, owners)
        peaks[program] = peak(n, n_steps, ranges)
