# SPDX-License-Identifier: Apache-2.0
"""Hard limits on what a candidate costs on an NPU: cycles and memory, of any space.

What a candidate costs is what `spaces.estimate.estimate` says, before it has weights; that takes
some hundredths of a second, so it is kept.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import lru_cache
from typing import Final

import numpy as np

from npusim._arguments import choice
from npusim.errors import ConfigError
from spaces.base import Candidate, Space
from spaces.costs import costs
from spaces.estimate import estimate
from spaces.limits import MULTIPLES, Limit

NPU_MEASURES: Final = ("total_cycles", "npu_cycles", "sram_peak_bytes", "flash_bytes")
KEPT: Final = 100_000
"""Candidates whose costs are kept."""


@dataclass(frozen=True, slots=True)
class NpuLimit:
    """The most a candidate may cost on an NPU, by one measure.

    Args:
        measure: of `NPU_MEASURES`.
        most: largest cost that is still allowed.
        npu: preset name.

    Raises:
        UnknownNameError: no such measure.
        ConfigError: `most` is less than 1.
    """

    measure: str
    most: int
    npu: str = "ethos-u55-128"

    def __post_init__(self) -> None:
        choice("measure", self.measure, NPU_MEASURES)
        if self.most < 1:
            raise ConfigError(f"limit on {self.measure} must be at least 1, got {self.most}")

    def allows(self, space: Space, candidate: Candidate) -> bool:
        """Whether the candidate costs at most `most`."""
        return self.cost(space, candidate) <= self.most

    def cost(self, space: Space, candidate: Candidate) -> int:
        """What the candidate costs.

        Raises:
            UnknownNameError: no such NPU.
        """
        return _costs(space, candidate, self.npu)[NPU_MEASURES.index(self.measure)]

    def __str__(self) -> str:
        return f"{self.most} {self.measure}"


AnyLimit = Limit | NpuLimit


@lru_cache(maxsize=KEPT)
def _costs(space: Space, candidate: Candidate, npu: str) -> tuple[int, ...]:
    found = estimate(space, candidate, npu)
    return tuple(int(getattr(found, measure)) for measure in NPU_MEASURES)


def parse_limit(text: str, npu: str) -> AnyLimit:
    """A limit as people write it: as `Limit.parse` takes, or such as ``120k total_cycles``.

    Raises:
        ConfigError: neither.
        UnknownNameError: no such measure.

    >>> parse_limit("120k total_cycles", "ethos-u55-64")
    NpuLimit(measure='total_cycles', most=120000, npu='ethos-u55-64')
    """
    match = re.fullmatch(r"\s*(\d+)([kMG]?)\s+([a-z_]+)\s*", text, re.ASCII)
    if match is None or match[3] not in NPU_MEASURES:
        return Limit.parse(text)
    return NpuLimit(match[3], int(match[1]) * MULTIPLES[match[2]], npu)


def limit_costs(space: Space, rows: np.ndarray, limit: AnyLimit) -> np.ndarray:
    """Costs of candidates by the measure of a limit, i64 [n]; on an NPU some 10 ms each.

    Args:
        space: what they are of.
        rows: option indices, i64 [n, n_decisions].
        limit: whose measure.
    """
    if isinstance(limit, NpuLimit):
        found = [limit.cost(space, space.candidate(row)) for row in rows.tolist()]
        return np.array(found, dtype=np.int64)
    return costs(space, rows, limit.measure)


def excess(space: Space, candidate: Candidate, limits: tuple[AnyLimit, ...]) -> float:
    """How far a candidate is over all limits together, each as a part of it; 0 within them."""
    row = np.array([candidate.choices])
    return float(
        sum(max(int(limit_costs(space, row, each)[0]) / each.most - 1, 0) for each in limits)
    )
