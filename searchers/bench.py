# SPDX-License-Identifier: Apache-2.0
"""Compare strategies: same space, limits, budget, evaluator and seeds for each of them.

A benchmark is a grid of studies, one for each strategy, limit and seed, run by worker processes
that share nothing. What a study finds depends on neither the worker nor their number, and a study
resumes where a killed worker left it.

The reference of a limit is what one random candidate reaches, without any search: random search
with a budget of one trial, over the same seeds.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from dataclasses import asdict, dataclass
from multiprocessing.synchronize import Event
from pathlib import Path
from typing import Any

import numpy as np

from npusim.errors import ConfigError
from searchers.base import Budget
from searchers.options import parse_label
from searchers.stats import bootstrap_mean, relative_improvement
from searchers.store import count_trials
from searchers.study import HeldOutEvaluator, Study, run_study
from searchers.workers import deaf_children
from spaces.base import Space
from spaces.limits import Limit

REFERENCE = "one random candidate"
"""Name of the reference in results."""
POLL_S = 0.5

MakeEvaluator = Callable[[Space], HeldOutEvaluator]


@dataclass(frozen=True, slots=True)
class Cell:
    """One study of a benchmark.

    Attributes:
        label: strategy as results name it; `REFERENCE` for the reference.
        directory: name of its run directory.
    """

    label: str
    study: Study
    directory: str


@dataclass(frozen=True, slots=True)
class Benchmark:
    """A grid of studies.

    Args:
        space: searched by all.
        searchers: registered names, with options as in ``evolution:population=20``.
        limits: of one measure.
        n_seeds: seeds 0..n_seeds-1 are run for each strategy and limit.
        trials: budget of each study.

    Raises:
        ConfigError: an empty or repeated entry, limits of different measures, or a number below 1.
    """

    space: Space
    searchers: tuple[str, ...]
    limits: tuple[Limit, ...]
    n_seeds: int
    trials: int

    def __post_init__(self) -> None:
        for what, values in (("searchers", self.searchers), ("limits", self.limits)):
            if not values or len(set(values)) != len(values):
                names = ", ".join(map(str, values))
                raise ConfigError(f"{what} must be one or more, each once, got {names or 'none'}")
        if len({limit.measure for limit in self.limits}) > 1:
            raise ConfigError("limits of a benchmark must be of one measure, got several")
        if self.n_seeds < 1 or self.trials < 1:
            raise ConfigError(
                f"seeds and trials must be at least 1, got {self.n_seeds} and {self.trials}"
            )

    def cells(self) -> list[Cell]:
        """All studies; those of one seed together, so that early results are comparable."""
        found = []
        for seed in range(self.n_seeds):
            for limit in self.limits:
                for label in (*self.searchers, REFERENCE):
                    reference = label == REFERENCE
                    searcher, options = parse_label("random" if reference else label)
                    budget = Budget(trials=1 if reference else self.trials)
                    name = "reference" if reference else label.replace(":", "+")
                    directory = f"{name}-{limit.most}-{seed}"
                    study = Study(self.space, searcher, limit, budget, seed, options)
                    found.append(Cell(label, study, directory))
        return found


def run_benchmark(
    benchmark: Benchmark,
    directory: Path,
    make_evaluator: MakeEvaluator,
    workers: int,
    on_progress: Callable[[int, int], None] = lambda n_trials, n_tested: None,
) -> dict[str, Any]:
    """Run what is missing of a benchmark and summarise all of it.

    Args:
        directory: keeps a run directory for each study.
        make_evaluator: makes an evaluator in each worker; must be picklable if there are several.
        workers: processes; 1 runs everything in this one.
        on_progress: called now and then with the numbers of trials and of studies that are done.

    Returns:
        JSON values: ``cells``, the result of each study, and ``summary``, see `summarise`.

    Raises:
        NpusimError: something cannot be run; nothing is written then.
        BrokenProcessPool: a worker died; running the benchmark again goes on from there.
    """
    if workers < 1:
        raise ConfigError(f"workers must be at least 1, got {workers}")
    cells = benchmark.cells()
    identity = make_evaluator(benchmark.space).identity()
    for cell in cells:
        cell.study.check(directory / cell.directory, identity)

    def report() -> None:
        on_progress(*_count_done(directory, cells))

    if workers == 1:
        evaluator = make_evaluator(benchmark.space)
        results = []
        for cell in cells:
            found = run_study(
                cell.study, directory / cell.directory, evaluator, on_trial=lambda _: report()
            )
            assert found is not None  # nothing asked it to stop
            results.append(found.to_json())
            report()
    else:
        results = _run_in_workers(cells, directory, make_evaluator, workers, report)
    labelled = [
        {**result, "searcher": cell.label} for cell, result in zip(cells, results, strict=True)
    ]
    return {"cells": labelled, "summary": summarise(labelled)}


def _run_in_workers(
    cells: Sequence[Cell],
    directory: Path,
    make_evaluator: MakeEvaluator,
    workers: int,
    report: Callable[[], None],
) -> list[dict[str, Any]]:
    context = multiprocessing.get_context("spawn")
    stop = context.Event()
    pool = ProcessPoolExecutor(workers, context, initializer=_start_worker, initargs=(stop,))
    try:
        with deaf_children():
            futures: list[Future[dict[str, Any] | None]] = [
                pool.submit(_run_cell, cell, directory, make_evaluator) for cell in cells
            ]
        waiting: set[Future[dict[str, Any] | None]] = set(futures)
        while waiting:
            done, waiting = wait(waiting, timeout=POLL_S, return_when=FIRST_COMPLETED)
            for future in done:
                future.result()  # raises what the worker raised
            report()
        found = [future.result() for future in futures]
        return [result for result in found if result is not None]
    finally:
        stop.set()  # after an interrupt, workers end with the trial they are at
        pool.shutdown(wait=True, cancel_futures=True)


_stop: Event


def _start_worker(stop: Event) -> None:
    """Let the parent decide when to stop: Ctrl-C reaches all processes of a terminal.

    A worker whose parent was killed ends at once: it would wait for work forever, and until then
    keep run directories locked.
    """
    global _stop
    _stop = stop
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    assert parent is not None  # this is a worker
    parent.join()
    os._exit(1)


def _run_cell(cell: Cell, directory: Path, make_evaluator: MakeEvaluator) -> dict[str, Any] | None:
    evaluator = make_evaluator(cell.study.space)
    found = run_study(cell.study, directory / cell.directory, evaluator, should_stop=_stop.is_set)
    return None if found is None else found.to_json()


def _count_done(directory: Path, cells: Sequence[Cell]) -> tuple[int, int]:
    trials = tested = 0
    for cell in cells:
        path = directory / cell.directory
        stored = count_trials(path)
        trials += min(stored, cell.study.budget.trials or stored)
        tested += (path / "result.json").exists()
    return trials, tested


def summarise(cells: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Test accuracy over seeds: one row for each limit and strategy.

    Args:
        cells: results of studies as JSON values, ``searcher`` being the label; studies without a
            valid trial are left out.

    Returns:
        Rows with ``limit`` (its ``most``), ``searcher``, ``n`` (seeds), ``accuracy`` (mean, low and
        high of its 95 % bootstrap interval), ``gain`` (the same for the difference to the limit's
        first strategy, paired by seed; None for that one), ``relative_improvement`` (percent over
        the mean of the reference), ``limit_used`` (mean cost of the results, as a fraction).
    """
    rows = []
    tested = [cell for cell in cells if cell["test"] is not None]
    for most in dict.fromkeys(cell["limit"]["most"] for cell in tested):
        by_label: dict[str, list[Mapping[str, Any]]] = {}
        for cell in tested:
            if cell["limit"]["most"] == most:
                by_label.setdefault(cell["searcher"], []).append(cell)
        reference = [cell["test"]["accuracy"] for cell in by_label.get(REFERENCE, ())]
        first = next(iter(by_label.values()))
        for label, own in by_label.items():
            rows.append({"limit": most, "searcher": label, **_row(own, first, reference)})
    return rows


def _row(
    own: Sequence[Mapping[str, Any]],
    first: Sequence[Mapping[str, Any]],
    reference: Sequence[float],
) -> dict[str, Any]:
    accuracy = bootstrap_mean([cell["test"]["accuracy"] for cell in own])
    others = {cell["seed"]: cell["test"]["accuracy"] for cell in first}
    gains = [
        cell["test"]["accuracy"] - others[cell["seed"]] for cell in own if cell["seed"] in others
    ]
    used = [cell["best"]["costs"][cell["limit"]["measure"]] / cell["limit"]["most"] for cell in own]
    return {
        "n": len(own),
        "accuracy": asdict(accuracy),
        "gain": asdict(bootstrap_mean(gains)) if gains and own is not first else None,
        "relative_improvement": relative_improvement(
            [cell["test"]["accuracy"] for cell in own], reference
        ).mean
        if reference
        else None,
        "limit_used": float(np.mean(used)),
    }
