#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""A run of a million trials: what it takes to write, resume, look at and read.

    python benches/trials_store.py [--trials 1000000]

CPU seconds of one process. The trials are those of a short search, over and over.
"""

from __future__ import annotations

import argparse
import dataclasses
import sqlite3
import sys
import tempfile
import time
from collections import deque
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import searchers
import spaces
from searchers.base import Budget, History, run
from searchers.export import to_optuna
from searchers.page_runs import section_of
from searchers.store import RunStore, count_trials, rows, run_identity
from searchers.stored import read_run
from searchers.tabular import PlantedEvaluator
from spaces.limits import Limit

N_LOOKED_AT = 1000
FIELDS = (
    "choices, seed, score, violation, costs, metrics, n_images, wall_s, cpu_s, search_images, "
    "search_metrics, search_wall_s, search_cpu_s"
)


def main() -> None:
    """Make the run in a temporary directory and print a figure a line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--trials", type=int, default=1_000_000)
    n = parser.parse_args().trials
    space, limit = spaces.get("digits"), Limit.size("1KB")
    evaluator = PlantedEvaluator(space, seed=0)
    identity = run_identity(space, limit, "random", {}, 0, evaluator.identity())
    trials = run(searchers.get("random"), space, limit, evaluator, Budget(trials=64), seed=0)
    with tempfile.TemporaryDirectory() as name:
        directory = Path(name)
        with RunStore(directory, space, identity) as store:
            took = seconds(lambda: [store.append(trial) for trial in trials])
        print(f"write and sync one of few:  {1e3 * took / len(trials):10.2f} ms")
        took = seconds(lambda: to_optuna(directory, f"sqlite:///{directory / 'study.db'}", "run"))
        print(f"export one to SQLite:       {1e3 * took / len(trials):10.1f} ms")
        with closing(sqlite3.connect(directory / "trials.sqlite")) as database, database:
            database.execute(
                "with recursive n(i) as (select 64 union all select i + 1 from n where i < ?) "
                f"insert into trials select i, {FIELDS} from n join trials on idx = i % 64",
                (n - 1,),
            )
        size = (directory / "trials.sqlite").stat().st_size
        print(f"file:                       {size / 1e6:10.1f} MB")
        with RunStore(directory, space, identity) as store:
            more = [dataclasses.replace(trials[0], index=n + i) for i in range(N_LOOKED_AT)]
            took = seconds(lambda: [store.append(trial) for trial in more])
            print(f"write and sync one of many: {1e3 * took / N_LOOKED_AT:10.2f} ms")
            took = seconds(lambda: [store.get(i * (n // N_LOOKED_AT)) for i in range(N_LOOKED_AT)])
            print(f"look up one (resume):       {1e6 * took / N_LOOKED_AT:10.1f} us")
        print(f"count all:                  {seconds(lambda: count_trials(directory)):10.3f} s")
        took = seconds(lambda: deque(rows(directory), maxlen=0))
        print(f"rows of all (export):       {took:10.1f} s")
        found: list[Any] = []
        took = seconds(lambda: found.append(read_run(directory)))
        print(f"read the whole run:         {took:10.1f} s")
        history: list[History] = []
        took = seconds(lambda: history.append(History(found[0].trials)))
        took += seconds(history[0].best_scores)
        print(f"best so far, all along:     {took:10.1f} s")
        took = seconds(lambda: section_of({"run": found[0]}))
        print(f"section of a report:        {took:10.1f} s")
        took = seconds(lambda: to_optuna(directory, str(directory / "study.log"), "run"))
        print(f"export one to a journal:    {1e6 * took / n:10.1f} us")


def seconds(function: Callable[[], Any]) -> float:
    """CPU time of a call."""
    start = time.process_time()
    function()
    return time.process_time() - start


if __name__ == "__main__":
    sys.exit(main())
