# SPDX-License-Identifier: Apache-2.0
"""A candidate as a network of shapes, and as what an NPU executes: what the cost model takes.

Weights are there as shapes alone, parts of one array of zeros. What they take in flash is known
from their bitwidth and sparsity, cycles and memory from the shapes.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Final

import numpy as np

from npusim.cost.lowering import program
from npusim.cost.program import NpuOp, Program
from npusim.network import Network
from spaces.assemble import Grid, Weights, assemble, weights_shape
from spaces.base import Candidate, Space
from spaces.concrete import ConcreteLayer, concrete_layers
from spaces.costs import size_bits

SCALE: Final = 0.05
"""Of every feature map and all weights: shapes do not depend on it."""


@dataclass(frozen=True, slots=True, eq=False)
class Lowered:
    """A candidate as the cost model sees it.

    Attributes:
        network: operations and shapes, every weight zero.
        program: what the NPU executes; the weights' values are not known.
        weight_bits: compressed size of the weights, by the name of the network's operation; see
            `spaces.costs.size_bits`.
    """

    network: Network
    program: Program
    weight_bits: Mapping[str, int]


def lower(space: Space, candidate: Candidate) -> Lowered:
    """A candidate's network, program and the size of its weights.

    Raises:
        ConfigError: `candidate` is of another space, or of one made from a network, which is to be
            lowered itself.
    """
    found = concrete_layers(space, candidate)
    network = assemble(space.name, found, _Shapes(found))
    weight_bits = {each.layer.name: _size_bits(each) for each in found if each.n_weights}
    lowered = program(network)
    ops = tuple(_without_values(op, set(weight_bits)) for op in lowered.ops)
    return Lowered(network, replace(lowered, ops=ops), weight_bits)


def _size_bits(each: ConcreteLayer[int]) -> int:
    counts = {name: np.asarray(getattr(each, name)) for name in ("n_weights", "n_nonzero")}
    many = replace(each, bitwidth=np.asarray(each.bitwidth), **counts)  # type: ignore[arg-type]
    return int(size_bits(many))  # type: ignore[arg-type]


def _without_values(op: NpuOp, ours: set[str]) -> NpuOp:
    if op.weights is None or op.source is None or op.source.name not in ours:
        return op
    return replace(op, weights=replace(op.weights, ohwi=None))


class _Shapes:
    """Values where shapes matter alone: zeros, and one grid for all."""

    def __init__(self, found: tuple[ConcreteLayer[int], ...]):
        most = max(each.n_weights + each.ofm_depth for each in found)  # a norm has one a channel
        self.zeros = np.zeros(most, np.int8)
        self.zeros.flags.writeable = False

    def grid(self, name: str) -> Grid:
        """The same for all."""
        return Grid(SCALE, 0)

    def grid_before(self, name: str) -> Grid:
        """The same for all."""
        return Grid(SCALE, 0)

    def weights(self, each: ConcreteLayer[int], ifm: Grid) -> Weights:
        """Zeros, parts of one array."""
        shape = weights_shape(each)
        zeros = self.zeros[: math.prod(shape)].reshape(shape)
        return Weights(zeros, SCALE, np.zeros(each.ofm_depth, np.int64))

    def slopes(self, each: ConcreteLayer[int]) -> tuple[np.ndarray, float]:
        """Ones."""
        return np.ones((1, 1, each.ofm_depth), np.int8), SCALE
