# SPDX-License-Identifier: Apache-2.0
"""Estimates of sizes: against their rule written out in Python, and against exact sizes."""

from __future__ import annotations

import re
from collections import Counter
from itertools import pairwise

import generators
import numpy as np
import pytest
import real_layers
from hypothesis import given, settings
from hypothesis import strategies as st

from npusim.cost.layers import weight_layers
from npusim.errors import ConfigError, UnknownNameError
from npusim.formats import load
from npusim.weights import encoded_size, padding_runs, reorder
from npusim.weights import reference_encoders as encoders
from npusim.weights.estimate import (
    ESTIMATED_ENCODERS,
    estimate_size,
    estimate_size_from_counts,
    value_counts,
)
from npusim.weights.reference import Palette

HEADERS = 23 + 13
ESCAPE = 66
SWITCH = 40
BLOCK = 4096
HALF_A_CHUNK = 6
ALL_ZERO = 8
LONG = 16
SLICE = 23 + 2 * HALF_A_CHUNK

seeds = st.integers(0, 2**32 - 1)
often = settings(deadline=None, derandomize=True, max_examples=120)
each_encoder = pytest.mark.parametrize("encoder", ESTIMATED_ENCODERS)


def random_values(seed: int, most: int = 400) -> np.ndarray:
    return generators.tensor(np.random.default_rng(seed), most)


def chunked(bits: int, chunk: int) -> int:
    return -(-bits // chunk) * chunk


def symbol_bits(palette: Palette, index: int) -> list[int]:
    """Bits of an index in each configuration; a charge where it cannot be coded."""
    found = [encoders.index_bits(palette, config, index) for config in encoders.WEIGHT_CONFIGS]
    raw = found.pop()
    return [ESCAPE if bits is None else bits for bits in found] + ([] if raw is None else [raw])


def weight_bits(palette: Palette, blocks: list[list[int]]) -> int:
    """Bits of all indices where the configuration may change between blocks, for `SWITCH` bits."""
    least = 0
    sums: list[int] = []
    for block in blocks:
        costs = [0] * len(symbol_bits(palette, 0))
        for index, n in Counter(block).items():
            costs = [
                c + n * bits for c, bits in zip(costs, symbol_bits(palette, index), strict=True)
            ]
        before = sums or [0] * len(costs)
        sums = [min(b, least + SWITCH) + c for b, c in zip(before, costs, strict=True)]
        least = min(sums)
    return least + HALF_A_CHUNK


def run_bits(runs: list[int], regor: bool) -> int:
    costs = [[(run >> zdiv) + 1 + zdiv for zdiv in range(4)] for run in runs]
    if regor:
        zdiv = encoders.regor_path(costs)[-1][1]
        return len(runs) * zdiv + chunked(
            sum((run >> zdiv) + 1 for run in runs), 12 - zdiv // 3 * 4
        )
    planned = encoders.cheapest_path(costs, set())
    real = [planned[0], *planned[:-1]]  # a slice begins one run after the change was planned
    bits = sum(cost[zdiv] for cost, zdiv in zip(costs, real, strict=True))
    return bits + SLICE * sum(a != b for a, b in pairwise(planned)) + HALF_A_CHUNK


def long_runs_apart(values: list[int], palette: Palette) -> int:
    """Bits if runs of 16 zeros and more have a configuration of their own, for two changes each."""
    left: list[int | None] = list(values)
    n_long = 0
    for found in re.finditer(f"0{{{LONG},}}", "".join("1" if v else "0" for v in values)):
        left[found.start() : found.end()] = [None] * len(found[0])
        n_long += 1
    zero = min(
        bits
        for config in encoders.WEIGHT_CONFIGS
        if (bits := encoders.index_bits(palette, config, palette.index(0))) is not None
    )
    blocks = [left[i : i + BLOCK] for i in range(0, len(left), BLOCK)]
    coded = [[palette.index(v) for v in block if v is not None] for block in blocks]
    return weight_bits(palette, coded) + left.count(None) * zero + n_long * 2 * SWITCH


def one_section_bits(values: list[int], encoder: str) -> int:
    regor = encoder == "regor"
    zero_runs = (encoders.regor_zero_runs if regor else encoders.legacy_zero_runs)(values)
    palette = encoders.choose_palette(values, zero_runs, at_half=regor)
    blocks = [values[i : i + BLOCK] for i in range(0, len(values), BLOCK)]
    coded = [[palette.index(v) for v in block if v or not zero_runs] for block in blocks]
    bits = HEADERS + len(palette.entries) * palette.palette_bits
    if not any(values) and zero_runs:
        return bits + ALL_ZERO + HALF_A_CHUNK + run_bits([0, len(values) - 1], regor)
    least = weight_bits(palette, coded)
    if not (regor or zero_runs):
        least = min(least, long_runs_apart(values, palette))
    return (
        bits + least + (run_bits(encoders.coded(values, zero_runs)[1], regor) if zero_runs else 0)
    )


def stream_bytes(bits: int) -> int:
    return 16 * -(-(bits + 3) // 128)


@often
@given(seed=seeds)
@each_encoder
def test_one_pass_is_one_section_that_changes_configuration_between_blocks(encoder, seed):
    values = random_values(seed, 4000)
    assert estimate_size(values, encoder) == stream_bytes(
        one_section_bits(values.tolist(), encoder)
    )


@often
@given(seed=seeds)
@each_encoder
def test_counts_of_dense_weights_estimate_what_one_pass_does(encoder, seed):
    values = random_values(seed)
    values[values == 0] = 3
    assert estimate_size_from_counts(value_counts(values), (), encoder) == estimate_size(
        values, encoder
    )


def test_regor_begins_a_section_every_131072_weights():
    values = random_values(1, 3000)
    values = np.resize(values, 131072 + 500)
    parts = [values[:131072], values[131072:]]
    bits = sum(one_section_bits(part.tolist(), "regor") for part in parts)
    assert estimate_size(values, "regor") == stream_bytes(bits)


@each_encoder
def test_estimates_are_exact_where_one_slice_is_best(encoder):
    rng = np.random.default_rng(2)
    for high, n in ((1, 500), (3, 3000), (15, 3000), (31, 9000)):
        values = rng.integers(-high, high + 1, n)
        assert estimate_size(values, encoder) == encoded_size(values, encoder)
        counts = value_counts(values)
        assert estimate_size_from_counts(counts, encoder=encoder) == encoded_size(values, encoder)


@pytest.mark.parametrize(("period", "padding"), [(128, 128), (72, 24), (8, 56), (200, 31)])
@pytest.mark.parametrize("scale", [8, 25, 60])
def test_one_pass_sees_what_padding_does_to_the_legacy_encoder(period, padding, scale):
    """Blocks of weights between runs of zeros, as reordering makes them: 3 % as everywhere.

    Not for weights of few values, which the encoder also cuts into palette sections.
    """
    rng = np.random.default_rng(4)
    weights = np.clip(np.rint(rng.laplace(0, scale, (12_000 // period, period))), -127, 127)
    values = np.pad(weights.astype(int), ((0, 0), (0, padding))).ravel()
    exact = encoded_size(values, "legacy")
    assert abs(estimate_size(values, "legacy") - exact) <= 0.03 * exact + 64


@each_encoder
@pytest.mark.parametrize("zeros", [0, 0.3, 0.6, 0.9, 0.97])
@pytest.mark.parametrize("scale", [1, 4, 12, 40])
def test_estimates_of_laplace_weights_are_close(encoder, zeros, scale):
    """3 % is the promise for whole layers of 20,000 weights; 64 bytes for headers."""
    rng = np.random.default_rng(3)
    values = np.clip(np.rint(rng.laplace(0, scale, 40_000)), -127, 127).astype(int)
    values[rng.random(values.size) < zeros] = 0
    exact = encoded_size(values, encoder)
    assert abs(estimate_size(values, encoder) - exact) <= 0.03 * exact + 64
    from_counts = estimate_size_from_counts(value_counts(values), (), encoder)
    assert abs(from_counts - exact) <= 0.03 * exact + 64


def test_padding_stands_together():
    """Other zeros are taken as spread among the weights."""
    rng = np.random.default_rng(4)
    values = rng.integers(1, 30, 4000)
    counts = value_counts(values)
    padded = np.pad(values.reshape(500, 8), [(0, 0), (0, 72)]).ravel()
    together = estimate_size_from_counts(counts, [(36_000, 1)])
    counts[255] = 36_000
    spread = estimate_size_from_counts(counts)
    assert together != spread
    for order, found in ((padded, together), (rng.permutation(padded), spread)):
        exact = encoded_size(order)
        assert abs(found - exact) <= 0.03 * exact


@each_encoder
def test_one_outlier_costs_a_slice_not_a_configuration(encoder):
    values = np.random.default_rng(5).integers(-2, 3, 20_000)
    values[777] = 255
    exact = encoded_size(values, encoder)
    assert abs(estimate_size(values, encoder) - exact) <= 0.02 * exact
    counts = value_counts(values)
    assert abs(estimate_size_from_counts(counts, (), encoder) - exact) <= 0.02 * exact


@each_encoder
def test_no_weights_are_an_end_marker(encoder):
    assert estimate_size([], encoder) == 16
    assert estimate_size_from_counts(np.zeros(511, int), (), encoder) == 16


@each_encoder
@pytest.mark.parametrize("n", [1, 100, 40_000, 300_000])
def test_zeros_alone_take_a_run(encoder, n):
    counts = np.zeros(511, int)
    counts[255] = n
    exact = encoded_size(np.zeros(n, int), encoder)
    for found in (
        estimate_size(np.zeros(n, int), encoder),
        estimate_size_from_counts(counts, (), encoder),
        estimate_size_from_counts(np.zeros(511, int), [(n, 1)], encoder),
    ):
        assert abs(found - exact) <= 64


@each_encoder
@pytest.mark.parametrize(
    ("shape", "traversal"),
    [
        ((96, 1, 1, 16), "depth-first"),
        ((128, 1, 1, 257), "depth-first"),
        ((64, 10, 4, 1), "part-kernel"),
        ((48, 3, 3, 16), "part-kernel"),
        ((256, 3, 3, 1), "depthwise"),
    ],
)
@pytest.mark.parametrize("scale", [8, 25, 60])
def test_counts_and_the_padding_of_a_shape_are_enough(encoder, shape, traversal, scale):
    rng = np.random.default_rng(7)
    weights = np.clip(np.rint(rng.laplace(0, scale, shape)), -127, 127).astype(int)
    padding = padding_runs(shape, traversal=traversal)
    exact = encoded_size(reorder(weights, traversal=traversal), encoder)
    found = estimate_size_from_counts(value_counts(weights), padding, encoder)
    assert abs(found - exact) <= 0.04 * exact + 64


def test_value_counts():
    values = random_values(6)
    counts = value_counts(values)
    expected = Counter(values.tolist())
    assert counts.dtype == np.int64
    assert counts.tolist() == [expected[value] for value in range(-255, 256)]
    shaped = np.resize(values, (4, 5, 3)).astype(np.int32)
    assert value_counts(shaped).tolist() == value_counts(shaped.ravel()).tolist()
    assert value_counts(np.array([255, 0], np.uint8)).sum() == 2
    assert value_counts(np.zeros((3, 0), int)).sum() == 0


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: value_counts([0, 256]), ConfigError, "weights must be in -255..255, got 256"),
        (lambda: value_counts([-300]), ConfigError, "weights must be in -255..255, got -300"),
        (lambda: value_counts([0.5]), ConfigError, "weights must hold integers, got dtype float64"),
        (lambda: estimate_size([256]), ConfigError, "weights must be in -255..255, got 256"),
        (
            lambda: estimate_size([[1]]),
            ConfigError,
            "weights must be one-dimensional, got shape (1, 1)",
        ),
        (
            lambda: estimate_size([1], "tight"),
            UnknownNameError,
            "encoder must be one of legacy, regor, got 'tight'",
        ),
        (
            lambda: estimate_size_from_counts(np.zeros(511, int), (), "legcy"),
            UnknownNameError,
            "encoder must be one of legacy, regor, got 'legcy'; did you mean 'legacy'?",
        ),
        (
            lambda: estimate_size_from_counts(np.zeros(510, int)),
            ConfigError,
            "counts must have shape [511], got (510,)",
        ),
        (
            lambda: estimate_size_from_counts(np.zeros(511)),
            ConfigError,
            "counts must hold integers, got dtype float64",
        ),
        (
            lambda: estimate_size_from_counts(np.full(511, -1)),
            ConfigError,
            "counts must be in 0..2**40, padding included, got -1",
        ),
        (
            lambda: estimate_size_from_counts(np.ones(511, int), [(3, 0)]),
            ConfigError,
            "padding must be lengths and numbers from 1 on, of at most 2**40 zeros, got [3, 0]",
        ),
        (
            lambda: estimate_size_from_counts(np.ones(511, int), [(9, 1), (2**40, 1)]),
            ConfigError,
            "padding must be lengths and numbers from 1 on, of at most 2**40 zeros, "
            "got [1099511627776, 1]",
        ),
        (
            lambda: estimate_size_from_counts(np.ones(511, int), [(1.5, 1)]),
            ConfigError,
            "padding must hold integers, got dtype float64",
        ),
        (
            lambda: estimate_size_from_counts(np.ones(511, int), 7),
            ConfigError,
            "padding must have shape [n_kinds, 2], got ()",
        ),
    ],
)
def test_bad_arguments_are_refused(call, error, message):
    with pytest.raises(error, match=f"^{re.escape(message)}$"):
        call()


def model_estimates(path, encoder: str) -> np.ndarray:
    """Of each layer of at least 2000 coded weights: exact size, from counts, from one pass."""
    rows = []
    for layer in weight_layers(load(path), "ethos-u55-128"):
        if layer.same_as:
            continue
        weights = layer.weights_ohwi()
        values = reorder(weights, "ethos-u55-128", **layer.reorder_options)
        padding = padding_runs(weights.shape, "ethos-u55-128", **layer.reorder_options)
        from_counts = estimate_size_from_counts(value_counts(weights), padding, encoder)
        row = (encoded_size(values, encoder), from_counts, estimate_size(values, encoder))
        rows.append((values.size, *row))
    return np.array(rows).reshape(-1, 4)


@pytest.mark.data
@pytest.mark.slow
@pytest.mark.parametrize(
    ("encoder", "most_one_pass", "most_from_counts"),
    [("regor", 0.006, 0.013), ("legacy", 0.010, 0.012)],
)
def test_estimates_of_real_models(models_dir, encoder, most_one_pass, most_from_counts):
    """p95 of the errors of layers, and the error of each model of 16 kB or more."""
    layers, totals = [], []
    for path in real_layers.model_files(models_dir):
        rows = model_estimates(path, encoder)
        layers.append(rows[rows[:, 0] >= 2000])
        totals.append(rows[:, 1:].sum(axis=0))
    exact, from_counts, one_pass = np.concatenate(layers)[:, 1:].T
    assert exact.size > 400
    assert np.percentile(np.abs(one_pass / exact - 1), 95) <= 0.03
    assert np.percentile(np.abs(from_counts / exact - 1), 95) <= 0.022
    exact, from_counts, one_pass = np.array([t for t in totals if t[0] >= 16_000]).T
    assert np.abs(one_pass / exact - 1).max() <= most_one_pass
    assert np.abs(from_counts / exact - 1).max() <= most_from_counts
