# SPDX-License-Identifier: Apache-2.0
"""Frank-Wolfe over the feasible set: each step goes to the best candidate of a linear score."""

from __future__ import annotations

import numpy as np

from npusim._arguments import integer
from npusim.errors import ConfigError
from searchers.base import Trial
from searchers.distinct import Distinct
from searchers.encoding import one_hot
from spaces.base import Candidate, Space
from spaces.decode import best
from spaces.limits import Limit

PROBABILITY_LEAST = 1e-3
"""Least probability of an option in the gradient of the entropy."""
MUTANTS_MAX = 50
"""Mutants of a vertex that may repeat earlier candidates before a random one is drawn."""


class FrankWolfeSearch:
    """Climb an additive estimate of the score within the convex hull of all feasible candidates.

    A point of the hull is a probability for each option, mixed from candidates that are all within
    the limit. The objective is what a ridge regression on the options expects of the score, plus
    the entropy of the probabilities. Each step maximises its gradient, a score for each option,
    over the feasible candidates, exactly; the maximiser is a vertex of the hull, is proposed, and
    the point goes a part of the way there. So the limit is never relaxed and needs no weight.

    Args:
        space, limit, rng: see `searchers.base.Searcher`.
        initial: candidates drawn uniformly within the limit, whose mean the climb starts from.
        entropy: weight of the entropy, in standard deviations of the scores; it explores.
        ridge: weight of the squared coefficients in the regression.

    Raises:
        ConfigError: an option is out of range.
        InfeasibleError: no candidate is within the limit.
        TooEntangledError: the space has no exact feasible set.

    Source: HardCoRe-NAS (Nayman et al., 2021): Frank-Wolfe under a hard constraint, with an
    accuracy estimated from samples. Differs: the oracle is `spaces.decode.best`, exact for every
    measure; the estimate is refitted after each trial.
    """

    def __init__(
        self,
        space: Space,
        limit: Limit,
        rng: np.random.Generator,
        initial: int = 10,
        entropy: float = 0.1,
        ridge: float = 1.0,
    ):
        self._n_initial = integer("initial", initial, 1, 1_000_000)
        if entropy < 0 or ridge <= 0:
            raise ConfigError(
                f"entropy must be at least 0 and ridge more, got {entropy} and {ridge}"
            )
        self._space, self._limit, self._rng = space, limit, rng
        self._entropy, self._ridge = entropy, ridge
        self._distinct = Distinct(space, limit)
        self._several = space.count() > 1
        n_columns = int(space.n_options.sum())
        self._normal = np.zeros((n_columns, n_columns))
        self._rows: list[np.ndarray] = []
        self._scores: list[float] = []
        self._point = np.zeros(n_columns)
        self._n_steps = 0

    def ask(self) -> Candidate | None:
        """A random candidate at first, then the next vertex; None after the last candidate."""
        if len(self._scores) < self._n_initial or not self._several:
            return self._distinct.sample(self._rng)
        if self._n_steps == 0:
            self._point = np.mean(self._rows, axis=0)
        vertex = best(self._space, self._limit, self._gradient()).candidate
        step = 2 / (self._n_steps + 2 + self._n_initial)  # the start is a mean of `initial` ones
        self._n_steps += 1
        self._point += step * (self._row(vertex) - self._point)
        if self._distinct.is_new(vertex):
            return self._distinct.take(vertex)
        near = self._distinct.first_new(
            lambda: self._space.mutate(vertex, self._rng, self._limit), MUTANTS_MAX
        )
        return near or self._distinct.sample(self._rng)

    def tell(self, trial: Trial) -> None:
        """Use the trial in the regression if it is valid."""
        if trial.valid and trial.score is not None:
            row = self._row(trial.candidate)
            self._rows.append(row)
            self._scores.append(trial.score)
            self._normal += np.outer(row, row)

    def _row(self, candidate: Candidate) -> np.ndarray:
        row: np.ndarray = one_hot(self._space, np.array([candidate.choices]))[0]
        return row

    def _gradient(self) -> list[np.ndarray]:
        """Of the objective at the current point, by option of each decision."""
        scores = np.array(self._scores)
        scaled = (scores - scores.mean()) / (scores.std() or 1.0)
        normal = self._normal + self._ridge * np.eye(len(self._point))
        coefficients = np.linalg.solve(normal, np.array(self._rows).T @ scaled)
        probabilities = np.maximum(self._point, PROBABILITY_LEAST)
        gradient = coefficients - self._entropy * (np.log(probabilities) + 1)
        return np.split(gradient, np.cumsum(self._space.n_options)[:-1])
