# SPDX-License-Identifier: Apache-2.0
"""Strategies on shared weights: what each draws, is rewarded for, moves to and scores by."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from npusim.cli import main
from npusim.errors import ConfigError
from searchers.one_shot.config import FrankWolfeConfig, ReinforceConfig, SinglePathConfig
from spaces.base import Space
from spaces.costs import costs
from spaces.digits import digits
from spaces.feasible import enumerate_all
from spaces.limits import Limit

torch = pytest.importorskip("torch", reason="needs torch")

from test_udc_search import stripes  # noqa: E402

import spaces  # noqa: E402
from searchers.evaluators import RunPlace, TrainConfig, make  # noqa: E402
from searchers.one_shot.frank_wolfe import FrankWolfe  # noqa: E402
from searchers.one_shot.reinforce import Tabnas, Tunas  # noqa: E402
from searchers.one_shot.scores import SharedCandidate, SharedScore  # noqa: E402
from searchers.one_shot.single_path import SinglePath  # noqa: E402
from searchers.training import recipes  # noqa: E402
from searchers.training.tasks import Classification  # noqa: E402
from searchers.udc.sampling import Decisions  # noqa: E402

SPACE, LIMIT = digits(), Limit.size("1.5KB")
SMALL = digits(widths=(0.3, 1.0), bitwidths=(1, 4), sparsities=(0.2, 1.0))
TINY = digits(widths=(0.5, 1.0), bitwidths=(4,), sparsities=(0.3, 1.0))


@pytest.fixture(autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def task(n: int = 256, seed: int = 0) -> Classification:
    return Classification(stripes(n, seed), recipes.get("digits"), torch.device("cpu"))


def reinforce(kind, space: Space = SPACE, limit: Limit = LIMIT, seed: int = 0, **changes):
    config = ReinforceConfig(**{"epochs": 8, "n_mc": 4, "n_together": 4, **changes})
    return kind(space, (limit,), task(), task(64, 1), config, seed)


def frank_wolfe(space: Space = SPACE, limit: Limit = LIMIT, seed: int = 0, **changes):
    config = FrankWolfeConfig(**{"epochs": 8, "n_mc": 4, "n_together": 4, **changes})
    return FrankWolfe(space, (limit,), task(), config, seed)


def drawn_by(strategy, n_steps: int) -> np.ndarray:
    """Candidates that the strategy trains on, its weights left as they are: [n, D]."""
    drawn = []

    def train(z):
        drawn.append(z.argmax(2))
        strategy.weights.t += 1
        return 0.0, torch.zeros_like(z)

    strategy.train = train
    for _ in range(n_steps):
        strategy.step()
    return torch.cat(drawn).numpy()


class TestTunas:
    def test_learns_nothing_in_the_warm_up_then_does(self):
        found = reinforce(Tunas, epochs=16)
        steps = [found.step() for _ in range(found.n_steps)]
        undecided = [step.entropy_bits for step in steps]
        assert found.n_steps == 32
        assert undecided[:8] == [undecided[0]] * 8
        assert all(step.reward == 0 for step in steps[:8])
        assert undecided[-1] < 0.6 * undecided[0]
        assert all(-1 < step.reward < 1 and step.reward != 0 for step in steps[8:])

    def test_is_rewarded_for_a_cost_that_is_the_limit(self):
        """On weights that are never trained, so that qualities are all alike."""
        means = {}
        for limit in (Limit.size("0.8KB"), Limit.size("3KB")):
            found = reinforce(Tunas, limit=limit, epochs=40, beta=-3.0, learning_rate=1e-6)
            steps = [found.step() for _ in range(found.n_steps)]
            means[limit.most] = np.mean([step.cost for step in steps[-10:]])
            assert abs(means[limit.most] - 1) < abs(np.mean([s.cost for s in steps[:10]]) - 1)
        assert all(0.8 < mean < 1.25 for mean in means.values())

    def test_warms_up_operators_by_their_mean_and_filters_by_the_largest(self):
        space = spaces.get("tiny_imagenet", widen=0.1, operators=True)
        found = reinforce(Tunas, space, Limit.size("0.1MB"))
        z = Decisions.of(space).one_hot(torch.zeros(2, len(space.decisions), dtype=torch.int64))
        warm = found.warmed_up(z)  # at the start all are
        for at, decision in enumerate(space.decisions):
            n_options = len(decision.options)
            expected = np.full(n_options, 1 / n_options)
            if decision.ordered:
                expected = np.eye(n_options)[-1]
            np.testing.assert_allclose(warm[:, at, :n_options], np.tile(expected, (2, 1)))
        assert torch.equal(warm.sum(2), torch.ones(z.shape[:2], dtype=torch.float64))

    def test_warms_up_ever_less(self):
        found, z = reinforce(Tunas, n_mc=1, n_together=1, epochs=40), None
        rows = torch.zeros(64, len(SPACE.decisions), dtype=torch.int64)
        z, shares = Decisions.of(SPACE).one_hot(rows), []
        for found.weights.t in (0, 40, 79, 80, 200):
            shares.append(float((found.warmed_up(z) != z).any(2).double().mean()))
        assert shares[0] == 1
        assert 0.4 < shares[1] < 0.6
        assert shares[2] < 0.05
        assert shares[3:] == [0, 0]

    def test_the_policy_s_rates_grow_tenfold_and_sum_to_its_travel(self):
        found, rates = reinforce(Tunas, epochs=16, pi_travel=7.0), []
        found.train = lambda z: (setattr(found.weights, "t", found.weights.t + 1), None)
        for _ in range(found.n_steps):
            step = found.step()
            rates.append(found.controller.learning_rate if step.reward else 0.0)
        assert sum(rates) == pytest.approx(7.0)
        assert 8 < max(rates) / min(rate for rate in rates if rate) < 10

    def test_quality_is_the_accuracy_of_each_sample(self):
        found = reinforce(Tunas)
        z = Decisions.of(SPACE).one_hot(torch.from_numpy(SPACE.sample_many(_rng(), 4)))
        images, labels = found._validation.many(range(4))
        with torch.no_grad():
            right = [
                (found.net(images[s : s + 1], z[s : s + 1])[0].argmax(1) == labels[s]).float()
                for s in range(4)
            ]
        expected = [float(each.mean()) for each in right]
        # one image on the edge may fall the other way side by side
        np.testing.assert_allclose(found.quality(z), expected, atol=1.1 / 64)


def _rng() -> np.random.Generator:
    return np.random.default_rng(0)


class TestTabnas:
    def test_draws_from_its_policy_within_the_limit(self):
        limit = Limit.size("350B")
        found = reinforce(Tabnas, SMALL, limit, n_mc=64, n_together=1)
        found.quality, found.learn = (lambda z: np.zeros(len(z))), (lambda *given: None)
        for logits in found.controller.logits:
            logits += _rng().normal(size=logits.shape)
        rows = drawn_by(found, 60)
        assert (costs(SMALL, rows, "size_bits") <= limit.most).all()
        every = enumerate_all(SMALL)
        every = every[costs(SMALL, every, "size_bits") <= limit.most]
        each = found.controller.log_probabilities()
        weights = np.exp(sum(p[every[:, i]] for i, p in enumerate(each)))
        for at, n in enumerate(SMALL.n_options):  # p(y) / P(V), seen in each decision
            share = np.bincount(rows[:, at], minlength=n) / len(rows)
            expected = np.bincount(every[:, at], weights, n) / weights.sum()
            assert np.abs(share - expected).max() < 5 * 0.5 / np.sqrt(len(rows))

    def test_learns(self):
        found = reinforce(Tabnas, SMALL, Limit.size("1KB"), epochs=16)
        steps = [found.step() for _ in range(found.n_steps)]
        assert all(step.cost <= 1 for step in steps)
        assert steps[-1].entropy_bits < 0.8 * steps[0].entropy_bits


class TestFrankWolfe:
    @pytest.mark.parametrize("seed", range(6))
    def test_the_oracle_is_the_best_of_all_candidates_within_the_limit(self, seed):
        limit = Limit.size(("350B", "600B")[seed % 2])
        found = frank_wolfe(SMALL, limit)
        slope = torch.from_numpy(np.random.default_rng(seed).normal(size=found.point.shape))
        every = enumerate_all(SMALL)
        every = every[costs(SMALL, every, "size_bits") <= limit.most]
        corners = found.decisions.one_hot(torch.from_numpy(every))
        expected = (corners * slope).sum((1, 2)).min()
        assert float((found.oracle(slope) * slope).sum()) == pytest.approx(float(expected))

    def test_never_leaves_the_hull_of_what_is_within_the_limit(self):
        limit = Limit.size("1KB")
        found, corners = frank_wolfe(SMALL, limit, epochs=16, warm_up=0.25), []
        oracle = found.oracle

        def watched(slope):
            corners.append(oracle(slope))
            return corners[-1]

        found.oracle = watched
        start = found.point.clone()
        steps = [found.step() for _ in range(found.n_steps)]
        assert len(corners) == found.n_steps - 8
        rows = torch.stack(corners).argmax(2).numpy()
        assert (costs(SMALL, rows, "size_bits") <= limit.most).all()
        weights, left = [], 1.0
        for k in reversed(range(len(corners))):
            length = 2 / (k + found.config.first_steps + 2)
            weights.insert(0, left * length)
            left *= 1 - length
        parts = torch.tensor(weights, dtype=torch.float64)[:, None, None]
        mixed = left * start + (parts * torch.stack(corners)).sum(0)
        torch.testing.assert_close(found.point, mixed)
        assert steps[-1].entropy_bits < steps[0].entropy_bits

    def test_starts_at_the_mean_of_what_is_within_the_limit(self):
        limit = Limit.size("350B")
        every = enumerate_all(SMALL)
        every = every[costs(SMALL, every, "size_bits") <= limit.most]
        found = frank_wolfe(SMALL, limit)
        mean = found.decisions.one_hot(torch.from_numpy(every)).mean(0)
        assert (found.point - mean).abs().max() < 0.1

    def test_goes_where_the_gradient_says(self):
        """With a loss that is linear in the samples, to the candidate that is best for it."""
        found = frank_wolfe(SMALL, Limit.size("600B"), epochs=200, warm_up=0.0)
        slope = torch.from_numpy(_rng().normal(size=found.point.shape))

        def train(z):
            found.weights.t += 1
            return 0.0, (slope / len(z)).expand(z.shape)

        found.train = train
        for _ in range(120):
            found.step()
        assert torch.equal(found.point.argmax(1), found.oracle(slope).argmax(1))


class TestSinglePath:
    def test_trains_on_candidates_uniformly_within_the_limit(self):
        limit = Limit("size_bits", 24_000)
        every = enumerate_all(TINY)
        every = every[costs(TINY, every, "size_bits") <= limit.most]
        config = SinglePathConfig(epochs=40, n_mc=32, n_together=1)
        rows = drawn_by(SinglePath(TINY, (limit,), task(), config, 0), 200)
        found, counts = np.unique(rows, axis=0, return_counts=True)
        assert sorted(map(tuple, found)) == sorted(map(tuple, every))
        expected = len(rows) / len(every)
        chi_squared = ((counts - expected) ** 2 / expected).sum()
        n = len(every) - 1
        assert n > 10
        assert chi_squared < n + 4 * np.sqrt(2 * n)

    def test_scores_are_of_the_candidate_s_own_images_alone(self):
        config = SinglePathConfig(epochs=24, n_mc=4, n_together=4)
        found = SinglePath(SPACE, (LIMIT,), task(), config, 0)
        for _ in range(found.n_steps):
            found.step()
        on = task()
        candidate = SPACE.sample_feasible(_rng(), LIMIT)
        shared = SharedCandidate(found.net, candidate, next(iter(on.inputs(256))))
        images = next(iter(task(64, 1).inputs(64)))
        with torch.no_grad():
            together, alone = shared(images), shared(images[:3])
        torch.testing.assert_close(together[:3], alone, rtol=1e-4, atol=1e-4)

    def test_scores_by_weights_that_learnt(self):
        config = SinglePathConfig(epochs=24, n_mc=4, n_together=4)
        found = SinglePath(SPACE, (LIMIT,), task(), config, 0)
        candidates = [SPACE.sample_feasible(_rng(), LIMIT) for _ in range(5)]
        means = []
        for _ in range(2):
            score = SharedScore(found.net, task(), stripes(64, 1))
            means.append(np.mean([score(each)["accuracy"] for each in candidates]))
            for _ in range(found.n_steps - found.t):
                found.step()
        assert means[0] < 0.3
        assert means[1] > means[0] + 0.3


class TestProcesses:
    CODE = """
import sys, torch
from torch import distributed
import test_shared_strategies as t
torch.set_num_threads(1)
distributed.init_process_group(
    "gloo", init_method="file://" + sys.argv[1], rank=int(sys.argv[2]), world_size=2
)
torch.save(t.all_states(), sys.argv[1] + ".result" + sys.argv[2])
distributed.destroy_process_group()
"""

    @pytest.mark.slow
    def test_two_make_the_same_searches_as_one(self, tmp_path):
        started = [
            subprocess.Popen(
                [sys.executable, "-c", self.CODE, str(tmp_path / "meeting"), rank],
                cwd=Path(__file__).parent,
            )
            for rank in "01"
        ]
        alone = all_states()
        assert [process.wait(300) for process in started] == [0, 0]
        for rank in "01":
            found = torch.load(tmp_path / f"meeting.result{rank}", weights_only=True)
            assert len(found) == len(alone) == 4
            for one, two in zip(alone, found, strict=True):
                assert all(torch.equal(a, b) for a, b in zip(one, two, strict=True))


def all_states() -> list[list]:
    """Probabilities and weights of each strategy after some steps."""
    alone = {"n_together": 1, "epochs": 4}
    single = SinglePathConfig(n_mc=4, **alone)
    found = [
        reinforce(Tunas, **alone),
        reinforce(Tabnas, SMALL, Limit.size("1KB"), **alone),
        frank_wolfe(SMALL, Limit.size("1KB"), **alone),
        SinglePath(SPACE, (LIMIT,), task(), single, 0),
    ]
    for strategy in found:
        for _ in range(6):
            strategy.step()
    return [[each.log_pi(), *each.net.state_dict().values()] for each in found]


class TestConfigs:
    @pytest.mark.parametrize(
        ("kind", "changes", "message"),
        [
            (ReinforceConfig, {"beta": 0.1}, "beta must be in"),
            (ReinforceConfig, {"warm_up": 1.0}, "warm_up must be in 0..0.99, got 1"),
            (ReinforceConfig, {"baseline_decay": 1.0}, "baseline_decay must be in 0..1, less"),
            (ReinforceConfig, {"score_images": 0}, "score_images must be in 1"),
            (ReinforceConfig, {"pi_travel": 0.0}, "pi_travel must be in"),
            (FrankWolfeConfig, {"warm_up": -0.1}, "warm_up must be in"),
            (FrankWolfeConfig, {"temperature": 0.0}, "temperature must be in"),
            (FrankWolfeConfig, {"first_steps": -1}, "first_steps must be in 0"),
            (SinglePathConfig, {"candidates": 0}, "candidates must be in 1"),
            (SinglePathConfig, {"epochs": 0}, "epochs must be in 1"),
        ],
    )
    def test_refuse_what_is_out_of_range(self, kind, changes, message):
        with pytest.raises(ConfigError, match=message):
            kind(**changes)


class TestEvaluator:
    PLACE = RunPlace(LIMIT, "", 3)

    def evaluator(self, directory, epochs: int = 2):
        pytest.importorskip("sklearn", reason="needs sklearn")
        place = RunPlace(LIMIT, directory, 3)
        return make(f"supernet:{epochs}", SPACE, TrainConfig(1, 1), run=place)

    def test_trains_once_and_keeps_the_weights(self, tmp_path, monkeypatch):
        first, heard = self.evaluator(tmp_path), []
        first.prepare(lambda *figures: heard.append(figures))
        assert len(heard) == heard[-1][1] == 8  # steps of 8 batches each
        candidates = [SPACE.sample_feasible(_rng(), LIMIT) for _ in range(3)]
        scores = [first.evaluate(each, seed).score for seed, each in enumerate(candidates)]
        monkeypatch.setattr("searchers.udc.weights.SharedWeights.update", None)
        again = self.evaluator(tmp_path)
        assert [again.evaluate(each, 9).score for each in candidates] == scores
        assert again.identity() == first.identity() != self.evaluator(tmp_path, 3).identity()
        assert again.summary() == "scores by shared weights trained on 2,048 images"

    def test_searches_by_it(self, tmp_path, capsys):
        words = "search --size 1.5KB --trials 6 --evaluator supernet:1 --epochs 1 --final-epochs 1"
        with pytest.raises(SystemExit) as exit_:
            main([*words.split(), "--json", "--no-plot", "--out", str(tmp_path / "run")])
        assert exit_.value.code == 0
        found = json.loads(capsys.readouterr().out)
        assert found["n_trials"] == 6
        assert 0 < found["test"]["accuracy"] <= 1
        assert (tmp_path / "run" / "evaluator" / "searcher" / "checkpoint.pt").exists()

    @pytest.mark.parametrize("name", ["supernet:0", "supernet:x", "supernet:"])
    def test_refuses_other_arguments(self, name):
        with pytest.raises(ConfigError, match="must be supernet or supernet:EPOCHS, got"):
            make(name, SPACE, TrainConfig(), run=self.PLACE)

    def test_is_of_a_run(self):
        with pytest.raises(
            ConfigError, match=r"must score one run of npusim search.*, got 'supernet'"
        ):
            make("supernet", SPACE, TrainConfig())
