# SPDX-License-Identifier: Apache-2.0
"""Formats and live ranges of a program in plain Python: the definition of correct for
`memory_kernels`.

Takes the rows of a `MemoryTable` of one program as lists of integers.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from npusim.cost import memory_table as columns

Row = Sequence[int]


def map_formats(accesses: Sequence[Row], maps: Sequence[Row]) -> list[int]:
    """0 (NHWC) or 1 (NHCWB16) for each map."""
    return [int(not _needs_nhwc(i, accesses, maps[i])) for i in range(len(maps))]


def _needs_nhwc(i: int, accesses: Sequence[Row], one: Row) -> bool:
    batch, height, width, depth, _, _, flags = one
    uses = [row for row in accesses if row[1] == i]
    if flags or batch * height * width * _padded(depth) >= 1 << 31 or any(row[7] for row in uses):
        return True
    reads = [row for row in uses if row[2] == columns.READS]
    seen = {(row[5], row[6]) for row in reads}
    wholes = {(row[3], row[4]) for row in uses if row[2] != columns.WORKS_IN}
    return bool(reads) and len(seen | wholes) > 1


def _padded(depth: int) -> int:
    return -(-depth // 16) * 16


@dataclass
class Range:
    """A stretch of memory and the time steps at which it is used."""

    n_bytes: int
    steps: list[int]


def map_bytes(one: Row, brick: bool) -> int:
    """What a map takes in the arena."""
    batch, height, width, depth, _, bits, _ = one
    n_bits = batch * height * width * (_padded(depth) if brick else depth) * bits
    return -(-n_bits // 128) * 16


@dataclass
class Ranges:
    """All ranges, in order; which one a map is in, and a half of an operation's buffer."""

    all: list[Range]
    of_map: dict[int, Range]
    of_buffer: dict[tuple[int, int], Range]
    n_steps: int


def live_ranges(
    accesses: Sequence[Row], maps: Sequence[Row], ops: Sequence[Row], formats: Sequence[int]
) -> Ranges:
    """The live ranges of a program; rows of `ops` as in `memory_kernels`."""
    result, times = Ranges([], {}, {}, 0), op_times(ops)
    for op, row in enumerate(ops):
        in_place, halves, (early, last_half, buffer_of) = row[0], row[1:3], row[3:6]
        cascade, rolling_bytes, rolling_input = row[6:]
        time = times[op]
        uses = [row for row in accesses if row[0] == op]
        if in_place and not cascade and uses:
            _replace(uses, accesses, maps, formats, result)
        for half, n_bytes in enumerate(halves):
            if not n_bytes:
                continue
            if buffer_of == op:
                result.of_buffer[op, half] = Range(n_bytes, [])
                result.all.append(result.of_buffer[op, half])
            one = result.of_buffer[op, half] = result.of_buffer[buffer_of, half]
            first = time - 1 if early and half == 0 else time
            one.steps += [max(first, 0), time + (half == last_half)]
        for number, row in enumerate(uses):
            i, flags = row[1], maps[row[1]][6]
            if flags & columns.IS_ELSEWHERE:
                continue
            one = _of_map(i, maps, formats, result)
            one.steps += [time, time + 1] + [0] * bool(flags & columns.IS_INPUT)
            if rolling_bytes and number == rolling_input:
                one.n_bytes = rolling_bytes
    end = max(times, default=-2) + 2
    for i, one in result.of_map.items():
        if maps[i][6] & columns.IS_OUTPUT:
            one.steps += [end, end + 1]
        if maps[i][6] & columns.IS_VARIABLE:
            one.steps += [0, end + 1]
    result.n_steps = end + 2
    return result


def op_times(ops: Sequence[Row]) -> list[int]:
    """First time step of each operation."""
    times: list[int] = []
    for op, row in enumerate(ops):
        together = op > 0 and row[6] and row[6] == ops[op - 1][6]
        times.append(times[-1] if together else max(times, default=-2) + 2)
    return times


def _of_map(i: int, maps: Sequence[Row], formats: Sequence[int], result: Ranges) -> Range:
    if i not in result.of_map:
        result.of_map[i] = Range(map_bytes(maps[i], formats[i] == 1), [])
        result.all.append(result.of_map[i])
    return result.of_map[i]


def _replace(
    uses: Sequence[Row],
    accesses: Sequence[Row],
    maps: Sequence[Row],
    formats: Sequence[int],
    result: Ranges,
) -> None:
    """Let the ofm take the place of the first ifm that it can."""
    ofm = uses[-1][1]
    stays = columns.IS_OUTPUT | columns.IS_ELSEWHERE | columns.IS_VARIABLE
    for ifm in (row[1] for row in uses if row[2] == columns.READS):
        n_readers = sum(row[1:3] == [ifm, columns.READS] for row in map(list, accesses))
        n_writers = sum(row[1:3] == [ofm, columns.WRITES] for row in map(list, accesses))
        alike = list(maps[ifm][:5]) == list(maps[ofm][:5]) and formats[ifm] == formats[ofm]
        fixed = columns.IS_ELSEWHERE | columns.IS_VARIABLE
        free = not maps[ifm][6] & stays and not maps[ofm][6] & fixed
        if alike and free and n_readers == 1 and n_writers == 1:
            result.of_map[ofm] = _of_map(ifm, maps, formats, result)
            return


def usage_bytes(ranges: Ranges) -> list[int]:
    """Bytes in use at each time step."""
    return [
        sum(one.n_bytes for one in ranges.all if min(one.steps) <= time <= max(one.steps))
        for time in range(ranges.n_steps)
    ]
