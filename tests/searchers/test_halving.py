# SPDX-License-Identifier: Apache-2.0
"""Successive halving: rungs, who goes on, what the searcher inside hears, resuming, workers."""

from __future__ import annotations

from collections import Counter
from functools import partial

import numpy as np
import pytest
from planted import Planted

import searchers
from npusim.errors import ConfigError
from searchers.base import Budget, Evaluation, History, is_one_shot, run
from searchers.halving import Halving, HalvingSearch
from searchers.store import RunStore
from searchers.study import Study, run_study
from searchers.workers import Workers
from spaces.digits import digits
from spaces.limits import Limit

SPACE = digits()
LIMIT = Limit.size("1.5KB")
NAMES = [name for name in searchers.names() if not is_one_shot(searchers.get(name))]
IMAGES = 10


class Graded(Planted):
    """The noise of a score is less after more epochs, and the score higher."""

    epochs = 9
    images_a_trial = 9 * IMAGES

    def evaluate(self, candidate, seed, epochs=None):
        self.n_evaluated += 1
        n = epochs or self.epochs
        noise = 0.03 / n * np.random.default_rng(seed).normal()
        score = self.noiseless(candidate) - 0.1 / n + noise
        if epochs is None:
            return Evaluation(score, {"accuracy": score}, n * IMAGES)
        metrics = {"accuracy": score, "epochs": float(n)}
        return Evaluation(score, metrics, n * IMAGES, violation=1 - n / self.epochs)


def history(name="random", pool=None, trials=26, evaluator=None, rungs=None, **options) -> History:
    make = partial(HalvingSearch, searchers.get(name), rungs or Halving(epochs=9))
    evaluator, budget = evaluator or Graded(SPACE), Budget(trials=trials)
    return run(make, SPACE, LIMIT, evaluator, budget, seed=0, options=options, pool=pool)


def outcomes(found) -> list[tuple]:
    return [trial.outcome for trial in found]


def epochs_of(found) -> list[int]:
    return [int(trial.metrics["epochs"]) for trial in found]


@pytest.mark.parametrize(
    ("settings", "rungs", "n"),
    [
        ({"epochs": 9}, (1, 3, 9), 9),
        ({"epochs": 8, "eta": 2}, (1, 2, 4, 8), 8),
        ({"epochs": 8, "min_epochs": 2}, (3, 8), 3),
        ({"epochs": 100, "eta": 4, "min_epochs": 5}, (7, 25, 100), 16),
    ],
)
def test_rungs_have_eta_times_as_many_epochs(settings, rungs, n):
    found = Halving(**settings)
    assert (found.rungs, found.n_candidates) == (rungs, n)


def test_the_best_of_a_rung_go_on():
    found = history()
    assert epochs_of(found) == 2 * ([1] * 9 + [3] * 3 + [9])
    for bracket in (found[:13], found[13:]):
        first, second, (last,) = bracket[:9], bracket[9:12], bracket[12:]
        best = sorted(first, key=lambda t: -t.score)[:3]
        assert [t.candidate for t in second] == [t.candidate for t in best]
        assert last.candidate == max(second, key=lambda t: t.score).candidate
    assert len({t.seed for t in found}) == len(found)
    assert found.n_images == 2 * IMAGES * (9 + 9 + 9)


def test_only_what_was_trained_whole_is_a_result():
    found = history(trials=25)
    assert [t.index for t in found if t.valid] == [12]
    assert found.best().index == 12
    assert max(found, key=lambda t: t.rank).index == 12
    assert np.isnan(found.best_scores()[:12]).all()


@pytest.mark.parametrize("name", NAMES)
def test_every_searcher_is_wrapped_and_hears_of_the_first_rung_in_order(name):
    if name in ("bayes", "optuna"):
        pytest.importorskip({"bayes": "skopt"}.get(name, name))
    heard, asked = [], []
    make = searchers.get(name)

    def recording(space, limit, rng, **options):
        made = make(space, limit, rng, **options)
        ask, tell = made.ask, made.tell
        made.ask = lambda: asked.append(ask()) or asked[-1]
        made.tell = lambda trial: heard.append(trial) or tell(trial)
        return made

    options = {"bayes": {"initial": 4, "pool": 20}}.get(name, {})
    wrapped = partial(HalvingSearch, recording, Halving(epochs=9))
    budget = Budget(trials=11)
    found = run(wrapped, SPACE, LIMIT, Graded(SPACE), budget, seed=0, options=options)
    first = [trial for trial in found if trial.metrics["epochs"] == 1]
    assert [t.candidate for t in heard] == [t.candidate for t in first]
    assert [t.candidate for t in heard] == asked[: len(heard)]
    assert [t.score for t in heard] == [t.score for t in first]
    assert all(trial.valid for trial in heard)


@pytest.mark.parametrize(("name", "options"), [("random", {}), ("evolution", {"batch": 4})])
def test_workers_change_nothing(name, options):
    alone = outcomes(history(name, **options))
    for n_workers in (2, 3):
        with Workers(partial(Graded, SPACE), n_workers) as pool:
            assert outcomes(history(name, pool=pool, **options)) == alone


def test_a_run_goes_on_at_every_trial(tmp_path):
    study = Study(
        SPACE, "evolution", LIMIT, Budget(images=50 * IMAGES), 0, halving=Halving(epochs=9)
    )
    whole = run_study(study, tmp_path / "whole", Graded(SPACE))
    assert whole.history.n_images >= 50 * IMAGES
    assert whole.best.metrics["epochs"] == 9
    for at in range(0, len(whole.history), 3):
        directory = tmp_path / str(at)
        with RunStore(directory, SPACE, study.identity(Graded(SPACE).identity())) as store:
            for trial in whole.history[:at]:
                store.append(trial)
        evaluator = Graded(SPACE)
        again = run_study(study, directory, evaluator)
        assert outcomes(again.history) == outcomes(whole.history)
        assert evaluator.n_evaluated == len(whole.history) - at
    other = Study(SPACE, "evolution", LIMIT, Budget(trials=5), 0)
    with pytest.raises(ConfigError, match=r'halving must be .*"eta": 3.*, got null'):
        run_study(other, tmp_path / "whole", Graded(SPACE))


def test_failed_trials_do_not_go_on():
    class Failing(Graded):
        def evaluate(self, candidate, seed, epochs=None):
            found = super().evaluate(candidate, seed, epochs)
            if sum(candidate.choices) % 2 == 0:
                return Evaluation(float("nan"), {"epochs": float(epochs)}, found.n_images)
            return found

    found = history(evaluator=Failing(SPACE), trials=60)
    assert any(trial.score is None for trial in found)
    for trial in found:
        assert trial.metrics["epochs"] == 1 or sum(trial.candidate.choices) % 2

    class Hopeless(Graded):
        def evaluate(self, candidate, seed, epochs=None):
            return Evaluation(float("nan"), {"epochs": float(epochs)})

    assert epochs_of(history(evaluator=Hopeless(SPACE), trials=20)) == [1] * 20


def test_small_spaces_come_to_an_end():
    space = digits(widths=(1.0,), bitwidths=(4, 8), sparsities=(1.0,))
    n = space.count()
    make = partial(HalvingSearch, searchers.get("random"), Halving(epochs=9))
    limit = Limit.size("100KB")
    found = run(make, space, limit, Graded(space), Budget(trials=1000), seed=0)
    first = [trial.candidate for trial in found if trial.metrics["epochs"] == 1]
    assert len(first) == len(set(first)) == n
    counts = Counter(epochs_of(found))
    assert counts[9] == -(-n // 9)


def test_finds_better_candidates_for_the_same_images():
    """The mean over seeds, of noiseless scores; one in three brackets is luck."""
    plain, halved = [], []
    for seed in range(12):
        budget = Budget(images=6 * 9 * IMAGES)
        make = searchers.get("random")
        found = run(make, SPACE, LIMIT, Graded(SPACE), budget, seed=seed)
        plain.append(Graded(SPACE).noiseless(found.best().candidate))
        wrapped = partial(HalvingSearch, make, Halving(epochs=9))
        found = run(wrapped, SPACE, LIMIT, Graded(SPACE), budget, seed=seed)
        halved.append(Graded(SPACE).noiseless(found.best().candidate))
    assert np.mean(halved) > np.mean(plain)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("eta=1", r"eta of halving must be in 2\.\.100, got 1"),
        ("min_epochs=0", "min_epochs of halving must be in 1"),
        ("min_epochs=4", r"must be at most the epochs of a trial over eta, 9 / 3, got 4"),
        ("eta=x", r"halving must be such as eta=3,min_epochs=1, in whole numbers, got 'eta=x'"),
        ("rate=3", r"halving must be such as eta=3,min_epochs=1, in whole numbers, got 'rate=3'"),
        ("eta", "an option must be written name=value, got 'eta'"),
    ],
)
def test_refuses_what_makes_no_rungs(text, message):
    with pytest.raises(ConfigError, match=message):
        Halving.parse(text, epochs=9)


def test_refuses_brackets_without_end_and_one_shot_searchers():
    with pytest.raises(ConfigError, match="candidates of a bracket must be at most 10000, got 65"):
        Halving(epochs=1 << 16, eta=2)
    with pytest.raises(ConfigError, match="must be one that does not train itself, got 'udc'"):
        Study(SPACE, "udc", LIMIT, Budget(trials=1), 0, halving=Halving(epochs=9))
