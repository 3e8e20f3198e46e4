# SPDX-License-Identifier: Apache-2.0
"""Golden vectors for hardware: weights and their streams, as files that a test bench reads."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np

from npusim._files import write_whole
from npusim.errors import ConfigError
from npusim.schemes.base import Scheme, Values

SEED: Final = 20260101
"""Of the random vectors: they never change."""


@dataclass(frozen=True, slots=True)
class Vector:
    """Weights and the stream they are encoded to.

    Attributes:
        name: of the case, fit for a file name.
        weights: int16, shape [n_weights].
        stream: as `Scheme.encode` gives it.
    """

    name: str
    weights: Values
    stream: bytes


def golden_vectors(scheme: Scheme) -> list[Vector]:
    """Cases at the limits of a scheme and of every sparsity; always the same.

    >>> from npusim import schemes
    >>> [vector.name for vector in golden_vectors(schemes.get("raw"))][:4]
    ['empty', 'zero', 'least', 'greatest']
    """
    low, high = scheme.value_range
    rng = np.random.default_rng(SEED)
    cases: dict[str, Sequence[int]] = {
        "empty": [],
        "zero": [0],
        "least": [low],
        "greatest": [high],
        "zeros": [0] * 1000,
        "every_value": range(low, high + 1),
        "long_run": [high, *[0] * 700, low],
        "zeros_at_end": [1, -1, *[0] * 99],
    }
    for percent in (0, 50, 75, 90, 99):
        drawn = np.rint(rng.laplace(0, high / 12, 1000)).clip(low, high).astype(int)
        cases[f"laplace_{percent}_percent_zeros"] = np.where(
            rng.random(1000) < percent / 100, 0, drawn
        ).tolist()
    vectors = []
    for name, values in cases.items():
        weights = scheme.conditioned(list(values))
        vectors.append(Vector(name, weights, scheme.encode(weights)))
    return vectors


def write_vectors(scheme: Scheme, folder: str) -> list[str]:
    """Write a scheme's golden vectors into a folder, which is made if need be.

    For each: ``NAME.json`` with ``scheme``, ``parameters``, ``n_weights``, ``n_bytes``,
    ``weights`` and ``stream`` (hex), and for ``$readmemh`` ``NAME.stream.hex``, a byte a line, and
    ``NAME.weights.hex``, 16 bits in two's complement a line.

    Returns:
        Paths of the JSON files.

    Raises:
        ConfigError: the folder or a file cannot be written.
    """
    target = Path(folder)
    try:
        target.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(
            f"--out must be a folder that can be written, got {folder!r} ({error.strerror})"
        ) from None
    paths = []
    for vector in golden_vectors(scheme):
        record = {
            "scheme": scheme.name,
            "parameters": scheme.parameters,
            "n_weights": int(vector.weights.size),
            "n_bytes": len(vector.stream),
            "weights": vector.weights.tolist(),
            "stream": vector.stream.hex(),
        }
        lines = [f"{byte:02x}" for byte in vector.stream]
        words = [f"{weight & 0xFFFF:04x}" for weight in vector.weights.tolist()]
        texts = {
            "json": json.dumps(record) + "\n",
            "stream.hex": "".join(f"{line}\n" for line in lines),
            "weights.hex": "".join(f"{word}\n" for word in words),
        }
        for ending, text in texts.items():
            path = str(target / f"{vector.name}.{ending}")
            write_whole("--out", path, _writer(text))
            paths += [path] if ending == "json" else []
    return paths


def _writer(text: str) -> Callable[[Path], object]:
    return lambda path: path.write_text(text, encoding="utf-8")
