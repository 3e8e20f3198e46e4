# SPDX-License-Identifier: Apache-2.0
"""Exact integer costs: against arithmetic by hand, and against slow code in Python integers."""

from __future__ import annotations

import math
from fractions import Fraction

import numpy as np
import pytest

from npusim.errors import ConfigError, NpusimError, UnknownNameError
from spaces.base import Candidate, Space
from spaces.concrete import concrete_layers, describe
from spaces.costs import cost, costs
from spaces.digits import digits
from spaces.limits import Limit, format_size, parse_size

SPACE = digits(bitwidths=(1, 2, 4, 8, 32))


def options(width: float, bitwidth: int, sparsity: float) -> dict[str, float]:
    by_kind = {"width": width, "bitwidth": bitwidth, "sparsity": sparsity}
    return {decision.name: by_kind[decision.kind] for decision in SPACE.decisions}


def slow_size_bits(space: Space, candidate: Candidate) -> int:
    """The size of a digits candidate, written out once more in fractions and plain floats."""
    chosen = space.options_of(candidate)
    total, ifm_depth = 0, 1
    for name, full, positions in (
        ("conv1", 16, 9),
        ("conv2", 32, 9),
        ("conv3", 48, 9),
        ("classifier", 10, 1),
    ):
        width = Fraction(str(chosen.get(f"{name}.width", 1)))
        ofm_depth = math.ceil(width * full)
        n = positions * ifm_depth * ofm_depth
        kept = math.ceil(Fraction(str(chosen[f"{name}.sparsity"])) * n)
        mask = 0.0
        for part in (kept, n - kept):
            if part:
                mask -= part * math.log2(part / n)
        total += math.ceil(kept * chosen[f"{name}.bitwidth"] + mask - 1e-6)
        ifm_depth = ofm_depth
    return total


def test_dense_8_bit_weights_take_a_byte_each():
    candidate = SPACE.from_options(options(1.0, 8, 1.0))
    n_weights = 9 * 16 + 9 * 16 * 32 + 9 * 32 * 48 + 48 * 10
    assert cost(SPACE, candidate, "size_bits") == 8 * n_weights


def test_half_of_the_weights_at_4_bits_take_3_bits_each():
    candidate = SPACE.from_options(options(1.0, 4, 0.5))  # 0.5 * 4 + H2(0.5)
    assert cost(SPACE, candidate, "size_bits") == 3 * (144 + 4608 + 13824 + 480)


def test_one_bit_is_cheapest_dense():
    """For b = 1 size does not rise with s: 0.7 * 1 + H2(0.7) is more than 1."""
    sizes = [
        cost(SPACE, SPACE.from_options(options(1.0, 1, s)), "size_bits") for s in (0.3, 0.7, 1.0)
    ]
    assert sizes[1] > sizes[0] > sizes[2]


def test_sizes_equal_slow_python():
    rng = np.random.default_rng(0)
    drawn = [SPACE.sample(rng) for _ in range(300)]
    found = costs(SPACE, np.array([each.choices for each in drawn]), "size_bits")
    assert found.tolist() == [slow_size_bits(SPACE, each) for each in drawn]
    assert found.tolist() == [cost(SPACE, each, "size_bits") for each in drawn]


def test_decimal_options_are_exact():
    """0.07 * 100 and 0.1 * 30 are a little above 7 and 3 in floats, 0.29 * 100 below 29."""
    space = digits(widths=(0.1,), bitwidths=(8,), sparsities=(0.07, 0.29))
    conv1 = concrete_layers(space, space.candidate([0] * 11))[1]
    assert (conv1.ofm_depth, conv1.n_weights) == (2, 18)
    for position, percent in ((0, 7), (1, 29)):
        choices = [0] * 11
        choices[-1] = position
        classifier = concrete_layers(space, space.candidate(choices))[-1]
        assert classifier.n_weights == 50
        assert classifier.n_nonzero == -(-percent * 50 // 100)


def test_options_that_are_no_decimals_are_exact_too():
    space = digits(widths=(1 / 3, 2 / 3), bitwidths=(8,), sparsities=(1 / 7, 1.0))
    found = concrete_layers(space, space.candidate([0] * 11))
    assert [each.ofm_depth for each in found] == [1, 6, 11, 16, 16, 10]  # of 16, 32, 48
    assert found[2].n_nonzero == -(-6 * 11 * 9 // 7)


def test_macs_count_every_position_and_pruned_weights_too():
    dense = SPACE.from_options(options(1.0, 8, 1.0))
    sparse = SPACE.from_options(options(1.0, 8, 0.1))
    by_hand = 16 * 144 + 16 * 4608 + 4 * 13824 + 480  # 4x4, 4x4, 2x2, 1x1 maps
    assert cost(SPACE, dense, "macs") == by_hand == cost(SPACE, sparse, "macs")


def test_description_has_the_integers():
    text = describe(SPACE, SPACE.from_options(options(0.5, 4, 0.5)))
    assert "576 of 1152 weights" in text  # 8 -> 16 channels
    assert "4 bit" in text


def test_a_hundred_thousand_candidates_at_once():
    choices = np.random.default_rng(0).integers(SPACE.n_options, size=(100_000, 11))
    found = costs(SPACE, choices, "size_bits")
    assert found.shape == (100_000,)
    assert found.min() > 0
    assert found.max() <= cost(SPACE, SPACE.largest(), "size_bits")


def test_bad_choices_and_measures_are_refused():
    with pytest.raises(ConfigError, match=r"choices must be integers of shape \[n, 11\]"):
        costs(SPACE, np.zeros((2, 3), dtype=np.int64), "size_bits")
    with pytest.raises(ConfigError, match=r"choices must be integers"):
        costs(SPACE, np.zeros((2, 11)), "size_bits")
    with pytest.raises(ConfigError, match="choices must be indices of options"):
        costs(SPACE, np.full((1, 11), 99), "size_bits")
    with pytest.raises(UnknownNameError, match="did you mean 'macs'"):
        cost(SPACE, SPACE.largest(), "mac")
    with pytest.raises(ConfigError, match="candidate must be of space 'digits'"):
        cost(SPACE, digits().largest(), "macs")


@pytest.mark.parametrize(
    ("text", "bits"),
    [
        ("1B", 8),
        ("1.5KB", 12_000),
        ("1.5 KiB", 12_288),
        (" 0.55MB ", 4_400_000),
        ("2MiB", 16_777_216),
        ("0.1B", 0),
    ],
)
def test_sizes_are_read_exactly(text, bits):
    assert parse_size(text) == bits


@pytest.mark.parametrize(
    "text", ["", "1", "KB", "1kb", "1Kb", "-1KB", "0KB", "1e3B", "nanKB", "1.KB", "1 000B", "١B"]
)
def test_other_sizes_are_refused(text):
    with pytest.raises(ConfigError, match=r"size must be a positive number and one of B, KB"):
        parse_size(text)


def test_sizes_print_in_powers_of_1000():
    assert [format_size(bits) for bits in (400, 8000, 12e6)] == ["50.0 B", "1.00 KB", "1.50 MB"]


def test_limits_are_checked():
    limit = Limit.size("19056B")
    dense = SPACE.from_options(options(1.0, 8, 1.0))
    assert limit.allows(SPACE, dense)
    assert not Limit("size_bits", limit.most - 1).allows(SPACE, dense)
    assert str(limit) == "19.06 KB"
    assert str(Limit("macs", 7)) == "7 macs"
    for make in (lambda: Limit("size_bits", 0), lambda: Limit.size("0.1B")):
        with pytest.raises(ConfigError, match="limit on size_bits must be at least 1, got 0"):
            make()
    with pytest.raises(
        NpusimError, match="measure must be one of macs, n_parameters, size_bits, got 'size'"
    ):
        Limit("size", 1)
