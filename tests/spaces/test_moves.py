# SPDX-License-Identifier: Apache-2.0
"""Neighbours and mutations: what they change, and that they keep within a limit."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from random_spaces import small_spaces
from test_feasible import branching_space

from npusim.errors import ConfigError
from spaces.base import Candidate, Space
from spaces.builder import SpaceBuilder
from spaces.costs import MEASURES, change_costs, cost
from spaces.digits import digits
from spaces.feasible import feasible_set, smallest
from spaces.limits import Limit
from spaces.moves import effective, single_changes

SPACE = digits()
BRANCHING = branching_space()


def distance(first: Candidate, second: Candidate) -> int:
    return sum(a != b for a, b in zip(first.choices, second.choices, strict=True))


def test_neighbours_are_all_single_changes():
    candidate = SPACE.sample(np.random.default_rng(0))
    found = SPACE.neighbours(candidate)
    assert len(found) == len(set(found)) == int((SPACE.n_options - 1).sum())
    assert all(distance(candidate, each) == 1 for each in found)


@given(space=small_spaces(), seed=st.integers(0, 99))
@settings(deadline=None, derandomize=True, max_examples=40)
def test_change_costs_are_those_of_the_changed_candidates(space, seed):
    choices = space.sample(np.random.default_rng(seed)).choices
    for measure in MEASURES:
        found = change_costs(space, choices, measure)
        for position in effective(space, choices):
            for option in range(found.shape[1]):
                changed = (*choices[:position], option, *choices[position + 1 :])
                if option >= space.n_options[position]:
                    assert found[position, option] == -1
                else:
                    assert found[position, option] == cost(space, space.candidate(changed), measure)


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


class TestWhereLayersComeAndGo:
    """Moves in a space whose choices leave layers out, and decisions without effect."""

    def test_neighbours_are_candidates_that_one_decision_leads_to(self):
        for candidate in BRANCHING.enumerate()[::50]:
            found = BRANCHING.neighbours(candidate)
            assert len(found) == len(set(found))
            assert candidate not in found
            assert set(found) <= set(BRANCHING.enumerate())

    def test_every_candidate_is_reached_by_mutations(self):
        space = digits_with_an_operator()
        rng, seen = np.random.default_rng(0), set()
        candidate = space.largest()
        for _ in range(3000):
            candidate = space.mutate(candidate, rng)
            seen.add(candidate)
        assert seen == set(space.enumerate())

    def test_mutations_always_change_the_network(self):
        rng = np.random.default_rng(0)
        candidate = BRANCHING.sample(rng)
        for _ in range(200):
            mutant = BRANCHING.mutate(candidate, rng)
            assert mutant != candidate
            assert BRANCHING.candidate(mutant.choices) == mutant
            candidate = mutant


def digits_with_an_operator() -> Space:
    net = SpaceBuilder("small", "digits", (4, 4, 2), widths=(0.5, 1.0))
    x = net.conv(net.input(), 4, name="stem")
    inside = net.conv(net.conv(x, 4, (1, 3, 5), name="inside"), 4, name="back")
    net.choose({"a": x, "b": inside, "c": net.add(x, inside)}, "block")
    return net.build()


class TestCrossover:
    def test_takes_each_decision_from_one_of_both(self):
        rng = np.random.default_rng(0)
        first, second = SPACE.sample(rng), SPACE.sample(rng)
        children = [SPACE.crossover(first, second, rng) for _ in range(200)]
        parents = np.array([first.choices, second.choices])
        for child in children:
            assert (parents == np.array(child.choices)).any(axis=0).all()
        shares = np.array([np.array(each.choices) == parents[1] for each in children]).mean(axis=0)
        differ = parents[0] != parents[1]
        assert np.abs(shares[differ] - 0.5).max() < 0.2  # 200 draws: 5 standard deviations

    def test_stays_within_a_limit_and_still_mixes(self):
        rng, limit = np.random.default_rng(0), Limit.size("0.5KB")
        distances = []
        for _ in range(200):
            first, second = (SPACE.sample_feasible(rng, limit) for _ in range(2))
            child = SPACE.crossover(first, second, rng, limit)
            assert limit.allows(SPACE, child)
            distances.append((distance(first, child), distance(second, child)))
        assert np.mean([0 not in pair for pair in distances]) > 0.9

    def test_makes_candidates_where_layers_come_and_go(self):
        rng = np.random.default_rng(0)
        for _ in range(100):
            first, second = BRANCHING.sample(rng), BRANCHING.sample(rng)
            child = BRANCHING.crossover(first, second, rng)
            assert BRANCHING.candidate(child.choices) == child

    def test_refuses_parents_beyond_the_limit_or_of_another_space(self):
        rng, largest = np.random.default_rng(0), SPACE.largest()
        with pytest.raises(ConfigError, match=r"must be within 500.0 B, got one beyond"):
            SPACE.crossover(largest, largest, rng, Limit.size("500B"))
        with pytest.raises(ConfigError, match="candidate must be of space 'digits'"):
            SPACE.crossover(largest, BRANCHING.largest(), rng)
