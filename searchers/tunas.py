# SPDX-License-Identifier: Apache-2.0
"""TuNAS: REINFORCE with a reward that wants the cost to be what is allowed, not less."""

from __future__ import annotations

import numpy as np

from npusim.errors import ConfigError
from searchers.base import Trial
from searchers.controller import ReinforceSearch
from spaces.base import Space
from spaces.limits import Limit


class TunasSearch(ReinforceSearch):
    """Policy gradients on ``score + beta * |cost / limit - 1|``.

    The policy draws each decision independently. Draws beyond the limit are never evaluated: their
    cost is known. How often that happens does not enter the gradient; in `searchers.tabnas` it
    does.

    Args:
        space, limit, rng: see `searchers.base.Searcher`.
        beta: weight of the cost, at most 0, for scores such as accuracies in 0..1.
        learning_rate: of Adam, on the logits.
        baseline_decay: of the mean reward, which goes off every reward.
        batch: candidates that are drawn before any of them is learnt from.

    Raises:
        ConfigError: an option is out of range.
        InfeasibleError: no candidate is within the limit.

    Source: Bender et al., 2020, "Can weight sharing outperform random architecture search?":
    absolute reward, moving mean as the baseline, Adam without first moment.
    Differs: every reward is that of an evaluator, not of shared weights, so there are hundreds of
    rewards instead of many thousands, and the learning rate is larger and constant.
    """

    def __init__(
        self,
        space: Space,
        limit: Limit,
        rng: np.random.Generator,
        beta: float = -0.1,
        learning_rate: float = 0.1,
        baseline_decay: float = 0.95,
        batch: int = 1,
    ):
        super().__init__(space, limit, rng, learning_rate, baseline_decay, batch)
        if beta > 0:
            raise ConfigError(f"beta must be at most 0, got {beta}")
        self._beta = beta

    def _reward(self, trial: Trial) -> float:
        assert trial.score is not None
        used = trial.costs[self._limit.measure] / self._limit.most
        return float(absolute_reward(np.array(trial.score), np.array(used), self._beta))

    def _within(self) -> None:
        """The probability is that of the draw, whatever is dropped."""


def absolute_reward(quality: np.ndarray, used: np.ndarray, beta: float) -> np.ndarray:
    """``Q + beta * |T / T0 - 1|``.

    Args:
        quality: of candidates.
        used: their costs as parts of the target.
        beta: at most 0.

    Source: Bender et al., 2020, the absolute reward.
    """
    found: np.ndarray = quality + beta * np.abs(used - 1)
    return found
