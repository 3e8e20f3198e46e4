# SPDX-License-Identifier: Apache-2.0
"""Regularized evolution: a queue of candidates, of which the oldest dies, not the worst."""

from __future__ import annotations

from collections import deque

import numpy as np

from npusim._arguments import integer
from searchers.base import Trial
from searchers.distinct import Distinct
from spaces.base import Candidate, Space
from spaces.limits import Limit

POPULATION_LEAST, POPULATION_MOST = 10, 50
"""Members of a population that grows with the trials."""
TRIALS_A_MEMBER = 5
"""Trials told for each member of it."""
TOURNAMENT_LEAST, MEMBERS_A_DRAW = 3, 4
"""Least members of a tournament, and members of the population for each of them."""
MUTANTS_MAX = 50
"""Mutants of one parent that may repeat earlier candidates before a random one is drawn."""


class EvolutionSearch:
    """Mutate the best of a few members drawn from a population of the latest candidates.

    The first candidates are drawn uniformly within the limit, one for each member. Every later one
    is a mutant, within the limit and never proposed before, of the best among the members of a
    tournament. Trials without a score take no part.

    Args:
        space, limit, rng: see `searchers.base.Searcher`.
        population: trials that are remembered. None: a fifth of those told, between 10 and 50, so
            that short searches need no other setting than long ones.
        tournament: members drawn, with replacement, to find a parent; None: a quarter of them.
        batch: candidates that are asked for before any of them is told of.

    Raises:
        ConfigError: an option is out of range.
        InfeasibleError: no candidate is within the limit.

    Source: aging evolution (Real et al., 2019). Mutation: `spaces.moves.mutate`.
    """

    def __init__(
        self,
        space: Space,
        limit: Limit,
        rng: np.random.Generator,
        population: int | None = None,
        tournament: int | None = None,
        batch: int = 1,
    ):
        self.batch = integer("batch", batch, 1, 1_000_000)
        for what, value in (("population", population), ("tournament", tournament)):
            if value is not None:
                integer(what, value, 1, 1_000_000)
        self._space, self._limit, self._rng = space, limit, rng
        self._distinct = Distinct(space, limit)
        self._n_candidates = space.count()
        self._population, self._tournament = population, tournament
        self._n_random = POPULATION_LEAST if population is None else population
        self._n_told = 0
        self._members: deque[Trial] = deque()

    def ask(self) -> Candidate | None:
        """A random candidate while the population fills, then a mutant; None after the last one."""
        if self._n_random > 0 or not self._members:
            self._n_random -= 1
            return self._distinct.sample(self._rng)
        if self._n_candidates == 1:
            return None
        n_members = len(self._members)
        n_drawn = self._tournament or max(TOURNAMENT_LEAST, n_members // MEMBERS_A_DRAW)
        drawn = (self._rng.random(n_drawn) * n_members).astype(int).tolist()
        parent = max((self._members[i] for i in drawn), key=lambda trial: trial.rank)
        mutant = self._distinct.first_new(
            lambda: self._space.mutate(parent.candidate, self._rng, self._limit), MUTANTS_MAX
        )
        return mutant or self._distinct.sample(self._rng)

    def tell(self, trial: Trial) -> None:
        """Add the trial to the population; the oldest member leaves."""
        self._n_told += 1
        if trial.score is not None:
            self._members.append(trial)
        most = self._population or min(
            max(self._n_told // TRIALS_A_MEMBER, POPULATION_LEAST), POPULATION_MOST
        )
        while len(self._members) > most:
            self._members.popleft()
