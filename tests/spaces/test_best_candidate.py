# SPDX-License-Identifier: Apache-2.0
"""The best candidate within a limit, against all candidates one by one."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from random_spaces import small_spaces

import spaces
from npusim.errors import ConfigError, InfeasibleError
from spaces import decode, feasible
from spaces.base import Space
from spaces.costs import cost, costs
from spaces.decode import best
from spaces.digits import digits
from spaces.feasible import enumerate_all, smallest
from spaces.limits import Limit


def score_of(space: Space, choices: np.ndarray, scores: list[np.ndarray]) -> np.ndarray:
    """Sums of the scores of the decisions that have an effect, f64 [n]."""
    total = np.zeros(len(choices))
    for position, values in enumerate(scores):
        gains = values[choices[:, position]]
        condition = space.conditions.get(position)
        if condition is not None:
            gains = gains * condition.at(lambda other: choices[:, other])
        total += gains
    return total


@given(
    space=small_spaces(),
    share=st.floats(0, 1),
    seed=st.integers(0, 99),
    bins_max=st.sampled_from([1 << 16, 3, 40]),
    measure=st.sampled_from(["size_bits", "macs"]),
)
@settings(max_examples=80, deadline=None, derandomize=True)
def test_equals_brute_force_however_wide_the_bins(space, share, seed, bins_max, measure):
    every = enumerate_all(space)
    all_costs = costs(space, every, measure)
    most = int(np.quantile(all_costs, share))
    rng = np.random.default_rng(seed)
    scores = [rng.normal(size=n) for n in space.n_options]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(feasible, "BINS_MAX", bins_max)
        found = best(space, Limit(measure, most), scores)
    assert found.optimal
    assert cost(space, found.candidate, measure) <= most
    every_score = score_of(space, every, scores)
    assert found.score == pytest.approx(every_score[all_costs <= most].max(), abs=1e-9)
    own = score_of(space, np.array([found.candidate.choices]).reshape(1, -1), scores)
    assert found.score == pytest.approx(own[0], abs=1e-9)  # sums in another order


@pytest.mark.parametrize(("name", "limit"), [("cifar100", "0.55MB"), ("imagenet", "0.5MB")])
def test_large_spaces_are_decoded_to_the_best_there_is(name, limit):
    space, within = spaces.get(name), Limit.size(limit)
    rng = np.random.default_rng(0)
    scores = [np.sort(rng.normal(size=n)) for n in space.n_options]  # more is better: a knapsack
    found = best(space, within, scores)
    size = cost(space, found.candidate, "size_bits")
    assert found.optimal
    assert 0.99 * within.most < size <= within.most
    drawn = feasible.feasible_set(space, within).sample_many(rng, 2000)
    assert score_of(space, drawn, scores).max() < found.score
    for neighbour in space.neighbours(found.candidate):
        if within.allows(space, neighbour):
            assert score_of(space, np.array([neighbour.choices]), scores)[0] <= found.score


def test_where_it_gives_up_it_says_how_far_it_may_be_from_the_best(monkeypatch):
    monkeypatch.setattr(feasible, "BINS_MAX", 30)
    space = digits(widths=(0.2, 0.5, 1.0), bitwidths=(1, 4, 8), sparsities=(0.1, 0.5, 1.0))
    scores = [np.arange(3.0) * (1 + position % 5) for position in range(11)]
    limit = Limit.size("2KB")
    exact = best(space, limit, scores)
    monkeypatch.setattr(decode, "LABELS_MAX", 1)
    found = best(space, limit, scores)
    assert exact.optimal
    assert not found.optimal
    assert found.score <= exact.score <= found.bound
    assert limit.allows(space, found.candidate)


def test_decisions_that_cost_nothing_take_their_best_option():
    space = digits()
    scores = [np.zeros(n) for n in space.n_options]
    at = space.position("conv2.sparsity")  # multiply-accumulates do not depend on it
    scores[at][3] = 1.0
    found = best(space, Limit("macs", cost(space, smallest(space, "macs"), "macs")), scores)
    assert found.candidate.choices[at] == 3
    assert found.score == 1.0


def test_nothing_within_the_limit_is_refused():
    space = digits()
    scores = [np.zeros(n) for n in space.n_options]
    with pytest.raises(InfeasibleError, match="limit on size_bits must be at least"):
        best(space, Limit("size_bits", 1), scores)


def test_scores_are_checked():
    space = digits()
    with pytest.raises(ConfigError, match="scores must be of 11 decisions, got 0"):
        best(space, Limit.size("1KB"), [])
