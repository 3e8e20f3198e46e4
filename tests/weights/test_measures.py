# SPDX-License-Identifier: Apache-2.0
"""The paper's measures of size: values by hand, the bound they promise, refused input."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from npusim.errors import ConfigError, UnknownNameError
from npusim.weights.conditioning import condition
from npusim.weights.measures import (
    MEASURES,
    as_printed_bits,
    binary_entropy_bits,
    compressed_bytes,
    entropy_bits,
    mask_aware_bits,
    weights_entropy_bits,
)

ROUNDING = 1e-12
"""A few sums of at most 8 bits in double precision."""


def test_binary_entropy_is_exact_at_its_ends_and_its_top():
    assert binary_entropy_bits([0.0, 0.5, 1.0]).tolist() == [0.0, 1.0, 0.0]
    assert not np.signbit(binary_entropy_bits([0.0, 1.0])).any()


def test_binary_entropy_by_hand():
    assert binary_entropy_bits(0.25) == pytest.approx(2 - 0.75 * math.log2(3), abs=ROUNDING)
    assert binary_entropy_bits(0.25) == pytest.approx(binary_entropy_bits(0.75), abs=ROUNDING)


def test_entropy_by_hand():
    assert entropy_bits([1, 1, 2]) == 1.5
    assert entropy_bits([5]) == 0.0
    assert entropy_bits(np.ones(256, np.int64)) == 8.0
    assert weights_entropy_bits(np.arange(-128, 128, dtype=np.int8)) == 8.0
    assert weights_entropy_bits(np.zeros((3, 3), np.uint8)) == 0.0


def test_entropy_takes_many_histograms_at_once():
    counts = np.random.default_rng(0).integers(0, 9, (3, 4, 7)) + 1
    each = [[float(entropy_bits(counts[i, j])) for j in range(4)] for i in range(3)]
    assert entropy_bits(counts).tolist() == each


@pytest.mark.parametrize("dtype", [np.int8, np.uint8, np.int16, np.int32, np.int64])
def test_entropy_of_a_tensor_is_that_of_its_histogram(dtype):
    weights = np.random.default_rng(1).integers(0, 100, (5, 6, 7)).astype(dtype)
    counts = np.unique(weights, return_counts=True)[1]
    assert weights_entropy_bits(weights) == pytest.approx(float(entropy_bits(counts)), abs=ROUNDING)


def test_mask_aware_and_as_printed_by_hand():
    assert mask_aware_bits(4, 0.5) == 0.5 * 4 + 1
    assert as_printed_bits(4, 0.5) == 4 + 1
    assert mask_aware_bits(8, [0.0, 1.0]).tolist() == [0.0, 8.0]
    assert as_printed_bits(8, [0.0, 1.0]).tolist() == [8.0, 8.0]


def test_only_the_mask_aware_measure_shrinks_with_sparsity():
    sparse = np.linspace(0.5, 0.0, 51)
    assert (np.diff(mask_aware_bits(4, sparse)) < 0).all()
    assert (as_printed_bits(4, sparse) >= 4).all()


def test_points_of_the_bound():
    assert mask_aware_bits([2, 3, 4, 5, 6, 8], 0.5).tolist() == [2.0, 2.5, 3.0, 3.5, 4.0, 5.0]
    assert mask_aware_bits(4, 0.1) == pytest.approx(0.869, abs=0.0005)  # 0.4 + 0.469


WEIGHTS = hnp.arrays(np.int64, st.integers(1, 300), elements=st.integers(-300, 300))


@settings(deadline=None, derandomize=True)
@given(weights=WEIGHTS)
def test_mask_aware_bits_bound_the_entropy(weights):
    nonzeros = weights[weights != 0]
    levels = np.unique(nonzeros).size
    bits = max(1, math.ceil(math.log2(levels))) if levels else 1
    bound = float(mask_aware_bits(bits, nonzeros.size / weights.size))
    assert weights_entropy_bits(weights) <= bound + ROUNDING
    assert bound <= as_printed_bits(bits, nonzeros.size / weights.size) + ROUNDING


@settings(deadline=None, derandomize=True)
@given(weights=WEIGHTS, bits=st.integers(1, 8), kept=st.floats(0, 1))
def test_mask_aware_bits_bound_conditioned_weights(weights, bits, kept):
    codes = condition(weights, bits=bits, nonzero_fraction=kept)
    bound = mask_aware_bits(bits, np.count_nonzero(codes) / codes.size)
    assert weights_entropy_bits(codes) <= bound + ROUNDING


def test_the_bound_is_reached_by_equally_frequent_levels():
    weights = np.array([0] * 8 + [-2, -1, 1, 2] * 2)
    assert weights_entropy_bits(weights) == mask_aware_bits(2, 0.5) == 2.0


@pytest.mark.parametrize("measure", MEASURES)
def test_compressed_bytes_are_weights_times_bits(measure):
    n, b, s = np.array([10, 0, 1 << 24]), np.array([1, 4, 8]), np.array([0.1, 0.9, 1.0])
    expected = [n[i] * float(MEASURES[measure](b[i], s[i])) / 8 for i in range(3)]
    assert compressed_bytes(n, b, s, measure).tolist() == expected


def test_compressed_bytes_are_mask_aware_by_default():
    assert compressed_bytes(1000, 4, 0.5) == 375.0
    assert compressed_bytes(1000, 4, 0.5, "as-printed") == 625.0


def test_measures_broadcast_over_layers_and_options():
    table = mask_aware_bits(np.array([[1], [4], [8]]), np.array([0.1, 1.0]))
    assert table.shape == (3, 2)
    assert table[:, 1].tolist() == [1.0, 4.0, 8.0]


@pytest.mark.parametrize("fraction", [-0.01, 1.01, math.nan, math.inf])
def test_fractions_out_of_range_are_refused(fraction):
    with pytest.raises(ConfigError, match=r"fraction must be in 0..1, got"):
        binary_entropy_bits([0.5, fraction])
    for measure in MEASURES.values():
        with pytest.raises(ConfigError, match=r"nonzero_fraction must be in 0..1, got"):
            measure(4, fraction)


@pytest.mark.parametrize("bits", [0, 0.5, 33, -1, math.nan])
def test_bits_out_of_range_are_refused(bits):
    with pytest.raises(ConfigError, match=r"bits must be in 1..32, got"):
        mask_aware_bits(bits, 0.5)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: mask_aware_bits("4", 0.5), "bits must be real numbers, got dtype <U1"),
        (lambda: mask_aware_bits(True, 0.5), "bits must be real numbers, got dtype bool"),
        (lambda: mask_aware_bits(4, None), "nonzero_fraction must be real numbers, got dtype obj"),
        (lambda: mask_aware_bits([1, 2], [[1], [1, 2]]), "nonzero_fraction must form one array"),
        (lambda: mask_aware_bits([1, 2], [0.1, 0.2, 0.3]), r"must broadcast, got \(2,\) and \(3,"),
        (lambda: compressed_bytes([1, 2], [1, 2, 3], 1), r"must broadcast, got \(2,\) and \(3,"),
        (lambda: compressed_bytes(-1, 4, 1), r"n_weights must be in 0..9.0072e\+15, got -1"),
        (lambda: compressed_bytes(1.5, 4, 1), "n_weights must hold integers, got dtype float64"),
        (lambda: entropy_bits([1, -1]), r"counts must be in 0..9.0072e\+15, got -1"),
        (lambda: entropy_bits([0.5, 0.5]), "counts must hold integers, got dtype float64"),
        (lambda: entropy_bits(3), r"counts must have shape \[..., n_values\], got \(\)"),
        (lambda: entropy_bits(np.zeros((2, 0), int)), r"counts must have shape .* got \(2, 0\)"),
        (lambda: entropy_bits([[1], [0]]), "counts must count at least one weight"),
        (lambda: weights_entropy_bits([]), "weights must hold integers, got dtype float64"),
        (lambda: weights_entropy_bits(np.zeros(0, int)), r"must not be empty, got shape \(0,\)"),
        (lambda: weights_entropy_bits(np.ones(3, bool)), "weights must hold integers"),
    ],
)
def test_bad_arguments_are_refused(call, message):
    with pytest.raises(ConfigError, match=message):
        call()


def test_unknown_measures_are_refused_with_a_guess():
    with pytest.raises(UnknownNameError, match="did you mean 'mask-aware'"):
        compressed_bytes(1, 4, 1, "mask_aware")
