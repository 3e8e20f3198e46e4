# SPDX-License-Identifier: Apache-2.0
"""How a machine executes a program: blocks, weight buffers, the arena and the cycles of it all.

The schedule is the one that Arm's compiler chooses: without a limit of the arena every operation
runs as a whole, as fast as it can; with one, or for the least arena, `npusim.cost.cascades` cuts
operations into stripes. Where feature maps do not live in the memory in which weights are staged,
`npusim.cost.staging` moves those there that fit.

Source: [VELA] regor 5.2.0.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Final

import numpy as np

from npusim._once import once_per_object
from npusim.cost import columns as col
from npusim.cost.arena import Arena, allocate
from npusim.cost.buffering import plan_weights
from npusim.cost.cascades import ArenaFitter, input_rows, primary_input
from npusim.cost.cycles import OpCycles, measured
from npusim.cost.decoder import WeightDecoder
from npusim.cost.flash import weight_values
from npusim.cost.forms import Form, MachineArrays, Weights
from npusim.cost.liveness import LiveRanges, MemorySchedule, live_ranges
from npusim.cost.memory_table import MemoryTable, memory_table
from npusim.cost.outcomes import mean_outcome, other_forms
from npusim.cost.plan_columns import (
    FIRST_BYTES,
    FIRST_DEPTH,
    HALF0,
    HALF1,
    N_SLICES,
    NEXT_DEPTH,
    PRE_BUFFERED,
    SCALE_BYTES,
    UNLIMITED_BYTES,
    WEIGHT_BYTES,
)
from npusim.cost.program import Program
from npusim.cost.rows import Int64Array, memory_array, npu_array, program_rows, rate_array
from npusim.cost.slice_table import slice_depths
from npusim.cost.staging import BoolArray, Stager, StagingFitter, rolling_maps, table_within
from npusim.cost.weight_sizes import WeightSizes
from npusim.hardware import Machine
from npusim.memories import Memory

_NO_LIMIT: Final = 1 << 16
"""Weights a cycle, more than any hardware can use."""


@dataclass(frozen=True, slots=True)
class MemoryRoles:
    """The memories of a machine, each once, and which of them plays which part.

    Attributes:
        memories: all of them.
        feature_maps, constants, staging: index of the one for maps, for weights, and for buffers.
    """

    memories: tuple[Memory, ...]
    feature_maps: int
    constants: int
    staging: int

    @classmethod
    def of(cls, target: Machine) -> MemoryRoles:
        """Those of a machine."""
        parts = (target.feature_maps, target.constants, target.staging)
        names = list(dict.fromkeys(part.name for part in parts))
        memories = tuple(next(m for m in parts if m.name == name) for name in names)
        return cls(memories, *(names.index(part.name) for part in parts))


@dataclass(frozen=True, slots=True, eq=False)
class Schedule:
    """A program on a machine.

    Attributes:
        program: what is executed.
        target: on what.
        roles: its memories.
        rows: of the operations, with the bytes of their weights, int64 [n_ops, ROW_COLUMNS].
        places: which of the memories their data is in, int64 [n_ops, PLACE_COLUMNS].
        form: stripes, cascades, blocks and how each operation gets its weights.
        ranges: of the arena; where feature maps live elsewhere, of the staging memory.
        arena: where they are.
        spilled_ranges: of the feature maps that are not staged, where they live elsewhere.
        spilled_arena: where these are.
        cycles: of each operation on its own.
        npu_cycles: with the transfers that it waits for, int64 [n_ops].
        total_cycles: of the slower of NPU and memories, int64 [n_ops]; 0 on the CPU. Where bytes of
            weights leave open how they are buffered, these and `npu_cycles` are means.
        cycles_range: least and most total cycles of an inference, of what is likely.
        decoder: one of `npusim.cost.estimate.DECODERS`.
    """

    program: Program
    target: Machine
    roles: MemoryRoles
    rows: Int64Array
    places: Int64Array
    form: Form
    ranges: LiveRanges
    arena: Arena
    spilled_ranges: LiveRanges
    spilled_arena: Arena
    cycles: OpCycles
    npu_cycles: Int64Array
    total_cycles: Int64Array
    cycles_range: tuple[int, int]
    decoder: str

    def decode_cycles(self, index: int) -> int:
        """Cycles to decode an operation's weights as often as they are read; 0 if not known."""
        from npusim.cost.cycles_kernels import weight_fetches

        once = int(self.rows[index, col.DECODE_CYCLES])
        block = self.form.blocks[index]
        return once * int(weight_fetches(self.rows[index], block)) if once else 0


class Scheduler:
    """Schedules one program on one machine.

    Args:
        program: what to execute.
        target: on what.
        sizes: of the weights.
        decoder: how long the streams take to decode; None: as fast as the NPU's field
            `weight_decoder_weights_per_cycle` says, like in the compiler. The schedule is the same.

    Raises:
        ConfigError: no block of an operation fits the NPU.
    """

    def __init__(
        self,
        program: Program,
        target: Machine,
        sizes: WeightSizes,
        decoder: WeightDecoder | None = None,
    ):
        self.program, self.target, self.decoder = program, target, decoder
        self.roles = MemoryRoles.of(target)
        self.table: MemoryTable = memory_table(program)
        self.formats, self.rows = program_rows(program)
        self.machine = machine_arrays(target, self.roles)
        self.weights = Weights(program, self.rows, target.npu, self.machine, sizes)

    def run(self, optimise: str = "performance", limit_bytes: int | None = None) -> Schedule:
        """The schedule.

        Args:
            optimise: "performance" or "size": whether the arena, where it has no limit, may be as
                large as is best for speed, or is to be as small as possible.
            limit_bytes: most that the arena should take; the schedule may need more. Of the
                staging memory, where feature maps live elsewhere.
        """
        whole = self.form(self.rows[:, col.OFM_HEIGHT])
        if self.target.spills:
            return self._run_staged(whole, optimise, limit_bytes)
        form = whole.copy()
        form.plans = plan_weights(self.weights, form)
        others: list[Form] = []
        if optimise == "size" or limit_bytes is not None:
            fitter = ArenaFitter(
                *(self.program, self.table, self.formats, self.weights, self.form, self.live)
            )
            form = fitter.fit(whole, form, None if optimise == "size" else limit_bytes)
        elif self.weights.are_uncertain:
            others = other_forms(self.weights, whole, form)
        return self.measure(form, others=others)

    def _run_staged(self, whole: Form, optimise: str, limit_bytes: int | None) -> Schedule:
        """The schedule where feature maps live elsewhere than in the memory that has a limit."""
        limit = UNLIMITED_BYTES if limit_bytes is None else limit_bytes
        facts = self.program, self.table, self.formats, self.weights
        fitter = StagingFitter(*facts, self.form, self.live, limit)
        form = fitter.fit(whole, None, None if optimise == "size" else limit)
        staged = Stager(*facts, limit).run(form, self._memory_schedule(form))
        return self.measure(form, staged)

    def form(self, stripes: Int64Array) -> Form:
        """The form in which every operation computes so many rows at a time, unbuffered."""
        rows = np.ascontiguousarray(stripes)
        return self.weights.form(striped_rows(self.rows, rows), rows)

    def live(self, form: Form, staged: BoolArray | None = None) -> LiveRanges:
        """Live ranges of the memory that has a limit: the arena, or the staging memory.

        Args:
            form: of the program.
            staged: which maps are in the staging memory, [n_maps]; None: rolling buffers alone.
        """
        table = self.table
        if self.target.spills:
            table = table_within(
                table, rolling_maps(self.program, form) if staged is None else staged
            )
        return live_ranges(table, self.formats, self._memory_schedule(form))

    def measure(
        self, form: Form, staged: BoolArray | None = None, others: Sequence[Form] = ()
    ) -> Schedule:
        """The schedule of a form.

        Args:
            form: of the program.
            staged: which maps are in the staging memory, [n_maps], where they live elsewhere.
            others: two forms of which cycles are the mean, where the form is not the only likely
                one; maps are not staged.
        """
        nowhere = np.zeros(len(self.program.maps), bool)
        ranges = self.live(form, staged)
        spilled = ranges.emptied()
        if self.target.spills:
            spilled = self._spilled(form, nowhere if staged is None else ~staged)
        places = self._places(nowhere if staged is None else staged)
        rows, cycles = self._measure(form, places)
        taken = [self._taken(form, cycles)]
        if others:
            taken = [
                self._taken(one, self._measure(one, self._places(nowhere))[1]) for one in others
            ]
        busy, total = (
            mean_outcome(one, other) for one, other in zip(taken[0], taken[-1], strict=True)
        )
        totals = [int(of_all.sum()) for _, of_all in taken]
        return Schedule(
            *(self.program, self.target, self.roles, rows, places, form),
            ranges,
            allocate(ranges),
            spilled,
            allocate(spilled),
            *(cycles, busy, total, (min(totals), max(totals))),
            "compiler" if self.decoder is None else self.decoder.name,
        )

    def _taken(self, form: Form, cycles: OpCycles) -> tuple[Int64Array, Int64Array]:
        """Cycles of operations one after the other, of the NPU and total, int64 [n_ops] each."""
        from npusim.cost.plans_kernels import all_busy_cycles

        ops = self.weights.ops
        busy, runs = np.empty(len(ops), np.int64), cycles.cycles[:, col.OP_CYCLES].copy()
        all_busy_cycles(ops, form.plans, runs, self.machine, busy)
        slowest = cycles.memory_cycles[:, :, col.MEMORY_CYCLES].max(axis=1, initial=0)
        return busy, np.where(ops[:, col.UNIT] == col.CPU, 0, np.maximum(busy, slowest))

    def _spilled(self, form: Form, outside: BoolArray) -> LiveRanges:
        """Live ranges of the maps outside of the staging memory."""
        schedule = replace(
            self._memory_schedule(form), buffer_bytes=np.zeros((len(form.plans), 2), np.int64)
        )
        return live_ranges(table_within(self.table, outside), self.formats, schedule)

    def _places(self, staged: BoolArray) -> Int64Array:
        """Which memory each operation's maps, weights, buffer and scratch map are in."""
        roles, operands = self.roles, _operand_maps(self.program)
        maps = np.where(_constant_maps(self.program), roles.constants, roles.feature_maps)
        maps[staged] = roles.staging
        places = np.empty((len(operands), col.PLACE_COLUMNS), np.int64)
        places[:, : col.CONSTANT_PLACE] = maps[operands]
        places[:, col.CONSTANT_PLACE] = roles.constants
        places[:, col.BUFFER_PLACE] = roles.staging
        places[:, col.SCRATCH_PLACE] = roles.feature_maps
        return places

    def _memory_schedule(self, form: Form) -> MemorySchedule:
        plans = form.plans
        return MemorySchedule(
            *(plans[:, HALF0 : HALF1 + 1], plans[:, PRE_BUFFERED], plans[:, N_SLICES]),
            self._buffer_owners(plans),
            form.cascade,
            form.rolling_bytes,
            _primary_inputs(self.program),
        )

    def _buffer_owners(self, plans: Int64Array) -> Int64Array:
        """Whose buffer each operation uses: neighbours with the same weights in one piece share."""
        owners = np.arange(len(plans))
        for before, index in _same_neighbours(self.program):
            one_piece = plans[before, N_SLICES] == plans[index, N_SLICES] == 1
            buffers = plans[[before, index], HALF0 : HALF1 + 1]
            if one_piece and buffers[1].any() and (buffers[0] == buffers[1]).all():
                owners[index] = owners[before]
        return owners

    def _measure(self, form: Form, places: Int64Array) -> tuple[Int64Array, OpCycles]:
        """Rows with bytes and decoding of weights, and the cycles of operations on their own."""
        rows, plans, npu = self.rows.copy(), form.plans, self.target.npu
        rows[:, [col.WEIGHT_BYTES, col.SCALE_BYTES]] = plans[:, [WEIGHT_BYTES, SCALE_BYTES]]
        buffered = plans[:, HALF0] > 0
        places[~buffered, col.BUFFER_PLACE] = -1
        hidden = np.where(plans[:, PRE_BUFFERED], plans[:, FIRST_BYTES], 0)
        copied = np.where(buffered, np.maximum(plans[:, WEIGHT_BYTES] - hidden, 0), 0)
        if self.decoder is not None:  # whose pace replaces the one that is the same for all weights
            npu = npu.replace(weight_decoder_weights_per_cycle=_NO_LIMIT)
            for index, op in enumerate(self.program.ops):
                if op.weights is not None:
                    bits, depth = rows[index, col.IFM_BITS], form.blocks[index, col.OFM_BLOCK_DEPTH]
                    rows[index, col.DECODE_CYCLES] = self.decoder.cycles(
                        op, int(bits), int(depth), plan_depths(plans[index], rows[index])
                    )
        arrays = npu_array(npu), *self.machine[1:3]
        return rows, measured(rows, form.blocks, arrays, places, copied)


def machine_arrays(target: Machine, roles: MemoryRoles) -> MachineArrays:
    """A machine as kernels take it."""
    places = np.array([roles.feature_maps, roles.constants, roles.staging], np.int64)
    return npu_array(target.npu), rate_array(target.npu), memory_array(roles.memories), places


def plan_depths(
    plan: Sequence[int] | Int64Array, row: Sequence[int] | Int64Array
) -> tuple[int, ...]:
    """Where the weights of an operation are cut, from its plan and its row."""
    return slice_depths(int(plan[FIRST_DEPTH]), int(plan[NEXT_DEPTH]), int(row[col.OFM_DEPTH]))


@once_per_object
def _constant_maps(program: Program) -> BoolArray:
    return np.array([one.is_constant for one in program.maps], bool)


@once_per_object
def _operand_maps(program: Program) -> Int64Array:
    """Maps of ifm, ifm2 and ofm, int64 [n_ops, 3]."""
    operands = [(op.ifm.map, (op.ifm2 or op.ifm).map, op.ofm.map) for op in program.ops]
    return np.array(operands, np.int64).reshape(-1, 3)


@once_per_object
def _primary_inputs(program: Program) -> Int64Array:
    return np.array([primary_input(program, op) for op in program.ops], np.int64)


@once_per_object
def _same_neighbours(program: Program) -> list[tuple[int, int]]:
    """Operations of the NPU, one after the other, that read the same weights."""
    values = weight_values(program)
    on_npu = [index for index, op in enumerate(program.ops) if op.on_npu]
    return [
        (before, index)
        for before, index in pairwise(on_npu)
        if program.ops[index].weights is not None
        and values[before] == values[index]
        and program.ops[before].depth_offset == program.ops[index].depth_offset
    ]


def striped_rows(rows: Int64Array, stripes: Int64Array) -> Int64Array:
    """The rows of stripes of operations, as wide as these are."""
    striped = rows.copy()
    for index, n_rows in enumerate(stripes.tolist()):
        if n_rows < rows[index, col.OFM_HEIGHT]:
            striped[index, col.OFM_HEIGHT] = n_rows
            for height in (col.IFM_HEIGHT, col.IFM2_HEIGHT):
                striped[index, height] = input_rows(rows[index], n_rows, height)
    return striped
