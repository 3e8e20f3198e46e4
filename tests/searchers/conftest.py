# SPDX-License-Identifier: Apache-2.0
"""Data that several tests train on, and the command line as they call it."""

from __future__ import annotations

import numpy as np
import pytest

from npusim.cli import main
from searchers.data.super_resolution import TESTS


@pytest.fixture
def pictures(tmp_path):
    """A directory with DIV2K, tiny."""
    pytest.importorskip("torch", reason="needs torch to train")
    image = pytest.importorskip("PIL.Image", reason="needs pillow")
    rng = np.random.default_rng(0)
    tests = [f"sr/{name}" for name in TESTS]
    for name in ("DIV2K_train_HR", "DIV2K_valid_HR", *tests):
        (tmp_path / name).mkdir(parents=True)
        for i in range(2):
            pixels = rng.integers(0, 256, (36, 48, 3)).astype(np.uint8)
            image.fromarray(pixels).save(tmp_path / name / f"{i}.png")
    return tmp_path


@pytest.fixture
def cli(capsys):
    """Calls the command line; gives the exit code, and what was printed to both streams."""

    def call(*args: str) -> tuple[int, str, str]:
        with pytest.raises(SystemExit) as exit_:
            main(args)
        out, err = capsys.readouterr()
        return exit_.value.code, out, err

    return call
