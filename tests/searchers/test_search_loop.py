# SPDX-License-Identifier: Apache-2.0
"""The loop, budgets and histories; what the strategies do with what they are told."""

from __future__ import annotations

import dataclasses
import math
import time

import numpy as np
import pytest
from planted import Planted

import searchers
from npusim.errors import ConfigError, UnknownNameError
from searchers.base import (
    Budget,
    Evaluation,
    History,
    Trial,
    evaluation_seed,
    is_one_shot,
    run,
    searcher_rng,
)
from searchers.evolution import EvolutionSearch
from searchers.random_search import RandomSearch
from spaces.base import Candidate
from spaces.costs import MEASURES, cost, costs
from spaces.digits import digits
from spaces.feasible import enumerate_all
from spaces.limits import Limit

SPACE = digits()
LIMIT = Limit.size("1KB")


def trial(index: int, score: float | None, candidate: Candidate | None = None, **fields) -> Trial:
    candidate = candidate or SPACE.largest()
    trial_costs = fields.pop("costs", {})
    values = {"n_images": 10, "violation": 0.0, "wall_s": 2.0, "cpu_s": 1.0, **fields}
    return Trial(index, candidate, 0, trial_costs, score, {}, **values)


def search(make=RandomSearch, seed=0, evaluator=None, budget=None, **options) -> History:
    evaluator, budget = evaluator or Planted(SPACE), budget or Budget(trials=10)
    return run(make, SPACE, LIMIT, evaluator, budget, seed=seed, **options)


def test_best_is_the_first_of_the_highest_valid_scores():
    scores = [None, 0.5, 0.9, 0.7, 0.9]
    found = History([trial(i, score) for i, score in enumerate(scores)])
    found.append(trial(5, 1.0, violation=0.1))
    assert found.best() is found[2]
    np.testing.assert_array_equal(found.best_scores(), [math.nan, 0.5, 0.9, 0.9, 0.9, 0.9])


def test_negative_scores_have_a_best_too():
    assert History([trial(0, -3.0), trial(1, -2.0)]).best().index == 1


def test_without_a_valid_trial_there_is_no_best():
    found = History([trial(0, None), trial(1, 1.0, violation=2.0)])
    assert found.best() is None
    assert np.isnan(found.best_scores()).all()
    assert History().best() is None
    assert History().best_scores().shape == (0,)


def test_histories_have_no_gaps():
    with pytest.raises(ConfigError, match="index of the next trial must be 0, got 1"):
        History().append(trial(1, 0.5))


@pytest.mark.parametrize(
    ("budget", "n_trials"),
    [
        (Budget(trials=3), 3),
        (Budget(images=25), 3),
        (Budget(images=30), 3),
        (Budget(seconds=3.0), 2),
        (Budget(trials=2, images=1000, seconds=1000), 2),
    ],
)
def test_budgets_end_at_the_first_limit_that_is_reached(budget, n_trials):
    found = History()
    while budget.allows_another(found):
        found.append(trial(len(found), 0.5))
    assert len(found) == n_trials


def test_budgets_of_nothing_are_refused():
    with pytest.raises(ConfigError, match="budget must limit one of trials, images, seconds"):
        Budget()
    for fields in ({"trials": 0}, {"images": -1}, {"seconds": 0.0}, {"seconds": math.nan}):
        with pytest.raises(ConfigError, match="must be more than 0 and finite, got"):
            Budget(**fields)


def test_image_and_time_budgets_end_a_run():
    assert len(search(budget=Budget(images=450))) == 5  # the planted evaluator claims 100 each

    class Slow(Planted):
        def evaluate(self, candidate, seed):
            time.sleep(0.05)
            return super().evaluate(candidate, seed)

    found = search(evaluator=Slow(SPACE), budget=Budget(seconds=0.12))
    assert sum(t.wall_s for t in found) >= 0.12
    assert len(found) <= 3


def test_a_run_stops_when_it_is_told_to():
    seen: list[Trial] = []
    found = search(on_trial=seen.append, should_stop=lambda: len(seen) == 4)
    assert list(found) == seen
    assert len(found) == 4


def test_trials_record_costs_seeds_and_times():
    for index, found in enumerate(search(seed=3)):
        row = np.array([found.candidate.choices])
        assert found.costs == {m: costs(SPACE, row, m)[0] for m in MEASURES}
        assert found.seed == evaluation_seed(3, index)
        assert found.wall_s > 0
        assert found.cpu_s >= 0


def test_a_searcher_beyond_the_limit_is_stopped_before_the_evaluation():
    class Greedy(RandomSearch):
        def ask(self):
            return SPACE.largest()

    evaluator = Planted(SPACE)
    with pytest.raises(ConfigError, match=r"searcher must propose candidates within 1\.00 KB"):
        search(Greedy, evaluator=evaluator)
    assert evaluator.n_evaluated == 0


def test_stored_trials_of_another_searcher_are_not_replayed():
    class Stored:
        def __init__(self, trials):
            self.kept = list(trials)

        def get(self, index):
            return self.kept[index]

        def append(self, trial):
            self.kept.append(trial)

    store = Stored(search(seed=1))
    with pytest.raises(ConfigError, match="stored trial 0 must be what the searcher proposes"):
        search(seed=0, store=store)


def test_negative_seeds_are_refused():
    with pytest.raises(ConfigError, match="seed must be at least 0, got -1"):
        search(seed=-1)


def test_random_search_is_uniform_over_the_feasible_set():
    """First proposals over many seeds: mean size as over all feasible candidates."""
    space = digits(widths=(0.3, 1.0), bitwidths=(1, 4), sparsities=(0.2, 1.0))
    limit = Limit.size("1.5KB")
    sizes = costs(space, enumerate_all(space), "size_bits")
    sizes = sizes[sizes <= limit.most]
    first = [RandomSearch(space, limit, searcher_rng(seed)).ask() for seed in range(1500)]
    found = costs(space, np.array([each.choices for each in first]), "size_bits")
    error = sizes.std() / math.sqrt(len(first))
    assert abs(found.mean() - sizes.mean()) < 5 * error
    assert len({each.choices for each in first}) > 0.5 * len(sizes)


def test_evolution_beats_random_search_where_neighbours_are_alike():
    """On a smooth landscape, 10 seeds, 80 trials each: its best is better nearly always."""
    wins = 0
    for seed in range(10):
        evolved, drawn = (
            search(make, seed, budget=Budget(trials=80)).best()
            for make in (EvolutionSearch, RandomSearch)
        )
        wins += evolved.score > drawn.score
    assert wins >= 8


def test_evolution_mutates_a_member_of_the_latest_population():
    made = EvolutionSearch(SPACE, LIMIT, searcher_rng(0), population=4, tournament=50)
    told: list[Trial] = []
    for index in range(30):
        candidate = made.ask()
        if index >= 4:  # 50 draws of 4 members nearly surely include the best of them
            score = max(t.score for t in told[-4:])
            best = [t.candidate for t in told[-4:] if t.score == score]
            changed = [np.not_equal(candidate.choices, each.choices).sum() for each in best]
            assert 1 <= min(changed) <= 2
        told.append(trial(index, Planted(SPACE).noiseless(candidate), candidate))
        made.tell(told[-1])


def test_evolution_with_population_and_tournament_of_one_follows_the_last_trial():
    made = EvolutionSearch(SPACE, LIMIT, searcher_rng(0), population=1, tournament=1)
    last = None
    for index in range(20):
        candidate = made.ask()
        if last is not None:
            assert 1 <= np.not_equal(candidate.choices, last.choices).sum() <= 2
        made.tell(trial(index, -float(index), candidate))
        last = candidate


def test_evolution_can_ask_ahead_of_its_trials():
    made = EvolutionSearch(SPACE, LIMIT, searcher_rng(0), population=2)
    asked = [made.ask() for _ in range(10)]
    assert len(set(asked)) == 10


def test_evolution_refuses_sizes_below_one():
    for what in ("population", "tournament"):
        with pytest.raises(ConfigError, match=rf"{what} must be in 1..1000000, got 0"):
            EvolutionSearch(SPACE, LIMIT, searcher_rng(0), **{what: 0})


def test_tell_leaves_the_trial_as_it_is():
    for name in searchers.names():
        if is_one_shot(searchers.get(name)):
            continue
        made = searchers.get(name)(SPACE, LIMIT, searcher_rng(0))
        candidate = made.ask()
        told = trial(0, 0.5, candidate, costs={m: cost(SPACE, candidate, m) for m in MEASURES})
        before = dataclasses.replace(told)
        made.tell(told)
        assert told == before


def test_unknown_searchers_are_refused():
    with pytest.raises(UnknownNameError, match=r"searcher must be one of .*did you mean 'random'"):
        searchers.get("randon")


def test_evaluations_violate_nothing_by_default():
    assert Evaluation(0.5) == Evaluation(0.5, {}, 0, 0.0)


def test_trials_that_are_not_valid_rank_below_by_how_much_they_violate():
    found = [
        trial(0, 0.1),
        trial(1, 0.9, violation=0.5),
        trial(2, 0.2, violation=0.1),
        trial(3, None),
    ]
    found.append(trial(4, 0.3))
    order = sorted(found, key=lambda each: each.rank, reverse=True)
    assert [each.index for each in order] == [4, 0, 2, 1, 3]


@pytest.mark.parametrize("field", ["score", "violation"])
def test_numbers_that_are_not_finite_give_no_score(field):
    class Broken(Planted):
        def evaluate(self, candidate, seed):
            return dataclasses.replace(super().evaluate(candidate, seed), **{field: math.nan})

    found = search(evaluator=Broken(SPACE))
    assert [(each.score, each.violation, each.valid) for each in found] == [(None, 0.0, False)] * 10
