# SPDX-License-Identifier: Apache-2.0
"""The SqueezeNet that Deep Compression's authors published, as its file has it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

PLAIN = {"index_bits": 4, "huffman": False}
"""Parameters of ``deep-compression`` that make the file's format."""
COUNT_BYTES = 4
"""Before our entries; the file has all counts together at its beginning."""
N_LAYERS = 26
CODEBOOK_BYTES = 4 * 256


def shapes() -> Iterator[tuple[int, ...]]:
    """Convolutions of SqueezeNet 1.0, O I H W, in the order of the file."""
    yield 96, 3, 7, 7
    ifm_depth = 96
    for squeezed in (16, 16, 32, 32, 48, 48, 64, 64):
        expanded = 4 * squeezed
        yield squeezed, ifm_depth, 1, 1
        yield expanded, squeezed, 1, 1
        yield expanded, squeezed, 3, 3
        ifm_depth = 2 * expanded
    yield 1000, 512, 1, 1


@dataclass(frozen=True)
class Layer:
    """Entries as the file has them, and the codes that its own format says they are."""

    payload: bytes
    codes: np.ndarray

    @property
    def weights(self) -> np.ndarray:
        """The codes, centred: int16, shape [n_weights]."""
        return self.codes.view(np.int8).astype(np.int16)


def read_layers(content: bytes) -> list[Layer]:
    """All layers of the file."""
    counts = np.frombuffer(content, "<u4", N_LAYERS).tolist()
    at, found = 4 * N_LAYERS, []
    for n, shape in zip(counts, shapes(), strict=True):
        at += CODEBOOK_BYTES + 4 * shape[0]  # shared weights and biases
        payload = content[at : at + n + (n + 1) // 2]
        at += len(payload)
        nibbles = np.frombuffer(payload, np.uint8, offset=n)
        runs = np.stack([nibbles & 15, nibbles >> 4], axis=1).ravel()[:n].astype(np.int64)
        codes = np.zeros(np.prod(shape), np.uint8)
        codes[np.cumsum(runs + 1) - 1] = np.frombuffer(payload, np.uint8, n)
        found.append(Layer(payload, codes))
    assert at == len(content)
    return found
