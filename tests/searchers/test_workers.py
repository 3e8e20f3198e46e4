# SPDX-License-Identifier: Apache-2.0
"""Candidates evaluated side by side: the same results, whatever dies."""

from __future__ import annotations

import os
import signal
import sys
import time
from functools import partial
from pathlib import Path

import pytest
from planted import Planted

import searchers
from npusim.errors import ConfigError, MissingExtraError
from searchers.base import Budget, Evaluation, History, Job, run
from searchers.random_search import RandomSearch
from searchers.ray_workers import RayWorkers
from searchers.study import Study
from searchers.workers import DEATHS_MAX, WorkerError, Workers
from spaces.digits import digits
from spaces.limits import Limit

SPACE = digits()
LIMIT = Limit.size("1KB")


class Uneven(Planted):
    """Slower on some candidates, and dead on some, once each for every file in a folder."""

    def __init__(self, space, folder: Path | None = None):
        super().__init__(space)
        self.folder = folder

    def evaluate(self, candidate, seed):
        if self.folder is not None and sum(candidate.choices) % 3 == 0:
            for marker in self.folder.glob("*"):
                marker.unlink()
                os.kill(os.getpid(), signal.SIGKILL)
        time.sleep(0.02 * (seed % 3))
        return super().evaluate(candidate, seed)


class Deadly(Planted):
    def evaluate(self, candidate, seed):
        os._exit(7)


class Wrong(Planted):
    def evaluate(self, candidate, seed):
        raise ConfigError("image must be square, got 3x4")


class Unlike(Planted):
    """Says which process evaluated."""

    def evaluate(self, candidate, seed):
        return Evaluation(0.5, {"pid": float(os.getpid())})


def history(make, pool=None, trials=13, **options) -> History:
    budget = Budget(trials=trials)
    return run(make, SPACE, LIMIT, Uneven(SPACE), budget, seed=0, options=options, pool=pool)


def outcomes(found: History) -> list[tuple]:
    return [trial.outcome for trial in found]


def jobs(n: int) -> list[Job]:
    return [Job(i, SPACE.largest(), i) for i in range(n)]


def test_results_do_not_depend_on_the_number_of_workers():
    cases = [("evolution", {"batch": 4, "population": 4}), ("nsga2", {"population": 4})]
    cases += [("random", {}), ("tunas", {"batch": 3}), ("uniform-precision", {})]
    for n_workers in (1, 3):
        with Workers(partial(Uneven, SPACE), n_workers) as pool:
            for name, options in cases:
                make = searchers.get(name)
                found = outcomes(history(make, pool, **options))
                assert found == outcomes(history(make, **options))


def test_a_trial_whose_worker_dies_is_evaluated_again(tmp_path):
    (tmp_path / "a").touch()
    (tmp_path / "b").touch()
    with Workers(partial(Uneven, SPACE, tmp_path), 2) as pool:
        found = outcomes(history(RandomSearch, pool, trials=20))
    assert not list(tmp_path.iterdir())
    assert found == outcomes(history(RandomSearch, trials=20))


def test_a_trial_that_kills_every_worker_is_given_up():
    with (
        Workers(partial(Deadly, SPACE), 2) as pool,
        pytest.raises(WorkerError, match=rf"ended {DEATHS_MAX} worker processes, .* code 7"),
    ):
        list(pool.evaluate_all(jobs(1)))


def test_what_an_evaluator_raises_is_raised_here():
    with (
        Workers(partial(Wrong, SPACE), 2) as pool,
        pytest.raises(ConfigError, match="image must be square, got 3x4"),
    ):
        list(pool.evaluate_all(jobs(3)))


def test_processes_are_kept_and_end_with_the_context():
    with Workers(partial(Unlike, SPACE), 2) as pool:
        pids = {m.evaluation.metrics["pid"] for _ in range(2) for m in pool.evaluate_all(jobs(6))}
        assert 1 <= len(pids) <= 2
        assert os.getpid() not in pids
    for pid in pids:
        with pytest.raises(ProcessLookupError):
            os.kill(int(pid), 0)


def test_searchers_of_one_candidate_at_a_time_say_so():
    def study(searcher: str, **options) -> Study:
        return Study(SPACE, searcher, LIMIT, Budget(trials=3), 0, options)

    for searcher, options in (("random", {}), ("nsga2", {}), ("evolution", {"batch": 2})):
        study(searcher, **options).check_workers(2)
    study("local").check_workers(1)
    with pytest.raises(ConfigError, match=r"'local' must be 1, since it proposes one .* got 2$"):
        study("local").check_workers(2)
    with pytest.raises(ConfigError, match=r"got 2; its option batch lets it propose more"):
        study("evolution").check_workers(2)
    with pytest.raises(ConfigError, match="workers must be at least 1, got 0"):
        study("random").check_workers(0)
    with pytest.raises(ConfigError, match="workers must be at least 1, got 0"):
        Workers(partial(Planted, SPACE), 0)


def test_without_ray_the_extra_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(MissingExtraError, match=r"several machines must have the extra \[ray\]"):
        RayWorkers(partial(Planted, SPACE), 2, "auto")
    with pytest.raises(ConfigError, match="workers must be at least 1, got 0"):
        RayWorkers(partial(Planted, SPACE), 0, "auto")
