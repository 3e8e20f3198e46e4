# SPDX-License-Identifier: Apache-2.0
"""Sections of reports about searches and benchmarks: their numbers are those of the runs."""

from __future__ import annotations

import json

import numpy as np
import pytest
from planted import Failing, Hopeless, Planted, Sharp

import spaces
from npusim.cli import main
from npusim.errors import ConfigError, FormatError
from npusim.hardware import machine
from npusim.report.page import rows_of
from searchers.base import Budget
from searchers.bench.page import BenchReader, bench_section
from searchers.bench.protocol import REFERENCE, Entrant, Protocol, Task
from searchers.bench.run import run_benchmark
from searchers.evaluators import TrainConfig, make
from searchers.page_runs import RunReader, section_of
from searchers.store import write_json
from searchers.stored import read_run
from searchers.study import Study, run_study
from spaces.concrete import concrete_layers
from spaces.drawing import drawings
from spaces.estimate import estimate
from spaces.limits import Limit

DIGITS = spaces.get("digits")


def silent(_: float) -> None:
    """Progress that nobody follows."""


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """Two runs of the same space."""
    root = tmp_path_factory.mktemp("runs")
    for searcher, seed, evaluator in (("random", 0, Failing), ("evolution", 1, Planted)):
        study = Study(DIGITS, searcher, Limit.size("1KB"), Budget(trials=25), seed)
        run_study(study, root / searcher, evaluator(DIGITS))
    return [root / "random", root / "evolution"]


@pytest.fixture(scope="module")
def runs(folders):
    return {folder.name: read_run(folder) for folder in folders}


class TestReadRun:
    def test_is_what_was_run(self, folders, runs):
        run = runs["evolution"]
        assert (len(run.trials), run.header["seed"], str(run.limit)) == (25, 1, "1.00 KB")
        assert run.result == json.loads((folders[1] / "result.json").read_text())
        assert run.space == DIGITS

    def test_of_another_space_is_refused(self, folders, tmp_path):
        header = json.loads((folders[0] / "run.json").read_text())
        write_json(tmp_path / "run.json", header | {"space": {"name": "digits", "hash": "0"}})
        with pytest.raises(FormatError, match=r"^definition of space 'digits' must be of hash 0, "):
            read_run(tmp_path)

    def test_of_another_version_is_refused(self, folders, tmp_path):
        header = json.loads((folders[0] / "run.json").read_text())
        write_json(tmp_path / "run.json", {**header, "version": 1})
        with pytest.raises(FormatError, match=r"must be npusim.run version 2, got .*1\)$"):
            read_run(tmp_path)

    def test_without_a_limit_is_refused(self, folders, tmp_path):
        header = json.loads((folders[0] / "run.json").read_text())
        write_json(tmp_path / "run.json", {**header, "limit": {"most": 1}})
        with pytest.raises(FormatError, match=r"must have a limit, got TypeError"):
            read_run(tmp_path)


class TestRuns:
    def test_trials_are_those_of_the_runs(self, runs):
        rows = rows_of(section_of(runs).data["trials"])
        expected = {
            (name, trial.index): (100 * trial.score, trial.valid, trial.costs["size_bits"] / 8000)
            for name, run in runs.items()
            for trial in run.trials
            if trial.score is not None
        }
        found = {(r["run"], r["trial"]): (r["score %"], r["valid"], r["size KB"]) for r in rows}
        assert set(found) == set(expected)
        for key, values in expected.items():
            assert found[key] == pytest.approx(values, abs=1e-4)
        assert len(found) < 50  # some gave no score

    def test_of_very_many_the_best_and_a_part_of_the_others_are_shown(self, runs, monkeypatch):
        every = rows_of(section_of(runs).data["trials"])
        assert "Shown are" not in section_of(runs).text
        monkeypatch.setattr("searchers.page_runs.N_SHOWN", 20)
        section = section_of(runs)
        shown = rows_of(section.data["trials"])
        assert shown[:10] == every[:10]
        assert shown[-1] == every[-1]
        places = [every.index(row) for row in shown]
        assert places == sorted(set(places))
        assert len(places) == 20
        assert "Shown are the 10 best and as many of the others" in section.text

    def test_progress_ends_with_the_best(self, runs):
        rows = rows_of(section_of(runs).data["progress"])
        for name, run in runs.items():
            own = [row for row in rows if row["run"] == name]
            scores = [row["best %"] for row in own]
            best = max(trial.merit for trial in run.trials)
            assert scores == sorted(scores)
            assert (own[-1]["trials"], scores[-1]) == (25, pytest.approx(100 * best))

    def test_the_table_has_the_tests(self, runs):
        rows = {row["run"]: row for row in rows_of(section_of(runs).data["runs"])}
        test = runs["evolution"].result["test"]["accuracy"]
        assert rows["evolution"]["test %"] == pytest.approx(100 * test)
        assert rows["random"]["valid %"] < 100 == rows["evolution"]["valid %"]
        assert 0 < rows["evolution"]["limit used %"] <= 100

    def test_psnr_is_in_db(self, tmp_path):
        study = Study(DIGITS, "random", Limit.size("1KB"), Budget(trials=3), 0)
        found = run_study(study, tmp_path, Sharp(DIGITS))
        section = section_of({"sharp": read_run(tmp_path)})
        columns = {name: rows_of(data)[0] for name, data in section.data.items()}
        assert columns["runs"]["best dB"] == pytest.approx(found.best.score)
        assert columns["runs"]["test dB"] == pytest.approx(found.test.score)
        assert 30 < columns["trials"]["score dB"] < 31
        assert columns["front"]["score dB"] == columns["trials"]["score dB"]
        assert columns["progress"]["best dB"] > 30
        told = json.dumps([str(each) for each in section.parts])
        assert "validation score, dB" in told
        assert "score %" not in told

    def test_a_score_of_no_unit_has_none(self, tmp_path):
        study = Study(DIGITS, "udc", Limit.size("1KB"), Budget(trials=1), 0, {"epochs": 1})
        found = run_study(study, tmp_path, make("none", DIGITS, TrainConfig()))
        assert (found.best.score, found.test) == (0.0, None)
        assert not (tmp_path / "test.json").exists()
        rows = rows_of(section_of({"run": read_run(tmp_path)}).data["runs"])
        assert (rows[0]["best"], rows[0]["test"]) == (0.0, None)

    def test_none_beats_the_front(self, runs):
        section = section_of(runs)
        front = rows_of(section.data["front"])
        for row in rows_of(section.data["trials"]):
            better = [
                each
                for each in front
                if each["score %"] >= row["score %"] and each["size KB"] <= row["size KB"]
            ]
            assert better or not row["valid"]
        costs = {
            estimate(DIGITS, trial.candidate).total_cycles
            for run in runs.values()
            for trial in run.trials
        }
        assert {row["cycles"] for row in front} <= costs

    def test_drawings_are_of_the_trials(self, runs):
        section = section_of(runs)
        for row in rows_of(section.data["trials"])[:5]:
            trial = runs[row["run"]].trials[row["trial"]]
            drawn = section.drawings.columns(row["drawing"])
            layers = concrete_layers(DIGITS, trial.candidate)
            assert drawn["channels"] == [layer.ofm_depth for layer in layers]

    def test_a_run_without_scores(self, folders, tmp_path):
        (tmp_path / "run.json").write_bytes((folders[0] / "run.json").read_bytes())
        section = section_of({"none": read_run(tmp_path)})
        assert [part.name for part in section.parts] == ["runs"]
        assert section.data["runs"]["best"] == [None]

    def test_reader(self, folders, tmp_path):
        reader, fractions = RunReader(), []
        assert reader.reads(str(folders[0]))
        assert not reader.reads(str(tmp_path))
        (section,) = reader.sections([str(folder) for folder in folders], fractions.append)
        assert (section.name, fractions) == ("searches-digits", [1.0])
        with pytest.raises(ConfigError, match=r"^names of run directories must differ, got"):
            reader.sections([str(folders[0]), f"{folders[0]}/."], silent)

    def test_spaces_of_other_options_have_sections_of_their_own(self, folders, tmp_path):
        space = spaces.get("digits", bitwidths=[4, 8])
        study = Study(space, "random", Limit.size("1KB"), Budget(trials=2), 0)
        run_study(study, tmp_path / "other", Planted(space))
        found = RunReader().sections([str(folders[0]), str(tmp_path / "other")], silent)
        assert [section.name for section in found] == [
            "searches-digits",
            f"searches-digits-{space.content_hash}",
        ]

    @pytest.mark.parametrize(
        ("args", "npu"), [((), "ethos-u55-128"), (("--npu", "ethos-u55-32"), "ethos-u55-32")]
    )
    def test_the_command_names_the_npu(self, folders, tmp_path, args, npu):
        pytest.importorskip("vl_convert", reason="needs vl-convert: pip install 'npusim[report]'")
        page = tmp_path / "report.html"
        with pytest.raises(SystemExit) as stop:
            main(["report", str(folders[1]), *args, "--out", str(page)])
        assert stop.value.code == 0
        assert f"The front on an {npu}" in page.read_text("utf-8")


class TestDrawings:
    @pytest.mark.parametrize("name", ["digits", "cifar100", "nas_bench_201"])
    def test_are_the_concrete_layers(self, name):
        space = spaces.get(name)
        choices = space.canonical(space.sample_many(np.random.default_rng(0), 20))
        (layers, channels, bits, kept), rows = drawings(space, choices)
        for one, own in zip(choices.tolist(), rows, strict=True):
            found = concrete_layers(space, space.candidate(one))
            names = [each.layer.name for each in found]
            assert [layers["layer"][row[0]] for row in own] == names
            assert [channels["channels"][row[1]] for row in own] == [e.ofm_depth for e in found]
            for place, (row, each) in enumerate(zip(own, found, strict=True)):
                assert bits["bits"][row[2]] == (each.bitwidth if each.n_weights else None)
                if each.n_weights:
                    fraction = each.n_nonzero / each.n_weights
                    assert kept["kept_fraction"][row[3]] == pytest.approx(fraction, abs=1e-3)
                distances = sorted(place - names.index(source) for source in each.inputs)
                assert sorted(layers["skips"][row[0]]) == [d for d in distances if d > 1]


class TestBenches:
    @pytest.fixture(scope="class")
    @classmethod
    def folder(cls, tmp_path_factory):
        pytest.importorskip("tomli_w", reason="needs tomli-w: pip install 'npusim[bench]'")
        path = tmp_path_factory.mktemp("bench") / "small"
        limits = (Limit.size("0.5KB"), Limit.size("1KB"))
        names = ("random", "evolution", "local")
        protocol = Protocol(
            (Task("digits", DIGITS, limits, Planted),),
            tuple(Entrant(name, name) for name in names),
            tuple(range(9)),
            Budget(trials=6),
            "ethos-u55-64",
        )
        write_json(path / "results.json", run_benchmark(protocol, path))
        return path

    @pytest.fixture
    def results(self, folder):
        return json.loads((folder / "results.json").read_text())

    def test_table(self, results):
        rows = rows_of(bench_section("small", results).data["summary"])
        assert [row["searcher"] for row in rows] == [
            *("random", "evolution", "local"),
            REFERENCE,
        ] * 2
        found = [row for problem in results["problems"] for row in problem["rows"]]
        for row, own in zip(rows, found, strict=True):
            assert row["score"] == pytest.approx(100 * own["test"]["mean"])
            assert row["over one random %"] == own["relative_improvement"]["mean"]
            assert row["within limit %"] == 100
        assert rows[3]["mean rank"] is rows[3]["hypervolume size_bits %"] is None
        assert sum(row["mean rank"] for row in rows[:3]) == pytest.approx(6)
        for row in rows[:3]:
            assert 0 < row["hypervolume size_bits %"] <= 100
            assert 0 < row["hypervolume total_cycles %"] <= 100

    def test_ranks_and_groups_are_those_of_the_tests(self, results):
        data = bench_section("small", results).data
        ranks = {(r["problem"], r["searcher"]): r["mean rank"] for r in rows_of(data["ranks"])}
        assert len(ranks) == 9  # two problems and both together
        tests = results["problems"][0]["tests"]
        assert ranks["digits, 500.0 B", "local"] == tests["mean_ranks"]["local"]
        for row in rows_of(data["groups"]):
            for name in row["members"].split(", "):
                assert row["first"] <= ranks[row["problem"], name] <= row["last"]

    def test_pairs_are_told_in_both_directions(self, results):
        rows = rows_of(bench_section("small", results).data["pairs"])
        assert len(rows) == 2 * 2 * 3
        turned = {(r["problem"], r["other"], r["searcher"]): r for r in rows}
        for row in rows:
            other = turned[row["problem"], row["searcher"], row["other"]]
            assert row["superiority"] + other["superiority"] == pytest.approx(1)
            assert (row["low"], row["high"]) == (-other["high"], -other["low"])
            assert row["significant"] == (row["p Holm"] <= 0.05)

    def test_bands_hold_their_means(self, results):
        data = bench_section("small", results).data
        rows = rows_of(data["curves-trials"])
        assert {row["spent"] for row in rows} <= {*range(1, 7)}
        for axis in ("trials", "images", "wall_s"):
            rows = rows_of(data[f"curves-{axis}"])
            assert {row["searcher"] for row in rows} == {"random", "evolution", "local"}
            assert all(row["low"] <= row["mean"] <= row["high"] for row in rows)

    def test_none_of_a_strategy_beats_its_front(self, results):
        section = bench_section("small", results)
        for measure, unit in (("size_bits", 8000), ("total_cycles", 1)):
            rows = rows_of(section.data[f"front-{measure}"])
            for cell in results["cells"]:
                own = [
                    row
                    for row in rows
                    if row["searcher"] == cell["searcher"]
                    and row["problem"].endswith(str(Limit(**cell["limit"])))
                ]
                front = cell["fronts"][measure]
                for cost, score in zip(front["cost"], front["score"], strict=True):
                    if own:
                        assert any(
                            row["cost"] <= cost / unit and row["score"] >= 100 * score - 1e-9
                            for row in own
                        )
        titles = {part.name: part.title for part in section.parts}
        assert titles["front-total-cycles"] == "Fronts of score and cycles on ethos-u55-64"

    def test_costs_and_protocol(self, results):
        data = bench_section("small", results).data
        assert rows_of(data["costs"])[0]["images"] == 2 * 9 * 6 * 100
        said = {row["key"]: row["value"] for row in rows_of(data["protocol"])}
        assert said["searchers[1].searcher"] == "evolution"
        assert said["budget.trials"] == "6"

    def test_a_result_beyond_the_limit_is_told(self, results):
        results["problems"][0]["rows"][0]["n_within"] = 6
        row = rows_of(bench_section("small", results).data["summary"])[0]
        assert row["within limit %"] == pytest.approx(200 / 3)

    def test_reader(self, folder, tmp_path):
        reader = BenchReader()
        assert reader.reads(str(folder))
        assert not reader.reads(str(tmp_path))
        found = reader.sections([str(folder)], silent)
        assert [section.name for section in found] == [*("bench-small", "searches-digits-small")]
        assert len(found[1].data["runs"]["run"]) == 2 * 4 * 9
        front = next(part for part in found[1].parts if part.name == "front-cycles")
        assert front.title == "The front on an ethos-u55-64"  # the protocol's
        reader.machine = machine("ethos-u55-32")
        front = next(
            part
            for part in reader.sections([str(folder)], silent)[1].parts
            if part.name == "front-cycles"
        )
        assert front.title == "The front on an ethos-u55-32"
        (tmp_path / "results.json").write_text('{"cells": []}')
        with pytest.raises(
            FormatError, match=r"must be npusim.bench version 2, got \(None, None\)"
        ):
            reader.sections([str(tmp_path)], silent)

    def test_results_without_any_score_are_shown(self, tmp_path):
        pytest.importorskip("tomli_w", reason="needs tomli-w: pip install 'npusim[bench]'")
        tasks = (Task("digits", DIGITS, (Limit.size("1KB"),), Hopeless),)
        entrants = (Entrant("random", "random"), Entrant("local", "local"))
        found = run_benchmark(Protocol(tasks, entrants, (0,), Budget(trials=2)), tmp_path)
        section = bench_section("none", json.loads(json.dumps(found)))
        assert [part.name for part in section.parts] == ["costs", "spent", "protocol"]
