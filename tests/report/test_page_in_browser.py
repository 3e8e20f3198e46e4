# SPDX-License-Identifier: Apache-2.0
"""Reports in a real browser: they are drawn, can be used, and fetch nothing."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest

import spaces
from npusim.cost.what_if import Setup
from npusim.report.estimates import Estimate
from npusim.report.page import Page
from npusim.report.page_costs import cost_section
from npusim.report.page_files import write_page
from npusim.report.page_matrix import comparison
from searchers.base import Trial
from searchers.bench.page import bench_section
from searchers.bench.protocol_files import protocol_of
from searchers.bench.run import run_benchmark
from searchers.page_runs import section_of
from searchers.stored import StoredRun
from spaces.costs import MEASURES
from spaces.costs import costs as costs_of
from spaces.limits import Limit
from spaces.workload import workload

READ_AND_TOLD = """
    globalThis.read = new Set();
    globalThis.told = new Set();
    const lists = MediaQueryList.prototype, listen = EventTarget.prototype.addEventListener;
    const matches = Object.getOwnPropertyDescriptor(lists, "matches").get;
    const get = function () { read.add(this); return matches.call(this); };
    Object.defineProperty(lists, "matches", { get });
    lists.addEventListener = function (...all) { told.add(this); return listen.apply(this, all); };
"""
"""A script that notes which lists of media queries are read, and which are listened to."""

PHONE = {"viewport": {"width": 390, "height": 844}, "has_touch": True}


def run(searcher: str, seed: int, n_trials: int) -> StoredRun:
    """A run that never was: random candidates, scores that rise with their size."""
    space, rng = spaces.get("digits"), np.random.default_rng(seed)
    choices = space.canonical(space.sample_many(rng, n_trials))
    costs = {measure: costs_of(space, choices, measure) for measure in MEASURES}
    noise = rng.normal(0, 0.02, n_trials)
    trials = []
    for i, one in enumerate(choices.tolist()):
        own = {measure: int(values[i]) for measure, values in costs.items()}
        score = float(0.5 + 0.03 * np.log(own["size_bits"]) + noise[i])
        trials.append(
            Trial(i, space.candidate(one), i, own, score, {}, 10, float(i % 5 == 0), 0.1, 0.1)
        )
    header = {"searcher": searcher, "options": {}, "seed": seed, "evaluator": {"evaluator": "none"}}
    return StoredRun(header, space, Limit.size("3KB"), tuple(trials), None)


@pytest.fixture(scope="module")
def models(tmp_path_factory) -> Path:
    pytest.importorskip("vl_convert", reason="needs vl-convert: pip install 'npusim[report]'")
    one = workload("digits:seed=3")
    setups = [Setup("ethos-u55-128"), Setup("ethos-u55-32")]
    found = [Estimate(one.cost(setup.machine()), setup.machine()) for setup in setups]
    path = tmp_path_factory.mktemp("models") / "report.html"
    sections = (comparison(found), cost_section(found, one.program))
    write_page(Page("Models", sections, {"command": "npusim report"}), str(path))
    return path


@pytest.fixture(scope="module")
def runs(tmp_path_factory) -> Path:
    pytest.importorskip("vl_convert", reason="needs vl-convert: pip install 'npusim[report]'")
    section = section_of({"a": run("random", 0, 30), "b": run("evolution", 1, 50)})
    path = tmp_path_factory.mktemp("runs") / "report.html"
    write_page(Page("Runs", (section,)), str(path))
    return path


@pytest.fixture(scope="module")
def bench(tmp_path_factory) -> Path:
    pytest.importorskip("vl_convert", reason="needs vl-convert: pip install 'npusim[report]'")
    pytest.importorskip("tomli_w", reason="needs tomli-w: pip install 'npusim[bench]'")
    task = {"space": "digits", "limits": ["0.5KB", "1KB"], "evaluator": "planted:0:0.1"}
    names = ("random", "evolution", "uniform-precision")
    said = {"seeds": 8, "npu": "ethos-u55-64", "budget": {"trials": 6}, "tasks": [task]}
    protocol = protocol_of({**said, "searchers": [{"searcher": name} for name in names]})
    folder = tmp_path_factory.mktemp("bench")
    section = bench_section("small", run_benchmark(protocol, folder / "small"))
    write_page(Page("Bench", (section,)), str(folder / "report.html"))
    return folder / "report.html"


def n_drawn(figure, kind: str = "symbol") -> int:
    """Marks of the first group of points (or other marks) in a figure."""
    group = figure.locator(f".mark-{kind}.role-mark").first
    return group.locator("path").count()


class TestModels:
    @pytest.mark.parametrize(
        ("name", "options"),
        [
            ("light", {}),
            ("dark", {"color_scheme": "dark"}),
            ("phone", PHONE),
            ("phone-dark", {**PHONE, "color_scheme": "dark"}),
        ],
    )
    def test_all_is_drawn_and_nothing_fetched(self, visit, models, name, options):
        found = visit(models, **options)
        figures = ("matrix", "cycles", "bytes", "roofline", "memory", "architecture")
        for figure in figures:
            assert found.figure(figure).locator("svg path").count() > 3
        assert found.page.locator("figure").count() == len(figures)
        found.screenshot(f"models-{name}")
        assert (found.errors, found.requests) == ([], [])
        wide = found.page.evaluate("document.documentElement.scrollWidth")
        assert wide <= found.page.viewport_size["width"]

    def test_colours_follow_the_reader_s_choice(self, visit, models):
        found = visit(models, color_scheme="light")
        back = "getComputedStyle(document.documentElement).backgroundColor"
        letters = "figure svg .role-axis-label text"
        found.figure("cycles")
        light = found.page.evaluate(back), found.page.locator(letters).first.get_attribute("fill")
        found.page.emulate_media(color_scheme="dark")
        found.page.wait_for_function(
            f"document.querySelector('{letters}')?.getAttribute('fill') !== '{light[1]}'"
        )
        assert found.page.evaluate(back) == "rgb(17, 22, 29)" != light[0]

    def test_a_media_query_that_is_listened_to_is_never_read(self, visit, models):
        """Else a change can be missed, as in 1 of 60 visits: figures keep their colours."""
        found = visit(models)
        found.page.add_init_script(READ_AND_TOLD)
        found.page.reload()
        found.figure("cycles")
        assert found.page.evaluate("[read.size > 0, told.size]") == [True, 2]
        assert found.page.evaluate("[...told].filter((list) => read.has(list)).length") == 0

    def test_the_machine_is_chosen(self, visit, models):
        found = visit(models)
        found.figure("roofline")
        table = found.page.locator("[id$='--operations'] tbody")
        before = table.inner_text()
        found.page.get_by_role("combobox", name="machine").select_option(label="ethos-u55-32")
        assert table.inner_text() != before
        assert len(table.locator("tr").all()) == 6

    def test_pointing_tells_more(self, visit, models):
        found = visit(models)
        figure = found.figure("cycles")
        figure.locator(".mark-rect.role-mark path").first.hover()
        tip = found.page.locator("#vg-tooltip-element.visible")
        tip.wait_for()
        assert re.search(r"operation\s*conv1", tip.inner_text())

    def test_tables_are_sorted_by_keys(self, visit, models):
        found = visit(models)
        head = found.page.locator("[id$='--operations'] th", has_text="cycles")
        head.locator("button").focus()
        found.page.keyboard.press("Enter")
        assert head.get_attribute("aria-sort") == "descending"
        cells = found.page.locator(
            "[id$='--operations'] tbody tr td:nth-child(4)"
        ).all_inner_texts()
        cycles = [int(text.replace(",", "")) for text in cells]
        assert cycles == sorted(cycles, reverse=True)
        found.page.keyboard.press("Enter")
        assert head.get_attribute("aria-sort") == "ascending"

    def test_figures_are_saved(self, visit, models, tmp_path):
        found = visit(models)
        figure = found.figure("cycles")
        starts = {"svg": b"<svg", "png": b"\x89PNG", "csv": b"machine,operation,", "json": b"{"}
        for kind, start in starts.items():
            with found.page.expect_download() as waiting:
                figure.get_by_role("button", name=kind.upper()).click()
            assert waiting.value.suggested_filename.endswith(f"--cycles.{kind}")
            waiting.value.save_as(tmp_path / kind)
            assert (tmp_path / kind).read_bytes().startswith(start)
        stages = json.loads((tmp_path / "json").read_text("utf-8"))["stages"]
        assert {row["machine"] for row in stages} == {"ethos-u55-128"}


class TestRuns:
    def test_all_is_drawn_and_nothing_fetched(self, visit, runs):
        found = visit(runs)
        for name in ("score-size-kb", "score-macs", "architecture", "progress", "front-cycles"):
            assert found.figure(name).locator("svg path").count() > 3
        found.screenshot("runs")
        assert (found.errors, found.requests) == ([], [])

    def test_filters(self, visit, runs):
        found = visit(runs)
        figure = found.figure("score-size-kb")
        count = found.page.locator("form output")
        assert (count.inner_text(), n_drawn(figure)) == ("80 of 80 trials", 80)
        found.page.get_by_role("checkbox", name="evolution").uncheck()
        assert count.inner_text() == "30 of 80 trials"
        found.page.wait_for_function(
            "document.querySelectorAll('figure .mark-symbol.role-mark')[0].children.length === 30"
        )
        found.page.get_by_role("checkbox", name="valid only").check()
        assert count.inner_text() == "24 of 80 trials"
        rows = found.page.locator("[id$='--trials'] tbody tr").all_inner_texts()
        assert len(rows) == 12
        assert all("random" in row and "yes" in row for row in rows)
        found.page.get_by_role("button", name="show all 24 rows").click()
        assert found.page.locator("[id$='--trials'] tbody tr").count() == 24

    def test_a_trial_is_drawn_when_it_is_clicked(self, visit, runs):
        found = visit(runs)
        told = found.figure("architecture").locator(".drawn")
        best = told.inner_text()
        figure = found.figure("score-macs")
        figure.locator(".mark-symbol.role-mark path").nth(40).click(force=True)
        found.page.wait_for_function("location.hash.includes('--drawing-')")
        assert told.inner_text() != best
        number = int(found.page.evaluate("location.hash").rpartition("-")[2])
        found.page.goto(f"{runs.as_uri()}#searches-digits--drawing-{number}")
        found.page.reload()
        assert found.figure("architecture").locator(".drawn").inner_text() == told.inner_text()

    def test_or_by_the_keys(self, visit, runs):
        found = visit(runs)
        button = found.page.locator("[id$='--trials'] tbody tr").nth(3).get_by_role("button")
        button.focus()
        found.page.keyboard.press("Enter")
        told = found.figure("architecture").locator(".drawn").inner_text()
        assert f"trial {button.inner_text()} " in told
        assert found.page.evaluate("location.hash").endswith("--drawing-3")
        texts = (
            found.figure("architecture").locator(".mark-text.role-mark text").all_text_contents()
        )
        assert texts[0].startswith("image:")
        assert any(re.search(r"conv 3×3.* bit · \d+% non-zero", text) for text in texts)

    def test_ten_thousand_trials(self, visit, tmp_path):
        section = section_of({f"r{n}": run(f"s{n}", n, 2000) for n in range(5)})
        path = tmp_path / "report.html"
        write_page(Page("Many", (section,)), str(path))
        assert path.stat().st_size < 5_000_000
        found = visit(path)
        assert found.figure("score-size-kb").locator("canvas").count() == 1
        assert found.page.locator("form output").inner_text() == "10,000 of 10,000 trials"
        assert (found.errors, found.requests) == ([], [])


class TestBench:
    @pytest.mark.parametrize(
        ("name", "options"), [("light", {}), ("phone-dark", {**PHONE, "color_scheme": "dark"})]
    )
    def test_all_is_drawn_and_nothing_fetched(self, visit, bench, name, options):
        found = visit(bench, **options)
        figures = ("scores", "ranks", "matrix", "anytime-trials", "anytime-seconds", "limits")
        figures += ("front-size-bits", "front-total-cycles", "spent")
        for figure in figures:
            assert found.figure(figure).locator("svg path").count() > 3
        assert found.page.locator("figure").count() == len(figures)
        found.screenshot(f"bench-{name}")
        assert (found.errors, found.requests) == ([], [])
        wide = found.page.evaluate("document.documentElement.scrollWidth")
        assert wide <= found.page.viewport_size["width"]

    def test_filters_and_hovers(self, visit, bench):
        found = visit(bench)
        table = found.page.locator("[id$='--summary'] tbody tr")
        assert table.count() == 2 * 4
        found.page.get_by_role("checkbox", name="digits, 1.00 KB").uncheck()
        assert table.count() == 4
        assert all("500.0 B" in row for row in table.all_inner_texts())
        figure = found.figure("matrix")
        figure.locator(".mark-text.role-mark text").first.hover()
        tip = found.page.locator("#vg-tooltip-element.visible")
        tip.wait_for()
        assert re.search(r"searcher\s*random", tip.inner_text())
        assert re.search(r"superiority\s*0\.\d\d", tip.inner_text())
