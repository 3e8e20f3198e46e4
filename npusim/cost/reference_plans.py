# SPDX-License-Identifier: Apache-2.0
"""How operations get their weights, one after the other, in plain Python: what `plans_kernels` and
`entries_kernels` have to find.

Bytes of weights come from a function of operation and cuts.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from npusim.cost import columns as c
from npusim.cost import reference_buffering as rules
from npusim.cost.plan_columns import UNLIMITED_BYTES
from npusim.cost.program import NpuOp, Program
from npusim.cost.reference_cycles import copy_cycles, element_access, min_read_cycles, op_cycles

Depths = tuple[int, ...]
Sizes = Callable[[int, Depths], Sequence[tuple[int, int]]]
"""Bytes of weights, and of biases and scales, of every slice of an operation."""
_SPLIT_DEPTH = 16
_STARTUP_CYCLES = 1000
_MOVING_KINDS = ("copy", "transpose", "reverse", "tile")


@dataclass(frozen=True)
class Plan:
    """How one operation gets its weights; names as in `npusim.cost.plan_columns`."""

    depths: Depths
    n_bytes: tuple[tuple[int, int], ...] = ((0, 0),)
    buffer: tuple[int, int] = (0, 0)
    early: bool = False
    transfer_cycles: int = 0
    slack_cycles: int = 0
    slack_bytes: int = 0

    @property
    def totals(self) -> list[int]:
        """Bytes of each slice."""
        return [sum(one) for one in self.n_bytes]


class Planner:
    """Plans the weights of a program.

    Args:
        program: the operations.
        rows: of `npusim.cost.rows`.
        machine: npu, rates and memories as numbers, and which memory is for maps, constants and
            buffers.
        sizes: bytes of the weights.
        stripes, blocks, cascade: of each operation.
    """

    def __init__(
        self,
        program: Program,
        rows: Sequence[Sequence[int]],
        machine: tuple[Any, Any, Any, Sequence[int]],
        sizes: Sizes,
        stripes: Sequence[int],
        blocks: Sequence[Sequence[int]],
        cascade: Sequence[int],
    ):
        self.program, self.rows, self.sizes = program, rows, sizes
        self.npu, self.rates, self.memories, self.roles = machine
        self.stripes, self.blocks, self.cascade = stripes, blocks, cascade

    def whole(self, index: int) -> Plan:
        """The plan of an operation that reads its weights where they are stored."""
        op, depths = self.program.ops[index], (0, self.rows[index][c.OFM_DEPTH])
        if not op.on_npu:
            return Plan(depths)
        places = self._places(op)
        places[c.BUFFER_PLACE] = -1
        cycles = op_cycles(self.rows[index], self.blocks[index], *self._machine(), places)[0]
        n_bytes = ((0, 0),) if op.weights is None else tuple(self.sizes(index, depths))
        return Plan(depths, n_bytes, slack_cycles=cycles, slack_bytes=UNLIMITED_BYTES)

    def run(
        self, limit: int, maps: Sequence[int], buffers: list[int], times: Sequence[int]
    ) -> list[Plan]:
        """Plans of all operations; the arena holds `maps` and `buffers` over time, and gets what
        is planned."""
        plans: list[Plan] = []
        for index, op in enumerate(self.program.ops):
            plan = self.whole(index)
            if op.on_npu:
                room = max(limit - buffers[times[index]] - maps[times[index]], 0)
                plan = replace(plan, slack_bytes=room)
                if op.weights is not None:
                    plan = self._plan(index, plan, plans)
            plans.append(plan)
            buffers[times[index]] += sum(plan.buffer)
        return plans

    def _plan(self, index: int, plan: Plan, plans: Sequence[Plan]) -> Plan:
        facts = self._facts(index, plan, plans)
        plan = replace(plan, transfer_cycles=int(facts["TRANSFER_CYCLES"]))
        _, stored, staging = self.roles
        way = "UNBUFFERED" if stored == staging else rules.choose_way(facts)
        depths: Depths | None = plan.depths
        if way == "SLICED":
            depths = self._cut(index, facts)
        if way == "UNBUFFERED" or depths is None:
            return plan
        return self._buffered(index, depths, facts, way, plan, plans)

    def _cut(self, index: int, facts: Mapping[str, float]) -> Depths | None:
        """Where weights are cut; None where slices would waste too much of their blocks."""
        depth, ratio = int(facts["OFM_DEPTH"]), rules.first_slice_ratio(facts)
        depths: Depths = (0, depth)
        if ratio >= 1:
            return depths
        first, step = rules.first_slice_depth(facts, ratio), 0
        if first < depth:
            row = list(self.rows[index])
            row[c.OFM_DEPTH] = first
            places = self._places(self.program.ops[index])
            taken = op_cycles(row, self.blocks[index], *self._machine(), places)
            step = rules.next_slices_depth(facts, taken[0] - taken[5])
        while step:
            step = rules.whole_blocks(facts, step)
            depths = (0, *range(first, depth, step), depth)
            largest = max(map(sum, self.sizes(index, depths)))
            if largest <= facts["LIMIT_BYTES"] // 2 or first == step == _SPLIT_DEPTH:
                break
            halved = -(-(max(step, first) // 2) // _SPLIT_DEPTH) * _SPLIT_DEPTH
            first, step = (first, halved) if step > first else (halved, step)
        wasteful = len(depths) > 3 and not rules.fills_blocks(facts, step)
        return None if wasteful else depths

    def _buffered(
        self,
        index: int,
        depths: Depths,
        facts: Mapping[str, float],
        way: str,
        plan: Plan,
        plans: Sequence[Plan],
    ) -> Plan:
        """The plan with a buffer, or as it is where that does not fit or is slower."""
        kept = replace(plan, depths=depths, n_bytes=tuple(self.sizes(index, depths)))
        odd = kept.totals[1::2]
        buffer = max(kept.totals[::2]), max(odd, default=0)
        if odd and sum(buffer) > facts["LIMIT_BYTES"]:
            buffer = max(buffer), 0
        if sum(buffer) > facts["LIMIT_BYTES"]:
            return plan
        early = bool(facts["CAN_PRE_BUFFER"]) and buffer[0] < facts["SLACK_BYTES"]
        slack = int(facts["SLACK_CYCLES"]) if early else 0
        if not early and rules.starts_network(facts):
            slack = _STARTUP_CYCLES
        places = self._places(self.program.ops[index])
        if self._rolls(index):
            places[c.IFM_PLACE] = places[c.BUFFER_PLACE]
        how = {"staged": True, "double": bool(buffer[1])}
        perf = self._performance(index, places, depths, kept.totals, slack, **how)
        if way != "SHARED":
            room = plans[-1].slack_bytes if plans else 0
            if facts["CAN_STAGE_IFM"] and self._yields(index, perf, sum(buffer), room, plan):
                return plan
            if not rules.is_worth_it(facts, perf, len(kept.totals), sum(buffer)):
                return plan
        last = buffer[1] if buffer[1] and len(kept.totals) % 2 == 0 else buffer[0]
        return replace(
            *(kept,),
            buffer=buffer,
            early=early,
            slack_cycles=perf["LAST_SLICE"],
            slack_bytes=plan.slack_bytes - last,
        )

    def _yields(
        self, index: int, perf: Mapping[str, int], n_bytes: int, room: int, plan: Plan
    ) -> bool:
        """Whether the arena is better left to the ifm of the operation that reads the ofm."""
        ofm = self.program.ops[index].ofm.map
        readers = (
            i
            for i, op in enumerate(self.program.ops)
            if ofm in (op.ifm.map, op.ifm.map if op.ifm2 is None else op.ifm2.map)
        )
        reader = next(readers, None)
        if reader is None or self.program.ops[reader].weights is None:
            return False
        run, after = self._whole_run(index), self._whole_run(reader)
        if after["IFM_READ"] <= 2 * after["WEIGHT_READ"] or _runs_longest(after):
            return False
        if not after["IFM_BYTES"] < plan.slack_bytes:
            return False
        if after["IFM_BYTES"] + perf["IFM_BYTES"] + n_bytes <= room:
            return False
        return _runs_longest(run) or after["IFM_READ"] > perf["IFM_READ"]

    def _facts(self, index: int, plan: Plan, plans: Sequence[Plan]) -> dict[str, float]:
        op, row, block = self.program.ops[index], self.rows[index], self.blocks[index]
        _, stored, staging = self.roles
        n_bytes, cascaded = plan.totals[0], bool(self.cascade[index])
        n_stripes = -(-row[c.OFM_HEIGHT] // self.stripes[index]) if cascaded else 1
        fetches = element_access(row, block, self.npu)[c.WEIGHT_FETCHES] * n_stripes
        run = self._whole_run(index)
        before = plans[-1] if plans else replace(plan, slack_cycles=0)
        makers = (one for one in self.program.ops if one.on_npu and one.ofm.map == op.ifm.map)
        maker = next(makers, None)
        computed = maker is not None and maker.kind not in _MOVING_KINDS
        sliceable = op.unit in ("convolution", "depthwise", "product") and not op.transposed
        return {
            "OFM_DEPTH": row[c.OFM_DEPTH],
            "BLOCK_DEPTH": block[c.OFM_BLOCK_DEPTH],
            "WEIGHT_BYTES": n_bytes,
            "FETCHES": fetches,
            "TRANSFER_CYCLES": copy_cycles(n_bytes, stored, staging, self.memories),
            "STORED_CYCLES": min_read_cycles(n_bytes, stored, self.memories) * fetches,
            "BUFFER_CYCLES": min_read_cycles(n_bytes, staging, self.memories) * fetches,
            "SLACK_CYCLES": before.slack_cycles,
            "SLACK_BYTES": before.slack_bytes,
            "LIMIT_BYTES": plan.slack_bytes,
            "CAN_SLICE": sliceable and not cascaded,
            "CAN_PRE_BUFFER": index > 0 and not self._rolls(index),
            "STARTS_NPU": index == 0 or not self.program.ops[index - 1].on_npu,
            "N_SHARING": self._n_sharing(index, plans),
            "N_STRIPES": n_stripes,
            "RUN_CYCLES": run["RUN"],
            "READ_CYCLES": run["WEIGHT_READ"],
            "STAGED_IFM_CYCLES": run["STAGED_IFM_READ"],
            "CAN_STAGE_IFM": computed and not self._rolls(index),
        }

    def _n_sharing(self, index: int, plans: Sequence[Plan]) -> int:
        """Operations that read the same weights, if the one before does so in one piece."""
        keys = [None if op.weights is None else op.weights.key for op in self.program.ops]
        other = index - 1 if index else 1
        if other >= len(keys) or keys[other] != keys[index]:
            return 1
        if index and len(plans[other].depths) > 2:
            return 1
        return keys.count(keys[index])

    def _rolls(self, index: int) -> bool:
        """Whether an operation reads a rolling buffer."""
        cascade = self.cascade
        return index > 0 and cascade[index] > 0 and cascade[index] == cascade[index - 1]

    def _whole_run(self, index: int) -> dict[str, int]:
        places, depths = self._places(self.program.ops[index]), (0, self.rows[index][c.OFM_DEPTH])
        n_bytes = [sum(self.sizes(index, depths)[0])]
        how = {"staged": False, "double": False}
        return self._performance(index, places, depths, n_bytes, 0, **how)

    def _performance(
        self,
        index: int,
        places: list[int],
        depths: Depths,
        totals: Sequence[int],
        slack: int,
        **how: bool,
    ) -> dict[str, int]:
        machine, stripe = (*self._machine(), places), self.stripes[index]
        row, block = self.rows[index], self.blocks[index]
        return rules.performance(row, block, machine, depths, totals, stripe, slack, **how)

    def _machine(self) -> tuple[Any, Any, Any]:
        return self.npu, self.rates, self.memories

    def _places(self, op: NpuOp) -> list[int]:
        """Which memory holds what, with the place of a buffer."""
        maps, stored, staging = self.roles
        operands = [op.ifm.map, (op.ifm2 or op.ifm).map]
        inputs = [stored if self.program.maps[one].is_constant else maps for one in operands]
        return [*inputs, maps, stored, staging, maps]


def _runs_longest(run: Mapping[str, int]) -> bool:
    """Whether an operation takes longer to run than its weights or its ifm to be read."""
    return run["RUN"] > max(run["WEIGHT_READ"], run["IFM_READ"])
