# SPDX-License-Identifier: Apache-2.0
"""Streams that must not change unnoticed; `python tests/golden/make.py` writes them anew."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from npusim.weights import decode, encode, encoded_size
from npusim.weights.format import STREAM_VERSION

FOLDER = Path(__file__).parent.parent / "golden" / "weight_stream"
FILES = sorted(FOLDER.glob("*.json"))
each_file = pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)


def test_all_files_are_there():
    assert len(FILES) == 24


@each_file
def test_streams_have_not_changed(path):
    golden = json.loads(path.read_text("utf-8"))
    assert golden["stream_version"] == STREAM_VERSION, f"run {golden['command']}"
    assert {stream["encoder"] for stream in golden["streams"]} == {"legacy", "regor", "tight"}
    for stream in golden["streams"]:
        expected = bytes.fromhex(stream["hex"])
        made = encode(golden["values"], stream["encoder"], **stream["options"])
        assert made == expected, (
            f"the {stream['encoder']} stream changed: raise STREAM_VERSION and run "
            f"{golden['command']}, or undo the change"
        )
        assert encoded_size(golden["values"], stream["encoder"], **stream["options"]) == len(made)


@each_file
def test_streams_decode_as_ever(path):
    golden = json.loads(path.read_text("utf-8"))
    for stream in golden["streams"]:
        assert decode(bytes.fromhex(stream["hex"])).tolist() == golden["values"]
