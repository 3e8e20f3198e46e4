# SPDX-License-Identifier: Apache-2.0
"""NSGA-II: evolution of a whole front of score against cost."""

from __future__ import annotations

from typing import Literal

import numpy as np

from npusim._arguments import integer
from npusim.errors import ConfigError
from searchers import fronts
from searchers.base import Trial
from searchers.distinct import Distinct
from spaces.base import Candidate, Space
from spaces.limits import Limit

CHILDREN_MAX = 50
"""Children of one pair that may repeat earlier candidates before a random one is drawn."""


class Nsga2Search:
    """Keep the population that is best in score and in cost, and spread out along both.

    Generations are of `population` candidates: the first drawn uniformly within the limit, later
    ones children of parents that won a tournament of two. All children are within the limit;
    constraints that only the evaluation can check rank those that violate them below others, by how
    much.

    Args:
        space, limit, rng: see `searchers.base.Searcher`.
        population: candidates of a generation, and parents that are kept.
        crossover: probability that a child has decisions of two parents before it is mutated.
        against: the cost that is the second objective; ``limit`` is what the limit is on.

    Raises:
        ConfigError: an option is out of range.
        InfeasibleError: no candidate is within the limit.

    Source: Deb et al., 2002, "A fast and elitist multiobjective genetic algorithm: NSGA-II".
    """

    def __init__(
        self,
        space: Space,
        limit: Limit,
        rng: np.random.Generator,
        population: int = 20,
        crossover: float = 0.9,
        against: Literal["limit", "size_bits", "macs", "n_parameters"] = "limit",
    ):
        self.batch = integer("population", population, 2, 100_000)
        if not 0 <= crossover <= 1:
            raise ConfigError(f"crossover must be in 0..1, got {crossover}")
        self._space, self._limit, self._rng = space, limit, rng
        self._crossover = crossover
        self._measure = limit.measure if against == "limit" else against
        self._distinct = Distinct(space, limit)
        self._several = space.count() > 1
        self._parents: list[Trial] = []
        self._fitness: list[tuple[int, float]] = []
        self._told: list[Trial] = []

    def ask(self) -> Candidate | None:
        """A random candidate in the first generation, then a child; None after the last one."""
        if not (self._parents and self._several):
            return self._distinct.sample(self._rng)
        first, second = self._winner(), self._winner()
        child = self._distinct.first_new(lambda: self._child(first, second), CHILDREN_MAX)
        return child or self._distinct.sample(self._rng)

    def _winner(self) -> Candidate:
        """The better of two parents: of a better front, else where it is less crowded."""
        drawn = self._rng.integers(len(self._parents), size=2).tolist()
        winner: int = min(drawn, key=lambda i: self._fitness[i])
        return self._parents[winner].candidate

    def _child(self, first: Candidate, second: Candidate) -> Candidate:
        child = first
        if self._rng.random() < self._crossover:
            child = self._space.crossover(first, second, self._rng, self._limit)
        n_decisions = len(child.choices)
        unmoved = (1 - 1 / n_decisions) ** n_decisions  # each decision mutates one time in n
        if child == first or self._rng.random() >= unmoved:
            child = self._space.mutate(child, self._rng, self._limit)
        return child

    def tell(self, trial: Trial) -> None:
        """Take a child; after a whole generation, keep the best of parents and children."""
        if trial.score is not None:
            self._told.append(trial)
        if len(self._told) == self.batch:
            self._parents, self._fitness = self._survivors([*self._parents, *self._told])
            self._told = []

    def _survivors(self, trials: list[Trial]) -> tuple[list[Trial], list[tuple[int, float]]]:
        points = np.array([(-trial.rank[1], trial.costs[self._measure]) for trial in trials])
        front = fronts.ranks(points, np.array([-trial.rank[0] for trial in trials]))
        crowding = np.zeros(len(trials))
        for rank in range(int(front.max()) + 1):
            crowding[front == rank] = fronts.crowding(points[front == rank])
        order = np.lexsort((-crowding, front))[: self.batch].tolist()
        return [trials[i] for i in order], [(int(front[i]), -float(crowding[i])) for i in order]
