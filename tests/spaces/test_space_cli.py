# SPDX-License-Identifier: Apache-2.0
"""The command npusim space: what it prints, draws and refuses."""

from __future__ import annotations

import csv
import io
import json

import pytest

import spaces
from npusim.cli import main
from spaces import overview
from spaces.costs import cost


@pytest.fixture
def run(capsys):
    def call(*args: str) -> tuple[int, str, str]:
        with pytest.raises(SystemExit) as stop:
            main(["space", *args])
        out, err = capsys.readouterr()
        return stop.value.code, out, err

    return call


class TestList:
    def test_has_every_space(self, run):
        code, out, _ = run("list")
        assert code == 0
        assert all(name in out for name in spaces.names())
        assert "15,625" in out

    def test_as_data(self, run):
        rows = json.loads(run("list", "--format", "json")[1])
        assert [row["space"] for row in rows] == spaces.names()
        assert {row["space"]: row["candidates"] for row in rows}["nas_bench_201"] == 15625
        table = list(csv.DictReader(io.StringIO(run("list", "--format", "csv")[1])))
        assert {row["space"]: row["decisions"] for row in table}["cifar100"] == "52"


class TestShow:
    def test_names_layers_options_and_costs(self, run):
        code, out, _ = run("show", "digits", "--limit", "1KB")
        assert code == 0
        assert all(layer.name in out for layer in spaces.get("digits").layers)
        assert "3 x width: 0.1 0.2" in out
        assert "size_bits: 5.4 B to 19.06 KB" in out
        assert "within 1.00 KB: 10^9.16 candidates, a share of 10^-0.41 (dynamic programme)" in out

    def test_bounds_are_called_so(self, run):
        out = run("show", "cifar100", "-o", "multiplier=1", "--limit", "50KB")[1]
        assert "within 50.00 KB: at most 10^" in out

    def test_json_is_all_there_is_to_know(self, run):
        found = json.loads(run("show", "digits", "--limit", "20k macs", "--format", "json")[1])
        space = spaces.get("digits")
        assert found["hash"] == space.content_hash
        assert found["definition"] == space.definition()
        assert found["costs"]["macs"]["most"] == cost(space, space.largest(), "macs")
        assert (found["within"]["measure"], found["within"]["most"]) == ("macs", 20_000)
        assert found["within"]["exact"] is True

    def test_csv_has_a_row_a_layer(self, run):
        out = run("show", "super_resolution", "-o", "layers=2", "--format", "csv")[1]
        rows = {row["layer"]: row for row in csv.DictReader(io.StringIO(out))}
        assert rows["map1"]["kernel"] == "1, 3, 5, 7"
        assert rows["maps"]["inputs"] == "shrink map1 map2"
        assert rows["depth_to_space1"]["ofm"] == "256x256x1"

    def test_model_files_are_spaces(self, run, tmp_path):
        from test_given import small_network

        from npusim.formats import tflite_write

        path = tmp_path / "small.tflite"
        tflite_write.write(small_network(), path)
        out = run("show", str(path))[1]
        assert "DEPTHWISE_CONV_2D" in out
        assert "2 x bitwidth: 1 2 4 8" in out

    def test_output_goes_to_a_file(self, run, tmp_path):
        path = tmp_path / "space.json"
        assert run("show", "digits", "--format", "json", "--output", str(path))[1] == ""
        assert json.loads(path.read_text("utf-8"))["space"] == "digits"


class TestPlot:
    @pytest.mark.parametrize("name", ["digits", "super_resolution"])
    def test_has_every_layer(self, run, tmp_path, name):
        pytest.importorskip("matplotlib", reason="needs matplotlib to draw")
        path = tmp_path / "graph.svg"
        assert run("show", name, "--plot", str(path))[0] == 0
        drawn = path.read_text("utf-8")
        assert all(f"<!-- {layer.name} -->" in drawn for layer in spaces.get(name).layers)

    def test_edges_that_pass_layers_have_lanes_of_their_own(self):
        import networkx

        space = spaces.get("super_resolution")
        rows = list(networkx.topological_generations(space.graph()))
        places = {name: (0.0, level) for level, (name,) in enumerate(rows)}
        lanes = overview._lanes(space, rows, places)
        assert len(lanes) == len(set(lanes.values())) == 8
        assert all(target == "maps" for _, target in lanes)

    def test_too_many_layers(self, run, tmp_path):
        pytest.importorskip("matplotlib", reason="needs matplotlib to draw")
        code, _, err = run("show", "nas_bench_201", "--plot", str(tmp_path / "graph.png"))
        assert code == 2
        assert "layers to draw must be at most 400, got 544 of space 'nas_bench_201'" in err


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (("digit",), "space must be one of"),
        (("digits", "-o", "colour=red"), "options of space 'digits' must be ones it has"),
        (("digits", "-o", "widths"), "option of a space must be KEY=VALUE, got 'widths'"),
        (("digits", "-o", "widths=3"), "options of a width must be several values, got 3"),
        (("digits", "-o", 'widths=["a"]'), "must be in 1e-06..1, got 'a'"),
        (("digits", "--limit", "1"), "size must be a positive number and one of"),
        (("digits", "--limit", "1M cycles"), "measure must be one of macs"),
        (("digits", "--limit", "1B"), "limit on size_bits must be at least 43 (5.4 B), the least"),
        (("digits", "--plot", "graph.docx"), "plot must end in one of"),
        (("missing.tflite",), "missing.tflite"),
    ],
)
def test_mistakes_are_named(run, args, message):
    code, out, err = run("show", *args)
    assert code == 2
    assert out == ""
    assert message in err
