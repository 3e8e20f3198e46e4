# SPDX-License-Identifier: Apache-2.0
"""The search itself: `Search.step` is one turn of the loop of [UDC] Algorithm 2."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from searchers.training.tasks import Task
from searchers.udc.config import PI_RATE_MAX, UdcConfig
from searchers.udc.cost import ChangeCost, RelaxedCost, SurrogateCost
from searchers.udc.npu_cost import is_family
from searchers.udc.projection import project, xi
from searchers.udc.sampling import Noise, draw
from searchers.udc.strategy import Step, Strategy
from spaces.base import Space
from spaces.npu_limits import AnyLimit, NpuLimit

_NOISE_STREAM = 12
PI_CLIP = 5.0
BITS_PER_MB = 8e6


@dataclass(frozen=True, slots=True, kw_only=True)
class UdcStep(Step):
    """What one step of a UDC search was like.

    Attributes:
        penalty: the second term of eq. (7), with lambda.
        temperature: tau.
    """

    penalty: float
    temperature: float


class Search(Strategy):
    """A UDC search on its way.

    Args:
        space, limits, task, seed, device, images_most: see `searchers.udc.strategy.Strategy`.
        config: how.

    Attributes:
        logits: log of pi but for a constant of each decision, f64 [D, K].

    Raises:
        ConfigError: the space cannot be one network, or there are too few images.
    """

    step_type = UdcStep

    def __init__(
        self,
        space: Space,
        limits: Sequence[AnyLimit],
        task: Task,
        config: UdcConfig,
        seed: int,
        device: torch.device | str = "cpu",
        images_most: int | None = None,
    ):
        super().__init__(space, limits, task, config, seed, device, images_most)
        self.config = config
        self.costs = [_relaxed_cost(space, limit, config, self.device) for limit in limits]
        shape = self.decisions.valid.shape
        self.logits = torch.zeros(shape, dtype=torch.float64, device=device, requires_grad=True)
        self.pi_rate = min(PI_RATE_MAX, config.pi_travel / self.n_steps)
        self.pi_optimizer = torch.optim.Adam([self.logits], self.pi_rate, betas=(0.5, 0.999))

    def log_pi(self) -> Tensor:
        """Log probabilities of the options, [D, K]."""
        return self.decisions.log_pi(self.logits)

    def step(self) -> UdcStep:
        """One turn of the loop: all samples, one update of theta, r and pi, one projection."""
        config, progress = self.config, self.weights.progress
        tau = self._temperature(progress)
        log_pi = self.log_pi()
        # Algorithm 2, lines 2 and 3; Algorithm 1; section 4.2: z-tilde with probability theta
        z = draw(
            log_pi,
            self._noise(),
            temperature=tau,
            theta=config.theta,
            rejection=config.rejection,
            kappa=config.kappa,
        )
        # line 4: update {m}
        if self.weights.masks_are_due:
            self.net.refresh_masks(log_pi.detach().exp())
            self._correct_costs()
        # line 5, gradients: eq. (7) = task loss of the samples + lambda E|E({z}) - e*|
        loss, z_gradient = self.weights.gradients(z.detach())
        cost, penalty = self._penalty(z, log_pi.exp(), loss)
        torch.autograd.backward([z, config.penalty_weight * penalty], [z_gradient, None])
        # line 5, the step: theta and r by those of the weights, pi by its own
        self.weights.update()
        torch.nn.utils.clip_grad_norm_([self.logits], PI_CLIP)
        started = progress >= config.pi_start
        self.pi_optimizer.param_groups[0]["lr"] = self.pi_rate if started else 0.0
        self.pi_optimizer.step()
        self.pi_optimizer.zero_grad()
        # line 6: pi <- P_S(pi), eq. (8)
        with torch.no_grad():
            n_options = self.decisions.n_options
            level = xi(config.xi, self.weights.progress, config.xi_free, n_options, config.xi_level)
            self.logits.copy_(project(self.log_pi(), 1 / n_options + level))
        penalty = config.penalty_weight * penalty.item()
        return self.report(loss, cost, penalty=penalty, temperature=tau)

    # -- what its lines call

    def _temperature(self, progress: float) -> float:
        config = self.config
        if config.temperature_end is None:
            return config.temperature
        return config.temperature * (config.temperature_end / config.temperature) ** progress

    def _noise(self) -> Noise:
        n_draws = self.config.n_mc if self.config.rejection else 1
        n_mc, n_decisions, n_columns = self.config.n_mc, *self.decisions.valid.shape
        return Noise.draw(self.rng(_NOISE_STREAM), n_mc, (n_decisions, n_columns), n_draws)

    def _penalty(self, z: Tensor, pi: Tensor, loss: float) -> tuple[float, Tensor]:
        """Mean cost as a part of the first limit, and the penalty, see `config.PENALTIES`."""
        means, total = [], torch.zeros((), dtype=torch.float64, device=self.device)
        for at, (cost, limit) in enumerate(zip(self.costs, self.limits, strict=True)):
            target = self.config.aim * limit.most
            scale = BITS_PER_MB if self.config.units == "MB" else target
            expected = self.config.penalty == "expected"  # eq. (6)
            found = cost.expected(pi)[None] if expected else cost(z)
            off = found - target
            if at > 0:
                total = total + (off.relu() / scale).mean()  # further limits must only be kept
            elif self.config.penalty == "product":  # CE * log(E)^lambda, but for log(E)^lambda
                total = total + loss * found.log().log().mean()
            else:
                total = total + (off.abs() / scale).mean()
            means.append(found.detach().mean().item() / limit.most)
        return means[0], total

    def _correct_costs(self) -> None:
        for cost in self.costs:
            if not isinstance(cost, RelaxedCost):
                gamma = self.log_pi().detach().argmax(1)
                cost.correct(self.space.candidate(gamma.tolist()))

    # -- checkpoints

    def state_dict(self) -> dict[str, Any]:
        """All that a search needs to go on bit for bit."""
        return {
            **super().state_dict(),
            "logits": self.logits.detach().clone(),
            "costs": [
                {} if isinstance(cost, RelaxedCost) else cost.state_dict() for cost in self.costs
            ],
            "pi_optimizer": self.pi_optimizer.state_dict(),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from what `state_dict` gave."""
        super().load_state_dict(state)
        with torch.no_grad():
            self.logits.copy_(state["logits"])
        for cost, found in zip(self.costs, state["costs"], strict=True):
            if not isinstance(cost, RelaxedCost):
                cost.load_state_dict(found)
        self.pi_optimizer.load_state_dict(state["pi_optimizer"])


def _relaxed_cost(
    space: Space, limit: AnyLimit, config: UdcConfig, device: torch.device
) -> RelaxedCost | SurrogateCost | ChangeCost:
    if isinstance(limit, NpuLimit):
        # flash depends on bitwidths and sparsities, of which the surrogate knows nothing
        if limit.measure != "flash_bytes" and is_family(space):
            return SurrogateCost(space, limit)
        return ChangeCost(space, limit, device)
    reading = {"count_input_width": config.count_input_width, "bound": config.bound}
    return RelaxedCost(space, limit.measure, **reading, device=device)  # type: ignore[arg-type]
