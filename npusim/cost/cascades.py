# SPDX-License-Identifier: Apache-2.0
"""Fitting a program into an arena: operations in stripes, one after the other in cascades.

Where the arena is too small for whole feature maps, neighbours that form a chain are computed in
turns, a few rows each: between them only a rolling buffer of rows is kept. Arm's compiler first
cuts everything into the smallest stripes, groups what then saves memory into cascades, and lets the
stripes of each cascade grow as far as the limit allows.

Source: [VELA] regor 5.2.0, found by comparing with its compiled operations.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Final

import numpy as np
import numpy.typing as npt

from npusim.cost import columns as col
from npusim.cost.buffering import Usage, plan_weights
from npusim.cost.forms import Form, Weights
from npusim.cost.liveness import QUANTUM_BYTES, LiveRanges, map_bytes
from npusim.cost.memory_table import MemoryTable
from npusim.cost.plan_columns import (
    HALF0,
    HALF1,
    SCALE_BYTES,
    SLACK_BYTES,
    SLACK_CYCLES,
    WEIGHT_BYTES,
)
from npusim.cost.program import NpuOp, Program, View
from npusim.cost.rows import Int64Array

_STRIPED_KINDS: Final = (
    *("conv", "transpose_conv", "depthwise", "fully_connected"),
    *("max_pool", "average_pool", "reduce_max", "reduce_sum"),
)
_CASCADED_KINDS: Final = (
    *("conv", "transpose_conv", "depthwise", "max_pool", "average_pool", "reduce_max"),
)
_DEPTH_ALIGNMENT: Final = 16
_TABLE_SIZES: Final = (13, 29, 59, 127, 257, 541, 1109, 2357, 5087, 10273)
"""Buckets of the compiler's hash table, which is never more than full."""


def can_stripe(op: NpuOp) -> bool:
    """Whether the compiler may compute an operation row by row."""
    return (op.kind in _STRIPED_KINDS or op.unit == "elementwise") and not op.transposed


def primary_input(program: Program, op: NpuOp) -> int:
    """0 or 1: the operand that comes from the operation before in a cascade."""
    if op.ifm2 is None or op.unit != "elementwise":
        return 0
    constants = [program.maps[view.map].is_constant for view in (op.ifm, op.ifm2)]
    if constants == [True, False]:
        return 1
    return int(op.ifm.shape != op.ofm.shape and op.ifm2.shape == op.ofm.shape)


def primary_ifm(program: Program, op: NpuOp) -> View:
    """That operand."""
    return op.ifm2 if op.ifm2 is not None and primary_input(program, op) else op.ifm


def input_rows(row: Int64Array, n_rows: int, height: int = col.IFM_HEIGHT) -> int:
    """Rows of the ifm that so many rows of the ofm need; of ifm2 if that is the height's column."""
    span = (n_rows - 1) * int(row[col.STRIDE_HEIGHT] * row[col.STEP_HEIGHT]) + 1
    span += int((row[col.KERNEL_HEIGHT] - 1) * row[col.DILATION_HEIGHT])
    upscale = int(row[col.UPSCALE_HEIGHT])
    need = -(-span // upscale)
    if upscale == 2 and row[col.NEAREST]:
        need = span // 2 + 1
    return min(need, int(row[height]))


@dataclass(frozen=True, slots=True)
class Cascade:
    """Operations that are computed in turns.

    Attributes:
        first, last: of them.
        n_bytes: of the arena while they run, what else is in it included.
        local_bytes: of their own.
        rolling_bytes: of the buffer before each operation but the first.
    """

    first: int
    last: int
    n_bytes: int
    local_bytes: int
    rolling_bytes: dict[int, int]


@dataclass(slots=True)
class Demand:
    """Bytes of the arena while each operation runs, for itself and for others.

    Attributes:
        local: primary ifm, ofm and weight buffer, int64 [n_ops].
        others: the rest, int64 [n_ops].
        ranges: of the form that this is about.
    """

    local: Int64Array
    others: Int64Array
    ranges: LiveRanges


@dataclass(slots=True)
class ArenaFitter:
    """Finds the form of a program that fits an arena.

    Attributes:
        program: what is executed.
        table: its maps.
        formats: of the maps.
        weights: of the program.
        make: makes a form of stripes, its weights unbuffered.
        live: live ranges of a form.
    """

    program: Program
    table: MemoryTable
    formats: npt.NDArray[np.int8]
    weights: Weights
    make: Callable[[Int64Array], Form]
    live: Callable[[Form], LiveRanges]
    _bytes: Int64Array = field(init=False, repr=False)
    _arena_bytes: Int64Array = field(init=False, repr=False)
    _n_uses: Int64Array = field(init=False, repr=False)
    _n_writes: Int64Array = field(init=False, repr=False)
    _reader: dict[int, int] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        maps = self.program.maps
        constant = np.array([map_.is_constant for map_ in maps], bool)
        self._bytes = np.where(constant, 0, map_bytes(self.table, self.formats))
        self._arena_bytes = self._bytes
        self._n_uses, self._n_writes = np.zeros((2, len(maps)), np.int64)
        self._reader = {}
        for index, op in enumerate(self.program.ops):
            for view in (op.ifm, op.ifm2):
                if view is not None:
                    self._n_uses[view.map] += 1
                    self._reader[view.map] = index
            self._n_writes[op.ofm.map] += 1

    def fit(self, whole: Form, buffered: Form | None, limit_bytes: int | None) -> Form:
        """A form within the limit if one is found.

        Args:
            whole: every operation in one piece, its weights unbuffered.
            buffered: the same with buffers: what is best without a limit; None: cascades may be
                better.
            limit_bytes: most that the arena may take; None: as little as possible.
        """
        smallest = self.make(self._smallest_stripes())
        guide = limit_bytes
        if guide is None:
            guide = int(self.live(whole).usage_bytes[:-1].min(initial=0))
        cascades = self._build(smallest, whole, self._demand(smallest), guide)
        if limit_bytes is None:
            limit_bytes = self._least_limit(smallest)
        if buffered is not None and self.live(buffered).peak_bytes < limit_bytes:
            return buffered
        for cascade in visiting_order(cascades):
            self._grow(cascade, smallest, whole, limit_bytes)
        smallest.plans = plan_weights(self.weights, smallest, limit_bytes, self._usage(smallest))
        return smallest

    def _least_limit(self, smallest: Form) -> int:
        """The limit where the arena is to take as little as possible."""
        return self.live(smallest).peak_bytes

    def _smallest_stripes(self) -> Int64Array:
        """As few rows as the stride of the operation after asks for."""
        stripes = np.empty(len(self.program.ops), np.int64)
        after: NpuOp | None = None
        for index in range(len(self.program.ops) - 1, -1, -1):
            op = self.program.ops[index]
            n_rows = 1
            if after is not None:
                n_rows = after.stride[0]
                if after.keeps_accumulator or op.keeps_accumulator:
                    n_rows = int(self.weights.rows[index, col.OFM_HEIGHT])
            stripes[index] = self._allowed(index, n_rows)
            after = op
        return stripes

    def _allowed(self, index: int, n_rows: int) -> int:
        """Rows of a stripe: multiples of upscaling, and all where stripes are not possible."""
        op, height = self.program.ops[index], int(self.weights.rows[index, col.OFM_HEIGHT])
        if not can_stripe(op) or n_rows >= height:
            return height
        step = op.upscale[0]
        return min(-(-n_rows // step) * step, height)

    def _demand(self, form: Form) -> Demand:
        ranges = self.live(form)
        buffers = form.buffer_bytes
        local = np.zeros(len(buffers), np.int64)
        for index, op in enumerate(self.program.ops):
            ifm, ofm = primary_ifm(self.program, op).map, op.ofm.map
            local[index] = self._arena_bytes[ifm] + buffers[index]
            together = ranges.of_map[ifm] == ranges.of_map[ofm] and ranges.of_map[ofm] >= 0
            if form.cascade[index] or not together:
                local[index] += self._arena_bytes[ofm]
        return Demand(local, ranges.usage_bytes[ranges.op_time] - local, ranges)

    def _usage(self, form: Form) -> Usage:
        """What is in the arena over time."""
        unbuffered = form.copy()
        unbuffered.plans[:, [HALF0, HALF1]] = 0
        ranges, bare = self.live(form), self.live(unbuffered)
        maps = bare.usage_bytes
        return Usage(maps, ranges.usage_bytes - maps, ranges.op_time)

    def _build(
        self,
        form: Form,
        whole: Form,
        demand: Demand,
        limit_bytes: int,
        first: int = 0,
        last: int | None = None,
    ) -> list[Cascade]:
        """Group operations first..last into cascades; those outside become as in `whole`."""
        end = len(self.program.ops) if last is None else last + 1
        peak, cascades = min(limit_bytes, 1 << 30), []
        index = first
        while index < end:
            cascade = None
            if self.program.ops[index].on_npu and self._can_cascade(index, form):
                cascade = self._best_cascade(index, end, form, demand, peak)
            if cascade is None:
                self._take(form, whole, index)
                if self.program.ops[index].on_npu:
                    peak = self._raised(peak, int(demand.local[index] + demand.others[index]))
                index += 1
                continue
            cascades.append(cascade)
            for member in range(cascade.first, cascade.last + 1):
                form.cascade[member] = cascade.last
                form.rolling_bytes[member] = cascade.rolling_bytes.get(member, 0)
            peak = self._raised(peak, cascade.n_bytes)
            index = cascade.last + 1
        return cascades

    def _raised(self, peak: int, n_bytes: int) -> int:
        """What cascades may use after so much had to be used."""
        return max(peak, n_bytes)

    def _best_cascade(
        self, first: int, end: int, form: Form, demand: Demand, peak: int
    ) -> Cascade | None:
        """The cascade from an operation on that needs least; None if that is no cascade."""
        ifm = primary_ifm(self.program, self.program.ops[first]).map
        stored = int(self._bytes[ifm])
        buffers = int(form.buffer_bytes[first])
        best_bytes, best_local, best_last = (
            int(demand.local[first] + demand.others[first]),
            0,
            first,
        )
        rolling: dict[int, int] = {}
        others = _Others(demand, ifm, first)
        index = first
        while True:
            after = self._follower(index, form)
            if after is None or after >= end:
                break
            buffers += self._add_bytes(index, after, form, rolling)
            others.add(after, self._shares_range(ifm, after, demand))
            alone = int(demand.local[after] + demand.others[after])
            local = stored + buffers + int(self._bytes[self.program.ops[after].ofm.map])
            total = local + others.most
            if total < best_bytes or total < alone:
                best_bytes, best_local, best_last = total, local, after
            prefix = stored + others.most + buffers
            if (alone < peak and best_bytes < peak) or prefix > best_bytes:
                break
            index = after
        if best_last == first:
            return None
        kept = {i: n for i, n in rolling.items() if i <= best_last}
        return Cascade(first, best_last, best_bytes, best_local, kept)

    def _shares_range(self, ifm: int, index: int, demand: Demand) -> bool:
        """Whether an operation works in the live range of the cascade's own ifm."""
        op, of_map = self.program.ops[index], demand.ranges.of_map
        inputs = primary_ifm(self.program, op).map, op.ofm.map
        return any(of_map[i] == of_map[ifm] and of_map[i] >= 0 for i in inputs)

    def _can_cascade(self, index: int, form: Form) -> bool:
        op = self.program.ops[index]
        if self.program.maps[primary_ifm(self.program, op).map].is_constant or op.transposed:
            return False
        if form.stripes[index] >= self.weights.rows[index, col.OFM_HEIGHT]:
            return False
        upscaled = max(op.upscale) > 1
        convolves = op.kind in ("conv", "transpose_conv", "depthwise")
        return op.unit == "elementwise" or (
            op.kind in _CASCADED_KINDS and not (convolves and upscaled)
        )

    def _follower(self, index: int, form: Form) -> int | None:
        """The next operation, if it can take over row by row what this one computes."""
        op = self.program.ops[index]
        ofm = op.ofm.map
        after = index + 1
        if self._n_uses[ofm] != 1 or self._reader[ofm] != after:
            return None
        follower = self.program.ops[after]
        if not follower.on_npu or form.cascade[after] or not self._can_cascade(after, form):
            return None
        ifm = primary_ifm(self.program, follower)
        map_ = self.program.maps[ofm]
        whole = self._n_writes[ofm] > 1 or op.ofm.offset is not None
        whole |= map_.is_input or map_.is_output or map_.is_variable
        same = ifm.map == ofm and ifm.shape == op.ofm.shape
        return after if same and not whole and self.formats[ofm] == col.NHCWB16 else None

    def _goes_in_place(self, index: int) -> bool:
        """Whether the ofm of an operation can take the place of its primary ifm."""
        op = self.program.ops[index]
        i, o = primary_ifm(self.program, op).map, op.ofm.map
        ifm, ofm = self.program.maps[i], self.program.maps[o]
        stays = ifm.is_constant or ifm.is_output or ifm.is_variable or ofm.is_variable
        alike = ifm.shape == ofm.shape and ifm.dtype == ofm.dtype
        alike &= bool(self._bytes[i] == self._bytes[o])
        alone = self._n_uses[i] == 1 and self._n_writes[o] == 1
        return bool(self.table.in_place[index]) and alike and not stays and bool(alone)

    def _add_bytes(self, index: int, after: int, form: Form, rolling: dict[int, int]) -> int:
        """Bytes that a cascade needs for one more operation; its rolling buffer is noted."""
        rolling[after] = self._rolling_bytes(index, after, form)
        shared = self._goes_in_place(index) and rolling.get(index) == rolling[after]
        return int(form.buffer_bytes[after]) + (0 if shared else rolling[after])

    def _rolling_bytes(self, index: int, after: int, form: Form) -> int:
        """Bytes of the buffer between two operations of a cascade."""
        rows = self.weights.rows
        second = primary_input(self.program, self.program.ops[after])
        height = col.IFM2_HEIGHT if second else col.IFM_HEIGHT
        made = int(form.stripes[index])
        used = input_rows(rows[after], int(form.stripes[after]), height)
        n_rows = -(-(made + used) // used) * used
        _, _, width, depth = self.program.ops[index].ofm.shape
        depth = -(-depth // _DEPTH_ALIGNMENT) * _DEPTH_ALIGNMENT
        bits = self.program.maps[self.program.ops[index].ofm.map].bits
        return _aligned(n_rows * width * depth * bits // 8)

    def _take(self, form: Form, other: Form, index: int) -> None:
        """Make one operation as it is in another form, outside of cascades."""
        form.take(index, other)
        form.cascade[index] = form.rolling_bytes[index] = 0

    def _grow(self, cascade: Cascade, form: Form, whole: Form, limit_bytes: int) -> None:
        """Give a cascade the highest stripes that fit."""
        first, last = cascade.first, cascade.last
        demand, usage = self._demand(form), self._usage(form)
        parallel = max(0, usage.total_bytes(first) - cascade.local_bytes)
        inside = Demand(demand.local, demand.others.copy(), demand.ranges)
        ifm = primary_ifm(self.program, self.program.ops[first]).map
        kept = int(self._arena_bytes[ifm]) if self._n_uses[ifm] > 1 else 0
        inside.others[first : last + 1] = parallel + kept
        inside.others[first] = parallel
        trial = form.copy()
        before = self._plan_before(first, form, usage, limit_bytes)
        trial.plans[first : last + 1] = plan_weights(
            self.weights, trial, limit_bytes, usage, (first, last), before
        )
        best, most = None, 0
        step = self.program.ops[last].upscale[0]
        height = int(self.weights.rows[last, col.OFM_HEIGHT])
        start = -(-(int(form.stripes[last]) + 1) // step) * step
        for n_rows in range(start, (height + 1) // 2 + 1, step):
            proposal = self._striped(first, last, n_rows, trial)
            found = self._build(proposal, whole, inside, limit_bytes, first, last)
            most = most or len(found)
            if self._needs(proposal, found, first, last, inside) > limit_bytes or len(found) > most:
                break
            best = proposal
            if not found:
                break
        if best is not None:
            for index in range(first, last + 1):
                form.take(index, best)
                form.cascade[index] = best.cascade[index]
                form.rolling_bytes[index] = best.rolling_bytes[index]

    def _plan_before(
        self, first: int, form: Form, usage: Usage, limit_bytes: int
    ) -> Int64Array | None:
        """The operation before a cascade, with the room that is free while it runs."""
        if first == 0:
            return None
        plan: Int64Array = form.plans[first - 1].copy()
        plan[SLACK_BYTES] = limit_bytes - usage.total_bytes(first - 1)
        return plan

    def _striped(self, first: int, last: int, n_rows: int, reference: Form) -> Form:
        """A form with that many rows at the end of a cascade, and what they need before."""
        stripes = reference.stripes.copy()
        for index in range(last, first - 1, -1):
            op = self.program.ops[index]
            stripes[index] = self._allowed(index, n_rows)
            n_rows = int(stripes[index]) // op.upscale[0] * op.stride[0]
        form = self.make(stripes)
        for index in range(first, last + 1):
            if reference.plans[index, HALF0] and not reference.plans[index, HALF1]:
                plan = form.plans[index]
                plan[HALF0] = plan[WEIGHT_BYTES] + plan[SCALE_BYTES]
                plan[SLACK_CYCLES] = self.weights.staged_cycles(index, form.blocks[index])
        return form

    def _needs(
        self, form: Form, cascades: list[Cascade], first: int, last: int, demand: Demand
    ) -> int:
        """Most bytes of the arena while operations first..last run."""
        by_last = {cascade.last: cascade for cascade in cascades}
        needs = 0
        for index in range(first, last + 1):
            if form.cascade[index]:
                needs = max(needs, by_last[int(form.cascade[index])].n_bytes)
                continue
            op = self.program.ops[index]
            views = [view for view in (op.ifm, op.ifm2, op.ofm) if view is not None]
            own = int(form.buffer_bytes[index]) + sum(self._view_bytes(v) for v in views)
            needs = max(needs, own + int(demand.others[index]))
        return needs

    def _view_bytes(self, view: View) -> int:
        """What a map takes in the shape that an operation sees."""
        batch, height, width, depth = view.shape
        if self.formats[view.map] == col.NHCWB16:
            depth = -(-depth // _DEPTH_ALIGNMENT) * _DEPTH_ALIGNMENT
        return _aligned(batch * height * width * depth * self.program.maps[view.map].bits // 8)


def visiting_order(cascades: Sequence[Cascade]) -> list[Cascade]:
    """The order in which cascades grow: that of the compiler's hash table, by last operation.

    A cascade goes before those that share its bucket, or else before all.
    """
    order: list[Cascade] = []
    n_buckets = 0
    for n_before, cascade in enumerate(cascades):
        moved = [cascade]
        if n_before == n_buckets:
            n_buckets = next(size for size in _TABLE_SIZES if size > n_buckets)
            moved, order = [*order, cascade], []
        for one in moved:
            same = (i for i, o in enumerate(order) if (o.last - one.last) % n_buckets == 0)
            order.insert(next(same, 0), one)
    return order


class _Others:
    """The most that others need while the operations of a growing cascade run.

    What is counted as others' need of an operation includes the cascade's own ifm while that is
    alive; the cascade counts it once.
    """

    def __init__(self, demand: Demand, ifm: int, first: int):
        self.demand = demand
        one = int(demand.ranges.of_map[ifm])
        self.n_bytes = int(demand.ranges.n_bytes[one]) if one >= 0 else 0
        self.times = (
            (int(demand.ranges.start[one]), int(demand.ranges.end[one])) if one >= 0 else (1, 0)
        )
        self.most = max(0, int(demand.others[first]))
        self._alive = self._gone = 0

    def add(self, index: int, counted: bool) -> None:
        """Count one more operation; `counted` if the ifm's live range is among its own."""
        needed = max(0, int(self.demand.others[index]))
        time = int(self.demand.ranges.op_time[index])
        if self.n_bytes and self.times[0] <= time <= self.times[1]:
            if not counted:
                needed = max(0, needed - self.n_bytes)
            self._alive = max(self._alive, needed)
        else:
            self._gone = max(self._gone, needed)
        self.most = max(self.most, self._alive, self._gone)


def _aligned(n_bytes: int) -> int:
    return -(-n_bytes // QUANTUM_BYTES) * QUANTUM_BYTES
