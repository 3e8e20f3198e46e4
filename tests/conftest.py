# SPDX-License-Identifier: Apache-2.0
"""Fixtures that several test files share."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent


@pytest.fixture(scope="session")
def models_dir() -> Path:
    """Folder of real .tflite models: ``models`` in NPUSIM_DATA, by default ../shared/data."""
    path = Path(os.environ.get("NPUSIM_DATA", ROOT.parent / "shared" / "data")) / "models"
    if not path.is_dir():
        pytest.skip(f"no models at NPUSIM_DATA: {path} is not a folder")
    return path
