# SPDX-License-Identifier: Apache-2.0
"""Fixtures of the cost model's tests."""

from __future__ import annotations

from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def oracle_dir(models_dir: Path) -> Path:
    """Folder of what Arm's compiler decided for the real models, beside them."""
    path = models_dir.parent / "oracle" / "perlayer"
    if not path.is_dir():
        pytest.skip(f"no oracle at NPUSIM_DATA: {path} is not a folder")
    return path
