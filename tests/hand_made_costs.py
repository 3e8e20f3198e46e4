# SPDX-License-Identifier: Apache-2.0
"""Costs written by hand, for tests of what is made from a `Cost`."""

from __future__ import annotations

from typing import Any

from npusim.cost.blocks import BlockConfig
from npusim.cost.result import Cost, MapMemory, OpCost, Traffic

SRAM = Traffic({"feature_maps": 1000, "weights": 600, "scales": 40}, {"feature_maps": 800}, 250)
FLASH = Traffic({"weights": 300, "scales": 20}, {}, 330)


def op_cost(name: str = "conv", **changes: Any) -> OpCost:
    """A convolution bound by its multipliers, with `changes`."""
    fields: dict[str, Any] = {
        "name": name,
        "op": "conv",
        "source": name,
        "cycles": 1000,
        "npu_cycles": 1000,
        "macs": 64_000,
        "bound": "mac",
        "mac_cycles": 800,
        "output_cycles": 300,
        "issue_cycles": 20,
        "compute_cycles": 900,
        "block": BlockConfig(4, 8, 16, 6, 10, 16),
        "traversal": "depth-first",
        "traffic": {"sram": SRAM, "off_chip_flash": FLASH},
        "ofm_shape": (5, 10, 16),
        "weights_encoded_bytes": 300,
        "scale_bytes": 20,
        "depth_slices": (0, 16),
        "buffering": "single",
        "pre_buffered": True,
        "weight_buffer_bytes": 300,
        "sram_bytes": 2000,
        "cascade": 0,
        "stripe_height": 5,
        "ifm_bits": 8,
    }
    return OpCost(**(fields | changes))


def cpu_op(name: str = "custom", cycles: int = 500) -> OpCost:
    """An operation that the CPU executes."""
    nothing = dict.fromkeys(
        (
            *("npu_cycles", "macs", "mac_cycles", "output_cycles", "issue_cycles"),
            *("compute_cycles", "weights_encoded_bytes", "scale_bytes", "weight_buffer_bytes"),
        ),
        0,
    )
    return op_cost(
        name,
        **nothing,
        op="cpu",
        cycles=cycles,
        bound="cpu",
        block=None,
        traversal="",
        traffic={},
        depth_slices=(),
        buffering="none",
        pre_buffered=False,
        obstacle="kind must be known, got CUSTOM",
    )


def cost_of(*ops: OpCost, **changes: Any) -> Cost:
    """A network of `ops` on an Ethos-U55 at 500 MHz, with `changes`."""
    total = sum(op.cycles for op in ops)
    fields: dict[str, Any] = {
        "model": "net",
        "npu": "ethos-u55-128",
        "system_config": "Ethos_U55_High_End_Embedded",
        "memory_mode": "Shared_Sram",
        "clock_hz": 500e6,
        "ops": ops,
        "total_cycles": total,
        "cycles_range": (total, total),
        "npu_cycles": sum(op.npu_cycles for op in ops),
        "macs": sum(op.macs for op in ops),
        "sram_peak_bytes": 3000,
        "dram_peak_bytes": 0,
        "flash_bytes": 320,
        "weights_encoded_bytes": 300,
        "n_cpu_ops": sum(not op.on_npu for op in ops),
    }
    return Cost(**(fields | changes))


MEMORY_BOUND = op_cost(
    "dense",
    op="fully_connected",
    cycles=2500,
    npu_cycles=400,
    macs=2000,
    bound="flash",
    mac_cycles=200,
    output_cycles=30,
    compute_cycles=350,
    traffic={
        "sram": Traffic({"feature_maps": 100}, {"feature_maps": 20}, 30),
        "off_chip_flash": Traffic({"weights": 2400, "scales": 100}, {}, 2500),
    },
    weights_encoded_bytes=1200,
    ofm_shape=(1, 1, 20),
)
OUTPUT_BOUND = op_cost(
    "add",
    op="add",
    cycles=700,
    npu_cycles=700,
    macs=0,
    bound="output",
    mac_cycles=0,
    output_cycles=600,
    compute_cycles=700,
    traffic={"sram": Traffic({"feature_maps": 1600}, {"feature_maps": 800}, 400)},
    weights_encoded_bytes=0,
    scale_bytes=0,
    block=None,
    traversal="",
)
ARENA = (
    MapMemory("input", 1000, 0, 0, 0, True),
    MapMemory("conv", 800, 0, 1, 1008, True),
    MapMemory("add", 800, 1, 2, 0, False),
    MapMemory("weights of conv", 300, 0, 0, 1808, True),
)
NETWORK = cost_of(op_cost(), OUTPUT_BOUND, MEMORY_BOUND, arena=ARENA, sram_peak_bytes=2108)
"""A convolution, an addition and a fully connected layer, bound by three different things."""
