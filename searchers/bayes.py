# SPDX-License-Identifier: Apache-2.0
"""Bayesian optimisation: a regression of the scores says which of many candidates to try next."""

from __future__ import annotations

import math
import warnings
from typing import Any, Literal

import numpy as np

from npusim._arguments import integer
from npusim.errors import MissingExtraError
from searchers.base import Trial
from searchers.distinct import Distinct
from searchers.encoding import points
from spaces.base import Candidate, Space
from spaces.limits import Limit

BEST = 5
"""Best trials whose mutants are half of the pool."""
N_TREES = 100


class BayesianSearch:
    """Propose the candidate of highest expected improvement in a pool of feasible ones.

    Half of the pool is drawn uniformly within the limit, half are mutants, of one or two moves, of
    the best trials so far. Candidates that were asked for but not told of yet count as if they had
    the mean score (a constant liar), so that several can be asked for at once.

    Args:
        space, limit, rng: see `searchers.base.Searcher`.
        surrogate: ``extra-trees``, ``random-forest`` or ``gaussian-process`` of scikit-optimize.
        initial: candidates drawn uniformly within the limit before the first regression.
        pool: candidates among which the best is chosen.
        batch: candidates that are asked for before any of them is told of.

    Raises:
        ConfigError: an option is out of range.
        InfeasibleError: no candidate is within the limit.
        MissingExtraError: scikit-optimize is not installed.

    Source: Jones et al., 1998, expected improvement; Ginsbourger et al., 2010, constant liar.
    """

    def __init__(
        self,
        space: Space,
        limit: Limit,
        rng: np.random.Generator,
        surrogate: Literal["extra-trees", "random-forest", "gaussian-process"] = "extra-trees",
        initial: int = 10,
        pool: int = 600,
        batch: int = 1,
    ):
        self.batch = integer("batch", batch, 1, 1_000_000)
        try:
            import skopt.learning
        except ImportError as error:
            raise MissingExtraError("Bayesian search", "searchers", error) from error
        self._learning = skopt.learning
        self._surrogate = surrogate
        self._n_initial = integer("initial", initial, 2, 1_000_000)
        self._n_pool = integer("pool", pool, 2, 1_000_000)
        self._space, self._limit, self._rng = space, limit, rng
        self._distinct = Distinct(space, limit)
        self._n_candidates = space.count()
        self._waiting: dict[Candidate, None] = {}
        self._told: list[Trial] = []

    def ask(self) -> Candidate | None:
        """A random candidate at first, then the most promising one; None after the last one."""
        if len(self._told) < self._n_initial or self._n_candidates == 1:
            found = self._distinct.sample(self._rng)
        else:
            pool = self._pool()
            found = self._most_promising(pool) if pool else self._distinct.sample(self._rng)
        if found is not None:
            self._waiting[found] = None
        return found

    def tell(self, trial: Trial) -> None:
        """Use the trial in the next regression if it has a score."""
        self._waiting.pop(trial.candidate, None)
        if trial.score is not None:
            self._told.append(trial)

    def _pool(self) -> list[Candidate]:
        best = sorted(self._told, key=lambda trial: trial.rank, reverse=True)[:BEST]
        drawn = [self._distinct.draw(self._rng) for _ in range(self._n_pool // 2)]
        for i in range(self._n_pool - len(drawn)):
            parent = best[i % len(best)].candidate
            for _ in range(int(self._rng.integers(1, 3))):
                parent = self._space.mutate(parent, self._rng, self._limit)
            drawn.append(parent)
        return [each for each in dict.fromkeys(drawn) if self._distinct.is_new(each)]

    def _most_promising(self, pool: list[Candidate]) -> Candidate:
        known = [trial.candidate for trial in self._told]
        scores = np.array([trial.score for trial in self._told], dtype=np.float64)
        lies = np.full(len(self._waiting), scores.mean())
        targets = np.concatenate([scores, lies])
        scale = targets.std() or 1.0
        targets = (targets - targets.mean()) / scale
        model = self._model()
        with warnings.catch_warnings():
            # a Gaussian process says at which bound of its noise it ended: with few trials, always
            warnings.simplefilter("ignore")
            model.fit(self._points([*known, *self._waiting]), targets)
        mean, deviation = model.predict(self._points(pool), return_std=True)
        valid = [t for t, trial in zip(targets, self._told, strict=False) if trial.valid]
        gains = expected_improvement(mean, deviation, max(valid, default=targets.max()))
        return self._distinct.take(pool[int(gains.argmax())])

    def _points(self, candidates: list[Candidate]) -> np.ndarray:
        return points(self._space, np.array([each.choices for each in candidates]))

    def _model(self) -> Any:
        seed = int(self._rng.integers(2**31))
        if self._surrogate == "gaussian-process":
            kernels = self._learning.gaussian_process.kernels
            kernel = kernels.ConstantKernel(1.0) * kernels.Matern(nu=2.5)
            return self._learning.GaussianProcessRegressor(
                kernel, noise="gaussian", random_state=seed
            )
        forests = {
            "extra-trees": self._learning.ExtraTreesRegressor,
            "random-forest": self._learning.RandomForestRegressor,
        }
        return forests[self._surrogate](N_TREES, min_samples_leaf=2, random_state=seed)


def expected_improvement(mean: np.ndarray, deviation: np.ndarray, best: float) -> np.ndarray:
    """By how much normal variables are above `best` on average, 0 where they are below; f64 [n].

    >>> expected_improvement(np.array([0.0, 1.0]), np.array([1.0, 0.0]), 0.0).round(4).tolist()
    [0.3989, 1.0]
    """
    gain = mean - best
    spread = np.maximum(deviation, 1e-12)
    z = gain / spread
    below = 0.5 * (1 + np.vectorize(math.erf)(z / math.sqrt(2)))
    density = np.exp(-(z**2) / 2) / math.sqrt(2 * math.pi)
    improvement: np.ndarray = gain * below + spread * density
    return improvement
