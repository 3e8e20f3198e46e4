# SPDX-License-Identifier: Apache-2.0
"""Kernels of `npusim.cost.formats` and `npusim.cost.liveness`; twin: `reference_memory`.

accesses i64 [n_accesses, 8], maps i64 [n_maps, 7], in_place i64 [n_ops], starts i64
[n_programs + 1, 3]: the arrays of `npusim.cost.memory_table.MemoryTable`. formats i8 [n_maps]: 0
NHWC, 1 NHCWB16.
"""

from __future__ import annotations

from typing import Any

from npusim._jit import kernel

_OP, _MAP, _ROLE, _WIDTH, _DEPTH, _PART_WIDTH, _PART_DEPTH, _NEEDS_NHWC = 0, 1, 2, 3, 4, 5, 6, 7
_READS, _WRITES, _WORKS_IN = 0, 1, 2
_DTYPE, _ELEMENT_BITS, _FLAGS = 4, 5, 6
_IS_INPUT, _IS_OUTPUT, _IS_CONSTANT, _IS_VARIABLE = 1, 2, 4, 8
_DEPTH_ALIGNMENT = 16
_ELEMENTS_MAX = (1 << 31) - 1
_QUANTUM = 16


@kernel
def padded_elements(map_: Any, brick: Any) -> Any:
    """Elements of a map i64 [7] in memory, its depth padded if brick."""
    depth = map_[3]
    if brick:
        depth = (depth + _DEPTH_ALIGNMENT - 1) // _DEPTH_ALIGNMENT * _DEPTH_ALIGNMENT
    return map_[0] * map_[1] * map_[2] * depth


@kernel
def find_formats(accesses: Any, maps: Any, starts: Any, read: Any, formats: Any) -> Any:
    """Fill formats; read i64 [n_maps, 2] is for the width and depth that readers agree on."""
    for i in range(maps.shape[0]):
        seen = maps[i, _FLAGS] != 0 or padded_elements(maps[i], True) > _ELEMENTS_MAX
        formats[i] = 0 if seen else 1
        read[i, 0] = -1
    for program in range(starts.shape[0] - 1):
        first, last, base = starts[program, 0], starts[program + 1, 0], starts[program, 1]
        for row in range(first, last):
            i = base + accesses[row, _MAP]
            if accesses[row, _NEEDS_NHWC]:
                formats[i] = 0
            if accesses[row, _ROLE] == _READS:
                read[i, 0], read[i, 1] = accesses[row, _PART_WIDTH], accesses[row, _PART_DEPTH]
        for row in range(first, last):
            i = base + accesses[row, _MAP]
            if read[i, 0] < 0 or accesses[row, _ROLE] == _WORKS_IN:
                continue
            same = accesses[row, _WIDTH] == read[i, 0] and accesses[row, _DEPTH] == read[i, 1]
            if accesses[row, _ROLE] == _READS:
                same &= accesses[row, _PART_WIDTH] == read[i, 0]
                same &= accesses[row, _PART_DEPTH] == read[i, 1]
            if not same:
                formats[i] = 0


@kernel
def join(time: Any, step: Any, i: Any, ranges: Any) -> Any:
    """Extend range i to steps time .. time + step."""
    ranges[i, 0] = min(ranges[i, 0], max(time, 0))
    ranges[i, 1] = max(ranges[i, 1], time + step)


@kernel
def place_of_map(i: Any, n: Any, maps: Any, formats: Any, ranges: Any, map_ranges: Any) -> Any:
    """Give map i a range of its own if it has none; return how many ranges there are then."""
    if map_ranges[i, 0] >= 0:
        return n
    bits = padded_elements(maps[i], formats[i] == 1) * maps[i, _ELEMENT_BITS]
    quanta = (bits + 8 * _QUANTUM - 1) // (8 * _QUANTUM)
    ranges[n, 0], ranges[n, 1], ranges[n, 2] = 1 << 62, -1, quanta * _QUANTUM
    map_ranges[i, 0] = n
    return n + 1


@kernel
def can_replace(ifm: Any, ofm: Any, maps: Any, formats: Any, map_ranges: Any) -> Any:
    """Whether map ofm may take the place of map ifm, so far as the maps decide."""
    if maps[ifm, _FLAGS] & (_IS_OUTPUT | _IS_CONSTANT | _IS_VARIABLE):
        return False
    if maps[ofm, _FLAGS] & _IS_VARIABLE or formats[ifm] != formats[ofm]:
        return False
    for axis in range(_DTYPE + 1):
        if maps[ifm, axis] != maps[ofm, axis]:
            return False
    return map_ranges[ifm, 1] == 1 and map_ranges[ofm, 2] == 1


@kernel
def find_ranges(
    accesses: Any,
    maps: Any,
    in_place: Any,
    schedule: Any,
    formats: Any,
    ranges: Any,
    map_ranges: Any,
    op_ranges: Any,
) -> Any:
    """Fill the live ranges of one program; return their number and that of time steps.

    schedule i64 [n_ops, 7]: bytes of both halves of the weight buffer, whether the first is filled
    early, the half that is used last, the operation that the buffer was made for, number of the
    cascade (0: none), bytes of the rolling buffer that is the ifm (0: none).
    ranges i64 [n_maps + 2 * n_ops, 3]: start, end, bytes. map_ranges i64 [n_maps, 3]: range of a
    map or -1, number of times it is read, and written. op_ranges i64 [n_ops, 3]: ranges of both
    halves or -1, and the time step.
    """
    map_ranges[:, 0], map_ranges[:, 1:] = -1, 0
    for row in range(accesses.shape[0]):
        if accesses[row, _ROLE] != _WORKS_IN:
            map_ranges[accesses[row, _MAP], 1 + accesses[row, _ROLE]] += 1
    n, now, row = 0, 0, 0
    for op in range(in_place.size):
        time, cascade = now, schedule[op, 5]
        if cascade and op and schedule[op - 1, 5] == cascade:
            time = op_ranges[op - 1, 2]
        first = row
        while row < accesses.shape[0] and accesses[row, _OP] == op:
            row += 1
        if in_place[op] and not cascade:
            ofm = accesses[row - 1, _MAP]
            for k in range(first, row):
                ifm = accesses[k, _MAP]
                if accesses[k, _ROLE] == _READS and can_replace(
                    ifm, ofm, maps, formats, map_ranges
                ):
                    n = place_of_map(ifm, n, maps, formats, ranges, map_ranges)
                    map_ranges[ofm, 0] = map_ranges[ifm, 0]
                    break
        for half in range(2):
            op_ranges[op, half] = -1
            if schedule[op, half] == 0:
                continue
            if schedule[op, 4] != op:
                op_ranges[op, half] = op_ranges[schedule[op, 4], half]
            else:
                ranges[n, 0], ranges[n, 1], ranges[n, 2] = 1 << 62, -1, schedule[op, half]
                op_ranges[op, half] = n
                n += 1
            early = 1 if half == 0 and schedule[op, 2] else 0
            late = 1 if half == schedule[op, 3] else 0
            join(time - early, early + late, op_ranges[op, half], ranges)
        op_ranges[op, 2] = time
        for k in range(first, row):
            i = accesses[k, _MAP]
            if maps[i, _FLAGS] & _IS_CONSTANT:
                continue
            n = place_of_map(i, n, maps, formats, ranges, map_ranges)
            if maps[i, _FLAGS] & _IS_INPUT:
                join(0, 1, map_ranges[i, 0], ranges)
            join(time, 1, map_ranges[i, 0], ranges)
            if k == first and schedule[op, 6]:
                ranges[map_ranges[i, 0], 2] = schedule[op, 6]
        if time == now:
            now += 2
    for i in range(maps.shape[0]):
        if map_ranges[i, 0] >= 0 and maps[i, _FLAGS] & (_IS_OUTPUT | _IS_VARIABLE):
            first_step = 0 if maps[i, _FLAGS] & _IS_VARIABLE else now
            join(first_step, now + 1 - first_step, map_ranges[i, 0], ranges)
    return n, now + 2


@kernel
def peak_of(ranges: Any, n: Any, n_steps: Any, usage: Any) -> Any:
    """The most bytes in use at once, by the first n ranges; usage i64 [>= n_steps + 1]."""
    usage[: n_steps + 1] = 0
    for i in range(n):
        usage[ranges[i, 0]] += ranges[i, 2]
        usage[ranges[i, 1] + 1] -= ranges[i, 2]
    most, now = 0, 0
    for time in range(n_steps):
        now += usage[time]
        usage[time] = now
        most = max(most, now)
    return most
