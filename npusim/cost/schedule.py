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

from npusim.cost import columns as col
from npusim.cost.arena import Arena, allocate
from npusim.cost.blocks import find_blocks
from npusim.cost.buffering import Buffering
from npusim.cost.cascades import ArenaFitter, input_rows, primary_input
from npusim.cost.cycles import OpCycles, op_cycles
from npusim.cost.decoder import WeightDecoder
from npusim.cost.flash import weight_values
from npusim.cost.forms import UNLIMITED_BYTES, Arrays, Form, WeightPlan, Weights
from npusim.cost.liveness import LiveRanges, MemorySchedule, live_ranges
from npusim.cost.memory_table import MemoryTable, memory_table
from npusim.cost.program import Program
from npusim.cost.rows import Int64Array, memory_array, npu_array, program_rows, rate_array
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
        total_cycles: of the slower of NPU and memories, int64 [n_ops]; 0 on the CPU.
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
        self.values = weight_values(program)
        self.table: MemoryTable = memory_table(program)
        self.formats, self.rows = program_rows(program)
        memories = memory_array(self.roles.memories)
        self.arrays: Arrays = (npu_array(target.npu), rate_array(target.npu), memories)
        places = self._places(np.zeros(len(program.maps), bool))
        self.weights = Weights(program, self.rows, places, self.arrays, sizes)

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
        form.plans = Buffering(self.weights, form).run()
        if optimise == "size" or limit_bytes is not None:
            fitter = ArenaFitter(
                *(self.program, self.table, self.formats, self.weights, self.form, self.live)
            )
            form = fitter.fit(whole, form, None if optimise == "size" else limit_bytes)
        return self.measure(form)

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
        blocks = find_blocks(striped_rows(self.rows, rows), self.target.npu)
        plans, runs = self.weights.whole(blocks, rows)
        zeros = np.zeros(len(plans), np.int64)
        return Form(rows.copy(), blocks, plans, zeros, zeros.copy(), runs)

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

    def measure(self, form: Form, staged: BoolArray | None = None) -> Schedule:
        """The schedule of a form.

        Args:
            form: of the program.
            staged: which maps are in the staging memory, [n_maps], where they live elsewhere.
        """
        nowhere = np.zeros(len(self.program.maps), bool)
        ranges = self.live(form, staged)
        spilled = ranges.emptied()
        if self.target.spills:
            spilled = self._spilled(form, nowhere if staged is None else ~staged)
        places = self._places(nowhere if staged is None else staged)
        rows, cycles = self._measure(form, places)
        npu = cycles.cycles[:, col.OP_CYCLES].copy()
        for index, (op, plan) in enumerate(zip(self.program.ops, form.plans, strict=True)):
            if op.table_bytes or plan.buffering != "none":
                npu[index] = self._npu_cycles(index, form.plans, int(npu[index]))
        slowest = cycles.memory_cycles[:, :, col.MEMORY_CYCLES].max(axis=1, initial=0)
        on_npu = np.array([op.on_npu for op in self.program.ops], bool)
        total = np.where(on_npu, np.maximum(npu, slowest), 0)
        return Schedule(
            *(self.program, self.target, self.roles, rows, places, form),
            ranges,
            allocate(ranges),
            spilled,
            allocate(spilled),
            *(cycles, npu, total, "compiler" if self.decoder is None else self.decoder.name),
        )

    def _spilled(self, form: Form, outside: BoolArray) -> LiveRanges:
        """Live ranges of the maps outside of the staging memory."""
        schedule = replace(
            self._memory_schedule(form), buffer_bytes=np.zeros((len(form.plans), 2), np.int64)
        )
        return live_ranges(table_within(self.table, outside), self.formats, schedule)

    def _places(self, staged: BoolArray) -> Int64Array:
        """Which memory each operation's maps, weights, buffer and scratch map are in."""
        roles = self.roles
        maps = np.array(
            [
                roles.constants if map_.is_constant else roles.feature_maps
                for map_ in self.program.maps
            ],
            np.int64,
        )
        maps[staged] = roles.staging
        operands = [(op.ifm.map, (op.ifm2 or op.ifm).map, op.ofm.map) for op in self.program.ops]
        places = np.empty((len(operands), col.PLACE_COLUMNS), np.int64)
        places[:, : col.CONSTANT_PLACE] = maps[np.array(operands, np.int64).reshape(-1, 3)]
        places[:, col.CONSTANT_PLACE] = roles.constants
        places[:, col.BUFFER_PLACE] = roles.staging
        places[:, col.SCRATCH_PLACE] = roles.feature_maps
        return places

    def _memory_schedule(self, form: Form) -> MemorySchedule:
        plans = form.plans
        return MemorySchedule(
            np.array([plan.buffer_bytes for plan in plans], np.int64).reshape(-1, 2),
            np.array([plan.pre_buffered for plan in plans], np.int64),
            np.array([len(plan.depths) - 1 for plan in plans], np.int64),
            self._buffer_owners(plans),
            form.cascade,
            form.rolling_bytes,
            np.array([primary_input(self.program, op) for op in self.program.ops], np.int64),
        )

    def _buffer_owners(self, plans: Sequence[WeightPlan]) -> Int64Array:
        """Whose buffer each operation uses: neighbours with the same weights in one piece share."""
        owners = np.arange(len(plans))
        on_npu = [index for index, op in enumerate(self.program.ops) if op.on_npu]
        for before, index in pairwise(on_npu):
            if self.values[before] == self.values[index] and self._share(before, index, plans):
                owners[index] = owners[before]
        return owners

    def _share(self, before: int, index: int, plans: Sequence[WeightPlan]) -> bool:
        first, second = self.program.ops[before], self.program.ops[index]
        if first.weights is None or second.weights is None or not any(plans[index].buffer_bytes):
            return False
        same = first.depth_offset == second.depth_offset
        whole = plans[before].depths == plans[index].depths and len(plans[index].depths) == 2
        return same and whole and plans[before].buffer_bytes == plans[index].buffer_bytes

    def _measure(self, form: Form, places: Int64Array) -> tuple[Int64Array, OpCycles]:
        """Rows with bytes and decoding of weights, and the cycles of operations on their own."""
        rows, places = self.rows.copy(), places.copy()
        copied = np.zeros(len(form.plans), np.int64)
        for index, plan in enumerate(form.plans):
            if self.program.ops[index].weights is None:
                places[index, col.BUFFER_PLACE] = -1
                continue
            rows[index, [col.WEIGHT_BYTES, col.SCALE_BYTES]] = plan.n_bytes.sum(axis=0)
            if self.decoder is not None:
                bits, depth = rows[index, col.IFM_BITS], form.blocks[index, col.OFM_BLOCK_DEPTH]
                rows[index, col.DECODE_CYCLES] = self.decoder.cycles(
                    self.program.ops[index], int(bits), int(depth), plan.depths
                )
            if plan.buffering == "none":
                places[index, col.BUFFER_PLACE] = -1
                continue
            hidden = plan.first_bytes if plan.pre_buffered else 0
            copied[index] = max(int(plan.n_bytes[:, 0].sum()) - hidden, 0)
        npu = self.target.npu
        if self.decoder is not None:  # whose pace replaces the one that is the same for all weights
            npu = npu.replace(weight_decoder_weights_per_cycle=_NO_LIMIT)
        measured = op_cycles(rows, form.blocks, npu, self.roles.memories, places, dma_bytes=copied)
        return rows, measured

    def _npu_cycles(self, index: int, plans: Sequence[WeightPlan], run_cycles: int) -> int:
        """Cycles of an operation with the transfers of weights and table that it waits for."""
        from npusim.cost.cycles_kernels import copy_cycles

        op, plan = self.program.ops[index], plans[index]
        # a table that another operation applies to its ofm is not counted, as in the compiler
        table = self._table_cycles(op.table_bytes) if op.kind == "activation" else 0
        slack = plans[index - 1].slack_cycles if index else 0
        if plan.buffering == "none":
            return run_cycles + max(table - slack, 0)
        first = copy_cycles(
            plan.first_bytes, self.roles.constants, self.roles.staging, self.arrays[2]
        )
        all_copied = plan.transfer_cycles - slack + plan.slack_cycles
        waiting = run_cycles + max(int(first) - slack, 0)
        return max(all_copied, waiting) + table

    def _table_cycles(self, n_bytes: int) -> int:
        """Cycles to copy a look-up table to the NPU's own memory, which takes a byte a cycle."""
        if not n_bytes:
            return 0
        from npusim.cost.cycles_kernels import transfer_cycles

        stored = self.roles.constants
        read = int(transfer_cycles(n_bytes, stored, self.arrays[2]))
        return max(read + self.roles.memories[stored].read_latency_cycles, n_bytes)


def striped_rows(rows: Int64Array, stripes: Int64Array) -> Int64Array:
    """The rows of stripes of operations, as wide as these are."""
    striped = rows.copy()
    for index, n_rows in enumerate(stripes.tolist()):
        if n_rows < rows[index, col.OFM_HEIGHT]:
            striped[index, col.OFM_HEIGHT] = n_rows
            for height in (col.IFM_HEIGHT, col.IFM2_HEIGHT):
                striped[index, height] = input_rows(rows[index], n_rows, height)
    return striped
