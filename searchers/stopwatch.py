# SPDX-License-Identifier: Apache-2.0
"""A stopwatch for wall and CPU time."""

from __future__ import annotations

import time

import numpy as np


class Stopwatch:
    """Time spent inside ``with`` since it was last taken."""

    def __init__(self) -> None:
        self._spent = np.zeros(2)

    def __enter__(self) -> None:
        self._spent -= (time.perf_counter(), time.process_time())

    def __exit__(self, *error: object) -> None:
        self._spent += (time.perf_counter(), time.process_time())

    def take(self) -> tuple[float, float]:
        """Wall and CPU seconds; the next ones count from 0."""
        wall_s, cpu_s = self._spent.tolist()
        self._spent[:] = 0
        return wall_s, cpu_s
