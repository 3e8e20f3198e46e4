# SPDX-License-Identifier: Apache-2.0
"""A candidate as a torch module: quantized, pruned weights on exactly the layers it describes.

Channels and non-zeros come from `spaces.concrete`, as the size does, so what is trained is what
was costed.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from spaces.base import BITWIDTH_MAX, Candidate, LayerKind, Space
from spaces.concrete import ConcreteLayer, concrete_layers


class Quantize(torch.autograd.Function):
    """``Q(theta, b, r) * m`` with a straight-through gradient.

    With L = 2**(b-1) - 1 levels on each side of zero, ``Q = d * round(clip(theta, -r, r) / d)``,
    ``d = r / L`` for b > 1, and ``Q = r * sign(theta)`` with sign(0) = 1 for b = 1.

    Rounding and sign count as identity in the gradient. For b > 1 that leaves dQ/dtheta = 1 inside
    the range and 0 outside, dQ/dr = (Q - theta) / r inside and sign(theta) outside. For b = 1 the
    range gets no gradient.

    Source: [UDC] eq. (3).
    Differs: eq. (3) has sign(theta) for b = 1, without r. Weights of magnitude 1 are far larger
    than those of the other bitwidths; r is then a constant, the scale of He initialization.
    """

    @staticmethod
    def forward(ctx: Any, theta: Tensor, r: Tensor, mask: Tensor, bitwidth: int) -> Tensor:
        if bitwidth == 1:
            q = torch.copysign(r, theta)
        else:
            levels = (1 << (bitwidth - 1)) - 1
            q = (theta * (levels / r)).clamp_(-levels, levels).round_().mul_(r / levels)
        ctx.save_for_backward(theta, r, mask, q)
        ctx.bitwidth = bitwidth
        return q * mask

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[Tensor, Tensor | None, None, None]:
        theta, r, mask, q = ctx.saved_tensors
        grad = grad_outputs[0] * mask
        if ctx.bitwidth == 1:
            return grad, None, None, None
        inside = theta.abs() <= r
        grad_r = (grad * torch.where(inside, q - theta, q)).sum() / r
        return grad * inside, grad_r, None, None


class CompressedWeight(nn.Module):
    """Dense weights theta, the mask that prunes them, the range that quantizes them.

    Args:
        shape: of the weights, [O, I, H, W] or [O, I].
        bitwidth: bits of a non-zero weight, 1..32; 32 is not quantized.
        n_nonzero: weights that the final mask keeps.
        generator: draws the initial weights.
    """

    mask: Tensor

    def __init__(
        self, shape: tuple[int, ...], bitwidth: int, n_nonzero: int, generator: torch.Generator
    ):
        super().__init__()
        self.bitwidth, self.n_nonzero = bitwidth, n_nonzero
        he = math.sqrt(2 / math.prod(shape[1:]))
        self.theta = nn.Parameter(he * torch.randn(shape, generator=generator))
        self.register_buffer("mask", torch.ones(shape))
        if bitwidth == 1:
            self.register_buffer("log_range", torch.tensor(math.log(he)))
        elif bitwidth < BITWIDTH_MAX:
            self.log_range = nn.Parameter(_initial_range(self.theta.detach(), bitwidth).log())

    def prune(self, progress: float) -> None:
        """Keep the weights of largest magnitude: all at progress 0, `n_nonzero` of them at 1.

        Source: [UDC] eq. (2); the cubic in between is that of Zhu and Gupta, [UDC] [72].
        """
        n = self.theta.numel()
        kept = self.n_nonzero + math.floor((n - self.n_nonzero) * (1 - progress) ** 3)
        largest = self.theta.detach().abs().flatten().topk(kept, sorted=False).indices
        self.mask.zero_().view(-1)[largest] = 1.0

    def forward(self) -> Tensor:
        """The weights as they are deployed."""
        if self.bitwidth == BITWIDTH_MAX:
            return self.theta * self.mask
        r = self.log_range.exp()
        quantized: Tensor = Quantize.apply(self.theta, r, self.mask, self.bitwidth)  # type: ignore[no-untyped-call]
        return quantized


def _initial_range(theta: Tensor, bitwidth: int) -> Tensor:
    """Range for b > 1: a step of 2 E|theta| / sqrt(L), but nothing beyond the largest weight.

    Source: the step of learned step size quantization (Esser et al., 2020).
    """
    levels = (1 << (bitwidth - 1)) - 1
    magnitude = theta.abs()
    return torch.minimum(2 * magnitude.mean() * math.sqrt(levels), magnitude.max())


class Conv(nn.Module):
    """Convolution with TFLite's "same" padding, batch norm, ReLU: [N, I, H, W] to [N, O, P, Q]."""

    def __init__(self, found: ConcreteLayer[int], ifm_hw: tuple[int, int], g: torch.Generator):
        super().__init__()
        layer = found.layer
        shape = (found.ofm_depth, found.ifm_depth, layer.kernel, layer.kernel)
        self.weight = CompressedWeight(shape, found.bitwidth, found.n_nonzero, g)
        self.norm = nn.BatchNorm2d(found.ofm_depth)
        self.stride = layer.stride
        top, bottom = _same_padding(ifm_hw[0], layer.kernel, layer.stride)
        left, right = _same_padding(ifm_hw[1], layer.kernel, layer.stride)
        self.padding = (top, left)
        self.padding_more = (0, right - left, 0, bottom - top)  # below and to the right

    def forward(self, x: Tensor) -> Tensor:
        if any(self.padding_more):
            x = functional.pad(x, self.padding_more)
        x = functional.conv2d(x, self.weight(), stride=self.stride, padding=self.padding)
        return functional.relu(self.norm(x))


class Dense(nn.Module):
    """Matrix product and bias: [N, I] to [N, O]."""

    def __init__(self, found: ConcreteLayer[int], g: torch.Generator):
        super().__init__()
        shape = (found.ofm_depth, found.ifm_depth)
        self.weight = CompressedWeight(shape, found.bitwidth, found.n_nonzero, g)
        self.bias = nn.Parameter(torch.zeros(found.ofm_depth))

    def forward(self, x: Tensor) -> Tensor:
        return functional.linear(x, self.weight(), self.bias)


class GlobalPool(nn.Module):
    """Mean over height and width: [N, C, H, W] to [N, C]."""

    def forward(self, x: Tensor) -> Tensor:
        return x.mean((2, 3))


class CandidateNet(nn.Module):
    """A candidate's network: images f32 [N, C, H, W] to the output layer's values."""

    def __init__(self, space: Space, candidate: Candidate, generator: torch.Generator):
        super().__init__()
        found = concrete_layers(space, candidate)
        maps = {each.layer.name: (each.ofm_height, each.ofm_width) for each in found}
        self.sources = {each.layer.name: each.layer.inputs for each in found}
        self.blocks = nn.ModuleDict()
        for each in found:
            layer = each.layer
            if layer.kind is LayerKind.CONV:
                self.blocks[layer.name] = Conv(each, maps[layer.inputs[0]], generator)
            elif layer.kind is LayerKind.DENSE:
                self.blocks[layer.name] = Dense(each, generator)
            elif layer.kind is LayerKind.GLOBAL_POOL:
                self.blocks[layer.name] = GlobalPool()

    def forward(self, images: Tensor) -> Tensor:
        results: dict[str, Tensor] = {}
        x = images
        for name, sources in self.sources.items():
            if sources:
                x = self.blocks[name](*(results[source] for source in sources))
            results[name] = x
        return x

    def weights(self) -> dict[str, CompressedWeight]:
        """The compressed weights, by the name of their layer."""
        return {
            name: block.weight
            for name, block in self.blocks.items()
            if isinstance(block, (Conv, Dense))
        }

    def prune(self, progress: float) -> None:
        """Refresh all masks; see `CompressedWeight.prune`."""
        for weight in self.weights().values():
            weight.prune(progress)


def build(space: Space, candidate: Candidate, generator: torch.Generator) -> CandidateNet:
    """The candidate's module with fresh weights drawn from `generator`, not pruned yet.

    Raises:
        ConfigError: `candidate` is of another space.
    """
    return CandidateNet(space, candidate, generator)


def _same_padding(size: int, kernel: int, stride: int) -> tuple[int, int]:
    total = max((-(-size // stride) - 1) * stride + kernel - size, 0)
    return total // 2, total - total // 2
