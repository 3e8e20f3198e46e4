# SPDX-License-Identifier: Apache-2.0
"""Shared weights trained on candidates drawn uniformly within the limit: nothing else is learnt."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from searchers.training.tasks import Task
from searchers.udc.config import WeightsConfig
from searchers.udc.strategy import Step, Strategy
from spaces.base import Space
from spaces.costs import costs
from spaces.feasible import feasible_set
from spaces.npu_limits import AnyLimit

_CHOICES_STREAM = 41


class SinglePath(Strategy):
    """The training of a single-path one-shot network.

    Args:
        space, limits, task, config, seed, device, images_most: see
            `searchers.udc.strategy.Strategy`.

    Source: Guo et al., 2020, "Single path one-shot neural architecture search with uniform
    sampling", section 3.2. Differs: uniform within the limit, not over all candidates; several
    candidates a step, each with images of its own.
    """

    def __init__(
        self,
        space: Space,
        limits: Sequence[AnyLimit],
        task: Task,
        config: WeightsConfig,
        seed: int,
        device: torch.device | str = "cpu",
        images_most: int | None = None,
    ):
        super().__init__(space, limits, task, config, seed, device, images_most)
        self.feasible = feasible_set(space, self.limit)

    def log_pi(self) -> Tensor:
        """Log probabilities of the options, [D, K]: all alike."""
        return self.decisions.log_pi(torch.zeros(self.decisions.valid.shape, dtype=torch.float64))

    def step(self) -> Step:
        """One turn: candidates uniformly within the limit, one update of the weights."""
        choices = self.feasible.sample_many(self.rng(_CHOICES_STREAM), self.weights.config.n_mc)
        loss, _ = self.train(self.decisions.one_hot(torch.from_numpy(choices).to(self.device)))
        used = costs(self.space, choices, self.limit.measure) / self.limit.most
        return self.report(loss, used.mean().item())
