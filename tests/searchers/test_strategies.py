# SPDX-License-Identifier: Apache-2.0
"""What each strategy does with what it is told: its idea, seen in its proposals."""

from __future__ import annotations

import builtins
import math

import numpy as np
import pytest
from planted import Planted

import searchers
from npusim.errors import ConfigError, InfeasibleError, MissingExtraError
from searchers.base import Budget, History, Trial, run, searcher_rng
from searchers.bayes import BayesianSearch, expected_improvement
from searchers.controller import Controller
from searchers.frank_wolfe import FrankWolfeSearch
from searchers.fronts import hypervolume
from searchers.local_search import LocalSearch
from searchers.optuna_search import OptunaSearch
from searchers.random_search import RandomSearch
from searchers.sorting_evolution import Nsga2Search
from searchers.tabnas import TabnasSearch
from searchers.tunas import TunasSearch, absolute_reward
from searchers.uniform_precision import UniformPrecision
from spaces.builder import SpaceBuilder
from spaces.costs import MEASURES, cost, costs
from spaces.digits import digits
from spaces.feasible import enumerate_all, smallest
from spaces.limits import Limit

SPACE = digits()
LIMIT = Limit.size("1KB")
SMALL = digits(widths=(0.3, 1.0), bitwidths=(1, 4), sparsities=(0.2, 1.0))


def search(make, trials=60, seed=0, space=SPACE, limit=LIMIT, evaluator=None, **options) -> History:
    evaluator = evaluator or Planted(space, noise=0.0)
    return run(make, space, limit, evaluator, Budget(trials=trials), seed=seed, options=options)


def told(space, candidate, score: float, index: int = 0, violation: float = 0.0) -> Trial:
    found = {measure: cost(space, candidate, measure) for measure in MEASURES}
    return Trial(index, candidate, 0, found, score, {}, 0, violation, 0.0, 0.0)


def distance(first, second) -> int:
    return int(np.not_equal(first.choices, second.choices).sum())


class TestRandom:
    def test_bands_are_drawn_equally_often(self):
        sizes = [t.costs["size_bits"] for t in search(RandomSearch, 800, draw="stratified")]
        least = cost(SPACE, smallest(SPACE, "size_bits"), "size_bits")
        counts, _ = np.histogram(sizes, 4, (least, LIMIT.most))
        assert np.abs(counts - 200).max() < 5 * math.sqrt(800 * 0.25 * 0.75)
        plain = [t.costs["size_bits"] for t in search(RandomSearch, 800)]
        assert np.histogram(plain, 4, (least, LIMIT.most))[0][0] < 120

    def test_bands_without_candidates_are_left_out(self):
        limit = Limit.size("1MB")  # far beyond the largest
        found = search(RandomSearch, 10_000, space=SMALL, limit=limit, draw="stratified", bands=3)
        assert len({t.candidate for t in found}) == len(found) == SMALL.count()

    def test_refuses_bands_out_of_range(self):
        with pytest.raises(ConfigError, match=r"bands must be in 1\.\.16, got 0"):
            search(RandomSearch, draw="stratified", bands=0)


class TestLocal:
    def test_goes_to_the_first_better_neighbour(self):
        found = search(LocalSearch, 1500)
        top, starts = found[0], 1
        for trial in found[1:]:
            if distance(top.candidate, trial.candidate) > 1:
                starts += 1
                top = trial  # a start: all better neighbours of the last top were proposed
            elif trial.rank > top.rank:
                top = trial
        assert 1 < starts < 20

    def test_ends_a_climb_only_where_no_neighbour_is_better(self):
        found = list(search(LocalSearch, 800))
        scores = {t.candidate: t.score for t in found}
        top = found[0]
        for trial in found[1:]:
            if distance(top.candidate, trial.candidate) > 1:
                near = [n for n in SPACE.neighbours(top.candidate) if LIMIT.allows(SPACE, n)]
                assert set(near) <= set(scores)
                return
            if trial.rank > top.rank:
                top = trial
        pytest.fail("no climb of 800 trials ended")


class TestNsga2:
    def test_its_front_covers_more_than_random_candidates(self):
        def covered(make):
            trials = search(make, 200, limit=Limit.size("3KB"))
            points = np.array([(-t.score, t.costs["size_bits"] / 24_000) for t in trials])
            return hypervolume(points, np.array([0.0, 1.0]))

        assert covered(Nsga2Search) > 1.02 * covered(RandomSearch)

    def test_violating_parents_lose_against_others(self):
        made = Nsga2Search(SPACE, LIMIT, searcher_rng(0), population=4)
        first = [made.ask() for _ in range(4)]
        for i, candidate in enumerate(first):
            made.tell(told(SPACE, candidate, 10.0 if i else 0.0, i, violation=float(i)))
        for i in range(4):
            made.tell(told(SPACE, made.ask(), 0.5, i))
        assert first[0] in {parent.candidate for parent in made._parents}
        assert all(parent.violation == 0 for parent in made._parents)

    def test_the_second_objective_can_be_another_cost(self):
        first = [t.candidate for t in search(Nsga2Search, 60, population=5)]
        other = [t.candidate for t in search(Nsga2Search, 60, population=5, against="macs")]
        assert first[:5] == other[:5]
        assert first != other

    def test_refuses_options_out_of_range(self):
        with pytest.raises(ConfigError, match=r"crossover must be in 0\.\.1, got 1\.5"):
            search(Nsga2Search, crossover=1.5)
        with pytest.raises(ConfigError, match=r"population must be in 2\.\."):
            search(Nsga2Search, population=1)


class TestUniformPrecision:
    def test_all_layers_are_alike(self):
        for trial in search(UniformPrecision, 100):
            by_kind: dict[str, set] = {}
            for decision in SPACE.decisions:
                option = SPACE.options_of(trial.candidate)[decision.name]
                by_kind.setdefault(decision.kind, set()).add(option)
            assert {len(options) for options in by_kind.values()} == {1}

    def test_proposes_every_such_network_within_the_limit(self):
        n_options = {decision.kind: len(decision.options) for decision in SMALL.decisions}
        found = search(UniformPrecision, 1000, space=SMALL, limit=Limit.size("1MB"))
        assert len(found) == math.prod(n_options.values())

    def test_names_the_least_of_them(self):
        net = SpaceBuilder("choice", "digits", (4, 4, 2), widths=(0.5, 1.0))
        x = net.conv(net.input(), 4)
        net.choose({"none": x, "conv": net.conv(x, 4)}, "block")  # the last operator is taken
        space, limit = net.build(), Limit("size_bits", 10**6)
        least = min(
            t.costs["size_bits"] for t in search(UniformPrecision, space=space, limit=limit)
        )
        assert cost(space, smallest(space, "size_bits"), "size_bits") < least
        with pytest.raises(InfeasibleError, match=rf"at least {least} .* layers all alike"):
            search(UniformPrecision, space=space, limit=Limit("size_bits", least - 1))


class TestModels:
    @pytest.mark.parametrize("make", [BayesianSearch, OptunaSearch, FrankWolfeSearch])
    def test_beat_random_search_where_options_add_up(self, make):
        options = {"pool": 60} if make is BayesianSearch else {}
        found = [
            search(each, 26, seed, **(options if each is make else {})).best().score
            for each in (make, RandomSearch)
            for seed in range(2)
        ]
        assert np.mean(found[:2]) > np.mean(found[2:]) + 0.02

    @pytest.mark.parametrize("surrogate", ["extra-trees", "random-forest", "gaussian-process"])
    def test_every_surrogate_proposes(self, surrogate):
        options = {"surrogate": surrogate, "initial": 4, "pool": 20}
        found = search(BayesianSearch, 6, **options)
        assert len({t.candidate for t in found}) == 6
        assert [t.candidate for t in found] == [
            t.candidate for t in search(BayesianSearch, 6, **options)
        ]

    @pytest.mark.parametrize(
        "sampler", ["tpe", pytest.param("gp", marks=pytest.mark.slow), "cmaes"]
    )
    def test_every_sampler_proposes(self, sampler):
        pytest.importorskip("torch" if sampler == "gp" else "optuna")
        found = search(OptunaSearch, 10, sampler=sampler, initial=4)
        assert len({t.candidate for t in found}) == 10

    def test_asked_ahead_they_spread(self):
        made = BayesianSearch(SPACE, LIMIT, searcher_rng(0), initial=4, pool=30)
        for i in range(4):
            made.tell(told(SPACE, made.ask(), float(i), i))
        assert len({made.ask() for _ in range(4)}) == 4

    def test_expected_improvement_is_the_mean_gain(self):
        drawn = np.random.default_rng(0).normal(0.3, 2.0, 400_000)
        found = expected_improvement(np.array([0.3]), np.array([2.0]), 1.0)[0]
        assert found == pytest.approx(np.maximum(drawn - 1.0, 0).mean(), abs=0.01)

    @pytest.mark.parametrize(("name", "package"), [("bayes", "skopt"), ("optuna", "optuna")])
    def test_say_which_extra_they_need(self, name, package, monkeypatch):
        real = builtins.__import__

        def without(module, *args, **kwargs):
            if module.partition(".")[0] == package:
                raise ImportError(f"no {package}")
            return real(module, *args, **kwargs)

        monkeypatch.setattr(builtins, "__import__", without)
        with pytest.raises(MissingExtraError, match=r"must have the extra \[searchers\]"):
            search(searchers.get(name), 1)


def test_frank_wolfe_finds_the_best_additive_candidate_exactly():
    evaluator = Planted(SMALL, noise=0.0)  # additive in one-hot options
    rows = enumerate_all(SMALL)
    within = rows[costs(SMALL, rows, "size_bits") <= LIMIT.most]
    best = max(evaluator.noiseless(SMALL.candidate(row)) for row in within.tolist())
    found = search(FrankWolfeSearch, 60, space=SMALL, entropy=0.0, ridge=1e-6, evaluator=evaluator)
    assert found.best().score == pytest.approx(best, abs=1e-12)


class TestControllers:
    def test_the_score_gradient_is_the_gradient_of_the_log_probability(self):
        made = Controller(SMALL, 0.1)
        rng = np.random.default_rng(0)
        for logits in made.logits:
            logits += rng.normal(size=logits.shape)
        candidate = SMALL.sample(rng)

        def log_probability() -> float:
            each = made.log_probabilities()
            return sum(float(p[c]) for p, c in zip(each, candidate.choices, strict=True))

        before, step = log_probability(), 1e-6
        for logits, slopes in zip(made.logits, made.score_gradient(candidate), strict=True):
            for option in range(len(logits)):
                logits[option] += step
                assert (log_probability() - before) / step == pytest.approx(
                    slopes[option], abs=1e-5
                )
                logits[option] -= step

    @pytest.mark.parametrize("limit", [None, Limit.size("1KB"), Limit.size("350B")])
    def test_the_policy_gradient_is_unbiased(self, limit):
        """Its mean over all draws is the gradient of the expected reward, whatever the baseline.

        Without a limit of REINFORCE (TuNAS); with one, of the reward given that draws are within
        it (TabNAS): there nothing is rejected, and none of its probability is estimated.
        """
        made = Controller(SMALL, 0.1)
        rng = np.random.default_rng(0)
        for logits in made.logits:
            logits += rng.normal(size=logits.shape)
        rows = enumerate_all(SMALL)
        if limit is not None:
            rows = rows[costs(SMALL, rows, limit.measure) <= limit.most]
        assert len(rows) > 100
        rewards = rng.random(len(rows))

        def probabilities() -> np.ndarray:
            each = made.log_probabilities()
            total = np.exp(sum(p[rows[:, i]] for i, p in enumerate(each)))
            return total / total.sum()

        within = None if limit is None else made.within(limit)
        weights, baseline = len(rows) * probabilities(), 0.4
        found = made.gradient(rows, weights * (rewards - baseline), within)
        step = 1e-6
        for logits, slopes in zip(made.logits, found, strict=True):
            for option in range(len(logits)):
                logits[option] += step
                after = probabilities() @ rewards
                logits[option] -= 2 * step
                before = probabilities() @ rewards
                logits[option] += step
                assert (after - before) / (2 * step) == pytest.approx(slopes[option], abs=1e-7)

    def test_the_uncorrected_gradient_is_biased_where_draws_are_rejected(self):
        made, limit = Controller(SMALL, 0.1), Limit.size("350B")
        rows = enumerate_all(SMALL)
        rows = rows[costs(SMALL, rows, limit.measure) <= limit.most]
        constant = np.ones(len(rows))  # no reward is better than another
        corrected = made.gradient(rows, constant, made.within(limit))
        plain = made.gradient(rows, constant, None)
        assert max(np.abs(each).max() for each in corrected) < 1e-9
        assert max(np.abs(each).max() for each in plain) > 0.05

    def test_the_absolute_reward_of_tunas(self):
        found = absolute_reward(np.array([0.9, 0.9, 0.9]), np.array([0.8, 1.0, 1.5]), -0.5)
        np.testing.assert_allclose(found, [0.8, 0.9, 0.65])

    @pytest.mark.parametrize("make", [TunasSearch, TabnasSearch])
    def test_draw_better_candidates_in_the_end(self, make):
        found = search(make, 150, limit=Limit.size("300B"))
        scores = np.array([t.score for t in found])
        assert scores[100:].mean() > scores[:50].mean() + 0.05

    def test_a_cost_term_draws_towards_the_limit(self):
        class Flat(Planted):
            def noiseless(self, candidate):
                return 0.0

        used = [
            np.mean(
                [
                    t.costs["size_bits"]
                    for t in search(TunasSearch, 150, beta=beta, evaluator=Flat(SPACE, 0.0))
                ][75:]
            )
            for beta in (0.0, -1.0)
        ]
        assert used[1] > used[0] * 1.03

    def test_refuse_options_out_of_range(self):
        with pytest.raises(ConfigError, match="beta must be at most 0, got 1"):
            search(TunasSearch, beta=1.0)
        with pytest.raises(ConfigError, match="learning_rate must be more than 0, got 0"):
            search(TabnasSearch, learning_rate=0.0)
        with pytest.raises(ConfigError, match=r"baseline_decay must be in 0\.\.1, less than 1"):
            search(TabnasSearch, baseline_decay=1.0)
