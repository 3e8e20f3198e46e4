# SPDX-License-Identifier: Apache-2.0
"""The search itself: `Search.step` is one turn of the loop of [UDC] Algorithm 2.

Every random number is a function of the seed and the number of the step, of the batch or of the
epoch. So a search goes on from a checkpoint as if it had never stopped, and processes that share
its samples draw the same ones.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from searchers.training.tasks import Task
from searchers.udc.batches import Batches
from searchers.udc.config import PI_RATE_MAX, UdcConfig
from searchers.udc.cost import RelaxedCost, SurrogateCost
from searchers.udc.npu_cost import AnyLimit, NpuLimit
from searchers.udc.processes import GradientSum, Processes
from searchers.udc.projection import project, xi
from searchers.udc.sampling import Decisions, Noise, draw
from searchers.udc.supernet import Supernet
from spaces.base import Space
from spaces.costs import costs

_NOISE_STREAM = 12
PI_CLIP = 5.0
BITS_PER_MB = 8e6


@dataclass(frozen=True, slots=True)
class Step:
    """What one step of a search was like.

    Attributes:
        t: number of steps done, from 1.
        loss: of the task, mean over the samples.
        cost: mean over the samples, as a part of the limit.
        penalty: the second term of eq. (7), with lambda.
        gamma: cost of the most likely candidate, exact, as a part of the limit.
        entropy_bits: mean over the decisions.
        surest: mean over the decisions of their largest probability.
        temperature: tau.
    """

    t: int
    loss: float
    cost: float
    penalty: float
    gamma: float
    entropy_bits: float
    surest: float
    temperature: float


class Search:
    """A UDC search on its way.

    Args:
        space: what is searched.
        limits: the first one is e*, further ones are constraints beside it.
        task: what is trained on, and for.
        config: how.
        seed: decides everything.
        device: where to train; the task's batches are there.
        images_most: that the search may train on; None for all of its epochs.

    Attributes:
        t: steps done, of `n_steps`.
        logits: log of pi but for a constant of each decision, f64 [D, K].

    Raises:
        ConfigError: the space cannot be one network, or there are too few images.
    """

    def __init__(
        self,
        space: Space,
        limits: tuple[AnyLimit, ...],
        task: Task,
        config: UdcConfig,
        seed: int,
        device: torch.device | str = "cpu",
        images_most: int | None = None,
    ):
        self.space, self.limits, self.config, self.seed = space, limits, config, seed
        self.device = torch.device(device)
        self.processes = Processes.started(self.device)
        self.decisions = Decisions.of(space, device)
        self.batches = Batches(task, config.batch_size, seed)
        self.costs = [_relaxed_cost(space, limit, config, self.device) for limit in limits]
        generator = torch.Generator().manual_seed(seed)
        self.net = Supernet(space, generator, offset=config.offset).to(device)
        self.gradients = GradientSum(self.net.parameters())
        shape = self.decisions.valid.shape
        self.logits = torch.zeros(shape, dtype=torch.float64, device=device, requires_grad=True)
        self.weights_optimizer = _weights_optimizer(self.net, config)
        self.n_steps = max(1, config.epochs * self.batches.n_batches // config.n_mc)
        if images_most is not None:
            self.n_steps = max(1, min(self.n_steps, images_most // self._images_a_step))
        self.pi_rate = min(PI_RATE_MAX, config.pi_travel / self.n_steps)
        self.pi_optimizer = torch.optim.Adam([self.logits], self.pi_rate, betas=(0.5, 0.999))
        self.t = 0

    @property
    def n_images(self) -> int:
        """Images trained on so far, by all processes."""
        return self.t * self._images_a_step

    @property
    def _images_a_step(self) -> int:
        return self.config.n_mc * self.config.batch_size

    def log_pi(self) -> Tensor:
        """Log probabilities of the options, [D, K]."""
        return self.decisions.log_pi(self.logits)

    def step(self) -> Step:
        """One turn of the loop: all samples, one update of theta, r and pi, one projection."""
        config, progress = self.config, self.t / self.n_steps
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
        if self.t % config.mask_interval == 0:
            self.net.refresh_masks(log_pi.detach().exp())
            self._correct_costs()
        # line 5, gradients: eq. (7) = task loss of the samples + lambda E|E({z}) - e*|
        loss, z_gradient = self._task(z.detach())
        cost, penalty = self._penalty(z, log_pi.exp())
        torch.autograd.backward([z, config.penalty_weight * penalty], [z_gradient, None])
        # line 5, the step: theta and r by those of the weights, pi by its own
        self._set_rates(progress)
        self.weights_optimizer.step()
        torch.nn.utils.clip_grad_norm_([self.logits], PI_CLIP)
        self.pi_optimizer.step()
        self.pi_optimizer.zero_grad()
        self.t += 1
        # line 6: pi <- P_S(pi), eq. (8)
        with torch.no_grad():
            n_options = self.decisions.n_options
            level = xi(config.xi, self.t / self.n_steps, config.xi_free, n_options, config.xi_level)
            self.logits.copy_(project(self.log_pi(), 1 / n_options + level))
        return self._report(loss, cost, config.penalty_weight * penalty, tau)

    # -- what its lines call

    def _temperature(self, progress: float) -> float:
        config = self.config
        if config.temperature_end is None:
            return config.temperature
        return config.temperature * (config.temperature_end / config.temperature) ** progress

    def _noise(self) -> Noise:
        rng = np.random.default_rng((self.seed, _NOISE_STREAM, self.t))
        n_draws = self.config.n_mc if self.config.rejection else 1
        n_mc, n_decisions, n_columns = self.config.n_mc, *self.decisions.valid.shape
        return Noise.draw(rng, n_mc, (n_decisions, n_columns), n_draws)

    def _task(self, z: Tensor) -> tuple[float, Tensor]:
        """Task loss of all samples, its gradient to z; that to the weights becomes their ``grad``.

        A few samples at a time, so that memory does not grow with their number.
        """
        config = self.config
        own = self.processes.own(config.n_mc, config.n_together)
        seen = z.clone().requires_grad_()
        total = torch.zeros((), dtype=torch.float64, device=self.device)
        self.gradients.clear()
        for start in range(own.start, own.stop, config.n_together):
            part = slice(start, start + config.n_together)
            numbers = range(self.t * config.n_mc + part.start, self.t * config.n_mc + part.stop)
            images, labels = self.batches.many(numbers)
            with torch.autocast(
                self.device.type, torch.bfloat16, enabled=config.precision == "bfloat16"
            ):
                outputs = self.net(images, seen[part])
            loss = self.batches.loss(outputs, labels) * (config.n_together / config.n_mc)
            loss.backward()  # type: ignore[no-untyped-call]
            total += loss.detach()
            self.gradients.take()
        self.gradients.give(self.processes)
        assert seen.grad is not None
        self.processes.sum(seen.grad)
        self.processes.sum(total)
        return total.item(), seen.grad

    def _penalty(self, z: Tensor, pi: Tensor) -> tuple[float, Tensor]:
        """Mean cost as a part of the first limit, and the distance from the targets, eq. (7)."""
        means, total = [], torch.zeros((), dtype=torch.float64, device=self.device)
        for at, (cost, limit) in enumerate(zip(self.costs, self.limits, strict=True)):
            target = self.config.aim * limit.most
            scale = BITS_PER_MB if self.config.units == "MB" else target
            expected = self.config.penalty == "expected"  # eq. (6)
            found = cost.expected(pi)[None] if expected else cost(z)
            off = found - target  # one limit is a target, further ones must only be kept
            total = total + ((off.abs() if at == 0 else off.relu()) / scale).mean()
            means.append(found.detach().mean().item() / limit.most)
        return means[0], total

    def _correct_costs(self) -> None:
        for cost in self.costs:
            if isinstance(cost, SurrogateCost):
                gamma = self.log_pi().detach().argmax(1)
                cost.correct(self.space.candidate(gamma.tolist()))

    def _set_rates(self, progress: float) -> None:
        falling = 0.5 * (1 + math.cos(math.pi * progress))
        for group in self.weights_optimizer.param_groups:
            group["lr"] = group["rate"] * falling
        started = progress >= self.config.pi_start
        self.pi_optimizer.param_groups[0]["lr"] = self.pi_rate if started else 0.0

    @torch.no_grad()
    def _report(self, loss: float, cost: float, penalty: Tensor, tau: float) -> Step:
        log_pi = self.log_pi()
        gamma = log_pi.argmax(1).cpu().numpy()[None]
        limit = self.limits[0]
        return Step(
            t=self.t,
            loss=loss,
            cost=cost,
            penalty=penalty.item(),
            gamma=int(costs(self.space, gamma, limit.measure)[0]) / limit.most,
            entropy_bits=self.decisions.entropy_bits(log_pi).mean().item(),
            surest=log_pi.exp().max(1).values.mean().item(),
            temperature=tau,
        )

    # -- checkpoints

    def state_dict(self) -> dict[str, Any]:
        """All that a search needs to go on bit for bit."""
        return {
            "t": self.t,
            "logits": self.logits.detach().clone(),
            "net": self.net.state_dict(),
            "corrections": [getattr(cost, "correction", 1.0) for cost in self.costs],
            "weights_optimizer": self.weights_optimizer.state_dict(),
            "pi_optimizer": self.pi_optimizer.state_dict(),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from what `state_dict` gave."""
        self.t = state["t"]
        with torch.no_grad():
            self.logits.copy_(state["logits"])
        self.net.load_state_dict(state["net"])
        for cost, correction in zip(self.costs, state["corrections"], strict=True):
            if isinstance(cost, SurrogateCost):
                cost.correction = correction
        self.weights_optimizer.load_state_dict(state["weights_optimizer"])
        self.pi_optimizer.load_state_dict(state["pi_optimizer"])


def _relaxed_cost(
    space: Space, limit: AnyLimit, config: UdcConfig, device: torch.device
) -> RelaxedCost | SurrogateCost:
    if isinstance(limit, NpuLimit):
        return SurrogateCost(space, limit)
    reading = {"count_input_width": config.count_input_width, "bound": config.bound}
    return RelaxedCost(space, limit.measure, **reading, device=device)  # type: ignore[arg-type]


def _weights_optimizer(net: Supernet, config: UdcConfig) -> torch.optim.Optimizer:
    others = [p for p in net.parameters() if p is not net.theta and p is not net.log_r]
    groups = [
        {"params": [net.theta], "rate": config.learning_rate, "weight_decay": config.weight_decay},
        {"params": [net.log_r], "rate": config.range_rate * config.learning_rate},
        {"params": others, "rate": config.learning_rate},
    ]
    if config.optimizer == "sgd":
        return torch.optim.SGD(groups, config.learning_rate, momentum=0.9, nesterov=True)
    for group in groups:
        group.setdefault("weight_decay", 0.0)
    return torch.optim.AdamW(groups, config.learning_rate, fused=True)
