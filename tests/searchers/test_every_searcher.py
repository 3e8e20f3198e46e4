# SPDX-License-Identifier: Apache-2.0
"""What every registered searcher must do."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from unittest import mock

import pytest
from planted import Failing, Interrupted, Planted

import searchers
from npusim.errors import InfeasibleError
from searchers.base import Budget, History, Trial, is_one_shot, run
from searchers.store import RunStore, run_identity
from spaces.digits import digits
from spaces.feasible import feasible_set
from spaces.limits import Limit

SPACE = digits()
LIMIT = Limit.size("200B")
N_TRIALS = 16
OPTIONS = {
    "bayes": {"initial": 9, "pool": 20},
    "evolution": {"population": 4},
    "frank-wolfe": {"initial": 6},
    "nsga2": {"population": 4},
    "optuna": {"initial": 6, "proposals": 3},
}
"""So that few trials are enough to see more than random ones."""
PARTIAL = {"uniform-precision"}
"""Searchers that do not go on to all feasible candidates."""
PACKAGES = {"bayes": "skopt", "optuna": "optuna"}
"""What searchers need besides npusim."""
SEARCHERS = [name for name in searchers.names() if not is_one_shot(searchers.get(name))]
"""Those that train nothing themselves; each of the others has tests of its own."""


def history(name: str, seed: int = 0, evaluator=None, **options) -> History:
    settings = {"space": SPACE, "limit": LIMIT, "budget": Budget(trials=N_TRIALS), **options}
    evaluator = evaluator or Planted(settings["space"])
    settings["options"] = OPTIONS.get(name, {})
    with mock.patch("searchers.bayes.N_TREES", 8):
        return run(searchers.get(name), evaluator=evaluator, seed=seed, **settings)


def outcomes(found: History) -> list[tuple]:
    return [trial.outcome for trial in found]


def store_of(name: str, directory: Path, evaluator: Planted) -> RunStore:
    identity = run_identity(SPACE, LIMIT, name, {}, 0, evaluator.identity())
    return RunStore(directory, SPACE, identity)


@pytest.mark.parametrize("name", SEARCHERS)
class TestEverySearcher:
    @pytest.fixture(autouse=True)
    def needed(self, name):
        if name in PACKAGES:
            pytest.importorskip(PACKAGES[name], reason=f"needs {PACKAGES[name]}")

    def test_same_seed_same_history(self, name):
        assert outcomes(history(name)) == outcomes(history(name))

    def test_other_seed_other_history(self, name):
        first, second = history(name, seed=0), history(name, seed=1)
        assert [t.candidate for t in first] != [t.candidate for t in second]
        assert {t.seed for t in first}.isdisjoint(t.seed for t in second)

    def test_same_history_in_a_fresh_process(self, name):
        code = (
            "import json, test_every_searcher as t\n"
            f"print(json.dumps([[x.candidate.choices, x.score] for x in t.history({name!r})]))"
        )
        found = subprocess.run(
            [sys.executable, "-c", code],
            capture_output=True,
            text=True,
            check=True,
            cwd=Path(__file__).parent,
        )
        expected = [[list(t.candidate.choices), t.score] for t in history(name)]
        assert json.loads(found.stdout) == expected

    def test_all_trials_are_within_the_limit(self, name):
        for text in ("60B", "300B"):
            limit = Limit.size(text)
            found = history(name, limit=limit)
            assert len(found) == N_TRIALS or (name in PARTIAL and found)
            assert all(trial.costs["size_bits"] <= limit.most for trial in found)
            assert all(limit.allows(SPACE, trial.candidate) for trial in found)

    def test_no_candidate_is_tried_twice(self, name):
        found = history(name)
        assert len({trial.candidate for trial in found}) == len(found) == N_TRIALS

    def test_budget_is_kept(self, name):
        for trials in (1, 7):
            evaluator = Planted(SPACE)
            assert len(history(name, evaluator=evaluator, budget=Budget(trials=trials))) == trials
            assert evaluator.n_evaluated == trials

    def test_a_longer_run_starts_with_the_shorter_one(self, name):
        short = outcomes(history(name, budget=Budget(trials=9)))
        assert outcomes(history(name))[:9] == short

    def test_ends_when_all_feasible_candidates_were_tried(self, name):
        space = digits(widths=(0.5, 1.0), bitwidths=(4,), sparsities=(0.3,))
        limit = Limit("size_bits", 24_000)
        n_feasible = feasible_set(space, limit).count()
        assert 1 < n_feasible < space.count()
        found = history(name, space=space, limit=limit)
        assert len(found) == len({trial.candidate for trial in found})
        assert len(found) == n_feasible or (name in PARTIAL and 0 < len(found) < n_feasible)

    def test_ends_in_a_space_of_one_candidate(self, name):
        space = digits(widths=(1.0,), bitwidths=(4,), sparsities=(0.3,))
        assert len(history(name, space=space, limit=Limit.size("1MB"))) == 1

    def test_refuses_a_limit_nobody_meets(self, name):
        with pytest.raises(InfeasibleError, match="must be at least 43"):
            history(name, limit=Limit("size_bits", 42))

    def test_learns_nothing_from_failed_trials_and_goes_on(self, name):
        found = history(name, evaluator=Failing(SPACE))
        assert len(found) == N_TRIALS
        failed = [trial for trial in found if trial.score is None]
        assert len(failed) == N_TRIALS // 4
        assert all(dict(trial.metrics) == {"epochs": 1.0} for trial in failed)
        best = found.best()
        assert best is not None
        assert best.valid
        assert best.score == max(t.score for t in found if t.valid)

    def test_resumes_bit_for_bit_wherever_it_was_interrupted(self, name, tmp_path):
        n_trials, budget = 11, Budget(trials=11)
        expected = outcomes(history(name, budget=budget))
        for at in range(n_trials):
            interrupted = Interrupted(SPACE, at)
            with (
                store_of(name, tmp_path / str(at), interrupted) as store,
                pytest.raises(KeyboardInterrupt),
            ):
                history(name, evaluator=interrupted, budget=budget, store=store)
            evaluator = Planted(SPACE)
            replayed: list[Trial] = []
            with store_of(name, tmp_path / str(at), evaluator) as store:
                assert len(store) == at
                found = history(
                    name, evaluator=evaluator, budget=budget, store=store, on_trial=replayed.append
                )
            assert evaluator.n_evaluated == n_trials - at
            assert replayed == list(found)
            assert outcomes(found) == expected
