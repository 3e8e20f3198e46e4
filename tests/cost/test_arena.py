# SPDX-License-Identifier: Apache-2.0
"""The arena's allocator: by hand, as its twin does, and address by address as Arm's compiler."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
from compiled_programs import Compiled, Reader, compiled_models, compiled_networks
from hypothesis import given, settings
from hypothesis import strategies as st

from npusim.cost import arena as arenas
from npusim.cost import reference_arena as reference
from npusim.cost.arena import allocate, first_order
from npusim.cost.liveness import LiveRanges, live_ranges

KWS = """
0 0 1120|0 1 3360|0 1 496|0 3 8000|1 3 1328|2 5 8000|3 5 4752|4 7 8000|5 7 1328|6 9 8000|7 9 4752
8 11 8000|9 11 1328|10 13 8000|11 13 4752|12 15 8000|13 15 1440|14 17 8000|15 17 4720|16 19 8000
18 21 64|20 25 16
"""
"""Ranges of MLPerf Tiny's keyword spotting network: start, end, bytes."""


def ranges_of(rows: list[tuple[int, int, int]]) -> LiveRanges:
    start, end, n_bytes = np.array(rows, np.int64).reshape(-1, 3).T
    nothing = np.empty(0, np.int64)
    n_steps = int(end.max(initial=-1)) + 1
    return LiveRanges(start, end, n_bytes, nothing, nothing.reshape(0, 2), nothing, n_steps)


def kws() -> LiveRanges:
    rows = [row.split() for line in KWS.split("\n") for row in line.split("|") if row]
    return ranges_of([tuple(map(int, row)) for row in rows])


def draws() -> Iterator[int]:
    return iter(np.random.RandomState(5489).randint(0, 1 << 32, 1 << 20, np.uint32).tolist())


def twin(ranges: LiveRanges) -> list[int]:
    rows = list(zip(*(a.tolist() for a in (ranges.start, ranges.end, ranges.n_bytes)), strict=True))
    order = reference.first_order(rows)
    placement = reference.place_all(order, rows)
    if reference.size_of(placement) > ranges.peak_bytes:
        placement = reference.search(order, rows, ranges.peak_bytes, draws())
    return [placement[i].address for i in range(len(rows))]


def overlaps(ranges: LiveRanges, address: np.ndarray) -> list[tuple[int, int]]:
    """Pairs that are in use at once and share bytes."""
    end = address + ranges.n_bytes
    n = len(address)
    return [
        (i, j)
        for i in range(n)
        for j in range(i)
        if ranges.start[i] <= ranges.end[j] and ranges.start[j] <= ranges.end[i]
        if address[i] < end[j] and address[j] < end[i]
    ]


@st.composite
def many_ranges(draw):
    rows = []
    for _ in range(draw(st.integers(0, 12))):
        start = draw(st.integers(0, 12))
        end = start + draw(st.integers(0, 5))
        rows.append((start, end, 16 * draw(st.integers(1, 20))))
    return ranges_of(rows)


class TestOrder:
    def test_the_fullest_time_first_then_long_early_large_ranges(self):
        rows = [(0, 1, 16), (2, 3, 64), (2, 5, 64), (4, 5, 32), (2, 3, 80)]
        assert first_order(ranges_of(rows)).tolist() == [2, 4, 1, 3, 0]


class TestArena:
    def test_of_nothing_is_empty(self):
        arena = allocate(ranges_of([]))
        assert (arena.n_bytes, arena.address.tolist()) == (0, [])

    def test_ranges_lie_as_low_as_they_can(self):
        arena = allocate(ranges_of([(0, 3, 64), (0, 1, 32), (2, 3, 16), (4, 5, 48)]))
        assert (arena.address.tolist(), arena.n_bytes) == ([0, 64, 64, 0], 96)

    def test_the_random_numbers_are_the_standard_generator_s(self):
        assert arenas._draws(1 << 10)[:2].tolist() == [3499211612, 581869302]

    def test_search_finds_what_the_first_order_misses(self):
        arena = allocate(kws())
        assert arena.first_bytes > arena.least_bytes
        assert arena.n_bytes == arena.least_bytes == 22192

    def test_search_that_cannot_succeed_ends(self):
        # three pairs round a circle: at each time two of 16 and one of 32 bytes that do not fit
        rows = [(0, 2, 32), (1, 4, 16), (3, 6, 32), (5, 8, 16), (7, 9, 32), (0, 0, 16), (9, 9, 16)]
        rows += [(2, 3, 16), (6, 7, 16), (4, 5, 16)]
        arena = allocate(ranges_of(rows))
        assert arena.n_bytes >= arena.least_bytes
        assert arena.address.tolist() == twin(ranges_of(rows))

    @settings(deadline=None, derandomize=True, max_examples=150)
    @given(ranges=many_ranges())
    def test_kernel_is_the_twin(self, ranges):
        order = first_order(ranges).tolist()
        rows = list(zip(ranges.start, ranges.end, ranges.n_bytes, strict=True))
        assert order == reference.first_order(rows)
        arena = allocate(ranges)
        if not rows:
            assert arena.n_bytes == 0
            return
        assert arena.first_bytes == reference.size_of(reference.place_all(order, rows))
        if arena.n_bytes == arena.least_bytes:  # others take the twin thousands of rounds
            assert arena.address.tolist() == twin(ranges)

    @settings(deadline=None, derandomize=True, max_examples=150)
    @given(ranges=many_ranges())
    def test_ranges_in_use_at_once_do_not_overlap(self, ranges):
        arena = allocate(ranges)
        assert overlaps(ranges, arena.address) == []
        assert (arena.address + ranges.n_bytes).max(initial=0) == arena.n_bytes
        assert arena.least_bytes <= arena.n_bytes <= arena.first_bytes

    def test_few_random_numbers_give_the_same_as_many(self, monkeypatch):
        wanted = allocate(kws()).address.tolist()
        monkeypatch.setattr(arenas, "_N_DRAWS", (4, 16, 1 << 19))
        assert allocate(kws()).address.tolist() == wanted


def differences(got: Compiled) -> list[str]:
    """What the compiler placed elsewhere."""
    ranges = live_ranges(got.program, schedule=got.schedule)
    arena = allocate(ranges)
    found = [f"{arena.n_bytes} bytes instead of {got.arena_bytes}"]
    if arena.n_bytes == got.arena_bytes:
        found = []
    for key, (_, _, address, _) in got.ranges.items():
        number = int(ranges.of_map[key] if isinstance(key, int) else ranges.of_buffer[key])
        if arena.address[number] != address:
            found.append(f"{key}: {arena.address[number]} instead of {address}")
    return found


class TestCompiler:
    def test_random_networks(self):
        found = {
            label: differences(Reader(compiled, network).read())
            for label, network, compiled in compiled_networks(4)
        }
        assert len(found) > 40
        assert {label: names for label, names in found.items() if names} == {}

    @pytest.mark.slow
    def test_many_random_networks(self):
        found = {
            label: differences(Reader(compiled, network).read())
            for label, network, compiled in compiled_networks(30, first=100)
        }
        assert {label: names for label, names in found.items() if names} == {}

    def test_real_models(self, models_dir):
        found = {
            label: differences(Reader(compiled, network).read())
            for label, network, compiled in compiled_models(models_dir)
        }
        assert {label: names for label, names in found.items() if names} == {}
