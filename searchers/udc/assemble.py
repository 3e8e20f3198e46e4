# SPDX-License-Identifier: Apache-2.0
"""The weights of all layers of a relaxed network: ``q(pi_q) * m(pi_s)``, and what is wide enough.

For every sample and weight, [UDC] sections 3 and 5:

    sum_b z_q[b] Q-hat(theta, b, r_b, beta)  *  sum_k z_s[k] m_k  *  (does its input exist?)

Masks are nested, so a weight's part of the middle is a table of its layer, looked up by the level
at which the weight is kept first; the last is a number for each column of a layer's weights.

`assemble` computes this in one pass over theta each way, on the CPU; `assemble_shared` writes it
down in plain torch, with the quantizers that candidates are trained with. It is what the other is
tested against, and what other devices take.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from spaces.nets.quantizers import levels_of, quantize


@dataclass(frozen=True, eq=False)
class Layout:
    """Where each layer's weights are in the flat arrays, and which formats there are.

    Attributes:
        layers: first weight, number of weights, columns, first column; i64 [L, 4].
        bitwidths: of the formats with levels, each in 2..31: B of them.
        sign_scale: magnitude of weights of 1 bit, f32 [L].
    """

    layers: np.ndarray
    bitwidths: tuple[int, ...]
    sign_scale: Tensor

    @property
    def n_weights(self) -> int:
        """Of all layers, zeros included."""
        return int(self.layers[:, 1].sum())

    @property
    def n_columns(self) -> int:
        """Of all layers."""
        return int(self.layers[:, 2].sum())


@dataclass(frozen=True, eq=False)
class Mixture:
    """What samples make of the weights.

    Attributes:
        formats: weight of each number format: 32 bits, 1 bit, then those of `Layout.bitwidths`;
            f32 [S, L, 2 + B].
        kept: how far weights of each level are kept, f32 [S, L, K].
        columns: how far the column of a weight is there, f32 [S, n_columns].
    """

    formats: Tensor
    kept: Tensor
    columns: Tensor


def assemble(
    layout: Layout, theta: Tensor, r: Tensor, beta: Tensor, level: Tensor, mixture: Mixture
) -> Tensor:
    """Weights of all samples, f32 [S, N]; differentiable in theta, r and the mixture.

    Args:
        layout: of the network.
        theta: dense weights, f32 [N].
        r: ranges, f32 [L, B], more than 0.
        beta: where levels of more than one bit start, f32 [L]; 0 for number format Q.
        level: index of the first sparsity that keeps a weight, u8 [N].
        mixture: of the samples.
    """
    if theta.device.type != "cpu":
        return assemble_shared(layout, theta, r, beta, level, mixture)
    weights: Tensor = _Assemble.apply(  # type: ignore[no-untyped-call]
        theta, r, mixture.formats, mixture.kept, mixture.columns, beta, level, layout
    )
    return weights


class _Assemble(torch.autograd.Function):
    """`searchers.udc.assemble_kernels` as an operation of torch."""

    @staticmethod
    def forward(
        ctx: Any,
        theta: Tensor,
        r: Tensor,
        formats: Tensor,
        kept: Tensor,
        columns: Tensor,
        beta: Tensor,
        level: Tensor,
        layout: Layout,
    ) -> Tensor:
        from searchers.udc.assemble_kernels import assemble as kernel

        tensors = (theta, r, formats, kept, columns, beta, level)
        ctx.save_for_backward(*tensors)
        ctx.layout = layout
        weights = torch.empty(len(formats), len(theta))
        kernel(*_arguments(layout, *tensors), weights.numpy())
        return weights

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[Tensor | None, ...]:
        from searchers.udc.assemble_kernels import assemble_back as kernel

        theta, r, formats, kept, columns, beta, _ = ctx.saved_tensors
        n_formats = r.shape[1]
        theta_grad, kept_grad = torch.zeros_like(theta), torch.zeros_like(kept)
        column_grad = torch.zeros_like(columns)
        sums = torch.zeros(*formats.shape[:2], 2 + 2 * n_formats)
        # theta passes at 32 bits and at 1 bit everywhere, else inside of the range
        passes = torch.cat([formats[..., :2].sum(-1, keepdim=True), formats[..., 2:]], -1)
        outputs = (grad_outputs[0].contiguous(), theta_grad, passes.contiguous(), sums)
        tensors = (*outputs, kept_grad, column_grad)
        arguments = _arguments(ctx.layout, *ctx.saved_tensors)
        kernel(*arguments, tuple(tensor.numpy() for tensor in tensors))
        of_theta, of_sign = sums[..., 0], sums[..., 1]
        of_levels, of_inside = sums[..., 2::2], sums[..., 3::2]
        steps = r / _levels(ctx.layout)
        formats_grad = torch.cat(
            [
                of_theta[..., None],
                (ctx.layout.sign_scale * of_sign)[..., None],
                steps * of_levels + beta[:, None] * of_sign[..., None],
            ],
            -1,
        )
        # dQ/dr = sign(theta) outside of the range, (Q - theta) / r inside
        r_grad = (formats[..., 2:] * (steps * of_levels - of_inside)).sum(0) / r
        return theta_grad, r_grad, formats_grad, kept_grad, column_grad, None, None, None


def _levels(layout: Layout) -> Tensor:
    return torch.tensor([levels_of(bitwidth) for bitwidth in layout.bitwidths]).float()


@torch.no_grad()
def _arguments(
    layout: Layout,
    theta: Tensor,
    r: Tensor,
    formats: Tensor,
    kept: Tensor,
    columns: Tensor,
    beta: Tensor,
    level: Tensor,
) -> tuple[np.ndarray, ...]:
    """What both kernels take first."""
    levels = _levels(layout).expand_as(r)
    per_format = torch.stack([levels / r, levels, r], -1).flatten(1)  # [L, 3 * B]
    table = torch.cat([beta[:, None], layout.sign_scale[:, None], per_format], 1)
    of_sign = formats[..., 1] * layout.sign_scale + formats[..., 2:].sum(-1) * beta
    of_levels = formats[..., 2:] * (r / levels)
    mixed = torch.cat([formats[..., :1], of_sign[..., None], of_levels], -1)
    tensors = (table, mixed, kept, columns)
    return (
        theta.detach().numpy(),
        level.numpy(),
        layout.layers,
        *(np.require(tensor.detach().numpy(), np.float32, ("C", "W")) for tensor in tensors),
    )


def assemble_shared(
    layout: Layout, theta: Tensor, r: Tensor, beta: Tensor, level: Tensor, mixture: Mixture
) -> Tensor:
    """As `assemble`, on any device: each format of the weights is made once for all samples."""
    parts = []
    for at, (first, n, width, column) in enumerate(layout.layers.tolist()):
        dense = theta[first : first + n]
        scale = layout.sign_scale[at]
        candidates = [dense, quantize(dense, scale, 1)]
        candidates += [
            quantize(dense, r[at, b], bitwidth, beta[at])
            for b, bitwidth in enumerate(layout.bitwidths)
        ]
        mixed = mixture.formats[:, at] @ torch.stack(candidates)  # [S, n]
        kept = mixture.kept[:, at][:, level[first : first + n].long()]
        columns = mixture.columns[:, column : column + width]
        weights = (mixed * kept).view(len(kept), -1, width) * columns[:, None]
        parts.append(weights.flatten(1))
    return torch.cat(parts, 1)
