# SPDX-License-Identifier: Apache-2.0
"""Evaluators by name: what each is, and what is refused."""

from __future__ import annotations

import json
import sys

import numpy as np
import pytest
from planted import Planted

from npusim.cli import main
from npusim.errors import ConfigError, UnknownNameError
from searchers.base import Budget, Evaluation
from searchers.study import Study, run_study
from spaces.digits import digits
from spaces.limits import Limit

for name in ("torch", "sklearn"):
    pytest.importorskip(name, reason=f"needs {name}")

from searchers.evaluators import TrainConfig, make  # noqa: E402
from searchers.surrogate_evaluator import SurrogateEvaluator  # noqa: E402

SPACE, LIMIT = digits(), Limit.size("1KB")
CONFIG = TrainConfig(epochs=1, final_epochs=2)


def tens(space, candidate, seed):
    """A constraint that only it knows: the classifier is to have its first bitwidth."""
    return Evaluation(10.0 + seed % 2, violation=float(candidate.choices[-1]))


@pytest.fixture
def fewest(tmp_path, monkeypatch):
    """A module of a user's, in the working directory."""
    (tmp_path / "mine.py").write_text(
        "from spaces.costs import cost\n"
        "def fewest_macs(space, candidate, seed):\n"
        "    return -cost(space, candidate, 'macs')\n"
        "def wrong(space, candidate, seed):\n"
        "    return 'good'\n"
        "nothing = 3\n"
    )
    (tmp_path / "broken.py").write_text("import surely_not_installed\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    yield "mine:fewest_macs"
    sys.modules.pop("mine", None)


@pytest.fixture
def finished(tmp_path):
    """A run of 60 trials on a landscape that is known."""
    run_study(Study(SPACE, "random", LIMIT, Budget(trials=60), 0), tmp_path / "run", Planted(SPACE))
    return tmp_path / "run"


class TestNames:
    def test_short_and_full_training_differ_in_epochs(self):
        short, full = (make(name, SPACE, CONFIG) for name in ("short", "full"))
        assert (short.identity()["epochs"], full.identity()["epochs"]) == (1, 2)
        candidate = SPACE.largest()
        assert full.evaluate(candidate, 0).n_images == 2 * short.evaluate(candidate, 0).n_images

    def test_proxies(self):
        for name, proxy in (("zero-cost", "nwot"), ("zero-cost:synflow", "synflow")):
            assert make(name, SPACE, CONFIG).identity()["evaluator"] == proxy

    @pytest.mark.parametrize(
        ("name", "kind", "message"),
        [
            ("shrot", UnknownNameError, "evaluator must be one of cost, full, nas_bench_201"),
            ("none:3", ConfigError, "evaluator 'none' must have no argument, got 'none:3'"),
            ("short:3", ConfigError, "evaluator 'short' must have no argument, got 'short:3'"),
            ("zero-cost:x", UnknownNameError, "proxy must be one of nwot, synflow, got 'x'"),
            ("surrogate", ConfigError, "'surrogate' must be surrogate:RUN_DIRECTORY"),
            ("no.such:f", ConfigError, "must name a module, got No module named 'no'"),
            (":f", ConfigError, "evaluator ':f' must name a module, got Empty module name"),
            ("mine:missing", ConfigError, "must name a function of 'mine', got 'missing'"),
            ("mine:nothing", ConfigError, "must name a function of 'mine', got 'nothing': int"),
        ],
    )
    def test_what_is_wrong_is_named(self, fewest, name, kind, message):
        with pytest.raises(kind, match=message):
            make(name, SPACE, CONFIG)

    def test_a_module_that_is_broken_says_so_itself(self, fewest):
        with pytest.raises(ModuleNotFoundError, match="surely_not_installed"):
            make("broken:f", SPACE, CONFIG)


class TestOwn:
    def test_gives_a_number_or_more(self, fewest):
        candidate = SPACE.largest()
        evaluator = make(fewest, SPACE, CONFIG)
        assert evaluator.evaluate(candidate, 0).score < -1000
        assert evaluator.identity()["evaluator"] == fewest
        own = make("test_evaluators:tens", SPACE, CONFIG).evaluate(candidate, 1)
        assert (own.score, own.violation) == (11.0, candidate.choices[-1])
        with pytest.raises(ConfigError, match="must give a number or an Evaluation, got 'good'"):
            make("mine:wrong", SPACE, CONFIG).evaluate(candidate, 0)

    def test_searches_by_it_and_trains_the_result(self, fewest, tmp_path, capsys):
        words = f"search --size 1KB --trials 8 --evaluator {fewest} --epochs 1 --final-epochs 1"
        with pytest.raises(SystemExit) as exit_:
            main([*words.split(), "--out", str(tmp_path / "own"), "--json", "--no-plot"])
        assert exit_.value.code == 0
        found = json.loads(capsys.readouterr().out)
        assert found["best"]["score"] == -found["best"]["costs"]["macs"]
        assert 0 < found["test"]["accuracy"] <= 1


class TestSurrogate:
    def test_predicts_and_says_how_well(self, finished):
        evaluator, planted = make(f"surrogate:{finished}", SPACE, CONFIG), Planted(SPACE)
        assert isinstance(evaluator, SurrogateEvaluator)
        assert evaluator.n_trials == 60
        rng = np.random.default_rng(9)
        others = [SPACE.sample_feasible(rng, LIMIT) for _ in range(40)]
        found = [evaluator.evaluate(other, 0) for other in others]
        true = [planted.noiseless(other) for other in others]
        unseen = np.corrcoef([each.score for each in found], true)[0, 1]
        # unseen candidates are ranked about as well as cross-validation promised
        assert abs(unseen - evaluator.rank_correlation) < 0.2
        assert 0.5 < evaluator.rank_correlation == found[0].metrics["rank_correlation"] < 1
        mean_error = np.abs(np.array([each.score for each in found]) - true).mean()
        assert 0.5 < evaluator.mean_error / mean_error < 2
        assert f"rank correlation {evaluator.rank_correlation:.2f}" in evaluator.summary()

    def test_noise_predicts_nothing_and_says_so(self, tmp_path):
        class Noise(Planted):
            def evaluate(self, candidate, seed):
                return Evaluation(float(np.random.default_rng(seed).normal()))

        study = Study(SPACE, "random", LIMIT, Budget(trials=60), 0)
        run_study(study, tmp_path, Noise(SPACE))
        assert make(f"surrogate:{tmp_path}", SPACE, CONFIG).rank_correlation < 0.3

    def test_identity_is_that_of_the_trials(self, finished):
        study = Study(SPACE, "random", LIMIT, Budget(trials=61), 0)
        first, again = (make(f"surrogate:{finished}", SPACE, CONFIG) for _ in range(2))
        assert first.identity() == again.identity()
        run_study(study, finished, Planted(SPACE))
        more = make(f"surrogate:{finished}", SPACE, CONFIG)
        assert more.identity() != first.identity()

    def test_refuses_too_little_or_another_space(self, finished, tmp_path):
        study = Study(SPACE, "random", LIMIT, Budget(trials=3), 0)
        run_study(study, tmp_path / "few", Planted(SPACE))
        with pytest.raises(ConfigError, match="valid trials of a surrogate must be at least 10"):
            make(f"surrogate:{tmp_path / 'few'}", SPACE, CONFIG)
        with pytest.raises(ConfigError, match="trials of a surrogate must be of space 'digits'"):
            make(f"surrogate:{finished}", digits(widths=(0.5, 1.0)), CONFIG)

    def test_the_command_prints_how_far_to_trust_it(self, finished, tmp_path, capsys):
        words = f"search --size 1KB --trials 12 --evaluator surrogate:{finished} --epochs 1"
        words += f" --final-epochs 1 --no-plot --out {tmp_path / 's'}"
        with pytest.raises(SystemExit) as exit_:
            main(words.split())
        out = capsys.readouterr().out
        assert exit_.value.code == 0
        assert "in 5-fold cross-validation" in out
        assert "score" in out.splitlines()[1] + out.splitlines()[2]
