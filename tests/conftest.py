# SPDX-License-Identifier: Apache-2.0
"""Fixtures that several test files share, and what NPUSIM_REQUIRE_ORACLES does."""

from __future__ import annotations

import os
import re
from collections.abc import Generator
from pathlib import Path
from typing import TypeVar

import pytest

ROOT = Path(__file__).parent.parent

_ORACLE = re.compile(r"ethos|vela|litert|mlw_codec|regor|tflite_micro", re.IGNORECASE)
_Report = TypeVar("_Report", pytest.TestReport, pytest.CollectReport)


@pytest.fixture(scope="session")
def models_dir() -> Path:
    """Folder of real .tflite models: ``models`` in NPUSIM_DATA, by default ../shared/data."""
    path = Path(os.environ.get("NPUSIM_DATA", ROOT.parent / "shared" / "data")) / "models"
    if not path.is_dir():
        pytest.skip(f"no models at NPUSIM_DATA: {path} is not a folder")
    return path


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Generator[None, pytest.TestReport, pytest.TestReport]:
    return _require_oracles((yield))


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report() -> Generator[None, pytest.CollectReport, pytest.CollectReport]:
    return _require_oracles((yield))


def _require_oracles(report: _Report) -> _Report:
    """Where NPUSIM_REQUIRE_ORACLES is 1, a test skipped for want of an oracle's package fails."""
    if os.environ.get("NPUSIM_REQUIRE_ORACLES") == "1" and report.skipped:
        reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else ""
        if _ORACLE.search(reason) and "NPUSIM_DATA" not in reason:
            report.outcome = "failed"
            report.longrepr = f"NPUSIM_REQUIRE_ORACLES is 1, but {reason}"
    return report
