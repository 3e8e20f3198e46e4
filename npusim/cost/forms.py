# SPDX-License-Identifier: Apache-2.0
"""The form in which a program is executed, and what its weights take in any form."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from npusim.cost import columns as col
from npusim.cost.program import Program
from npusim.cost.weight_sizes import WeightSizes
from npusim.weights.format import SCALE_BYTES

Int64Array = npt.NDArray[np.int64]
Float64Array = npt.NDArray[np.float64]
Arrays = tuple[Int64Array, Float64Array, Float64Array]
"""npu, rates and memories, as `npusim.cost.rows` makes them."""

UNLIMITED_BYTES: Final = 1 << 30
"""The limit of a buffer where the arena has none."""
BUFFERINGS: Final = ("none", "single", "double")


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
        first, second = self.buffer_bytes
        return BUFFERINGS[(first > 0) + (second > 0)]

    @property
    def slice_bytes(self) -> Int64Array:
        """Of each slice, weights and scales together."""
        total: Int64Array = self.n_bytes.sum(axis=1)
        return total

    @property
    def first_bytes(self) -> int:
        """Of the first slice, without what pads its biases and scales."""
        n_weight_bytes, n_scale_bytes = self.n_bytes[0].tolist()
        n_channels = self.depths[1] - self.depths[0]
        return int(n_weight_bytes + (SCALE_BYTES * n_channels if n_scale_bytes else 0))


@dataclass(slots=True, eq=False)
class Form:
    """The form in which a program is executed: stripes, cascades, blocks and weights.

    Attributes:
        stripes: rows of the ofm that each operation computes at a time, int64 [n_ops].
        blocks: int64 [n_ops, BLOCKS_COLUMNS], for stripes of that height.
        plans: how each operation gets its weights.
        cascade: last operation of the cascade that each one is part of, int64 [n_ops]; 0: none.
        rolling_bytes: of the rolling buffer that its ifm is within a cascade, int64 [n_ops].
        runs: how each operation runs with its weights in one piece where they are stored, int64
            [n_ops, buffering_kernels.N_PERF].
    """

    stripes: Int64Array
    blocks: Int64Array
    plans: list[WeightPlan]
    cascade: Int64Array
    rolling_bytes: Int64Array
    runs: Int64Array

    def copy(self) -> Form:
        """One that can be changed without changing this one."""
        return Form(
            *(self.stripes.copy(), self.blocks.copy(), list(self.plans)),
            *(self.cascade.copy(), self.rolling_bytes.copy(), self.runs.copy()),
        )

    def continues_cascade(self, index: int) -> bool:
        """Whether an operation reads a rolling buffer: it is in a cascade, but not the first."""
        cascade = self.cascade[index]
        return bool(cascade) and index > 0 and bool(self.cascade[index - 1] == cascade)


class Weights:
    """Sizes and times of a program's weights, in any form.

    Args:
        program: the operations.
        rows: of `npusim.cost.rows`, int64 [n_ops, ROW_COLUMNS].
        places: int64 [n_ops, PLACE_COLUMNS], with the place of the buffer in each row.
        arrays: npu, rates and memories.
        sizes: of the weights.
    """

    def __init__(
        self,
        program: Program,
        rows: Int64Array,
        places: Int64Array,
        arrays: Arrays,
        sizes: WeightSizes,
    ):
        self.program, self.rows, self.places = program, rows, places
        self.arrays, self.sizes = arrays, sizes
        self._unbuffered: dict[tuple[int, bytes], WeightPlan] = {}

    def slices(self, index: int, block: Int64Array, depths: Sequence[int]) -> Int64Array:
        """Bytes of weights, and of scales, of each depth slice, int64 [n_slices, 2]."""
        op = self.program.ops[index]
        if op.weights is None or not op.on_npu:
            return np.zeros((len(depths) - 1, 2), np.int64)
        bits = int(self.rows[index, col.IFM_BITS])
        return self.sizes.slices(op, bits, int(block[col.OFM_BLOCK_DEPTH]), tuple(depths))

    def fetches(self, index: int, block: Int64Array) -> int:
        """How often the whole operation reads its weights."""
        from npusim.cost.cycles_kernels import element_access

        elements = np.empty(col.ACCESS_COLUMNS, np.int64)
        element_access(self.rows[index], block, self.arrays[0], elements)
        return int(elements[col.WEIGHT_FETCHES])

    def cycles(
        self, index: int, block: Int64Array, *, depth: int | None = None, staged: bool = False
    ) -> int:
        """Cycles of an operation, or of a first slice of it of so many channels.

        Args:
            index, block: of the operation.
            depth: of the slice, after which another one follows; None: no slices.
            staged: whether the weights are in their buffer.
        """
        from npusim.cost.cycles_kernels import op_cycles

        row, places = self.rows[index].copy(), self.places[index].copy()
        if not staged:
            places[col.BUFFER_PLACE] = -1
        if depth is not None:
            row[col.OFM_DEPTH] = depth
        cycles = np.empty(col.CYCLE_COLUMNS, np.int64)
        npu, rates, memories = self.arrays
        op_cycles(row, block, npu, rates, memories, places, cycles)
        return int(cycles[col.OP_CYCLES] - (0 if depth is None else cycles[col.DRAIN_CYCLES]))

    def run(
        self,
        index: int,
        block: Int64Array,
        stripe: int,
        depths: Sequence[int],
        sizes: Int64Array,
        slack_cycles: int = 0,
        *,
        staged: bool = False,
        double: bool = False,
        staged_ifm: bool = False,
    ) -> Int64Array:
        """How an operation runs, int64 [N_PERF]; see `npusim.cost.buffering_kernels`."""
        from npusim.cost import buffering_kernels as kernels

        perf = np.empty(kernels.N_PERF, np.int64)
        how = np.array([stripe, slack_cycles, staged, double], np.int64)
        places = self.places[index].copy()
        if staged_ifm:
            places[col.IFM_PLACE] = places[col.BUFFER_PLACE]
        machine = (*self.arrays, places)
        n_bytes = np.ascontiguousarray(sizes.sum(axis=1))
        kernels.performance(
            *(self.rows[index], block, machine, np.array(depths, np.int64), n_bytes, how, perf)
        )
        return perf

    def whole(self, blocks: Int64Array, stripes: Int64Array) -> tuple[list[WeightPlan], Int64Array]:
        """All operations with their weights in one piece where they are stored.

        Args:
            blocks: of stripes, int64 [n_ops, BLOCKS_COLUMNS].
            stripes: their rows, int64 [n_ops].

        Returns:
            Plans, and how each stripe runs, int64 [n_ops, N_PERF]; zeros on the CPU.
        """
        from npusim.cost import buffering_kernels as kernels

        ops, depths = self.program.ops, self.rows[:, col.OFM_DEPTH].tolist()
        sizes = [
            self.slices(index, blocks[index], (0, depth)) for index, depth in enumerate(depths)
        ]
        cycles = np.zeros(len(ops), np.int64)
        runs = np.zeros((len(ops), kernels.N_PERF), np.int64)
        n_bytes = np.array([one.sum() for one in sizes], np.int64)
        kernels.whole_runs(
            *(self.rows, blocks, self.arrays, self.places, stripes, n_bytes, cycles, runs)
        )
        runs[[not op.on_npu for op in ops]] = 0
        plans = []
        for index, (op, depth) in enumerate(zip(ops, depths, strict=True)):
            plan = WeightPlan((0, depth), sizes[index], slack_cycles=int(cycles[index]))
            if not op.on_npu:
                plan = WeightPlan((0, depth), sizes[index], slack_bytes=0)
            self._unbuffered[index, blocks[index].tobytes()] = plan
            plans.append(plan)
        return plans, runs

    def unbuffered(self, index: int, block: Int64Array) -> WeightPlan:
        """The plan of an operation that reads its weights where they are stored."""
        key = index, block.tobytes()
        if key not in self._unbuffered:
            depth = int(self.rows[index, col.OFM_DEPTH])
            if not self.program.ops[index].on_npu:
                plan = WeightPlan((0, depth), np.zeros((1, 2), np.int64), slack_bytes=0)
            else:
                sizes = self.slices(index, block, (0, depth))
                plan = WeightPlan((0, depth), sizes, slack_cycles=self.cycles(index, block))
            self._unbuffered[key] = plan
        return self._unbuffered[key]
