# SPDX-License-Identifier: Apache-2.0
"""Weights as they are trained: dense, with the mask that prunes and the range that quantizes."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from npusim.weights import least_error_clip
from npusim.weights.format import WEIGHT_MAX
from spaces.layers import BITWIDTH_MAX
from spaces.nets.masks import magnitude_mask, n_kept
from spaces.nets.quantizers import initial_range, quantize


class CompressedWeight(nn.Module):
    """Dense weights theta, the mask that prunes them, the range that quantizes them.

    Args:
        shape: of the weights, [O, I, H, W] or [O, I].
        bitwidth: bits of a non-zero weight, 1..32; 32 is not quantized.
        n_nonzero: weights that the final mask keeps.
        generator: draws the initial weights.

    Attributes:
        theta: the dense weights that are trained.
        mask: 1 for what is kept, else 0; of theta's shape.
        log_range: ln r; for 1 bit a constant, for 32 bits not there.
        beta: where the levels of b > 1 bits start; 0 for number format Q.
        offset: use number format Q-hat, of which beta is the largest pruned magnitude, not Q.
        quantizes: false to train without quantization, whatever the bitwidth.
        quantized_fraction: alpha: probability that a weight is quantized in a forward pass of the
            training, where it is otherwise only clipped; in evaluation all are.
        regrows: pruned weights get the gradient of the zeros in their place, else none.
        generator: draws which; None for torch's own.

    Source: [UDC] sections 3 and 5.
    """

    mask: Tensor
    beta: Tensor

    def __init__(
        self, shape: tuple[int, ...], bitwidth: int, n_nonzero: int, generator: torch.Generator
    ):
        super().__init__()
        self.bitwidth, self.n_nonzero = bitwidth, n_nonzero
        self.offset = False
        self.quantizes = bitwidth < BITWIDTH_MAX
        self.quantized_fraction = 1.0
        self.regrows = True
        self.generator: torch.Generator | None = None
        he = math.sqrt(2 / math.prod(shape[1:]))
        self.theta = nn.Parameter(he * torch.randn(shape, generator=generator))
        self.register_buffer("mask", torch.ones(shape))
        self.register_buffer("beta", torch.zeros(()))
        if bitwidth == 1:
            self.register_buffer("log_range", torch.tensor(math.log(he)))
        elif bitwidth < BITWIDTH_MAX:
            self.log_range = nn.Parameter(torch.zeros(()))
            self.calibrate()

    @torch.no_grad()
    def calibrate(self) -> None:
        """Set the range anew by the weights as they are; for 1 and 32 bits nothing is to be set."""
        if 1 < self.bitwidth < BITWIDTH_MAX:
            kept = self.theta[self.mask > 0].abs() - self.beta
            self.log_range.copy_(initial_range(kept, self.bitwidth).log())

    @torch.no_grad()
    def fit_range(self) -> None:
        """Set the range by least squared error of the weights that are kept, as they are.

        Ranges are learned slowly: they still cover what weights were before pruning when few are
        left of these, and levels that no weight uses cost bits of eq. (4). Nothing is to be set
        for 1 and 32 bits, nor where all weights that are kept are alike.
        """
        if 1 < self.bitwidth < BITWIDTH_MAX:
            kept = self.theta[self.mask > 0].abs() - self.beta
            step = float(kept.max()) / WEIGHT_MAX
            if step > 0:
                codes = (kept / step).round().long().cpu().numpy()
                self.log_range.fill_(math.log(step * least_error_clip(codes, self.bitwidth)))

    @torch.no_grad()
    def prune(self, progress: float) -> None:
        """Keep the weights of largest magnitude: all at progress 0, `n_nonzero` of them at 1.

        With the number format Q-hat, beta follows the mask; the range keeps its length.

        Source: [UDC] eq. (2), section 5: beta is the largest pruned value.
        """
        kept = n_kept(self.theta.numel(), self.n_nonzero, progress)
        self.mask.copy_(magnitude_mask(self.theta, kept))
        if self.offset and 1 < self.bitwidth < BITWIDTH_MAX:
            self.beta.copy_((self.theta.abs() * (1 - self.mask)).max())

    def forward(self) -> Tensor:
        """The weights as they are deployed; in training, see `quantized_fraction`."""
        if not self.quantizes:
            if not self.regrows:
                return self.theta * self.mask
            return self.theta + (self.theta * self.mask - self.theta).detach()  # exact in floats
        rounded = None
        if self.training and self.quantized_fraction < 1:
            drawn = torch.rand(self.theta.shape, generator=self.generator, device=self.theta.device)
            rounded = drawn < self.quantized_fraction
        r, beta = self.log_range.exp(), self.beta if self.offset else None
        return quantize(self.theta, r, self.bitwidth, beta, self.mask, rounded, self.regrows)
