# SPDX-License-Identifier: Apache-2.0
"""HardCoRe-NAS on shared weights: conditional gradients that never leave the limit.

The probabilities are a point of the convex hull of all candidates within the limit. The loss's
gradient at samples around it says which of these candidates, all corners of the hull, is best to
first order; the point goes a part of the way there. So the limit is neither penalised nor relaxed.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from searchers.one_shot.config import FrankWolfeConfig
from searchers.training.tasks import Task
from searchers.udc.sampling import Noise, draw
from searchers.udc.strategy import Step, Strategy
from spaces.base import Space
from spaces.costs import costs
from spaces.decode import best
from spaces.feasible import feasible_set
from spaces.npu_limits import AnyLimit

_CHOICES_STREAM, _NOISE_STREAM, _START_STREAM = 31, 32, 33
N_START = 1024
"""Candidates, uniform within the limit, whose mean the point starts from."""
LEAST = 1e-6
"""Least probability of an option in what samples are drawn by."""


class FrankWolfe(Strategy):
    """Conditional gradients over the hull of what is within the limit.

    Args:
        space, limits, task, seed, device, images_most: see `searchers.udc.strategy.Strategy`.
        config: how.

    Attributes:
        point: probabilities of the options, f64 [D, K].

    Source: Nayman et al., 2021, "HardCoRe-NAS: hard constrained differentiable neural architecture
    search": shared weights, Gumbel-softmax samples, stochastic Frank-Wolfe under a hard constraint;
    Mokhtari et al., 2018, "Stochastic conditional gradient methods", for averaged gradients.
    Differs: the linear programme over one latency is the space's dynamic programme, exact for every
    measure; the weights go on learning while the point moves; the gradient to the probabilities is
    that to the samples.
    """

    def __init__(
        self,
        space: Space,
        limits: Sequence[AnyLimit],
        task: Task,
        config: FrankWolfeConfig,
        seed: int,
        device: torch.device | str = "cpu",
        images_most: int | None = None,
    ):
        super().__init__(space, limits, task, config, seed, device, images_most)
        self.config = config
        self.feasible = feasible_set(space, self.limit)
        start = self.feasible.sample_many(np.random.default_rng((seed, _START_STREAM)), N_START)
        self.point = self._corners(start).mean(0)
        self._slope = torch.zeros_like(self.point)
        self._n_moves = 0

    def log_pi(self) -> Tensor:
        """Log probabilities of the options, [D, K]."""
        return self.decisions.log_pi(self.point.clamp(min=LEAST).log())

    def step(self) -> Step:
        """One turn: samples around the point, one update of the weights, one move of the point."""
        if self.weights.progress < self.config.warm_up:  # pre-training of the weights
            choices = self.feasible.sample_many(self.rng(_CHOICES_STREAM), self.config.n_mc)
            loss, _ = self.train(self._corners(choices))
        else:
            z = draw(self.log_pi(), self._noise(), temperature=self.config.temperature, theta=0)
            loss, slopes = self.train(z)
            self._average(slopes.sum(0))
            corner = self.oracle(self._slope)  # argmin over all within the limit of <slope, corner>
            length = 2 / (self._n_moves + self.config.first_steps + 2)
            self.point += length * (corner - self.point)
            self._n_moves += 1
        return self.report(loss, self._used())

    def oracle(self, slope: Tensor) -> Tensor:
        """The corner within the limit that a linear function is least at, [D, K].

        Args:
            slope: of the function, [D, K]. What is the same for all options of a decision goes
                off, so that it is no gain in itself that the decision has no effect.
        """
        mean = (slope * self.point).sum(1, keepdim=True)
        rows = (mean - slope).cpu().numpy()
        scores = [row[:n] for row, n in zip(rows, self.space.n_options, strict=True)]
        found = best(self.space, self.limit, scores).candidate
        return self._corners(np.array([found.choices]))[0]

    def _average(self, slope: Tensor) -> None:
        """Gradients averaged over moves, the weight of the latest one as of Mokhtari et al."""
        weight = 4 / (self._n_moves + 8) ** (2 / 3)
        self._slope += min(weight, 1) * (slope - self._slope)

    def _noise(self) -> Noise:
        n_decisions, n_columns = self.decisions.valid.shape
        return Noise.draw(self.rng(_NOISE_STREAM), self.config.n_mc, (n_decisions, n_columns))

    def _corners(self, choices: np.ndarray) -> Tensor:
        return self.decisions.one_hot(torch.from_numpy(choices).to(self.device))

    def _used(self) -> float:
        """Mean cost of candidates drawn by the point, as a part of the limit: by 64 draws."""
        rng, columns = self.rng(_CHOICES_STREAM), []
        for row, n in zip(self.point.cpu().numpy(), self.space.n_options, strict=True):
            columns.append(rng.choice(n, 64, p=row[:n] / row[:n].sum()))
        choices = self.space.canonical(np.stack(columns, axis=1))
        return float(costs(self.space, choices, self.limit.measure).mean()) / self.limit.most

    def state_dict(self) -> dict[str, Any]:
        """All that the search needs to go on bit for bit."""
        own = {"point": self.point.clone(), "slope": self._slope.clone(), "moves": self._n_moves}
        return {**super().state_dict(), **own}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from what `state_dict` gave."""
        super().load_state_dict(state)
        self.point, self._slope = state["point"].clone(), state["slope"].clone()
        self._n_moves = state["moves"]
