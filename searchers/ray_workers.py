# SPDX-License-Identifier: Apache-2.0
"""Machines of a Ray cluster that evaluate candidates side by side; a worker that dies is replaced.

npusim, the evaluator's packages and the data must be on every machine, the data under the same
path.
"""

from __future__ import annotations

import pickle
import socket
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from functools import lru_cache
from types import TracebackType
from typing import Any

from npusim.errors import ConfigError, MissingExtraError
from searchers.base import Evaluator, Job, Measured, measure
from searchers.workers import DEATHS_MAX, WorkerError

CONNECT_S = 10.0


class RayWorkers:
    """Evaluates candidates as tasks of a Ray cluster, each on one CPU; a `searchers.base.Pool`.

    Ray chooses the machines, and evaluates again what was on one that died. It is connected to
    while the context is open.

    Args:
        make_evaluator: makes an evaluator, once in each of Ray's processes; must be picklable.
        n_workers: candidates at once.
        address: of the cluster's head, such as ``10.0.0.1:6379``; "auto" for a cluster that this
            machine is part of, "local" for one of this machine alone that ends with the context.

    Raises:
        ConfigError: `n_workers` is less than 1, or there is no cluster.
        MissingExtraError: Ray is not installed.
    """

    def __init__(self, make_evaluator: Callable[[], Evaluator], n_workers: int, address: str):
        if n_workers < 1:
            raise ConfigError(f"workers must be at least 1, got {n_workers}")
        try:
            import ray
        except ImportError as error:
            raise MissingExtraError("workers on several machines", "ray", error) from error
        self._ray, self._address, self._n_workers = ray, address, n_workers
        self._pickled = pickle.dumps(make_evaluator)

    def __enter__(self) -> RayWorkers:
        try:
            _reach(self._address)
            self._ray.init(self._address, log_to_driver=False, logging_level="error")
        except (OSError, ValueError, RuntimeError) as error:
            raise ConfigError(
                f"Ray's address must be that of a running cluster, got {self._address!r}: {error}"
            ) from None
        return self

    def evaluate_all(self, jobs: Sequence[Job]) -> Iterator[Measured]:
        """What all jobs gave, each as soon as it is there; abandoned, it ends what is running.

        Raises:
            WorkerError: a job ended `DEATHS_MAX` of Ray's processes.
        """
        evaluate = self._ray.remote(num_cpus=1, max_retries=DEATHS_MAX - 1)(_evaluate)
        made = self._ray.put(self._pickled)
        waiting, running = deque(jobs), dict[Any, Job]()
        try:
            while waiting or running:
                while waiting and len(running) < self._n_workers:
                    job = waiting.popleft()
                    running[evaluate.remote(made, job)] = job
                (ready,), _ = self._ray.wait(list(running))
                job = running.pop(ready)
                try:
                    found = self._ray.get(ready)
                except self._ray.exceptions.RayError as error:
                    raise WorkerError(
                        f"trial {job.index} ended {DEATHS_MAX} worker processes, the last with "
                        f"{type(error).__name__}"
                    ) from None
                if isinstance(found, BaseException):
                    raise found
                yield found
        finally:
            for each in running:
                self._ray.cancel(each, force=True)

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._ray.shutdown()


def _reach(address: str) -> None:
    """Raise OSError where nothing listens at an address: Ray would try for minutes."""
    host, colon, port = address.removeprefix("ray://").rpartition(":")
    if colon and port.isdecimal():
        socket.create_connection((host, int(port)), CONNECT_S).close()


def _evaluate(pickled: bytes, job: Job) -> Measured | Exception:
    """What a job gave; exceptions of the evaluator are answers, so that Ray does not try again."""
    try:
        return measure(_made(pickled), job)
    except Exception as error:
        return error


@lru_cache(maxsize=1)
def _made(pickled: bytes) -> Evaluator:
    found: Evaluator = pickle.loads(pickled)()
    return found
