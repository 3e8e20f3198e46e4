# SPDX-License-Identifier: Apache-2.0
"""The kernels with every index checked, and as plain Python: results must not change.

Numba neither checks bounds nor detects wrapping, so a read beyond an array can go unnoticed.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).parent
FILES = ("test_kernels.py", "test_stream.py", "test_decode.py", "test_decode_fuzz.py")
SCHEMES = [HERE.parent / "schemes" / f"test_scheme_{name}.py" for name in ("kernels", "bits")]

CHECKED_READ = """
import numba, numpy
@numba.njit
def read(a, i): return a[i]
try: read(numpy.zeros(3), 3)
except IndexError: print("checked")
"""


def run(arguments: list[object], **environment: str) -> str:
    done = subprocess.run(
        [sys.executable, *map(str, arguments)],
        env=os.environ | environment,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout[-5000:] + done.stderr[-5000:]
    return done.stdout


@pytest.mark.slow
def test_suite_with_every_index_checked(tmp_path):
    mode = {"NUMBA_BOUNDSCHECK": "1", "NUMBA_CACHE_DIR": str(tmp_path)}
    assert run(["-c", CHECKED_READ], **mode) == "checked\n"
    files = [*FILES, "test_tight.py", "test_estimate.py", "test_chunks.py"]
    out = run(["-m", "pytest", "-q", *(HERE / name for name in files), *SCHEMES], **mode)
    assert " passed" in out


@pytest.mark.slow
def test_suite_as_plain_python(tmp_path):
    """Without the tests that take long streams; numpy's own overflow warnings are errors."""
    mode = {"NUMBA_DISABLE_JIT": "1"}
    assert run(["-c", "import numba; f = lambda: 0; print(numba.njit(f) is f)"], **mode) == "True\n"
    unhurried = "not memory and not threads and not borders"
    out = run(
        ["-m", "pytest", "-q", "-k", unhurried, *(HERE / name for name in FILES), *SCHEMES], **mode
    )
    assert " passed" in out
