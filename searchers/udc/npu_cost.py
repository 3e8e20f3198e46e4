# SPDX-License-Identifier: Apache-2.0
"""Cycles and memory on an NPU as further limits of a search.

What a candidate costs is what `spaces.estimate.estimate` says. A search differentiates the widths
of it, through `spaces.surrogate`: for that a space must differ in widths alone, but for bitwidths
and sparsities, and all of its widths must be free in its `npusim.cost.family.Family`.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from npusim._arguments import choice
from npusim.cost.family import Family
from npusim.errors import ConfigError
from spaces.base import Candidate, Kind, Space
from spaces.costs import costs
from spaces.estimate import estimate
from spaces.limits import MULTIPLES, Limit
from spaces.lower import lower

NPU_MEASURES = ("total_cycles", "npu_cycles", "sram_peak_bytes", "flash_bytes")


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
        """What the candidate costs."""
        return int(getattr(estimate(space, candidate, self.npu), self.measure))

    def __str__(self) -> str:
        return f"{self.most} {self.measure}"


AnyLimit = Limit | NpuLimit


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


@lru_cache(maxsize=4)
def family(space: Space) -> Family:
    """All networks of a space that differs in widths alone.

    Raises:
        ConfigError: it has other choices of what is computed, or a width that is not free.
    """
    computed = (Kind.KERNEL, Kind.OPERATOR, Kind.DEPTH, Kind.RESOLUTION)
    other = [decision.name for decision in space.decisions if decision.kind in computed]
    if other:
        raise ConfigError(
            f"space {space.name!r} must differ in widths, bitwidths and sparsities alone to be "
            f"costed on an NPU in a search, got decision {other[0]!r}"
        )
    found = Family(lower(space, space.largest()).program)
    free = {space.depths[name].width for name in found.widths}
    fixed = [d.name for d in space.decisions if d.kind is Kind.WIDTH and d.name not in free]
    if fixed:
        raise ConfigError(
            f"widths of space {space.name!r} must all be free to be costed on an NPU in a search, "
            f"got {fixed[0]!r}, on which a layer without weights depends"
        )
    return found


def width_columns(space: Space) -> tuple[Sequence[int], Sequence[np.ndarray]]:
    """Of each width of the family: the decision's position, and its channels by option."""
    positions, options = [], []
    for name, full in family(space).widths.items():
        width = space.depths[name].width
        if width is None:
            raise ConfigError(
                f"widths of space {space.name!r} must be decided to be costed on an NPU in a "
                f"search, got layer {name!r} of {full} channels"
            )
        positions.append(space.position(width))
        numerator, denominator = space.decisions[positions[-1]].fractions
        options.append(-(-numerator * space.depths[name].full // denominator))
    return positions, options
