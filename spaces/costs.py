# SPDX-License-Identifier: Apache-2.0
"""What candidates cost before they are trained: exact integers, for one or for many at once.

Every measure is a sum over layers, and what a layer costs depends on a few decisions only. So each
layer has a table of all the costs it can have, made once; the cost of a candidate is one look-up a
layer. `spaces.feasible` counts and samples with the same tables.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from npusim.errors import ConfigError, UnknownNameError
from npusim.weights.measures import mask_aware_bits
from spaces.base import Candidate, Layer, Space
from spaces.concrete import ConcreteLayer, Pick, concrete_layer
from spaces.tables import Table, tabulate

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
    fraction = found.n_nonzero / np.maximum(found.n_weights, 1)
    bits = found.n_weights * mask_aware_bits(found.bitwidth, fraction)
    return np.ceil(bits - ROUNDING_BITS).astype(np.int64)


def macs(found: ConcreteLayer[np.ndarray]) -> np.ndarray:
    """Multiply-accumulates of layers for one image."""
    return found.macs


def n_parameters(found: ConcreteLayer[np.ndarray]) -> np.ndarray:
    """Numbers that training finds: weights, zeros included, biases, batch norm."""
    return found.n_parameters


MEASURES: dict[str, Callable[[ConcreteLayer[np.ndarray]], np.ndarray]] = {
    "size_bits": size_bits,
    "macs": macs,
    "n_parameters": n_parameters,
}
"""What candidates are measured by, summed over the layers that they have."""


@lru_cache(maxsize=64)
def layer_tables(space: Space, measure: str) -> tuple[tuple[Layer, Table], ...]:
    """The i64 cost tables of a space's layers, in their order; without layers that cost nothing.

    A table has the decisions that matter to the cost, the choice to leave the layer out among them.

    Raises:
        UnknownNameError: no such measure.
        TooEntangledError: a layer's cost depends on too many decisions.
    """
    if measure not in MEASURES:
        raise UnknownNameError("measure", measure, MEASURES)
    tables = []
    for layer in space.layers:

        def cost_of(pick: Pick, layer: Layer = layer) -> np.ndarray:
            concrete = MEASURES[measure](concrete_layer(space, layer, pick))
            found: np.ndarray = concrete * space.present[layer.name].at(pick)
            return found

        table = tabulate(cost_of, space.n_options)
        if table.values.any():
            tables.append((layer, table))
    return tuple(tables)


@dataclass(frozen=True, slots=True, eq=False)
class _Flat:
    """All tables of a space as the arrays that `spaces.costs_kernels.sum_tables` takes."""

    first: np.ndarray
    positions: np.ndarray
    strides: np.ndarray
    starts: np.ndarray
    values: np.ndarray
    n_options_max: int


@lru_cache(maxsize=64)
def _flat(space: Space, measure: str) -> _Flat:
    tables = [table for _, table in layer_tables(space, measure)]
    scopes = [table.scope for table in tables]
    strides = [
        stride // table.values.itemsize for table in tables for stride in table.values.strides
    ]
    sizes = [table.values.size for table in tables]
    return _Flat(
        first=np.cumsum([0, *map(len, scopes)], dtype=np.int64),
        positions=np.array([p for scope in scopes for p in scope], dtype=np.int64),
        strides=np.array(strides, dtype=np.int64),
        starts=np.cumsum([0, *sizes], dtype=np.int64)[:-1],
        values=np.concatenate([np.zeros(0, np.int64), *(t.values.ravel() for t in tables)]),
        n_options_max=int(space.n_options.max(initial=1)),
    )


def costs(space: Space, choices: np.ndarray, measure: str) -> np.ndarray:
    """Costs of many candidates, i64 [n].

    Args:
        choices: option indices, integers [n, n_decisions]; those without effect do not matter.
        measure: a name in `MEASURES`.

    Raises:
        ConfigError: `choices` have another shape, are not integers or are out of range.
        UnknownNameError: no such measure.
    """
    from spaces.costs_kernels import sum_tables

    choices = np.asarray(choices)
    if choices.ndim != 2 or choices.shape[1] != len(space.decisions) or choices.dtype.kind != "i":
        raise ConfigError(
            f"choices must be integers of shape [n, {len(space.decisions)}], "
            f"got {choices.dtype} {choices.shape}"
        )
    flat = _flat(space, measure)
    rows = np.require(choices, np.int64, ("C", "W"))
    totals = np.zeros(len(rows), dtype=np.int64)
    bad = sum_tables(
        rows,
        space.n_options,
        flat.first,
        flat.positions,
        flat.strides,
        flat.starts,
        flat.values,
        totals,
    )
    if bad >= 0:
        raise ConfigError(f"choices must be indices of options, got one out of range in row {bad}")
    return totals


def change_costs(space: Space, choices: Sequence[int], measure: str) -> np.ndarray:
    """Costs of all candidates that differ from one in one decision.

    Args:
        space: what the candidate is of.
        choices: its option indices, in range.
        measure: a name in `MEASURES`.

    Returns:
        i64 [n_decisions, n_options_max]: the cost if the decision had the option; the candidate's
        own where that is what it has, -1 where the decision has no such option.

    Raises:
        UnknownNameError: no such measure.
    """
    from spaces.costs_kernels import sum_changes

    flat = _flat(space, measure)
    totals = np.empty((len(choices), flat.n_options_max), dtype=np.int64)
    sum_changes(
        np.array(choices, dtype=np.int64),
        space.n_options,
        flat.first,
        flat.positions,
        flat.strides,
        flat.starts,
        flat.values,
        totals,
    )
    return totals


def cost(space: Space, candidate: Candidate, measure: str) -> int:
    """Cost of one candidate; see `costs`."""
    space.require(candidate)
    return int(costs(space, np.array([candidate.choices], dtype=np.int64), measure)[0])
