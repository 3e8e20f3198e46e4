# SPDX-License-Identifier: Apache-2.0
"""``npusim sweep``: what it prints, writes and refuses."""

from __future__ import annotations

import csv
import io
import json

import pytest

import npusim
from npusim.cost.what_if import MEASURES, Setup, Workload, parse_axis, sweep
from npusim.report.machines import sweep_columns

VARY = ("--vary", "sram_bytes_per_cycle=2,8", "--vary", "npu=ethos-u55-64,ethos-u55-128")


@pytest.fixture
def expected(model):
    axes = [parse_axis(text) for text in VARY[1::2]]
    return sweep(Workload.of(npusim.load(model)), Setup(), axes)


def test_json(run, model, expected):
    code, out, err = run("sweep", model, *VARY, "--format", "json")
    assert (code, err) == (0, "")
    found = json.loads(out)
    assert found == expected.to_json()
    assert set(found["points"][0]) == {
        *("sram_bytes_per_cycle", "npu", "fits", "pareto", "obstacle", *MEASURES)
    }


def test_several_models_are_a_list(run, models):
    found = json.loads(run("sweep", models, *VARY, "--format", "json")[1])
    assert [each["model"] for each in found] == ["first", "second"]


def test_csv(run, model, expected):
    rows = list(csv.DictReader(io.StringIO(run("sweep", model, *VARY, "--format", "csv")[1])))
    assert tuple(rows[0]) == sweep_columns(expected.axes)
    assert [int(row["total_cycles"]) for row in rows] == [
        point.cost.total_cycles for point in expected.points
    ]


def test_table_marks_the_best(run, model, expected):
    out = run("sweep", model, *VARY)[1]
    marks = [line.split("│")[1].strip() for line in out.splitlines() if line.startswith("│")]
    assert marks == ["*" if point.is_best else "" for point in expected.points]
    assert "first on 4 machines" in out


def test_best_alone(run, model):
    args = ("--vary", "shram_banks=16:48:8", "--minimise", "total_cycles", "--format", "json")
    every = json.loads(run("sweep", model, *args)[1])
    found = json.loads(run("sweep", model, *args, "--best")[1])
    assert len(every["points"]) == 5
    assert found["points"] == [point for point in every["points"] if point["pareto"]]
    least = min(point["total_cycles"] for point in every["points"])
    assert {point["total_cycles"] for point in found["points"]} == {least}


def test_machines_that_cannot_run_are_listed(run, model):
    args = ("--vary", "shram_banks=2,24")
    found = json.loads(run("sweep", model, *args, "--format", "json")[1])["points"]
    assert found[0]["total_cycles"] is None
    assert found[0]["obstacle"].startswith("block must fit the 2 SHRAM banks")
    assert not found[0]["pareto"]
    assert "cannot run" in run("sweep", model, *args)[1]


def test_limits_of_the_arena(run, model):
    args = ("--vary", "arena_limit_bytes=64,100000")
    small, large = json.loads(run("sweep", model, *args, "--format", "json")[1])["points"]
    assert (small["fits"], large["fits"]) == (False, True)
    assert "(too large)" in run("sweep", model, *args)[1]


def test_options_reach_the_model(run, model):
    args = ("sweep", model, "--vary", "clock_hz=1e8", "--format", "json")
    plain = json.loads(run(*args)[1])["points"][0]
    other = json.loads(run(*args, "--npu", "ethos-u55-32", "--optimise", "size")[1])["points"][0]
    assert other["total_cycles"] > plain["total_cycles"]
    assert other["sram_peak_bytes"] < plain["sram_peak_bytes"]


@pytest.mark.parametrize("vary", [VARY, ("--vary", "sram_read_latency_cycles=1,64")])
def test_plot(run, models, tmp_path, vary):
    pytest.importorskip("matplotlib")
    code, _, err = run("sweep", models, *vary, "--plot", tmp_path / "plot.svg")
    assert (code, err) == (0, "")
    assert "<svg" in (tmp_path / "plot.svg").read_text()


REFUSED = [
    (["--vary", "banks=3"], "field of the hardware must be one of "),
    (["--vary", "shram_banks"], "what is varied must be name=value,value, got 'shram_banks'"),
    (["--vary", "shram_banks=a"], "value of a setting must be a number, got"),
    (["--vary", "shram_banks=8:1"], "a range must go up from first to last, got 'shram_banks=8:1'"),
    (["--vary", "shram_banks=1:2:3:4"], "a range must be first:last:step, got"),
    (["--vary", "shram_banks=0:1e9:1"], "a range must have at most 1000000 values, got"),
    (["--vary", "shram_banks=9,9"], "values of shram_banks must be some that differ, got (9, 9)"),
    (["--vary", "npu=ethos"], "npu must be one of "),
    (["--vary", "shram_banks=8", "--vary", "shram_banks=9"], "what is varied must be something"),
    (["--vary", "clock_hz=0"], "clock_hz of system config"),
    (["--vary", "arena_limit_bytes=9", "--arena-limit", "9"], "--arena-limit must not go with"),
    (["--vary", "clock_hz=1", "--minimise", "time"], "objective must be one of "),
    (["--vary", "clock_hz=1", "--npu", "a,b"], "--npu must be one, got a, b"),
    (["--vary", "clock_hz=1", "--npu", "all"], "--npu must be one, got all"),
    ([], "missing option '--vary'"),
]


@pytest.mark.parametrize(("args", "message"), REFUSED, ids=[" ".join(r[0]) for r in REFUSED])
def test_refused_options(run, model, args, message):
    code, out, err = run("sweep", model, *args)
    assert (code, out) == (2, "")
    assert err.startswith(f"npusim: {message}")


def test_ctrl_c(run, model, monkeypatch):
    def interrupt(*args, **options):
        raise KeyboardInterrupt

    monkeypatch.setattr(Workload, "cost", interrupt)
    code, out, err = run("sweep", model, *VARY)
    assert (code, out, err.strip()) == (130, "", "npusim: interrupted")
