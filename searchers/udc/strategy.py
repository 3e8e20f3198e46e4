# SPDX-License-Identifier: Apache-2.0
"""A search on shared weights on its way: what all strategies have, whatever they learn beside them.

Every random number is a function of the seed and the number of the step, of the batch or of the
epoch. So a search goes on from a checkpoint as if it had never stopped, and processes that share
its samples draw the same ones.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from npusim.errors import ConfigError
from searchers.training.tasks import Task
from searchers.udc.config import WeightsConfig
from searchers.udc.sampling import Decisions
from searchers.udc.supernet import Supernet
from searchers.udc.weights import SharedWeights
from spaces.base import Space
from spaces.costs import costs
from spaces.limits import Limit
from spaces.npu_limits import AnyLimit


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """What one step of a search was like.

    Attributes:
        t: number of steps done, from 1.
        loss: of the task, mean over the samples.
        cost: mean over the samples, as a part of the limit.
        gamma: cost of the most likely candidate, exact, as a part of the limit.
        entropy_bits: mean over the decisions.
        surest: mean over the decisions of their largest probability.
    """

    t: int
    loss: float
    cost: float
    gamma: float
    entropy_bits: float
    surest: float


class Strategy:
    """A search on shared weights on its way; subclasses have `log_pi`, `step` and their state.

    Args:
        space: what is searched.
        limits: the first one is e*, a measure of `spaces.costs`; of further ones a strategy need
            not know, since they are kept when candidates are decoded.
        task: what is trained on, and for.
        config: how.
        seed: decides everything.
        device: where to train; the task's batches are there.
        images_most: that the search may train on; None for all of its epochs.

    Attributes:
        limit: the first one.
        weights: the network that holds all candidates, and its training.

    Raises:
        ConfigError: the space cannot be one network, or there are too few images.
    """

    step_type: type[Step] = Step

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
        if not isinstance(limits[0], Limit):
            raise ConfigError(
                f"the first limit must be on what the space costs itself, got {limits[0]}"
            )
        self.space, self.limits, self.seed = space, limits, seed
        self.limit: Limit = limits[0]
        self.device = torch.device(device)
        self.decisions = Decisions.of(space, device)
        self.weights = SharedWeights(space, task, config, seed, self.device, images_most)

    @property
    def net(self) -> Supernet:
        """The network that holds all candidates."""
        return self.weights.net

    @property
    def t(self) -> int:
        """Steps done."""
        return self.weights.t

    @property
    def n_steps(self) -> int:
        """Steps of the whole search."""
        return self.weights.n_steps

    @property
    def n_images(self) -> int:
        """Images trained on so far, by all processes."""
        return self.weights.n_images

    def log_pi(self) -> Tensor:
        """Log probabilities of the options, [D, K]."""
        raise NotImplementedError

    def step(self) -> Step:
        """One turn of the loop."""
        raise NotImplementedError

    def train(self, z: Tensor) -> tuple[float, Tensor]:
        """Train the weights on samples [S, D, K]; their task loss, and its gradient to z."""
        if self.weights.masks_are_due:
            self.net.refresh_masks(self.log_pi().detach().exp())
        found = self.weights.gradients(z)
        self.weights.update()
        return found

    def rng(self, stream: int) -> np.random.Generator:
        """The random numbers of this step, by what they are for."""
        return np.random.default_rng((self.seed, stream, self.t))

    @torch.no_grad()
    def report(self, loss: float, cost: float, **own: float) -> Step:
        """The step that was just done, with what the strategy's own `step_type` has besides."""
        log_pi = self.log_pi()
        gamma = log_pi.argmax(1).cpu().numpy()[None]
        limit = self.limit
        return self.step_type(
            t=self.t,
            loss=loss,
            cost=cost,
            gamma=int(costs(self.space, gamma, limit.measure)[0]) / limit.most,
            entropy_bits=self.decisions.entropy_bits(log_pi).mean().item(),
            surest=log_pi.exp().max(1).values.mean().item(),
            **own,
        )

    def state_dict(self) -> dict[str, Any]:
        """All that a search needs to go on bit for bit."""
        return self.weights.state_dict()

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from what `state_dict` gave."""
        self.weights.load_state_dict(state)
