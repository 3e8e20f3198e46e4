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
from contextlib import nullcontext
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from npusim.errors import ConfigError
from searchers.udc.assemble import Layout, Mixture, assemble
from spaces.base import BITWIDTH_MAX, Layer, LayerKind, Space
from spaces.concrete import WITH_BIAS, ConcreteLayer, concrete_layer
from spaces.nets.modules import module
from spaces.nets.quantizers import initial_range

NORM_EPSILON = 1e-5


@dataclass(frozen=True, slots=True)
class _Full:
    """A layer with weights at its fullest.

    Attributes:
        layer: what it is.
        shape: of theta, [O, I, H, W] or [O, I].
        padding: top, left; rows and columns more below and right.
        margin: of a transpose convolution: rows and columns cut off at the start.
    """

    layer: Layer
    shape: tuple[int, ...]
    padding: tuple[int, int] = (0, 0)
    more: tuple[int, int] = (0, 0)
    margin: int = 0


class Supernet(nn.Module):
    """The shared-weight network of a space.

    Args:
        space: not one made from a network, and with images of one size.
        generator: draws the initial weights.
        offset: number format Q-hat, whose levels start at the largest pruned weight, not Q.

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

    def __init__(self, space: Space, generator: torch.Generator, *, offset: bool = True):
        super().__init__()
        self.space, self.offset = space, offset
        if space.layers[0].resolution is not None:
            raise ConfigError(
                f"space {space.name!r} must have images of one size to be trained as one network, "
                f"got decision {space.layers[0].resolution!r}"
            )
        self.full = [_full(space, layer) for layer in space.layers if layer.weighted]
        self.theta = nn.Parameter(_initial_weights(self.full, generator))
        formats = {b for decision in _bitwidths(space) for b in decision}
        bitwidths = tuple(sorted(b for b in formats if 1 < b < BITWIDTH_MAX))
        fan_in = torch.tensor([math.prod(each.shape[1:]) for each in self.full]).float()
        self.layout = Layout(_places(self.full), bitwidths, torch.sqrt(2 / fan_in))
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
                self.plain[key] = module(_largest(space, layer), (height, width), generator)

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
            columns.append(_column_levels(space, each))
        for name, values in (
            ("_sparsity", np.array(sparsity)),
            ("_bitwidth", np.array(bitwidth)),
            ("_formats", formats),
            ("_columns", np.concatenate(columns, axis=1)),
        ):
            self.register_buffer(name, torch.from_numpy(values), persistent=False)
        self._n_nonzero = [_n_nonzero(space, each) for each in self.full]

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
        top, left = _kernel_place(self.space, found.layer, full.shape[2], found.kernel)
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

    def forward(self, images: Tensor, z: Tensor) -> Tensor:
        """Outputs of samples, each for images of its own.

        Args:
            images: f32 [S, N, C, H, W].
            z: samples [S, D, K].

        Returns:
            [S, N, classes] or, of networks that end with a map, [S, N, C, H, W].
        """
        run = _Run(self, images, z.float())
        for layer in self.space.layers[1:]:
            run.maps[layer.name] = run.layer(layer)
        return run.output()


class _Run:
    """One pass: maps [N, S * C, H, W] by the name of their layer, not yet times their width."""

    def __init__(self, net: Supernet, images: Tensor, z: Tensor):
        self.net, self.z, self.n = net, z, len(z)
        weights = net.weights(z)
        self.weights = {
            each.layer.name: (each, w) for each, w in zip(net.full, weights, strict=True)
        }
        x = images.transpose(0, 1).flatten(1, 2)  # [S, N, C, H, W] -> [N, S * C, H, W]
        self.maps = {net.space.layers[0].name: x.contiguous(memory_format=torch.channels_last)}

    def layer(self, layer: Layer) -> Tensor:
        inputs = [self.maps[name] for name in layer.inputs]
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
        self, layer: Layer, x: Tensor, weight: Tensor, bias: Tensor | None, full: _Full
    ) -> Tensor:
        height, width = (layer.stride * size for size in x.shape[2:])
        missing = max(layer.stride - full.shape[2], 0)
        weight = weight.transpose(1, 2).flatten(0, 1)  # [S, O, I, H, W] -> [S * I, O, H, W]
        x = functional.conv_transpose2d(x, weight, stride=layer.stride, groups=self.n)
        x = functional.pad(x, (0, missing, 0, missing))
        x = x[:, :, full.margin : full.margin + height, full.margin : full.margin + width]
        return x if bias is None else x + bias[:, None, None]

    def finish(self, layer: Layer, x: Tensor) -> Tensor:
        """Batch norm by the statistics of each sample's images, then the activation."""
        key = _key(layer.name)
        if layer.norm:
            norm = self.net.norms[key]
            scale, shift = norm.weight.repeat(self.n), norm.bias.repeat(self.n)
            x = functional.batch_norm(x, None, None, scale, shift, True, 0.0, NORM_EPSILON)
        if layer.activation == "relu":
            return functional.relu(x)
        if layer.activation == "relu6":
            return functional.relu6(x)
        if layer.activation == "prelu":
            return functional.prelu(x, self.net.slopes[key].repeat(self.n))
        return x

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
        return self.scaled(x, reach[:, _channel_levels(self.net.space, depth.width, depth.full)])

    def output(self) -> Tensor:
        """Of the last layer, samples first."""
        name = self.net.space.layers[-1].name
        x = self.widened(name, self.maps[name])
        return x.unflatten(1, (self.n, -1)).transpose(0, 1)


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


def _largest(space: Space, layer: Layer) -> ConcreteLayer[int]:
    """A layer at the last option of every decision, as if it were there."""
    many = concrete_layer(space, layer, lambda position: space.n_options[position] - 1)
    counts = {
        name: int(getattr(many, name))
        for name in ConcreteLayer.__slots__
        if name not in ("layer", "inputs")
    }
    return ConcreteLayer(layer=layer, inputs=layer.inputs, **counts)


def _full(space: Space, layer: Layer) -> _Full:
    if layer.given is not None:
        raise ConfigError(
            f"space {space.name!r} must be of layers that can be trained, got {layer.name!r} of a "
            f"network that is there already"
        )
    found = _largest(space, layer)
    ifm_depth = space.depths[layer.inputs[0]].full
    ofm_depth = space.depths[layer.name].full
    if layer.kind is LayerKind.DENSE:
        return _Full(layer, (ofm_depth, ifm_depth))
    kernel = (found.kernel, found.kernel)
    if layer.kind is LayerKind.TRANSPOSE_CONV:
        shape = (ofm_depth, ifm_depth, *kernel)
        return _Full(layer, shape, margin=_margin(found.kernel, layer.stride))
    inputs = 1 if layer.kind is LayerKind.DEPTHWISE else ifm_depth
    height, width = space.maps[layer.inputs[0]][0].tolist()
    top, bottom = _padding(height, found.kernel, layer.stride)
    left, right = _padding(width, found.kernel, layer.stride)
    more = (bottom - top, right - left)
    return _Full(layer, (ofm_depth, inputs, *kernel), (top, left), more)


def _padding(size: int, kernel: int, stride: int) -> tuple[int, int]:
    """TFLite's "same": before and after."""
    total = max((-(-size // stride) - 1) * stride + kernel - size, 0)
    return total // 2, total - total // 2


def _margin(kernel: int, stride: int) -> int:
    """What "same" cuts off before a transpose convolution."""
    return max(kernel - stride, 0) // 2


def _bitwidths(space: Space) -> list[tuple[int, ...]]:
    names = {layer.bitwidth for layer in space.layers if layer.bitwidth}
    return [space.decisions[space.position(name)].options for name in sorted(names)]  # type: ignore[misc]


def _initial_weights(full: list[_Full], generator: torch.Generator) -> Tensor:
    drawn = [
        math.sqrt(2 / math.prod(each.shape[1:])) * torch.randn(each.shape, generator=generator)
        for each in full
    ]
    return torch.cat([theta.flatten() for theta in drawn])


def _places(full: list[_Full]) -> np.ndarray:
    """See `Layout.layers`."""
    n = np.array([math.prod(each.shape) for each in full], dtype=np.int64)
    columns = np.array([math.prod(each.shape[1:]) for each in full], dtype=np.int64)
    return np.stack([np.cumsum(n) - n, n, columns, np.cumsum(columns) - columns], 1)


def _n_nonzero(space: Space, each: _Full) -> np.ndarray:
    """Weights that each sparsity keeps, i64 [n_options]; all of them without that decision."""
    n = math.prod(each.shape)
    if each.layer.sparsity is None:
        return np.array([n])
    numerator, denominator = space.decisions[space.position(each.layer.sparsity)].fractions
    return -(-numerator * n // denominator)


def _channel_levels(space: Space, width: str, full: int) -> np.ndarray:
    """The first option of a width that each channel is there with, i64 [full]."""
    numerator, denominator = space.decisions[space.position(width)].fractions
    channels = -(-numerator * full // denominator)
    levels: np.ndarray = np.searchsorted(channels, np.arange(full), side="right")
    return levels


def _column_levels(space: Space, each: _Full) -> np.ndarray:
    """Of each column of a layer's weights: the decision of the width of what it reads and the first
    option with that channel, the decision of the kernel and the first option with that tap; i64
    [4, n_columns]."""
    layer, none = each.layer, len(space.decisions)
    source = space.depths[layer.inputs[0]]
    n_inputs, taps = each.shape[1], math.prod(each.shape[2:])
    found = np.zeros((4, n_inputs, taps), dtype=np.int64)
    found[0], found[2] = none, none
    if layer.kind is not LayerKind.DEPTHWISE and source.width is not None:
        found[0] = space.position(source.width)
        found[1] = _channel_levels(space, source.width, source.full)[:, None]
    if isinstance(layer.kernel, str):
        found[2] = space.position(layer.kernel)
        found[3] = _tap_levels(space, layer, each.shape[2]).flatten()
    return found.reshape(4, -1)


def _tap_levels(space: Space, layer: Layer, largest: int) -> np.ndarray:
    """The first kernel that has each tap of the largest one, i64 [largest, largest].

    Every kernel is where its own padding puts it; one lies within the next.
    """
    options = space.decisions[space.position(layer.kernel)].options  # type: ignore[arg-type]
    levels = np.full((largest, largest), len(options) - 1)
    for option in reversed(range(len(options))):
        kernel = int(options[option])
        top, left = _kernel_place(space, layer, largest, kernel)
        levels[top : top + kernel, left : left + kernel] = option
    return levels


def _kernel_place(space: Space, layer: Layer, largest: int, kernel: int) -> tuple[int, int]:
    """Row and column of the largest kernel where a smaller one begins."""

    def before(size: int, kernel: int) -> int:
        if layer.kind is LayerKind.TRANSPOSE_CONV:
            return _margin(kernel, layer.stride)
        return _padding(size, kernel, layer.stride)[0]

    height, width = space.maps[layer.inputs[0]][0].tolist()
    return (
        before(height, largest) - before(height, kernel),
        before(width, largest) - before(width, kernel),
    )
