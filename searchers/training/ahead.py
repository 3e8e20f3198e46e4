# SPDX-License-Identifier: Apache-2.0
"""Batches that are made in a thread while others are trained on."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from types import TracebackType
from typing import Generic, TypeVar

T = TypeVar("T")


class Ahead(Generic[T]):
    """``make(0)``, ``make(1)`` and so on, from any number on, each made before it is asked for.

    Args:
        make: depends on the number alone; is called in one other thread, in order.
        n: numbers are below.
        n_ahead: how many are made ahead; 0 for none, in this thread.
    """

    def __init__(self, make: Callable[[int], T], n: int, n_ahead: int):
        self._make, self._n, self._n_ahead = make, n, n_ahead
        self._pool = ThreadPoolExecutor(1) if n_ahead else None
        self._started: dict[int, Future[T]] = {}

    def __getitem__(self, number: int) -> T:
        """``make(number)``; raises what that raises."""
        if self._pool is None:
            return self._make(number)
        for each in range(number, min(number + self._n_ahead + 1, self._n)):
            if each not in self._started:
                self._started[each] = self._pool.submit(self._make, each)
        return self._started.pop(number).result()

    def __enter__(self) -> Ahead[T]:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._pool is not None:
            self._pool.shutdown(cancel_futures=True)
