# SPDX-License-Identifier: Apache-2.0
"""The SqueezeNet that Deep Compression's authors published, decoded and made again."""

from __future__ import annotations

import itertools
from pathlib import Path

import numpy as np
import pytest
from squeezenet_file import COUNT_BYTES, PLAIN, Layer, read_layers

from npusim import schemes

pytestmark = pytest.mark.data


@pytest.fixture(scope="module")
def content(models_dir: Path) -> bytes:
    path = models_dir.parent / "weights" / "squeezenet_deepcompression.net"
    if not path.is_file():
        pytest.skip("no squeezenet_deepcompression.net in NPUSIM_DATA")
    return path.read_bytes()


@pytest.fixture(scope="module")
def layers(content: bytes) -> list[Layer]:
    return read_layers(content)


def test_our_streams_are_the_files_but_for_zeros_at_the_end(content, layers):
    scheme = schemes.get("deep-compression", **PLAIN)
    ours = 0
    for layer in layers:
        stream = scheme.encode(layer.weights)[COUNT_BYTES:]
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
        values = layer.weights
        zeros_at_end = values.size - 1 - int(np.flatnonzero(values)[-1])
        n = values.size - zeros_at_end
        entries = len(layer.payload) * 2 // 3
        stream = entries.to_bytes(COUNT_BYTES, "little") + layer.payload
        np.testing.assert_array_equal(scheme.decode(stream, n), values[:n])


def test_huffman_codes_make_it_smaller(layers):
    plain = schemes.get("deep-compression", **PLAIN)
    coded = schemes.get("deep-compression", index_bits=4)
    sizes = [[s.size(layer.weights) for s in (plain, coded)] for layer in layers]
    total = [sum(column) for column in zip(*sizes, strict=True)]
    assert 0.80 < total[1] / total[0] < 0.84


@pytest.mark.parametrize("name", [n for n in schemes.names() if n not in ("n-m", "zstd")])
def test_every_scheme_brings_the_weights_back(name, layers):
    for layer in itertools.islice(layers, 0, None, 5):
        scheme = schemes.get(name).fitted(bits=8, row_weights=layer.codes.size // 16)
        stream = scheme.encode(layer.weights)
        assert scheme.size(layer.weights) == len(stream)
        np.testing.assert_array_equal(scheme.decode(stream, layer.codes.size), layer.weights)
