# SPDX-License-Identifier: Apache-2.0
"""Golden vectors against a small Golomb-Rice decoder in Verilog, where a simulator is installed."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

import pytest

from npusim import schemes
from npusim.schemes.vectors import write_vectors

HERE = Path(__file__).parent

runners = pytest.importorskip("cocotb_tools.runner", reason="cocotb is not installed")
SIMULATORS = {"icarus": "iverilog", "verilator": "verilator"}


@pytest.fixture(params=SIMULATORS)
def simulator(request: pytest.FixtureRequest) -> str:
    program = SIMULATORS[request.param]
    if shutil.which(program) is None:
        pytest.skip(f"{program} is not installed")
    return str(request.param)


def test_verilog_decodes_every_golden_vector(simulator, tmp_path, monkeypatch):
    folder = tmp_path / "vectors"
    assert len(write_vectors(schemes.get("mask-rle-gr"), str(folder))) > 10
    monkeypatch.setenv("VECTORS", str(folder))
    monkeypatch.setenv("PYTHONPATH", ":".join([str(HERE), *filter(None, sys.path)]))
    runner = runners.get_runner(simulator)
    runner.build(
        sources=[HERE / "mask_rle_gr_decoder.v"],
        hdl_toplevel="mask_rle_gr_decoder",
        build_dir=tmp_path / "build",
        timescale=("1ns", "1ps"),
    )
    results = runner.test(
        hdl_toplevel="mask_rle_gr_decoder",
        test_module="decoder_bench",
        test_dir=tmp_path,
        build_dir=tmp_path / "build",
        results_xml=str(tmp_path / "results.xml"),
    )
    assert runners.get_results(results) == (1, 0)  # tests, failures
