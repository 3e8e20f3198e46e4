# SPDX-License-Identifier: Apache-2.0
"""What a space's graph says about each layer: its depth, its map, and when it is there at all."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np

from npusim.errors import ConfigError
from spaces.layers import DEEPENING, DecisionVariable, Layer, LayerKind
from spaces.tables import Table, combine, constant

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Depth:
    """Channels of a feature map.

    Attributes:
        full: how many at full width.
        width: name of the decision how many of them there are, or None for all.
    """

    full: int
    width: str | None = None

    def __str__(self) -> str:
        return f"{self.full} of width {self.width!r}" if self.width else str(self.full)


def depths(layers: Sequence[Layer], image_depth: int) -> dict[str, Depth]:
    """Depth of each layer's ofm, by name.

    Raises:
        ConfigError: inputs of a sum or a choice have different depths in some candidate, or there
            are not enough channels to become pixels.
    """
    found: dict[str, Depth] = {}
    for layer in layers:
        if layer.kind is LayerKind.INPUT:
            found[layer.name] = Depth(image_depth)
        elif layer.given is not None:
            found[layer.name] = Depth(layer.given.ofm_shape[2])
        elif layer.kind in DEEPENING:
            found[layer.name] = Depth(layer.ofm_depth, layer.width)
        elif layer.kind is LayerKind.DEPTH_TO_SPACE:
            source = found[layer.inputs[0]]
            if source.width is not None or source.full % layer.stride**2:
                raise ConfigError(
                    f"depth that layer {layer.name!r} reads must be a multiple of "
                    f"{layer.stride**2} in every candidate, got {source}"
                )
            found[layer.name] = Depth(source.full // layer.stride**2)
        else:
            found[layer.name] = _common("depth", layer, [found[name] for name in layer.inputs])
    return found


def maps(
    layers: Sequence[Layer], image_hw: tuple[int, int], resolutions: Sequence[int]
) -> dict[str, np.ndarray]:
    """Height and width of each layer's ofm, by name, i64 [n_resolutions, 2].

    Args:
        layers: of the space.
        image_hw: height and width of the image where no decision says them.
        resolutions: options of the decision that does, if there is one.

    Raises:
        ConfigError: inputs of a sum or a choice have maps of different size, or a dense layer has
            one that is not 1x1.
    """
    found: dict[str, np.ndarray] = {}
    for layer in layers:
        sources = [found[name] for name in layer.inputs]
        if layer.kind is LayerKind.INPUT:
            sides = [(side, side) for side in resolutions] if layer.resolution else [image_hw]
            found[layer.name] = np.array(sides, dtype=np.int64)
        elif layer.given is not None:
            found[layer.name] = np.tile(layer.given.ofm_shape[:2], (len(sources[0]), 1))
        elif layer.kind is LayerKind.GLOBAL_POOL:
            found[layer.name] = np.ones_like(sources[0])
        elif layer.kind in (LayerKind.TRANSPOSE_CONV, LayerKind.DEPTH_TO_SPACE):
            found[layer.name] = sources[0] * layer.stride
        elif layer.kind in (LayerKind.ADD, LayerKind.CHOICE):
            shapes = [tuple(map(tuple, source.tolist())) for source in sources]
            _common("height and width", layer, shapes)
            found[layer.name] = sources[0]
        else:
            found[layer.name] = -(-sources[0] // layer.stride)
        if layer.kind is LayerKind.DENSE and (sources[0] != 1).any():
            raise ConfigError(
                f"input of dense layer {layer.name!r} must be a 1x1 map, got {layer.inputs[0]!r}"
            )
    return found


def _common(what: str, layer: Layer, values: Sequence[T]) -> T:
    if any(value != values[0] for value in values):
        seen = ", ".join(str(value) for value in dict.fromkeys(values))
        raise ConfigError(f"inputs of layer {layer.name!r} must have one {what}, got {seen}")
    return values[0]


def presence(layers: Sequence[Layer], decisions: Sequence[DecisionVariable]) -> dict[str, Table]:
    """Whether each layer is there, by name: bool tables over the decisions of choices.

    A layer is there if the output needs it: a choice needs only the input that is chosen.
    """
    positions = {decision.name: i for i, decision in enumerate(decisions)}
    found = {layer.name: constant(False) for layer in layers}
    found[layers[-1].name] = constant(True)
    for layer in reversed(layers):
        needed = found[layer.name] = found[layer.name].reduced()
        for option, source in enumerate(layer.inputs):
            edge = needed
            if layer.choice is not None:
                position = positions[layer.choice]
                options = np.arange(len(decisions[position].options))
                chosen = Table((position,), options == option)
                edge = combine(np.logical_and, needed, chosen)
            found[source] = combine(np.logical_or, found[source], edge)
    return found


def conditions(
    layers: Sequence[Layer], decisions: Sequence[DecisionVariable], present: Mapping[str, Table]
) -> dict[int, Table]:
    """When decisions have an effect, by position: bool tables; without those that always do.

    A decision has one if a layer that names it is there.
    """
    found = {decision.name: constant(False) for decision in decisions}
    for layer in layers:
        for name in layer.decisions.values():
            found[name] = combine(np.logical_or, found[name], present[layer.name]).reduced()
    return {
        position: found[decision.name]
        for position, decision in enumerate(decisions)
        if found[decision.name].scope
    }
