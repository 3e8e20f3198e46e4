# SPDX-License-Identifier: Apache-2.0
"""Drawings of the architecture of candidates, thousands at a time."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from npusim.report.page import Columns, columns_of
from spaces.base import Layer, LayerKind, Space
from spaces.concrete import concrete_layer

_Ints = npt.NDArray[np.int64]
_PERMILLE = 1000
"""Fractions of non-zeros are drawn that finely."""

Rows = list[list[tuple[int, ...]]]
"""Of each drawing and each of its layers, which of each part."""


def drawings(space: Space, choices: npt.ArrayLike) -> tuple[tuple[Columns, ...], Rows]:
    """What `npusim.report.page.Drawings` takes of candidates, for its figure `architecture`.

    Args:
        space: of the candidates.
        choices: canonical choices, shape [n, n_decisions]; see `spaces.base.Candidate`.

    Returns:
        Parts: layers, channels, bits, fractions of non-zeros. And of each candidate, of each layer
        that it has, which of each part.

    >>> import spaces
    >>> space = spaces.get("digits")
    >>> (layers, channels, bits, kept), rows = drawings(space, [space.largest().choices])
    >>> layer, *values = rows[0][1]
    >>> layers["what"][layer], channels["channels"][values[0]], bits["bits"][values[1]]
    ('conv 3×3/2', 16, 8)
    """
    options = np.asarray(choices, dtype=np.int64)
    present, sources = _graph(space, options)
    place_of = np.cumsum(present, axis=1) - 1  # [n, n_layers]
    every = np.arange(len(options))
    layers: list[dict[str, Any]] = []
    values = np.zeros((len(options), len(space.layers), 4), dtype=np.int64)
    for number, layer in enumerate(space.layers):
        found = concrete_layer(space, layer, lambda at: options[:, at])
        weights = np.maximum(found.n_weights, 1)
        bits = np.where(found.n_weights > 0, found.bitwidth, -1)
        kept = np.where(found.n_weights > 0, _PERMILLE * found.n_nonzero // weights, -1)
        skips = [place_of[:, number] - place_of[every, source] for source in sources[number]]
        shape = np.stack(
            [
                np.broadcast_to(each, len(options))
                for each in (found.ofm_height, found.ofm_width, found.kernel, *skips)
            ],
            axis=1,
        )
        here = np.flatnonzero(present[:, number])
        different, which = np.unique(shape[here], axis=0, return_inverse=True)
        values[here, number, 0] = len(layers) + which.reshape(-1)
        layers += [_layer(layer, row) for row in different.tolist()]
        for column, count in enumerate((found.ofm_depth, bits, kept), start=1):
            values[:, number, column] = count
    parts: list[Columns] = [columns_of(layers)]
    for column, name in enumerate(("channels", "bits", "kept_fraction"), start=1):
        known, which = np.unique(values[:, :, column], return_inverse=True)
        values[:, :, column] = which.reshape(present.shape)
        numbers = [None if one < 0 else one for one in known.tolist()]
        if name == "kept_fraction":
            numbers = [None if one is None else one / _PERMILLE for one in numbers]
        parts.append({name: numbers})
    rows = [
        list(map(tuple, own[there].tolist())) for own, there in zip(values, present, strict=True)
    ]
    return tuple(parts), rows


def _graph(space: Space, options: _Ints) -> tuple[npt.NDArray[np.bool_], list[list[_Ints]]]:
    """Which layers candidates have, [n, n_layers], and of each layer the numbers of its inputs.

    A choice is not a layer: what is chosen stands for it.
    """
    present = np.zeros((len(options), len(space.layers)), dtype=bool)
    stands_for: dict[str, _Ints] = {}
    sources: list[list[_Ints]] = []
    for number, layer in enumerate(space.layers):
        inputs = [stands_for[name] for name in layer.inputs]
        if layer.choice is None:
            present[:, number] = space.present[layer.name].at(lambda at: options[:, at])
            stands_for[layer.name] = np.full(len(options), number)
        else:
            option = options[:, space.position(layer.choice)]
            stands_for[layer.name] = np.stack(inputs)[option, np.arange(len(options))]
        sources.append(inputs)
    return present, sources


def _layer(layer: Layer, shape: list[int]) -> dict[str, Any]:
    height, width, kernel, *skips = shape
    kind = str(layer.kind) if layer.given is None else layer.given.operator.lower()
    step = f"/{layer.stride}" if layer.stride > 1 else ""
    windowed = layer.kind in (LayerKind.CONV, LayerKind.DEPTHWISE, LayerKind.TRANSPOSE_CONV)
    return {
        "layer": layer.name,
        "what": kind.replace("_", " ") + (f" {kernel}×{kernel}{step}" if windowed else ""),
        "map": f"{height}×{width}",
        "skips": [skip for skip in skips if skip > 1],
    }
