# SPDX-License-Identifier: Apache-2.0
"""A candidate as a torch module: quantized, pruned weights on exactly the layers it describes.

Channels and non-zeros come from `spaces.concrete`, as the size does, so what is trained is what
was costed.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from npusim.errors import ConfigError
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


class Weighted(nn.Module):
    """What layers with weights have in common: the weights, batch norm or bias, the activation."""

    def __init__(
        self, found: ConcreteLayer[int], shape: tuple[int, ...], generator: torch.Generator
    ):
        super().__init__()
        layer = found.layer
        self.weight = CompressedWeight(shape, found.bitwidth, found.n_nonzero, generator)
        self.bias = None
        if layer.bias and not layer.norm:
            self.bias = nn.Parameter(torch.zeros(found.ofm_depth))
        self.norm = nn.BatchNorm2d(found.ofm_depth) if layer.norm else nn.Identity()
        self.activate = _activation(layer.activation, found.ofm_depth)

    def finish(self, x: Tensor) -> Tensor:
        """Batch norm and activation."""
        result: Tensor = self.activate(self.norm(x))
        return result


class Conv(Weighted):
    """Convolution with TFLite's "same" padding, by channel if depthwise: [N, C, H, W] maps."""

    def __init__(self, found: ConcreteLayer[int], ifm_hw: tuple[int, int], g: torch.Generator):
        depthwise = found.layer.kind is LayerKind.DEPTHWISE
        self.groups = found.ofm_depth if depthwise else 1
        ifm_depth = 1 if depthwise else found.ifm_depth
        super().__init__(found, (found.ofm_depth, ifm_depth, found.kernel, found.kernel), g)
        self.stride = found.layer.stride
        top, bottom = _same_padding(ifm_hw[0], found.kernel, self.stride)
        left, right = _same_padding(ifm_hw[1], found.kernel, self.stride)
        self.padding = (top, left)
        self.padding_more = (0, right - left, 0, bottom - top)  # below and to the right

    def forward(self, x: Tensor) -> Tensor:
        if any(self.padding_more):
            x = functional.pad(x, self.padding_more)
        x = functional.conv2d(
            x, self.weight(), self.bias, self.stride, self.padding, 1, self.groups
        )
        return self.finish(x)


class TransposeConv(Weighted):
    """Transpose of a "same" convolution: [N, I, H, W] to [N, O, stride * H, stride * W]."""

    def __init__(self, found: ConcreteLayer[int], g: torch.Generator):
        super().__init__(found, (found.ofm_depth, found.ifm_depth, found.kernel, found.kernel), g)
        self.stride, self.kernel = found.layer.stride, found.kernel

    def forward(self, x: Tensor) -> Tensor:
        height, width = (self.stride * size for size in x.shape[2:])
        before = max(self.kernel - self.stride, 0) // 2
        missing = max(self.stride - self.kernel, 0)
        weight = self.weight().transpose(0, 1)  # [O, I, H, W] -> [I, O, H, W]
        x = functional.conv_transpose2d(x, weight, stride=self.stride)
        x = functional.pad(x, (0, missing, 0, missing))
        x = x[:, :, before : before + height, before : before + width]
        if self.bias is not None:
            x = x + self.bias[:, None, None]
        return self.finish(x)


class Dense(Weighted):
    """Matrix product and bias: [N, I] to [N, O]."""

    def __init__(self, found: ConcreteLayer[int], g: torch.Generator):
        super().__init__(found, (found.ofm_depth, found.ifm_depth), g)

    def forward(self, x: Tensor) -> Tensor:
        return self.finish(functional.linear(x, self.weight(), self.bias))


class Pool(nn.Module):
    """Mean or maximum over windows with "same" padding, which does not count."""

    def __init__(self, found: ConcreteLayer[int], ifm_hw: tuple[int, int]):
        super().__init__()
        self.kernel, self.stride = found.kernel, found.layer.stride
        self.mean = found.layer.kind is LayerKind.AVERAGE_POOL
        top, bottom = _same_padding(ifm_hw[0], self.kernel, self.stride)
        left, right = _same_padding(ifm_hw[1], self.kernel, self.stride)
        self.padding = (left, right, top, bottom)

    def forward(self, x: Tensor) -> Tensor:
        if not self.mean:
            x = functional.pad(x, self.padding, value=-math.inf)
            return functional.max_pool2d(x, self.kernel, self.stride)
        there = functional.pad(torch.ones_like(x[:1, :1]), self.padding)
        share = functional.avg_pool2d(there, self.kernel, self.stride)
        x = functional.pad(x, self.padding)
        return functional.avg_pool2d(x, self.kernel, self.stride) / share


class GlobalPool(nn.Module):
    """Mean over height and width: [N, C, H, W] to [N, C]."""

    def forward(self, x: Tensor) -> Tensor:
        return x.mean((2, 3))


class Add(nn.Module):
    """Sum of maps of one shape, and the activation."""

    def __init__(self, found: ConcreteLayer[int]):
        super().__init__()
        self.activate = _activation(found.layer.activation, found.ofm_depth)

    def forward(self, *maps: Tensor) -> Tensor:
        total = maps[0]
        for x in maps[1:]:
            total = total + x
        result: Tensor = self.activate(total)
        return result


class MatchDepth(nn.Module):
    """The first channels of a map, zeros after them: [N, I, H, W] to [N, O, H, W]."""

    def __init__(self, found: ConcreteLayer[int]):
        super().__init__()
        self.more = found.ofm_depth - found.ifm_depth  # negative: channels are dropped

    def forward(self, x: Tensor) -> Tensor:
        return functional.pad(x, (0, 0, 0, 0, 0, self.more))


class DepthToSpace(nn.Module):
    """Channels as pixels, in steps of 2: [N, 4 * O, H, W] to [N, O, 2 * H, 2 * W]."""

    def __init__(self, found: ConcreteLayer[int]):
        super().__init__()
        self.stride = found.layer.stride

    def forward(self, x: Tensor) -> Tensor:
        for _ in range(self.stride.bit_length() - 1):
            n, depth, height, width = x.shape
            x = x.reshape(n, 2, 2, depth // 4, height, width)  # [N, y, x, O, H, W]
            x = x.permute(0, 3, 4, 1, 5, 2).reshape(n, depth // 4, 2 * height, 2 * width)
        return x


class Zero(nn.Module):
    """Zeros of the shape that a pool with this stride has."""

    def __init__(self, found: ConcreteLayer[int]):
        super().__init__()
        self.stride = found.layer.stride

    def forward(self, x: Tensor) -> Tensor:
        return torch.zeros_like(x[:, :, :: self.stride, :: self.stride])


def _activation(name: str, depth: int) -> nn.Module:
    if name == "prelu":
        return nn.PReLU(depth)
    module: nn.Module = {"none": nn.Identity, "relu": nn.ReLU, "relu6": nn.ReLU6}[name]()
    return module


def _module(
    found: ConcreteLayer[int], ifm_hw: tuple[int, int], generator: torch.Generator
) -> nn.Module:
    layer, kind = found.layer, found.layer.kind
    if kind in (LayerKind.CONV, LayerKind.DEPTHWISE):
        return Conv(found, ifm_hw, generator)
    if kind is LayerKind.TRANSPOSE_CONV:
        return TransposeConv(found, generator)
    if kind is LayerKind.DENSE:
        return Dense(found, generator)
    if kind in (LayerKind.AVERAGE_POOL, LayerKind.MAX_POOL):
        return Pool(found, ifm_hw)
    if kind is LayerKind.ACTIVATION:
        norm = nn.BatchNorm2d(found.ofm_depth) if layer.norm else nn.Identity()
        return nn.Sequential(norm, _activation(layer.activation, found.ofm_depth))
    modules: dict[LayerKind, Callable[[ConcreteLayer[int]], nn.Module]] = {
        LayerKind.ADD: Add,
        LayerKind.MATCH_DEPTH: MatchDepth,
        LayerKind.DEPTH_TO_SPACE: DepthToSpace,
        LayerKind.ZERO: Zero,
    }
    if kind in modules:
        return modules[kind](found)
    if kind is LayerKind.GLOBAL_POOL:
        return GlobalPool()
    raise ConfigError(
        f"layer {layer.name!r} must be of a kind that can be trained, got {kind}: "
        f"an operation of a network that is there already"
    )


class CandidateNet(nn.Module):
    """A candidate's network: images f32 [N, C, H, W] to the output layer's values."""

    def __init__(self, space: Space, candidate: Candidate, generator: torch.Generator):
        super().__init__()
        found = concrete_layers(space, candidate)
        maps = {each.layer.name: (each.ofm_height, each.ofm_width) for each in found}
        self.sources = {each.layer.name: each.inputs for each in found}
        self.blocks = nn.ModuleDict()
        for each in found:
            if each.inputs:
                module = _module(each, maps[each.inputs[0]], generator)
                self.blocks[_key(each.layer.name)] = module

    def forward(self, images: Tensor) -> Tensor:
        results: dict[str, Tensor] = {}
        x = images
        for name, sources in self.sources.items():
            if sources:
                x = self.blocks[_key(name)](*(results[source] for source in sources))
            results[name] = x
        return x

    def weights(self) -> dict[str, CompressedWeight]:
        """The compressed weights, by the name of their layer."""
        blocks = {name: self.blocks[_key(name)] for name, inputs in self.sources.items() if inputs}
        return {name: block.weight for name, block in blocks.items() if isinstance(block, Weighted)}

    def prune(self, progress: float) -> None:
        """Refresh all masks; see `CompressedWeight.prune`."""
        for weight in self.weights().values():
            weight.prune(progress)


def _key(name: str) -> str:
    """A layer's name as torch allows it: dots separate modules there."""
    return name.replace(".", "/")


def build(space: Space, candidate: Candidate, generator: torch.Generator) -> CandidateNet:
    """The candidate's module with fresh weights drawn from `generator`, not pruned yet.

    Raises:
        ConfigError: `candidate` is of another space, or of one made from a network.
    """
    return CandidateNet(space, candidate, generator)


def _same_padding(size: int, kernel: int, stride: int) -> tuple[int, int]:
    total = max((-(-size // stride) - 1) * stride + kernel - size, 0)
    return total // 2, total - total // 2
