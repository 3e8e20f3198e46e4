# SPDX-License-Identifier: Apache-2.0
"""The best candidate within a limit, for scores that add up over decisions.

Differentiable searches end with a score for each option, such as its log probability, and the most
likely candidate is often over the limit: taking the best one within it is a knapsack problem. Two
tables over states and budgets, as those of `spaces.feasible` with maxima for sums, enclose the
answer: with costs rounded down its score is never below, with costs rounded up never above that of
the best. Where they differ, partial candidates are followed step by step, those alone that are
neither costlier and worse than another nor, by the first table, unable to beat the best one known.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from spaces.base import Candidate, Space
from spaces.feasible import (
    Moves,
    checked_scores,
    excesses,
    n_bins_for,
    require_feasible,
    row_scores,
)
from spaces.limits import Limit
from spaces.programme import Programme, programme

LABELS_MAX = 1 << 21
"""Most partial candidates followed at once; beyond, the best one known is given."""


@dataclass(frozen=True, slots=True)
class Best:
    """The best candidate that was found.

    Attributes:
        candidate: within the limit.
        score: its score.
        bound: no candidate within the limit has a higher score.
    """

    candidate: Candidate
    score: float
    bound: float

    @property
    def optimal(self) -> bool:
        """Whether it is the best one there is."""
        return self.bound <= self.score


def best(space: Space, limit: Limit, scores: Sequence[np.ndarray]) -> Best:
    """The candidate of highest score within a limit.

    Args:
        space: what the candidate is of.
        limit: it is within.
        scores: f64 [n_options] for each decision; those without effect count nothing. Log
            probabilities less their greatest make it no gain in itself to leave layers out.

    Raises:
        ConfigError: scores of another shape, or not finite.
        InfeasibleError: no candidate is within `limit`.
        TooEntangledError: the space's layers remember too many decisions.
    """
    values = checked_scores(space, scores)
    found = programme(space, limit.measure)
    require_feasible(space, limit)
    search = _Search(found, limit.most - found.smallest, values)
    rows, score, bound = search.run()
    choices = np.array(found.candidate(rows).choices)
    for position in found.free:
        choices[position] = values[position].argmax()
        score += values[position].max()
        bound += values[position].max()
    return Best(space.candidate(choices.tolist()), float(score), float(bound))


@dataclass(frozen=True, slots=True, eq=False)
class _Labels:
    """Partial candidates after a step: state, cost, score; label before, row of the step."""

    state: np.ndarray
    used: np.ndarray
    score: np.ndarray
    parent: np.ndarray
    row: np.ndarray


class _Search:
    def __init__(self, found: Programme, budget: int, scores: Sequence[np.ndarray]):
        self.steps = found.steps
        self.excess = excesses(found)
        self.gains = [row_scores(step, scores) for step in found.steps]
        self.budget = min(budget, sum(int(each.max()) for each in self.excess))
        self.width = self.budget // n_bins_for(found) + 1
        self.upper = self._tables(down=True)
        self.lower = self.upper if self.width == 1 else self._tables(down=False)
        self.starts = [
            np.searchsorted(step.before, np.arange(step.n_before + 1)) for step in found.steps
        ]

    def _tables(self, down: bool) -> list[np.ndarray]:
        """Best scores to the end, by number of steps done, [n_states, n_bins]."""
        from spaces.feasible_kernels import best_back

        n_bins = self.budget // self.width + 1
        tables = [np.zeros((1, n_bins))]
        for step, excess, gains in reversed(
            list(zip(self.steps, self.excess, self.gains, strict=True))
        ):
            shifts = excess // self.width if down else -(-excess // self.width)
            moves = Moves.of(step, shifts, n_bins)
            table = np.full((step.n_before, n_bins), -np.inf)
            highest = np.maximum.reduceat(gains[moves.order], moves.moves[:, 2])
            best_back(moves.first, moves.moves, highest, tables[0], table)
            tables.insert(0, table)
        return tables

    def run(self) -> tuple[list[int], float, float]:
        """Rows of the best candidate known, its score, and what no score is above."""
        known, rows = -np.inf, []
        nothing = np.zeros(1, dtype=np.int64)
        trail = [_Labels(nothing, nothing, np.zeros(1), nothing, nothing)]
        for i in range(len(self.steps) + 1):
            labels = trail[-1]
            reach = labels.score + self._ahead(self.lower, i, labels)
            if reach.size and reach.max() > known:
                chosen = int(reach.argmax())
                rows = self._complete(trail, chosen)
                known = self._score(rows)
            above = labels.score + self._ahead(self.upper, i, labels)
            bound = max(known, above.max(initial=-np.inf))
            slack = 1e-12 * max(1.0, abs(known))  # scores are sums in another order
            if i == len(self.steps) or bound <= known + slack:
                return rows, known, known
            following = self._expand(i, labels, above > known + slack, known + slack)
            if following is None:
                return rows, known, float(bound)
            trail.append(following)
        raise AssertionError("the last step returns")

    def _ahead(self, tables: list[np.ndarray], i: int, labels: _Labels) -> np.ndarray:
        left = (self.budget - labels.used) // self.width
        ahead: np.ndarray = tables[i][labels.state, left]
        return ahead

    def _expand(self, i: int, labels: _Labels, alive: np.ndarray, beat: float) -> _Labels | None:
        """The labels after step `i` that may still beat a score; None for too many."""
        step, starts = self.steps[i], self.starts[i]
        parents = np.flatnonzero(alive)
        counts = (starts[1:] - starts[:-1])[labels.state[parents]]
        if counts.sum() > 8 * LABELS_MAX:
            return None
        parent = np.repeat(parents, counts)
        within = np.arange(len(parent)) - np.repeat(np.cumsum(counts) - counts, counts)
        row = starts[labels.state[parent]] + within
        used = labels.used[parent] + self.excess[i][row]
        fits = used <= self.budget
        parent, row, used = parent[fits], row[fits], used[fits]
        score = labels.score[parent] + self.gains[i][row]
        found = _Labels(step.after[row], used, score, parent, row)
        keep = score + self._ahead(self.upper, i + 1, found) > beat
        found = _selected(found, np.flatnonzero(keep))
        found = _selected(found, _not_dominated(found))
        return found if len(found.row) <= LABELS_MAX else None

    def _complete(self, trail: list[_Labels], label: int) -> list[int]:
        """Rows that lead to a label, and on to the end by the table of costs rounded up."""
        last = trail[-1]
        state, left = int(last.state[label]), self.budget - int(last.used[label])
        rows: list[int] = []
        for labels in reversed(trail[1:]):
            rows.insert(0, int(labels.row[label]))
            label = int(labels.parent[label])
        for i in range(len(trail) - 1, len(self.steps)):
            ways = np.arange(self.starts[i][state], self.starts[i][state + 1])
            ways = ways[self.excess[i][ways] <= left]
            after = (left - self.excess[i][ways]) // self.width
            worth = self.gains[i][ways] + self.lower[i + 1][self.steps[i].after[ways], after]
            row = int(ways[worth.argmax()])
            rows.append(row)
            left -= int(self.excess[i][row])
            state = int(self.steps[i].after[row])
        return rows

    def _score(self, rows: Sequence[int]) -> float:
        return float(sum(gains[row] for gains, row in zip(self.gains, rows, strict=True)))


def _selected(labels: _Labels, at: np.ndarray) -> _Labels:
    return _Labels(
        labels.state[at], labels.used[at], labels.score[at], labels.parent[at], labels.row[at]
    )


def _not_dominated(labels: _Labels) -> np.ndarray:
    """Numbers of the labels than which no other of their state is cheaper and as good."""
    order = np.lexsort((-labels.score, labels.used, labels.state))
    rank = np.unique(labels.score, return_inverse=True)[1].reshape(-1)
    height = labels.state[order] * (len(rank) + 1) + rank[order] + 1  # states one above another
    highest = np.maximum.accumulate(np.concatenate([[0], height]))
    first = np.concatenate([[True], labels.state[order][1:] != labels.state[order][:-1]])
    return order[first[: len(order)] | (height > highest[:-1])]
