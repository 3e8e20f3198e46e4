# SPDX-License-Identifier: Apache-2.0
"""What `npusim.cost.batch` keeps: operations that are known, and what machines make of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np
import numpy.typing as npt

from npusim.cost import columns as col
from npusim.cost import plan_columns
from npusim.cost.memory_table import MemoryTable
from npusim.cost.outcomes import OUTCOMES, entry_room
from npusim.cost.rows import memory_array, npu_array, rate_array
from npusim.cost.schedule import MemoryRoles
from npusim.cost.slice_table import no_slices, slices_room
from npusim.hardware import Machine
from npusim.npu import NpuConfig
from npusim.weights.expected import stream_law

if TYPE_CHECKING:
    from npusim.cost.batch import Batch

Int64Array = npt.NDArray[np.int64]
Listed = tuple[npt.NDArray[np.signedinteger], ...]
"""As `lookup_kernels.set_steps` describes it."""

_KNOWN_MIN: Final = 256
_KNOWN_MAX: Final = 1 << 20
"""Operations, or contexts of them, with more of which all is forgotten before the next batch."""
_PLANS_MIN: Final = 1 << 15
_PLANS_MAX: Final = 1 << 19
"""Plans that are kept: a table that fits a cache is faster, one that is full begins anew."""
_AT_ONCE: Final = 256
"""Programs that are listed, and machines that are costed on, before there is a look around."""
_ANY_MEMORY: Final = (1.0, 0.0, 0.0, 1.0)


@dataclass(frozen=True, slots=True, eq=False)
class BatchEntries:
    """The operations of a batch as a `BatchEstimator` knows them.

    Attributes:
        known: what the numbers stand for.
        listed: what programs consist of.
        macs: multiply-accumulates of each program, int64 [n_programs].
    """

    known: Known
    listed: Listed
    macs: Int64Array

    @property
    def has_usage(self) -> bool:
        """Whether live ranges are followed."""
        return bool(self.listed[3].size)


class Known:
    """Operations that differ, each once, and the contexts in which they occur."""

    def __init__(self) -> None:
        from npusim.cost.entries_kernels import OP_COLUMNS
        from npusim.cost.lookup_kernels import CONTEXT_COLUMNS

        self.ops, self.n, self.slots = _empty_index(_KNOWN_MIN, OP_COLUMNS)
        self.contexts, self.n_contexts, self.context_slots = _empty_index(
            _KNOWN_MIN, CONTEXT_COLUMNS
        )
        self.statistics = np.empty((0, 2))
        """Entropies and parts of zeros, float64 [n, 2]."""

    @property
    def is_full(self) -> bool:
        """Whether to begin anew."""
        return max(self.n, self.n_contexts) > _KNOWN_MAX

    def find(self, ops: Int64Array) -> Int64Array:
        """Number of each operation; new ones are added."""
        from npusim.cost.entries_kernels import STATISTICS, find_entries

        found = np.empty(len(ops), np.int64)
        for first in range(0, len(ops), _KNOWN_MIN):
            part = ops[first : first + _KNOWN_MIN]
            self.ops, self.slots = _with_room(self.ops, self.n, self.n + len(part), self.slots)
            here = found[first : first + len(part)]
            self.n = find_entries(part, self.ops, self.n, self.slots, here)
        if len(self.statistics) < self.n:
            known = np.ascontiguousarray(self.ops[: self.n, STATISTICS:])
            self.statistics = known.view(np.float64)
        return found

    def list(self, batch: Batch, index: Int64Array, *, sram: bool) -> Listed:
        """What the programs of a batch consist of; new contexts are added."""
        from npusim.cost.lookup_kernels import HEAD_COLUMNS, set_steps

        table, n_ops, n_programs = batch.table, len(index), batch.n_programs
        room = _memory_room(table)
        used = table.accesses, table.maps, table.in_place if sram else table.in_place[:0]
        listed = (
            np.empty(n_ops, np.int32),
            np.empty(n_ops, np.int32),
            np.empty(n_ops, np.int32),
            np.empty((n_ops if sram else 0, 2), np.int64),
            np.empty((n_programs, HEAD_COLUMNS), np.int64),
        )
        for first in range(0, n_programs, _AT_ONCE):
            last = min(first + _AT_ONCE, n_programs)
            n = self.n_contexts + int(table.starts[last, 2] - table.starts[first, 2]) + 1
            self.contexts, self.context_slots = _with_room(
                *(self.contexts, self.n_contexts, n, self.context_slots)
            )
            known = self.contexts, self.n_contexts, self.context_slots
            self.n_contexts = set_steps(
                *((first, last), table.starts, index, batch.links, self.ops, known),
                *(used, batch.formats, room, listed),
            )
        return listed


def _empty_index(n: int, n_columns: int) -> tuple[Int64Array, int, Int64Array]:
    """Lines, of which none is in use, and slots to find them by."""
    return np.empty((n, n_columns), np.int64), 0, np.full(4 * n, -1, np.int64)


def _with_room(
    lines: Int64Array, n: int, n_wanted: int, slots: Int64Array
) -> tuple[Int64Array, Int64Array]:
    """The first n lines with room for as many as are wanted, and their slots."""
    from npusim.cost.entries_kernels import index_lines

    if n_wanted <= len(lines):
        return lines, slots
    grown = np.empty((2 * n_wanted, lines.shape[1]), np.int64)
    grown[:n] = lines[:n]
    slots = np.full(2 << int(2 * len(grown)).bit_length(), -1, np.int64)
    index_lines(grown, n, slots)
    return grown, slots


def _memory_room(table: MemoryTable) -> tuple[Int64Array, ...]:
    """Arrays that live ranges are found in, for the largest program of a table."""
    n_maps, n_ops = np.diff(table.starts, axis=0).max(axis=0)[1:].tolist()
    return (
        np.zeros((n_ops, 9), np.int64),
        np.empty((n_maps + 2 * n_ops + 3, 4), np.int64),
        np.empty((n_maps + n_ops, 3), np.int64),
        np.empty(n_ops, np.int64),
    )


class MachineTable:
    """What one machine makes of operations, and how they follow each other."""

    def __init__(self, target: Machine):
        from npusim.cost.entries_kernels import ENTRY_COLUMNS

        roles, npu = MemoryRoles.of(target), target.npu
        arrays = npu_array(npu), rate_array(npu), memory_array(roles.memories)
        self.machine = (*arrays, np.array(_places(roles), np.int64))
        self.npu = npu
        self.known: Known | None = None
        self.entries = np.empty((0, ENTRY_COLUMNS), np.int64)
        self.alone = np.empty((0, 2), np.int64)
        self.n = 0
        self.memo: tuple[Int64Array, ...] | None = None

    def extend(self, known: Known, alike: MachineTable) -> None:
        """Entries for the operations that are new; `alike` has the same NPU and may have them."""
        from npusim.cost.entries_kernels import FITS, fill_entries

        if known is not self.known:
            self.known, self.n, self.memo = known, 0, None
        if known.n == self.n:
            return
        if known.n > len(self.entries):
            n_lines = len(known.ops) if self.n else known.n
            self.entries = _grown(self.entries, n_lines, self.n)
            self.alone = _grown(self.alone, n_lines, self.n)
        new = slice(self.n, known.n)
        entries, ops = self.entries[new], known.ops[new]
        if alike is self:
            set_blocks(ops, known.statistics[new], self.npu, entries)
        else:
            entries[:, : FITS + 1] = alike.entries[new, : FITS + 1]
        heights = np.ascontiguousarray(ops[:, col.OFM_HEIGHT])
        fill_entries(ops, heights, self.machine, entries, self.alone[new])
        self.n = known.n

    def cost(
        self, batch: Batch, entries: BatchEntries, room: tuple[object, ...], costs: Int64Array
    ) -> None:
        """Fill costs int64 [n_programs, n_measures]."""
        from npusim.cost.batch_kernels import cost_programs

        known, done = entries.known, 0
        n_least, n_most = _plans_of(entries)
        if self.memo is None or len(self.memo[0]) < n_least:
            self.memo = empty_memo(n_least, known.n_contexts)
        keys, plans, slots, heads, *rest = self.memo
        if len(heads) < known.n_contexts:
            grown = np.full(len(known.contexts), -1, np.int64)
            grown[: len(heads)] = heads
            self.memo = keys, plans, slots, grown, *rest
        while done < batch.n_programs:
            done = cost_programs(
                *(done, batch.table.starts, entries.listed),
                *(
                    known.contexts,
                    (known.ops, known.statistics, no_slices()),
                    self.entries,
                    self.alone,
                ),
                *(_laws(), self.machine, self.memo, room, costs),
            )
            if done < batch.n_programs:
                self.memo = empty_memo(min(4 * len(self.memo[0]), n_most), known.n_contexts)


def cost_on_few(
    tables: Sequence[MachineTable], batch: Batch, entries: BatchEntries, costs: Int64Array
) -> None:
    """Fill costs int64 [n_machines, n_programs, n_measures], and keep what is found."""
    blocks: dict[bytes, MachineTable] = {}
    for one, table in enumerate(tables):
        table.extend(entries.known, blocks.setdefault(table.machine[0].tobytes(), table))
        table.cost(batch, entries, _room(batch, len(table.machine[2])), costs[one])


def cost_on_many(
    machines: Sequence[Machine], batch: Batch, entries: BatchEntries, costs: Int64Array
) -> None:
    """Fill costs int64 [n_machines, n_programs, n_measures], and keep nothing."""
    from npusim.cost.batch_kernels import cost_machines
    from npusim.cost.entries_kernels import ENTRY_COLUMNS

    known = entries.known
    ops = known.ops[: known.n], known.statistics, no_slices()
    own, alone = np.empty((known.n, ENTRY_COLUMNS), np.int64), np.empty((known.n, 2), np.int64)
    n_least, n_most = _plans_of(entries)
    memo = empty_memo(n_least, known.n_contexts)
    for first in range(0, len(machines), _AT_ONCE):
        part = machines[first : first + _AT_ONCE]
        arrays, blocks = _machine_arrays(part, known)
        room, done = _room(batch, arrays[2].shape[1]), 0
        while done < len(part):
            done = cost_machines(
                *(done, n_most, arrays, blocks, batch.table.starts),
                *(entries.listed, known.contexts, ops),
                *(own, alone, _laws(), memo, room, costs[first : first + len(part)]),
            )
            if done < len(part):
                memo = empty_memo(min(4 * len(memo[0]), n_most), known.n_contexts)


def _machine_arrays(
    machines: Sequence[Machine], known: Known
) -> tuple[tuple[npt.NDArray[np.generic], ...], Int64Array]:
    """Machines as `batch_kernels.cost_machines` takes them, and the blocks of their NPUs."""
    from npusim.cost.entries_kernels import ENTRY_COLUMNS, FITS

    npus = {id(one.npu): one.npu for one in machines}
    numbers: dict[bytes, int] = {}
    blocks: list[Int64Array] = []
    number_of: dict[int, tuple[int, Int64Array, npt.NDArray[np.float64]]] = {}
    for key, npu in npus.items():
        array = npu_array(npu)
        number = numbers.setdefault(array.tobytes(), len(numbers))
        if number == len(blocks):
            found = np.empty((known.n, ENTRY_COLUMNS), np.int64)
            set_blocks(known.ops[: known.n], known.statistics[: known.n], npu, found)
            blocks.append(found[:, : FITS + 1])
        number_of[key] = number, array, rate_array(npu)
    roles = [MemoryRoles.of(one) for one in machines]
    n_most = max(len(one.memories) for one in roles)
    memories = np.empty((len(machines), n_most, col.MEMORY_COLUMNS))
    memories[:] = _ANY_MEMORY
    for one, part in enumerate(roles):
        memories[one, : len(part.memories)] = memory_array(part.memories)
    which, arrays, rates = zip(*(number_of[id(one.npu)] for one in machines), strict=True)
    places = [_places(part) for part in roles]
    columns = (
        *(np.array(arrays), np.array(rates), memories),
        *(np.array(places, np.int64), np.array(which, np.int64)),
    )
    return columns, np.array(blocks)


def set_blocks(
    ops: Int64Array, statistics: npt.NDArray[np.float64], npu: NpuConfig, entries: Int64Array
) -> None:
    """Write the blocks of operations, whether they have any, and bytes of weights to entries."""
    from npusim.cost.blocks_kernels import SEARCH_COLUMNS
    from npusim.cost.entries_kernels import fill_blocks, fill_sizes

    most, array = max(npu.ofm_block_height_max, npu.ofm_block_width_max), npu_array(npu)
    room = np.empty(SEARCH_COLUMNS, np.int64), np.empty((2, most, 3), np.int64)
    fill_blocks(ops, array, room, entries)
    fill_sizes(ops, statistics, stream_law(), array, entries)


def _places(roles: MemoryRoles) -> tuple[int, int, int]:
    """Lines of memories for maps, constants and buffers."""
    return roles.feature_maps, roles.constants, roles.staging


def _plans_of(entries: BatchEntries) -> tuple[int, int]:
    """Numbers of plans to have room for: at first, and at most."""
    from npusim.cost.lookup_kernels import N_OUTCOMES, N_STEPS

    n_steps = entries.listed[4][:, N_STEPS]
    one_program, all_programs = int(n_steps.max()), int(n_steps.sum())
    least = 2 * N_OUTCOMES * (one_program + 1) + 2
    return max(least, min(_PLANS_MIN, 3 * all_programs)), max(_PLANS_MAX, least)


def empty_memo(n_plans: int, n_contexts: int) -> tuple[Int64Array, ...]:
    """Room for plans, in which is but that of operations of the CPU."""
    from npusim.cost.batch_kernels import KEY_COLUMNS
    from npusim.cost.lookup_kernels import MOVE_COLUMNS

    plans = np.zeros((n_plans, plan_columns.PLAN_COLUMNS), np.int64)
    plans[0, plan_columns.N_SLICES] = 1
    return (
        np.empty((n_plans, KEY_COLUMNS), np.int64),
        plans,
        np.full(2 << n_plans.bit_length(), -1, np.int64),
        np.full(n_contexts, -1, np.int64),
        np.empty((n_plans, MOVE_COLUMNS), np.int64),
        np.array([1, 0], np.int64),
    )


def _room(batch: Batch, n_memories: int) -> tuple[object, ...]:
    """Arrays that plans are made in, for the largest program of a batch."""
    from npusim.cost.plans_kernels import MAX_SLICES

    traffic = np.zeros((n_memories, col.TRAFFIC_COLUMNS), np.int64)
    for_plans = (slices_room(MAX_SLICES), traffic), *entry_room(n_memories)
    return np.empty(int(np.diff(batch.table.starts[:, 2]).max()), np.int64), for_plans


def _laws() -> tuple[object, ...]:
    """Of sizes of weights, for each outcome of the first step."""
    return tuple(stream_law(deviations) for deviations in (0.0, *OUTCOMES))


def _grown(array: Int64Array, n_lines: int, n: int) -> Int64Array:
    """The first n lines with room for more."""
    grown = np.empty((n_lines, array.shape[1]), np.int64)
    grown[:n] = array[:n]
    return grown
