# SPDX-License-Identifier: Apache-2.0
"""Placing live ranges in the arena in plain Python: the definition of correct for `arena_kernels`.

A range is (start, end, bytes); a placed one knows its turn, where it begins and ends and the range
that it lies on. Random numbers come from a generator of integers of 32 bits.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

Range = tuple[int, int, int]


@dataclass(frozen=True)
class Placed:
    """Where a range lies."""

    turn: int
    address: int
    end: int
    support: int | None


Placement = dict[int, Placed]


def overlap(first: Range, second: Range) -> bool:
    """Whether both are in use at some time."""
    return first[0] <= second[1] and second[0] <= first[1]


def neighbours(i: int, ranges: Sequence[Range]) -> list[int]:
    """Those in use together with range i: by the first time both are, then by number."""
    others = [j for j in range(len(ranges)) if j != i and overlap(ranges[i], ranges[j])]
    return sorted(others, key=lambda j: (max(ranges[i][0], ranges[j][0]), j))


def first_order(ranges: Sequence[Range]) -> list[int]:
    """Ranges in the order in which they are placed at first: those of the fullest time, then long,
    early, large ones."""

    def in_use(time: int) -> int:
        return sum(n for start, end, n in ranges if start <= time <= end)

    def key(i: int) -> tuple[int, ...]:
        start, end, n_bytes = ranges[i]
        fullest = max(in_use(time) for time in range(start, end + 1))
        return -fullest, start - end, start, -n_bytes, i

    return sorted(range(len(ranges)), key=key)


def lowest_place(i: int, turn: int, ranges: Sequence[Range], placement: Placement) -> Placed:
    """The lowest place where range i overlaps no other."""
    near = [placement[j] for j in neighbours(i, ranges) if j in placement]
    numbers = [j for j in neighbours(i, ranges) if j in placement]
    address, support = 0, None
    while True:
        start = address
        for j, other in zip(numbers, near, strict=True):
            if other.address < address + ranges[i][2] and address < other.end:
                address, support = other.end, j
        if address == start:
            return Placed(turn, address, address + ranges[i][2], support)


def place_all(order: Sequence[int], ranges: Sequence[Range]) -> Placement:
    """Every range at its turn."""
    placement: Placement = {}
    for turn, i in enumerate(order):
        placement[i] = lowest_place(i, turn, ranges, placement)
    return placement


def size_of(placement: Placement) -> int:
    """Bytes that it needs."""
    return max(placed.end for placed in placement.values())


def stack(i: int | None, placement: Placement) -> set[int]:
    """Turns of range i and of all it lies on."""
    turns = set()
    while i is not None:
        turns.add(placement[i].turn)
        i = placement[i].support
    return turns


def reachable(top: int, ranges: Sequence[Range]) -> Iterator[int]:
    """Ranges connected with `top` by being in use together, nearest first; some twice."""
    seen, queue = {top}, [top]
    for i in queue:
        for j in neighbours(i, ranges):
            yield j
            if j not in seen:
                seen.add(j)
                queue.append(j)


def reorder(
    order: list[int],
    placement: Placement,
    ranges: Sequence[Range],
    stuck: bool,
    draws: Iterator[int],
) -> list[int]:
    """The order with two turns exchanged, or four if stuck."""
    top = max(sorted(placement), key=lambda i: placement[i].end)
    turns = sorted(set().union(*(stack(i, placement) for i in (top, *neighbours(top, ranges)))))
    outside = [turn for turn in turns if not overlap(ranges[order[turn]], ranges[top])]
    from_outside = next(draws) % 100 < 30 and bool(outside)
    choice = outside if from_outside else turns
    order = exchanged(order, choice[next(draws) % len(choice)], turns, draws)
    if stuck:
        for i in reachable(top, ranges):
            if placement[i].turn not in turns:
                turns.append(placement[i].turn)
        order = exchanged(order, turns[next(draws) % len(turns)], turns, draws)
    return order


def exchanged(order: list[int], first: int, turns: list[int], draws: Iterator[int]) -> list[int]:
    """The order with turn `first` and one that is drawn exchanged."""
    second = turns[next(draws) % len(turns)]
    second = turns[-1] if second == first else second
    result = list(order)
    result[first], result[second] = order[second], order[first]
    return result


def search(
    order: Sequence[int], ranges: Sequence[Range], least: int, draws: Iterator[int]
) -> Placement:
    """The best placement that the search comes to."""
    best_order, best = list(order), place_all(order, ranges)
    last_gain = 0
    for number in range(99_999):
        trial_order = reorder(best_order, best, ranges, number - last_gain > 25, draws)
        trial = place_all(trial_order, ranges)
        if size_of(trial) <= size_of(best):
            if size_of(trial) < size_of(best):
                last_gain = number
            best_order, best = trial_order, trial
            if size_of(best) <= least:
                break
        if number - last_gain > 5_000:
            break
    return best
