# SPDX-License-Identifier: Apache-2.0
"""Pages of figures and tables: what they refuse, hold and write."""

from __future__ import annotations

import csv
import json
import re
import sys

import pytest

from npusim.errors import ConfigError, MissingExtraError
from npusim.report.page import Drawings, Figure, Filter, Heading, Page, Section, Table

DATA = {"points": {"name": ["a", "b<"], "x": [1.5, float("nan")], "of": ["same", "same"]}}
SPEC = {
    "data": {"name": "points"},
    "mark": "point",
    "encoding": {"x": {"field": "x", "type": "quantitative"}, "y": {"field": "name"}},
}
FIGURE = Figure("dots", "Dots & lines", SPEC, "What they are.", {"step": 20})
TABLE = Table("list", "List", "points", (Heading("name", "name"), Heading("x", "x", 2)))
SECTION = Section("one", "One </script>", DATA, (FIGURE, TABLE))


def page(*sections: Section) -> Page:
    return Page("A <page>", sections, {"command": "npusim report 'a b'"})


def content(html: str) -> dict:
    found = re.search(r'<script type="application/json" id="page-content">(.*?)</script>', html)
    assert found
    return json.loads(found[1])


class TestPlainData:
    def test_columns_have_one_length(self):
        with pytest.raises(
            ConfigError, match=r"^columns of 'a' must have one length, got \[1, 2\]"
        ):
            Section("s", "S", {"a": {"x": [1], "y": [1, 2]}}, ())

    @pytest.mark.parametrize("part", [FIGURE, TABLE])
    def test_parts_name_data_that_are_there(self, part):
        with pytest.raises(ConfigError, match=r"must be in its section, got 'points'$"):
            Section("s", "S", {"other": {"x": [1]}}, (part,))

    def test_filters_are_of_a_kind(self):
        with pytest.raises(ConfigError, match=r"^kind of a filter must be many, one or flag, got"):
            Filter("x", "x", "some")

    def test_sections_have_names_of_their_own(self):
        from npusim.report.page_files import render

        with pytest.raises(ConfigError, match=r"^names of sections must be unique, got one, one$"):
            render(page(SECTION, SECTION))

    def test_drawings_are_put_together_from_parts(self):
        parts = ({"layer": ["in", "out"]}, {"bits": [8, None]})
        drawn = Drawings("layers", parts, [[(0, 1), (1, 0)], [(1, 1)]], 0, ("points", ()))
        assert drawn.columns(0) == {"place": [0, 1], "layer": ["in", "out"], "bits": [None, 8]}
        assert drawn.columns(1) == {"place": [0], "layer": ["out"], "bits": [None]}


@pytest.fixture(scope="module")
def html() -> str:
    pytest.importorskip("vl_convert", reason="needs vl-convert: pip install 'npusim[report]'")
    from npusim.report.page_files import render

    return render(page(SECTION))


class TestHtml:
    def test_needs_nothing_else(self, html):
        outside = re.sub(r"<script>.*?</script>", "<script></script>", html, flags=re.DOTALL)
        tags = "".join(re.findall(r"<(?:link|script|img|iframe)[^>]*>", outside))
        assert re.findall(r"(?:src|href)=\"(?!data:)[^\"]*\"", tags) == []
        assert "@import" not in outside
        assert len(html.encode()) < 5_000_000

    def test_text_is_text(self, html):
        assert "<title>A &lt;page&gt;</title>" in html
        assert "One &lt;/script&gt;" in html
        assert "npusim report &#39;a b&#39;" in html
        assert html.count("</script>") == 3

    def test_content_is_the_data(self, html):
        (section,) = content(html)["sections"]
        assert section["data"]["points"]["name"] == ["a", "b<"]
        assert section["data"]["points"]["x"] == [1.5, None]
        assert section["data"]["points"]["of"] == {"texts": ["same"], "packed": "00"}
        assert section["figures"][0]["data"] == ["points"]
        assert section["tables"][0]["headings"][1] == {"column": "x", "text": "x", "digits": 2}

    def test_can_be_used_by_keys_and_read_aloud(self, html):
        assert '<html lang="en">' in html
        assert 'aria-labelledby="one--dots-title"' in html
        assert html.count('tabindex="0" role="region"') == 2
        assert '<a class="skip" href="#content">' in html


class TestFiles:
    def test_every_figure_in_every_format(self, tmp_path):
        pytest.importorskip("vl_convert", reason="needs vl-convert: pip install 'npusim[report]'")
        from npusim.report.page_files import write_figures

        steps = []
        written = write_figures(
            page(SECTION), str(tmp_path / "new"), lambda *done: steps.append(done)
        )
        assert sorted(path.name for path in written) == [
            *("one--dots.json", "one--dots.png", "one--dots.svg"),
            *("one--points.csv", "one--points.data.json"),
        ]
        assert steps == [(1, 1)]
        folder = tmp_path / "new"
        assert (folder / "one--dots.png").read_bytes().startswith(b"\x89PNG")
        assert "Dots &amp; lines" in (folder / "one--dots.svg").read_text()
        spec = json.loads((folder / "one--dots.json").read_text())
        assert spec["datasets"]["points"][1] == {"name": "b<", "x": None, "of": "same"}
        with (folder / "one--points.csv").open() as file:
            assert list(csv.reader(file)) == [
                *(["name", "x", "of"], ["a", "1.5", "same"], ["b<", "nan", "same"])
            ]

    def test_a_folder_that_cannot_be_made(self, tmp_path):
        pytest.importorskip("vl_convert", reason="needs vl-convert: pip install 'npusim[report]'")
        from npusim.report.page_files import write_figures

        (tmp_path / "file").write_text("")
        with pytest.raises(ConfigError, match=r"^--figures must be a folder that can be made, got"):
            write_figures(page(SECTION), str(tmp_path / "file" / "below"))

    @pytest.mark.parametrize("module", ["vl_convert", "jinja2"])
    def test_what_is_not_installed_is_named(self, monkeypatch, module):
        from npusim.report.page_files import check_page

        pytest.importorskip("vl_convert", reason="needs vl-convert: pip install 'npusim[report]'")
        monkeypatch.setitem(sys.modules, module, None)
        with pytest.raises(MissingExtraError, match=r"^a report must have the extra \[report\]"):
            check_page()
