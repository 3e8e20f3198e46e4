# SPDX-License-Identifier: Apache-2.0
"""Which live ranges share a memory that has no room for all, in plain Python: the definition of
correct for `staging_kernels`."""

from __future__ import annotations

from collections.abc import Sequence


def choose(
    ranges: Sequence[tuple[int, int, int]],
    worth: Sequence[int],
    limit: int,
    least: Sequence[int],
    most: Sequence[int],
) -> list[bool]:
    """Twin of the kernel: ranges are (start, end, bytes)."""
    best: tuple[int, tuple[bool, ...]] = (0, ())

    def extend(kept: tuple[bool, ...], score: int, least: list[int], most: list[int]) -> None:
        nonlocal best
        if len(kept) == len(ranges):
            if score > best[0] or best[0] == 0:
                best = score, kept
            return
        start, end, n_bytes = ranges[len(kept)]
        alive = range(start, end + 1)
        fits = all(least[time] + n_bytes <= limit for time in alive)
        if fits:
            fuller = [n + n_bytes * (time in alive) for time, n in enumerate(least)]
            extend((*kept, True), _int32(score + worth[len(kept)]), fuller, most)
        if not fits or any(most[time] > limit for time in alive):
            emptier = [n - n_bytes * (time in alive) for time, n in enumerate(most)]
            extend((*kept, False), score, least, emptier)

    extend((), 0, list(least), list(most))
    return list(best[1])


def _int32(value: int) -> int:
    return (value + (1 << 31)) % (1 << 32) - (1 << 31)
