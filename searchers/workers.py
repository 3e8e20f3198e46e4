# SPDX-License-Identifier: Apache-2.0
"""Processes of this machine that evaluate candidates side by side; one that dies is replaced."""

from __future__ import annotations

import multiprocessing
import signal
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from types import TracebackType
from typing import Any

from npusim.errors import ConfigError
from searchers.base import Evaluator, Job, Measured, measure
from searchers.packing import Placement

DEATHS_MAX = 3
"""Processes that may die of one evaluation before it is given up."""


@contextmanager
def deaf_children() -> Iterator[None]:
    """Processes that are started inside never hear of Ctrl-C; this one does, at the block's end.

    Where signals cannot be blocked (Windows), it has no effect.
    """
    if not hasattr(signal, "pthread_sigmask"):
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


class WorkerError(RuntimeError):
    """Processes died of an evaluation again and again: out of memory, or a crash in native code."""


@dataclass(slots=True)
class _Worker:
    process: BaseProcess
    pipe: Connection


class Workers:
    """A number of spawned processes, each with an evaluator of its own.

    A trial whose process dies is evaluated again, by a new process; an exception of the evaluator
    is raised here. Processes are started when they are needed, and end with the context.

    Args:
        make_evaluator: makes an evaluator in each process; must be picklable.
        n_workers: processes.
        placement: says which trials run on which device, and which wait; None for the evaluator's.

    Raises:
        ConfigError: `n_workers` is less than 1.
    """

    def __init__(
        self,
        make_evaluator: Callable[[], Evaluator],
        n_workers: int,
        placement: Placement | None = None,
    ):
        if n_workers < 1:
            raise ConfigError(f"workers must be at least 1, got {n_workers}")
        self._placement = placement
        self._make_evaluator = make_evaluator
        self._n_workers = n_workers
        self._idle: list[_Worker] = []

    def evaluate_all(self, jobs: Sequence[Job]) -> Iterator[Measured]:
        """What all jobs gave, each as soon as it is there; abandoned, it ends what is running.

        Raises:
            WorkerError: a job killed its process `DEATHS_MAX` times.
            ConfigError: a job takes more memory than any device has.
        """
        waiting = deque(jobs)
        deaths = dict.fromkeys((job.index for job in jobs), 0)
        running: dict[Connection, tuple[_Worker, Job]] = {}
        try:
            while waiting or running:
                while len(running) < self._n_workers and (job := self._next(waiting)) is not None:
                    worker = self._idle.pop() if self._idle else self._start()
                    running[worker.pipe] = worker, job
                    with suppress(BrokenPipeError):  # it is dead; its pipe says so below
                        worker.pipe.send(job)
                for pipe in wait(list(running)):
                    assert isinstance(pipe, Connection)
                    worker, job = running.pop(pipe)
                    self._release(job)
                    try:
                        found = pipe.recv()
                    except (EOFError, OSError):
                        _end(worker)
                        deaths[job.index] += 1
                        if deaths[job.index] == DEATHS_MAX:
                            raise WorkerError(
                                f"trial {job.index} ended {DEATHS_MAX} worker processes, "
                                f"the last with exit code {worker.process.exitcode}"
                            ) from None
                        waiting.appendleft(job)
                        continue
                    self._idle.append(worker)
                    if isinstance(found, BaseException):
                        raise found
                    yield found
        finally:
            for worker, job in running.values():
                self._release(job)
                _end(worker)

    def _next(self, waiting: deque[Job]) -> Job | None:
        """Take the first job that a device has room for, with that device; None if there is none.

        Raises:
            ConfigError: see `evaluate_all`.
        """
        if self._placement is None:
            return waiting.popleft() if waiting else None
        for job in waiting:
            device = self._placement.place(job)
            if device is not None:
                waiting.remove(job)
                return replace(job, device=device)
        return None

    def _release(self, job: Job) -> None:
        if self._placement is not None:
            self._placement.packing.release(job.index)

    def _start(self) -> _Worker:
        context = multiprocessing.get_context("spawn")
        ours, theirs = context.Pipe()
        process = context.Process(target=_work, args=(theirs, self._make_evaluator), daemon=True)
        with deaf_children():
            process.start()
        theirs.close()  # so that the pipe ends with the process
        return _Worker(process, ours)

    def __enter__(self) -> Workers:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        while self._idle:
            _end(self._idle.pop())


def _end(worker: _Worker) -> None:
    worker.process.kill()
    worker.process.join()
    worker.pipe.close()


def _work(pipe: Connection, make_evaluator: Callable[[], Evaluator]) -> None:
    """Evaluate what comes until the other end is gone; the parent alone hears of Ctrl-C."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    with suppress(EOFError, OSError):
        evaluator: Evaluator | None = None
        while True:
            job = pipe.recv()
            answer: Any
            try:
                evaluator = evaluator or make_evaluator()
                answer = measure(evaluator, job)
            except Exception as error:
                answer = error
            pipe.send(answer)
