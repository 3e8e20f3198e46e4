# SPDX-License-Identifier: Apache-2.0
"""How long a report of many trials takes to make and to open in Chromium, and its size.

python benches/report_page.py [--trials 10000] [--space digits]
"""

from __future__ import annotations

import argparse
import shutil
import tempfile
import time
from pathlib import Path

import numpy as np
from playwright.sync_api import sync_playwright

import spaces
from npusim.report.page import Page
from npusim.report.page_files import write_page
from npusim.report.provenance import processor
from searchers.base import Trial
from searchers.page_runs import section_of
from searchers.stored import StoredRun
from spaces.costs import MEASURES, costs
from spaces.limits import Limit

REPEATS = 3
N_RUNS = 5
SIZE_MAX_MB, OPEN_MAX_S = 5, 2
"""What a report of 10,000 trials must stay below."""


def random_run(space: spaces.Space, name: str, n_trials: int, seed: int) -> StoredRun:
    """Random candidates with scores that rise with their size."""
    rng = np.random.default_rng(seed)
    choices = space.canonical(space.sample_many(rng, n_trials))
    found = {measure: costs(space, choices, measure) for measure in MEASURES}
    noise = rng.normal(0, 0.02, n_trials)
    trials = []
    for i, one in enumerate(choices.tolist()):
        own = {measure: int(values[i]) for measure, values in found.items()}
        score = float(0.5 + 0.03 * np.log(own["size_bits"]) + noise[i])
        trials.append(Trial(i, space.candidate(one), i, own, score, {}, 100, 0.0, 1.0, 1.0))
    header = {"searcher": name, "options": {}, "seed": seed, "evaluator": {"evaluator": "none"}}
    return StoredRun(header, space, Limit("size_bits", 1 << 40), tuple(trials), None)


def open_s(path: Path) -> list[tuple[float, float]]:
    """Seconds from the request to the first figure, and the page's CPU-seconds until then.

    The page is opened afresh each time.
    """
    chromium = shutil.which("chromium")
    if chromium is None:
        raise SystemExit("needs chromium")
    found = []
    with sync_playwright() as playwright:
        arguments = ["--headless", "--no-sandbox", "--disable-gpu"]
        browser = playwright.chromium.launch(executable_path=chromium, args=arguments)
        for _ in range(REPEATS):
            page = browser.new_page()
            session = page.context.new_cdp_session(page)
            session.send("Performance.enable", {"timeDomain": "threadTicks"})
            start = time.perf_counter()
            page.goto(path.as_uri())
            page.locator("figure[data-drawn]").first.wait_for()
            wall_s = time.perf_counter() - start
            metrics = session.send("Performance.getMetrics")["metrics"]
            cpu_s = {each["name"]: each["value"] for each in metrics}["TaskDuration"]
            found.append((wall_s, cpu_s))
            page.close()
        browser.close()
    return found


def main() -> None:
    """Print a line for each figure."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--trials", type=int, default=10_000)
    parser.add_argument("--space", default="digits")
    given = parser.parse_args()
    space = spaces.get(given.space)
    runs = {
        f"run{n}": random_run(space, f"searcher{n}", given.trials // N_RUNS, n)
        for n in range(N_RUNS)
    }
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "report.html"
        start = time.process_time()
        write_page(Page("bench", (section_of(runs),)), str(path))
        made_s = time.process_time() - start
        size_mb, opened = path.stat().st_size / 1e6, open_s(path)
    print(f"{given.trials:,} trials of {space.name}; {processor()}")
    print(f"made in {made_s:.1f} CPU-seconds, once kernels are compiled")
    print(f"{size_mb:.2f} MB (must be below {SIZE_MAX_MB})")
    wall_s, cpu_s = (min(values) for values in zip(*opened, strict=True))
    print(
        f"first figure {wall_s:.2f} s after opening (must be below {OPEN_MAX_S} on an idle machine)"
    )
    print(f"{cpu_s:.2f} CPU-seconds of the page until then")


if __name__ == "__main__":
    main()
