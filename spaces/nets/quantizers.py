# SPDX-License-Identifier: Apache-2.0
"""Number formats of weights, differentiable: Q of eq. (3) and Q-hat, which starts at beta."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

RANGE_MIN = 1e-8
"""Of weights that are all zero, so that every range has a logarithm."""


def levels_of(bitwidth: int) -> int:
    """L = 2**(b-1) - 1: steps from 0 to the range r, for b > 1."""
    return (1 << (bitwidth - 1)) - 1


def quantize(
    theta: Tensor,
    r: Tensor,
    bitwidth: int,
    beta: Tensor | None = None,
    mask: Tensor | None = None,
    rounded: Tensor | None = None,
    regrow: bool = True,
) -> Tensor:
    """Quantized and pruned weights ``Q-hat(theta, b, r, beta) * m``, of theta's shape.

    ``Q(theta, b, r) = d * round(clip(theta, -r, r) / d)`` with ``d = r / (2**(b-1) - 1)`` for b > 1
    and ``r * sign(theta)`` with sign(0) = 1 for b = 1. ``Q-hat(theta, b, r, beta) =
    Q(theta - sign(theta) * beta, b, r) + sign(theta) * beta`` spends no levels between -beta and
    beta, where all is pruned; it is Q for beta = 0.

    The gradient is straight-through: rounding and sign count as identity. For b > 1 that leaves 1
    to theta inside of the range and 0 outside, to r ``(Q - theta) / r`` inside and ``sign(theta)``
    outside; for b = 1 the range gets none. r and beta get none from pruned weights.

    Args:
        theta: dense weights, any shape.
        r: range, more than 0, shape [].
        bitwidth: b, 1..31.
        beta: magnitude that b > 1 bits start from, at least 0, shape []; None for 0.
        mask: m, 1 for the weights that are kept and 0 for the others; None keeps all.
        rounded: h, true where a weight is quantized; the others are only clipped (to the same
            range); None quantizes all.
        regrow: give a pruned weight the gradient of the 0 in its place, so that it can grow back;
            else it gets none.

    Source: [UDC] eq. (3), section 5; gradient of pruned weights [UDC] [50], Lin et al. 2020.
    Differs: eq. (3) has sign(theta) for b = 1, without r. Weights of magnitude 1 are far larger
    than those of the other bitwidths; r is then a constant, the scale of He initialization.

    >>> theta, r = torch.tensor([-1.0, -0.31, 0.11, 0.29]), torch.tensor(0.6)
    >>> quantize(theta, r, 3).tolist()  # steps of 0.2
    [-0.6000000238418579, -0.4000000059604645, 0.20000000298023224, 0.20000000298023224]
    """
    result: Tensor = _Quantize.apply(theta, r, beta, mask, rounded, bitwidth, regrow)  # type: ignore[no-untyped-call]
    return result


class _Quantize(torch.autograd.Function):
    """One pass each way over the weights: see `quantize`."""

    @staticmethod
    def forward(
        ctx: Any,
        theta: Tensor,
        r: Tensor,
        beta: Tensor | None,
        mask: Tensor | None,
        rounded: Tensor | None,
        bitwidth: int,
        regrow: bool,
    ) -> Tensor:
        x = theta
        offset = None
        if bitwidth == 1:
            q = torch.copysign(r, theta)  # [UDC] eq. (3), b = 1
        else:
            if beta is not None:
                offset = torch.copysign(beta, theta)
                x = theta - offset
            levels = levels_of(bitwidth)
            # [UDC] eq. (3), b > 1
            q = (x * (levels / r)).clamp_(-levels, levels).round_().mul_(r / levels)
        if rounded is not None:
            q = torch.where(rounded, q, x.clamp(-r, r))
        ctx.save_for_backward(x, r, mask, q)
        ctx.bitwidth, ctx.regrow = bitwidth, regrow
        if offset is not None:
            q = q + offset  # Q-hat
        return q if mask is None else q * mask

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[Tensor | None, ...]:
        x, r, mask, q = ctx.saved_tensors
        grad, grad_r = grad_outputs[0], None
        of_kept = grad if mask is None else grad * mask
        if ctx.bitwidth == 1:
            return grad if ctx.regrow else of_kept, *(None,) * 6
        inside = x.abs() <= r
        if ctx.needs_input_grad[1]:
            grad_r = (of_kept * torch.where(inside, q - x, q)).sum() / r
        if mask is None or not ctx.regrow:
            grad = of_kept * inside
        else:
            grad = grad * (inside | (mask == 0))
        return grad, grad_r, *(None,) * 5


def initial_range(magnitude: Tensor, bitwidth: int) -> Tensor:
    """Range for b > 1: a step of 2 E|theta| / sqrt(L), but nothing beyond the largest weight.

    Args:
        magnitude: of the weights, less beta; any shape.
        bitwidth: b, 2..31.

    Returns:
        r, shape [].

    Source: the step of learned step size quantization (Esser et al., 2020).
    """
    wanted = 2 * magnitude.mean() * math.sqrt(levels_of(bitwidth))
    return torch.minimum(wanted, magnitude.max()).clamp(min=RANGE_MIN)
