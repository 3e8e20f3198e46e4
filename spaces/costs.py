# SPDX-License-Identifier: Apache-2.0
"""What candidates cost before they are trained: exact integers, for one or for many at once.

Every measure is a sum over layers, and what a layer costs depends on a few decisions only. So each
layer has a table of all the costs it can have, made once; the cost of a candidate is one look-up a
layer. `spaces.feasible` counts and samples with the same tables.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from npusim.errors import ConfigError, UnknownNameError
from npusim.weights.measures import mask_aware_bits
from spaces.base import WEIGHTED, Candidate, Space
from spaces.concrete import ConcreteLayer, concrete_layer, scope

ROUNDING_BITS = 1e-6
"""Slack below which a fraction of a bit is a rounding error of the logarithm."""


def size_bits(found: ConcreteLayer[np.ndarray]) -> np.ndarray:
    """Compressed size of layers' weights: ``n * (s*b + H2(s))`` in bits, rounded up to whole ones.

    `n` counts the channels that are left on both sides, and ``s`` is the fraction of non-zeros
    after rounding to whole weights. Biases and batch norm are not counted.

    Source: [UDC] eq. (4).
    Differs: mask-aware (see `npusim.weights.measures.mask_aware_bits`), counts pruned input
    channels out, and uses the integer counts that are built instead of ``rho`` and ``s``.
    """
    bits = found.n_weights * mask_aware_bits(found.bitwidth, found.n_nonzero / found.n_weights)
    return np.ceil(bits - ROUNDING_BITS).astype(np.int64)


def macs(found: ConcreteLayer[np.ndarray]) -> np.ndarray:
    """Multiply-accumulates of layers for one image."""
    return found.macs


MEASURES: dict[str, Callable[[ConcreteLayer[np.ndarray]], np.ndarray]] = {
    "size_bits": size_bits,
    "macs": macs,
}
"""What candidates are measured by, summed over the layers with weights."""


@dataclass(frozen=True, slots=True)
class LayerTable:
    """All costs one layer can have.

    Attributes:
        scope: positions of the decisions that the layer's cost depends on, rising.
        costs: i64, one axis of option indices for each decision of `scope`.
    """

    scope: tuple[int, ...]
    costs: np.ndarray


@lru_cache(maxsize=64)
def layer_tables(space: Space, measure: str) -> tuple[LayerTable, ...]:
    """The cost tables of a space's layers with weights, in their order.

    Raises:
        UnknownNameError: no such measure.
    """
    if measure not in MEASURES:
        raise UnknownNameError("measure", measure, MEASURES)
    tables = []
    for layer in space.layers:
        if layer.kind not in WEIGHTED:
            continue
        positions = scope(space, layer)
        grid = np.ix_(*(np.arange(space.n_options[position]) for position in positions))
        axes = dict(zip(positions, grid, strict=True))
        found = concrete_layer(space, layer, axes.__getitem__)
        shape = tuple(int(space.n_options[position]) for position in positions)
        values = np.broadcast_to(MEASURES[measure](found), shape)
        tables.append(LayerTable(positions, np.ascontiguousarray(values, dtype=np.int64)))
    return tuple(tables)


def costs(space: Space, choices: np.ndarray, measure: str) -> np.ndarray:
    """Costs of many candidates, i64 [n].

    Args:
        choices: option indices, integers [n, n_decisions].
        measure: a name in `MEASURES`.

    Raises:
        ConfigError: `choices` have another shape, are not integers or are out of range.
        UnknownNameError: no such measure.
    """
    choices = np.asarray(choices)
    if choices.ndim != 2 or choices.shape[1] != len(space.decisions) or choices.dtype.kind != "i":
        raise ConfigError(
            f"choices must be integers of shape [n, {len(space.decisions)}], "
            f"got {choices.dtype} {choices.shape}"
        )
    if np.any((choices < 0) | (choices >= space.n_options)):
        raise ConfigError("choices must be indices of options, got one out of range")
    total = np.zeros(len(choices), dtype=np.int64)
    for table in layer_tables(space, measure):
        total += table.costs[tuple(choices[:, position] for position in table.scope)]
    return total


def cost(space: Space, candidate: Candidate, measure: str) -> int:
    """Cost of one candidate; see `costs`."""
    space.require(candidate)
    return sum(
        int(table.costs[tuple(candidate.choices[position] for position in table.scope)])
        for table in layer_tables(space, measure)
    )
