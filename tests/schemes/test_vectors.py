# SPDX-License-Identifier: Apache-2.0
"""Golden vectors for hardware: what the files hold, and that they never change."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from npusim import schemes
from npusim.errors import ConfigError
from npusim.schemes.vectors import golden_vectors, write_vectors


@pytest.mark.parametrize("name", [name for name in schemes.names() if name != "zstd"])
def test_files_hold_weights_and_their_stream(name, tmp_path):
    scheme = schemes.get(name)
    paths = [Path(path) for path in write_vectors(scheme, str(tmp_path / "new" / "folder"))]
    assert len(paths) == len(golden_vectors(scheme)) > 10
    for path in paths:
        record = json.loads(path.read_text("utf-8"))
        assert schemes.get(record["scheme"], **record["parameters"]) == scheme
        stream = bytes.fromhex(record["stream"])
        assert scheme.decode(stream, record["n_weights"]).tolist() == record["weights"]
        assert record["n_bytes"] == len(stream)
        base = str(path).removesuffix(".json")
        hexes = Path(f"{base}.stream.hex").read_text("utf-8").split()
        assert bytes(int(line, 16) for line in hexes) == stream
        words = Path(f"{base}.weights.hex").read_text("utf-8").split()
        found = np.array([int(word, 16) for word in words], np.uint16).view(np.int16)
        assert found.tolist() == record["weights"]


def test_are_always_the_same():
    first, second = (golden_vectors(schemes.get("mask-gr")) for _ in range(2))
    assert [(v.name, v.stream) for v in first] == [(v.name, v.stream) for v in second]
    assert len({v.name for v in first}) == len(first)
    sparse = next(v for v in first if v.name == "laplace_90_percent_zeros")
    assert 0.85 < np.count_nonzero(sparse.weights == 0) / 1000 < 0.95


def test_a_folder_that_cannot_be(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match=r"^--out must be a folder that can be written, got "):
        write_vectors(schemes.get("raw"), str(tmp_path / "file"))
