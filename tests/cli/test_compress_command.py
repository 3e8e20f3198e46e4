# SPDX-License-Identifier: Apache-2.0
"""``npusim compress``: what it prints, writes and refuses."""

from __future__ import annotations

import csv
import io
import json
import sys

import numpy as np
import pytest

import npusim
from npusim import cli
from npusim.compress import BOUNDS, compress
from npusim.formats.tflite_write import write
from npusim.network_builder import NetworkBuilder
from npusim.sweep import SWEEP_BITS, SWEEP_NONZEROS, sweep
from npusim.weights import ENCODERS


def small_network(name, seed=0):
    rng = np.random.default_rng(seed)
    net = NetworkBuilder(name)
    x = net.input((1, 8, 8, 3), scale=0.02)
    for i, depth in enumerate((24, 8)):
        shape = (depth, 3, 3, x.shape[3])
        weights = net.constant(rng.integers(-50, 51, shape).astype(np.int8), scales=0.01)
        x = net.op(
            *("CONV_2D", x, weights, net.bias([0] * depth, x, weights)),
            scale=0.1,
            name=f"conv{i}",
        )
    return net.build(x)


NETWORKS = (("first",), ("second", 1))


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
    """Runs ``npusim compress`` and returns its exit code, stdout and stderr."""

    def run(*args):
        with pytest.raises(SystemExit) as stop:
            cli.main(["compress", *map(str, args)])
        out, err = capsys.readouterr()
        return stop.value.code, out, err

    return run


def test_json(run, model):
    code, out, err = run(model, "--format", "json")
    record, report = json.loads(out), compress(npusim.load(model))
    assert (code, err) == (0, "")
    assert record == report.to_json()
    assert set(record) == {
        *("model", "npu", "encoder", "bits", "nonzeros"),
        *("layers", "total", "flash_bytes", "not_on_npu"),
    }
    assert (record["model"], record["npu"]) == ("first", "ethos-u55-128")
    assert record["flash_bytes"] == report.n_bytes["regor"] + report.scale_bytes
    assert set(record["total"]) == {
        *("weights", "coded_weights", "zero_fraction", "bits_per_weight"),
        *("bytes", "scale_bytes"),
    }
    assert record["total"]["bytes"] == report.n_bytes
    assert record["total"]["weights"] == 648 + 1728
    for found, layer in zip(record["layers"], report.layers, strict=True):
        assert found == {
            "name": layer.name,
            "op": "CONV_2D",
            "weights": layer.n_weights,
            "coded_weights": layer.n_coded,
            "zero_fraction": round(layer.n_zeros / layer.n_weights, 6),
            "distinct_values": layer.n_distinct,
            "bits_per_weight": round(8 * layer.n_bytes["regor"] / layer.n_weights, 4),
            "scale_bytes": layer.scale_bytes,
            "same_as": "",
            "shape": list(layer.shape),
            "traversal": layer.traversal,
            "ofm_block_depth": layer.ofm_block_depth,
            "bytes": layer.n_bytes,
        }


def test_json_of_several_models_is_a_list(run, models):
    records = json.loads(run(models, "--format", "json")[1])
    assert records == [compress(small_network(*args)).to_json() for args in NETWORKS]


def test_a_file_that_several_patterns_match_is_read_once(run, models, model):
    records = json.loads(run(model, models, model, "--format", "json")[1])
    assert [record["model"] for record in records] == ["first", "second"]


def test_csv_of_several_models(run, models):
    code, out, _ = run(models, "--format", "csv")
    rows = list(csv.DictReader(io.StringIO(out)))
    assert code == 0
    assert [(row["model"], row["name"]) for row in rows] == [
        (model, conv) for model in ("first", "second") for conv in ("conv0", "conv1")
    ]
    for row in rows:
        assert int(row["raw"]) == int(row["weights"])
        assert int(row["tight"]) <= min(int(row["regor"]), int(row["legacy"]))
    report = compress(small_network("second", 1))
    for name in (*ENCODERS, *BOUNDS):
        assert sum(int(row[name]) for row in rows[2:]) == report.n_bytes[name]


def test_table(run, models):
    code, out, _ = run(models)
    report = compress(small_network("first"))
    assert code == 0
    assert "first on ethos-u55-128, bytes" in out
    assert f"flash: {report.flash_bytes:,} bytes (regor streams, biases and scales)" in out
    assert "all models, bytes" in out
    assert f"{report.n_bytes['tight']:,}" in out
    conditioned = run(models, "--bits", "3", "--sparsity", "25%")[1]
    assert "requantized to 3 bits, pruned to 25 % non-zeros, bytes" in conditioned


def test_options_reach_the_library(run, model):
    args = ("--encoder", "legacy", "--encoder", "tight", "--effort", "0", "--npu", "ethos-u65-512")
    _, out, _ = run(model, *args, "--bits", "4", "--sparsity", "0.5", "--format", "json")
    expected = compress(
        npusim.load(model),
        "ethos-u65-512",
        encoders=["legacy", "tight"],
        encoder="legacy",
        bits=4,
        nonzeros=0.5,
        effort=0,
    )
    record = json.loads(out)
    assert record["total"]["bytes"] == expected.n_bytes
    assert record["flash_bytes"] == expected.flash_bytes
    assert (record["encoder"], record["bits"], record["nonzeros"]) == ("legacy", 4, 0.5)
    assert list(record["total"]["bytes"]) == ["legacy", "tight", *BOUNDS]


def test_other_words_for_the_same(run, model):
    def sizes(*args):
        return run(model, *args, "--format", "json")[1]

    assert sizes("--nonzeros", "50%") == sizes("--sparsity", "0.5") != sizes()
    assert sizes("--encoder", "all") == sizes()
    assert sizes("--encoder", "tight", "--encoder", "all") == sizes(
        *("--encoder", "tight", "--encoder", "regor", "--encoder", "legacy")
    )


@pytest.mark.parametrize(
    ("column", "names"),
    [("weights", ["conv1", "conv0"]), ("name", ["conv0", "conv1"]), ("raw", ["conv1", "conv0"])],
)
def test_sort(run, model, column, names):
    _, out, _ = run(model, "--sort", column, "--format", "json")
    assert [layer["name"] for layer in json.loads(out)["layers"]] == names


def test_sweep(run, model):
    args = ("--sweep", "--bits", "8,2", "--sparsity", "100%,10%", "--encoder", "legacy")
    code, out, _ = run(model, *args, "--format", "json")
    found = sweep(npusim.load(model), bits=[8, 2], nonzeros=[1, 0.1], encoder="legacy")
    assert code == 0
    assert json.loads(out) == found.to_json()
    rows = list(csv.DictReader(io.StringIO(run(model, *args, "--format", "csv")[1])))
    assert [int(row["flash_bytes"]) for row in rows] == [p.flash_bytes for p in found.points]
    assert {row["baseline_flash_bytes"] for row in rows} == {str(found.baseline.flash_bytes)}
    assert f"{found.points[-1].reduction:.1f}x" in run(model, *args)[1]


def test_sweep_of_the_paper_by_default(run, model):
    points = json.loads(run(model, "--sweep", "--format", "json")[1])["points"]
    assert [(p["bits"], p["nonzeros"]) for p in points] == [
        (bits, share) for bits in SWEEP_BITS for share in SWEEP_NONZEROS
    ]


def test_output_replaces_a_file_whole(run, model, tmp_path):
    target = tmp_path / "sizes.json"
    target.write_text("old")
    code, out, _ = run(model, "--format", "json", "--output", target)
    assert (code, out) == (0, "")
    assert json.loads(target.read_text())["model"] == "first"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["first.tflite", "sizes.json"]


def test_output_to_a_link_keeps_the_link(run, model, tmp_path):
    (tmp_path / "link").symlink_to(tmp_path / "target")
    run(model, "--format", "csv", "--output", tmp_path / "link")
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "target").read_text().startswith("model,npu,name")


def test_a_network_without_weights(run, tmp_path):
    net = NetworkBuilder("none")
    x = net.input((1, 4, 4, 8), scale=0.1)
    write(net.build(net.op("ADD", x, x, scale=0.1)), tmp_path / "none.tflite")
    model = tmp_path / "none.tflite"
    assert "none: no operation has weights on the NPU" in run(model)[1]
    assert run(model, "--format", "csv")[1].startswith("model,npu,name,op,weights")
    assert json.loads(run(model, "--format", "json")[1])["total"]["zero_fraction"] is None
    code, _, err = run(model, "--sweep")
    assert (code, err) == (2, "npusim: model 'none' must have weights on the NPU, got none\n")


SPARSITY = "--sparsity must be a fraction of non-zero weights, 0..1 or 0%..100%"
REFUSED = [
    (["--npu", "ethos"], "npu must be one of ethos-u55-128, "),
    (["--encoder", "zip"], "encoder must be one of legacy, regor, tight, got 'zip'"),
    (["--effort", "10"], "effort must be in 0..9, got 10"),
    (["--effort", "1", "--encoder", "regor"], "options must go with encoder 'tight', got effort"),
    (["--bits", "9"], "--bits must be integers in 1..8, got '9'"),
    (["--bits", "nan"], "--bits must be integers in 1..8, got 'nan'"),
    (["--bits", ""], "--bits must be integers in 1..8, got ''"),
    (["--bits", "4,5"], "--bits must be one value without --sweep, got 2"),
    (["--sparsity", "0.5,0.2,0.1"], "--sparsity must be one value without --sweep, got 3"),
    (["--sweep", "--bits", "4,4"], "bits of a sweep must be some that differ, got [4, 4]"),
    (["--bits", "0"], "--bits must be integers in 1..8, got '0'"),
    (["--sparsity", "2"], f"{SPARSITY}, got '2'"),
    (["--sweep", "--bits", "4,"], "--bits must be integers in 1..8, got ''"),
    (["--sparsity", "101%"], f"{SPARSITY}, got '101%'"),
    (["--sparsity", "nan"], f"{SPARSITY}, got 'nan'"),
    (["--sparsity", "few"], f"{SPARSITY}, got 'few'"),
    (["--sort", "size"], "--sort must be one of bits_per_weight, "),
    (["--sort", "legacy", "--encoder", "regor"], "--sort must be one of bits_per_weight, "),
    (["--sweep", "--sort", "name"], "--sort must not go with --sweep, got name"),
    (["--sweep", "--effort", "0"], "--effort must not go with --sweep, got 0"),
    (
        ["--sweep", "--encoder", "regor", "--encoder", "tight"],
        "--encoder must be one with --sweep, got regor, tight",
    ),
    (["--output", ""], "--output must name a file, got ''"),
    (
        ["--output", "missing/x"],
        "--output must be in a folder that can be written, got 'missing/x'",
    ),
    (["--output", "."], "--output must be a file, got folder '.'"),
    (["--format", "xml"], "invalid value for '--format'"),
]


@pytest.mark.parametrize(("args", "message"), REFUSED, ids=[" ".join(r[0]) for r in REFUSED])
def test_refused_options(run, model, args, message):
    code, out, err = run(model, *args)
    assert (code, out) == (2, "")
    assert err.startswith(f"npusim: {message}")


def test_refused_files(run, model, tmp_path):
    (tmp_path / "text.tflite").write_text("not a model")
    for name, message in (
        ("missing.tflite", "npusim: model must be a readable file, got "),
        ("no*.tflite", "npusim: MODEL must match a file, got "),
        ("text.tflite", f"npusim: {tmp_path / 'text.tflite'}: a TFLite model must have 'TFL3'"),
        (".", "npusim: model must be a file, got "),
    ):
        code, out, err = run(model, tmp_path / name)
        assert (code, out) == (2, "")
        assert err.startswith(message)


def test_a_name_with_brackets_is_a_name_first(run, model, tmp_path):
    (tmp_path / "model[1].tflite").write_bytes((tmp_path / "first.tflite").read_bytes())
    code, out, _ = run(tmp_path / "model[1].tflite", "--format", "json")
    assert (code, json.loads(out)["model"]) == (0, "model[1]")


@pytest.mark.parametrize("args", [[], ["--sweep", "--bits", "4,2", "--sparsity", "1,0.5"]])
def test_plot(run, models, tmp_path, args):
    pytest.importorskip("matplotlib")
    code, _, err = run(models, *args, "--plot", tmp_path / "plot.svg")
    assert (code, err) == (0, "")
    assert "<svg" in (tmp_path / "plot.svg").read_text()


def test_refused_plots(run, model, tmp_path, monkeypatch):
    pytest.importorskip("matplotlib")
    for place, message in (
        (tmp_path / "plot.doc", "plot must end in one of "),
        (tmp_path / "missing" / "plot.png", "--plot must be in a folder that can be written, got "),
        (tmp_path, "plot must end in one of "),
    ):
        code, out, err = run(model, "--plot", place)
        assert (code, out) == (2, "")
        assert err.startswith(f"npusim: {message}")
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    code, out, err = run(model, "--plot", tmp_path / "plot.png")
    assert (code, out) == (2, "")
    assert "npusim[plot]" in err
    assert not (tmp_path / "plot.png").exists()
