# SPDX-License-Identifier: Apache-2.0
"""``npusim stream`` on raw streams, damaged ones and compiled models."""

from __future__ import annotations

import csv
import importlib.util
import io
import json
from pathlib import Path

import numpy as np
import pytest

from npusim import cli
from npusim.formats import load_bytes
from npusim.formats.tflite_write import to_bytes
from npusim.formats.vela_stream import compiled_streams
from npusim.network_builder import NetworkBuilder
from npusim.weights import decode, encode, slices

RNG = np.random.default_rng(0)
DENSE = RNG.integers(-40, 41, 3000)
SPARSE = np.where(RNG.random(900) < 0.9, 0, RNG.integers(-3, 4, 900))


@pytest.fixture
def run(capsys):
    """Runs ``npusim stream`` and returns its exit code, stdout and stderr."""

    def run(*args):
        with pytest.raises(SystemExit) as stop:
            cli.main(["stream", *map(str, args)])
        out, err = capsys.readouterr()
        return stop.value.code, out, err

    return run


@pytest.fixture
def raw(tmp_path):
    """A file of two streams that follow one another."""
    path = tmp_path / "weights.bin"
    path.write_bytes(encode(DENSE) + encode(SPARSE))
    return path


@pytest.fixture(scope="module")
def compiled():
    """A convolution and a depthwise one, compiled for an NPU of two cores."""
    place = Path(__file__).parent.parent / "formats" / "vela.py"
    spec = importlib.util.spec_from_file_location("vela", place)
    vela = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(vela)
    network = vela.layers(("CONV_2D", (24, 3, 3, 16), {}), ("DEPTHWISE_CONV_2D", (1, 3, 3, 24), {}))
    return vela.compile_model(to_bytes(network), "ethos-u65-512")


def test_a_raw_stream_bit_by_bit(run, raw):
    code, out, err = run(raw, "--format", "json")
    (record,) = json.loads(out)
    assert (code, err) == (0, "")
    assert (record["stream"], record["bytes"]) == (0, raw.stat().st_size)
    assert record["weights"] == DENSE.size + SPARSE.size
    assert record["sections"] == 2
    for name, n_bits in record["bits"].items():
        assert n_bits == sum(part["bits"][name] for part in record["slices"])
    assert sum(record["bits"].values()) + record["end_marker_bits"] == 8 * record["bytes"]
    assert record["waste_bits"] == record["bits"]["padding"] + record["end_marker_bits"]
    for found, part in zip(record["slices"], slices(raw.read_bytes()), strict=True):
        assert found["bit_offset"] == part.bit_offset
        assert (found["weights"], found["zeros_in_runs"]) == (part.n_weights, part.n_zeros)
        assert found["palette"] == (list(part.palette) if part.new_palette else None)
        assert found["zdiv"] == (part.zdiv if part.zero_runs else None)
        assert (found["wdiv"], found["wtrunc"]) == (part.wdiv, part.wtrunc)
        assert found["bits"] == part.bits
    assert {found["section"] for found in record["slices"]} == {0, 1}


def test_csv_and_table_tell_the_same(run, raw):
    (record,) = json.loads(run(raw, "--format", "json")[1])
    waste = record["waste_bits"]
    rows = list(csv.DictReader(io.StringIO(run(raw, "--format", "csv")[1])))
    for row, part in zip(rows, record["slices"], strict=True):
        assert {name: int(row[f"{name}_bits"]) for name in part["bits"]} == part["bits"]
        assert int(row["weights"]) == part["weights"]
        assert row["palette"] == " ".join(map(str, part["palette"] or ()))
    table = run(raw)[1]
    assert f"stream 0: {record['bytes']:,} bytes, 3,900 weights" in table
    assert f"waste (padding and end marker): {waste:,} bits" in table


def test_no_weights(run, tmp_path):
    (tmp_path / "none.bin").write_bytes(encode([]))
    (record,) = json.loads(run(tmp_path / "none.bin", "--format", "json")[1])
    assert (record["weights"], record["slices"], record["end_marker_bits"]) == (0, [], 128)
    header = run(tmp_path / "none.bin", "--format", "csv")[1]
    assert header.startswith("stream,section,bit_offset,weights,")
    assert header.count("\n") == 1


def test_streams_of_a_compiled_model(run, compiled, tmp_path):
    (tmp_path / "compiled.tflite").write_bytes(compiled)
    expected = compiled_streams(load_bytes(compiled))
    records = json.loads(run(tmp_path / "compiled.tflite", "--format", "json")[1])
    assert len(records) == len(expected) >= 4  # two layers, two cores
    for record, stream in zip(records, expected, strict=True):
        assert record["bytes"] == len(stream.data)
        assert record["weights"] == decode(stream.data).size
        assert record["shape"] == list(stream.shape)
        assert (record["core"], record["traversal"]) == (stream.core, stream.traversal)
        assert (record["offset"], record["kind"]) == (stream.offset, stream.kind)
        assert record["scale_bytes"] == len(stream.scales)
        assert sum(record["bits"].values()) + record["end_marker_bits"] == 8 * record["bytes"]
    (one,) = json.loads(run(tmp_path / "compiled.tflite", "--stream", "1", "--format", "json")[1])
    assert one == records[1]
    table = run(tmp_path / "compiled.tflite")[1]
    for i, stream in enumerate(expected):
        assert f"stream {i}: {len(stream.data):,} bytes" in table
    with_scales = sum(len(stream.data) + len(stream.scales) for stream in expected)
    assert f"{with_scales:,} bytes with biases and scales" in table


def test_compress_sends_a_compiled_model_here(compiled, tmp_path, capsys):
    (tmp_path / "compiled.tflite").write_bytes(compiled)
    with pytest.raises(SystemExit, match="2"):
        cli.main(["compress", str(tmp_path / "compiled.tflite")])
    out, err = capsys.readouterr()
    assert out == ""
    assert err == (
        "npusim: model 'compiled' must not be compiled yet, got one that Vela compiled; "
        "its streams: npusim stream\n"
    )


def test_a_cut_stream_is_refused_with_its_bit(run, raw, tmp_path):
    path = tmp_path / "cut.bin"
    path.write_bytes(raw.read_bytes()[:-40])
    code, out, err = run(path, "--format", "json", "--output", tmp_path / "out.json")
    assert (code, out) == (2, "")
    assert err.startswith(f"npusim: stream 0 of {path}: stream must end with an end marker")
    n_bits = int(err.rsplit("at bit ", 1)[1].rstrip(")\n"))
    assert 0 < n_bits <= 8 * path.stat().st_size
    assert not (tmp_path / "out.json").exists()


def test_refused_files_and_numbers(run, raw, tmp_path):
    model = Path(tmp_path / "model.tflite")
    model.write_bytes(b"\x1c\0\0\0TFL3" + bytes(8))
    (tmp_path / "empty.bin").write_bytes(b"")
    for args, message in (
        ([tmp_path / "missing"], "FILE must be a readable file, got "),
        ([tmp_path], "FILE must be a readable file, got "),
        ([tmp_path / "empty.bin"], "stream 0 of "),
        ([raw, "--stream", "1"], "stream must be in 0..0, got 1"),
        ([raw, "--stream", "-1"], "stream must be in 0..0, got -1"),
        ([raw, "--output", tmp_path / "no" / "x"], "--output must be in a folder that can be"),
        ([model], f"{model}: "),
    ):
        code, out, err = run(*args)
        assert (code, out) == (2, ""), args
        assert err.startswith(f"npusim: {message}")


def test_a_model_that_is_not_compiled_is_refused(run, tmp_path):
    net = NetworkBuilder("plain")
    x = net.input((1, 4, 4, 8), scale=0.1)
    (tmp_path / "plain.tflite").write_bytes(to_bytes(net.build(net.op("ADD", x, x, scale=0.1))))
    code, out, err = run(tmp_path / "plain.tflite")
    assert (code, out) == (2, "")
    assert err.endswith("which is not compiled; its sizes: npusim compress\n")
