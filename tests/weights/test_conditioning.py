# SPDX-License-Identifier: Apache-2.0
"""Pruning and requantizing integer weights: exact counts, exact grids, refused input."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from npusim.errors import ConfigError
from npusim.weights.conditioning import (
    condition,
    least_error_clip,
    magnitude_mask,
    prune,
    requantize,
)

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
