# SPDX-License-Identifier: Apache-2.0
"""Which weights are kept: those of largest magnitude, nested from one sparsity to the next."""

from __future__ import annotations

import math

import torch
from torch import Tensor


def magnitude_mask(theta: Tensor, n_nonzero: int) -> Tensor:
    """The mask that keeps the `n_nonzero` weights of largest magnitude, f32 of theta's shape.

    Among equal magnitudes the first are kept, so that masks of fewer weights are within those of
    more.

    Args:
        theta: weights, any shape.
        n_nonzero: how many to keep, 1 to all.

    Source: [UDC] eq. (2).

    >>> magnitude_mask(torch.tensor([0.1, -3.0, 2.0, 2.0]), 2).tolist()
    [0.0, 1.0, 1.0, 0.0]
    """
    magnitude = theta.detach().abs().flatten()
    if n_nonzero == magnitude.numel():
        return torch.ones_like(theta)
    smallest = magnitude.kthvalue(magnitude.numel() - n_nonzero + 1).values
    kept = magnitude > smallest
    equal = (magnitude == smallest).nonzero().flatten()
    kept[equal[: n_nonzero - int(kept.sum())]] = True
    return kept.to(theta.dtype).view(theta.shape)


def n_kept(n_weights: int, n_nonzero: int, progress: float) -> int:
    """Weights kept on the way from all of them at progress 0 to `n_nonzero` at 1: a cubic.

    Source: [UDC] [72], Zhu and Gupta 2017.

    >>> [n_kept(100, 20, progress) for progress in (0.0, 0.5, 1.0)]
    [100, 30, 20]
    """
    return n_nonzero + math.floor((n_weights - n_nonzero) * (1 - progress) ** 3)
