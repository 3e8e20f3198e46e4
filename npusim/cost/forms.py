# SPDX-License-Identifier: Apache-2.0
"""The form in which a program is executed, and what its weights take in any form."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from npusim._once import once_per_object
from npusim.cost import columns as col
from npusim.cost import plan_columns
from npusim.cost.batch_arrays import op_lines, op_links
from npusim.cost.plan_columns import HALF0, HALF1
from npusim.cost.program import Program
from npusim.cost.slice_table import SliceTable, no_slices, slices_room
from npusim.cost.weight_sizes import (
    ExactSizes,
    ExpectedSizes,
    WeightSizes,
    coding_order,
    exact_sizes,
    op_statistics,
)
from npusim.errors import ConfigError
from npusim.npu import NpuConfig
from npusim.weights.expected import stream_law

Int64Array = npt.NDArray[np.int64]
Float64Array = npt.NDArray[np.float64]
MachineArrays = tuple[Int64Array, Float64Array, Float64Array, Int64Array]
"""npu, rates and memories, as `npusim.cost.rows` makes them; lines of the memories for maps,
constants and buffers."""

_SLICE_DEPTH_MIN = 16


@dataclass(slots=True, eq=False)
class Form:
    """The form in which a program is executed: stripes, cascades, blocks and weights.

    Attributes:
        stripes: rows of the ofm that each operation computes at a time, int64 [n_ops].
        entries: blocks for stripes of that height, and how each operation runs with its weights in
            one piece where they are stored, int64 [n_ops, entries_kernels.ENTRY_COLUMNS].
        plans: how each operation gets its weights, int64 [n_ops, plan_columns.PLAN_COLUMNS].
        cascade: last operation of the cascade that each one is part of, int64 [n_ops]; 0: none.
        rolling_bytes: of the rolling buffer that its ifm is within a cascade, int64 [n_ops].
    """

    stripes: Int64Array
    entries: Int64Array
    plans: Int64Array
    cascade: Int64Array
    rolling_bytes: Int64Array

    @property
    def blocks(self) -> Int64Array:
        """int64 [n_ops, BLOCKS_COLUMNS]."""
        return self.entries[:, : col.BLOCKS_COLUMNS]

    @property
    def buffer_bytes(self) -> Int64Array:
        """Of the weight buffer of each operation, int64 [n_ops]."""
        total: Int64Array = self.plans[:, HALF0] + self.plans[:, HALF1]
        return total

    def copy(self) -> Form:
        """One that can be changed without changing this one."""
        return Form(
            *(self.stripes.copy(), self.entries.copy(), self.plans.copy()),
            *(self.cascade.copy(), self.rolling_bytes.copy()),
        )

    def take(self, index: int, other: Form) -> None:
        """Make one operation as it is in another form, but for cascades."""
        for name in ("stripes", "entries", "plans"):
            getattr(self, name)[index] = getattr(other, name)[index]

    def continues_cascade(self, index: int) -> bool:
        """Whether an operation reads a rolling buffer: it is in a cascade, but not the first."""
        cascade = self.cascade[index]
        return bool(cascade) and index > 0 and bool(self.cascade[index - 1] == cascade)


class Weights:
    """Sizes and times of a program's weights, in any form.

    Args:
        program: the operations.
        rows: of `npusim.cost.rows`, int64 [n_ops, ROW_COLUMNS].
        npu: that executes them.
        machine: the same as arrays, with its memories.
        sizes: of the weights.
    """

    def __init__(
        self,
        program: Program,
        rows: Int64Array,
        npu: NpuConfig,
        machine: MachineArrays,
        sizes: WeightSizes,
    ):
        self.program, self.rows, self.npu, self.machine = program, rows, npu, machine
        self.ops, self.links = op_lines(program), op_links(program)
        self.statistics = np.zeros((len(program.ops), 2))
        self.table: SliceTable | None = None
        self.deviations = 0.0
        if type(sizes) is ExpectedSizes and coding_order(sizes.npu) == coding_order(npu):
            self.deviations = sizes.deviations
            for index, op in enumerate(program.ops):
                if op.weights is not None:
                    self.statistics[index] = op_statistics(op, sizes.statistics)
        else:
            self.table = _table(program, npu, sizes)
        deepest = int(rows[:, col.OFM_DEPTH].max(initial=0))
        self.room = slices_room(deepest // _SLICE_DEPTH_MIN + 1)

    def known(
        self, deviations: float = 0.0
    ) -> tuple[Float64Array, tuple[Float64Array, Float64Array], object]:
        """What tells kernels bytes of weights.

        Args:
            deviations: how many more of them than the sizes have, where these are expected ones.
        """
        return (
            self.statistics,
            stream_law(self.deviations + deviations),
            no_slices() if self.table is None else self.table.arrays,
        )

    @property
    def are_uncertain(self) -> bool:
        """Whether bytes are those expected, give or take a deviation."""
        return self.table is None and not self.deviations

    def form(self, rows: Int64Array, stripes: Int64Array) -> Form:
        """The form of stripes in which all weights stay where they are stored.

        Args:
            rows: of stripes, int64 [n_ops, ROW_COLUMNS].
            stripes: how many rows of the ofm each has, int64 [n_ops].

        Raises:
            ConfigError: no block of an operation fits the NPU.
        """
        from npusim.cost.blocks_kernels import SEARCH_COLUMNS
        from npusim.cost.entries_kernels import (
            ENTRY_COLUMNS,
            FITS,
            fill_blocks,
            fill_entries,
            fill_sizes,
            find_sizes,
        )
        from npusim.cost.plans_kernels import whole_plans

        n_ops, most = len(rows), max(self.npu.ofm_block_height_max, self.npu.ofm_block_width_max)
        entries = np.empty((n_ops, ENTRY_COLUMNS), np.int64)
        room = np.empty(SEARCH_COLUMNS, np.int64), np.empty((2, most, 3), np.int64)
        fill_blocks(rows, self.machine[0], room, entries)
        if not entries[:, FITS].all():
            raise ConfigError(
                f"block must fit the {self.npu.shram_banks} SHRAM banks of {self.npu.name}, got "
                f"none for operation {int(np.argmin(entries[:, FITS]))}"
            )
        if self.table is None:
            statistics, law, _ = self.known()
            fill_sizes(self.ops, statistics, law, self.machine[0], entries)
        else:
            first = 0
            while (first := find_sizes(first, self.ops, self.table.arrays, entries)) < n_ops:
                depth = int(rows[first, col.OFM_DEPTH])
                self.add_slices(first, int(entries[first, col.OFM_BLOCK_DEPTH]), depth, depth)
        fill_entries(self.ops, stripes, self.machine, entries, np.empty((n_ops, 2), np.int64))
        plans = np.empty((n_ops, plan_columns.PLAN_COLUMNS), np.int64)
        whole_plans(self.ops, entries, plans)
        zeros = np.zeros(n_ops, np.int64)
        return Form(stripes.copy(), entries, plans, zeros, zeros.copy())

    def add_slices(self, index: int, block_depth: int, first: int, step: int) -> None:
        """Find out what the weights of an operation take in slices; see `SliceTable.add`."""
        assert self.table is not None  # what is expected is known of all slices
        op, row = self.program.ops[index], self.rows[index]
        self.table.add(index, op, row, block_depth, first, step)

    def staged_cycles(self, index: int, block: Int64Array) -> int:
        """Cycles of an operation whose weights are all in their buffer."""
        from npusim.cost.cycles_kernels import op_cycles
        from npusim.cost.entries_kernels import set_places

        npu, rates, memories, roles = self.machine
        places, cycles = (
            np.empty(col.PLACE_COLUMNS, np.int64),
            np.empty(col.CYCLE_COLUMNS, np.int64),
        )
        set_places(self.ops[index], roles, places)
        op_cycles(self.rows[index], block, npu, rates, memories, places, cycles)
        return int(cycles[col.OP_CYCLES])


def _table(program: Program, npu: NpuConfig, sizes: WeightSizes) -> SliceTable:
    """The table of a program's weights; with `exact_sizes` it is kept."""
    own = exact_sizes(program, npu, sizes.encoder) if isinstance(sizes, ExactSizes) else None
    if own is None or sizes is not own:
        return SliceTable(len(program.ops), sizes)
    kept = _tables(program)
    if id(own) not in kept:
        kept[id(own)] = SliceTable(len(program.ops), own)
    return kept[id(own)]


@once_per_object
def _tables(program: Program) -> dict[int, SliceTable]:
    return {}
