# SPDX-License-Identifier: Apache-2.0
"""Pruning and requantizing integer weights: exact counts, exact grids, refused input."""

from __future__ import annotations

from fractions import Fraction
from itertools import combinations, pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from npusim.errors import ConfigError
from npusim.weights.conditioning import (
    cluster,
    condition,
    least_error_clip,
    magnitude_mask,
    n_of_m,
    prune,
    requantize,
    weight_error,
)

often = settings(deadline=None, derandomize=True, max_examples=80)

WEIGHTS = hnp.arrays(np.int64, st.integers(1, 200), elements=st.integers(-40, 40))


@settings(deadline=None, derandomize=True)
@given(weights=WEIGHTS, kept=st.floats(0, 1))
def test_mask_keeps_exactly_the_largest_and_earliest(weights, kept):
    mask = magnitude_mask(weights, kept)
    n_kept = round(kept * weights.size)
    by_rank = sorted(range(weights.size), key=lambda i: (-abs(int(weights[i])), i))
    assert np.flatnonzero(mask).tolist() == sorted(by_rank[:n_kept])


@settings(deadline=None, derandomize=True)
@given(weights=WEIGHTS, kept=st.floats(0, 1))
def test_pruned_weights_are_the_old_ones_or_zero(weights, kept):
    pruned = prune(weights, kept)
    assert ((pruned == weights) | (pruned == 0)).all()
    assert np.count_nonzero(pruned) == min(round(kept * weights.size), np.count_nonzero(weights))


def exact_code(weight, levels, clip):
    """[UDC] eq. (3) in exact fractions; Python rounds halves to even too."""
    clipped = max(-clip, min(clip, Fraction(weight)))
    return round(clipped * levels / clip)


@settings(deadline=None, derandomize=True)
@given(
    weights=hnp.arrays(np.int64, st.integers(1, 50), elements=st.integers(-255, 255)),
    bits=st.integers(2, 8),
    clip=st.none() | st.integers(1, 4000).map(lambda n: n / 16),
)
def test_codes_are_those_of_exact_arithmetic(weights, bits, clip):
    levels = 2 ** (bits - 1) - 1
    r = Fraction(clip) if clip else Fraction(max(int(np.abs(weights).max()), levels))
    expected = [exact_code(int(w), levels, r) for w in weights]
    codes = requantize(weights, bits, clip)
    assert codes.dtype == np.int8
    assert codes.tolist() == expected


def test_every_width_has_its_levels_on_each_side():
    weights = np.arange(-127, 128)
    spans = [np.unique(requantize(weights, bits)).tolist() for bits in range(1, 9)]
    sides = [1, 1, 3, 7, 15, 31, 63, 127]
    assert spans == [list(range(-side, side + 1)) for side in sides]


def test_halves_round_to_even():
    assert requantize([-6, -2, 0, 2, 6], bits=3, clip=12).tolist() == [-2, 0, 0, 0, 2]
    assert requantize([-2, 0, 2, 4], bits=2, clip=4).tolist() == [0, 0, 0, 1]


def test_weights_that_fit_come_back_unchanged():
    weights = np.array([-7, 0, 3, 7])
    for bits in range(4, 9):
        assert requantize(weights, bits).tolist() == weights.tolist()
    assert requantize([0, 1, 2], bits=3).tolist() == [0, 1, 2]


def test_clip_saturates():
    assert requantize([-300, -50, 50, 300], bits=4, clip=70).tolist() == [-7, -5, 5, 7]


@pytest.mark.parametrize("bits", range(2, 9))
@pytest.mark.parametrize("spread", [2, 20, 90])
def test_least_error_clip_is_the_best_of_all_ranges(bits, spread):
    rng = np.random.default_rng(bits)
    weights = np.clip(np.rint(rng.laplace(0, spread, 500)), -255, 255).astype(np.int16)
    levels = 2 ** (bits - 1) - 1
    errors = {
        clip: ((weights - requantize(weights, bits, clip) * (clip / levels)) ** 2).sum()
        for clip in range(levels, max(levels, int(np.abs(weights).max())) + 1)
    }
    found = least_error_clip(weights, bits)
    assert errors[found] == pytest.approx(min(errors.values()), abs=1e-6)  # rounding of the sums


def test_least_error_clip_keeps_weights_that_fit():
    weights = np.array([-7, 0, 3, 7])
    for bits in range(4, 9):
        clip = least_error_clip(weights, bits)
        assert requantize(weights, bits, clip).tolist() == weights.tolist()


def test_least_error_clip_without_effect():
    assert least_error_clip([-100, 3], bits=1) == 1
    assert least_error_clip(np.zeros(0, np.int8), bits=3) == least_error_clip([0, 0], bits=3) == 3


def test_one_bit_codes_are_signs_and_keep_zeros():
    assert requantize([-128, -1, 0, 1, 127], bits=1).tolist() == [-1, -1, 0, 1, 1]


def test_mask_is_chosen_on_the_weights_not_on_their_codes():
    weights = np.array([90, 100, 110, 127])  # all of them code 1 with two bits
    assert condition(weights, bits=2, nonzero_fraction=0.5).tolist() == [0, 0, 1, 1]
    assert prune(requantize(weights, 2), 0.5).tolist() == [1, 1, 0, 0]


def test_codes_may_be_sparser_than_the_mask():
    codes = condition(np.array([1, 2, 127, 3]), bits=2, nonzero_fraction=0.75)
    assert codes.tolist() == [0, 0, 1, 0]


def test_conditioning_without_bits_only_prunes():
    weights = np.array([[3, -120], [7, 1]], np.int16)
    pruned = condition(weights, nonzero_fraction=0.5)
    assert pruned.dtype == np.int16
    assert pruned.tolist() == [[0, -120], [7, 0]]
    assert condition(weights).tolist() == weights.tolist()


@pytest.mark.parametrize("dtype", [np.int8, np.int16, np.int32, np.int64])
def test_lowest_value_of_a_dtype_is_the_largest_magnitude(dtype):
    low = max(np.iinfo(dtype).min, -(2**31))
    weights = np.array([low + 1, low, 5], dtype)
    assert prune(weights, 1 / 3).tolist() == [0, low, 0]
    assert prune(weights, 1 / 3).dtype == dtype
    assert requantize(weights, 2).tolist() == [-1, -1, 0]


def test_shapes_stay_and_input_is_left_alone():
    weights = np.arange(24, dtype=np.uint8).reshape(2, 3, 4)
    weights.flags.writeable = False
    assert prune(weights, 0.5).shape == requantize(weights, 4).shape == (2, 3, 4)
    assert magnitude_mask(weights[:, ::-1], 0.25).sum() == 6
    assert prune(np.zeros((0, 3), np.int8), 0.5).shape == (0, 3)
    assert requantize(np.zeros((0, 3), np.int8), 4).shape == (0, 3)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: prune([1.0, 2.0], 0.5), "weights must hold integers, got dtype float64"),
        (lambda: prune(np.ones(3, bool), 0.5), "weights must hold integers, got dtype bool"),
        (lambda: prune([None], 0.5), "weights must hold integers, got dtype object"),
        (lambda: prune([2**31 + 1], 0.5), r"weights must be in .*, got 2147483649"),
        (lambda: prune([-(2**63), 1], 0.5), r"weights must be in .*, got -9223372036854775808"),
        (lambda: prune([1], 1.5), r"nonzero_fraction must be in 0..1, got 1.5"),
        (lambda: prune([1], -0.1), r"nonzero_fraction must be in 0..1, got -0.1"),
        (lambda: prune([1], float("nan")), r"nonzero_fraction must be in 0..1, got nan"),
        (lambda: prune([1], [0.5]), r"nonzero_fraction must be one number, got shape \(1,\)"),
        (lambda: prune([1], "half"), "nonzero_fraction must be real numbers"),
        (lambda: requantize([1], 0), r"bits must be in 1..8, got 0"),
        (lambda: requantize([1], 9), r"bits must be in 1..8, got 9"),
        (lambda: requantize([1], 4.0), "bits must be an integer, got 4.0"),
        (lambda: requantize([1], True), "bits must be an integer, got True"),
        (lambda: requantize([1], 4, 0), "clip must be finite and more than 0, got 0"),
        (lambda: requantize([1], 4, -1), "clip must be at least 0, got -1"),
        (lambda: requantize([1], 4, float("inf")), "clip must be finite and more than 0, got inf"),
        (lambda: requantize([1], 4, float("nan")), "clip must be at least 0, got nan"),
        (lambda: requantize([1], 4, [1, 2]), r"clip must be one number, got shape \(2,\)"),
        (lambda: requantize([1.5], 4), "weights must hold integers"),
        (lambda: least_error_clip([1.5], 4), "weights must hold integers"),
        (lambda: least_error_clip([3, -256], 4), r"weights must be in -255..255, got -256"),
        (lambda: least_error_clip([1], 0), r"bits must be in 1..8, got 0"),
        (lambda: condition([1], bits=4, nonzero_fraction=2), "nonzero_fraction must be in 0..1"),
        (lambda: condition([1], bits=16), r"bits must be in 1..8, got 16"),
    ],
)
def test_bad_arguments_are_refused(call, message):
    with pytest.raises(ConfigError, match=message):
        call()


class TestNOfM:
    def test_keeps_the_largest_of_each_group(self):
        found = n_of_m([1, -9, 3, 9, 5, 0, 0, 1, 2, 7], 2, 4)
        assert found.tolist() == [0, -9, 0, 9, 5, 0, 0, 1, 2, 7]
        assert n_of_m([2, -2, 2], 1, 3).tolist() == [2, 0, 0]  # the earlier of equal ones
        assert n_of_m([1, 2], 0, 4).tolist() == [0, 0]
        assert n_of_m(np.empty(0, np.int16), 2, 4).size == 0

    @often
    @given(seed=st.integers(0, 999), m=st.integers(1, 9), n=st.integers(0, 9))
    def test_has_the_pattern_and_loses_the_least(self, seed, m, n):
        n = min(n, m)
        weights = np.random.default_rng(seed).integers(-9, 10, 4 * m).astype(np.int16)
        found = n_of_m(weights, n, m)
        assert found.dtype == np.int16
        for group, kept in zip(weights.reshape(-1, m), found.reshape(-1, m), strict=True):
            assert np.count_nonzero(kept) <= n
            assert set(kept[kept != 0]) <= set(group)
            assert np.abs(kept).sum() == np.sort(np.abs(group))[m - n :].sum()

    def test_errors(self):
        with pytest.raises(ConfigError, match=r"^n must be in 0\.\.4, got 5$"):
            n_of_m([1], 5, 4)
        with pytest.raises(ConfigError, match=r"^m must be in 1\.\.256, got 0$"):
            n_of_m([1], 0, 0)
        with pytest.raises(ConfigError, match=r"^weights must be one-dimensional, got shape "):
            n_of_m([[1]], 1, 1)


class TestCluster:
    @often
    @given(weights=st.lists(st.integers(-20, 20), min_size=1, max_size=12), k=st.integers(2, 5))
    def test_no_other_choice_of_clusters_is_closer(self, weights, k):
        array = np.array(weights, np.int16)
        found = cluster(array, k)
        assert found.dtype == np.int16
        assert len(set(found.tolist())) <= k
        assert not found[array == 0].any()
        values = sorted(set(weights) - {0})
        free = k - (0 in weights)
        if len(values) <= free:
            np.testing.assert_array_equal(found, array)
            return

        def error(cuts):
            parts = [values[a:b] for a, b in pairwise((0, *cuts, len(values)))]
            return sum(
                array[np.isin(array, part)].var() * np.isin(array, part).sum() for part in parts
            )

        best = min(error(cuts) for cuts in combinations(range(1, len(values)), free - 1))
        rounding = len(weights) / 4  # half a step at the most for each
        assert float(np.sum((found.astype(float) - array) ** 2)) <= best + rounding + 1e-9

    def test_many_values_stay(self):
        weights = np.arange(-255, 256).reshape(7, 73)
        np.testing.assert_array_equal(cluster(weights, 511), weights)
        assert len(np.unique(cluster(weights, 32))) == 32

    def test_errors(self):
        with pytest.raises(ConfigError, match=r"^n_values must be in 2\.\.511, got 1$"):
            cluster([0, 5], 1)
        with pytest.raises(ConfigError, match=r"^n_values must be in 1\.\.511, got 0$"):
            cluster([5], 0)
        with pytest.raises(ConfigError, match=r"^weights must be in -255\.\.255, got 300$"):
            cluster([300], 4)


class TestWeightError:
    def test_by_hand(self):
        assert weight_error([3, 4], [3, 4]) == (0.0, np.inf)
        error, sqnr = weight_error([[30, 40]], [[30, 35]])
        assert error == pytest.approx(0.1)
        assert sqnr == pytest.approx(20)
        assert weight_error([0], [1]) == (np.inf, -np.inf)
        assert weight_error([10, 0], [0, 0]) == (1.0, 0.0)

    def test_errors(self):
        with pytest.raises(ConfigError, match=r"^approximation must have shape \(2,\), got \(1,\)"):
            weight_error([1, 2], [1])
