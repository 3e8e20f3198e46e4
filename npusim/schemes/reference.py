# SPDX-License-Identifier: Apache-2.0
"""The schemes' kernels in plain Python: slow, obvious, the definition of correct."""

from __future__ import annotations

from collections.abc import Sequence


def put_fields(codes: Sequence[int], lengths: Sequence[int]) -> str:
    """Bits of the fields in the order they are written."""
    return "".join(
        f"{code:0{n}b}"[::-1] if n else "" for code, n in zip(codes, lengths, strict=True)
    )


def take_fields(bits: str, at: int, width: int, n: int) -> list[int]:
    """`n` fields of `width` bits from bit `at` on."""
    starts = range(at, at + n * width, width) if width else [at] * n
    return [int(bits[i : i + width][::-1] or "0", 2) for i in starts]


def rice_code(value: int, k: int) -> str:
    """Golomb-Rice code of a value: zeros for its quotient, a one, `k` bits of remainder."""
    return "0" * (value >> k) + "1" + put_fields([value & ((1 << k) - 1)], [k])


def take_rice(bits: str, at: int, k: int, n: int) -> tuple[list[int], int]:
    """`n` Golomb-Rice codes from bit `at` on, and the bit after them."""
    values = []
    for _ in range(n):
        one = bits.index("1", at)
        values.append((one - at) << k | take_fields(bits, one + 1, k, 1)[0])
        at = one + 1 + k
    return values, at


def zero_runs(values: Sequence[int]) -> tuple[list[int], int]:
    """Zeros before each non-zero value, and those after the last."""
    runs, run = [], 0
    for value in values:
        if value:
            runs.append(run)
            run = 0
        else:
            run += 1
    return runs, run


def take_runs(bits: str, at: int, k_run: int, k_code: int, n: int) -> tuple[list[int], int]:
    """`n` weights of Golomb-Rice coded runs and non-zeros in turn, and the bit after them."""
    values: list[int] = []
    while len(values) < n:
        (run,), at = take_rice(bits, at, k_run, 1)
        values += [0] * run
        if len(values) < n:
            (code,), at = take_rice(bits, at, k_code, 1)
            values.append(-(code // 2 + 1) if code % 2 else code // 2 + 1)
    return values, at


def fill_entries(values: Sequence[int], run_max: int, group: int) -> list[list[tuple[int, int]]]:
    """Entries of each group of weights: zeros before a weight, and the weight."""
    groups = []
    for start in range(0, len(values), group):
        entries, run = [], 0
        part = values[start : start + group]
        for at, value in enumerate(part):
            if value or run == run_max or at == len(part) - 1:
                entries.append((run, value))
                run = 0
            else:
                run += 1
        groups.append(entries)
    return groups


def run_lanes(
    parts: Sequence[Sequence[tuple[int, int, int]]],
    fifo: int,
    dma: int,
    rates: tuple[int, int, int],
) -> tuple[int, int]:
    """Cycles of lanes for their symbols of bits, weights and steps, and cycles they had no bits.

    `rates` are what a lane can do of each in a cycle, steps in 65536ths.
    """
    lanes = [_Lane(part) for part in parts]
    cycles = waits = 0
    while any(lane.symbols for lane in lanes):
        left = dma
        for i in range(len(lanes)):
            left -= lanes[(cycles + i) % len(lanes)].fill(left, fifo)
        waits += sum(lane.work(*rates) for lane in lanes if lane.symbols)
        cycles += 1
    return cycles, waits


class _Lane:
    def __init__(self, symbols: Sequence[tuple[int, int, int]]):
        self.symbols = [[bits, weights, 65536 * steps] for bits, weights, steps in symbols]
        self.unread = sum(bits for bits, _, _ in symbols)
        self.fifo = self.credit = 0

    def fill(self, left: int, room: int) -> int:
        got = min(left, room - self.fifo, self.unread)
        self.fifo += got
        self.unread -= got
        return got

    def work(self, bits: int, weights: int, steps: int) -> bool:
        """One cycle; whether it ended for want of bits."""
        self.credit = min(self.credit, 65536) + steps
        while self.symbols:
            symbol = self.symbols[0]
            taken = min(bits, self.fifo, symbol[0])
            bits, self.fifo, symbol[0] = bits - taken, self.fifo - taken, symbol[0] - taken
            done = min(self.credit, symbol[2])
            self.credit, symbol[2] = self.credit - done, symbol[2] - done
            if symbol[0]:
                return self.fifo == 0 and bits > 0
            if symbol[2]:
                return False
            given = min(weights, symbol[1])
            weights, symbol[1] = weights - given, symbol[1] - given
            if symbol[1]:
                return False
            self.symbols.pop(0)
        return False
