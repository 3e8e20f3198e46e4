# SPDX-License-Identifier: Apache-2.0
"""Chunk iterations: by hand, in streams and in plans, against the walk in plain Python."""

from __future__ import annotations

import generators
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from npusim.errors import ConfigError, StreamError, UnknownNameError
from npusim.weights import (
    chunk_iterations,
    encode,
    estimate_iterations_from_counts,
    planned_iterations,
    reference,
    slices,
    value_counts,
)
from npusim.weights.chunks import chunk_trace, planned_trace
from npusim.weights.reference_chunks import chunk_trace as plain_trace

often = settings(deadline=None, derandomize=True, max_examples=150)
seeds = st.integers(0, 2**32 - 1)


def check(stream: bytes) -> None:
    wanted = plain_trace(stream)
    assert chunk_iterations(stream).tolist() == [len(part) for part in wanted]
    trace = chunk_trace(stream)
    assert trace.tolist() == [list(row) for part in wanted for row in part]
    parts = slices(stream)
    assert trace[:, 1].sum() == sum(part.n_weights + part.n_zeros for part in parts)
    headers = sum(part.bits["header"] + part.bits["palette"] for part in parts)
    assert trace[:, 0].sum() == sum(sum(part.bits.values()) for part in parts) - headers


def test_by_hand():
    # one chunk of twelve raw indices an iteration, and one iteration for the last remainders
    assert chunk_iterations(encode([5, -5] * 18)).tolist() == [4]
    assert chunk_trace(encode([5, -5] * 18)).tolist() == [[0, 0], [12, 12], [12, 12], [12, 12]]
    # 7 then 8000 zeros: 1001 unary bits of the run with zdiv 3, eight a chunk
    stream = encode([7] + [0] * 8000, encoder="tight")
    assert [part.zdiv for part in slices(stream)] == [3]
    assert chunk_iterations(stream).tolist() == [126 + 1]


def test_no_weights_have_no_slices():
    assert chunk_iterations(encode([])).size == planned_iterations([]).size == 0
    assert chunk_trace(encode([])).shape == planned_trace([]).shape == (0, 2)


@often
@given(seed=seeds, most=st.sampled_from([3, 30, 300]))
def test_whatever_the_format_allows(seed, most):
    rng = np.random.default_rng(seed)
    check(reference.emit([generators.random_section(rng, most) for _ in range(3)]))


@often
@given(seed=seeds, encoder=st.sampled_from(["regor", "legacy", "tight"]))
def test_a_plan_has_those_of_its_stream(seed, encoder):
    values = generators.tensor(np.random.default_rng(seed), 2000)
    stream = encode(values, encoder=encoder)
    check(stream)
    planned = planned_iterations(values, encoder=encoder)
    np.testing.assert_array_equal(planned, chunk_iterations(stream))
    np.testing.assert_array_equal(planned_trace(values, encoder=encoder), chunk_trace(stream))


@pytest.mark.parametrize("name", generators.corner_cases())
def test_corner_cases(name):
    values = generators.corner_cases()[name]
    stream = encode(values)
    np.testing.assert_array_equal(planned_iterations(values), chunk_iterations(stream))
    np.testing.assert_array_equal(planned_trace(values), chunk_trace(stream))


def test_more_zeros_give_more_weights_an_iteration():
    rng = np.random.default_rng(0)
    dense = np.rint(rng.laplace(0, 8, 50_000)).astype(int)
    rates = []
    for share in (0.0, 0.5, 0.72, 0.81, 0.91):
        values = np.where(rng.random(dense.size) < share, 0, dense)
        rates.append(values.size / planned_iterations(values).sum())
    assert rates == sorted(rates)
    # as measured on real weights: 8.2 to 8.8 dense, 46 with 91 % zeros
    assert 8 < rates[0] < 10
    assert 40 < rates[-1] < 50


def test_options_and_errors():
    values = np.rint(np.random.default_rng(0).laplace(0, 4, 20_000)).astype(int)
    tight = planned_iterations(values, encoder="tight", effort=0)
    np.testing.assert_array_equal(
        tight, chunk_iterations(encode(values, encoder="tight", effort=0))
    )
    with pytest.raises(UnknownNameError, match=r"^encoder must be one of"):
        planned_iterations(values, encoder="best")
    with pytest.raises(ConfigError, match=r"^weights must be in -255..255, got 256$"):
        planned_iterations([256])
    with pytest.raises(StreamError, match=r"^stream must end with an end marker"):
        chunk_iterations(encode([1, 2, 3])[:6])
    with pytest.raises(StreamError, match=r"^stream must hold at most max_weights weights"):
        chunk_iterations(encode([1, 2, 3]), max_weights=2)


class TestEstimate:
    @pytest.mark.parametrize("encoder", ["regor", "legacy"])
    @pytest.mark.parametrize("zeros", [0, 0.5, 0.8, 0.95])
    @pytest.mark.parametrize("scale", [2, 8, 30])
    def test_is_close(self, encoder, zeros, scale):
        rng = np.random.default_rng(scale)
        values = np.rint(rng.laplace(0, scale, 40_000)).clip(-127, 127).astype(int)
        values[rng.random(values.size) < zeros] = 0
        exact = planned_iterations(values, encoder=encoder).sum()
        estimate = estimate_iterations_from_counts(value_counts(values), encoder=encoder)
        assert 0.9 * exact <= estimate <= 1.1 * exact

    def test_of_next_to_nothing(self):
        assert estimate_iterations_from_counts(np.zeros(511, int)) == 0
        assert estimate_iterations_from_counts(value_counts([9])) == 2
        assert planned_iterations([9]).tolist() == [2]

    def test_padding_stands_together(self):
        rng = np.random.default_rng(0)
        weights = np.rint(rng.laplace(0, 4, (100, 16))).astype(int)
        padded = np.pad(weights, ((0, 0), (0, 112)))
        padding = [[112, 100]]
        counts = value_counts(weights)
        estimate = estimate_iterations_from_counts(counts, padding)
        exact = planned_iterations(padded.ravel()).sum()
        assert 0.7 * exact <= estimate <= 1.3 * exact
        assert estimate > 1.5 * estimate_iterations_from_counts(counts)

    def test_errors(self):
        with pytest.raises(ConfigError, match=r"^counts must be in 0..2\*\*40, .* got -1$"):
            estimate_iterations_from_counts(-np.ones(511, int))
        with pytest.raises(UnknownNameError, match=r"^encoder must be one of legacy, regor, got"):
            estimate_iterations_from_counts(np.zeros(511, int), encoder="tight")
