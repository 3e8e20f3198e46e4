# SPDX-License-Identifier: Apache-2.0
"""Layers at their fullest: the weights that all candidates share, and which options reach which.

A supernet's layer has the weights of its widest candidate and of its largest kernel; each narrower
one has the first of its channels, each smaller kernel the middle of its taps.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from npusim.errors import ConfigError
from spaces.base import Layer, LayerKind, Space
from spaces.concrete import ConcreteLayer, concrete_layer


@dataclass(frozen=True, slots=True)
class Full:
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


def at_its_largest(space: Space, layer: Layer) -> ConcreteLayer[int]:
    """A layer at the last option of every decision, as if it were there."""
    many = concrete_layer(space, layer, lambda position: space.n_options[position] - 1)
    counts = {
        name: int(getattr(many, name))
        for name in ConcreteLayer.__slots__
        if name not in ("layer", "inputs")
    }
    return ConcreteLayer(layer=layer, inputs=layer.inputs, **counts)


def full_layer(space: Space, layer: Layer) -> Full:
    """A layer with weights at its fullest.

    Raises:
        ConfigError: its weights are given and not to be trained.
    """
    if layer.given is not None:
        raise ConfigError(
            f"space {space.name!r} must be of layers that can be trained, got {layer.name!r} of a "
            f"network that is there already"
        )
    found = at_its_largest(space, layer)
    ifm_depth = space.depths[layer.inputs[0]].full
    ofm_depth = space.depths[layer.name].full
    if layer.kind is LayerKind.DENSE:
        return Full(layer, (ofm_depth, ifm_depth))
    kernel = (found.kernel, found.kernel)
    if layer.kind is LayerKind.TRANSPOSE_CONV:
        shape = (ofm_depth, ifm_depth, *kernel)
        return Full(layer, shape, margin=margin_of(found.kernel, layer.stride))
    inputs = 1 if layer.kind is LayerKind.DEPTHWISE else ifm_depth
    height, width = space.maps[layer.inputs[0]][0].tolist()
    top, bottom = padding(height, found.kernel, layer.stride)
    left, right = padding(width, found.kernel, layer.stride)
    more = (bottom - top, right - left)
    return Full(layer, (ofm_depth, inputs, *kernel), (top, left), more)


def padding(size: int, kernel: int, stride: int) -> tuple[int, int]:
    """TFLite's "same": before and after."""
    total = max((-(-size // stride) - 1) * stride + kernel - size, 0)
    return total // 2, total - total // 2


def margin_of(kernel: int, stride: int) -> int:
    """What "same" cuts off before a transpose convolution."""
    return max(kernel - stride, 0) // 2


def offered_bitwidths(space: Space) -> list[tuple[int, ...]]:
    """The options of each bitwidth decision."""
    names = {layer.bitwidth for layer in space.layers if layer.bitwidth}
    return [space.decisions[space.position(name)].options for name in sorted(names)]  # type: ignore[misc]


def weight_places(full: list[Full]) -> np.ndarray:
    """See `searchers.udc.assemble.Layout.layers`."""
    n = np.array([math.prod(each.shape) for each in full], dtype=np.int64)
    columns = np.array([math.prod(each.shape[1:]) for each in full], dtype=np.int64)
    return np.stack([np.cumsum(n) - n, n, columns, np.cumsum(columns) - columns], 1)


def n_nonzero(space: Space, each: Full) -> np.ndarray:
    """Weights that each sparsity keeps, i64 [n_options]; all of them without that decision."""
    n = math.prod(each.shape)
    if each.layer.sparsity is None:
        return np.array([n])
    numerator, denominator = space.decisions[space.position(each.layer.sparsity)].fractions
    return -(-numerator * n // denominator)


def channel_levels(space: Space, width: str, full: int) -> np.ndarray:
    """The first option of a width that each channel is there with, i64 [full]."""
    numerator, denominator = space.decisions[space.position(width)].fractions
    channels = -(-numerator * full // denominator)
    levels: np.ndarray = np.searchsorted(channels, np.arange(full), side="right")
    return levels


def column_levels(space: Space, each: Full) -> np.ndarray:
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
        found[1] = channel_levels(space, source.width, source.full)[:, None]
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
        top, left = kernel_place(space, layer, largest, kernel)
        levels[top : top + kernel, left : left + kernel] = option
    return levels


def kernel_place(space: Space, layer: Layer, largest: int, kernel: int) -> tuple[int, int]:
    """Row and column of the largest kernel where a smaller one begins."""

    def before(size: int, kernel: int) -> int:
        if layer.kind is LayerKind.TRANSPOSE_CONV:
            return margin_of(kernel, layer.stride)
        return padding(size, kernel, layer.stride)[0]

    height, width = space.maps[layer.inputs[0]][0].tolist()
    return (
        before(height, largest) - before(height, kernel),
        before(width, largest) - before(width, kernel),
    )


def parts(space: Space) -> list[tuple[Layer, ...]]:
    """All layers but the input, in order; those inside one operator of a choice are one part.

    No layer but a part's last one is read by another part.
    """
    readers: dict[str, set[str]] = {layer.name: set() for layer in space.layers}
    for layer in space.layers:
        for name in layer.inputs:
            readers[name].add(layer.name)
    last_of: dict[str, str] = {}  # of the part that a layer is in
    for choice in reversed([each for each in space.layers if each.kind is LayerKind.CHOICE]):
        for last in choice.inputs:
            inside: set[str] = set()
            for layer in reversed(space.layers[1:]):
                ends = layer.name == last and readers[last] == {choice.name}
                leads = bool(readers[layer.name]) and readers[layer.name] <= inside
                if (ends or leads) and layer.name not in last_of:
                    inside.add(layer.name)
                    last_of[layer.name] = last
    found: dict[str, list[Layer]] = {}
    for layer in space.layers[1:]:
        found.setdefault(last_of.get(layer.name, layer.name), []).append(layer)
    return [tuple(found[layer.name]) for layer in space.layers[1:] if layer.name in found]
