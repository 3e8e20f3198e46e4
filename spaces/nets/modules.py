# SPDX-License-Identifier: Apache-2.0
"""The layers of candidates as torch modules, maps as [N, C, H, W]."""

from __future__ import annotations

import math
from collections.abc import Callable
from contextlib import nullcontext

import torch
from torch import Tensor, nn
from torch.nn import functional

from npusim.errors import ConfigError
from spaces.concrete import ConcreteLayer
from spaces.layers import LayerKind
from spaces.nets.activations import ActivationQuantizer
from spaces.nets.weights import CompressedWeight


class Weighted(nn.Module):
    """What layers with weights have in common: the weights, batch norm or bias, the activation.

    Attributes:
        weight: the compressed weights, [O, I, H, W] or [O, I].
        bias: f32 [O], or None where there is none.
        norm: batch norm over O channels, or the identity.
        activate: the activation.
        ofm_quantizer: int8 grid of the result.
    """

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
        self.ofm_quantizer = ActivationQuantizer()

    def finish(self, x: Tensor) -> Tensor:
        """Batch norm, activation and int8 grid."""
        result: Tensor = self.ofm_quantizer(self.activate(self.norm(x)))
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
        # the gradient of these takes oneDNN many times longer in bfloat16 than in float32
        in_float32 = self.groups > 1 and self.stride > 1 and x.device.type == "cpu"
        with torch.autocast("cpu", enabled=False) if in_float32 else nullcontext():
            x = functional.conv2d(
                x.float() if in_float32 else x,
                *(self.weight(), self.bias, self.stride, self.padding, 1, self.groups),
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


class KeepsGrid(nn.Module):
    """Layers whose result is on the int8 grid of what they read, as TFLite has it."""


class Pool(KeepsGrid):
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
        if not any(self.padding):
            return functional.avg_pool2d(x, self.kernel, self.stride)
        there = functional.pad(torch.ones_like(x[:1, :1]), self.padding)
        share = functional.avg_pool2d(there, self.kernel, self.stride)
        x = functional.pad(x, self.padding)
        return functional.avg_pool2d(x, self.kernel, self.stride) / share


class GlobalPool(nn.Module):
    """Mean over height and width: [N, C, H, W] to [N, C]."""

    def __init__(self) -> None:
        super().__init__()
        self.ofm_quantizer = ActivationQuantizer()

    def forward(self, x: Tensor) -> Tensor:
        result: Tensor = self.ofm_quantizer(x.mean((2, 3)))
        return result


class Add(nn.Module):
    """Sum of maps of one shape, and the activation."""

    def __init__(self, found: ConcreteLayer[int]):
        super().__init__()
        self.activate = _activation(found.layer.activation, found.ofm_depth)
        self.ofm_quantizer = ActivationQuantizer()

    def forward(self, *maps: Tensor) -> Tensor:
        total = maps[0]
        for x in maps[1:]:
            total = total + x
        result: Tensor = self.ofm_quantizer(self.activate(total))
        return result


class Activation(nn.Module):
    """Batch norm and activation where no convolution is before them."""

    def __init__(self, found: ConcreteLayer[int]):
        super().__init__()
        self.norm = nn.BatchNorm2d(found.ofm_depth) if found.layer.norm else nn.Identity()
        self.activate = _activation(found.layer.activation, found.ofm_depth)
        self.ofm_quantizer = ActivationQuantizer()

    def forward(self, x: Tensor) -> Tensor:
        result: Tensor = self.ofm_quantizer(self.activate(self.norm(x)))
        return result


class MatchDepth(KeepsGrid):
    """The first channels of a map, zeros after them: [N, I, H, W] to [N, O, H, W]."""

    def __init__(self, found: ConcreteLayer[int]):
        super().__init__()
        self.more = found.ofm_depth - found.ifm_depth  # negative: channels are dropped

    def forward(self, x: Tensor) -> Tensor:
        return functional.pad(x, (0, 0, 0, 0, 0, self.more))


class DepthToSpace(KeepsGrid):
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


class Zero(KeepsGrid):
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


def module(
    found: ConcreteLayer[int], ifm_hw: tuple[int, int], generator: torch.Generator
) -> nn.Module:
    """The module of a layer that reads maps of this height and width.

    Raises:
        ConfigError: it is an operation of a network that is there already.
    """
    layer, kind = found.layer, found.layer.kind
    if kind in (LayerKind.CONV, LayerKind.DEPTHWISE):
        return Conv(found, ifm_hw, generator)
    if kind is LayerKind.TRANSPOSE_CONV:
        return TransposeConv(found, generator)
    if kind is LayerKind.DENSE:
        return Dense(found, generator)
    if kind in (LayerKind.AVERAGE_POOL, LayerKind.MAX_POOL):
        return Pool(found, ifm_hw)
    modules: dict[LayerKind, Callable[[ConcreteLayer[int]], nn.Module]] = {
        LayerKind.ADD: Add,
        LayerKind.ACTIVATION: Activation,
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


def _same_padding(size: int, kernel: int, stride: int) -> tuple[int, int]:
    total = max((-(-size // stride) - 1) * stride + kernel - size, 0)
    return total // 2, total - total // 2
