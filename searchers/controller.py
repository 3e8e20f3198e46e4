# SPDX-License-Identifier: Apache-2.0
"""What the REINFORCE searchers share: independent distributions of options, learnt by Adam."""

from __future__ import annotations

import numpy as np

from npusim._arguments import integer
from npusim.errors import ConfigError
from searchers.base import Trial
from searchers.distinct import Distinct
from spaces.base import Candidate, Space
from spaces.costs import costs
from spaces.feasible import FeasibleSet
from spaces.limits import Limit
from spaces.moves import effective

DRAWS = 256
"""Draws at once, of which the first that is within the limit and new is taken."""
LOGIT_MOST = 10.0
"""Logits are kept in -10..10, so that no option's probability becomes 0."""
SQUARES_DECAY, EPSILON = 0.999, 1e-8
"""Of Adam; its first moment is not kept."""


class Controller:
    """Logits of the options of each decision, f64 [n_options] each, at first all 0."""

    def __init__(self, space: Space, learning_rate: float):
        if not learning_rate > 0:
            raise ConfigError(f"learning_rate must be more than 0, got {learning_rate}")
        self.space, self.learning_rate = space, learning_rate
        self.logits = [np.zeros(n) for n in space.n_options.tolist()]
        self._squares = [np.zeros(n) for n in space.n_options.tolist()]
        self._n_steps = 0

    def log_probabilities(self) -> list[np.ndarray]:
        """Of each option, f64 [n_options] for each decision."""
        return [logits - np.logaddexp.reduce(logits) for logits in self.logits]

    def draw(self, rng: np.random.Generator, n: int) -> np.ndarray:
        """Option indices of `n` independent draws, i64 [n, n_decisions]."""
        columns = []
        for log_probabilities in self.log_probabilities():
            upto = np.cumsum(np.exp(log_probabilities))
            aims = rng.random(n) * upto[-1]
            columns.append(np.minimum(np.searchsorted(upto, aims, "right"), len(upto) - 1))
        return self.space.canonical(np.stack(columns, axis=1))

    def score_gradient(self, candidate: Candidate) -> list[np.ndarray]:
        """Gradient of the candidate's log probability; 0 for decisions without effect."""
        found = [np.zeros_like(logits) for logits in self.logits]
        log_probabilities = self.log_probabilities()
        for position in effective(self.space, candidate.choices):
            found[position] = -np.exp(log_probabilities[position])
            found[position][candidate.choices[position]] += 1
        return found

    def ascend(self, gradient: list[np.ndarray]) -> None:
        """One step of Adam up a gradient."""
        self._n_steps += 1
        unbiased = 1 - SQUARES_DECAY**self._n_steps
        for logits, squares, slope in zip(self.logits, self._squares, gradient, strict=True):
            squares *= SQUARES_DECAY
            squares += (1 - SQUARES_DECAY) * slope**2
            logits += self.learning_rate * slope / (np.sqrt(squares / unbiased) + EPSILON)
            np.clip(logits, -LOGIT_MOST, LOGIT_MOST, out=logits)


class ReinforceSearch:
    """Draw candidates within the limit from a controller and make good ones likelier.

    Draws beyond the limit, or evaluated before, are dropped. Where none of many is within the
    limit, others are drawn that are, exactly as likely as if draws went on for as long as it takes;
    where none is new, a candidate is drawn uniformly. Subclasses say what a trial is worth,
    `_reward`, and what goes off its gradient, `_correction`.
    """

    def __init__(
        self,
        space: Space,
        limit: Limit,
        rng: np.random.Generator,
        learning_rate: float,
        baseline_decay: float,
        batch: int,
    ):
        if not 0 <= baseline_decay < 1:
            raise ConfigError(f"baseline_decay must be in 0..1, less than 1, got {baseline_decay}")
        self.batch = integer("batch", batch, 1, 100_000)
        self._space, self._limit, self._rng = space, limit, rng
        self._decay = baseline_decay
        self._distinct = Distinct(space, limit)
        self._controller = Controller(space, learning_rate)
        self._baseline: float | None = None
        self._several = space.count() > 1

    def ask(self) -> Candidate | None:
        """A draw within the limit that is new; None after the last candidate."""
        for drawn in self._draws() if self._several else ():
            if self._distinct.is_new(drawn):
                return self._distinct.take(drawn)
        return self._distinct.sample(self._rng)

    def _draws(self) -> list[Candidate]:
        """Draws of the controller, given that they are within the limit."""
        rows = self._controller.draw(self._rng, DRAWS)
        rows = rows[costs(self._space, rows, self._limit.measure) <= self._limit.most]
        if not len(rows):
            log_weights = self._controller.log_probabilities()
            within = FeasibleSet(self._space, self._limit, log_weights)
            rows = within.sample_many(self._rng, DRAWS)
        return [Candidate(self._space.content_hash, tuple(row)) for row in rows.tolist()]

    def tell(self, trial: Trial) -> None:
        """Learn from the trial if it is valid."""
        if not trial.valid:
            return
        reward = self._reward(trial)
        if self._baseline is None:
            self._baseline = reward
        advantage = reward - self._baseline
        self._baseline = self._decay * self._baseline + (1 - self._decay) * reward
        slopes = self._controller.score_gradient(trial.candidate)
        expected = self._correction()
        self._controller.ascend(
            [advantage * (slope - off) for slope, off in zip(slopes, expected, strict=True)]
        )

    def _reward(self, trial: Trial) -> float:
        raise NotImplementedError

    def _correction(self) -> list[np.ndarray]:
        raise NotImplementedError
