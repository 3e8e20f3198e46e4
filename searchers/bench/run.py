# SPDX-License-Identifier: Apache-2.0
"""Run a protocol: a grid of studies, by worker processes that share nothing.

What a study finds depends on neither the worker nor their number. A study that trains has a run
directory and resumes where a killed worker left it; those of instant evaluators, which are quicker
than a disk, start again. Finished studies are lines of ``cells.jsonl``, written by the first
process alone: seeds and searchers that come later find them there.
"""

from __future__ import annotations

import hashlib
import json
import math
import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from contextlib import closing
from dataclasses import asdict
from functools import cache
from multiprocessing.synchronize import Event
from pathlib import Path
from typing import IO, Any

from npusim.errors import ConfigError
from searchers.bench import protocol_files
from searchers.bench.fronts import fronts
from searchers.bench.protocol import Cell, Protocol
from searchers.bench.results import collect
from searchers.evaluators import Traits
from searchers.store import count_trials, locked, write_text
from searchers.study import HeldOutEvaluator, run_study
from searchers.workers import deaf_children

POLL_S = 0.5
CELLS = "cells.jsonl"
PROTOCOL = "protocol.toml"

Result = dict[str, Any]


def run_benchmark(
    protocol: Protocol,
    directory: Path,
    workers: int = 1,
    *,
    part: tuple[int, int] = (1, 1),
    on_progress: Callable[[float], None] = lambda done: None,
) -> dict[str, Any]:
    """Run what is missing of a benchmark and summarise all of it.

    Args:
        protocol: what is compared.
        directory: gets the protocol, a run directory for each study that trains, and what finished.
        workers: processes; 1 runs everything in this one.
        part: which of how many parts to run, from (1, 1).
        on_progress: called now and then with the fraction that is done.

    Returns:
        JSON values, see `searchers.bench.results.collect`.

    Raises:
        NpusimError: something cannot be run; nothing is written then.
        BrokenProcessPool: a worker died; running the benchmark again goes on from there.
    """
    if workers < 1:
        raise ConfigError(f"workers must be at least 1, got {workers}")
    if not 1 <= part[0] <= part[1]:
        raise ConfigError(f"part must be K/N with K in 1..N, got {part[0]}/{part[1]}")
    protocol.check()
    _require_own(protocol, directory)
    text = protocol_files.write(protocol)
    cells = protocol.cells(*part)
    grid = _Grid(protocol)
    for cell in cells:
        if not grid.is_instant(cell):
            cell.study.check(directory / cell.directory, grid.evaluator(cell).identity())
    directory.mkdir(parents=True, exist_ok=True)
    with locked(directory):
        write_text(directory / PROTOCOL, text)
        found = finished(directory, protocol, cells)
        left = [cell for cell in cells if cell.directory not in found]

        def report() -> None:
            nonlocal told
            if time.monotonic() - told > POLL_S:
                on_progress(_done(cells, found, directory))
                told = time.monotonic()

        told = -math.inf
        with (
            (directory / CELLS).open("a") as file,
            closing(_results(grid, left, directory, workers, report)) as results,
        ):
            _begin_line(file)
            for cell, result in results:
                found[cell.directory] = result
                file.write(_line(grid.key(cell), result))
                file.flush()
                report()
        on_progress(1.0)
    return collect(protocol, [found[cell.directory] for cell in cells], part=part)


def _require_own(protocol: Protocol, directory: Path) -> None:
    """Refuse a directory of something else, whose files would be replaced."""
    if (directory / "run.json").exists():
        raise ConfigError(f"directory of a benchmark must be its own, got a search in {directory}")
    path = directory / PROTOCOL
    if not path.exists():
        return
    tables, _ = protocol_files.read_tables(str(path))
    theirs = {task["name"] for task in protocol_files.tables_in(tables, "tasks")}
    ours = {task.name for task in protocol.tasks}
    if not ours & theirs:
        raise ConfigError(
            f"directory {directory} must have a benchmark of one of the tasks "
            f"{', '.join(sorted(ours))}, got one of {', '.join(sorted(theirs))}"
        )


def finished(directory: Path, protocol: Protocol, cells: Sequence[Cell]) -> dict[str, Result]:
    """Results of the studies that have been finished, by the name of their directory.

    Those of another evaluator, budget or npu are not among them.
    """
    path, grid = directory / CELLS, _Grid(protocol)
    keys = {cell.directory: grid.key(cell) for cell in cells}
    found = {}
    for line in path.read_bytes().splitlines() if path.exists() else ():
        try:
            stored = json.loads(line)
            name = stored["key"]["directory"]
            if keys.get(name) == stored["key"] and _digest(stored) == stored["digest"]:
                found[name] = stored["result"]
        except (ValueError, KeyError, TypeError):
            continue  # a line that was cut short when the process was killed, or is damaged
    return found


def cell_line(protocol: Protocol, cell: Cell, result: Result) -> str:
    """The line of ``cells.jsonl`` of a finished study."""
    return _line(_Grid(protocol).key(cell), result)


def _line(key: Mapping[str, Any], result: Result) -> str:
    stored = {"key": key, "result": result}
    return json.dumps({**stored, "digest": _digest(stored)}, allow_nan=False) + "\n"


def _digest(stored: Mapping[str, Any]) -> str:
    text = json.dumps([stored["key"], stored["result"]])
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _begin_line(file: IO[str]) -> None:
    """End a line that was cut short when the process was killed."""
    path = Path(file.name)
    if path.stat().st_size and not path.read_bytes().endswith(b"\n"):
        file.write("\n")


class _Grid:
    """The studies of a protocol, as a process runs them."""

    def __init__(self, protocol: Protocol):
        self.protocol = protocol
        self._evaluators: dict[str, HeldOutEvaluator] = {}
        self._identities: dict[str, Any] = {}

    def evaluator(self, cell: Cell) -> HeldOutEvaluator:
        """Of the study's task, made once."""
        task = cell.problem.task
        if task.name not in self._evaluators:
            self._evaluators[task.name] = task.make_evaluator(task.space)
        return self._evaluators[task.name]

    def is_instant(self, cell: Cell) -> bool:
        """Whether its trials are not stored."""
        return Traits.of(self.evaluator(cell)).is_instant

    def key(self, cell: Cell) -> dict[str, Any]:
        """What must be the same for a finished study to be this one, as JSON values."""
        identity = cell.study.identity(self.evaluator(cell).identity())
        budget = asdict(cell.study.budget)
        key = {"directory": cell.directory, **identity, "budget": budget, "npu": self.protocol.npu}
        found: dict[str, Any] = json.loads(json.dumps(key))
        return found

    def run(
        self,
        cell: Cell,
        directory: Path,
        should_stop: Callable[[], bool] = lambda: False,
        report: Callable[[], None] = lambda: None,
    ) -> Result | None:
        """The result of a study; None if `should_stop` ended it."""
        evaluator, study = self.evaluator(cell), cell.study
        found = run_study(
            study,
            None if self.is_instant(cell) else directory / cell.directory,
            evaluator,
            should_stop=should_stop,
            on_trial=lambda _: report(),
        )
        if found is None:
            return None
        result = {**found.to_json(), "searcher": cell.name, "task": cell.problem.task.name}
        measures = ("size_bits", study.limit.measure)
        result["fronts"] = fronts(study.space, found.history, measures, self.protocol.npu)
        result["directory"] = cell.directory
        expected = getattr(evaluator, "expected", None)
        if expected is not None:
            at = {
                trial: expected(found.history[trial].candidate)
                for trial in result["curve"]["trial"]
            }
            result["curve"]["expected"] = [at[trial] for trial in result["curve"]["trial"]]
        return result


def _done(cells: Sequence[Cell], found: dict[str, Result], directory: Path) -> float:
    """Fraction of the trials and final tests that there are."""
    done = total = 0
    for cell in cells:
        trials = cell.study.budget.trials
        weight = 1 + (trials or 0)
        total += weight
        if cell.directory in found:
            done += weight
        elif trials is not None:
            done += min(count_trials(directory / cell.directory), trials)
    return done / total


def _results(
    grid: _Grid, cells: Sequence[Cell], directory: Path, workers: int, report: Callable[[], None]
) -> Iterator[tuple[Cell, Result]]:
    """Results of studies, each as soon as it is there."""
    if workers > 1 and len(cells) > 1:
        yield from _results_of_workers(grid, cells, directory, workers, report)
        return
    for cell in cells:
        found = grid.run(cell, directory, report=report)
        assert found is not None  # nothing asked it to stop
        yield cell, found


def _results_of_workers(
    grid: _Grid, cells: Sequence[Cell], directory: Path, workers: int, report: Callable[[], None]
) -> Iterator[tuple[Cell, Result]]:
    context = multiprocessing.get_context("spawn")
    stop = context.Event()
    initial = (stop, grid.protocol)
    pool = ProcessPoolExecutor(
        min(workers, len(cells)), context, initializer=_start_worker, initargs=initial
    )
    try:
        with deaf_children():
            running: dict[Future[Result | None], Cell] = {
                pool.submit(_run_cell, cell.directory, directory): cell for cell in cells
            }
        while running:
            done, _ = wait(running, timeout=POLL_S, return_when=FIRST_COMPLETED)
            for future in done:
                cell, found = running.pop(future), future.result()  # raises what the worker raised
                if found is not None:
                    yield cell, found
            report()
    finally:
        stop.set()  # after an interrupt, workers end with the trial they are at
        pool.shutdown(wait=True, cancel_futures=True)


_stop: Event
_grid: _Grid


def _start_worker(stop: Event, protocol: Protocol) -> None:
    """Let the parent decide when to stop: Ctrl-C reaches all processes of a terminal.

    A worker whose parent was killed ends at once: it would wait for work forever, and until then
    keep run directories locked.
    """
    global _stop, _grid
    _stop, _grid = stop, _Grid(protocol)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    assert parent is not None  # this is a worker
    parent.join()
    os._exit(1)


@cache
def _cells_by_directory() -> dict[str, Cell]:
    return {cell.directory: cell for cell in _grid.protocol.cells()}


def _run_cell(name: str, directory: Path) -> Result | None:
    return _grid.run(_cells_by_directory()[name], directory, _stop.is_set)
