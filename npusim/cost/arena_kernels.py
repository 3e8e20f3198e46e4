# SPDX-License-Identifier: Apache-2.0
"""Kernels of `npusim.cost.arena`; twin: `npusim.cost.reference_arena`.

ranges i64 [n, 3]: first and last time step, bytes. near i64 [n, n + 1]: how many others are in use
at some time together with a range, and which, as `meet` orders them. place i64 [4, n], columns of
ranges: the turn at which each was placed, its address, the byte after it, and the range that it
was put on top of (-1: none). order i64 [n]: range of each turn. Ranges without a place have
address -1.
"""

from __future__ import annotations

from typing import Any

from npusim._jit import leaf_kernel

_TURN, _ADDRESS, _END, _SUPPORT = 0, 1, 2, 3
_ROUNDS_MAX = 99_999
_ROUNDS_WITHOUT_GAIN = 5_000
_ROUNDS_STUCK = 25
_DRAWS_OF_ROUND = 5
_DRAW_OUTSIDE_PERCENT = 30
NO_DRAWS_LEFT = -1


@leaf_kernel
def meet(ranges: Any, by_start: Any, near: Any) -> Any:
    """Fill near: those in use when a range begins by number, then the later ones as they begin.

    by_start i64 [n]: all ranges by first time step, then by number.
    """
    n = ranges.shape[0]
    for i in range(n):
        count = 0
        for j in range(n):
            if j != i and ranges[j, 0] <= ranges[i, 0] and ranges[i, 0] <= ranges[j, 1]:
                count += 1
                near[i, count] = j
        for k in range(n):
            j = by_start[k]
            if ranges[i, 0] < ranges[j, 0] and ranges[j, 0] <= ranges[i, 1]:
                count += 1
                near[i, count] = j
        near[i, 0] = count


@leaf_kernel
def find_fullest(usage: Any, start: Any, end: Any, fullest: Any) -> Any:
    """Write the most bytes in use, usage i64 [n_steps], while each range is: all i64 [n]."""
    for i in range(start.size):
        most = 0
        for time in range(start[i], end[i] + 1):
            most = max(most, usage[time])
        fullest[i] = most


@leaf_kernel
def put(i: Any, turn: Any, ranges: Any, near: Any, place: Any) -> Any:
    """Place range i at the lowest address where it overlaps none that is near; return its end."""
    address, support = 0, -1
    moved = True
    while moved:
        moved = False
        for k in range(1, near[i, 0] + 1):
            j = near[i, k]
            if place[_ADDRESS, j] < 0 or place[_END, j] <= address:
                continue
            if place[_ADDRESS, j] < address + ranges[i, 2]:
                address, support, moved = place[_END, j], j, True
    place[_TURN, i] = turn
    place[_ADDRESS, i] = address
    place[_END, i] = address + ranges[i, 2]
    place[_SUPPORT, i] = support
    return place[_END, i]


@leaf_kernel
def put_all(order: Any, since: Any, most: Any, ranges: Any, near: Any, place: Any) -> Any:
    """Place ranges in order until they need more than `most` bytes; return the bytes needed.

    Those whose turn is before `since` are in their place already.
    """
    size = 0
    for turn in range(since):
        size = max(size, place[_END, order[turn]])
    for turn in range(since, order.size):
        place[_ADDRESS, order[turn]] = -1
    for turn in range(since, order.size):
        size = max(size, put(order[turn], turn, ranges, near, place))
        if size > most:
            break
    return size


@leaf_kernel
def highest(place: Any) -> Any:
    """The first range that ends at the top."""
    top = 0
    for i in range(place.shape[1]):
        if place[_END, i] > place[_END, top]:
            top = i
    return top


@leaf_kernel
def mark_stack(i: Any, place: Any, marks: Any) -> Any:
    """Mark the turns of range i and of those it lies on; marks i64 [n], 1: marked."""
    while i >= 0:
        marks[place[_TURN, i]] = 1
        i = place[_SUPPORT, i]


@leaf_kernel
def add_reachable(top: Any, near: Any, place: Any, marks: Any, turns: Any, queue: Any) -> Any:
    """Append to turns i64 [n] those of ranges not marked yet, nearest to `top` first; their number.

    turns holds the marked ones. queue i64 [2, n]: ranges, and whether each was in the queue.
    """
    count = 0
    for turn in range(marks.size):
        count += marks[turn]
    queue[1, :] = 0
    queue[0, 0], queue[1, top] = top, 1
    head, tail = 0, 1
    while head < tail:
        i = queue[0, head]
        head += 1
        for k in range(1, near[i, 0] + 1):
            j = near[i, k]
            if marks[place[_TURN, j]] == 0:
                marks[place[_TURN, j]] = 1
                turns[count] = place[_TURN, j]
                count += 1
            if queue[1, j] == 0:
                queue[1, j] = 1
                queue[0, tail] = j
                tail += 1
    return count


@leaf_kernel
def swap(order: Any, first: Any, second: Any, turns: Any, count: Any) -> Any:
    """Exchange two turns; equal ones mean the first and the last of turns. Return the earlier."""
    if first == second:
        second = turns[count - 1]
    order[first], order[second] = order[second], order[first]
    return min(first, second)


@leaf_kernel
def reorder(
    stuck: Any, ranges: Any, near: Any, place: Any, order: Any, work: Any, draws: Any
) -> Any:
    """Let two ranges that keep the highest one up take each other's turn; return the draws used,
    and the first turn that has another range.

    Those that keep it up are it, those near it, and all they lie on. If `stuck`, two more of all
    that it has to do with are exchanged. work i64 [5, n]; draws u32, at least 5.
    """
    n = order.size
    marks, turns, outside = work[0], work[1], work[2]
    top = highest(place)
    marks[:] = 0
    mark_stack(top, place, marks)
    for k in range(1, near[top, 0] + 1):
        mark_stack(near[top, k], place, marks)
    count, n_outside = 0, 0
    for turn in range(n):
        if marks[turn] == 0:
            continue
        turns[count] = turn
        count += 1
        i = order[turn]
        if ranges[i, 0] > ranges[top, 1] or ranges[top, 0] > ranges[i, 1]:
            outside[n_outside] = turn
            n_outside += 1
    if draws[0] % 100 < _DRAW_OUTSIDE_PERCENT and n_outside > 0:
        first = outside[draws[1] % n_outside]
    else:
        first = turns[draws[1] % count]
    since = swap(order, first, turns[draws[2] % count], turns, count)
    if not stuck:
        return 3, since
    count = add_reachable(top, near, place, marks, turns, work[3:5])
    again = swap(order, turns[draws[3] % count], turns[draws[4] % count], turns, count)
    return 5, min(since, again)


@leaf_kernel
def keep(place: Any, order: Any, kept_place: Any, kept_order: Any) -> None:
    """Write places i64 [4, n] and order i64 [n] to arrays of the same shapes."""
    for i in range(order.size):
        kept_order[i] = order[i]
        for column in range(place.shape[0]):
            kept_place[column, i] = place[column, i]


@leaf_kernel
def search(
    least: Any, ranges: Any, near: Any, place: Any, order: Any, work: Any, draws: Any
) -> Any:
    """Improve places by trying other orders; return the bytes needed, or `NO_DRAWS_LEFT`.

    least: bytes at which to stop. place and order hold the start, then the best found; work i64
    [10, n]; draws u32 [n_draws].
    """
    best = place[_END, highest(place)]
    best_place, best_order = work[5:9], work[9]
    keep(place, order, best_place, best_order)
    used, last_gain = 0, 0
    for number in range(_ROUNDS_MAX):
        if used + _DRAWS_OF_ROUND > draws.size:
            return NO_DRAWS_LEFT
        stuck = number - last_gain > _ROUNDS_STUCK
        n_draws, since = reorder(stuck, ranges, near, place, order, work, draws[used:])
        used += n_draws
        size = put_all(order, since, best, ranges, near, place)
        if size <= best:
            if size < best:
                last_gain = number
            best = size
            keep(place, order, best_place, best_order)
            if best <= least:
                break
        else:
            keep(best_place, best_order, place, order)
        if number - last_gain > _ROUNDS_WITHOUT_GAIN:
            break
    keep(best_place, best_order, place, order)
    return best
