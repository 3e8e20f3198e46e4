# SPDX-License-Identifier: Apache-2.0
"""Neighbours and mutations: what they change, and that they keep within a limit."""

from __future__ import annotations

import numpy as np
import pytest

from npusim.errors import ConfigError
from spaces.base import Candidate
from spaces.costs import cost
from spaces.digits import digits
from spaces.feasible import feasible_set, smallest
from spaces.limits import Limit
from spaces.moves import single_changes

SPACE = digits()


def distance(first: Candidate, second: Candidate) -> int:
    return sum(a != b for a, b in zip(first.choices, second.choices, strict=True))


def test_neighbours_are_all_single_changes():
    candidate = SPACE.sample(np.random.default_rng(0))
    found = SPACE.neighbours(candidate)
    assert len(found) == len(set(found)) == int((SPACE.n_options - 1).sum())
    assert all(distance(candidate, each) == 1 for each in found)


def test_a_fixed_decision_does_not_change():
    candidate = SPACE.largest()
    found = single_changes(SPACE, candidate.choices, fixed=3)
    assert np.all(found[:, 3] == candidate.choices[3])
    assert len(found) == int((SPACE.n_options - 1).sum() - SPACE.n_options[3] + 1)


def test_mutations_without_a_limit_are_neighbours_mostly_near():
    rng = np.random.default_rng(0)
    candidate = SPACE.decode(np.full(11, 0.5))
    found = [SPACE.mutate(candidate, rng) for _ in range(2000)]
    assert {distance(candidate, each) for each in found} == {1}
    steps = np.array([each.choices for each in found]) - np.array(candidate.choices)
    assert set(np.abs(steps).argmax(axis=1)) == set(range(11))  # every decision moves
    assert np.mean(np.abs(steps).sum(axis=1) == 1) == pytest.approx(0.82, abs=0.05)  # 0.7 + others


@pytest.mark.parametrize("text", ["50B", "500B", "1.5KB"])
def test_mutations_within_a_limit_stay_there_and_move(text):
    limit, rng = Limit.size(text), np.random.default_rng(0)
    candidate = SPACE.sample_feasible(rng, limit)
    for _ in range(300):
        mutant = SPACE.mutate(candidate, rng, limit)
        assert limit.allows(SPACE, mutant)
        assert mutant != candidate
        candidate = mutant


def test_at_the_limit_a_mutation_trades_one_decision_for_another():
    rng = np.random.default_rng(0)
    candidate = SPACE.sample_feasible(rng, Limit.size("1KB"))
    limit = Limit("size_bits", cost(SPACE, candidate, "size_bits"))
    found = [SPACE.mutate(candidate, rng, limit) for _ in range(300)]
    assert {distance(candidate, each) for each in found} == {1, 2}
    raised = [
        each for each in found if np.any(np.array(each.choices) > np.array(candidate.choices))
    ]
    assert len(raised) > 50  # without the second change hardly any option could rise


def test_alone_within_a_limit_a_candidate_stays():
    only = smallest(SPACE, "size_bits")
    limit = Limit("size_bits", cost(SPACE, only, "size_bits"))
    assert feasible_set(SPACE, limit).count() == 1
    assert SPACE.mutate(only, np.random.default_rng(0), limit) == only


def test_a_space_of_one_candidate_has_no_mutation():
    space = digits(widths=(1.0,), bitwidths=(8,), sparsities=(1.0,))
    with pytest.raises(ConfigError, match="must have two candidates to mutate, got one"):
        space.mutate(space.largest(), np.random.default_rng(0))
