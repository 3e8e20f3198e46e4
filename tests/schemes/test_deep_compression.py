# SPDX-License-Identifier: Apache-2.0
"""The SqueezeNet that Deep Compression's authors published, decoded and made again."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from npusim import schemes

pytestmark = pytest.mark.data

PLAIN = {"index_bits": 4, "huffman": False}
N_LAYERS = 26
CODEBOOK_BYTES = 4 * 256
COUNT_BYTES = 4
"""Before our entries; the file has all counts together at its beginning."""


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


@pytest.fixture(scope="module")
def content(models_dir: Path) -> bytes:
    path = models_dir.parent / "weights" / "squeezenet_deepcompression.net"
    if not path.is_file():
        pytest.skip("no squeezenet_deepcompression.net in NPUSIM_DATA")
    return path.read_bytes()


@pytest.fixture(scope="module")
def layers(content: bytes) -> list[Layer]:
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


def weights(layer: Layer) -> np.ndarray:
    return layer.codes.view(np.int8).astype(np.int16)


def test_our_streams_are_the_files_but_for_zeros_at_the_end(content, layers):
    scheme = schemes.get("deep-compression", **PLAIN)
    ours = 0
    for layer in layers:
        stream = scheme.encode(weights(layer))[COUNT_BYTES:]
        ours += len(stream)
        if layer.codes[-1]:
            assert stream == layer.payload
        else:  # which the file leaves to the shape
            n = len(layer.payload) * 2 // 3
            assert stream[:n] == layer.payload[:n]
            assert len(stream) - len(layer.payload) <= 3
    theirs = sum(len(layer.payload) for layer in layers)
    assert abs(ours / theirs - 1) < 0.0001
    assert len(content) == 675_763


def test_the_files_weights_are_decoded(layers):
    scheme = schemes.get("deep-compression", **PLAIN)
    for layer in layers:
        values = weights(layer)
        zeros_at_end = values.size - 1 - int(np.flatnonzero(values)[-1])
        n = values.size - zeros_at_end
        entries = len(layer.payload) * 2 // 3
        stream = entries.to_bytes(COUNT_BYTES, "little") + layer.payload
        np.testing.assert_array_equal(scheme.decode(stream, n), values[:n])


def test_huffman_codes_make_it_smaller(layers):
    plain = schemes.get("deep-compression", **PLAIN)
    coded = schemes.get("deep-compression", index_bits=4)
    sizes = [[s.size(weights(layer)) for s in (plain, coded)] for layer in layers]
    total = [sum(column) for column in zip(*sizes, strict=True)]
    assert 0.80 < total[1] / total[0] < 0.84


@pytest.mark.parametrize("name", [n for n in schemes.names() if n not in ("n-m", "zstd")])
def test_every_scheme_brings_the_weights_back(name, layers):
    for layer in itertools.islice(layers, 0, None, 5):
        scheme = schemes.get(name).fitted(bits=8, row_weights=layer.codes.size // 16)
        stream = scheme.encode(weights(layer))
        assert scheme.size(weights(layer)) == len(stream)
        np.testing.assert_array_equal(scheme.decode(stream, layer.codes.size), weights(layer))
