# SPDX-License-Identifier: Apache-2.0
"""What cocotb runs inside the simulator: golden vectors through the Verilog decoder.

VECTORS names a folder that ``npusim schemes vectors mask-rle-gr`` wrote.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import cocotb
from cocotb.clock import Clock
from cocotb.triggers import RisingEdge

IDLE_CYCLES_MAX = 200
"""Without a weight, a decoder that is not done hangs: the longest code takes fewer cycles."""


async def decode(dut: Any, n_weights: int, stream: bytes) -> list[int]:
    """Weights that the decoder gives for a stream."""
    dut.reset.value = 1
    dut.n_weights.value = n_weights
    dut.byte_valid.value = 0
    for _ in range(2):
        await RisingEdge(dut.clock)
    dut.reset.value = 0
    weights: list[int] = []
    at = idle = 0
    while idle < IDLE_CYCLES_MAX:
        dut.byte_in.value = stream[at] if at < len(stream) else 0
        dut.byte_valid.value = int(at < len(stream))
        await RisingEdge(dut.clock)
        if dut.byte_valid.value == 1 and dut.byte_ready.value == 1:
            at += 1
        idle += 1
        if dut.weight_valid.value == 1:
            weights.append(dut.weight.value.to_signed())
            idle = 0
        elif dut.done.value == 1 and idle > 2:
            break
    return weights


@cocotb.test()
async def decodes_every_golden_vector(dut: Any) -> None:
    cocotb.start_soon(Clock(dut.clock, 2, unit="ns").start())
    paths = sorted(Path(os.environ["VECTORS"]).glob("*.json"))
    assert len(paths) > 10
    for path in paths:
        record = json.loads(path.read_text("utf-8"))
        found = await decode(dut, record["n_weights"], bytes.fromhex(record["stream"]))
        assert found == record["weights"], path.name
