# SPDX-License-Identifier: Apache-2.0
"""``npusim report``: what it writes and refuses."""

from __future__ import annotations

import json
import re

import pytest

pytest.importorskip("vl_convert", reason="needs vl-convert: pip install 'npusim[report]'")


def sections(path) -> dict:
    html = path.read_text("utf-8")
    text = re.search(r'id="page-content">(.*?)</script>', html)[1]
    return {section["name"]: section for section in json.loads(text)["sections"]}


def test_models_on_machines(run, models, tmp_path, monkeypatch):
    monkeypatch.setattr("sys.argv", ["npusim", "report", "x"])
    out = tmp_path / "r.html"
    code, said, err = run(
        *("report", models, "digits:seed=1", "--npu", "ethos-u55-128,ethos-u55-32"),
        *("--out", out, "--compare-schemes", "raw,zvc", "--prune", "0,50%"),
    )
    assert (code, err) == (0, "")
    assert said == f"{out}: {out.stat().st_size / 1e6:.1f} MB, opens in any browser\n"
    found = sections(out)
    assert list(found) == ["costs", "schemes", "first", "second", "digits-seed-1"]
    models = found["costs"]["data"]["costs"]["model"]
    assert models == {"texts": ["first", "second", "digits:seed=1"], "packed": "001122"}
    assert found["schemes"]["data"]["schemes"]["condition"]["texts"] == [
        *("as it is", "50 % non-zeros")
    ]
    assert "<dd>npusim report x</dd>" in out.read_text("utf-8")


def test_figures(run, model, tmp_path):
    code, said, _ = run("report", model, "--out", tmp_path / "r.html", "--figures", tmp_path / "f")
    files = sorted(path.name for path in (tmp_path / "f").iterdir())
    assert code == 0
    assert said.splitlines()[1] == f"{tmp_path / 'f'}: {len(files)} files"
    assert {"costs--matrix.png", "first-on-ethos-u55-128--cycles.svg", "costs--costs.csv"} <= {
        *files
    }


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nowhere.tflite"], "nowhere.tflite"),
        (["{tmp}"], r"INPUT must be a model or a directory of benches, runs, got"),
        (["{model}", "--prune", "0.5"], r"--prune must go with --compare-schemes, got 0.5"),
        (["{model}", "--compare-schemes", "huffmann"], r"did you mean 'huffman'\?"),
        (["{model}", "--compare-schemes", "all", "--prune", "2"], r"--prune must be fractions"),
        (["digits:seed=1", "--compare-schemes", "all"], r"must go with a model that is a file"),
        (["{model}", "--out", "{tmp}/none/r.html"], r"--out must be in a folder that can be"),
        (["{model}", "--npu", "ethos-u1"], r"npu must be one of"),
    ],
)
def test_mistakes(run, model, tmp_path, arguments, message):
    given = [text.format(tmp=tmp_path, model=model) for text in arguments]
    out = [] if "--out" in given else ["--out", tmp_path / "r.html"]
    code, said, err = run("report", *given, *out)
    assert (code, said) == (2, "")
    assert re.search(message, err)
    assert not (tmp_path / "r.html").exists()
