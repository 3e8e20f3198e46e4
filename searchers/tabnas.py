# SPDX-License-Identifier: Apache-2.0
"""TabNAS: REINFORCE by rejection, corrected for what is rejected."""

from __future__ import annotations

import numpy as np

from searchers.base import Trial
from searchers.controller import ReinforceSearch
from spaces.base import Space
from spaces.feasible import FeasibleSet
from spaces.limits import Limit


class TabnasSearch(ReinforceSearch):
    """Policy gradients on the score, with ``log(p(y) / P(V))`` for the log probability.

    The policy draws each decision independently; `V` are the candidates within the limit, so that
    ``p(y) / P(V)`` is the probability of what is evaluated. The reward has no term for the cost.

    Args:
        space, limit, rng: see `searchers.base.Searcher`.
        learning_rate: of Adam, on the logits.
        baseline_decay: of the mean reward, which goes off every reward.
        batch: candidates that are drawn before any of them is learnt from.

    Raises:
        ConfigError: an option is out of range.
        InfeasibleError: no candidate is within the limit.
        TooEntangledError: the space has no exact feasible set.

    Source: Yang et al., 2022, "TabNAS: rejection sampling for neural architecture search".
    Differs: the gradient of ``log P(V)`` is exact, by the dynamic programme, where TabNAS estimates
    `P(V)` from samples; rewards are those of an evaluator.
    """

    def __init__(
        self,
        space: Space,
        limit: Limit,
        rng: np.random.Generator,
        learning_rate: float = 0.1,
        baseline_decay: float = 0.95,
        batch: int = 1,
    ):
        super().__init__(space, limit, rng, learning_rate, baseline_decay, batch)

    def _reward(self, trial: Trial) -> float:
        assert trial.score is not None
        return trial.score

    def _within(self) -> FeasibleSet:
        return self._controller.within(self._limit)
