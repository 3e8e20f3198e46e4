# SPDX-License-Identifier: Apache-2.0
"""Kernel of `npusim.cost.staging`; twin: `npusim.cost.reference_staging`."""

from __future__ import annotations

from typing import Any

import numpy as np

from npusim._jit import leaf_kernel


@leaf_kernel
def move(usage: Any, one: Any, sign: Any) -> None:
    """Add the bytes of a range (start, end, bytes), times sign, to the usage."""
    for time in range(one[0], one[1] + 1):
        usage[time] += sign * one[2]


@leaf_kernel
def peak(usage: Any, one: Any) -> Any:
    """The most in use while a range (start, end, bytes) is alive."""
    most = usage[one[0]]
    for time in range(one[0] + 1, one[1] + 1):
        most = max(most, usage[time])
    return most


@leaf_kernel
def choose(ranges: Any, worth: Any, limit: Any, least: Any, most: Any, room: Any, kept: Any) -> Any:
    """Write kept i8 [n]: which ranges are worth most together among those that fit the limit i64.

    ranges i64 [n, 3]: start, end, bytes; worth i64 [n], below 2**31; least and most i64 [n_steps]:
    bytes in use without and with all of them, as on return; room i64 [n + 1, 3]. The first of equal
    choices counts, kept before left. Sums are of 32 bits and overflow, as in Arm's compiler.
    """
    n = ranges.shape[0]
    best, depth = 0, 0
    room[0] = 0
    while depth >= 0:
        if depth == n:
            if room[n, 1] > best or best == 0:
                best = room[n, 1]
                for i in range(n):
                    kept[i] = room[i, 2]
            depth -= 1
            continue
        stage, one = room[depth, 0], ranges[depth]
        if room[depth, 2] == 1:
            move(least, one, -1)
        elif stage == 2:
            move(most, one, 1)
        room[depth, 2] = 0
        fits = stage == 0 and peak(least, one) + one[2] <= limit
        if fits:
            room[depth, 0] = 3 if peak(most, one) <= limit else 1
            room[depth, 2] = 1
            room[depth + 1, 1] = np.int64(np.int32(room[depth, 1] + worth[depth]))
            move(least, one, 1)
        elif stage < 2:
            room[depth, 0] = 2
            room[depth + 1, 1] = room[depth, 1]
            move(most, one, -1)
        else:
            depth -= 1
            continue
        depth += 1
        room[depth, 0], room[depth, 2] = 0, 0
