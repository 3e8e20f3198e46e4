# SPDX-License-Identifier: Apache-2.0
"""``npusim schemes``: what it prints, writes and refuses."""

from __future__ import annotations

import csv
import dataclasses
import io
import json
import sys

import numpy as np
import pytest

import npusim
from npusim import cli, schemes
from npusim.cost.energy import energy
from npusim.cost.estimate import estimate
from npusim.formats.tflite_write import write
from npusim.hardware import machine
from npusim.network_builder import NetworkBuilder
from npusim.npu import get
from npusim.report.schemes import LIST_COLUMNS, ROW_COLUMNS
from npusim.schemes.condition import Condition, conditioned, conditions
from npusim.schemes.lab import compare

TWO = ("--scheme", "raw", "--scheme", "mask-gr")


def small_network(name, seed=0):
    rng = np.random.default_rng(seed)
    net = NetworkBuilder(name)
    x = net.input((1, 8, 8, 3), scale=0.02)
    drawn = np.rint(rng.laplace(0, 15, (24, 3, 3, 3))).clip(-127, 127).astype(np.int8)
    weights = net.constant(drawn, scales=0.01)
    return net.build(net.op("CONV_2D", x, weights, net.bias([0] * 24, x, weights), scale=0.1))


@pytest.fixture
def model(tmp_path):
    write(small_network("first"), tmp_path / "first.tflite")
    return str(tmp_path / "first.tflite")


@pytest.fixture
def models(model, tmp_path):
    write(small_network("second", 1), tmp_path / "second.tflite")
    return str(tmp_path / "*.tflite")


@pytest.fixture
def run(capsys):
    """Runs ``npusim schemes`` and returns its exit code, stdout and stderr."""

    def run(*args):
        with pytest.raises(SystemExit) as stop:
            cli.main(["schemes", *map(str, args)])
        out, err = capsys.readouterr()
        return stop.value.code, out, err

    return run


class TestList:
    def test_names_every_scheme(self, run):
        code, out, _ = run("list")
        assert code == 0
        assert all(name in out for name in schemes.names())

    def test_formats_hold_the_same(self, run, tmp_path):
        records = json.loads(run("list", "--format", "json")[1])
        assert [record["name"] for record in records] == schemes.names()
        rows = list(csv.DictReader(io.StringIO(run("list", "--format", "csv")[1])))
        assert list(rows[0]) == list(LIST_COLUMNS)
        assert [row["symbol"] for row in rows] == [str(record["symbol"]) for record in records]
        run("list", "--format", "json", "--output", tmp_path / "list.json")
        assert json.loads((tmp_path / "list.json").read_text()) == records

    def test_what_is_not_installed_says_so(self, run, monkeypatch):
        monkeypatch.setitem(sys.modules, "zstandard", None)
        code, out, _ = run("list")
        assert code == 0
        assert "scheme 'zstd' must have the extra [schemes] installed" in out


class TestShow:
    def test_says_what_a_scheme_is(self, run):
        code, out, _ = run("show", "zvc", "--param", "bits=4")
        assert code == 0
        for text in ("NVDLA documentation", "bits=4, group_weights=4096", "weights: -8..7", "area"):
            assert text in out

    def test_parameters_of_all_kinds(self, run):
        parameters = ("--param", "huffman=false", "--param", "index_bits=4")
        assert (
            "index_bits=4, bits=8, huffman=False" in run("show", "deep-compression", *parameters)[1]
        )
        assert "nonzeros=raw" in run("show", "mask-arithmetic", "--param", "nonzeros=raw")[1]
        assert "effort=None" in run("show", "ethos-u-mlw", "--param", "effort=none")[1]
        assert "not of every pattern" in run("show", "n-m")[1]

    @pytest.mark.parametrize(
        ("args", "message"),
        [
            (["zip"], "scheme must be one of "),
            (["raw", "--param", "bits"], "parameter of a scheme must be NAME=VALUE, got 'bits'"),
            (
                ["raw", "--param", "bits=many"],
                "bits of scheme 'raw' must be an integer, got 'many'",
            ),
            (["raw", "--param", "width=4"], "parameter of scheme 'raw' must be one of bits, got "),
        ],
    )
    def test_refused(self, run, args, message):
        code, out, err = run("show", *args)
        assert (code, out) == (2, "")
        assert err.startswith(f"npusim: {message}")


class TestCompare:
    def test_table_names_all_schemes_and_bounds(self, run, model):
        code, out, _ = run("compare", model)
        assert code == 0
        assert all(f" {name}" in out for name in schemes.names() if name != "zstd")
        assert "(bound) entropy" in out

    def test_json_is_that_of_the_library(self, run, model):
        args = ("--prune", "0,50%", "--bits", "4", "--cluster", "16,8", "--n-of-m", "2:4")
        options = ("--lanes", "2", "--fifo", "256", "--dma", "2.5", "--npu", "ethos-u55-32")
        code, out, _ = run("compare", model, *TWO, *args, *options, "--format", "json")
        found = compare(
            npusim.load(model),
            machine("ethos-u55-32"),
            names=["raw", "mask-gr"],
            conditions=conditions([1.0, 0.5], [4], [16, 8], [(2, 4)]),
            lanes=2,
            fifo=256,
            dma_bytes_per_cycle=2.5,
        )
        assert code == 0
        assert json.loads(out) == found.to_json()
        assert len(found.points) == 4

    def test_an_inference_is_costed_with_every_scheme(self, run, model):
        args = ("--scheme", "zvc", "--scheme", "rans:states=4", "--memory-mode", "Sram_Only")
        _, out, _ = run("compare", model, *args, "--lanes", "2", "--format", "json")
        record = json.loads(out)
        assert record["where"] == "Ethos_U55_High_End_Embedded, Sram_Only"
        assert [each["scheme"] for each in record["points"][0]["schemes"]] == [
            *("zvc", "rans:states=4")
        ]
        for each in record["points"][0]["schemes"]:
            scheme = schemes.parse(each["scheme"])
            cost = estimate(
                npusim.load(model),
                memory_mode="Sram_Only",
                scheme=scheme,
                decoder=dataclasses.replace(scheme.decoder, lanes=2),
            )
            found = each["inference"]
            assert found["total_cycles"] == cost.total_cycles
            assert found["flash_bytes"] == cost.flash_bytes
            assert found["energy_uj"] == energy(cost).total_pj.times(1e-6).to_json()
        rows = run("compare", model, *args, "--lanes", "2", "--format", "csv")[1]
        last = list(csv.DictReader(io.StringIO(rows)))[-1]
        assert last["total_cycles"] == str(found["total_cycles"])
        table = run("compare", model, *args)[1]
        assert "cycles" in table
        assert "energy" in table

    def test_csv_has_a_row_for_each_scheme_and_bound(self, run, models):
        _, out, _ = run("compare", models, *TWO, "--prune", "0.5,0.9", "--format", "csv")
        rows = list(csv.DictReader(io.StringIO(out)))
        assert list(rows[0]) == list(ROW_COLUMNS)
        assert len(rows) == 2 * 2 * (3 + 2)
        assert {row["nonzeros"] for row in rows} == {"0.5", "0.1"}

    def test_several_models_are_a_list(self, run, models, tmp_path):
        args = ("--format", "json", "--output", tmp_path / "out.json", "--sizes-only")
        assert run("compare", models, *TWO, *args) == (0, "", "")
        records = json.loads((tmp_path / "out.json").read_text())
        assert [record["model"] for record in records] == ["first", "second"]
        assert records[0]["points"][0]["schemes"][0]["decode_cycles"] is None

    def test_models_are_run_and_written(self, run, model, tmp_path):
        pytest.importorskip("ai_edge_litert", reason="ai-edge-litert is not installed")
        inputs = np.random.default_rng(0).integers(-128, 128, (6, 8, 8, 3))
        np.savez(tmp_path / "test.npz", inputs=inputs, labels=np.zeros(6, np.int64))
        args = ("--data", tmp_path / "test.npz", "--inputs", "4", "--bits", "3")
        code, out, err = run("compare", model, *TWO, *args, "--write", tmp_path)
        assert (code, err) == (0, "")
        text = " ".join(out.split())
        assert "of 4 inputs (test.npz)" in text
        written = npusim.load(tmp_path / "first-bits3.tflite")
        expected = conditioned(npusim.load(model), Condition(bits=3), get("ethos-u55-128"))
        for ours, theirs in zip(written.ops, expected.ops, strict=True):
            assert (ours.weights, ours.bias) == (theirs.weights, theirs.bias)
        rows = run("compare", model, *TWO, *args, "--format", "csv", "--sizes-only")[1]
        row = list(csv.DictReader(io.StringIO(rows)))[-1]
        assert row["n_inputs"] == "4"
        assert 0 <= float(row["top1"]) <= 1
        random = run("compare", model, *TWO, "--inputs", "3", "--prune", "0.9")[1]
        assert "of 3 inputs (random codes, seed 0)" in " ".join(random.split())

    def test_what_is_left_out_is_said(self, run, model, monkeypatch):
        monkeypatch.setitem(sys.modules, "zstandard", None)
        code, out, _ = run("compare", model)
        assert code == 0
        assert "scheme 'zstd' must have the extra [schemes] installed" in out

    def test_plot(self, run, models, tmp_path):
        pytest.importorskip("matplotlib")
        args = ("--prune", "0,0.9", "--plot", tmp_path / "front.svg")
        code, _, err = run("compare", models, *TWO, *args)
        assert (code, err) == (0, "")
        assert "<svg" in (tmp_path / "front.svg").read_text()

    @pytest.mark.parametrize(
        ("args", "message"),
        [
            (["--scheme", "zip"], "scheme must be one of bit-plane, "),
            (["--npu", "ethos"], "npu must be one of ethos-u55-128, "),
            (
                ["--prune", "2"],
                "--prune must be fractions of weights to set to zero, 0..1, got '2'",
            ),
            (["--prune", "few"], "--prune must be fractions of weights to set to zero, 0..1, got "),
            (["--prune", ""], "--prune must be fractions of weights to set to zero, 0..1, got ''"),
            (["--bits", "9"], "bits must be in 1..8, got 9"),
            (["--bits", "x"], "--bits must be integers, got 'x'"),
            (["--cluster", "-2"], "--cluster must be integers, got '-2'"),
            (["--cluster", "1"], "clusters must be in 2..511, got 1"),
            (["--n-of-m", "2"], "--n-of-m must be patterns such as 2:4, got '2'"),
            (["--n-of-m", "5:4"], "n of n_of_m must be in 0..4, got 5"),
            (["--lanes", "0"], "lanes must be in 1..1048576, got 0"),
            (["--fifo", "0"], "fifo must be in 1..1099511627776, got 0"),
            (["--dma", "0"], "dma_bytes_per_cycle must be in 0.125.."),
            (["--sizes-only", "--plot", "x.svg"], "--plot must not go with --sizes-only, got both"),
            (["--sizes-only", "--memory-mode", "Shared_Sram"], "--memory-mode must not go with "),
            (["--system", "Mine"], "system config must be one of Ethos_U55_Deep_Embedded, "),
            (["--scheme", "rans:states=x"], "states of scheme 'rans' must be an integer, got 'x'"),
            (["--data", "none.npz"], "test data of 'none.npz' must be readable"),
            (["--inputs", "0"], "number of inputs must be in 1..1073741824, got 0"),
            (["--write", "none"], "--write must be a folder, got 'none'"),
            (["--output", "missing/x"], "--output must be in a folder that can be written, got "),
        ],
    )
    def test_refused(self, run, model, args, message):
        code, out, err = run("compare", model, *args)
        assert (code, out) == (2, "")
        assert err.startswith(f"npusim: {message}")


class TestVectors:
    def test_are_written_and_named(self, run, tmp_path):
        code, out, _ = run("vectors", "eie", "--out", tmp_path, "--param", "bits=4")
        assert code == 0
        record = json.loads((tmp_path / "every_value.json").read_text())
        assert record["parameters"]["bits"] == 4
        assert record["weights"] == list(range(-8, 8))
        assert str(tmp_path / "every_value.json") in out.splitlines()

    def test_refused(self, run, tmp_path):
        code, _, err = run("vectors", "zip", "--out", tmp_path)
        assert (code, err.startswith("npusim: scheme must be one of ")) == (2, True)
        assert "missing option '--out'" in run("vectors", "raw")[2]
