# SPDX-License-Identifier: Apache-2.0
"""The plain-Python stream: bit strings by hand, and streams of Arm's encoders."""

from __future__ import annotations

import arm
import arm_process
import generators
import numpy as np
import pytest
from hand_made import BAD, GOOD, stream

from npusim.weights import format as f
from npusim.weights import reference

UNLIMITED = 2**40


@pytest.mark.parametrize(
    ("weight", "folded"), [(0, 0), (1, 2), (-1, 3), (2, 4), (-2, 5), (255, 510), (-255, 511)]
)
def test_folding(weight, folded):
    assert reference.fold(weight) == folded
    assert reference.unfold(folded) == weight


def test_minus_zero_unfolds_to_zero():
    assert reference.unfold(f.MINUS_ZERO) == 0


@pytest.mark.parametrize(
    ("quotient", "wtrunc", "steps"),
    [
        *[(0, 0, [0]), (1, 0, [1]), (2, 0, [2, 0]), (3, 0, [2, 1]), (5, 0, [2, 2, 1])],
        *[(31, 0, [2] * 15 + [1]), (0, 1, [0]), (1, 1, [1]), (2, 1, [2])],
    ],
)
def test_quotients_become_steps(quotient, wtrunc, steps):
    assert reference.quotient_steps(quotient, wtrunc) == steps


@pytest.mark.parametrize(
    ("values", "weights", "runs"),
    [
        ([5], [5], [0, 0]),
        ([0, 0, 5, 0, -6, 0], [5, -6], [2, 1, 1]),
        ([0, 0, 0], [0], [0, 2]),  # a slice cannot be empty
    ],
)
def test_zeros_are_split_off(values, weights, runs):
    assert reference.split_runs(values) == (weights, runs)


@pytest.mark.parametrize("name", GOOD)
def test_bits_by_hand_are_decoded(name):
    good = GOOD[name]
    assert reference.decode(stream(good.bits), UNLIMITED) == good.values


@pytest.mark.parametrize("name", GOOD)
def test_bits_by_hand_are_what_is_emitted(name):
    good = GOOD[name]
    assert reference.emit(good.sections) == stream(good.bits)


def test_arm_decodes_the_bits_by_hand_alike():
    decoded = arm_process.decode([stream(good.bits) for good in GOOD.values()])
    assert [values.tolist() for values in decoded] == [good.values for good in GOOD.values()]


@pytest.mark.parametrize("name", BAD)
def test_bad_bits_by_hand_are_refused(name):
    bad = BAD[name]
    with pytest.raises(reference.BadStream) as caught:
        reference.decode(bad.stream, UNLIMITED)
    assert (caught.value.status, caught.value.bit) == (bad.status, bad.bit)


def test_streams_may_follow_one_another():
    joined = b"".join(stream(good.bits) for good in GOOD.values())
    values = [value for good in GOOD.values() for value in good.values]
    assert reference.decode(joined, UNLIMITED) == values


def test_max_weights_is_the_most_that_is_accepted():
    for good in GOOD.values():
        n = len(good.values)
        assert reference.decode(stream(good.bits), n) == good.values
        if n:
            with pytest.raises(reference.BadStream, match="too_many"):
                reference.decode(stream(good.bits), n - 1)


def test_arms_streams_are_decoded():
    rng = np.random.default_rng(1)
    for _ in range(60):
        values = generators.tensor(rng, 1500)
        for encoder in (arm.legacy_encode, arm.regor_encode):
            assert reference.decode(encoder(values), UNLIMITED) == values.tolist()


def test_random_sections_stand_for_what_they_decode_to():
    rng = np.random.default_rng(2)
    for _ in range(60):
        sections = [generators.random_section(rng, 60) for _ in range(int(rng.integers(1, 4)))]
        values = np.concatenate([generators.section_values(section) for section in sections])
        assert reference.decode(reference.emit(sections), UNLIMITED) == values.tolist()
