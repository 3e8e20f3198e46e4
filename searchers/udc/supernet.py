# SPDX-License-Identifier: Apache-2.0
"""All candidates of a space as one network with shared weights, at relaxed choices.

A layer's output is ``f(x, q * m) * w`` ([UDC] section 3): weights q of mixed number formats, masks
m of mixed sparsities, and a factor w for each channel, of mixed widths. Every layer has one theta,
of full width and of the largest kernel; smaller kernels are its middle. Operators and depths are
weighted sums of maps.

The factor w comes after batch norm and activation, since batch norm would cancel it; and it is not
applied there, but by what reads the channels: convolutions have it in the columns of their weights.
What reads channels through batch norm alone passes it on. So a map's factor is always that of its
depth, ``Space.depths``, and widths take no pass over maps.

Several samples may go through as one network, side by side as groups of channels, each with images
of its own: one call for all of them is what tiny networks need.
"""

from __future__ import annotations

import math
from collections import ChainMap
from contextlib import nullcontext

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.checkpoint import checkpoint

from npusim.errors import ConfigError
from searchers.udc.assemble import Layout, Mixture, assemble
from searchers.udc.full_layers import (
    Full,
    at_its_largest,
    channel_levels,
    column_levels,
    full_layer,
    kernel_place,
    n_nonzero,
    offered_bitwidths,
    parts,
    weight_places,
)
from spaces.base import BITWIDTH_MAX, Layer, LayerKind, Space
from spaces.concrete import WITH_BIAS, ConcreteLayer
from spaces.nets.modules import module
from spaces.nets.quantizers import initial_range

NORM_EPSILON = 1e-5
Statistics = dict[str, tuple[Tensor, Tensor]]
"""Mean and variance, f32 [S * C] each, by batch norm."""


class Supernet(nn.Module):
    """The shared-weight network of a space.

    Args:
        space: not one made from a network, and with images of one size.
        generator: draws the initial weights.
        offset: number format Q-hat, whose levels start at the largest pruned weight, not Q.
        rematerialize: keep nothing of what is inside an operator of a choice for its gradient, but
            compute it once more: less memory, more time, the same result.

    Attributes:
        theta: dense weights of all layers, f32 [N].
        log_r: ln of the ranges of the formats with levels, f32 [L, B].
        beta: start of the levels, f32 [L]; 0 with number format Q.
        level: index of the first sparsity that keeps a weight, u8 [N].

    Raises:
        ConfigError: the space is one of those.
    """

    beta: Tensor
    level: Tensor

    def __init__(
        self,
        space: Space,
        generator: torch.Generator,
        *,
        offset: bool = True,
        rematerialize: bool = False,
    ):
        super().__init__()
        self.space, self.offset, self.rematerialize = space, offset, rematerialize
        self.parts = parts(space)
        if space.layers[0].resolution is not None:
            raise ConfigError(
                f"space {space.name!r} must have images of one size to be trained as one network, "
                f"got decision {space.layers[0].resolution!r}"
            )
        self.full = [full_layer(space, layer) for layer in space.layers if layer.weighted]
        self.theta = nn.Parameter(_initial_weights(self.full, generator))
        formats = {b for decision in offered_bitwidths(space) for b in decision}
        bitwidths = tuple(sorted(b for b in formats if 1 < b < BITWIDTH_MAX))
        fan_in = torch.tensor([math.prod(each.shape[1:]) for each in self.full]).float()
        self.layout = Layout(weight_places(self.full), bitwidths, torch.sqrt(2 / fan_in))
        ranges = torch.ones(len(self.full), len(bitwidths))
        for at, theta in enumerate(self._by_layer(self.theta.detach())):
            for b, bitwidth in enumerate(bitwidths):
                ranges[at, b] = initial_range(theta.abs(), bitwidth)
        self.log_r = nn.Parameter(ranges.log())
        self.register_buffer("beta", torch.zeros(len(self.full)))
        self.register_buffer("level", torch.zeros(len(self.theta), dtype=torch.uint8))
        self._make_modules(generator)
        self._make_indices()

    # -- what does not change

    def _make_modules(self, generator: torch.Generator) -> None:
        space = self.space
        self.norms, self.biases = nn.ModuleDict(), nn.ParameterDict()
        self.slopes, self.plain = nn.ParameterDict(), nn.ModuleDict()
        for layer in space.layers[1:]:
            key, depth = _key(layer.name), space.depths[layer.name].full
            if layer.norm:
                self.norms[key] = nn.BatchNorm2d(depth, NORM_EPSILON, track_running_stats=False)
            elif layer.bias and layer.kind in WITH_BIAS:
                self.biases[key] = nn.Parameter(torch.zeros(depth))
            if layer.activation == "prelu":
                self.slopes[key] = nn.Parameter(torch.full((depth,), 0.25))
            if layer.kind in _PLAIN:
                height, width = space.maps[layer.inputs[0]][0].tolist()
                self.plain[key] = module(at_its_largest(space, layer), (height, width), generator)

    def _make_indices(self) -> None:
        """Where in the tables of all decisions, [D + 1, K], each layer and column looks."""
        space, n_decisions = self.space, len(self.space.decisions)
        n_columns = max(1, *space.n_options.tolist(), 1)
        sparsity, bitwidth = [], []
        formats = np.zeros((len(self.full), n_columns, 2 + len(self.layout.bitwidths)), np.float32)
        columns = []
        for at, each in enumerate(self.full):
            layer = each.layer
            sparsity.append(space.position(layer.sparsity) if layer.sparsity else n_decisions)
            bitwidth.append(space.position(layer.bitwidth) if layer.bitwidth else n_decisions)
            options = (BITWIDTH_MAX,)
            if layer.bitwidth:
                options = space.decisions[bitwidth[-1]].options  # type: ignore[assignment]
            for option, bits in enumerate(options):
                formats[at, option, self._format(bits)] = 1
            columns.append(column_levels(space, each))
        for name, values in (
            ("_sparsity", np.array(sparsity)),
            ("_bitwidth", np.array(bitwidth)),
            ("_formats", formats),
            ("_columns", np.concatenate(columns, axis=1)),
        ):
            self.register_buffer(name, torch.from_numpy(values), persistent=False)
        self._n_nonzero = [n_nonzero(space, each) for each in self.full]

    def _format(self, bits: int) -> int:
        if bits == BITWIDTH_MAX:
            return 0
        return 1 if bits == 1 else 2 + self.layout.bitwidths.index(bits)

    def _by_layer(self, flat: Tensor) -> list[Tensor]:
        return list(flat.split(self.layout.layers[:, 1].tolist(), dim=-1))

    def dense(self, found: ConcreteLayer[int]) -> Tensor:
        """A candidate's part of a layer's dense weights, [O, I, H, W] or [O, I]."""
        at = [each.layer.name for each in self.full].index(found.layer.name)
        full, theta = self.full[at], self._by_layer(self.theta)[at].view(self.full[at].shape)
        depthwise = found.layer.kind is LayerKind.DEPTHWISE
        theta = theta[: found.ofm_depth, : 1 if depthwise else found.ifm_depth]
        if theta.ndim == 2:
            return theta
        top, left = kernel_place(self.space, found.layer, full.shape[2], found.kernel)
        return theta[:, :, top : top + found.kernel, left : left + found.kernel]

    # -- what follows the weights

    @torch.no_grad()
    def refresh_masks(self, pi: Tensor) -> None:
        """Rank all weights anew: which sparsity keeps each first, and where levels start.

        With Q-hat, a layer's beta is the mean, over its sparsities, of the largest pruned
        magnitude; the ranges change by as much, so that their ends stay where they are.

        Args:
            pi: probabilities of options, [D, K].

        Source: [UDC] eq. (2), Algorithm 2, line 4.
        """
        level, beta = self.level.cpu().numpy(), np.zeros(len(self.full), np.float32)
        magnitudes = self.theta.detach().abs().cpu().numpy()
        for at, (first, n, *_) in enumerate(self.layout.layers.tolist()):
            kept = self._n_nonzero[at]
            magnitude = magnitudes[first : first + n]
            order = np.argsort(-magnitude)
            level[first : first + n][order] = np.repeat(
                np.arange(len(kept) + 1, dtype=np.uint8), np.diff([0, *kept, n])
            )
            if self.offset and self.full[at].layer.sparsity:
                pruned = np.append(magnitude[order], 0.0)[kept]  # the largest of each
                weights = pi[self._sparsity[at], : len(kept)].cpu().numpy()
                beta[at] = float(pruned @ weights)
        self.level.copy_(torch.from_numpy(level))
        r, new = self.log_r.exp(), torch.from_numpy(beta).to(self.beta.device)
        self.log_r.copy_(torch.maximum(r + (self.beta - new)[:, None], r / 2).log())
        self.beta.copy_(new)

    # -- the network

    def weights(self, z: Tensor) -> list[Tensor]:
        """The weights of each layer for samples [S, D, K], f32 [S, n_weights]."""
        none = z.new_zeros(len(z), 1, z.shape[2])
        none[..., 0] = 1
        every = torch.cat([z, none], 1).float()  # [S, D + 1, K]
        reach = _reach(every)
        input_width, input_level, tap, tap_level = self._columns
        # in single precision, whatever autocast may choose
        with torch.autocast(z.device.type, enabled=False):
            formats = torch.einsum("slk,lkf->slf", every[:, self._bitwidth], self._formats)
        mixture = Mixture(
            formats=formats,
            kept=reach[:, self._sparsity],
            columns=reach[:, input_width, input_level] * reach[:, tap, tap_level],
        )
        flat = assemble(self.layout, self.theta, self.log_r.exp(), self.beta, self.level, mixture)
        return self._by_layer(flat)

    def forward(self, images: Tensor, z: Tensor, statistics: Statistics | None = None) -> Tensor:
        """Outputs of samples, each for images of its own.

        Args:
            images: f32 [S, N, C, H, W].
            z: samples [S, D, K].
            statistics: of batch norm, see `statistics`; None for those of the images.

        Returns:
            [S, N, classes] or, of networks that end with a map, [S, N, C, H, W].
        """
        return _Run(self, images, z.float(), statistics).output()

    @torch.no_grad()
    def statistics(self, images: Tensor, z: Tensor) -> Statistics:
        """Mean and variance of what each batch norm gets for samples, to judge other images by.

        Args:
            images: f32 [S, N, C, H, W].
            z: samples [S, D, K].
        """
        found: Statistics = {}
        _Run(self, images, z.float(), found).output()
        return found


class _Run:
    """One pass: maps [N, S * C, H, W] by the name of their layer, not yet times their width."""

    def __init__(self, net: Supernet, images: Tensor, z: Tensor, statistics: Statistics | None):
        self.net, self.z, self.n = net, z, len(z)
        self.statistics = statistics
        weights = net.weights(z)
        self.weights = {
            each.layer.name: (each, w) for each, w in zip(net.full, weights, strict=True)
        }
        x = images.transpose(0, 1).flatten(1, 2)  # [S, N, C, H, W] -> [N, S * C, H, W]
        self.maps = {net.space.layers[0].name: x.contiguous(memory_format=torch.channels_last)}

    def output(self) -> Tensor:
        """Of the last layer, samples first."""
        for part in self.net.parts:
            last = part[-1].name
            if self.net.rematerialize and len(part) > 1:
                self.maps[last] = checkpoint(self.part, part, use_reentrant=False)
            else:
                self.maps[last] = self.part(part)
        return self.widened(last, self.maps[last]).unflatten(1, (self.n, -1)).transpose(0, 1)

    def part(self, layers: tuple[Layer, ...]) -> Tensor:
        """The map of the last of some layers; those of the others are forgotten."""
        maps = ChainMap[str, Tensor]({}, self.maps)
        for layer in layers:
            maps[layer.name] = self.layer(layer, [maps[name] for name in layer.inputs])
        return maps[layers[-1].name]

    def layer(self, layer: Layer, inputs: list[Tensor]) -> Tensor:
        if layer.name in self.weights:
            return self.finish(layer, self.convolve(layer, inputs[0]))
        if layer.kind is LayerKind.ADD:
            return self.finish(layer, sum(inputs[1:], inputs[0]))
        if layer.kind is LayerKind.ACTIVATION:
            return self.finish(layer, inputs[0])
        if layer.kind is LayerKind.CHOICE:
            return self.mix(layer, inputs)
        if layer.kind is LayerKind.MATCH_DEPTH:
            return self.match_depth(layer, inputs[0])
        result: Tensor = self.net.plain[_key(layer.name)](self.apart(inputs[0]))
        return result.unflatten(0, (-1, self.n)).flatten(1, 2)

    def apart(self, x: Tensor) -> Tensor:
        """[N, S * C, ...] -> [N * S, C, ...]"""
        return x.unflatten(1, (self.n, -1)).flatten(0, 1)

    def convolve(self, layer: Layer, x: Tensor) -> Tensor:
        full, flat = self.weights[layer.name]
        weight = flat.unflatten(1, full.shape)  # [S, O, I, H, W]
        bias = self.net.biases.get(_key(layer.name), None)
        if layer.kind is LayerKind.DENSE:
            x = x.flatten(1).unflatten(1, (self.n, -1)).transpose(0, 1)  # [S, N, I]
            y = (
                torch.baddbmm(bias, x, weight.transpose(1, 2))
                if bias is not None
                else (x @ weight.transpose(1, 2))
            )
            return y.transpose(0, 1).flatten(1)
        if bias is not None:
            bias = bias.repeat(self.n)
        if layer.kind is LayerKind.TRANSPOSE_CONV:
            return self.transpose_convolve(layer, x, weight, bias, full)
        if any(full.more):
            x = functional.pad(x, (0, full.more[1], 0, full.more[0]))
        groups = self.n * (full.shape[0] if layer.kind is LayerKind.DEPTHWISE else 1)
        weight = weight.flatten(0, 1)
        # the gradient of these takes oneDNN many times longer in bfloat16 than in float32
        slow = layer.kind is LayerKind.DEPTHWISE and layer.stride > 1 and x.device.type == "cpu"
        with torch.autocast("cpu", enabled=False) if slow else nullcontext():
            x = x.float() if slow else x
            return functional.conv2d(x, weight, bias, layer.stride, full.padding, 1, groups)

    def transpose_convolve(
        self, layer: Layer, x: Tensor, weight: Tensor, bias: Tensor | None, full: Full
    ) -> Tensor:
        height, width = (layer.stride * size for size in x.shape[2:])
        missing = max(layer.stride - full.shape[2], 0)
        weight = weight.transpose(1, 2).flatten(0, 1)  # [S, O, I, H, W] -> [S * I, O, H, W]
        x = functional.conv_transpose2d(x, weight, stride=layer.stride, groups=self.n)
        x = functional.pad(x, (0, missing, 0, missing))
        x = x[:, :, full.margin : full.margin + height, full.margin : full.margin + width]
        return x if bias is None else x + bias[:, None, None]

    def finish(self, layer: Layer, x: Tensor) -> Tensor:
        """Batch norm, by the statistics of each sample's images or by given ones; activation."""
        key = _key(layer.name)
        if layer.norm:
            norm = self.net.norms[key]
            scale, shift = norm.weight.repeat(self.n), norm.bias.repeat(self.n)
            x = functional.batch_norm(
                x, *self.moments(key, x), scale, shift, self.statistics is None, 0.0, NORM_EPSILON
            )
        if layer.activation == "relu":
            return functional.relu(x)
        if layer.activation == "relu6":
            return functional.relu6(x)
        if layer.activation == "prelu":
            return functional.prelu(x, self.net.slopes[key].repeat(self.n))
        return x

    def moments(self, key: str, x: Tensor) -> tuple[Tensor | None, Tensor | None]:
        """Mean and variance that batch norm is to take, f32 [S * C]; none for those of `x`."""
        if self.statistics is None:
            return None, None
        if key not in self.statistics:
            self.statistics[key] = (x.mean((0, 2, 3)).float(), x.var((0, 2, 3)).float())
        return self.statistics[key]

    def mix(self, layer: Layer, inputs: list[Tensor]) -> Tensor:
        """``sum_k z_f[k] f_k``: operators and depths, [UDC] section 3."""
        assert layer.choice is not None
        z = self.z[:, self.net.space.position(layer.choice)]  # [S, K]
        total = torch.zeros((), dtype=inputs[0].dtype)
        for option, x in enumerate(inputs):
            total = total + self.scaled(x, z[:, option, None].expand(-1, x.shape[1] // self.n))
        return total

    def match_depth(self, layer: Layer, x: Tensor) -> Tensor:
        more = self.net.space.depths[layer.name].full - x.shape[1] // self.n
        x = self.apart(self.widened(layer.inputs[0], x))
        x = functional.pad(x, (0, 0, 0, 0, 0, more))
        return x.unflatten(0, (-1, self.n)).flatten(1, 2)

    def scaled(self, x: Tensor, factors: Tensor) -> Tensor:
        """Maps times a factor for each sample and channel, [S, C]."""
        return x * factors.flatten().view(-1, *[1] * (x.ndim - 2))

    def widened(self, name: str, x: Tensor) -> Tensor:
        """The map of a layer times its width, ``f(x) * w``."""
        depth = self.net.space.depths[name]
        if depth.width is None:
            return x
        position = self.net.space.position(depth.width)
        reach = _reach(self.z[:, position])
        return self.scaled(x, reach[:, channel_levels(self.net.space, depth.width, depth.full)])


_PLAIN = (
    *(LayerKind.AVERAGE_POOL, LayerKind.MAX_POOL, LayerKind.GLOBAL_POOL),
    *(LayerKind.DEPTH_TO_SPACE, LayerKind.ZERO),
)
"""Layers without weights that work on each sample by itself."""


def _reach(z: Tensor) -> Tensor:
    """Weights of an option and all after it, [..., K + 1]: what options have that are nested."""
    return functional.pad(z.flip(-1).cumsum(-1).flip(-1), (0, 1))


def _key(name: str) -> str:
    """A layer's name as torch allows it: dots separate modules there."""
    return name.replace(".", "/")


def _initial_weights(full: list[Full], generator: torch.Generator) -> Tensor:
    drawn = [
        math.sqrt(2 / math.prod(each.shape[1:])) * torch.randn(each.shape, generator=generator)
        for each in full
    ]
    return torch.cat([theta.flatten() for theta in drawn])
