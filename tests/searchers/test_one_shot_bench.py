# SPDX-License-Identifier: Apache-2.0
"""``benches/one_shot.py``: settings are chosen by `tune`, rows are kept, all parts go together."""

from __future__ import annotations

import importlib
import json
from pathlib import Path

import pytest
from click.testing import CliRunner

pytest.importorskip("torch", reason="needs torch to train")
pytest.importorskip("sklearn", reason="needs scikit-learn's digits")

import spaces
from searchers.evaluators import TrainConfig, training

BENCHES = Path(__file__).parents[2] / "benches"


@pytest.fixture
def bench(monkeypatch, tmp_path):
    """The script as a module: one strategy, short trainings, results in a temporary directory."""
    monkeypatch.syspath_prepend(str(BENCHES))
    module, rows = importlib.import_module("one_shot"), importlib.import_module("udc")
    strategies = {"udc": ("udc", {"epochs": 1}, "penalty_weight", (0.3, 1.0))}
    short = training(spaces.get("digits"), TrainConfig(1, 1))
    monkeypatch.setattr(rows, "RESULTS", tmp_path)
    monkeypatch.setattr(module, "STRATEGIES", strategies)
    monkeypatch.setattr(module, "SIZES", ("1.5KB",))
    monkeypatch.setattr(module, "N_RANKED", 4)
    monkeypatch.setattr(module, "evaluator", lambda: short)
    return module


def call(bench, *arguments: str) -> str:
    """What a command prints."""
    result = CliRunner().invoke(bench.main, arguments, catch_exceptions=False)
    assert result.exit_code == 0
    assert float("5e-324") * 1.0 > 0  # denormal numbers are as they were
    return result.output


def kept(directory: Path, name: str) -> list[dict]:
    """Rows of a file of raw results."""
    lines = (directory / f"udc_{name}.jsonl").read_text().splitlines()
    return [json.loads(line) for line in lines]


def test_best_values_are_of_the_settings_that_are_compared(bench, tmp_path):
    rows = [
        {"strategy": "udc", "value": value, "accuracy": accuracy}
        for value, accuracy in ((0.3, 0.9), (0.3, 0.8), (1.0, 0.86), (1.0, 0.88), (9.0, 0.99))
    ]
    lines = "".join(json.dumps(row) + "\n" for row in rows)
    (tmp_path / "udc_baselines_tune.jsonl").write_text(lines)
    assert bench.best_values() == {"udc": 1.0}


def test_all_parts_and_no_row_twice(bench, tmp_path):
    call(bench, "tune", "--strategies", "udc")
    tuned = kept(tmp_path, "baselines_tune")
    assert [row["value"] for row in tuned] == [0.3, 1.0]
    assert [row["seed"] for row in tuned] == [100, 100]

    compare = ("compare", "--strategies", "random,udc", "--sizes", "1.5KB", "--seeds", "2")
    call(bench, *compare)
    found = kept(tmp_path, "baselines")
    assert [(row["seed"], row["strategy"]) for row in found] == [
        *((seed, name) for seed in range(2) for name in ("random", "udc"))
    ]
    for row in found:
        assert row["ratio"] <= 1
        assert row["value"] == (None if row["strategy"] == "random" else bench.best_values()["udc"])
    call(bench, *compare)
    assert kept(tmp_path, "baselines") == found

    printed = call(bench, "summary")
    assert "0.8KB" not in printed
    assert printed.count("validation") == 2


def test_ranks_are_of_the_same_candidates_twice(bench, tmp_path):
    row = bench.ranked("1.5KB", 0)
    assert len(row["shared"]) == len(row["alone"]) == len(row["sizes"]) == 4
    assert all(-1 <= row[what] <= 1 for what in ("tau", "tau_size"))
    assert row["alone"] == bench.ranked("1.5KB", 0)["alone"]


def test_the_contest_with_random_search_trains_on_as_many_images_as_it_says(monkeypatch):
    monkeypatch.syspath_prepend(str(BENCHES))
    contest_bench = importlib.import_module("udc_against_random")
    contest = contest_bench.CONTESTS["digits"]
    candidate = contest.space.largest()
    found = contest_bench.validated(contest, candidate, seed=0, n_images=4096)
    assert found["images"] == 4096
    assert found["choices"] == list(candidate.choices)
    assert found["accuracy"] > 0.5
    fewer = contest_bench.validated(contest, candidate, seed=0, n_images=64)
    assert fewer["accuracy"] < found["accuracy"]
