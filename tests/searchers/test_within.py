# SPDX-License-Identifier: Apache-2.0
"""Limits beside the first one: kept by every searcher, whatever batch it proposes."""

from __future__ import annotations

from functools import partial

import numpy as np
import pytest
from planted import Planted

import searchers
from npusim.errors import ConfigError, InfeasibleError
from searchers.base import Budget, History, is_one_shot, run
from searchers.random_search import RandomSearch
from searchers.store import RunStore
from searchers.study import Study, run_study
from searchers.within import REFUSED_MAX, Within
from searchers.workers import Workers
from spaces.digits import digits
from spaces.limits import Limit
from spaces.npu_limits import NpuLimit, excess

SPACE = digits()
LIMIT = Limit.size("1.5KB")
MACS = Limit("macs", 20_000)
NAMES = [name for name in searchers.names() if not is_one_shot(searchers.get(name))]


def history(name: str, *limits, pool=None, trials=30, options=None) -> History:
    make = partial(Within, searchers.get(name), limits)
    budget = Budget(trials=trials)
    return run(make, SPACE, LIMIT, Planted(SPACE), budget, seed=0, options=options, pool=pool)


@pytest.mark.parametrize("name", NAMES)
class TestEverySearcher:
    @pytest.fixture
    def options(self, name) -> dict:
        if name in ("bayes", "optuna"):
            pytest.importorskip({"bayes": "skopt"}.get(name, name))
        return {"bayes": {"initial": 4, "pool": 20}}.get(name, {})

    def test_keeps_further_limits(self, name, options):
        n = 4 if name == "tabnas" else 12
        found = history(name, MACS, trials=n, options=options)
        assert len(found) == n
        for trial in found:
            assert LIMIT.allows(SPACE, trial.candidate)
            assert MACS.allows(SPACE, trial.candidate)

    def test_proposes_the_same_where_they_exclude_nothing(self, name, options):
        budget = Budget(trials=6)
        searcher = searchers.get(name)
        plain = run(searcher, SPACE, LIMIT, Planted(SPACE), budget, seed=0, options=options)
        found = history(name, Limit("macs", 10**9), trials=6, options=options)
        assert [t.outcome for t in found] == [t.outcome for t in plain]


class Recording(RandomSearch):
    """Random search that checks what it is promised."""

    batch = 5

    def __init__(self, space, limit, rng):
        super().__init__(space, limit, rng)
        self.asked, self.told = [], []

    def ask(self):
        assert len(self.asked) - len(self.told) < self.batch
        self.asked.append(super().ask())
        return self.asked[-1]

    def tell(self, trial):
        self.told.append(trial)
        assert trial.candidate == self.asked[len(self.told) - 1]


def test_the_searcher_inside_hears_of_all_in_order():
    found = Within(Recording, (MACS,), SPACE, LIMIT, np.random.default_rng(0))
    evaluated = run(lambda *a: found, SPACE, LIMIT, Planted(SPACE), Budget(trials=40), seed=0)
    told = found._inside.told
    refused = [trial for trial in told if trial.index < 0]
    assert [trial for trial in told if trial.index >= 0] == list(evaluated)
    assert len(evaluated) == 40
    assert len(refused) > 20
    for trial in refused:
        assert trial.violation == excess(SPACE, trial.candidate, (MACS,)) > 0
        assert trial.score <= min(t.score for t in evaluated) or trial.score == 0
        assert not trial.valid


@pytest.mark.parametrize(("name", "options"), [("random", {}), ("evolution", {"batch": 4})])
def test_workers_change_nothing(name, options):
    with Workers(partial(Planted, SPACE), 3) as pool:
        found = [t.outcome for t in history(name, MACS, pool=pool, options=options)]
    assert found == [t.outcome for t in history(name, MACS, options=options)]


def test_npu_limits_are_those_of_the_estimate(tmp_path):
    limits = NpuLimit("total_cycles", 2200), NpuLimit("sram_peak_bytes", 600)
    study = Study(SPACE, "evolution", LIMIT, Budget(trials=12), 0, {}, limits)
    whole = run_study(study, tmp_path / "whole", Planted(SPACE))
    for trial in whole.history:
        assert all(limit.allows(SPACE, trial.candidate) for limit in limits)
    with RunStore(tmp_path / "run", SPACE, study.identity(Planted(SPACE).identity())) as store:
        for trial in whole.history[:5]:
            store.append(trial)
    again = run_study(study, tmp_path / "run", Planted(SPACE))
    assert [t.outcome for t in again.history] == [t.outcome for t in whole.history]
    assert again.to_json()["further"][0] == {
        "measure": "total_cycles",
        "most": 2200,
        "npu": "ethos-u55-128",
    }
    other = Study(SPACE, "evolution", LIMIT, Budget(trials=12), 0)
    with pytest.raises(ConfigError, match=r"further must be .*2200.*, got \[\]"):
        run_study(other, tmp_path / "run", Planted(SPACE))


def test_runs_of_before_there_were_further_limits_go_on(tmp_path):
    study = Study(SPACE, "random", LIMIT, Budget(trials=2), 0)
    run_study(study, tmp_path, Planted(SPACE))
    header = tmp_path / "run.json"
    text = header.read_text()
    header.write_text(text.replace('"further": [],', ""))
    assert header.read_text() != text
    assert len(run_study(study, tmp_path, Planted(SPACE)).history) == 2


def test_limits_that_nothing_is_within_are_named():
    message = rf"got {REFUSED_MAX} proposals that were not within 1 macs; the nearest has \d+ macs"
    with pytest.raises(InfeasibleError, match=message) as found:
        history("random", Limit("macs", 1))
    assert found.value.least > 1


class OnceWithin(RandomSearch):
    """Proposes three candidates of few multiply-accumulates, then only others."""

    batch = 2

    def ask(self):
        self.n = getattr(self, "n", 0) + 1
        while True:
            found = super().ask()
            if MACS.allows(SPACE, found) == (self.n <= 3):
                return found


def test_a_search_ends_when_no_more_are_found(monkeypatch):
    monkeypatch.setattr("searchers.within.REFUSED_MAX", 20)
    make = partial(Within, OnceWithin, (MACS,))
    found = run(make, SPACE, LIMIT, Planted(SPACE), Budget(trials=50), seed=0)
    assert len(found) == 3


def test_one_shot_searchers_take_one_limit():
    with pytest.raises(ConfigError, match=r"'udc' must be one, on a size or on MACs, got 1.50 KB"):
        Study(SPACE, "udc", LIMIT, Budget(trials=1), 0, {}, (MACS,))
