# SPDX-License-Identifier: Apache-2.0
"""What the operations of a schedule cost, one by one."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Final

import numpy as np

from npusim.cost import columns as col
from npusim.cost.blocks import BlockConfig
from npusim.cost.plan_columns import HALF0, HALF1, PRE_BUFFERED, SCALE_BYTES, WEIGHT_BYTES
from npusim.cost.program import NpuOp
from npusim.cost.result import OpCost, Traffic, memory_role
from npusim.cost.schedule import MemoryRoles, Schedule, plan_depths

BUFFERINGS: Final = ("none", "single", "double")
"""How many buffers weights are copied to, in turn."""

Numbers = Sequence[int]


def op_costs(schedule: Schedule, on_cpu: Mapping[int, int]) -> Iterator[OpCost]:
    """Operation by operation; on_cpu: cycles of those that the CPU executes, by index."""
    form, taken = schedule.form, schedule.cycles
    usage, times = schedule.ranges.usage_bytes, schedule.ranges.op_time
    columns = (
        usage[times] if usage.size else np.zeros_like(times),
        *(schedule.total_cycles, schedule.npu_cycles, form.cascade, form.stripes),
        *(taken.cycles, taken.moved_bytes, taken.memory_cycles[:, :, col.MEMORY_CYCLES]),
        *(form.blocks[:, : col.BLOCK_COLUMNS], form.plans, schedule.rows, schedule.places),
    )
    roles = schedule.roles
    names = [memory_role(memory.name) for memory in roles.memories]
    lines = zip(schedule.program.ops, *(one.tolist() for one in columns), strict=True)
    for index, (op, in_use, total, npu, cascade, stripe, *tables) in enumerate(lines):
        cycles, moved, memory_cycles, block, plan, row, places = tables
        decode_cycles = schedule.decode_cycles(index) if row[col.DECODE_CYCLES] else 0
        bound = "cpu"
        traffic: dict[str, Traffic] = {}
        if op.on_npu:
            pace = total, npu, decode_cycles
            bound = _bound(op, pace, cycles, memory_cycles, block, names)
            traffic = _traffic(op, plan, moved, memory_cycles, places, roles, names)
        yield OpCost(
            name=op.name,
            op=op.kind,
            source=op.name if op.source is None else op.source.name,
            cycles=total if op.on_npu else on_cpu.get(index, 0),
            npu_cycles=npu if op.on_npu else 0,
            macs=op.macs,
            bound=bound,
            mac_cycles=cycles[col.MAC_CYCLES],
            output_cycles=cycles[col.OUTPUT_CYCLES],
            issue_cycles=cycles[col.ISSUE_CYCLES],
            compute_cycles=cycles[col.OP_CYCLES],
            decode_cycles=decode_cycles,
            block=BlockConfig(*block) if all(block) else None,
            traversal="" if op.weights is None else op.weights.traversal,
            traffic=traffic,
            ofm_shape=op.ofm.part[1:],
            ifm_bits=op.ifm.bits or schedule.program.maps[op.ifm.map].bits,
            weights_encoded_bytes=plan[WEIGHT_BYTES],
            scale_bytes=plan[SCALE_BYTES],
            depth_slices=plan_depths(plan, row),
            buffering=BUFFERINGS[(plan[HALF0] > 0) + (plan[HALF1] > 0)],
            pre_buffered=bool(plan[PRE_BUFFERED]),
            weight_buffer_bytes=plan[HALF0] + plan[HALF1],
            sram_bytes=in_use,
            cascade=cascade,
            stripe_height=stripe,
            obstacle=op.obstacle,
            source_op=source_kind(op),
        )


def source_kind(op: NpuOp) -> str:
    """Kind of the network's operation that an operation comes from."""
    return op.kind if op.source is None else op.source.kind


def _bound(
    op: NpuOp,
    pace: tuple[int, int, int],
    cycles: Numbers,
    memory_cycles: Numbers,
    block: Numbers,
    names: Sequence[str],
) -> str:
    """What an operation waits for, one of `npusim.cost.result.BOUNDS`; pace: its cycles, those of
    the NPU, and those to decode its weights; names: roles of the memories."""
    total, npu, decode_cycles = pace
    if total == 0:
        return "none"
    if npu < total:
        return names[memory_cycles.index(max(memory_cycles))]
    if npu > 2 * cycles[col.OP_CYCLES]:
        return "weight_dma"
    if decode_cycles >= cycles[col.OP_CYCLES]:
        return "decode"
    if op.unit == "elementwise":
        return "issue" if cycles[col.ISSUE_CYCLES] > cycles[col.OUTPUT_CYCLES] else "output"
    n_blocks = 1.0
    for extent, of_block in zip(op.ofm.part[1:], block, strict=False):
        n_blocks *= max(extent / of_block, 1.0)
    issue = cycles[col.ISSUE_CYCLES] * n_blocks
    if cycles[col.MAC_CYCLES] >= max(cycles[col.OUTPUT_CYCLES], issue):
        return "mac"
    return "output" if cycles[col.OUTPUT_CYCLES] >= issue else "issue"


def _traffic(
    op: NpuOp,
    plan: Numbers,
    moved: Numbers,
    memory_cycles: Numbers,
    places: Numbers,
    roles: MemoryRoles,
    names: Sequence[str],
) -> dict[str, Traffic]:
    """Bytes moved from and to each memory; names: their roles."""
    read: list[dict[str, int]] = [{} for _ in names]
    written: list[dict[str, int]] = [{} for _ in names]
    for to, place, n_bytes in (
        (read, col.IFM_PLACE, moved[col.IFM_READ]),
        (read, col.IFM2_PLACE, moved[col.IFM2_READ]),
        (written, col.OFM_PLACE, moved[col.OFM_WRITTEN]),
        (read, col.SCRATCH_PLACE, moved[col.SCRATCH_READ]),
        (written, col.SCRATCH_PLACE, moved[col.SCRATCH_WRITTEN]),
    ):
        if n_bytes:
            of_memory = to[places[place]]
            of_memory["feature_maps"] = of_memory.get("feature_maps", 0) + n_bytes
    source = roles.constants
    if plan[HALF0]:
        source = roles.staging
        copied = plan[WEIGHT_BYTES] + plan[SCALE_BYTES]
        read[roles.constants]["weights"] = written[roles.staging]["weights"] = copied
    of_source = read[source]
    if n_bytes := moved[col.WEIGHTS_READ]:
        of_source["weights"] = of_source.get("weights", 0) + n_bytes
    if n_bytes := moved[col.SCALES_READ]:
        of_source["scales"] = n_bytes
    if op.table_bytes:
        read[roles.constants]["tables"] = op.table_bytes
    return {name: Traffic(read[i], written[i], memory_cycles[i]) for i, name in enumerate(names)}
