# SPDX-License-Identifier: Apache-2.0
"""Feature maps that move into the staging memory, where that is not where they live.

An Ethos-U65 often has its feature maps in DRAM, and a small SRAM beside it. Arm's compiler first
forms cascades, whose rolling buffers are in the SRAM, wherever whole maps do not fit there. Then it
plans the weights' buffers. What is left of the SRAM, over time, goes to whole feature maps: to
those that operations read and write most.

Source: [VELA] regor 5.2.0, found by comparing with its compiled operations.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Final, TypeAlias

import numpy as np
import numpy.typing as npt

from npusim.cost import columns as col
from npusim.cost.cascades import ArenaFitter, Cascade, Demand, primary_ifm
from npusim.cost.forms import Form, Weights
from npusim.cost.liveness import LiveRanges, MemorySchedule, live_ranges
from npusim.cost.memory_table import IS_ELSEWHERE, MemoryTable
from npusim.cost.plan_columns import UNLIMITED_BYTES
from npusim.cost.program import Program
from npusim.cost.rows import Int64Array

BoolArray: TypeAlias = npt.NDArray[np.bool_]

_GROUP_MAX: Final = 21
"""Live ranges that are chosen from together."""
_WORTH_MAX: Final = (1 << 31) - 1
"""What a map is worth that a cascade reads beside its rolling buffer."""


def table_within(table: MemoryTable, inside: BoolArray) -> MemoryTable:
    """The table of one memory: all maps but those inside, [n_maps], are elsewhere."""
    maps = table.maps.copy()
    maps[~inside, -1] |= IS_ELSEWHERE
    return replace(table, maps=maps)


def rolling_maps(program: Program, form: Form) -> BoolArray:
    """Which maps are rolling buffers of cascades, [n_maps]."""
    rolling = np.zeros(len(program.maps), bool)
    for index in np.flatnonzero(form.rolling_bytes).tolist():
        rolling[primary_ifm(program, program.ops[index]).map] = True
    return rolling


@dataclass(slots=True)
class StagingFitter(ArenaFitter):
    """Finds the form of a program whose feature maps live elsewhere than in the limited memory.

    Every cascade spares the slow memory the maps between its operations, so that there are
    cascades whatever the limit is.

    Attributes:
        staging_bytes: size of the limited memory.
    """

    staging_bytes: int

    def __post_init__(self) -> None:
        ArenaFitter.__post_init__(self)
        self._arena_bytes = np.zeros_like(self._bytes)

    def _least_limit(self, smallest: Form) -> int:
        return ArenaFitter._least_limit(self, smallest) or self.staging_bytes

    def _raised(self, peak: int, n_bytes: int) -> int:
        return peak

    def _best_cascade(
        self, first: int, end: int, form: Form, demand: Demand, peak: int
    ) -> Cascade | None:
        """The cascade up to an operation that fits whole, or as far as the buffers fit."""
        n_bytes = int(form.buffer_bytes[first])
        best: Cascade | None = None
        rolling: dict[int, int] = {}
        index = first
        while (after := self._follower(index, form)) is not None and after < end:
            n_bytes += self._add_bytes(index, after, form, rolling)
            op = self.program.ops[after]
            whole = int(self._bytes[primary_ifm(self.program, op).map] + demand.others[after])
            if not self._goes_in_place(after):
                whole += int(self._bytes[op.ofm.map])
            if whole < peak or n_bytes > peak:
                break
            best = Cascade(first, after, n_bytes, n_bytes, dict(rolling))
            index = after
        return best


@dataclass(frozen=True, slots=True)
class _Rivals:
    """Live ranges that would move, and what that makes of the memory over time.

    Attributes:
        ranges: all of the memory.
        limit_bytes: its size.
        least: bytes in use with what is sure to be there, int64 [n_steps].
        most: with all that may still move there, int64 [n_steps].
    """

    ranges: LiveRanges
    limit_bytes: int
    least: Int64Array
    most: Int64Array

    def times(self, one: int) -> slice:
        return slice(int(self.ranges.start[one]), int(self.ranges.end[one]) + 1)

    def keep(self, one: int) -> None:
        self.least[self.times(one)] += self.ranges.n_bytes[one]

    def leave(self, one: int) -> None:
        self.most[self.times(one)] -= self.ranges.n_bytes[one]

    def can_fit(self, one: int) -> bool:
        used = int(self.least[self.times(one)].max())
        return used + int(self.ranges.n_bytes[one]) <= self.limit_bytes

    def will_fit(self, one: int) -> bool:
        return int(self.most[self.times(one)].max()) <= self.limit_bytes

    def groups(self, rivals: list[int]) -> Iterator[list[int]]:
        """Rivals that follow each other without a gap in time, a limited number together."""
        group: list[int] = []
        end = -1
        for one in rivals:
            if group and (self.ranges.start[one] > end or len(group) == _GROUP_MAX):
                yield group
                group, end = [], -1
            group.append(one)
            end = max(end, int(self.ranges.end[one]))
        if group:
            yield group


@dataclass(frozen=True, slots=True)
class Stager:
    """Chooses the feature maps that move into the staging memory.

    Attributes:
        program: what is executed.
        table: its maps.
        formats: of the maps.
        weights: of the program.
        limit_bytes: size of the staging memory.
    """

    program: Program
    table: MemoryTable
    formats: npt.NDArray[np.int8]
    weights: Weights
    limit_bytes: int

    def run(self, form: Form, schedule: MemorySchedule) -> BoolArray:
        """Which maps are in the staging memory, rolling buffers among them, bool [n_maps]."""
        rolling, movable = rolling_maps(self.program, form), self._movable(form)
        staged = rolling | movable
        ranges = live_ranges(table_within(self.table, staged), self.formats, schedule)
        for one in self._left(form, ranges, movable):
            staged[movable & (ranges.of_map == one)] = False
        self._keep_operands_together(form, movable, staged)
        return staged

    def _movable(self, form: Form) -> BoolArray:
        """Maps that the NPU computes outside of cascades, and that it alone reads."""
        movable, is_read, stays = np.zeros((3, len(self.program.maps)), bool)
        for index, op in enumerate(self.program.ops):
            for view in (op.ifm, op.ifm2, *op.others):
                if view is not None:
                    is_read[view.map] = True
                    stays[view.map] |= not op.on_npu
            movable[op.ofm.map] |= op.on_npu and not form.cascade[index]
        stays |= [m.is_output or m.is_constant or m.is_variable for m in self.program.maps]
        result: BoolArray = movable & is_read & ~stays
        return result

    def _left(self, form: Form, ranges: LiveRanges, movable: BoolArray) -> Iterator[int]:
        """Live ranges of movable maps that stay where they are."""
        usage, limit = ranges.usage_bytes, min(self.limit_bytes, UNLIMITED_BYTES)
        state = _Rivals(ranges, limit, usage.copy(), usage)
        moving = np.unique(ranges.of_map[movable & (ranges.of_map >= 0)]).tolist()
        for one in moving:
            state.least[state.times(one)] -= ranges.n_bytes[one]
        all_fit = int(usage.max(initial=0)) <= limit
        rivals: list[int] = []
        for one in moving:
            if self._meets_cpu(ranges, one):
                state.leave(one)
                yield one
            elif not all_fit:
                rivals.append(one)
        found = [one for one in rivals if state.can_fit(one)]
        for one in sorted(set(rivals) - set(found)):
            state.leave(one)
            yield one
        rivals = []
        for one in found:
            if state.will_fit(one):
                state.keep(one)
            else:
                rivals.append(one)
        for group in state.groups(rivals):
            yield from self._choose(state, group, form)

    def _meets_cpu(self, ranges: LiveRanges, one: int) -> bool:
        """Whether an operation of the CPU runs while a range is alive."""
        times = ranges.op_time[[not op.on_npu for op in self.program.ops]]
        return bool(((ranges.start[one] <= times) & (times <= ranges.end[one])).any())

    def _choose(self, state: _Rivals, group: list[int], form: Form) -> Iterator[int]:
        """Those of a group that have to stay for the others' sake."""
        from npusim.cost.staging_kernels import choose

        ranges = state.ranges
        table = np.column_stack((ranges.start, ranges.end, ranges.n_bytes))[group]
        worth = np.array([self._worth(ranges, one, form) for one in group], np.int64)
        kept = np.zeros(len(group), np.int8)
        room = np.zeros((len(group) + 1, 3), np.int64)
        choose(table, worth, state.limit_bytes, state.least, state.most, room, kept)
        for one, stays in zip(group, kept.tolist(), strict=True):
            if stays:
                state.keep(one)
            else:
                state.leave(one)
                yield one

    def _worth(self, ranges: LiveRanges, one: int, form: Form) -> int:
        """Elements that operations read and write of the maps of a range."""
        from npusim.cost.cycles_kernels import element_access

        inside, total = ranges.of_map == one, 0
        elements = np.empty(col.ACCESS_COLUMNS, np.int64)
        for index, op in enumerate(self.program.ops):
            reads = [view.map for view in (op.ifm, op.ifm2) if view and inside[view.map]]
            if reads and form.continues_cascade(index):
                return _WORTH_MAX
            if not reads and not inside[op.ofm.map]:
                continue
            row, block = self.weights.rows[index], form.blocks[index]
            element_access(row, block, self.weights.machine[0], elements)
            for map_ in reads:
                total += int(elements[col.IFM_READ if map_ == op.ifm.map else col.IFM2_READ])
            if inside[op.ofm.map]:
                total += int(elements[col.OFM_WRITTEN])
        return min(total, _WORTH_MAX)

    def _keep_operands_together(self, form: Form, movable: BoolArray, staged: BoolArray) -> None:
        """Leave an operand whose other one is not staged, if none but elementwise operations
        read it."""
        tied = movable.copy()
        for op in self.program.ops:
            for view in (op.ifm, op.ifm2, *op.others):
                if view is not None and op.unit != "elementwise":
                    tied[view.map] = False
        for index, op in enumerate(self.program.ops):
            if op.unit != "elementwise" or op.ifm2 is None or form.continues_cascade(index):
                continue
            pair = [op.ifm.map, op.ifm2.map]
            maps = [self.program.maps[one] for one in pair]
            fixed = any(map_.is_constant or map_.is_variable for map_ in maps)
            if not fixed and staged[pair[0]] != staged[pair[1]]:
                staged[[one for one in pair if tied[one]]] = False
