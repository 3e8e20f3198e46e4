# SPDX-License-Identifier: Apache-2.0
"""Benchmarks: same numbers however they are run, what they cost, fronts, tables, parts."""

from __future__ import annotations

import csv
import io
import json
import shutil
import signal
import subprocess
import sys
from concurrent.futures.process import BrokenProcessPool
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from planted import Hopeless, Killed, Planted
from rich.console import Console

from npusim.errors import ConfigError, InfeasibleError, MissingExtraError, UnknownNameError
from searchers import report
from searchers.base import Budget
from searchers.bench import tables
from searchers.bench.curves import N_POINTS, curves
from searchers.bench.fronts import reference_point, shares
from searchers.bench.merge import merge, without_times
from searchers.bench.protocol import REFERENCE, Entrant, Protocol, Task, Tuning
from searchers.bench.protocol_files import protocol_of
from searchers.bench.results import verdict
from searchers.bench.run import CELLS, cell_line, finished, run_benchmark
from searchers.stats import bootstrap_mean
from searchers.store import locked
from searchers.study import Study, run_study
from searchers.tabular import PlantedEvaluator
from searchers.workers import deaf_children
from spaces.digits import digits
from spaces.limits import Limit

pytest.importorskip("tomli_w", reason="needs tomli-w: pip install 'npusim[bench]'")

SPACE = digits()
LIMITS = (Limit.size("1KB"), Limit.size("2KB"))


def protocol(make=Planted, limits=LIMITS, names=("random", "evolution"), **changes) -> Protocol:
    fields = {
        "tasks": (Task("digits", SPACE, limits, make),),
        "entrants": tuple(Entrant(name, name) for name in names),
        "seeds": (0, 1, 2),
        "budget": Budget(trials=6),
        **changes,
    }
    return Protocol(**fields)


def run(directory: Path, workers: int = 1, part=(1, 1), **changes) -> dict:
    return run_benchmark(protocol(**changes), directory, workers, part=part)


def instant(**changes) -> Protocol:
    """A protocol as a file says it, of which a study takes a hundredth of a second."""
    task = {"space": "digits", "limits": ["0.5KB", "1KB"], "evaluator": "planted:1:0.1"}
    searchers = [{"searcher": name} for name in ("random", "evolution", "local")]
    said = {"seeds": 4, "budget": {"trials": 9}, "tasks": [task], "searchers": searchers}
    return protocol_of(said | changes)


@pytest.fixture(scope="module")
def results(tmp_path_factory) -> dict:
    return run(tmp_path_factory.mktemp("bench"))


class TestStudies:
    def test_every_strategy_gets_every_limit_and_seed(self, results):
        found = [(c["searcher"], c["limit"]["most"], c["seed"]) for c in results["cells"]]
        assert len(found) == len(set(found)) == 3 * 2 * 3
        for cell in results["cells"]:
            assert cell["n_trials"] == (1 if cell["searcher"] == REFERENCE else 6)
            assert cell["best"]["costs"]["size_bits"] <= cell["limit"]["most"]

    def test_one_is_the_search_of_that_seed(self, results, tmp_path):
        study = Study(SPACE, "evolution", LIMITS[1], Budget(trials=6), 2)
        alone = without_times(run_study(study, tmp_path, Planted(SPACE)).to_json())
        (cell,) = (
            c
            for c in results["cells"]
            if (c["searcher"], c["limit"]["most"], c["seed"]) == ("evolution", LIMITS[1].most, 2)
        )
        assert {name: without_times(cell)[name] for name in alone} == alone

    def test_names_may_be_one_s_own(self, tmp_path):
        entrants = (
            Entrant("big", "evolution"),
            Entrant("small", "evolution", {"population": 3, "tournament": 2}),
        )
        found = run(tmp_path, entrants=entrants, seeds=(7,))
        options = {cell["searcher"]: cell["options"] for cell in found["cells"]}
        assert options["big"]["population"] is None
        assert (options["small"]["population"], options["small"]["tournament"]) == (3, 2)
        assert {cell["seed"] for cell in found["cells"]} == {7}

    def test_an_instant_evaluator_keeps_no_trials(self, tmp_path):
        found = run_benchmark(instant(), tmp_path, 1)
        assert sorted(path.name for path in tmp_path.iterdir()) == [CELLS, "protocol.toml"]
        again = run_benchmark(instant(), tmp_path, 1)
        assert again == found  # times too: nothing was run
        (tmp_path / CELLS).unlink()
        assert without_times(run_benchmark(instant(), tmp_path, 1)) == without_times(found)


class TestHowItIsRun:
    def test_workers_do_not_change_the_numbers(self, results, tmp_path):
        assert without_times(run(tmp_path, workers=2)) == without_times(results)

    def test_more_seeds_and_searchers_extend_what_is_there(self, results, tmp_path):
        first = run(tmp_path, seeds=(0,), names=("random",))
        found = run(tmp_path)
        assert without_times(found) == without_times(results)
        old = {cell["directory"]: cell["cpu_s"] for cell in first["cells"]}
        assert len(old) == 4
        assert all(c["cpu_s"] == old.get(c["directory"], c["cpu_s"]) for c in found["cells"])

    def test_another_budget_goes_on_with_the_trials_that_are_there(self, results, tmp_path):
        short = run(tmp_path, budget=Budget(trials=3))
        assert {c["n_trials"] for c in short["cells"]} == {1, 3}
        assert without_times(run(tmp_path)) == without_times(results)

    def test_a_killed_worker_is_reported_and_the_rest_is_kept(self, results, tmp_path):
        marker = tmp_path / "kill"
        marker.touch()
        killed = protocol(partial(Killed, marker=marker))
        with pytest.raises(BrokenProcessPool):
            run_benchmark(killed, tmp_path / "bench", 2)
        assert not marker.exists()
        assert list((tmp_path / "bench").glob("*/trials.sqlite"))
        again = run_benchmark(killed, tmp_path / "bench", 2)
        assert without_times(again) == without_times(results)

    def test_a_line_that_was_cut_short_is_run_again(self, tmp_path):
        found = run_benchmark(instant(), tmp_path, 1)
        lines = (tmp_path / CELLS).read_bytes()
        (tmp_path / CELLS).write_bytes(b"\xff\xfe\n5\n" + lines[:-40])
        again = run_benchmark(instant(), tmp_path, 1)
        assert without_times(again) == without_times(found)
        assert again["cells"][:-1] == found["cells"][:-1]
        assert run_benchmark(instant(), tmp_path, 1) == again

    def test_a_damaged_result_is_found_again(self, tmp_path):
        found = run_benchmark(instant(), tmp_path, 1)
        text = (tmp_path / CELLS).read_text()
        (tmp_path / CELLS).write_text(text.replace('"n_trials": ', '"n_trials": 9', 1))
        assert (tmp_path / CELLS).read_text() != text
        again = run_benchmark(instant(), tmp_path, 1)
        assert without_times(again) == without_times(found)

    def test_only_one_process_at_a_time(self, tmp_path):
        with locked(tmp_path), pytest.raises(ConfigError, match="must not be in use by another"):
            run(tmp_path)

    def test_workers_start_deaf_to_interrupts_and_none_is_lost(self):
        blocked = (
            "import signal; print(signal.SIGINT in signal.pthread_sigmask(signal.SIG_BLOCK, []))"
        )
        seen = []

        def start() -> None:
            with deaf_children():
                signal.raise_signal(signal.SIGINT)
                seen.append(subprocess.check_output([sys.executable, "-c", blocked], text=True))

        with pytest.raises(KeyboardInterrupt):
            start()
        assert seen == ["True\n"]

    def test_progress_is_a_fraction(self, tmp_path, monkeypatch):
        monkeypatch.setattr("searchers.bench.run.POLL_S", 0.0)
        seen: list[float] = []
        run_benchmark(protocol(seeds=(0,)), tmp_path, 1, on_progress=seen.append)
        assert seen == sorted(seen)
        assert seen[-1] == 1
        assert len(set(seen)) >= 2 * (6 + 6)

    @pytest.mark.parametrize(
        ("changes", "message"),
        [
            ({"entrants": ()}, "names of searchers must be one or more, each once, got none"),
            ({"names": ("random", "random")}, "each once, got random, random"),
            ({"limits": (LIMITS[0], LIMITS[0])}, "limits of task 'digits' must be one or more"),
            ({"seeds": ()}, "seeds must be one or more, each once, got none"),
            ({"seeds": (1, -1)}, "seeds must be at least 0, got -1"),
            ({"entrants": (Entrant(REFERENCE, "random"),)}, "must not be that of the reference"),
            (
                {"entrants": (Entrant("a b", "random"), Entrant("a?b", "local"))},
                "names of run directories must be one or more, each once",
            ),
        ],
    )
    def test_grids_of_nothing_are_refused(self, changes, message):
        with pytest.raises(ConfigError, match=message):
            protocol(**changes)

    @pytest.mark.parametrize(
        ("changes", "error", "message"),
        [
            ({"workers": 0}, ConfigError, "workers must be at least 1, got 0"),
            ({"part": (3, 2)}, ConfigError, r"part must be K/N with K in 1..N, got 3/2"),
            ({"names": ("random", "x")}, UnknownNameError, "searcher must be one of"),
            ({"limits": (*LIMITS, Limit("size_bits", 2))}, InfeasibleError, "at least 43"),
            ({"names": ("udc",)}, ConfigError, "'udc' must have an evaluator with data to train"),
            (
                {"make": PlantedEvaluator, "budget": Budget(images=9)},
                ConfigError,
                "budget of task 'digits' must be in trials or seconds, .* got 9 images",
            ),
        ],
    )
    def test_what_cannot_run_writes_nothing(self, tmp_path, changes, error, message):
        with pytest.raises(error, match=message):
            run(tmp_path / "bench", **changes)
        assert not (tmp_path / "bench").exists()


class TestBudgets:
    def test_in_images(self, tmp_path):
        found = run(tmp_path, budget=Budget(images=350), seeds=(0,))  # Planted says 100 a trial
        searches = [c for c in found["cells"] if c["searcher"] != REFERENCE]
        assert {(c["n_trials"], c["n_images"]) for c in searches} == {(4, 400)}

    def test_in_seconds_are_said_not_to_repeat(self, results, tmp_path):
        found = run(tmp_path, budget=Budget(trials=3, seconds=100), seeds=(0,))
        assert any("in seconds depends on the machine" in note for note in found["notes"])
        assert not any("in seconds" in note for note in results["notes"])

    def test_of_a_task_are_its_own(self):
        one = Task("a", SPACE, LIMITS, Planted, Budget(trials=2))
        cells = protocol(tasks=(one, replace(one, name="b", budget=None))).cells()
        budgets = {(c.problem.task.name, c.study.budget.trials) for c in cells}
        assert budgets == {("a", 1), ("b", 1), ("a", 2), ("b", 6)}

    def test_everything_spent_is_told(self, tmp_path):
        tuning = Tuning(trials=5, images=70, wall_s=3.0, cpu_s=2.5)
        entrants = (Entrant("random", "random"), Entrant("evolution", "evolution", {}, tuning))
        found = run(tmp_path, entrants=entrants)
        random, evolution = found["costs"]
        assert random["trials"] == evolution["trials"] == 2 * 3 * 6
        assert random["images"] == random["total_images"] == 3600
        assert evolution["total_images"] == 3670
        own = [cell for cell in found["cells"] if cell["searcher"] == "evolution"]
        spent = sum(cell["cpu_s"] + cell["search_cpu_s"] for cell in own)
        assert evolution["total_cpu_s"] == pytest.approx(spent + 2.5)
        assert min(cell["search_wall_s"] for cell in own) > 0
        with pytest.raises(ConfigError, match="images of tuning must be at least 0, got -1"):
            Tuning(images=-1)


class TestCurves:
    def test_are_the_best_so_far_and_what_it_took(self, results, tmp_path):
        study = Study(SPACE, "evolution", LIMITS[0], Budget(trials=30), 0)
        found = run_study(study, tmp_path, Planted(SPACE))
        curve, trials = found.curve(), list(found.history)
        best = found.history.best_scores()
        for i, n in enumerate(curve["trials"]):
            assert curve["score"][i] == best[n - 1] == trials[curve["trial"][i]].score
            assert curve["images"][i] == 100 * n
            spent = sum(t.wall_s + t.search_wall_s for t in trials[:n])
            assert curve["wall_s"][i] == pytest.approx(spent)
        assert curve["trials"][-1] == 30
        assert len(set(curve["score"])) >= len(curve["score"]) - 1

    def test_bands_are_those_of_the_seeds(self, results):
        rows = curves(results, "trials")
        cells = [c for c in results["cells"] if c["limit"]["most"] == LIMITS[0].most]
        last = [r for r in rows if (r["problem"], r["searcher"]) == ("digits, 1.00 KB", "random")]
        scores = [c["best"]["score"] for c in cells if c["searcher"] == "random"]
        assert (last[-1]["spent"], last[-1]["mean"]) == (6, pytest.approx(np.mean(scores)))
        assert last[-1]["low"] == bootstrap_mean(scores).low
        assert {row["searcher"] for row in rows} == {"random", "evolution"}
        for axis in ("images", "wall_s"):
            ends = [r for r in curves(results, axis) if r["problem"] == "digits, 1.00 KB"]
            assert all(row["low"] <= row["mean"] <= row["high"] for row in ends)
        assert {row["spent"] for row in curves(results, "images")} <= {100.0 * i for i in range(7)}

    def test_have_few_points_and_the_score_without_noise(self, tmp_path):
        one = instant(budget={"trials": 300}, seeds=9)
        found = run_benchmark(one, tmp_path, 1)
        rows = [r for r in curves(found, "trials") if r["searcher"] == "local"]
        assert 10 < len(rows) <= 2 * N_POINTS
        evaluator = one.tasks[0].make_evaluator(SPACE)
        cells = [c for c in found["cells"] if c["searcher"] == "local"]
        ends = [evaluator.expected(SPACE.candidate(c["best"]["choices"])) for c in cells]
        assert rows[-1]["mean"] == pytest.approx(np.mean(ends[-1::-2]))
        assert curves(found, "images") == []  # it trains on none


class TestFronts:
    def test_of_all_searches_are_told_with_their_reference_point(self, results):
        problem = results["problems"][0]
        cells = [
            c
            for c in results["cells"]
            if c["limit"] == problem["limit"] and c["searcher"] != REFERENCE
        ]
        found = [c["fronts"]["size_bits"] for c in cells]
        cost, score = reference_point(found)
        assert problem["references"] == {"size_bits": {"cost": cost, "score": score}}
        means = {
            name: np.mean(
                [s for s, c in zip(shares(found), cells, strict=True) if c["searcher"] == name]
            )
            for name in ("random", "evolution")
        }
        for row in problem["rows"][:2]:
            assert row["hypervolume"]["size_bits"]["mean"] == pytest.approx(means[row["searcher"]])


class TestParts:
    def test_are_all_of_it_and_nothing_twice(self):
        whole = protocol(seeds=tuple(range(5)), names=("random", "evolution", "local"))
        parts = [whole.cells(k, 3) for k in (1, 2, 3)]
        directories = [cell.directory for part in parts for cell in part]
        assert sorted(directories) == sorted(cell.directory for cell in whole.cells())
        for part in parts:  # each strategy about as often in each
            counts = [sum(c.name == e.name for c in part) for e in whole.entrants]
            assert max(counts) - min(counts) <= 2
            keys = {(c.name, c.study.seed) for c in part}
            assert len(part) == 2 * len(keys)  # with all problems of a strategy and seed

    def test_merged_are_one_run(self, tmp_path):
        whole = run_benchmark(instant(), tmp_path / "whole", 1)
        for k in (1, 2, 3):
            part = run_benchmark(instant(), tmp_path / str(k), 1, part=(k, 3))
            assert f"Part {k} of 3" in part["notes"][0]
        merged = merge([tmp_path / str(k) for k in (1, 2, 3)], tmp_path / "all")
        assert without_times(merged) == without_times(whole)
        assert run_benchmark(instant(), tmp_path / "all", 1) == merged

    def test_that_are_missing_are_told_and_can_be_run(self, tmp_path):
        run_benchmark(instant(), tmp_path / "1", 1, part=(1, 2))
        merged = merge([tmp_path / "1"], tmp_path / "all")
        assert "16 of 32 searches are missing" in merged["notes"][0]
        found = run_benchmark(instant(), tmp_path / "all", 1)
        assert len(found["cells"]) == 32

    def test_that_train_bring_their_runs(self, tmp_path):
        pytest.importorskip("sklearn", reason="needs scikit-learn")
        pytest.importorskip("torch", reason="needs torch")
        task = {"space": "digits", "limits": ["0.2KB"], "evaluator": "short"}
        task |= {"epochs": 1, "final_epochs": 1}
        one = instant(
            tasks=[task], seeds=1, budget={"trials": 1}, searchers=[{"searcher": "random"}]
        )
        run_benchmark(one, tmp_path / "1", 1, part=(1, 2))
        run_benchmark(one, tmp_path / "2", 1, part=(2, 2))
        (tmp_path / "1" / CELLS).unlink()  # as if killed before the line was written
        merged = merge([tmp_path / "1", tmp_path / "2"], tmp_path / "all")
        assert len(merged["cells"]) == 1
        trials = [path.parent.name for path in (tmp_path / "all").glob("*/trials.sqlite")]
        assert len(trials) == 2
        assert len(run_benchmark(one, tmp_path / "all", 1)["cells"]) == 2

    def test_of_other_protocols_are_refused_by_field(self, tmp_path):
        run_benchmark(instant(), tmp_path / "1", 1, part=(1, 2))
        run_benchmark(instant(budget={"trials": 8}, seeds=3), tmp_path / "2", 1, part=(2, 2))
        with pytest.raises(ConfigError, match=r"differ in seeds: 4 and 3; budget.trials: 9 and 8$"):
            merge([tmp_path / "1", tmp_path / "2"], tmp_path / "all")
        assert not (tmp_path / "all").exists()
        with pytest.raises(ConfigError, match="part must be the directory of a benchmark, with a"):
            merge([tmp_path], tmp_path / "all")
        with pytest.raises(ConfigError, match="--out must not exist before parts are merged"):
            merge([tmp_path / "1"], tmp_path / "2")

    def test_with_other_results_are_refused(self, tmp_path):
        run_benchmark(instant(), tmp_path / "1", 1)
        shutil.copytree(tmp_path / "1", tmp_path / "2")
        cell, *_ = instant().cells()
        (found,) = finished(tmp_path / "2", instant(), [cell]).values()
        other = cell_line(instant(), cell, {**found, "n_trials": found["n_trials"] - 1})
        (tmp_path / "2" / CELLS).write_text(other)
        with pytest.raises(ConfigError, match=r"^study '.*' must have one result, got another one"):
            merge([tmp_path / "1", tmp_path / "2"], tmp_path / "all")


def text_of(table) -> str:
    console = Console(width=200, file=io.StringIO())
    console.print(table)
    return console.file.getvalue()


class TestTables:
    def test_have_a_row_for_each_problem_and_strategy(self, results):
        text = text_of(tables.results_table(results))
        assert text.count("evolution") == text.count(REFERENCE) == 2
        row = results["problems"][0]["rows"][0]
        assert f"{100 * row['test']['mean']:.2f} % [{100 * row['test']['low']:.2f}," in text
        assert "digits, 1.00 KB" in text
        assert "tabular" not in text
        costs = text_of(tables.costs_table(results))
        assert costs.count("3,600") == 4  # images of two strategies, and their totals

    def test_csv_has_a_row_for_each_study(self, results, tmp_path):
        tables.write_csv(results, tmp_path / "x.csv")
        with (tmp_path / "x.csv").open() as file:
            rows = list(csv.DictReader(file))
        assert len(rows) == len(results["cells"])
        for row, found in zip(rows, results["cells"], strict=True):
            assert float(row["test_score"]) == found["test"]["accuracy"]
            assert int(row["cost"]) == found["best"]["costs"]["size_bits"]
        assert json.dumps(results, allow_nan=False)  # and all of it is JSON

    def test_results_without_any_valid_trial(self, tmp_path):
        found = run(tmp_path / "bench", make=Hopeless, seeds=(0,))
        assert {cell["test"] for cell in found["cells"]} == {None}
        assert [problem["rows"] for problem in found["problems"]] == [[], []]
        assert "6 of 6 searches found nothing valid" in found["notes"][0]
        assert "too few strategies or seeds to compare" in found["notes"][1]
        assert text_of(tables.results_table(found)).count("digits") == 0
        tables.write_csv(found, tmp_path / "x.csv")
        pytest.importorskip("matplotlib", reason="needs matplotlib to plot")
        from searchers.bench.plots import plot_curves

        plot_curves(found, tmp_path / "bench.png")
        assert size_of_png(tmp_path / "bench.png")[0] > 100


def size_of_png(path: Path) -> tuple[int, int]:
    data = path.read_bytes()
    assert data[:8] == b"\x89PNG\r\n\x1a\n"
    return int.from_bytes(data[16:20]), int.from_bytes(data[20:24])


class TestPlots:
    def test_have_a_row_for_each_problem_and_a_column_for_each_axis(self, results, tmp_path):
        pytest.importorskip("matplotlib", reason="needs matplotlib to plot")
        from searchers.bench.plots import plot_curves

        plot_curves(results, tmp_path / "bench.png")
        wide, high = size_of_png(tmp_path / "bench.png")
        assert (wide, high) == (round(3 * 6.4 * 90), round(2 * 4.8 * 90))

    def test_of_a_search(self, tmp_path):
        pytest.importorskip("matplotlib", reason="needs matplotlib to plot")
        study = Study(SPACE, "random", LIMITS[0], Budget(trials=3), 0)
        found = run_study(study, tmp_path / "run", Hopeless(SPACE))
        report.plot_study(found, tmp_path / "study.png")
        assert size_of_png(tmp_path / "study.png") == (round(6.4 * 120), round(4.8 * 120))
        assert report.study_table(found).row_count == 0

    def test_without_matplotlib_name_the_extra(self, monkeypatch):
        monkeypatch.setitem(sys.modules, "matplotlib", None)
        with pytest.raises(MissingExtraError, match=r"a plot must have the extra \[plot\]"):
            report.require_plots()


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


class TestVerdict:
    def problem(self, better_than, least=0.02):
        rows = [
            {"searcher": "a", "test": {"mean": 0.9, "low": 0.8, "high": 0.95}},
            {"searcher": "b", "test": {"mean": 0.8, "low": 0.7, "high": 0.9}},
        ]
        tests = {
            **{"best": "a", "better_than": better_than, "mean_ranks": {"a": 1, "b": 2, "c": 3}},
            **{"least_p_holm": least, "seeds": [0, 1], "pairs": [{}]},
            "friedman": {"f": 9.0, "p": 0.001},
        }
        return {"name": "x, 1 KB", "unit": ("%", 100.0), "rows": rows, "tests": tests}

    def test_says_who_wins_and_whether_it_could_be_chance(self):
        first = (
            "x, 1 KB: a is first with 90 % [80, 95] (whether any differs: Friedman's p = 0.001), "
        )
        assert verdict(self.problem(["b"])) == first + "significantly better than b; not than c."
        assert verdict(self.problem(["b", "c"])) == first + "significantly better than all others."
        assert verdict(self.problem([])) == first + "but not significantly better than any other."
        assert "with 2 seeds and 1 pairs no difference can be significant" in verdict(
            self.problem([], least=0.5)
        )
