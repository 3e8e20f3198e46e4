# SPDX-License-Identifier: Apache-2.0
"""Kernels: one signature each, cached where that can be, and a word to the user while compiling."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parent.parent
ONCE = "npusim: compiling kernels for this machine (up to a minute, once)"

if os.environ.get("NUMBA_DISABLE_JIT") == "1":
    pytest.skip("NUMBA_DISABLE_JIT is set", allow_module_level=True)


def run(code: str, *args: str, cwd: Path = ROOT, **environment: str) -> Any:
    done = subprocess.run(
        [sys.executable, "-c", code, *args],
        capture_output=True,
        text=True,
        cwd=cwd,
        env=os.environ | environment,
    )
    assert done.returncode == 0, done.stderr
    return done


EVERY_KIND_OF_INPUT = """
import json
import numpy as np
from npusim import _jit, weights

plain = [0, 0, 7, -3, 0, 5, 0, 0, 0, 1] * 30
kinds = [plain, tuple(plain), *(np.array(plain, d) for d in ("i1", "i2", ">i2", "i4", "i8"))]
kinds += [np.abs(np.array(plain)).astype(d) for d in ("u1", "u4", "u8")]
kinds += [np.repeat(np.array(plain, "i2"), 2)[::2], np.array(plain, "i2")[:0], [1]]
for a in kinds[:-2]:
    a = np.asarray(a)
    a.flags.writeable = False
    kinds.append(a)
for values in kinds:
    for encoder in ("legacy", "regor"):
        stream = weights.encode(values, encoder=encoder)
        assert weights.encoded_size(values, encoder=encoder) == len(stream)
        for data in (stream, bytearray(stream), memoryview(stream), np.frombuffer(stream, "u1")):
            decoded = weights.decode(data)
            weights.slices(data, max_weights=decoded.size)
    if len(values) == 300:
        ohwi = np.asarray(values).reshape(5, 2, 3, 10)
        for volume in (ohwi, ohwi.tolist(), np.asfortranarray(ohwi), ohwi[:, ::-1]):
            for npu in ("ethos-u55-32", "ethos-u55-128"):
                weights.reorder(volume, npu=npu, ofm_block_depth=8)

from npusim import schemes
from npusim.schemes.decoder_simulation import decode_cycles

weights.chunk_iterations(stream), weights.planned_iterations(plain)
for name in schemes.names():
    if name != "zstd":
        scheme = schemes.get(name)
        for values in (plain, np.array(plain, ">i4"), [], [0] * 400, [1]):
            coded = scheme.conditioned(values)
            scheme.size(coded), scheme.decode(scheme.encode(coded), len(coded))
            decode_cycles(scheme, coded), decode_cycles(scheme, coded, fifo=64)

def name(kernel):
    return f"{kernel.__module__}.{kernel.__name__}"

print(json.dumps({name(k): [str(s) for s in k.signatures] for k in _jit.KERNELS}))
"""


class TestOneSignature:
    def test_any_input_of_the_surfaces_gives_each_kernel_the_same_types(self):
        # kernels that only kernels call have none here: the machine code comes from the cache
        run(EVERY_KIND_OF_INPUT)
        signatures = json.loads(run(EVERY_KIND_OF_INPUT).stdout)
        called = {name: found for name, found in signatures.items() if found}
        for name in (
            "section_kernels.fill_sections",
            "slice_kernels.legacy_slices",
            "slice_kernels.regor_slices",
            "emit_kernels.write_plan",
            "decode_kernels.decode_slices",
            "reorder_kernels.walk",
            "chunk_kernels.stream_chunks",
            "chunk_kernels.plan_chunks",
        ):
            assert f"npusim.weights.{name}" in called
        for name in ("arithmetic_kernels.put_values", "decoder_kernels.run_lanes"):
            assert f"npusim.schemes.{name}" in called
        assert {name: found for name, found in called.items() if len(found) > 1} == {}


def test_kernels_that_count_no_references_make_no_arrays(tmp_path):
    (tmp_path / "greedy.py").write_text(
        "import numpy as np\nfrom npusim._jit import leaf_kernel\n\n"
        "@leaf_kernel\ndef ones(n):\n    return np.ones(n).sum()\n",
        "utf-8",
    )
    code = "import numba, greedy\ntry: greedy.ones(3)\nexcept numba.NumbaError: print('refused')"
    assert run(code, cwd=tmp_path, NUMBA_CACHE_DIR=str(tmp_path)).stdout == "refused\n"


TINY_PACKAGE = """
from npusim._jit import kernel

@kernel
def twice(value):
    return 2 * value
"""
CALL = """
import logging, sys
logging.basicConfig(format="npusim: %(message)s", level=sys.argv[1])
logging.getLogger("numba").setLevel("WARNING")
import tiny
print(tiny.twice(21), tiny.twice(2.5))
"""


class TestCache:
    @pytest.fixture
    def package(self, tmp_path) -> Path:
        (tmp_path / "tiny.py").write_text(TINY_PACKAGE, "utf-8")
        return tmp_path

    def test_the_second_process_compiles_nothing_and_says_nothing(self, package):
        cache = str(package / "cache")
        first = run(CALL, "DEBUG", cwd=package, NUMBA_CACHE_DIR=cache)
        assert first.stdout == "42 5.0\n"
        assert first.stderr.splitlines() == [ONCE, *2 * ["npusim: compiling tiny.twice"]]
        second = run(CALL, "DEBUG", cwd=package, NUMBA_CACHE_DIR=cache)
        assert (second.stdout, second.stderr) == ("42 5.0\n", "")

    def test_no_directory_can_be_written(self, package):
        (package / "__pycache__").write_text("in the way of a folder", "utf-8")
        environment = {
            "HOME": "/dev/null",
            "XDG_CACHE_HOME": "/dev/null",
            "NUMBA_CACHE_DIR": "/dev/null/cache",
            "PYTHONDONTWRITEBYTECODE": "1",
        }
        done = run(CALL, "INFO", cwd=package, **environment)
        assert done.stdout == "42 5.0\n"
        assert "npusim: compiling kernels (up to a minute, at every start: " in done.stderr
        assert "name one in NUMBA_CACHE_DIR" in done.stderr

    def test_other_faults_of_numba_are_not_swallowed(self, monkeypatch):
        from npusim import _jit

        def fail(**flags: bool) -> None:
            raise RuntimeError(f"no compiler for {flags}")

        monkeypatch.setattr(_jit.numba, "njit", fail)
        with pytest.raises(RuntimeError, match="no compiler"):
            _jit.kernel(abs)
