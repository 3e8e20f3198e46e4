# SPDX-License-Identifier: Apache-2.0
"""The feasible set of a limit, exactly: its size, uniform draws from it, the smallest candidate.

A dynamic programme over the layers. A layer's cost depends on few decisions; going through the
layers in order, only the decisions that a later layer depends on too (in a chain: one width) have
to be remembered. For each option of those, and each sum of costs so far, a table holds how many
ways lead there. Walking the tables backwards draws one of the ways, each equally likely.

Sums are counted in bins of one unit of cost, up to `BINS_MAX` bins; for larger limits in wider
ones, each cost rounded down, and a draw that is over the limit after all is drawn again. Either way
draws are exactly uniform.

Counts are floats: exact up to 2**53 candidates, to within rounding beyond.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from npusim.errors import ConfigError, InfeasibleError
from spaces.base import Candidate, Space
from spaces.costs import LayerTable, cost, layer_tables
from spaces.limits import Limit

BINS_MAX = 1 << 16
"""Most bins of a table; limits up to this many units are counted exactly."""
JOINT_MAX = 1 << 20
"""Most option combinations that one layer and the remembered decisions may have."""
DRAWS_MAX = 10_000
"""Draws in a row that may be over the limit with bins wider than one unit."""


@dataclass(frozen=True, slots=True)
class Step:
    """One layer of the programme: all combinations of the decisions it sees.

    Attributes:
        decisions: positions of the remembered decisions and of those new in this layer.
        options: option indices of each combination, i64 [n_joint, len(decisions)].
        before, after: which state of remembered options it comes from and leads to, i64 [n_joint].
        n_after: number of states after this layer.
        costs: of the layer in each combination, i64 [n_joint].
    """

    decisions: tuple[int, ...]
    options: np.ndarray
    before: np.ndarray
    after: np.ndarray
    n_after: int
    costs: np.ndarray


@lru_cache(maxsize=64)
def steps(space: Space, measure: str) -> tuple[Step, ...]:
    """The programme of a space, one step a layer with weights.

    Raises:
        ConfigError: a layer and the decisions remembered at it have too many combinations.
    """
    tables = layer_tables(space, measure)
    found = []
    live: tuple[int, ...] = ()
    for i, table in enumerate(tables):
        decisions = tuple(sorted({*live, *table.scope}))
        later = {position for other in tables[i + 1 :] for position in other.scope}
        kept = tuple(position for position in decisions if position in later)
        found.append(_step(space, table, decisions, live, kept))
        live = kept
    return tuple(found)


def _step(
    space: Space,
    table: LayerTable,
    decisions: tuple[int, ...],
    live: tuple[int, ...],
    kept: tuple[int, ...],
) -> Step:
    shape = tuple(int(space.n_options[position]) for position in decisions)
    n_joint = int(np.prod(shape, dtype=object))
    if n_joint > JOINT_MAX:
        raise ConfigError(
            f"options that the layers of space {space.name!r} share must have "
            f"at most {JOINT_MAX} combinations, got {n_joint}"
        )
    options = np.indices(shape).reshape(len(shape), -1).T
    column = {position: options[:, i] for i, position in enumerate(decisions)}

    def state(positions: tuple[int, ...]) -> np.ndarray:
        index = np.zeros(len(options), dtype=np.int64)
        for position in positions:
            index = index * space.n_options[position] + column[position]
        return index

    n_after = int(np.prod([space.n_options[position] for position in kept], dtype=np.int64))
    costs = table.costs[tuple(column[position] for position in table.scope)]
    return Step(decisions, options, state(live), state(kept), n_after, costs)


def smallest(space: Space, measure: str) -> Candidate:
    """A candidate of the least cost there is."""
    best = np.zeros(1, dtype=np.int64)
    choices = np.zeros((1, len(space.decisions)), dtype=np.int64)  # decided so far, by state
    for step in steps(space, measure):
        totals = best[step.before] + step.costs
        order = np.lexsort((totals, step.after))
        rows = order[np.searchsorted(step.after[order], np.arange(step.n_after))]
        choices = choices[step.before[rows]]
        choices[:, list(step.decisions)] = step.options[rows]
        best = totals[rows]
    return space.candidate(choices[0].tolist())


class FeasibleSet:
    """All candidates of a space within a limit.

    Raises:
        InfeasibleError: there are none.
        ConfigError: the space is too entangled for the programme.
    """

    def __init__(self, space: Space, limit: Limit):
        require_feasible(space, limit)
        self.space, self.limit = space, limit
        self._steps = steps(space, limit.measure)
        most = min(limit.most, sum(int(step.costs.max()) for step in self._steps))
        self._bin = -(-most // BINS_MAX)
        self._n_bins = most // self._bin + 1
        self._ways = [np.zeros((1, self._n_bins))]
        self._ways[0][0, 0] = 1.0
        for step in self._steps:
            self._ways.append(self._forward(step, self._ways[-1]))
        self._totals = np.cumsum(self._ways[-1][0])
        self._rows = [
            [np.flatnonzero(step.after == state) for state in range(step.n_after)]
            for step in self._steps
        ]

    def _forward(self, step: Step, before: np.ndarray) -> np.ndarray:
        after = np.zeros((step.n_after, self._n_bins))
        moves = np.stack((step.before, step.after, step.costs // self._bin))
        distinct, repeats = np.unique(moves, axis=1, return_counts=True)
        for source, target, shift, n in zip(*distinct, repeats, strict=True):
            if shift < self._n_bins:
                after[target, shift:] += n * before[source, : self._n_bins - shift]
        return after

    @property
    def exact(self) -> bool:
        """Whether `count` is exact, and not an upper bound."""
        return self._bin == 1

    def count(self) -> int:
        """Number of candidates within the limit; an upper bound if not `exact`."""
        return int(self._totals[-1])

    def sample(self, rng: np.random.Generator) -> Candidate:
        """One of them, each equally likely."""
        for _ in range(DRAWS_MAX):
            drawn = self._draw(rng)
            if self._bin == 1 or self.limit.allows(self.space, drawn):
                return drawn
        raise RuntimeError(f"no draw of {DRAWS_MAX} was within {self.limit}: bins are too wide")

    def _draw(self, rng: np.random.Generator) -> Candidate:
        choices = np.zeros(len(self.space.decisions), dtype=np.int64)
        uniforms = rng.random(len(self._steps) + 1)
        total = _pick(self._totals, uniforms[-1])
        state = 0
        for i, step in reversed(list(enumerate(self._steps))):
            rows = self._rows[i][state]
            earlier = total - step.costs[rows] // self._bin
            ways = self._ways[i][step.before[rows], np.maximum(earlier, 0)]
            row = rows[_pick(np.cumsum(np.where(earlier >= 0, ways, 0.0)), uniforms[i])]
            choices[np.array(step.decisions, dtype=np.int64)] = step.options[row]
            total -= step.costs[row] // self._bin
            state = step.before[row]
        return self.space.candidate(choices.tolist())


def require_feasible(space: Space, limit: Limit) -> None:
    """Raise InfeasibleError, with the least cost there is, if no candidate is within `limit`."""
    least = cost(space, smallest(space, limit.measure), limit.measure)
    if least > limit.most:
        raise InfeasibleError(
            f"limit on {limit.measure} must be at least {least} ({Limit(limit.measure, least)}), "
            f"the least in space {space.name!r}, got {limit.most} ({limit})",
            least,
        )


def _pick(upto: np.ndarray, uniform: float) -> int:
    """An index drawn in proportion to its weight, from the weights' cumulative sum."""
    below_all = min(uniform * upto[-1], np.nextafter(upto[-1], 0.0))
    return int(np.searchsorted(upto, below_all, side="right"))


@lru_cache(maxsize=16)
def feasible_set(space: Space, limit: Limit) -> FeasibleSet:
    """The feasible set of a limit, made once (some tenths of a second)."""
    return FeasibleSet(space, limit)


def enumerate_all(space: Space) -> np.ndarray:
    """Option indices of every candidate of a small space, i64 [n, n_decisions].

    Raises:
        ConfigError: more than `JOINT_MAX` candidates.
    """
    if space.count() > JOINT_MAX:
        raise ConfigError(
            f"candidates to enumerate must be at most {JOINT_MAX}, got {space.count()}"
        )
    every = itertools.product(*(range(int(n)) for n in space.n_options))
    return np.array(list(every), dtype=np.int64)
