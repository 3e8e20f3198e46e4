# SPDX-License-Identifier: Apache-2.0
"""The texts: their commands run, their links lead somewhere, and they become pages.

Their Python examples run as doctests.
"""

from __future__ import annotations

import importlib.util
import re
import shlex
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
TEXTS = sorted((ROOT / "docs").glob("*.md"))
BLOCK = re.compile(r"^```(\w*)\n(.*?)^```$", re.DOTALL | re.MULTILINE)


def commands(path: Path) -> list[str]:
    """Lines of the text's blocks of commands."""
    return [
        line
        for kind, block in BLOCK.findall(path.read_text("utf-8"))
        if kind == "sh"
        for line in block.splitlines()
    ]


WITH_COMMANDS = [path for path in TEXTS if commands(path)]


def builder():
    spec = importlib.util.spec_from_file_location("docs_build", ROOT / "docs" / "build.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("path", TEXTS, ids=lambda path: path.stem)
def test_every_block_is_run(path):
    """As doctests, or as commands below; data to look at is indented."""
    for kind, block in BLOCK.findall(path.read_text("utf-8")):
        assert kind == "sh" or (kind in ("pycon", "python") and block.startswith(">>> ")), block


@pytest.mark.parametrize("path", WITH_COMMANDS, ids=lambda path: path.stem)
def test_commands(path, tmp_path, monkeypatch, capsys):
    from cli.small_models import chain

    from npusim import cli
    from npusim.formats.tflite_write import write

    lines = commands(path)
    if any("report" in line for line in lines):
        pytest.importorskip("vl_convert", reason="needs vl-convert: pip install 'npusim[report]'")
    if any("search" in line for line in lines):
        pytest.importorskip("torch", reason="needs torch: pip install 'npusim[search]'")
    monkeypatch.chdir(tmp_path)
    write(chain("model"), tmp_path / "model.tflite")
    for line in lines:
        program, *arguments = shlex.split(line)
        assert program == "npusim"
        with pytest.raises(SystemExit) as stop:
            cli.main(arguments)
        assert stop.value.code == 0, (line, capsys.readouterr().err)
        for option in ("--out", "--output", "--figures"):
            if option in arguments:
                assert Path(arguments[arguments.index(option) + 1]).exists()


@pytest.mark.parametrize("path", [ROOT / "README.md", *TEXTS], ids=lambda path: path.stem)
def test_links_lead_somewhere(path):
    anchor = builder().anchor
    for target in re.findall(r"\]\(([^)\s]+)\)", path.read_text("utf-8")):
        file, _, name = target.partition("#")
        if "://" in target:
            continue
        found = path.parent / file if file else path
        assert found.exists(), target
        if name:
            titles = re.findall(r"^#+ (.*)$", found.read_text("utf-8"), re.MULTILINE)
            assert name in map(anchor, titles), target


def test_texts_become_pages(tmp_path):
    pages = {path.stem: path.read_text("utf-8") for path in builder().build(tmp_path)}
    assert {"index", "tour", "architect", "how_to"} <= set(pages)
    assert '<a href="architect.html">' in pages["index"]
    assert '<h2 id="add-an-npu">' in pages["how_to"]
    for name, html in pages.items():
        for target in re.findall(r'(?:href|src)="([^"#:]+)(?:#[^"]*)?"', html):
            missing = target.startswith("api/") or "benches" in target
            assert missing or (tmp_path / target).exists(), (name, target)


def test_every_picture_is_made_by_the_script():
    made = set(
        re.findall(r"^def (\w+)\(\) -> Figure:", (ROOT / "docs/pictures.py").read_text(), re.M)
    )
    assert made == {path.stem for path in (ROOT / "docs" / "pictures").glob("*.svg")}
    shown = {
        name
        for path in TEXTS
        for name in re.findall(r"pictures/(\w+)\.svg", path.read_text("utf-8"))
    }
    assert shown == made
