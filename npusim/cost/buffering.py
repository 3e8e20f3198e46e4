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

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from npusim.cost import columns as col
from npusim.cost.program import NpuOp, Program
from npusim.cost.weight_sizes import WeightSizes

Int64Array = npt.NDArray[np.int64]
Float64Array = npt.NDArray[np.float64]
Arrays = tuple[Int64Array, Float64Array, Float64Array]
"""npu, rates and memories, as `npusim.cost.rows` makes them."""

UNLIMITED_BYTES: Final = 1 << 30
"""The limit of a buffer where the arena has none."""
BUFFERINGS: Final = ("none", "single", "double")
SLICED_KINDS: Final = ("convolution", "depthwise", "product")
"""Units whose weights may be cut."""


@dataclass(frozen=True, slots=True, eq=False)
class WeightPlan:
    """How one operation gets its weights.

    Attributes:
        depths: ofm channels at which the weights are cut, first 0, last the ofm depth.
        n_bytes: of each slice's weight streams, and of its biases and scales, int64 [n_slices, 2].
        buffer_bytes: of the two parts of the buffer, which slices take in turn; 0 where not used.
        pre_buffered: whether the first slice is copied under the operation before.
        transfer_cycles: to copy all weights and scales in one piece.
        slack_cycles: that hide a transfer for the operation after.
        slack_bytes: room for a buffer under this operation.
    """

    depths: tuple[int, ...]
    n_bytes: Int64Array
    buffer_bytes: tuple[int, int] = (0, 0)
    pre_buffered: bool = False
    transfer_cycles: int = 0
    slack_cycles: int = 0
    slack_bytes: int = UNLIMITED_BYTES

    @property
    def buffering(self) -> str:
        """One of `BUFFERINGS`."""
        return BUFFERINGS[sum(size > 0 for size in self.buffer_bytes)]

    @property
    def slice_bytes(self) -> Int64Array:
        """Of each slice, weights and scales together."""
        total: Int64Array = self.n_bytes.sum(axis=1)
        return total


class Buffering:
    """Plans the weights of a program's operations, one after the other.

    Args:
        program: the operations.
        rows: of `npusim.cost.rows`, int64 [n_ops, ROW_COLUMNS].
        blocks: int64 [n_ops, BLOCKS_COLUMNS].
        places: int64 [n_ops, PLACE_COLUMNS], with the place of the buffer in each row.
        arrays: npu, rates and memories.
        sizes: of the weights.
        limit_bytes: most that the arena may take.
        used_bytes: of the arena while each operation runs, without buffers, int64 [n_ops].
    """

    def __init__(
        self,
        program: Program,
        rows: Int64Array,
        blocks: Int64Array,
        places: Int64Array,
        arrays: Arrays,
        sizes: WeightSizes,
        limit_bytes: int = UNLIMITED_BYTES,
        used_bytes: Int64Array | None = None,
    ):
        self.program, self.rows, self.blocks, self.places = program, rows, blocks, places
        self.arrays, self.sizes = arrays, sizes
        self.limit_bytes = min(limit_bytes, UNLIMITED_BYTES)
        n_ops = len(program.ops)
        self.used_bytes = np.zeros(n_ops, np.int64) if used_bytes is None else used_bytes
        self.plans: list[WeightPlan] = []
        self._readers: dict[tuple[object, ...], int] = {}
        for op in program.ops:
            if op.weights is not None:
                key = op.weights.key
                self._readers[key] = self._readers.get(key, 0) + 1

    def run(self) -> list[WeightPlan]:
        """A plan for every operation, those without weights included."""
        for index in range(len(self.program.ops)):
            self.plans.append(self._plan(index))
        return self.plans

    def _plan(self, index: int) -> WeightPlan:
        from npusim.cost import buffering_kernels as kernels

        op, row = self.program.ops[index], self.rows[index]
        depth = int(row[col.OFM_DEPTH])
        if not op.on_npu:
            return WeightPlan((0, depth), np.zeros((1, 2), np.int64))
        limit = max(self.limit_bytes - int(self.used_bytes[index]), 0)
        whole = (0, depth)
        sizes = self._sizes(index, whole)
        perf = self._performance(index, whole, sizes, 0, staged=False, double=False)
        cycles = self._cycles(index)
        if op.weights is None:
            return WeightPlan(whole, sizes, slack_cycles=cycles, slack_bytes=limit)
        facts = self._facts(index, sizes, perf, limit)
        plan = WeightPlan(
            whole,
            sizes,
            transfer_cycles=int(facts[kernels.TRANSFER_CYCLES]),
            slack_cycles=cycles,
            slack_bytes=limit,
        )
        if self.places[index, col.BUFFER_PLACE] == self.places[index, col.CONSTANT_PLACE]:
            return plan
        way = kernels.choose_way(facts)
        if way == kernels.UNBUFFERED:
            return plan
        depths: tuple[int, ...] = whole
        if way == kernels.SLICED:
            found = self._cut(index, facts)
            if found is None:
                return plan
            depths = found
        return self._buffered(index, depths, facts, way == kernels.SHARED, plan)

    def _cut(self, index: int, facts: Float64Array) -> tuple[int, ...] | None:
        """Where the weights are cut; None where the slices would waste too much of their blocks."""
        from npusim.cost import buffering_kernels as kernels

        depth, half = int(facts[kernels.OFM_DEPTH]), int(facts[kernels.LIMIT_BYTES]) // 2
        ratio = kernels.first_slice_ratio(facts)
        if ratio >= 1.0:
            return 0, depth
        first = int(kernels.first_slice_depth(facts, ratio))
        step = 0
        depths: tuple[int, ...] = (0, depth)
        if first < depth:
            step = int(kernels.next_slices_depth(facts, self._cycles(index, first)))
        while step:
            step = int(kernels.whole_blocks(facts, step))
            depths = (0, *range(first, depth, step), depth)
            largest = int(self._sizes(index, depths).sum(axis=1).max())
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

        sizes = self._sizes(index, depths)
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
        perf = self._performance(index, depths, sizes, slack, staged=True, double=double)
        if not shared and not kernels.is_worth_it(facts, perf, len(sizes), sum(buffer)):
            return plan
        last = buffer[(len(sizes) - 1) % (2 if double else 1)]
        return WeightPlan(
            depths,
            sizes,
            buffer,
            before,
            plan.transfer_cycles,
            int(perf[kernels.LAST_SLICE]),
            plan.slack_bytes - last,
        )

    def _facts(self, index: int, sizes: Int64Array, perf: Int64Array, limit: int) -> Float64Array:
        from npusim.cost import buffering_kernels as kernels
        from npusim.cost.cycles_kernels import copy_cycles, min_read_cycles

        op, row, memories = self.program.ops[index], self.rows[index], self.arrays[2]
        places = self.places[index]
        stored, buffer = places[col.CONSTANT_PLACE], places[col.BUFFER_PLACE]
        n_bytes = int(sizes.sum())
        fetches = self._fetches(index)
        before = self.plans[index - 1] if index else None
        facts = np.zeros(kernels.N_FACTS, np.float64)
        facts[kernels.OFM_DEPTH] = row[col.OFM_DEPTH]
        facts[kernels.BLOCK_DEPTH] = self.blocks[index, col.OFM_BLOCK_DEPTH]
        facts[kernels.WEIGHT_BYTES], facts[kernels.FETCHES] = n_bytes, fetches
        facts[kernels.TRANSFER_CYCLES] = copy_cycles(n_bytes, stored, buffer, memories)
        facts[kernels.STORED_CYCLES] = min_read_cycles(n_bytes, stored, memories) * fetches
        facts[kernels.BUFFER_CYCLES] = min_read_cycles(n_bytes, buffer, memories) * fetches
        facts[kernels.SLACK_CYCLES] = before.slack_cycles if before else 0
        facts[kernels.SLACK_BYTES] = before.slack_bytes if before else limit
        facts[kernels.LIMIT_BYTES] = limit
        facts[kernels.CAN_SLICE] = op.unit in SLICED_KINDS and not op.transposed
        facts[kernels.CAN_PRE_BUFFER] = index > 0 and self.program.ops[index - 1].on_npu
        facts[kernels.STARTS_NPU] = index == 0 or not self.program.ops[index - 1].on_npu
        facts[kernels.N_SHARING] = self._n_sharing(index)
        facts[kernels.N_STRIPES] = 1
        facts[kernels.RUN_CYCLES] = perf[kernels.RUN]
        facts[kernels.READ_CYCLES] = perf[kernels.WEIGHT_READ]
        facts[kernels.STAGED_IFM_CYCLES] = perf[kernels.STAGED_IFM_READ]
        facts[kernels.CAN_STAGE_IFM] = self._is_computed(op.ifm.map)
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
        producers = [op for op in self.program.ops if op.ofm.map == map_index and op.on_npu]
        return bool(producers) and producers[0].kind not in ("copy", "transpose", "reverse", "tile")

    def _sizes(self, index: int, depths: Sequence[int]) -> Int64Array:
        op = self.program.ops[index]
        if op.weights is None:
            return np.zeros((len(depths) - 1, 2), np.int64)
        row, block = self.rows[index], self.blocks[index]
        return self.sizes.slices(
            op, int(row[col.IFM_BITS]), int(block[col.OFM_BLOCK_DEPTH]), tuple(depths)
        )

    def _fetches(self, index: int) -> int:
        from npusim.cost.cycles_kernels import element_access

        elements = np.empty(col.ACCESS_COLUMNS, np.int64)
        element_access(self.rows[index], self.blocks[index], self.arrays[0], elements)
        return int(elements[col.WEIGHT_FETCHES])

    def _cycles(self, index: int, depth: int | None = None) -> int:
        """Cycles of an operation whose weights are not buffered, or of a first slice of it."""
        from npusim.cost.cycles_kernels import op_cycles

        row, places = self.rows[index].copy(), self.places[index].copy()
        places[col.BUFFER_PLACE] = -1
        if depth is not None:
            row[col.OFM_DEPTH] = depth
        cycles = np.empty(col.CYCLE_COLUMNS, np.int64)
        npu, rates, memories = self.arrays
        op_cycles(row, self.blocks[index], npu, rates, memories, places, cycles)
        return int(cycles[col.OP_CYCLES] - (0 if depth is None else cycles[col.DRAIN_CYCLES]))

    def _performance(
        self,
        index: int,
        depths: Sequence[int],
        sizes: Int64Array,
        slack_cycles: int,
        *,
        staged: bool,
        double: bool,
    ) -> Int64Array:
        from npusim.cost import buffering_kernels as kernels

        perf = np.empty(kernels.N_PERF, np.int64)
        how = np.array([self.rows[index, col.OFM_HEIGHT], slack_cycles, staged, double], np.int64)
        machine = (*self.arrays, self.places[index])
        n_bytes = np.ascontiguousarray(sizes.sum(axis=1))
        kernels.performance(
            *(self.rows[index], self.blocks[index], machine),
            *(np.array(depths, np.int64), n_bytes, how, perf),
        )
        return perf


def _round_up(value: int, step: int) -> int:
    return -(-value // step) * step
