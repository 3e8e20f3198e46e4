# SPDX-License-Identifier: Apache-2.0
"""Where each live range lies in the arena, and how large that makes it.

Arm's compiler places ranges one after the other, each at the lowest address where it overlaps none
that is in use at the same time: first those that are alive when the arena is fullest, then the
longer, earlier, larger ones. If that takes more than is in use at once, it looks for a better
order: again and again, two of the ranges that keep the highest one up change their turns, drawn
from the random numbers of a Mersenne Twister with its standard seed, and what does not make the
arena larger is kept. Since the seed is fixed so is the result, addresses included.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import Final

import numpy as np
import numpy.typing as npt

from npusim.cost.liveness import LiveRanges
from npusim.cost.memory_table import Int64Array

_SEED: Final = 5489
"""The Mersenne Twister's standard one."""
_N_DRAWS: Final = (1 << 15, 1 << 19)
"""How many random numbers to try with; the last suffice for the longest search."""


@dataclass(frozen=True, slots=True, eq=False)
class Arena:
    """Addresses of live ranges.

    Attributes:
        address: of each range, int64 [n_ranges], multiples of 16.
        n_bytes: size of the arena.
        least_bytes: what is in use at once, which no order can go below.
        first_bytes: what the first order takes, before any search.
    """

    address: Int64Array
    n_bytes: int
    least_bytes: int
    first_bytes: int


def allocate(ranges: LiveRanges) -> Arena:
    """Addresses for live ranges, those that Arm's compiler gives them.

    Source: [VELA] regor 5.2.0, which the tests compare address by address.

    >>> from npusim.cost.program import FeatureMap, NpuOp, Program, View
    >>> from npusim.cost.liveness import live_ranges
    >>> shapes = [(1, 8, 8, 16), (1, 4, 4, 16), (1, 2, 2, 16)]
    >>> maps = [FeatureMap(name, shape) for name, shape in zip("xyz", shapes)]
    >>> views = [View(i, shape) for i, shape in enumerate(shapes)]
    >>> ops = NpuOp("y", "max_pool", *views[:2]), NpuOp("z", "max_pool", *views[1:])
    >>> arena = allocate(live_ranges(Program("two", tuple(maps), ops)))
    >>> arena.address.tolist(), arena.n_bytes
    ([256, 0, 256], 1280)
    """
    from npusim.cost import arena_kernels as kernels

    n = len(ranges.start)
    least = ranges.peak_bytes
    if not n:
        return Arena(np.empty(0, np.int64), 0, 0, 0)
    table = np.column_stack((ranges.start, ranges.end, ranges.n_bytes))
    near, place = np.empty((n, n + 1), np.int64), np.empty((4, n), np.int64)
    kernels.meet(table, np.argsort(ranges.start, kind="stable"), near)
    order = first_order(ranges)
    first = kernels.put_all(order, 0, np.iinfo(np.int64).max, table, near, place)
    size = first
    work = np.empty((10, n), np.int64)
    for n_draws in _N_DRAWS:
        if size == least:
            break
        trial, turns = place.copy(), order.copy()
        size = kernels.search(least, table, near, trial, turns, work, _draws(n_draws))
        if size != kernels.NO_DRAWS_LEFT:
            place = trial
            break
    return Arena(place[1], int(size), least, int(first))


def first_order(ranges: LiveRanges) -> Int64Array:
    """Ranges in the order in which they are placed at first, int64 [n_ranges]."""
    from npusim.cost.arena_kernels import find_fullest

    numbers, fullest = np.arange(len(ranges.start)), np.empty_like(ranges.start)
    find_fullest(ranges.usage_bytes, ranges.start, ranges.end, fullest)
    long = ranges.end - ranges.start
    return np.lexsort((numbers, -ranges.n_bytes, ranges.start, -long, -fullest))


@cache
def _draws(n: int) -> npt.NDArray[np.uint32]:
    return np.random.RandomState(_SEED).randint(0, 1 << 32, n, np.uint32)
