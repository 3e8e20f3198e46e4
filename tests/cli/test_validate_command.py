# SPDX-License-Identifier: Apache-2.0
"""``npusim validate``: our costs beside those of Arm's compiler."""

from __future__ import annotations

import csv
import io
import json
import sys

import numpy as np
import pytest

from npusim import cli
from npusim import validate as library
from npusim.formats.tflite_write import write
from npusim.network_builder import NetworkBuilder
from npusim.report.validation import COLUMNS
from npusim.vela import Compiler


@pytest.fixture(autouse=True)
def installed():
    pytest.importorskip("ethosu.regor", reason="ethos-u-vela is the oracle")


def test_json(run, models):
    args = ("--npu", "ethos-u55-64,ethos-u65-512", "--memory-mode", "Shared_Sram,Sram_Only")
    code, out, err = run("validate", models, *args, "--format", "json")
    assert (code, err) == (0, "")
    found = json.loads(out)
    assert len(found["comparisons"]) == 8
    for comparison in found["comparisons"]:
        assert comparison["obstacle"] == ""
        assert comparison["total_cycles"] == comparison["vela_total_cycles"] > 0
        assert comparison["sram_peak_bytes"] == comparison["vela_sram_peak_bytes"] > 0
        assert comparison["flash_bytes"] == comparison["vela_flash_bytes"] > 0
    assert found["summary"]["total_cycles"] == {
        **{"measure": "total_cycles", "n": 8, "n_exact": 8, "mape": 0.0, "largest": 0.0}
    }


def test_feature_maps_in_dram(run, models):
    args = ("--npu", "ethos-u65-256", "--system", "Ethos_U65_High_End", "--vela-axi")
    mode = ("--memory-mode", "Dedicated_Sram_384KB")
    code, out, _ = run("validate", models, *args, *mode, "--format", "json")
    assert code == 0
    for found in json.loads(out)["comparisons"]:
        for name in ("total_cycles", "sram_peak_bytes", "dram_peak_bytes", "flash_bytes"):
            assert found[name] == found[f"vela_{name}"] > 0, name
    assert "DRAM" in run("validate", models, *args, *mode)[1]
    assert "DRAM" not in run("validate", models)[1]


def test_table_and_csv(run, models, tmp_path):
    out = run("validate", "--models", tmp_path)[1]
    assert "npusim beside Vela (regor)" in out
    assert "errors of 2 comparisons" in out
    rows = list(csv.DictReader(io.StringIO(run("validate", models, "--format", "csv")[1])))
    assert tuple(rows[0]) == COLUMNS
    assert [row["model"] for row in rows] == ["first", "second"]


def test_nothing_for_the_npu(run, tmp_path):
    net = NetworkBuilder("wide_steps")
    x = net.input((1, 4, 4, 8), scale=0.05)
    weights = net.constant(np.ones((8, 3, 3, 8), np.int8), scales=0.01)
    shape = np.array([1, 12, 12, 8], np.int32)
    y = net.op("TRANSPOSE_CONV", shape, weights, x, scale=0.1, stride_h=3, stride_w=3)
    path = tmp_path / "wide_steps.tflite"
    write(net.build(y), path)
    (found,) = json.loads(run("validate", path, "--format", "json")[1])["comparisons"]
    assert found["obstacle"] == "no operation runs on the NPU: the compiler tells no memory"
    assert found["sram_peak_bytes"] > 0
    assert found["vela_sram_peak_bytes"] is None


def test_any_memories_and_schedule(run, model):
    args = (
        *("--system", "RTSS_HP_SRAM_OSPI", "--set", "sram_bytes_per_cycle=3"),
        *("--set", "off_chip_flash_read_latency_cycles=200", "--optimise", "size"),
    )
    (found,) = json.loads(run("validate", model, *args, "--format", "json")[1])["comparisons"]
    assert found["total_cycles"] == found["vela_total_cycles"]
    assert found["sram_peak_bytes"] == found["vela_sram_peak_bytes"]
    limit = ("--arena-limit", "3KiB")
    (less,) = json.loads(run("validate", model, *limit, "--format", "json")[1])["comparisons"]
    assert less["sram_peak_bytes"] == less["vela_sram_peak_bytes"]


def test_models_that_are_refused_do_not_end_it(run, model, tmp_path):
    (tmp_path / "bad.tflite").write_bytes(b"\x1c\x00\x00\x00TFL3" + bytes(40))
    (tmp_path / "text.tflite").write_text("not a model")
    code, out, err = run("validate", "--models", tmp_path, "--format", "json")
    assert (code, err) == (0, "")
    found = {c["model"]: c for c in json.loads(out)["comparisons"]}
    assert found["first"]["total_cycles_error"] == 0
    for name in ("bad", "text"):
        assert found[name]["total_cycles"] is found[name]["total_cycles_error"] is None
        assert found[name]["obstacle"]
    assert "text on ethos-u55-128: " in run("validate", "--models", tmp_path)[1]


def test_output_of_the_compiler_does_not_leak(cpu_model, tmp_path, capfd):
    result = tmp_path / "x.json"
    with pytest.raises(SystemExit, match=r"^0$"):
        cli.main(["validate", cpu_model, "--format", "json", "--output", str(result)])
    assert json.loads(result.read_text())["comparisons"][0]["total_cycles_error"] == 0
    assert capfd.readouterr() == ("", "")


def test_ctrl_c_prints_what_there_is(run, models, monkeypatch):
    compile_model, calls = Compiler.compile, []

    def compile_once(*args, **options):
        calls.append(args)
        if len(calls) > 1:
            raise KeyboardInterrupt
        return compile_model(*args, **options)

    monkeypatch.setattr(Compiler, "compile", compile_once)
    code, out, err = run("validate", models, "--format", "csv")
    assert (code, err.strip()) == (130, "npusim: interrupted")
    assert [row["model"] for row in csv.DictReader(io.StringIO(out))] == ["first"]


REFUSED = [
    (["--set", "shram_banks=40"], "npu must be one of Arm's, without changes, for its compiler"),
    (["--npu", "ethos"], "npu must be one of "),
    (["--arena-limit", "x"], "--arena-limit must be bytes"),
    (["--set", "axi_width_bytes=4"], "axi_width_bytes must be 8 or 16 for Arm's compiler, got 4"),
    (["--models", "missing"], "MODEL must match a file, got 'missing/**/*.tflite'"),
]


@pytest.mark.parametrize(("args", "message"), REFUSED, ids=[" ".join(r[0]) for r in REFUSED])
def test_refused_options(run, model, args, message):
    code, out, err = run("validate", model, *args)
    assert (code, out) == (2, "")
    assert err.startswith(f"npusim: {message}")


def test_no_model(run):
    assert run("validate") == (2, "", "npusim: MODEL or --models must be given, got neither\n")


def test_without_the_compiler(run, model, monkeypatch):
    monkeypatch.setitem(sys.modules, "ethosu", None)
    code, out, err = run("validate", model)
    assert (code, out) == (2, "")
    assert "npusim: Arm's compiler must have the extra [deploy] installed" in err


def test_errors_where_theirs_is_nothing():
    some, none = dict.fromkeys(library.MEASURES, 3), dict.fromkeys(library.MEASURES, 0)
    found = library.Comparison("m", "n", "s", "o", some, none)
    assert found.error("flash_bytes") is None
    assert [s.n_exact for s in library.summaries([found])] == [0] * 5
    assert [s.n for s in library.summaries([found])] == [1] * 5
