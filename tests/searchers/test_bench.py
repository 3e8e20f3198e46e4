# SPDX-License-Identifier: Apache-2.0
"""Benchmarks: same numbers however they are run; statistics; tables, plots and files."""

from __future__ import annotations

import csv
import io
import json
import signal
import subprocess
import sys
from concurrent.futures.process import BrokenProcessPool
from functools import partial
from pathlib import Path

import pytest
from planted import Hopeless, Killed, Planted
from rich.console import Console

from npusim.errors import ConfigError, InfeasibleError, MissingExtraError, UnknownNameError
from searchers import report
from searchers.base import Budget
from searchers.bench import (
    REFERENCE,
    Benchmark,
    deaf_children,
    run_benchmark,
    summarise,
)
from searchers.study import Study, run_study
from spaces.digits import digits
from spaces.limits import Limit

SPACE = digits()
LIMITS = (Limit.size("1KB"), Limit.size("2KB"))


def benchmark(**changes) -> Benchmark:
    fields = {
        "space": SPACE,
        "searchers": ("random", "evolution"),
        "limits": LIMITS,
        "n_seeds": 3,
        "trials": 6,
        **changes,
    }
    return Benchmark(**fields)


def run(directory: Path, make=Planted, workers: int = 1, **changes) -> dict:
    return run_benchmark(benchmark(**changes), directory, make, workers)


def without_times(results: dict) -> dict:
    def strip(value):
        if isinstance(value, dict):
            return {k: strip(v) for k, v in value.items() if not k.endswith("_s")}
        return [strip(v) for v in value] if isinstance(value, list) else value

    return strip(results)


@pytest.fixture(scope="module")
def results(tmp_path_factory) -> dict:
    return run(tmp_path_factory.mktemp("bench"))


def test_every_strategy_gets_every_limit_and_seed(results):
    found = [(c["searcher"], c["limit"]["most"], c["seed"]) for c in results["cells"]]
    assert len(found) == len(set(found)) == 3 * 2 * 3
    for cell in results["cells"]:
        assert cell["n_trials"] == (1 if cell["searcher"] == REFERENCE else 6)
        assert cell["best"]["costs"]["size_bits"] <= cell["limit"]["most"]


def test_a_cell_is_the_study_of_that_seed(results, tmp_path):
    study = Study(SPACE, "evolution", LIMITS[1], Budget(trials=6), 2)
    alone = run_study(study, tmp_path, Planted(SPACE))
    (cell,) = (
        c
        for c in results["cells"]
        if (c["searcher"], c["limit"]["most"], c["seed"]) == ("evolution", LIMITS[1].most, 2)
    )
    assert without_times(alone.to_json()) == without_times(cell)


def test_workers_do_not_change_the_numbers(results, tmp_path):
    assert without_times(run(tmp_path, workers=2)) == without_times(results)


def test_strategies_may_have_options(tmp_path):
    labels = ("evolution", "evolution:population=3:tournament=2")
    found = run(tmp_path, searchers=labels, n_seeds=1)
    options = {cell["searcher"]: cell["options"] for cell in found["cells"]}
    assert options[labels[0]]["population"] is None
    assert (options[labels[1]]["population"], options[labels[1]]["tournament"]) == (3, 2)
    assert {row["searcher"] for row in found["summary"]} >= {*labels}


def test_more_seeds_extend_what_is_there(results, tmp_path):
    run(tmp_path, n_seeds=1)
    assert without_times(run(tmp_path)) == without_times(results)


def test_a_killed_worker_is_reported_and_the_rest_is_kept(results, tmp_path):
    marker = tmp_path / "kill"
    marker.touch()
    make = partial(Killed, marker=marker)
    with pytest.raises(BrokenProcessPool):
        run(tmp_path / "bench", make, workers=2)
    assert not marker.exists()
    stored = list((tmp_path / "bench").glob("*/trials.sqlite"))
    assert stored
    again = run(tmp_path / "bench", make, workers=2)
    assert without_times(again) == without_times(results)


def test_workers_start_deaf_to_interrupts_and_none_is_lost():
    blocked = "import signal; print(signal.SIGINT in signal.pthread_sigmask(signal.SIG_BLOCK, []))"
    seen = []

    def start() -> None:
        with deaf_children():
            signal.raise_signal(signal.SIGINT)
            seen.append(subprocess.check_output([sys.executable, "-c", blocked], text=True))

    with pytest.raises(KeyboardInterrupt):
        start()
    assert seen == ["True\n"]


def test_progress_counts_trials_and_results(tmp_path):
    seen: list[tuple[int, int]] = []
    run_benchmark(
        benchmark(n_seeds=1, trials=2, limits=LIMITS[:1]),
        tmp_path,
        Planted,
        1,
        lambda n_trials, n_tested: seen.append((n_trials, n_tested)),
    )
    assert seen == sorted(seen)
    assert seen[-1] == (2 + 2 + 1, 3)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"searchers": ()}, "searchers must be one or more, each once, got none"),
        ({"searchers": ("random", "random")}, "each once, got random, random"),
        ({"limits": (LIMITS[0], LIMITS[0])}, "limits must be one or more, each once"),
        ({"limits": (LIMITS[0], Limit("macs", 10**6))}, "must be of one measure, got several"),
        ({"n_seeds": 0}, "seeds and trials must be at least 1, got 0 and 6"),
        ({"trials": 0}, "seeds and trials must be at least 1, got 3 and 0"),
    ],
)
def test_grids_of_nothing_are_refused(changes, message):
    with pytest.raises(ConfigError, match=message):
        benchmark(**changes)


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"workers": 0}, ConfigError, "workers must be at least 1, got 0"),
        ({"searchers": ("random", "x")}, UnknownNameError, "searcher must be one of"),
        ({"limits": (LIMITS[0], Limit("size_bits", 2))}, InfeasibleError, "at least 43"),
    ],
)
def test_what_cannot_run_writes_nothing(tmp_path, changes, error, message):
    with pytest.raises(error, match=message):
        run(tmp_path / "bench", **changes)
    assert not (tmp_path / "bench").exists()


def cell(searcher: str, seed: int, accuracy: float | None, most: int = 100) -> dict:
    test = None if accuracy is None else {"accuracy": accuracy}
    return {
        "searcher": searcher,
        "seed": seed,
        "limit": {"measure": "size_bits", "most": most},
        "best": {"costs": {"size_bits": 80}},
        "test": test,
    }


def test_summary_pairs_by_seed_and_compares_with_the_reference():
    accuracies = {"a": (0.8, 0.9), "b": (0.9, 1.0), REFERENCE: (0.4, 0.6)}
    cells = [cell(name, i, v) for name, pair in accuracies.items() for i, v in enumerate(pair)]
    first, second, reference = summarise(cells)
    assert first["gain"] is None
    assert first["accuracy"]["mean"] == pytest.approx(0.85)
    assert first["accuracy"]["low"] == pytest.approx(0.8)
    assert second["gain"]["low"] == pytest.approx(0.1)  # both seeds gain the same
    assert second["gain"]["high"] == pytest.approx(0.1)
    assert second["relative_improvement"] == pytest.approx(90.0)
    assert reference["relative_improvement"] == pytest.approx(0.0)
    assert second["limit_used"] == pytest.approx(0.8)
    assert [row["n"] for row in (first, second, reference)] == [2, 2, 2]


def test_studies_without_a_result_are_left_out():
    cells = [cell("a", 0, 0.5), cell("a", 1, None), cell("b", 1, 0.7)]
    first, second = summarise(cells)
    assert (first["n"], second["n"]) == (1, 1)
    assert second["gain"] is None  # no seed in common
    assert second["relative_improvement"] is None  # no reference


def text_of(table) -> str:
    console = Console(width=140, file=io.StringIO())
    console.print(table)
    return console.file.getvalue()


def test_bench_table_has_a_row_for_each_limit_and_strategy(results):
    text = text_of(report.bench_table(results))
    assert text.count("evolution") == text.count(REFERENCE) == 2
    row = results["summary"][0]
    assert f"{100 * row['accuracy']['mean']:.1f} [{100 * row['accuracy']['low']:.1f}," in text
    assert "1.00 KB" in text


def test_bench_csv_has_a_row_for_each_study(results, tmp_path):
    report.write_bench_csv(results, tmp_path / "x.csv")
    with (tmp_path / "x.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == len(results["cells"])
    for row, found in zip(rows, results["cells"], strict=True):
        assert float(row["test_accuracy"]) == found["test"]["accuracy"]
        assert int(row["cost"]) == found["best"]["costs"]["size_bits"]
    assert json.dumps(results)  # and all of it is JSON


def size_of_png(path: Path) -> tuple[int, int]:
    data = path.read_bytes()
    assert data[:8] == b"\x89PNG\r\n\x1a\n"
    return int.from_bytes(data[16:20]), int.from_bytes(data[20:24])


def test_plots_are_pictures(results, tmp_path):
    pytest.importorskip("matplotlib", reason="needs matplotlib to plot")
    report.plot_bench(results, tmp_path / "bench.png")
    wide, _ = size_of_png(tmp_path / "bench.png")
    study = Study(SPACE, "random", LIMITS[0], Budget(trials=3), 0)
    found = run_study(study, tmp_path / "run", Planted(SPACE))
    report.plot_study(found, tmp_path / "study.png")
    narrow, _ = size_of_png(tmp_path / "study.png")
    assert wide == 2 * narrow  # a panel for each limit


def test_results_without_any_valid_trial_can_be_reported(tmp_path):
    found = run(tmp_path / "bench", Hopeless, n_seeds=1)
    assert found["summary"] == []
    assert {cell["test"] for cell in found["cells"]} == {None}
    assert report.bench_table(found).row_count == 0
    report.write_bench_csv(found, tmp_path / "x.csv")
    pytest.importorskip("matplotlib", reason="needs matplotlib to plot")
    report.plot_bench(found, tmp_path / "bench.png")
    study = Study(SPACE, "random", LIMITS[0], Budget(trials=3), 0)
    nothing = run_study(study, tmp_path / "run", Hopeless(SPACE))
    report.plot_study(nothing, tmp_path / "study.png")
    assert report.study_table(nothing).row_count == 0


def test_study_table_has_the_best_first_with_its_test(tmp_path):
    study = Study(SPACE, "random", LIMITS[0], Budget(trials=9), 0)
    found = run_study(study, tmp_path / "run", Planted(SPACE))
    table = report.study_table(found)
    cells = [list(column.cells) for column in table.columns]
    scores = sorted((trial.score for trial in found.history), reverse=True)[:5]
    assert cells[0][0] == str(found.best.index)
    assert cells[1] == [f"{100 * score:.2f}" for score in scores]
    assert cells[2] == [f"{100 * found.test.score:.2f}", "", "", "", ""]
    assert cells[1][4] in text_of(table)


def test_plots_without_matplotlib_name_the_extra(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "matplotlib", None)
    with pytest.raises(MissingExtraError, match=r"a plot must have the extra \[plot\] installed"):
        report.require_plots()
