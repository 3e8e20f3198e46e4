# SPDX-License-Identifier: Apache-2.0
"""Tests that compare with other people's packages may be skipped on a laptop, never in CI."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

IN_A_TEST = """
import pytest

def test_oracle():
    pytest.importorskip("ethosu_not_there", reason="ethos-u-vela is the oracle")

def test_model():
    pytest.skip("no models at NPUSIM_DATA: regor is not a folder")
"""
AT_IMPORT = """
import pytest

pytest.importorskip("ai_edge_litert_not_there")
"""


def run(folder: Path, source: str, require: str) -> str:
    shutil.copy(Path(__file__).parent / "conftest.py", folder)
    (folder / "test_it.py").write_text(source, "utf-8")
    (folder / "pytest.ini").write_text("[pytest]\n", "utf-8")
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", str(folder)]
    environment = os.environ | {
        "NPUSIM_REQUIRE_ORACLES": require,
        "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1",  # they take longer than the rest
    }
    done = subprocess.run(command, capture_output=True, text=True, cwd=folder, env=environment)
    return done.stdout


class TestMissingOracle:
    def test_is_a_skip_by_default(self, tmp_path):
        assert "2 skipped" in run(tmp_path, IN_A_TEST, "")

    def test_is_a_failure_where_it_must_be_there(self, tmp_path):
        output = run(tmp_path, IN_A_TEST, "1")
        assert "1 failed, 1 skipped" in output
        assert "NPUSIM_REQUIRE_ORACLES is 1, but Skipped: ethos-u-vela is the oracle" in output

    def test_is_a_failure_for_a_whole_file(self, tmp_path):
        assert "1 skipped" in run(tmp_path, AT_IMPORT, "")
        assert "1 error" in run(tmp_path, AT_IMPORT, "1")
