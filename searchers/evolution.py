# SPDX-License-Identifier: Apache-2.0
"""Regularized evolution: a queue of candidates, of which the oldest dies, not the worst."""

from __future__ import annotations

from collections import deque

import numpy as np

from npusim.errors import ConfigError
from searchers.base import Trial
from searchers.distinct import Distinct
from spaces.base import Candidate, Space
from spaces.limits import Limit

MUTANTS_MAX = 50
"""Mutants of one parent that may repeat earlier candidates before a random one is drawn."""


class EvolutionSearch:
    """Mutate the best of a few members drawn from a population of the latest candidates.

    The first `population` candidates are drawn uniformly within the limit. Every later one is a
    mutant, within the limit and never proposed before, of the best among `tournament` members.
    Trials without a valid score take no part.

    Args:
        space, limit, rng: see `searchers.base.Searcher`.
        population: trials that are remembered.
        tournament: members drawn, with replacement, to find a parent.

    Raises:
        ConfigError: `population` or `tournament` is less than 1.
        InfeasibleError: no candidate is within the limit.

    Source: aging evolution (Real et al., 2019). Mutation: `spaces.moves.mutate`.
    """

    def __init__(
        self,
        space: Space,
        limit: Limit,
        rng: np.random.Generator,
        population: int = 8,
        tournament: int = 3,
    ):
        if population < 1 or tournament < 1:
            raise ConfigError(
                f"population and tournament must be at least 1, got {population} and {tournament}"
            )
        self._space, self._limit, self._rng = space, limit, rng
        self._distinct = Distinct(space, limit)
        self._n_candidates = space.count()
        self._n_random = population
        self._members: deque[Trial] = deque(maxlen=population)
        self._tournament = tournament

    def ask(self) -> Candidate | None:
        """A random candidate while the population fills, then a mutant; None after the last one."""
        if self._n_random > 0 or not self._members:
            self._n_random -= 1
            return self._distinct.sample(self._rng)
        drawn = self._rng.integers(len(self._members), size=self._tournament)
        parent = max((self._members[i] for i in drawn), key=lambda trial: trial.merit)
        if self._n_candidates == 1:
            return None
        mutant = self._distinct.first_new(
            lambda: self._space.mutate(parent.candidate, self._rng, self._limit), MUTANTS_MAX
        )
        return mutant or self._distinct.sample(self._rng)

    def tell(self, trial: Trial) -> None:
        """Add the trial to the population; the oldest member leaves."""
        if trial.valid:
            self._members.append(trial)
