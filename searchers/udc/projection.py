# SPDX-License-Identifier: Apache-2.0
"""How sure a decision may be: the projection of probabilities, and how it loosens over a search."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from npusim._arguments import choice
from searchers.udc.config import XI
from searchers.udc.sampling import PADDING

NEWTON_STEPS_MAX = 64
"""Never needed: from b = 0, a convex function's root is reached within a dozen."""
TOLERANCE = 1e-12


def project(log_pi: Tensor, most: Tensor) -> Tensor:
    """Log probabilities with no option above `most`, the order of options kept.

    ``softmax(log_pi / T)`` for the smallest T >= 1 under which the largest is at most `most`. With
    ``b = 1/T`` and ``l = log_pi - max(log_pi)``, the largest is ``1 / f(b)``, where ``f(b) = sum
    exp(b l)`` is convex and falls with b: Newton's method from b = 0 comes nearer from one side.

    Args:
        log_pi: f64 [D, K]; padded options as of `searchers.udc.sampling.PADDING`.
        most: f64 [D], each at least 1 / (its number of options).

    Source: [UDC] eq. (8) and the operator P_S below it.
    Differs: P_S is any T that leaves nothing above `most`; the smallest changes least.
    """
    below = log_pi - log_pi.max(dim=1, keepdim=True).values
    least = 1 / most * (1 - TOLERANCE)  # of f
    inside = below.exp().sum(1) >= least
    b = torch.zeros_like(most)
    padded = below < PADDING / 2
    for _ in range(NEWTON_STEPS_MAX):
        powers = (b[:, None] * below).exp().masked_fill(padded, 0)
        excess = powers.sum(1) - least
        slope = (powers * below).sum(1)
        step = torch.where(slope < 0, excess / -slope, torch.zeros_like(b)).clamp(min=0)
        following = (b + step).clamp(max=1)
        if (following - b).max() <= TOLERANCE:
            break
        b = following
    b = torch.where(inside, torch.ones_like(b), b)  # T* = 1
    projected = torch.log_softmax((below * b[:, None]).masked_fill(padded, PADDING), dim=1)
    return torch.where(inside[:, None], log_pi, projected)


def xi(schedule: str, progress: float, free_at: float, n_options: Tensor, level: float) -> Tensor:
    """``xi^t`` of each decision, f64 [D]: 0 allows uniform probabilities alone.

    Args:
        schedule: of `searchers.udc.config.XI`; "none" never projects.
        progress: part of the search that is done, 0..1.
        free_at: part of it after which "linear" and "cosine" allow everything.
        n_options: of each decision.
        level: what "constant" has all the time.

    Source: [UDC] section 4.1.
    Differs: the schedule is in an appendix that is not public; these are ours.
    """
    choice("xi schedule", schedule, XI)
    most = 1 - 1 / n_options.double()
    if schedule == "none":
        return most
    if schedule == "constant":
        return most.clamp(max=level)
    done = min(1.0, progress / free_at)
    if schedule == "cosine":
        done = 0.5 * (1 - math.cos(math.pi * done))
    return most * done
