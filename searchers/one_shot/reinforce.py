# SPDX-License-Identifier: Apache-2.0
"""TuNAS and TabNAS: policy gradients on what candidates reach with the weights they share.

Both turn by turn train the weights on candidates of the policy, and the policy on how well such
candidates do on validation data. They differ in how a limit is kept: `Tunas.step` has it in the
reward, `Tabnas.step` draws from what is within it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from searchers.controller import Controller
from searchers.one_shot.config import ReinforceConfig
from searchers.training.tasks import Task
from searchers.tunas import absolute_reward
from searchers.udc.batches import Batches
from searchers.udc.sampling import PADDING
from searchers.udc.strategy import Step, Strategy
from spaces.base import Space
from spaces.costs import costs
from spaces.feasible import FeasibleSet
from spaces.npu_limits import AnyLimit

_CHOICES_STREAM, _WARM_UP_STREAM = 21, 22


@dataclass(frozen=True, slots=True, kw_only=True)
class ReinforceStep(Step):
    """What one step was like.

    Attributes:
        reward: mean over the samples; 0 in the warm-up, which has none.
    """

    reward: float


class Reinforce(Strategy):
    """What both have: a policy of independent decisions, and its rewards.

    Args:
        space, limits, task, seed, device, images_most: see `searchers.udc.strategy.Strategy`.
        validation: what the rewards are measured on.
        config: how.
    """

    step_type = ReinforceStep

    def __init__(
        self,
        space: Space,
        limits: Sequence[AnyLimit],
        task: Task,
        validation: Task,
        config: ReinforceConfig,
        seed: int,
        device: torch.device | str = "cpu",
        images_most: int | None = None,
    ):
        super().__init__(space, limits, task, config, seed, device, images_most)
        self.config = config
        n_images = min(config.score_images, validation.n_samples)
        self._validation = Batches(validation, n_images, seed)
        learning = [_growth(config, t / self.n_steps) for t in range(self.n_steps)]
        self.rate = config.pi_travel / (sum(learning) or 1.0)  # before it grows
        self.controller = Controller(space, self.rate)
        self._baseline: float | None = None

    def log_pi(self) -> Tensor:
        """Log probabilities of the options, [D, K]."""
        return self.decisions.padded(self.controller.log_probabilities(), PADDING)

    @property
    def learns(self) -> bool:
        """Whether the warm-up is over."""
        return self.weights.progress >= self.config.warm_up

    @torch.no_grad()
    def quality(self, z: Tensor) -> np.ndarray:
        """What samples reach on validation images of their own, f64 [S].

        Accuracy in 0..1 or, of images, PSNR in dB over 100. Batch norm is by these images.
        """
        found = torch.zeros(len(z), dtype=torch.float64, device=self.device)
        for part in self.weights.own_parts():
            numbers = range(self.t * len(z) + part.start, self.t * len(z) + part.stop)
            images, targets = self._validation.many(numbers)
            with self.weights.autocast():
                outputs = self.net(images, z[part])
            found[part] = _quality(outputs.float(), targets).double()
        self.weights.processes.sum(found)
        return found.cpu().numpy()

    def learn(self, choices: np.ndarray, rewards: np.ndarray, within: FeasibleSet | None) -> None:
        """One step of the policy, see `Controller.gradient`."""
        mean = float(rewards.mean())
        if self._baseline is None:
            self._baseline = mean
        advantages = rewards - self._baseline
        decay = self.config.baseline_decay
        self._baseline = decay * self._baseline + (1 - decay) * mean
        before = (self.t - 1) / self.n_steps  # when this step began
        self.controller.learning_rate = self.rate * _growth(self.config, before)
        self.controller.ascend(self.controller.gradient(choices, advantages, within))

    def used(self, choices: np.ndarray) -> np.ndarray:
        """Costs of candidates as parts of the first limit, f64 [n]."""
        return costs(self.space, choices, self.limit.measure) / self.limit.most

    def state_dict(self) -> dict[str, Any]:
        """All that the search needs to go on bit for bit."""
        own = {"controller": self.controller.state_dict(), "baseline": self._baseline}
        return {**super().state_dict(), **own}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from what `state_dict` gave."""
        super().load_state_dict(state)
        self.controller.load_state_dict(state["controller"])
        self._baseline = state["baseline"]


class Tunas(Reinforce):
    """REINFORCE on ``Q + beta * |cost / limit - 1|``, operators and filters warmed up.

    Source: Bender et al., 2020 (TuNAS); its appendices B to E.
    """

    def step(self) -> ReinforceStep:
        """One turn: candidates of the policy, one update of the weights, one of the policy."""
        choices = self.controller.draw(self.rng(_CHOICES_STREAM), self.config.n_mc)  # y ~ p
        z = self.decisions.one_hot(torch.from_numpy(choices).to(self.device))
        used, rewards, learns = self.used(choices), np.zeros(len(choices)), self.learns
        loss, _ = self.train(self.warmed_up(z))  # the weights, on training data
        if learns:  # the policy, on validation data
            rewards = absolute_reward(self.quality(z), used, self.config.beta)
            self.learn(choices, rewards, None)  # (R - baseline) * grad log p(y)
        return self.report(loss, used.mean().item(), reward=rewards.mean().item())

    def warmed_up(self, z: Tensor) -> Tensor:
        """Samples some decisions of which train many options at once, at first all, later none.

        With a probability that falls to 0 over the warm-up, a decision among operators becomes
        their mean, and an ordered one, such as a width, its last option: the one whose weights the
        others are part of.

        Source: TuNAS, op and filter warm-up. Differs: bitwidths and sparsities are warmed up as
        filters are; a sample draws for each decision by itself.
        """
        probability = 1 - self.weights.progress / (self.config.warm_up or 1)
        if probability <= 0 or not self.config.warm_up:
            return z
        drawn = self.rng(_WARM_UP_STREAM).random(z.shape[:2]) < probability
        warm = torch.from_numpy(drawn).to(z.device)[..., None]
        return torch.where(warm, _warm(self.space, z.shape[2]).to(z), z)


class Tabnas(Reinforce):
    """REINFORCE on what is within the limit, with the probability ``p(y) / P(V)``.

    Source: Yang et al., 2022, "TabNAS: rejection sampling for neural architecture search". Differs:
    `P(V)` and draws from `V` are exact, by dynamic programme, so none is rejected.
    """

    def step(self) -> ReinforceStep:
        """One turn: candidates within the limit, one update of the weights, one of the policy."""
        within = self.controller.within(self.limit)  # V
        choices = within.sample_many(self.rng(_CHOICES_STREAM), self.config.n_mc)  # p(y) / P(V)
        z = self.decisions.one_hot(torch.from_numpy(choices).to(self.device))
        used, rewards, learns = self.used(choices), np.zeros(len(choices)), self.learns
        loss, _ = self.train(z)  # the weights, on training data
        if learns:  # the policy, on validation data
            rewards = self.quality(z)
            self.learn(choices, rewards, within)  # (R - baseline) * grad log(p(y) / P(V))
        return self.report(loss, used.mean().item(), reward=rewards.mean().item())


def _growth(config: ReinforceConfig, progress: float) -> float:
    """Rate of the policy at a part of the search, as a part of its first one."""
    if progress < config.warm_up:
        return 0.0
    return float(config.pi_growth ** ((progress - config.warm_up) / (1 - config.warm_up)))


def _warm(space: Space, n_columns: int) -> Tensor:
    """What a decision is that is warmed up, f64 [D, K]."""
    found = torch.zeros(len(space.decisions), n_columns, dtype=torch.float64)
    for at, decision in enumerate(space.decisions):
        n_options = len(decision.options)
        if decision.ordered:
            found[at, n_options - 1] = 1
        else:
            found[at, :n_options] = 1 / n_options
    return found


def _quality(outputs: Tensor, targets: Tensor) -> Tensor:
    """See `Reinforce.quality`: of outputs [S, N, ...], [S]."""
    if outputs.ndim == 3:  # [S, N, classes]
        return (outputs.argmax(2) == targets).float().mean(1)
    error = (outputs - targets).square().flatten(1).mean(1)
    return -0.1 * error.log10()
