# SPDX-License-Identifier: Apache-2.0
"""Feasible candidates of spaces too entangled to count: draws by a Markov chain, labelled as such.

The chain changes one decision at a time (Gibbs sampling): it draws the option anew among those that
keep the candidate within the limit. Its draws approach the uniform distribution as it goes on; that
they have reached it cannot be shown, nor that each candidate can be reached from each other one.
`spaces.feasible` is exact wherever it can be; this is for the rest.
"""

from __future__ import annotations

import math

import numpy as np

from spaces.base import Candidate, Space
from spaces.costs import costs
from spaces.limits import Limit

SWEEPS = 20
"""Times that each decision is drawn anew, on average, between the candidates that are given out."""
STARTS = 8
"""Candidates from which the least cost is looked for."""


def smallest_found(space: Space, measure: str) -> tuple[Candidate, int]:
    """A candidate of small cost and its cost: no single change makes it smaller.

    From several starts, the decision whose change saves most is changed until none does.
    """
    from spaces.moves import single_changes

    rng = np.random.default_rng(0)
    starts = [np.zeros(len(space.decisions), dtype=np.int64)]
    starts += [space.canonical(rng.integers(space.n_options)[None])[0] for _ in range(STARTS - 1)]
    best: tuple[int, tuple[int, ...]] | None = None
    for choices in starts:
        least = int(costs(space, choices[None], measure)[0])
        while True:
            changed = single_changes(space, tuple(choices.tolist()))
            found = costs(space, changed, measure)
            if found.size == 0 or found.min() >= least:
                break
            choices, least = changed[int(found.argmin())], int(found.min())
        if best is None or least < best[0]:
            best = least, tuple(choices.tolist())
    assert best is not None
    return Candidate(space.content_hash, best[1]), best[0]


class MarkovChainSet:
    """The candidates of a space within a limit, where they cannot be counted.

    Args:
        space: what the candidates are of.
        limit: one that `spaces.feasible.require_feasible` lets pass.
    """

    method = "markov chain"
    exact = False

    def __init__(self, space: Space, limit: Limit):
        self.space, self.limit = space, limit
        self._start = np.array(smallest_found(space, limit.measure)[0].choices, dtype=np.int64)
        self._free = np.flatnonzero(space.n_options > 1)

    def count(self) -> int:
        """Number of combinations of options: an upper bound of the candidates within the limit."""
        return math.prod(int(n) for n in self.space.n_options)

    def sample(self, rng: np.random.Generator) -> Candidate:
        """The end of a chain of its own: draws are independent of one another."""
        return Candidate(self.space.content_hash, tuple(self.sample_many(rng, 1)[0].tolist()))

    def sample_many(self, rng: np.random.Generator, n: int) -> np.ndarray:
        """Ends of `n` chains, i64 [n, n_decisions]."""
        choices = np.tile(self._start, (n, 1))
        if self._free.size == 0:
            return choices
        for _ in range(SWEEPS):
            for position in rng.permutation(self._free):
                self._redraw(choices, int(position), rng)
        return self.space.canonical(choices)

    def _redraw(self, choices: np.ndarray, position: int, rng: np.random.Generator) -> None:
        """Draw one decision anew in each of the chains.

        Choices without effect are drawn like others. A candidate then stands for as many
        combinations as those have options; dividing by that makes candidates equally likely.
        """
        n, n_options = len(choices), int(self.space.n_options[position])
        every = np.repeat(choices, n_options, axis=0)
        every[:, position] = np.tile(np.arange(n_options), n)
        allowed = costs(self.space, every, self.limit.measure) <= self.limit.most
        weights = np.where(allowed, 1.0, 0.0)
        for other, condition in self.space.conditions.items():
            without = ~condition.at(lambda at: every[:, at])
            weights /= np.where(without, float(self.space.n_options[other]), 1.0)
        upto = np.cumsum(weights.reshape(n, n_options), axis=1)
        aims = rng.random((n, 1)) * upto[:, -1:]
        drawn = (upto <= aims).sum(axis=1)
        choices[:, position] = np.minimum(drawn, n_options - 1)
