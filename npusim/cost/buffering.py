# SPDX-License-Identifier: Apache-2.0
"""Which weights are copied to a buffer before they are used, and in how many depth slices.

Weights that are stored in a slow memory can be copied to the staging memory by the DMA unit while
the operation before, or the slice before, runs. Arm's compiler decides operation by operation: it
compares the time to fetch the weights, as often as the blocks need them, from where they are stored
with that from a buffer, cuts the weights where only a part can be copied unseen, and keeps the
buffer if the operation then is no slower.

Source: [VELA] regor 5.2.0, found by comparing with its compiled operations.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Final

import numpy as np
import numpy.typing as npt

from npusim.cost import columns as col
from npusim.cost.forms import UNLIMITED_BYTES, Form, WeightPlan, Weights
from npusim.cost.program import NpuOp

Int64Array = npt.NDArray[np.int64]
Float64Array = npt.NDArray[np.float64]
_MOVING_KINDS: Final = ("copy", "transpose", "reverse", "tile")


@dataclass(slots=True, eq=False)
class Usage:
    """What is in the arena over time.

    Attributes:
        maps_bytes: feature maps, int64 [n_steps].
        buffer_bytes: weight buffers, int64 [n_steps].
        op_time: step at which each operation begins, int64 [n_ops].
    """

    maps_bytes: Int64Array
    buffer_bytes: Int64Array
    op_time: Int64Array

    def total_bytes(self, index: int) -> int:
        """While operation `index` begins."""
        time = self.op_time[index]
        return int(self.maps_bytes[time] + self.buffer_bytes[time])


class Buffering:
    """Plans the weights of operations, one after the other.

    Args:
        weights: of a program.
        form: of it; its plans say what buffers `usage` counts already.
        limit_bytes: most that the arena may take.
        usage: of the arena; None: nothing.
    """

    def __init__(
        self,
        weights: Weights,
        form: Form,
        limit_bytes: int = UNLIMITED_BYTES,
        usage: Usage | None = None,
    ):
        self.weights, self.program, self.form = weights, weights.program, form
        self.limit_bytes = min(limit_bytes, UNLIMITED_BYTES)
        n_ops = len(self.program.ops)
        nothing = Usage(np.zeros(n_ops, np.int64), np.zeros(n_ops, np.int64), np.arange(n_ops))
        self.usage = nothing if usage is None else usage
        self.plans: dict[int, WeightPlan] = {}
        self._readers: dict[tuple[object, ...], int] = {}
        self._consumers: dict[int, int] = {}
        self._producers: dict[int, NpuOp] = {}
        for index, op in enumerate(self.program.ops):
            if op.weights is not None:
                self._readers[op.weights.key] = self._readers.get(op.weights.key, 0) + 1
            for view in (op.ifm, op.ifm2):
                if view is not None:
                    self._consumers.setdefault(view.map, index)
            if op.on_npu:
                self._producers.setdefault(op.ofm.map, op)

    def run(
        self, first: int = 0, last: int | None = None, before: WeightPlan | None = None
    ) -> list[WeightPlan]:
        """Plans for operations first..last, those without weights included.

        Args:
            first, last: of the operations; all by default.
            before: the plan of the operation before, if that is not the first.
        """
        if before is not None:
            self.plans[first - 1] = before
        end = len(self.program.ops) if last is None else last + 1
        for index in range(first, end):
            self.plans[index] = self._plan(index)
            time = self.usage.op_time[index]
            self.usage.buffer_bytes[time] += sum(self.plans[index].buffer_bytes)
        return [self.plans[index] for index in range(first, end)]

    def _plan(self, index: int) -> WeightPlan:
        from npusim.cost import buffering_kernels as kernels

        op, block = self.program.ops[index], self.form.blocks[index]
        plan = self.weights.unbuffered(index, block)
        if not op.on_npu:
            return plan
        time = self.usage.op_time[index]
        others = int(self.usage.buffer_bytes[time]) - sum(self.form.plans[index].buffer_bytes)
        used = max(others, 0) + int(self.usage.maps_bytes[time])
        plan = WeightPlan(
            *(plan.depths, plan.n_bytes),
            slack_cycles=self.form.plans[index].slack_cycles,
            slack_bytes=max(self.limit_bytes - used, 0),
        )
        if op.weights is None:
            return plan
        facts = self._facts(index, plan)
        plan = replace(plan, transfer_cycles=int(facts[kernels.TRANSFER_CYCLES]))
        places = self.weights.places[index]
        if places[col.BUFFER_PLACE] == places[col.CONSTANT_PLACE]:
            return plan
        way = kernels.choose_way(facts)
        depths: tuple[int, ...] | None = plan.depths
        if way == kernels.SLICED:
            depths = self._cut(index, facts)
        if way == kernels.UNBUFFERED or depths is None:
            return plan
        return self._buffered(index, depths, facts, way == kernels.SHARED, plan)

    def _cut(self, index: int, facts: Float64Array) -> tuple[int, ...] | None:
        """Where the weights are cut; None where the slices would waste too much of their blocks."""
        from npusim.cost import buffering_kernels as kernels

        block = self.form.blocks[index]
        depth, half = int(facts[kernels.OFM_DEPTH]), int(facts[kernels.LIMIT_BYTES]) // 2
        ratio = kernels.first_slice_ratio(facts)
        depths: tuple[int, ...] = (0, depth)
        if ratio >= 1.0:
            return depths
        first, step = int(kernels.first_slice_depth(facts, ratio)), 0
        if first < depth:
            meanwhile = self.weights.cycles(index, block, depth=first, staged=True)
            step = int(kernels.next_slices_depth(facts, meanwhile))
        while step:
            step = int(kernels.whole_blocks(facts, step))
            depths = (0, *range(first, depth, step), depth)
            largest = int(self.weights.slices(index, block, depths).sum(axis=1).max())
            if largest <= half or first == step == kernels.SPLIT_DEPTH:
                break
            if step > first:
                step = _round_up(step // 2, kernels.SPLIT_DEPTH)
            else:
                first = _round_up(first // 2, kernels.SPLIT_DEPTH)
        if len(depths) > 3 and not kernels.fills_blocks(facts, step):
            return None
        return depths

    def _buffered(
        self,
        index: int,
        depths: tuple[int, ...],
        facts: Float64Array,
        shared: bool,
        plan: WeightPlan,
    ) -> WeightPlan:
        """The plan with a buffer, or `plan` where that does not fit or is slower."""
        from npusim.cost import buffering_kernels as kernels

        block, stripe = self.form.blocks[index], int(self.form.stripes[index])
        sizes = self.weights.slices(index, block, depths)
        totals = sizes.sum(axis=1)
        limit = int(facts[kernels.LIMIT_BYTES])
        halves = int(totals[::2].max()), int(totals[1::2].max(initial=0))
        if halves[1] and sum(halves) <= limit:
            buffer, double = halves, True
        elif max(halves) <= limit:
            buffer, double = (max(halves), 0), False
        else:
            return plan
        before = bool(facts[kernels.CAN_PRE_BUFFER]) and buffer[0] < facts[kernels.SLACK_BYTES]
        slack = int(facts[kernels.SLACK_CYCLES]) if before else 0
        if not before and kernels.starts_network(facts):
            slack = kernels.STARTUP_CYCLES
        perf = self.weights.run(
            *(index, block, stripe, depths, sizes, slack),
            staged=True,
            double=double,
            staged_ifm=self.form.continues_cascade(index),
        )
        if not shared:
            if facts[kernels.CAN_STAGE_IFM] and self._yields(index, perf, sum(buffer), plan):
                return plan
            if not kernels.is_worth_it(facts, perf, len(sizes), sum(buffer)):
                return plan
        return replace(
            plan,
            depths=depths,
            n_bytes=sizes,
            buffer_bytes=buffer,
            pre_buffered=before,
            slack_cycles=int(perf[kernels.LAST_SLICE]),
            slack_bytes=plan.slack_bytes - buffer[(len(sizes) - 1) % (2 if double else 1)],
        )

    def _yields(self, index: int, perf: Int64Array, buffer_bytes: int, plan: WeightPlan) -> bool:
        """Whether the arena is better left to the ifm of the operation that reads the ofm."""
        from npusim.cost import buffering_kernels as kernels

        reader = self._consumers.get(self.program.ops[index].ofm.map)
        if reader is None:
            return False
        run, next_run = self.form.runs[index], self.form.runs[reader]
        room = self.plans[index - 1].slack_bytes if index - 1 in self.plans else 0
        together = int(next_run[kernels.IFM_BYTES]) + int(perf[kernels.IFM_BYTES]) + buffer_bytes
        return bool(
            next_run[kernels.WEIGHT_READ] > 0
            and next_run[kernels.IFM_READ] > 2 * next_run[kernels.WEIGHT_READ]
            and not _runs_longest(next_run)
            and next_run[kernels.IFM_BYTES] < plan.slack_bytes
            and together > room
            and (_runs_longest(run) or next_run[kernels.IFM_READ] > perf[kernels.IFM_READ])
        )

    def _facts(self, index: int, plan: WeightPlan) -> Float64Array:
        from npusim.cost import buffering_kernels as kernels
        from npusim.cost.cycles_kernels import copy_cycles, min_read_cycles

        op, row, memories = (
            self.program.ops[index],
            self.weights.rows[index],
            self.weights.arrays[2],
        )
        form, places, run = self.form, self.weights.places[index], self.form.runs[index]
        stored, buffer = places[col.CONSTANT_PLACE], places[col.BUFFER_PLACE]
        n_bytes, n_rows = int(plan.n_bytes.sum()), int(row[col.OFM_HEIGHT])
        n_stripes = -(-n_rows // int(form.stripes[index])) if form.cascade[index] else 1
        fetches = self.weights.fetches(index, form.blocks[index]) * n_stripes
        before = self.plans.get(index - 1)
        inside = form.continues_cascade(index)
        sliceable = op.unit in ("convolution", "depthwise", "product") and not op.transposed
        facts = np.zeros(kernels.N_FACTS, np.float64)
        facts[kernels.OFM_DEPTH] = row[col.OFM_DEPTH]
        facts[kernels.BLOCK_DEPTH] = form.blocks[index, col.OFM_BLOCK_DEPTH]
        facts[kernels.WEIGHT_BYTES], facts[kernels.FETCHES] = n_bytes, fetches
        facts[kernels.TRANSFER_CYCLES] = copy_cycles(n_bytes, stored, buffer, memories)
        facts[kernels.STORED_CYCLES] = min_read_cycles(n_bytes, stored, memories) * fetches
        facts[kernels.BUFFER_CYCLES] = min_read_cycles(n_bytes, buffer, memories) * fetches
        facts[kernels.SLACK_CYCLES] = before.slack_cycles if before else 0
        facts[kernels.SLACK_BYTES] = before.slack_bytes if before else plan.slack_bytes
        facts[kernels.LIMIT_BYTES] = plan.slack_bytes
        facts[kernels.CAN_SLICE] = sliceable and not form.cascade[index]
        facts[kernels.CAN_PRE_BUFFER] = index > 0 and not inside
        facts[kernels.STARTS_NPU] = before is None or not self.program.ops[index - 1].on_npu
        facts[kernels.N_SHARING] = self._n_sharing(index)
        facts[kernels.N_STRIPES] = n_stripes
        facts[kernels.RUN_CYCLES] = run[kernels.RUN]
        facts[kernels.READ_CYCLES] = run[kernels.WEIGHT_READ]
        facts[kernels.STAGED_IFM_CYCLES] = run[kernels.STAGED_IFM_READ]
        facts[kernels.CAN_STAGE_IFM] = self._is_computed(op.ifm.map) and not inside
        return facts

    def _n_sharing(self, index: int) -> int:
        """Operations that read the same weights, if the one before does so in one piece."""
        weights = self.program.ops[index].weights
        assert weights is not None
        n_readers = self._readers[weights.key]
        if n_readers == 1:
            return 1
        other = index - 1 if index else 1
        if other >= len(self.program.ops):
            return 1
        neighbour = self.program.ops[other]
        same = neighbour.weights is not None and neighbour.weights.key == weights.key
        whole = index == 0 or len(self.plans[other].depths) == 2
        return n_readers if same and whole else 1

    def _is_computed(self, map_index: int) -> bool:
        """Whether the NPU's operations compute a map, and do not only move data."""
        producer = self._producers.get(map_index)
        return producer is not None and not moves_data(producer)


def moves_data(op: NpuOp) -> bool:
    """Whether an operation only moves data, so that its ofm is not worth a place of its own."""
    return op.kind in _MOVING_KINDS


def _runs_longest(run: Int64Array) -> bool:
    """Whether an operation takes longer to run than its weights or its ifm to be read."""
    from npusim.cost import buffering_kernels as kernels

    return bool(run[kernels.RUN] > max(run[kernels.WEIGHT_READ], run[kernels.IFM_READ]))


def _round_up(value: int, step: int) -> int:
    return -(-value // step) * step
