# SPDX-License-Identifier: Apache-2.0
"""The commands ``npusim deploy`` and ``npusim export``."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from npusim.cli import main
from npusim.formats.tflite_write import write

sys.path.insert(0, str(Path(__file__).parent.parent))

from test_deployment import small


def run(capsys, *args, command="deploy"):
    with pytest.raises(SystemExit) as exit_code:
        main([command, *map(str, args)])
    found = capsys.readouterr()
    return exit_code.value.code, found.out, found.err


@pytest.fixture
def model(tmp_path):
    write(small(), tmp_path / "small.tflite")
    return tmp_path / "small.tflite"


class TestModels:
    def test_tables(self, capsys, model):
        pytest.importorskip("ai_edge_litert")
        pytest.importorskip("ethosu.regor", reason="ethos-u-vela is the oracle")
        code, out, _ = run(capsys, model, "--samples", 2, "--npu", "ethos-u55-64")
        assert code == 0
        assert "small: 4,608 weights on ethos-u55-64" in out
        assert [line.split("│")[4].strip() for line in out.splitlines() if "flash" in line] == [
            "+0.00 %"
        ]
        rows = [line for line in out.splitlines() if line.startswith("│ LiteRT")]
        assert [row.split("│")[2].strip() for row in rows] == ["all"] * 3

    def test_json(self, capsys, model, tmp_path):
        code, out, _ = run(capsys, model, "--samples", 1, "--json", "--output", tmp_path / "a.json")
        assert (code, out) == (0, "")
        found = json.loads((tmp_path / "a.json").read_text("utf-8"))
        assert found["n_samples"] == 1
        assert found["stream_bytes"] > 0
        assert {each["runtime"].split(", ")[1] for each in found["runtimes"]} == {
            "litert_ref",
            "litert_opt",
            "xnnpack",
        }

    def test_the_same_seed_gives_the_same(self, capsys, model):
        texts = [run(capsys, model, "--samples", 1, "--json", "--seed", 3)[1] for _ in range(2)]
        assert texts[0] == texts[1]


class TestRefusals:
    @pytest.mark.parametrize(
        ("args", "message"),
        [
            (["--samples", 0], "--samples must be in 1..1000000, got 0"),
            (["--seed", -1], "--seed must be in 0..4294967295, got -1"),
            (["--npu", "ethos-u55-32,ethos-u55-64"], "--npu must be one"),
            (["--fine-bias"], "--fine-bias must go with a RUN, got "),
            (["-o", "multiplier=1"], "--option must go with a RUN, got "),
        ],
    )
    def test_of_options(self, capsys, model, args, message):
        code, out, err = run(capsys, model, *args)
        assert (code, out) == (2, "")
        assert message in err

    def test_of_models_that_are_not_there(self, capsys, tmp_path):
        code, _, err = run(capsys, tmp_path / "none.tflite")
        assert code == 2
        assert "model must be a readable file" in err

    def test_of_operations_on_the_cpu(self, capsys, tmp_path):
        write(small("LOG_SOFTMAX"), tmp_path / "soft.tflite")
        code, out, err = run(capsys, tmp_path / "soft.tflite")
        assert (code, out) == (2, "")
        assert "got 1 that fall back to the CPU: LOG_SOFTMAX 'log_softmax'" in err
