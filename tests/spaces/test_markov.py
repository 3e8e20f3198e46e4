# SPDX-License-Identifier: Apache-2.0
"""Draws by Markov chains, where a space is too entangled to be counted."""

from __future__ import annotations

import numpy as np
import pytest
from test_feasible import SMALL, assert_uniform, branching_space

from npusim.errors import InfeasibleError
from spaces import tables
from spaces.costs import cost, costs
from spaces.digits import digits
from spaces.feasible import FeasibleSet, enumerate_all, feasible_set, smallest
from spaces.limits import Limit
from spaces.markov import MarkovChainSet, smallest_found


@pytest.mark.parametrize("space", [SMALL, branching_space()], ids=["chain", "branching"])
def test_chains_end_uniformly(space):
    every = enumerate_all(space)
    all_costs = costs(space, every, "size_bits")
    limit = Limit("size_bits", int(np.quantile(all_costs, 0.3)))
    drawn = MarkovChainSet(space, limit).sample_many(np.random.default_rng(0), 10_000)
    assert_uniform(drawn, every[all_costs <= limit.most])


def test_the_smallest_that_is_found_is_that_of_the_programme():
    for space in (SMALL, branching_space(), digits()):
        candidate, size = smallest_found(space, "size_bits")
        assert size == cost(space, candidate, "size_bits")
        assert size == cost(space, smallest(space, "size_bits"), "size_bits")


@pytest.fixture
def entangled(monkeypatch):
    """A space whose layers' tables can be made, but that are too many to go through."""
    space = digits(widths=(0.2, 0.4, 1.0), bitwidths=(3, 4), sparsities=(0.4, 0.45, 0.5))
    tables_of = costs(space, np.zeros((1, 11), dtype=np.int64), "size_bits")
    assert tables_of.shape == (1,)
    monkeypatch.setattr(tables, "JOINT_MAX", 20)
    return space


def test_feasible_sets_fall_back_to_chains_and_say_so(entangled):
    limit = Limit.size("1KB")
    found = feasible_set(entangled, limit)
    assert isinstance(found, MarkovChainSet)
    assert (found.method, found.exact) == ("markov chain", False)
    assert found.count() == entangled.count()
    rng = np.random.default_rng(0)
    drawn = [entangled.sample_feasible(rng, limit) for _ in range(5)]
    assert all(limit.allows(entangled, each) for each in drawn)
    assert len(set(drawn)) > 1
    again = np.random.default_rng(0)
    assert drawn[0] == entangled.sample_feasible(again, limit)


def test_the_error_then_says_that_the_least_is_what_was_found(entangled):
    with pytest.raises(InfeasibleError, match="the least found in space 'digits', got 8"):
        feasible_set(entangled, Limit("size_bits", 8))


def test_spaces_that_can_be_counted_are():
    assert isinstance(feasible_set(SMALL, Limit.size("1KB")), FeasibleSet)
    assert feasible_set(SMALL, Limit.size("1KB")).method == "dynamic programme"


def test_a_space_of_one_candidate_is_drawn():
    space = digits(widths=(1.0,), bitwidths=(8,), sparsities=(1.0,))
    drawn = MarkovChainSet(space, Limit.size("1MB")).sample(np.random.default_rng(0))
    assert drawn == space.largest()
