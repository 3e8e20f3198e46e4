# SPDX-License-Identifier: Apache-2.0
"""Searchers that train inside `ask`: what they are given, and what they are charged."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from planted import Planted

import searchers
from npusim.errors import ConfigError
from searchers.base import Budget, SearchContext, run
from searchers.data import Split
from searchers.evaluators import TrainConfig, training
from searchers.study import Study, run_study
from spaces.digits import digits
from spaces.limits import Limit

SPACE = digits()
LIMIT = Limit.size("1KB")


class OneShot:
    """Reads its data, reports two steps, keeps a checkpoint and proposes a random candidate."""

    one_shot = True

    def __init__(self, space, limit, rng, context: SearchContext, images: int = 1000):
        self.space, self.limit, self.rng, self.context = space, limit, rng, context
        self.images, self.n_images, self.metrics = images, 0, {}

    def ask(self):
        train, _ = self.context.data()
        self.n_images += min(self.images, self.context.images or self.images)
        self.context.progress(2, 2, {"loss": 0.5})
        if self.context.directory is not None:
            (self.context.directory / "searcher").write_text(self.context.device)
        self.metrics = {"train_images": float(len(train.labels))}
        return self.space.sample_feasible(self.rng, self.limit)

    def tell(self, trial):
        pass


class WithData(Planted):
    def search_data(self):
        def split(n: int) -> Split:
            return Split(np.zeros((n, 8, 8, 1), np.float32), np.zeros(n, np.int64))

        return split(6), split(4)


@pytest.fixture
def registered(monkeypatch):
    monkeypatch.setattr(searchers, "get", lambda name: OneShot)


def study(budget: Budget, **options) -> Study:
    return Study(SPACE, "mine", LIMIT, budget, 0, options)


def test_what_it_spends_counts(registered, tmp_path):
    heard = []
    result = run_study(
        study(Budget(images=2500)),
        tmp_path,
        WithData(SPACE),
        device="meta",
        on_progress=lambda *figures: heard.append(figures),
    )
    assert len(result.history) == 3  # 1,000 images of the searcher and 100 of the evaluator each
    assert [trial.search_images for trial in result.history] == [1000] * 3
    assert dict(result.history[0].search_metrics) == {"train_images": 6.0}
    assert result.to_json()["n_images"] == 3300
    assert heard == [(2, 2, {"loss": 0.5})] * 3
    assert Path(tmp_path / "searcher").read_text() == "meta"


def test_it_hears_how_much_it_may_spend(registered, tmp_path):
    result = run_study(study(Budget(images=300), images=10_000), tmp_path, WithData(SPACE))
    assert [trial.search_images for trial in result.history] == [300]


def test_it_resumes_like_every_searcher(registered, tmp_path):
    first = run_study(study(Budget(trials=2)), tmp_path, WithData(SPACE))
    evaluator = WithData(SPACE)
    again = run_study(study(Budget(trials=3)), tmp_path, evaluator)
    assert evaluator.n_evaluated == 1
    assert list(again.history[:2]) == list(first.history)


def test_an_evaluator_without_data_is_refused(registered, tmp_path):
    with pytest.raises(
        ConfigError, match=r"searcher 'mine' must have an evaluator with data .* got 'planted'"
    ):
        run_study(study(Budget(trials=1)), tmp_path / "run", Planted(SPACE))
    assert not (tmp_path / "run").exists()


def test_the_loop_needs_a_context_for_it():
    with pytest.raises(ConfigError, match="a one-shot searcher must get a context to train in"):
        run(OneShot, SPACE, LIMIT, Planted(SPACE), Budget(trials=1), seed=0)


def test_the_evaluator_of_npusim_search_has_data_but_the_test_data():
    for name in ("torch", "sklearn"):
        pytest.importorskip(name, reason=f"needs {name}")
    train, validation = training(SPACE, TrainConfig()).search_data()
    assert (len(train.labels), len(validation.labels)) == (1077, 360)
