# SPDX-License-Identifier: Apache-2.0
"""Fixtures of the commands that cost networks; those of other commands have their own."""

from __future__ import annotations

import pytest

from npusim import cli
from npusim.formats.tflite_write import write


@pytest.fixture
def model(tmp_path):
    from small_models import chain  # not found when doctests are collected

    write(chain("first"), tmp_path / "first.tflite")
    return str(tmp_path / "first.tflite")


@pytest.fixture
def models(model, tmp_path):
    from small_models import chain

    write(chain("second", (8, 24), seed=1), tmp_path / "second.tflite")
    return str(tmp_path / "*.tflite")


@pytest.fixture
def cpu_model(tmp_path):
    from small_models import with_cpu

    write(with_cpu("mixed"), tmp_path / "mixed.tflite")
    return str(tmp_path / "mixed.tflite")


@pytest.fixture
def run(capsys):
    """Runs ``npusim`` and returns its exit code, stdout and stderr."""

    def run(*args):
        with pytest.raises(SystemExit) as stop:
            cli.main([*map(str, args)])
        out, err = capsys.readouterr()
        return stop.value.code, out, err

    return run
