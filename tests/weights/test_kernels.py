# SPDX-License-Identifier: Apache-2.0
"""Each kernel against its twin in plain Python, on small random input and at its limits."""

from __future__ import annotations

import arm
import generators
import numba
import numpy as np
import plans
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from npusim.weights import (
    bits,
    emit_kernels,
    format,
    lanes,
    plan,
    plan_columns,
    reference,
    section_kernels,
)
from npusim.weights import reference_encoders as encoders
from npusim.weights.reference import Palette, Section, Slice

seeds = st.integers(0, 2**32 - 1)
often = settings(deadline=None, derandomize=True, max_examples=120)


def random_values(seed: int, most: int = 300) -> np.ndarray:
    return generators.tensor(np.random.default_rng(seed), most)


def value_counts(values: np.ndarray) -> np.ndarray:
    return np.bincount(values.astype(np.int64) + 255, minlength=511)


# --- bits.py and lanes.py: code that Numba does not make itself -------------------------------


@numba.njit
def count_ones(word):
    return bits.count_ones(word)


@numba.njit
def legacy_walk(indices, first, last, costs, relative, extremes, best):
    lanes.legacy_walk(indices, first, last, costs, relative, extremes, best)


@numba.njit
def legacy_turns(indices, first, last, costs, relative, best, turns):
    return lanes.legacy_turns(indices, first, last, costs, relative, best, turns)


@numba.njit
def regor_walk(indices, first, last, costs, relative, uncodable, lowest, active):
    return lanes.regor_walk(indices, first, last, costs, relative, uncodable, lowest, active)


@often
@given(word=st.integers(0, 2**64 - 1))
def test_count_ones(word):
    assert count_ones(np.uint64(word)) == bits.count_ones_python(word) == bin(word).count("1")


def random_costs(rng: np.random.Generator, dtype: type) -> tuple[np.ndarray, np.ndarray]:
    """Weight indices, and the bits that each takes in each of sixteen states."""
    costs = rng.integers(0, 40, (64, lanes.LANES)).astype(dtype)
    return rng.integers(0, 64, 64).astype(np.int16), costs


@often
@given(seed=seeds)
def test_legacy_walk(seed):
    rng = np.random.default_rng(seed)
    indices, costs = random_costs(rng, np.int16)
    costs[rng.random(costs.shape) < 0.1] = 10000
    relative = rng.integers(0, 300, lanes.LANES).astype(np.int16)
    first, last = np.sort(rng.integers(0, 65, 2)).tolist()
    best = int(rng.integers(13))
    costs[:, best] %= 40
    relative[best] = 0
    both = []
    for walk in (legacy_walk, lanes.legacy_walk_python):
        sums, extremes = relative.copy(), np.zeros((2, lanes.LANES), np.int16)
        walk(indices, first, last, costs, sums, extremes, best)
        both.append((sums.tolist(), extremes.tolist()))
    assert both[0] == both[1]


@often
@given(seed=seeds)
def test_legacy_turns(seed):
    rng = np.random.default_rng(seed)
    indices, costs = random_costs(rng, np.int16)
    relative = rng.integers(0, 300, lanes.LANES).astype(np.int16)
    best = int(rng.integers(13))
    relative[best] = 0
    first, last = np.sort(rng.integers(0, 65, 2)).tolist()
    both = []
    for walk in (legacy_turns, lanes.legacy_turns_python):
        sums, turns = relative.copy(), np.zeros(64, np.int32)
        state = walk(indices, first, last, costs, sums, best, turns)
        both.append((state, sums.tolist(), turns[: last - first].tolist()))
    assert both[0] == both[1]


@often
@given(seed=seeds)
def test_regor_walk(seed):
    rng = np.random.default_rng(seed)
    indices, costs = random_costs(rng, np.int32)
    costs[rng.random(costs.shape) < 0.1] = lanes.UNCODABLE
    relative = rng.integers(-300, 300, lanes.LANES).astype(np.int32)
    first, last = (1 + np.sort(rng.integers(0, 64, 2))).tolist()
    uncodable = rng.integers(first - 3, first, lanes.LANES).astype(np.int32)
    active = int(rng.integers(13))
    both = []
    for walk in (regor_walk, lanes.regor_walk_python):
        sums, refused, lowest = relative.copy(), uncodable.copy(), np.zeros(16, np.int32)
        highest = walk(indices, first, last, costs, sums, refused, lowest, active)
        both.append((highest, sums.tolist(), refused.tolist(), lowest.tolist()))
    assert both[0] == both[1]


# --- section_kernels.py -----------------------------------------------------------------------


def test_log2_up():
    for n in range(600):
        assert section_kernels.log2_up(n) == encoders._log2_up(n)


@often
@given(seed=seeds)
def test_distinct_since(seed):
    rng = np.random.default_rng(seed)
    values = random_values(seed)
    seen = np.full(511, -1, np.int32)
    for i, value in enumerate(values):
        seen[value + 255] = i
    start = int(rng.integers(values.size))
    low, high = int(values.min()) + 255, int(values.max()) + 255
    found = section_kernels.distinct_since(seen, low, high, np.int32(start))
    assert found == len({*values[start:].tolist()})


@often
@given(seed=seeds)
def test_legacy_sections(seed):
    values = random_values(seed, 800)
    assert plan.legacy_starts(values).tolist() == encoders.legacy_sections(values.tolist())


def test_legacy_sections_of_bursts():
    """Where a check stays due through the zeros that follow, and only they change its outcome."""
    rng = np.random.default_rng(1)
    for _ in range(6):
        values = generators.bursts(rng, 900)
        values[rng.random(values.size) < 0.02] = 5
        assert plan.legacy_starts(values).tolist() == encoders.legacy_sections(values.tolist())


@often
@given(seed=seeds)
def test_count(seed):
    values = random_values(seed)
    counts = np.empty(511, np.int64)
    section_kernels.count(values, np.empty((4, 511), np.int32), counts)
    assert counts.tolist() == value_counts(values).tolist()


@often
@given(seed=seeds)
def test_zero_run_rules(seed):
    values = random_values(seed)
    counts = value_counts(values)
    legacy = section_kernels.legacy_zero_runs(counts)
    assert bool(legacy) == encoders.legacy_zero_runs(values.tolist())
    regor = section_kernels.regor_zero_runs(values, counts)
    assert bool(regor) == encoders.regor_zero_runs(values.tolist())


@pytest.mark.parametrize(
    ("values", "legacy", "regor"),
    [
        ([0], True, True),
        ([1], False, False),
        ([0, 0, 0, 0, 1], False, False),  # four times as many is too few for both
        ([0, 0, 0, 0, 0, 1], True, False),
        ([0, 0, 0, 0, 0, 0, 1], True, True),
        ([0, 1, 0, 2, 0, 3, 0, 4, 0, 5, 0, 6], True, False),  # no two zeros in a row
        ([0, 1, 0, 2, 0, 3, 0, 0, 0, 4], True, True),  # three of six
    ],
)
def test_zero_run_rules_by_hand(values, legacy, regor):
    array = np.array(values, np.int16)
    counts = value_counts(array)
    assert encoders.legacy_zero_runs(values) == legacy
    assert encoders.regor_zero_runs(values) == regor
    assert section_kernels.legacy_zero_runs(counts) == legacy
    assert section_kernels.regor_zero_runs(array, counts) == regor


@often
@given(seed=seeds, zero_runs=st.booleans(), at_half=st.booleans())
def test_choose_palette_and_index_table(seed, zero_runs, at_half):
    values = random_values(seed)
    row, entries = np.zeros(10, np.int64), np.zeros(32, np.int64)
    section_kernels.choose_palette(value_counts(values), int(zero_runs), int(at_half), row, entries)
    expected = encoders.choose_palette(values.tolist(), zero_runs, at_half)
    assert bool(row[plan_columns.ZERO_RUNS]) == zero_runs
    assert row[plan_columns.DIRECT_OFFSET] == expected.direct_offset
    assert row[plan_columns.PALETTE_BITS] == expected.palette_bits
    assert entries[: row[plan_columns.N_ENTRIES]].tolist() == expected.entries
    raw = expected.raw_bits
    assert row[plan_columns.RAW_BITS] == (-1 if raw is None else raw)
    table = np.empty(511, np.int16)
    section_kernels.index_table(row, entries, table)
    coded = {int(v) for v in values if v or not zero_runs}
    if not values.any():
        coded.add(0)  # the zero that an all-zero section codes
    for value in coded:
        assert table[value + 255] == expected.index(value)
        assert table[value + 255] <= row[plan_columns.HIGHEST]


@often
@given(seed=seeds, zero_runs=st.booleans())
def test_split(seed, zero_runs):
    values = random_values(seed)
    start = int(np.random.default_rng(seed).integers(values.size))
    table = np.arange(511).astype(np.int16)
    indices, runs = np.empty(values.size, np.int16), np.empty(values.size + 1, np.int32)
    n = section_kernels.split(values, start, values.size, int(zero_runs), table, indices, runs)
    weights, expected_runs = encoders.coded(values[start:].tolist(), zero_runs)
    assert (indices[:n].astype(int) - 255).tolist() == weights
    if zero_runs:
        assert runs[: n + 1].tolist() == expected_runs


# --- whole plans ------------------------------------------------------------------------------


def same_coding(ours: Section, expected: Section) -> bool:
    palettes = [
        (p.zero_runs, p.direct_offset, p.palette_bits, p.entries)
        for p in (ours.palette, expected.palette)
    ]
    return palettes[0] == palettes[1] and (ours.indices, ours.runs, ours.slices) == (
        expected.indices,
        expected.runs,
        expected.slices,
    )


def legacy_sections(values: list[int]) -> list[Section]:
    return plans.reference_sections(
        values,
        encoders.legacy_sections(values),
        encoders.legacy_zero_runs,
        encoders.legacy_slices,
        at_half=False,
    )


def regor_sections(values: list[int]) -> list[Section]:
    return plans.reference_sections(
        values, [0], encoders.regor_zero_runs, encoders.regor_slices, at_half=True
    )


PLANNERS = {
    "legacy": (plan.legacy_plan, legacy_sections),
    "regor": (plan.regor_plan, regor_sections),
}


@often
@given(seed=seeds, most=st.sampled_from([6, 60, 600]))
@pytest.mark.parametrize("encoder", PLANNERS)
def test_plans(encoder, seed, most):
    values = random_values(seed, most)
    planner, reference_planner = PLANNERS[encoder]
    ours, expected = plans.sections_of(planner(values)), reference_planner(values.tolist())
    assert len(ours) == len(expected)
    for number, (mine, theirs) in enumerate(zip(ours, expected, strict=True)):
        if theirs.palette.zero_runs or encoder == "regor":
            assert same_coding(mine, theirs), number
        else:  # without runs their divisor is not sent
            for part in (*mine.slices, *theirs.slices):
                part.zdiv = 0
            assert same_coding(mine, theirs), number


@pytest.mark.parametrize("encoder", PLANNERS)
@pytest.mark.parametrize("n", [63, 64, 65, 127, 128, 129, 32767, 32768, 65535])
def test_plans_at_the_borders_of_blocks_and_slices(encoder, n):
    """Searches walk blocks of 64 indices; slices hold 32767 weights at the most."""
    rng = np.random.default_rng(n)
    values = generators.drifting(rng, n)
    values[rng.integers(0, n, 3)] = 255
    planner, _ = PLANNERS[encoder]
    arms = arm.legacy_encode if encoder == "legacy" else arm.regor_encode
    assert planner(values).stream() == arms(values)


# --- emit_kernels.py --------------------------------------------------------------------------


def bits_without_end(sections: list[Section]) -> int:
    """Length of the sections' stream up to its end marker, measured on what the twin writes."""
    out = reference.BitWriter()
    for section in sections:
        at = 0
        for part in section.slices:
            end = at + part.n_weights
            runs = section.runs[at + (at > 0) : end + 1] if section.palette.zero_runs else []
            coded = section.indices[at:end]
            reference.emit_slice(out, section.palette, part, coded, runs, at == 0)
            at = end
    return len(out.bits)


@settings(deadline=None, derandomize=True, max_examples=200)
@given(seed=seeds, most=st.sampled_from([2, 15, 150]))
def test_plans_no_encoder_makes_are_sized_and_written(seed, most):
    rng = np.random.default_rng(seed)
    sections = [generators.random_section(rng, most) for _ in range(int(rng.integers(1, 4)))]
    made = plans.plan_of(sections)
    assert made.bits() == bits_without_end(sections)
    assert made.stream() == reference.emit(sections)
    assert made.n_bytes() == len(made.stream())


def _extreme_sections() -> dict[str, Section]:
    n = 700
    none, runs_on = Palette(False, 0, 9, []), Palette(True, 0, 9, [])
    palette = Palette(False, 31, 9, list(range(2, 34)))
    long_runs = [70_000, *[0] * (n - 1), 70_000]
    ones = [Slice(1, 1, 0, i % 4) for i in range(n)]
    return {
        "quotient_31": Section(none, [31] * n, [], [Slice(n, 0, 0, 0)]),
        "quotients_31_and_runs": Section(runs_on, [31] * n, long_runs, [Slice(n, 0, 0, 3)]),
        "truncated": Section(none, [95] * n, [], [Slice(n, 5, 1, 0)]),
        "raw_9_bits": Section(none, [511] * n, [], [Slice(n, 7, 0, 0)]),
        "raw_and_runs": Section(runs_on, [511] * n, long_runs, [Slice(n, 7, 0, 2)]),
        "palette_of_32": Section(palette, [31] * n, [], [Slice(n, 7, 1, 0)]),
        "one_weight": Section(runs_on, [0], [1_000_000, 0], [Slice(1, 3, 0, 0)]),
        "many_slices": Section(runs_on, [5] * n, long_runs, ones),
        "longest": Section(none, [2] * 32768, [], [Slice(32768, 1, 0, 0)]),
    }


EXTREMES = _extreme_sections()


@pytest.mark.parametrize("name", EXTREMES)
def test_limits_are_sized_and_written(name):
    sections = [EXTREMES[name]]
    made = plans.plan_of(sections)
    assert made.bits() == bits_without_end(sections)
    assert made.stream() == reference.emit(sections)


@often
@given(
    fields=st.lists(
        st.integers(0, 64).flatmap(lambda n: st.tuples(st.just(n), st.integers(0, 2**n - 1))),
        min_size=1,
    ),
    at=st.integers(0, 200),
)
def test_put(fields, at):
    words = np.zeros((at + sum(n for n, _ in fields)) // 64 + 2, np.uint64)
    expected = reference.BitWriter()
    expected.put(at, 0)
    for n, value in fields:
        at = emit_kernels.put(words, at, np.uint64(value), n)
        expected.put(n, value)
    assert at == len(expected.bits)
    written = np.unpackbits(words.view(np.uint8), bitorder="little")
    assert written[:at].tolist() == expected.bits
    assert not written[at:].any()


def test_table_of_weights_in_a_palette_has_all_indices():
    """The largest index there is, of folded value 511 behind 32 entries, has a cost."""
    assert format.FOLDED_MAX + format.PALETTE_MAX < 1024
    values = np.concatenate([np.repeat(np.arange(1, 33), 40), [-255, 254, 255]]).astype(np.int16)
    for encoder, arms in (("legacy", arm.legacy_encode), ("regor", arm.regor_encode)):
        assert PLANNERS[encoder][0](values).stream() == arms(values)
