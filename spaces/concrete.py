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

from spaces.base import BITWIDTH_MAX, Candidate, Layer, LayerKind, Space
from spaces.structure import Depth

Count = TypeVar("Count", int, np.ndarray)
Pick = Callable[[int], np.ndarray]
"""Option indices of the decision at a position: one index, or an axis of all of them."""

WITH_BIAS = (LayerKind.CONV, LayerKind.DEPTHWISE, LayerKind.TRANSPOSE_CONV, LayerKind.DENSE)
"""Layers that have a bias unless batch norm follows."""


@dataclass(frozen=True, slots=True)
class ConcreteLayer(Generic[Count]):
    """A layer with all its choices made; counts are ints, or i64 arrays over many choices.

    Attributes:
        layer: what it is made from.
        inputs: names of the layers it reads, choices replaced by what is chosen.
        ifm_depth, ofm_depth: channels in and out.
        ofm_height, ofm_width: of its output feature map.
        kernel: height and width of its kernel.
        bitwidth: bits of a non-zero weight; 32 without weights.
        n_weights: kernel positions times channels, zeros included; 0 for layers without weights.
        n_nonzero: weights that the mask keeps.
        n_parameters: weights, and a bias, or scale and shift of batch norm, for each channel.
        macs: multiply-accumulates for one image; zeros count, the NPU multiplies by them too.
    """

    layer: Layer
    inputs: tuple[str, ...]
    ifm_depth: Count
    ofm_depth: Count
    ofm_height: Count
    ofm_width: Count
    kernel: Count
    bitwidth: Count
    n_weights: Count
    n_nonzero: Count
    n_parameters: Count
    macs: Count


def concrete_layers(space: Space, candidate: Candidate) -> tuple[ConcreteLayer[int], ...]:
    """The layers that a candidate has, in the order of `Space.layers`; the last is the output."""
    space.require(candidate)
    indices = [np.asarray(choice) for choice in candidate.choices]
    chosen: dict[str, str] = {}
    found = []
    for layer in space.layers:
        if not space.present[layer.name].at(indices.__getitem__):
            continue
        sources = tuple(chosen[name] for name in layer.inputs if name in chosen)
        if layer.choice is not None:
            option = candidate.choices[space.position(layer.choice)]
            chosen[layer.name] = chosen[layer.inputs[option]]
            continue
        chosen[layer.name] = layer.name
        many = concrete_layer(space, layer, indices.__getitem__)
        found.append(
            ConcreteLayer(
                layer=layer,
                inputs=sources,
                ifm_depth=int(many.ifm_depth),
                ofm_depth=int(many.ofm_depth),
                ofm_height=int(many.ofm_height),
                ofm_width=int(many.ofm_width),
                kernel=int(many.kernel),
                bitwidth=int(many.bitwidth),
                n_weights=int(many.n_weights),
                n_nonzero=int(many.n_nonzero),
                n_parameters=int(many.n_parameters),
                macs=int(many.macs),
            )
        )
    return tuple(found)


def concrete_layer(space: Space, layer: Layer, pick: Pick) -> ConcreteLayer[np.ndarray]:
    """One layer under the options that `pick` gives; arrays broadcast against each other.

    It is as if it were there, whatever the choices; `Space.present` says when it is.
    """
    ofm_depth = _channels(space, space.depths[layer.name], pick)
    ifm_depth = ofm_depth
    if layer.inputs:
        ifm_depth = _channels(space, space.depths[layer.inputs[0]], pick)
    kernel = np.asarray(layer.kernel)
    if isinstance(layer.kernel, str):
        kernel = _option(space, layer.kernel, pick)
    height, width = _map(space, layer.name, pick)
    n_weights, macs = _weights_and_macs(space, layer, ifm_depth, ofm_depth, kernel, pick)
    n_nonzero, bitwidth = n_weights, np.asarray(BITWIDTH_MAX)
    if layer.sparsity:
        n_nonzero = _scaled(space, layer.sparsity, pick, n_weights)
    if layer.bitwidth:
        bitwidth = _option(space, layer.bitwidth, pick)
    per_channel = 2 if layer.norm else int(layer.bias and layer.kind in WITH_BIAS)
    return ConcreteLayer(
        layer=layer,
        inputs=layer.inputs,
        ifm_depth=ifm_depth,
        ofm_depth=ofm_depth,
        ofm_height=height,
        ofm_width=width,
        kernel=kernel,
        bitwidth=bitwidth,
        n_weights=n_weights,
        n_nonzero=n_nonzero,
        n_parameters=n_weights + per_channel * ofm_depth,
        macs=macs,
    )


def describe(space: Space, candidate: Candidate) -> str:
    """A candidate as text, one line a layer."""
    lines = []
    found = concrete_layers(space, candidate)
    wide = max(10, *(len(each.layer.name) for each in found))
    for each in found:
        layer = each.layer
        kind = layer.kind if layer.given is None else layer.given.operator.lower()
        ifm_depth = each.ifm_depth if layer.given is None else layer.given.ifm_depth
        shape = f"{each.ofm_height}x{each.ofm_width}x{each.ofm_depth}"
        line = f"{layer.name:<{wide}} {kind:<12} {ifm_depth:>4} -> {shape:<11}"
        if each.n_weights:
            if layer.given is None:
                line += f" {each.kernel}x{each.kernel}/{layer.stride} "
            line += f" {each.bitwidth:>2} bit  {each.n_nonzero} of {each.n_weights} weights"
        lines.append(line.rstrip())
    return "\n".join(lines)


def _weights_and_macs(
    space: Space,
    layer: Layer,
    ifm_depth: np.ndarray,
    ofm_depth: np.ndarray,
    kernel: np.ndarray,
    pick: Pick,
) -> tuple[np.ndarray, np.ndarray]:
    if layer.given is not None:
        return np.asarray(layer.given.n_weights), np.asarray(layer.given.macs)
    if layer.kind not in WITH_BIAS:
        return np.asarray(0), np.asarray(0)
    n_weights = ofm_depth * kernel**2
    if layer.kind is not LayerKind.DEPTHWISE:
        n_weights = n_weights * ifm_depth
    transposed = layer.kind is LayerKind.TRANSPOSE_CONV
    height, width = _map(space, layer.inputs[0] if transposed else layer.name, pick)
    return n_weights, n_weights * (height * width)


def _map(space: Space, name: str, pick: Pick) -> tuple[np.ndarray, np.ndarray]:
    resolution = space.layers[0].resolution
    at = np.asarray(0) if resolution is None else pick(space.position(resolution))
    sizes = space.maps[name]
    return sizes[at, 0], sizes[at, 1]


def _channels(space: Space, depth: Depth, pick: Pick) -> np.ndarray:
    full = np.asarray(depth.full)
    return full if depth.width is None else _scaled(space, depth.width, pick, full)


def _option(space: Space, decision: str, pick: Pick) -> np.ndarray:
    position = space.position(decision)
    options = np.array(space.decisions[position].options, dtype=np.int64)
    chosen: np.ndarray = options[pick(position)]
    return chosen


def _scaled(space: Space, decision: str, pick: Pick, count: np.ndarray) -> np.ndarray:
    """``ceil(option * count)``, exact: options are fractions here."""
    position = space.position(decision)
    numerator, denominator = space.decisions[position].fractions
    index = pick(position)
    scaled: np.ndarray = -(-numerator[index] * count // denominator[index])
    return scaled
