# SPDX-License-Identifier: Apache-2.0
"""Arm's decoder in a process of its own, since it ends its process on a stream it cannot read."""

from __future__ import annotations

import os
import pickle
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import arm
import numpy as np
import pytest


def decode(streams: Sequence[bytes]) -> list[np.ndarray]:
    """Weights of each stream; fails, naming the stream, where Arm's decoder gives up."""
    pytest.importorskip("ethosu.mlw_codec", reason="Arm's codec comes with ethos-u-vela")
    done = subprocess.run(
        [sys.executable, Path(__file__)], input=pickle.dumps(list(streams)), capture_output=True
    )
    decoded = done.stdout.count(b"decoded\n")
    assert done.returncode == 0, f"Arm's decoder gave up on stream {decoded}: {done.stdout!r}"
    return pickle.loads(done.stderr)


if __name__ == "__main__":
    results = []
    for stream in pickle.load(sys.stdin.buffer):
        results.append(arm.decode(stream))
        os.write(1, b"decoded\n")
    sys.stderr.buffer.write(pickle.dumps(results))
