# SPDX-License-Identifier: Apache-2.0
"""The one place where options become integers: channels, weights, non-zeros of each layer.

Everything that needs to know what a candidate really is reads it from here: its cost, its torch
model, its drawing. The rules work on whole arrays of options as well as on one candidate, so that
`spaces.costs` can tabulate a layer for all options of its decisions with the same lines of code.

Counts are rounded up: ``ceil(rho * C)`` channels and ``ceil(s * n)`` non-zero weights, in exact
arithmetic. No option can empty a layer, and none can be smaller than what is really built.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Generic, TypeVar

import numpy as np

from spaces.base import BITWIDTH_MAX, WEIGHTED, Candidate, Layer, LayerKind, Space

Count = TypeVar("Count", int, np.ndarray)
Pick = Callable[[int], np.ndarray]
"""Option indices of the decision at a position: one index, or an axis of all of them."""


@dataclass(frozen=True, slots=True)
class ConcreteLayer(Generic[Count]):
    """A layer with all its choices made; counts are ints, or i64 arrays over many choices.

    Attributes:
        ifm_depth, ofm_depth: channels in and out.
        ofm_height, ofm_width: of its output feature map.
        bitwidth: bits of a non-zero weight; 32 without weights.
        n_weights: kernel positions times channels, zeros included; 0 for layers without weights.
        n_nonzero: weights that the mask keeps.
    """

    layer: Layer
    ifm_depth: Count
    ofm_depth: Count
    ofm_height: int
    ofm_width: int
    bitwidth: Count
    n_weights: Count
    n_nonzero: Count

    @property
    def macs(self) -> Count:
        """Multiply-accumulates for one image; zeros count, the NPU multiplies by them too."""
        return self.n_weights * (self.ofm_height * self.ofm_width)


def concrete_layers(space: Space, candidate: Candidate) -> tuple[ConcreteLayer[int], ...]:
    """All layers of a candidate, in the order of `Space.layers`."""
    space.require(candidate)
    indices = [np.asarray(choice) for choice in candidate.choices]
    found = []
    for layer in space.layers:
        many = concrete_layer(space, layer, lambda position: indices[position])
        found.append(
            ConcreteLayer(
                layer=layer,
                ifm_depth=int(many.ifm_depth),
                ofm_depth=int(many.ofm_depth),
                ofm_height=many.ofm_height,
                ofm_width=many.ofm_width,
                bitwidth=int(many.bitwidth),
                n_weights=int(many.n_weights),
                n_nonzero=int(many.n_nonzero),
            )
        )
    return tuple(found)


def concrete_layer(space: Space, layer: Layer, pick: Pick) -> ConcreteLayer[np.ndarray]:
    """One layer under the options that `pick` gives; arrays broadcast against each other."""
    ifm_depth = ofm_depth = _ofm_depth(space, layer, pick)
    if layer.inputs:
        ifm_depth = _ofm_depth(space, _source(space, layer), pick)
    n_weights = n_nonzero = np.asarray(0)
    bitwidth = np.asarray(BITWIDTH_MAX)
    if layer.kind in WEIGHTED:
        n_weights = n_nonzero = ifm_depth * ofm_depth * layer.kernel**2
        if layer.sparsity:
            n_nonzero = _scaled(space, layer.sparsity, pick, n_weights)
        if layer.bitwidth:
            position = space.position(layer.bitwidth)
            bitwidth = np.array(space.decisions[position].options)[pick(position)]
    height, width = _ofm_hw(space, layer)
    return ConcreteLayer(layer, ifm_depth, ofm_depth, height, width, bitwidth, n_weights, n_nonzero)


def scope(space: Space, layer: Layer) -> tuple[int, ...]:
    """Positions of the decisions that a layer's integers depend on: its own and its input's width.

    Rising; empty for a layer that is the same in all candidates.
    """
    positions = {space.position(name) for name in layer.decisions.values()}
    source: Layer | None = layer
    while source is not None and source.inputs:
        source = _source(space, source)
        if source.kind in WEIGHTED:
            if source.width:
                positions.add(space.position(source.width))
            break
    return tuple(sorted(positions))


def describe(space: Space, candidate: Candidate) -> str:
    """A candidate as text, one line a layer."""
    lines = []
    for found in concrete_layers(space, candidate):
        layer = found.layer
        line = f"{layer.name:<10} {layer.kind:<12} {found.ifm_depth:>4} -> {found.ofm_depth:<4}"
        if found.n_weights:
            line += (
                f" {layer.kernel}x{layer.kernel}/{layer.stride}  {found.bitwidth:>2} bit  "
                f"{found.n_nonzero} of {found.n_weights} weights"
            )
        lines.append(line.rstrip())
    return "\n".join(lines)


def _source(space: Space, layer: Layer) -> Layer:
    return next(other for other in space.layers if other.name == layer.inputs[0])


def _ofm_depth(space: Space, layer: Layer, pick: Pick) -> np.ndarray:
    if layer.kind is LayerKind.INPUT:
        return np.asarray(space.image_shape[2])
    if layer.kind is LayerKind.GLOBAL_POOL:
        return _ofm_depth(space, _source(space, layer), pick)
    full = np.asarray(layer.ofm_depth)
    return full if layer.width is None else _scaled(space, layer.width, pick, full)


def _scaled(space: Space, decision: str, pick: Pick, count: np.ndarray) -> np.ndarray:
    """``ceil(option * count)``, exact: options are fractions here."""
    position = space.position(decision)
    numerator, denominator = space.decisions[position].fractions
    index = pick(position)
    scaled: np.ndarray = -(-numerator[index] * count // denominator[index])
    return scaled


def _ofm_hw(space: Space, layer: Layer) -> tuple[int, int]:
    if layer.kind is LayerKind.INPUT:
        return space.image_shape[0], space.image_shape[1]
    height, width = _ofm_hw(space, _source(space, layer))
    if layer.kind is LayerKind.GLOBAL_POOL:
        return 1, 1
    return -(-height // layer.stride), -(-width // layer.stride)
