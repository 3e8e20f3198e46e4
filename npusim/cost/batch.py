# SPDX-License-Identifier: Apache-2.0
"""The cost of many networks on many machines at once, their weights not needed.

    family = npusim.Family(npusim.load("model.tflite"))  # networks like this one, in any widths
    widths = np.random.default_rng(0).integers(8, 65, (10_000, len(family.widths)))
    costs = npusim.estimate_batch(family.batch(widths), ["ethos-u55-128", "ethos-u55-256"])
    costs.total_cycles[i, j]                             # network i on machine j

Blocks, weight buffers and live ranges are found as `npusim.estimate` finds them, by the same
kernels, so that the figures are its own; only where the arena cannot be packed without gaps is
`sram_peak_bytes` what is in use at once, and the arena larger. What costs the time is kept: blocks
and cycles of an operation under all that describes it, and how it gets its weights under that and
what the operation before leaves to it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable, Iterable, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from npusim.cost import columns as col
from npusim.cost.buffering import moves_data
from npusim.cost.flash import (
    EncodedWeights,
    flash_bytes,
    flash_items,
    scales_of,
    weight_values,
)
from npusim.cost.formats import map_formats
from npusim.cost.lowering import program as lower
from npusim.cost.memory_table import MemoryTable, memory_table
from npusim.cost.program import NpuOp, Program
from npusim.cost.rows import memory_array, npu_array, rate_array, row
from npusim.cost.schedule import MemoryRoles
from npusim.cost.weight_sizes import Statistics, op_statistics
from npusim.errors import ConfigError
from npusim.hardware import Machine, machine
from npusim.network import Network
from npusim.weights.expected import TRAINED, stream_law

Int64Array = npt.NDArray[np.int64]
Float64Array = npt.NDArray[np.float64]

MEASURES: Final = (
    *("total_cycles", "npu_cycles", "sram_peak_bytes", "flash_bytes", "weights_encoded_bytes"),
)
"""What a batch is costed in, beside its multiply-accumulates."""
_SLICED_DEPTH_MAX: Final = 1 << 16
_ENTRIES_MIN: Final = 256
_PLANS_MIN: Final = 1 << 10
_PLANS_MAX: Final = 1 << 19
"""Plans that are kept: a table that fits a cache is faster, one that is full begins anew."""
_MAC_UNITS: Final = (col.CONVOLUTION, col.PRODUCT, col.DEPTHWISE, col.POOLING, col.REDUCE_SUM)


@dataclass(frozen=True, slots=True, eq=False)
class Batch:
    """Programs as arrays, one behind the other.

    Attributes:
        ops: what operations are, int64 [n_ops, entries_kernels.OP_COLUMNS].
        links: how they depend on others of their program, int64 [n_ops, LINK_COLUMNS].
        table: their maps, and where each program begins.
        formats: of every map, int8 [n_maps].
        other_bytes: tables and constants of each program in flash, int64 [n_programs].
    """

    ops: Int64Array
    links: Int64Array
    table: MemoryTable
    formats: npt.NDArray[np.int8]
    other_bytes: Int64Array

    @classmethod
    def of(cls, networks: Sequence[Network | Program], statistics: Statistics = TRAINED) -> Batch:
        """Networks of any kinds side by side; some hundredths of a millisecond per operation.

        Args:
            networks: one or more, as `npusim.load` reads them, or programs.
            statistics: what is known of their weights.

        Raises:
            ConfigError: no networks, or weights of more than 65536 channels.
            UnknownNameError: the statistics are those of other operations.
        """
        if not networks:
            raise ConfigError("networks must be one or more, got none")
        programs = [lower(one) if isinstance(one, Network) else one for one in networks]
        parts = [_of_program(one, statistics) for one in programs]
        ops, links, tables, formats, others = zip(*parts, strict=True)
        return cls(
            np.concatenate(ops),
            np.concatenate(links),
            _joined(tables),
            np.concatenate(formats),
            np.array(others, np.int64),
        )

    @property
    def n_programs(self) -> int:
        """Number of programs."""
        return self.table.n_programs

    @property
    def macs(self) -> Int64Array:
        """Multiply-accumulates of each program as `NpuOp.macs` counts them, int64 [n_programs]."""
        ops = self.ops
        sums = np.prod(ops[:, col.OFM_HEIGHT : col.STRIDE_HEIGHT], axis=1)
        deep = np.isin(ops[:, col.UNIT], (col.CONVOLUTION, col.PRODUCT, col.REDUCE_SUM))
        sums *= np.where(deep, ops[:, col.IFM_DEPTH], 1)
        sums[~np.isin(ops[:, col.UNIT], _MAC_UNITS)] = 0
        total = np.concatenate([[0], np.cumsum(sums)])
        macs: Int64Array = np.diff(total[self.table.starts[:, 2]])
        return macs


@dataclass(frozen=True, slots=True, eq=False)
class BatchCost:
    """What networks cost on machines: int64 arrays, shape [n_networks, n_machines].

    Attributes:
        total_cycles: as `npusim.Cost.total_cycles`; -1 where a network does not fit a machine, as
            in the other arrays.
        npu_cycles: of the NPU alone.
        sram_peak_bytes: most that is in use at once.
        flash_bytes: weights, scales, tables and constants.
        weights_encoded_bytes: weight streams alone.
        macs: multiply-accumulates, shape [n_networks].
        clock_hz: of each machine, float64 [n_machines].
    """

    total_cycles: Int64Array
    npu_cycles: Int64Array
    sram_peak_bytes: Int64Array
    flash_bytes: Int64Array
    weights_encoded_bytes: Int64Array
    macs: Int64Array
    clock_hz: Float64Array

    @property
    def fits(self) -> npt.NDArray[np.bool_]:
        """Whether all operations have a block that fits the machine's SHRAM."""
        fits: npt.NDArray[np.bool_] = self.total_cycles >= 0
        return fits

    @property
    def inference_s(self) -> Float64Array:
        """Seconds of one inference; not a number where a network does not fit."""
        seconds: Float64Array = np.where(self.fits, self.total_cycles, np.nan) / self.clock_hz
        return seconds


class BatchEstimator:
    """Costs batches on machines, and keeps what it finds for the next ones.

    Args:
        machines: preset names of NPUs, or records; or one of them.
        sram: whether live ranges are followed too; without, `sram_peak_bytes` is 0.

    Raises:
        ConfigError: no machines, or one whose schedule depends on what fits its SRAM: it keeps
            feature maps elsewhere, or has an arena of limited size.
        UnknownNameError: no such NPU.
    """

    def __init__(
        self,
        machines: str | Machine | Sequence[str | Machine] = "ethos-u55-128",
        *,
        sram: bool = True,
    ):
        several = [machines] if isinstance(machines, str | Machine) else list(machines)
        if not several:
            raise ConfigError("machines must be one or more, got none")
        self.machines = [one if isinstance(one, Machine) else machine(one) for one in several]
        for one in self.machines:
            _check_free(one)
        self.sram = sram
        self._index = _Index()
        self._tables = [_MachineTable(one) for one in self.machines]

    def __call__(self, batch: Batch) -> BatchCost:
        """The cost of every program of a batch on every machine."""
        return self.costs(batch, self.entries(batch))

    def entries(self, batch: Batch) -> Int64Array:
        """Which of the known operations each operation of a batch is, int64 [n_ops].

        A batch that is costed again needs this but once.

        Raises:
            ConfigError: more than a million different operations, for which a new estimator is
                needed.
        """
        from npusim.cost.batch_kernels import ENTRIES_MAX

        found = self._index.find(batch.ops)
        if self._index.n > ENTRIES_MAX:
            raise ConfigError(
                f"batches must have at most {ENTRIES_MAX} different operations for one estimator, "
                f"got {self._index.n}"
            )
        return found

    def costs(self, batch: Batch, entries: Int64Array) -> BatchCost:
        """The cost of a batch whose `entries` are known."""
        costs = np.empty((len(self.machines), batch.n_programs, len(MEASURES)), np.int64)
        room = _Room(batch)
        blocks: dict[bytes, _MachineTable] = {}
        for one, table in enumerate(self._tables):
            table.extend(self._index, blocks.setdefault(table.machine[0].tobytes(), table))
            table.cost(batch, entries, self._index, room, costs[one], sram=self.sram)
        fits = costs[:, :, 0] >= 0
        sram, flash = MEASURES.index("sram_peak_bytes"), MEASURES.index("flash_bytes")
        costs[:, :, flash] += np.where(fits, batch.other_bytes, 0)
        if self.sram:  # constants that are in the memory of the maps
            shared = np.array([table.has_one_memory for table in self._tables])
            costs[:, :, sram] += np.where(fits & shared[:, None], costs[:, :, flash], 0)
        by_measure = {name: costs[:, :, i].T.copy() for i, name in enumerate(MEASURES)}
        clocks = np.array([one.clock_hz for one in self.machines], np.float64)
        return BatchCost(**by_measure, macs=batch.macs, clock_hz=clocks)


def estimate_batch(
    batch: Batch, machines: str | Machine | Sequence[str | Machine] = "ethos-u55-128"
) -> BatchCost:
    """The cost of every program of a batch on every machine; see `BatchEstimator`."""
    return BatchEstimator(machines)(batch)


def _check_free(target: Machine) -> None:
    """Refuse machines that need a search of their own for every network."""
    which = f"memory mode {target.mode.name!r} of {target.npu.name}"
    if target.spills:
        raise ConfigError(
            f"machines of batches must keep feature maps where weights are staged, got {which}, "
            "which npusim.estimate takes"
        )
    if (limit := target.mode.arena_cache_size_bytes) is not None:
        raise ConfigError(
            f"machines of batches must have arenas without limit, got {limit} bytes in {which}, "
            "which npusim.estimate takes"
        )


class _Index:
    """Operations that differ, each once."""

    def __init__(self) -> None:
        from npusim.cost.entries_kernels import OP_COLUMNS

        self.ops = np.empty((_ENTRIES_MIN, OP_COLUMNS), np.int64)
        self.n = 0
        self.slots = np.full(4 * _ENTRIES_MIN, -1, np.int64)
        self.statistics = np.empty((0, 2))
        """Entropies and parts of zeros, float64 [n, 2]."""

    def find(self, ops: Int64Array) -> Int64Array:
        """Line of each operation; new ones are added."""
        from npusim.cost.entries_kernels import STATISTICS, find_entries

        found = np.empty(len(ops), np.int64)
        for first in range(0, len(ops), _ENTRIES_MIN):
            part = ops[first : first + _ENTRIES_MIN]
            self._make_room(self.n + len(part))
            here = found[first : first + len(part)]
            self.n = find_entries(part, self.ops, self.n, self.slots, here)
        if len(self.statistics) < self.n:
            known = np.ascontiguousarray(self.ops[: self.n, STATISTICS:])
            self.statistics = known.view(np.float64)
        return found

    def _make_room(self, n: int) -> None:
        from npusim.cost.entries_kernels import index_entries

        if n <= len(self.ops):
            return
        grown = np.empty((2 * max(n, len(self.ops)), self.ops.shape[1]), np.int64)
        grown[: self.n] = self.ops[: self.n]
        self.ops = grown
        self.slots = np.full(2 << int(2 * len(grown)).bit_length(), -1, np.int64)
        index_entries(self.ops, 0, self.n, self.slots)


class _MachineTable:
    """What one machine makes of operations, and how they follow each other."""

    def __init__(self, target: Machine):
        from npusim.cost.entries_kernels import ENTRY_COLUMNS

        roles = MemoryRoles.of(target)
        npu = target.npu
        places = [roles.feature_maps, roles.constants, roles.staging]
        arrays = npu_array(npu), rate_array(npu), memory_array(roles.memories)
        self.machine = (*arrays, np.array(places, np.int64))
        self.n_memories = len(roles.memories)
        self.has_one_memory = roles.constants == roles.feature_maps
        self.most_block = max(npu.ofm_block_height_max, npu.ofm_block_width_max)
        self.entries = np.empty((0, ENTRY_COLUMNS), np.int64)
        self.n = 0
        self.memo: tuple[Int64Array, ...] | None = None

    def extend(self, index: _Index, alike: _MachineTable) -> None:
        """Entries for the operations that are new; `alike` has the same NPU and may have them."""
        from npusim.cost.blocks_kernels import SEARCH_COLUMNS
        from npusim.cost.entries_kernels import FITS, fill_blocks, fill_entries

        if index.n == self.n:
            return
        if index.n > len(self.entries):
            n_lines = len(index.ops) if self.n else index.n
            grown = np.empty((n_lines, self.entries.shape[1]), np.int64)
            grown[: self.n] = self.entries[: self.n]
            self.entries = grown
        new = slice(self.n, index.n)
        entries, ops = self.entries[new], index.ops[new]
        if alike is self:
            room = np.empty(SEARCH_COLUMNS, np.int64), np.empty((2, self.most_block, 3), np.int64)
            fill_blocks(ops, self.machine[0], room, entries)
        else:
            entries[:, : FITS + 1] = alike.entries[new, : FITS + 1]
        fill_entries(ops, index.statistics[new], stream_law(), self.machine, entries)
        self.n = index.n

    def cost(
        self,
        batch: Batch,
        entries: Int64Array,
        index: _Index,
        room: _Room,
        costs: Int64Array,
        *,
        sram: bool,
    ) -> None:
        """Fill costs int64 [n_programs, n_measures]."""
        from npusim.cost.batch_kernels import cost_programs

        table = batch.table
        in_place = table.in_place if sram else table.in_place[:0]
        known = index.ops, index.statistics
        arrays = room.arrays(self.n_memories)
        done, n_most = 0, max(_PLANS_MAX, 2 * room.n_ops_max)
        if self.memo is None or len(self.memo[0]) < 2 * room.n_ops_max:
            self.memo = _memo(max(2 * room.n_ops_max, min(_PLANS_MIN, 2 * len(entries))))
        while done < batch.n_programs:
            done = cost_programs(
                *(done, table.starts, entries, batch.links),
                *((table.accesses, table.maps, in_place), batch.formats, known, self.entries),
                *(stream_law(), self.machine, self.memo, arrays, costs),
            )
            if done < batch.n_programs:
                self.memo = _memo(min(4 * len(self.memo[0]), n_most))


def _memo(n_plans: int) -> tuple[Int64Array, ...]:
    """Room for plans, in which is but that of operations of the CPU."""
    from npusim.cost.batch_kernels import KEY_COLUMNS
    from npusim.cost.plans_kernels import N_SLICES, PLAN_COLUMNS

    n_slots = 2 << n_plans.bit_length()
    plans = np.zeros((n_plans, PLAN_COLUMNS), np.int64)
    plans[0, N_SLICES] = 1
    return (
        np.empty((n_plans, KEY_COLUMNS), np.int64),
        plans,
        np.full(n_slots, -1, np.int64),
        np.full((n_slots, 2), -1, np.int64),
        np.array([1, 0], np.int64),
    )


class _Room:
    """Arrays that the kernels work in, for the largest program of a batch."""

    def __init__(self, batch: Batch):
        from npusim.cost.plans_kernels import MAX_SLICES

        most = np.diff(batch.table.starts, axis=0).max(axis=0)
        n_maps, self.n_ops_max = int(most[1]), int(most[2])
        n_ranges = n_maps + 2 * self.n_ops_max + 3
        self.lines = np.empty(self.n_ops_max, np.int64)
        self.slices = np.empty(MAX_SLICES + 2, np.int64), np.empty((MAX_SLICES + 2, 2), np.int64)
        self.memory = (
            np.zeros((self.n_ops_max, 9), np.int64),
            np.empty((n_ranges, 4), np.int64),
            np.empty((n_maps + self.n_ops_max, 3), np.int64),
        )

    def arrays(self, n_memories: int) -> tuple[object, ...]:
        """For a machine of so many memories."""
        traffic = np.zeros((n_memories, col.TRAFFIC_COLUMNS), np.int64)
        return self.lines, (*self.slices, traffic), self.memory


def op_columns(
    program: Program, formats: Iterable[int], statistics: Sequence[tuple[float, float]]
) -> Int64Array:
    """Operations of one program as the kernels take them, int64 [n_ops, OP_COLUMNS]."""
    from npusim.cost import entries_kernels as kernels

    chosen = [int(value) for value in formats]
    ops = np.zeros((len(program.ops), kernels.OP_COLUMNS), np.int64)
    maps = program.maps
    producer: dict[int, NpuOp] = {}
    for op in program.ops:
        if op.on_npu:
            producer.setdefault(op.ofm.map, op)
    for index, op in enumerate(program.ops):
        line = ops[index]
        line[: col.ROW_COLUMNS] = row(op, maps, chosen)
        line[kernels.HAS_WEIGHTS] = op.weights is not None
        cuts = op.unit in ("convolution", "depthwise", "product")
        line[kernels.CAN_SLICE] = cuts and not op.transposed
        made_by = producer.get(op.ifm.map)
        line[kernels.CAN_STAGE_IFM] = made_by is not None and not moves_data(made_by)
        line[kernels.IFM_IS_CONSTANT] = maps[op.ifm.map].is_constant
        line[kernels.IFM2_IS_CONSTANT] = maps[(op.ifm2 or op.ifm).map].is_constant
        line[kernels.TABLE_BYTES] = op.table_bytes if op.kind == "activation" else 0
        line[kernels.STATISTICS :] = np.array(statistics[index], np.float64).view(np.int64)
        if op.weights is not None and line[col.OFM_DEPTH] > _SLICED_DEPTH_MAX:
            raise ConfigError(
                f"channels of {op.name!r} must be at most {_SLICED_DEPTH_MAX} in a batch, got "
                f"{line[col.OFM_DEPTH]}"
            )
    return ops


def _of_program(
    program: Program, statistics: Statistics
) -> tuple[Int64Array, Int64Array, MemoryTable, npt.NDArray[np.int8], int]:
    table = memory_table(program)
    formats = map_formats(table)
    known = [
        (0.0, 0.0) if op.weights is None else op_statistics(op, statistics) for op in program.ops
    ]
    ops = op_columns(program, formats, known)
    return ops, op_links(program), table, formats, other_bytes(program)


def op_links(program: Program) -> Int64Array:
    """How operations depend on others of their program, int64 [n_ops, LINK_COLUMNS]."""
    from npusim.cost import batch_kernels as kernels

    links = np.zeros((len(program.ops), kernels.LINK_COLUMNS), np.int64)
    links[:, [kernels.READER, kernels.SAME_WEIGHTS]] = -1
    links[:, kernels.N_SHARING] = 1
    keys = [None if op.weights is None else op.weights.key for op in program.ops]
    values, n_users = weight_values(program), Counter(keys)
    readers: dict[int, int] = {}
    users: dict[Hashable, int] = {}
    for index, op in enumerate(program.ops):
        for view in (op.ifm, op.ifm2):
            if view is not None:
                readers.setdefault(view.map, index)
        if op.weights is None:
            continue
        earlier = users.get(values[index])
        users[values[index]] = index
        if earlier is not None:
            links[index, kernels.SAME_WEIGHTS] = earlier
            links[index, kernels.NEW_SCALES] = scales_of(op) != scales_of(program.ops[earlier])
        neighbour = index - 1 if index else 1
        if neighbour < len(keys) and keys[neighbour] == keys[index]:
            links[index, kernels.N_SHARING] = n_users[keys[index]]
        if index and values[index - 1] == values[index]:
            before = program.ops[index - 1]
            links[index, kernels.SAME_AS_BEFORE] = before.depth_offset == op.depth_offset
    for index, op in enumerate(program.ops):
        links[index, kernels.READER] = readers.get(op.ofm.map, -1)
    return links


def other_bytes(program: Program) -> int:
    """Bytes in flash that no weights take."""
    nothing = EncodedWeights(0, (0, 1), 1)
    encoded = [None if op.weights is None else nothing for op in program.ops]
    items = flash_items(program, encoded)
    return flash_bytes([item for item in items if item.kind in ("table", "constant")])


def _joined(tables: Sequence[MemoryTable]) -> MemoryTable:
    ends = np.cumsum([table.starts[-1] for table in tables], axis=0)
    return MemoryTable(
        np.concatenate([table.accesses for table in tables]),
        np.concatenate([table.maps for table in tables]),
        np.concatenate([table.in_place for table in tables]),
        np.concatenate([np.zeros((1, 3), np.int64), ends]),
    )
