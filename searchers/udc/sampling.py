# SPDX-License-Identifier: Apache-2.0
"""Relaxed samples of a space's decisions: Gumbel-softmax, Algorithm 1, and the mixture of both.

All decisions are rows of one tensor [D, K], padded to the most options that one of them has; a
padded option has log probability `PADDING`, so that it weighs exactly nothing.

Random numbers come in as noise that is drawn beforehand, for all samples of a step at once. What
Algorithm 1 accepts are samples whose noise makes the most likely option the largest: noise can be
drawn under this condition directly, exactly, without rejecting any (Maddison et al. 2014).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from spaces.base import Space

PADDING = -1e9
"""Log probability of the options that a decision does not have; finite, so gradients are too."""


@dataclass(frozen=True, eq=False)
class Decisions:
    """The decisions of a space as rows of one padded tensor.

    Attributes:
        space: whose they are.
        valid: which options there are, bool [D, K].
    """

    space: Space
    valid: Tensor

    @classmethod
    def of(cls, space: Space, device: torch.device | str = "cpu") -> Decisions:
        """The decisions of `space`, in its order."""
        n_options = torch.from_numpy(space.n_options)
        n_columns = max(1, *space.n_options.tolist(), 1)
        return cls(space, (torch.arange(n_columns) < n_options[:, None]).to(device))

    @property
    def n_options(self) -> Tensor:
        """Options of each decision, i64 [D]."""
        return self.valid.sum(1)

    def log_pi(self, logits: Tensor) -> Tensor:
        """Log probabilities of options, [D, K], from parameters of that shape."""
        return torch.log_softmax(logits.masked_fill(~self.valid, PADDING), dim=1)

    def padded(self, rows: Sequence[np.ndarray], padding: float) -> Tensor:
        """Numbers of the options of each decision as f64 [D, K]."""
        found = torch.full(self.valid.shape, padding, dtype=torch.float64)
        for at, row in enumerate(rows):
            found[at, : len(row)] = torch.from_numpy(row)
        return found.to(self.valid.device)

    def one_hot(self, choices: Tensor) -> Tensor:
        """Candidates as samples: option indices i64 [..., D] to f64 [..., D, K]."""
        return torch.nn.functional.one_hot(choices, self.valid.shape[1]).double()

    def entropy_bits(self, log_pi: Tensor) -> Tensor:
        """How undecided each decision still is, [D], in bits."""
        return -(log_pi.exp() * log_pi).sum(1) / np.log(2)


@dataclass(frozen=True, slots=True)
class Noise:
    """Random numbers of one step, for all its samples.

    Attributes:
        free: Gumbel noise, f64 [n_draws, S, D, K]; Gumbel-softmax takes the first draw.
        top: Gumbel noise of the largest option of accepted samples, f64 [S, D].
        accept: uniform in 0..1, f64 [S, D]: below theta, a decision takes an accepted sample.
    """

    free: np.ndarray
    top: np.ndarray
    accept: np.ndarray

    @classmethod
    def draw(
        cls, rng: np.random.Generator, n_mc: int, shape: tuple[int, int], n_draws: int = 1
    ) -> Noise:
        """Noise for `n_mc` samples of decisions [D, K], with so many draws for Algorithm 1."""
        return cls(
            rng.gumbel(size=(n_draws, n_mc, *shape)),
            rng.gumbel(size=(n_mc, shape[0])),
            rng.random((n_mc, shape[0])),
        )


def gumbel_softmax(log_pi: Tensor, noise: Tensor, temperature: float) -> Tensor:
    """``z-hat``: relaxed samples [..., D, K] from Gumbel noise [..., D, K].

    Source: [UDC] section 4, before "Gumbel-softmax and over-regularization".
    """
    return torch.softmax((log_pi + noise) / temperature, dim=-1)


def conditional_noise(log_pi: np.ndarray, top: np.ndarray, free: np.ndarray) -> np.ndarray:
    """Gumbel noise under the condition that the most likely option is the largest.

    ``log_pi + noise`` has its maximum, which is Gumbel distributed whatever the condition, at the
    most likely option; the others are Gumbel distributed below it.

    Args:
        log_pi: f64 [D, K].
        top, free: Gumbel noise, f64 [S, D] and [S, D, K].

    Returns:
        f64 [S, D, K].
    """
    below = -np.logaddexp(-top[..., None], -(log_pi + free))
    most_likely = np.eye(log_pi.shape[1], dtype=bool)[log_pi.argmax(1)]
    noise: np.ndarray = np.where(most_likely, top[..., None], below) - log_pi
    return noise


def accepted(log_pi: Tensor, noise: Noise, temperature: float) -> Tensor:
    """``z-tilde``: relaxed samples [S, D, K] whose largest option is the most likely one.

    Source: [UDC] Algorithm 1.
    Differs: draws one sample from what the algorithm averages, exactly, instead of rejecting; the
    expectation is the same, and there is always one. Gradients too are those of an accepted sample:
    its noise is a constant.
    """
    at = log_pi.detach().cpu().numpy()
    drawn = torch.from_numpy(conditional_noise(at, noise.top, noise.free[0])).to(log_pi.device)
    return gumbel_softmax(log_pi, drawn, temperature)


def accepted_by_rejection(log_pi: Tensor, noise: Noise, temperature: float) -> Tensor:
    """``z-tilde`` as the mean of what is accepted of ``noise.free``'s draws, [S, D, K].

    Source: [UDC] Algorithm 1, line by line.
    Differs: where nothing is accepted, the algorithm divides by zero; this takes `accepted`.
    """
    free = torch.from_numpy(noise.free).to(log_pi.device)
    z = gumbel_softmax(log_pi, free, temperature)  # line 1: [n_draws, S, D, K]
    most_likely = log_pi.argmax(1)  # line 2: k*
    keep = (z.detach().argmax(-1) == most_likely)[..., None]  # lines 3 to 6
    n_kept = keep.sum(0)
    mean = (z * keep).sum(0) / n_kept.clamp(min=1)  # line 7
    return torch.where(n_kept > 0, mean, accepted(log_pi, noise, temperature))


def straighten(z: Tensor, kappa: float) -> Tensor:
    """Samples moved from relaxed (kappa 0) to one-hot (kappa 1), with the gradient of relaxed ones.

    Source: [UDC] Appendix D, eq. (12), which is not public: section 4.2 says that accepted samples
    cost exactly what the most likely candidate does at kappa = 1. This is what fits that.
    """
    if kappa == 0:
        return z
    hard = torch.nn.functional.one_hot(z.detach().argmax(-1), z.shape[-1]).to(z.dtype)
    return z + kappa * (hard - z).detach()


def draw(
    log_pi: Tensor,
    noise: Noise,
    *,
    temperature: float,
    theta: float,
    rejection: bool = False,
    kappa: float = 0.0,
) -> Tensor:
    """Monte-Carlo samples of all decisions, [S, D, K]; rows sum to 1.

    Args:
        log_pi: [D, K], see `Decisions.log_pi`.
        noise: of this step.
        temperature: tau.
        theta: probability that a decision takes an accepted sample.
        rejection: Algorithm 1 to the letter, see `accepted_by_rejection`.
        kappa: see `straighten`.

    Source: [UDC] section 4.2 and Algorithm 2, line 3.
    Differs: from Algorithm 2, which has theta the other way round than section 4.2 and Table 2.
    """
    z = gumbel_softmax(log_pi, torch.from_numpy(noise.free[0]).to(log_pi.device), temperature)
    if theta > 0:
        accept = accepted_by_rejection if rejection else accepted
        chosen = torch.from_numpy(noise.accept < theta).to(log_pi.device)[..., None]
        z = torch.where(chosen, accept(log_pi, noise, temperature), z)
    return straighten(z, kappa)
