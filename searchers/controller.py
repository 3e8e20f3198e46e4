# SPDX-License-Identifier: Apache-2.0
"""What the REINFORCE searchers share: independent distributions of options, learnt by Adam."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

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

    def within(self, limit: Limit) -> FeasibleSet:
        """Draws of the controller given that they are within a limit."""
        return FeasibleSet(self.space, limit, self.log_probabilities())

    def gradient(
        self, choices: np.ndarray, advantages: np.ndarray, within: FeasibleSet | None
    ) -> list[np.ndarray]:
        """Policy gradient: mean of advantage times the gradient of a draw's log probability.

        Args:
            choices: option indices of draws, i64 [n, n_decisions].
            advantages: their rewards less a baseline, f64 [n].
            within: None if they are draws of `draw`, else what they were drawn from: their
                probability is then ``p(y) / P(V)``, and the gradient of ``log P(V)``, what the
                score gradient is on average within `V`, goes off that of ``log p(y)``.

        Source: REINFORCE; with `within`, Yang et al., 2022, "TabNAS". Differs: `P(V)` is exact.
        """
        found = [np.zeros_like(logits) for logits in self.logits]
        for row, advantage in zip(choices.tolist(), advantages.tolist(), strict=True):
            drawn = Candidate(self.space.content_hash, tuple(row))
            for total, slope in zip(found, self.score_gradient(drawn), strict=True):
                total += advantage / len(choices) * slope
        if within is not None:
            mean = float(advantages.mean())
            each = zip(found, within.marginals(), self.log_probabilities(), strict=True)
            for total, shown, log_probabilities in each:
                total -= mean * (shown - shown.sum() * np.exp(log_probabilities))
        return found

    def state_dict(self) -> dict[str, Any]:
        """All that learning needs to go on bit for bit, as lists."""
        return {
            "n_steps": self._n_steps,
            "logits": [each.tolist() for each in self.logits],
            "squares": [each.tolist() for each in self._squares],
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from what `state_dict` gave."""
        self._n_steps = state["n_steps"]
        self.logits = [np.array(each) for each in state["logits"]]
        self._squares = [np.array(each) for each in state["squares"]]

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
    `_reward`, and whether its probability is that within the limit, `_within`.
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
            rows = self._controller.within(self._limit).sample_many(self._rng, DRAWS)
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
        choices, advantages = np.array([trial.candidate.choices]), np.array([advantage])
        self._controller.ascend(self._controller.gradient(choices, advantages, self._within()))

    def _reward(self, trial: Trial) -> float:
        raise NotImplementedError

    def _within(self) -> FeasibleSet | None:
        raise NotImplementedError
