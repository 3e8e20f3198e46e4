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

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from npusim.cost import columns as col
from npusim.cost.batch_arrays import joined, program_arrays
from npusim.cost.batch_tables import BatchEntries, Known, MachineTable, cost_on_few, cost_on_many
from npusim.cost.lowering import program as lower
from npusim.cost.memory_table import MemoryTable
from npusim.cost.program import Program
from npusim.cost.weight_sizes import Statistics
from npusim.errors import ConfigError
from npusim.hardware import Machine, machine
from npusim.network import Network
from npusim.weights.expected import TRAINED

Int64Array = npt.NDArray[np.int64]
Float64Array = npt.NDArray[np.float64]

MEASURES: Final = (
    *("total_cycles", "npu_cycles", "sram_peak_bytes", "flash_bytes", "weights_encoded_bytes"),
)
"""What a batch is costed in, beside its multiply-accumulates."""
_COSTS: Final = (*MEASURES, "least total_cycles", "most total_cycles")
_KEPT_MACHINES_MAX: Final = 64
_MAC_UNITS: Final = (col.CONVOLUTION, col.PRODUCT, col.DEPTHWISE, col.POOLING, col.REDUCE_SUM)


@dataclass(frozen=True, slots=True, eq=False)
class Batch:
    """Programs as arrays, one behind the other.

    Attributes:
        ops: what operations are, int64 [n, entries_kernels.OP_COLUMNS].
        rows: line of `ops` of each operation, int64 [n_ops].
        links: how they depend on others of their program, int64 [n_ops, LINK_COLUMNS]; those of one
            program where all have the same.
        table: their maps, and where each program begins.
        formats: of every map, int8 [n_maps].
        other_bytes: tables and constants of each program in flash, int64 [n_programs].
    """

    ops: Int64Array
    rows: Int64Array
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
        parts = [program_arrays(one, statistics) for one in programs]
        ops, links, tables, formats, others = zip(*parts, strict=True)
        lines = np.concatenate(ops)
        return cls(
            lines,
            np.arange(len(lines)),
            np.concatenate(links),
            joined(tables),
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
        total = np.concatenate([[0], np.cumsum(sums[self.rows])])
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
        cycles_range: least and most total cycles where weights leave open what the compiler would
            do with them, as `npusim.Cost.cycles_range`; shape [n_networks, n_machines, 2].
        macs: multiply-accumulates, shape [n_networks].
        clock_hz: of each machine, float64 [n_machines].
    """

    total_cycles: Int64Array
    npu_cycles: Int64Array
    sram_peak_bytes: Int64Array
    flash_bytes: Int64Array
    weights_encoded_bytes: Int64Array
    cycles_range: Int64Array
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

    On up to 64 machines, that is: on more it begins anew with every batch.

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
        self._known = Known()
        is_few = len(several) <= _KEPT_MACHINES_MAX
        self._tables = [MachineTable(one) for one in self.machines] if is_few else None

    def __call__(self, batch: Batch) -> BatchCost:
        """The cost of every program of a batch on every machine."""
        return self.costs(batch, self.entries(batch))

    def entries(self, batch: Batch) -> BatchEntries:
        """The operations of a batch as those that are known, to which new ones are added.

        A batch that is costed again needs this but once.
        """
        if self._tables is None or self._known.is_full:
            self._known = Known()
        index = self._known.find(batch.ops)[batch.rows]
        listed = self._known.list(batch, index, sram=self.sram)
        return BatchEntries(self._known, listed, batch.macs)

    def costs(self, batch: Batch, entries: BatchEntries) -> BatchCost:
        """The cost of a batch whose `entries` are known."""
        costs = np.empty((len(self.machines), batch.n_programs, len(_COSTS)), np.int64)
        if self._tables is None:
            cost_on_many(self.machines, batch, entries, costs)
        else:
            cost_on_few(self._tables, batch, entries, costs)
        fits = costs[:, :, 0] >= 0
        sram, flash = MEASURES.index("sram_peak_bytes"), MEASURES.index("flash_bytes")
        costs[:, :, flash] += np.where(fits, batch.other_bytes, 0)
        if entries.has_usage:  # constants that are in the memory of the maps
            shared = np.array(
                [one.constants.name == one.feature_maps.name for one in self.machines]
            )
            costs[:, :, sram] += np.where(fits & shared[:, None], costs[:, :, flash], 0)
        by_measure = {name: costs[:, :, i].T.copy() for i, name in enumerate(MEASURES)}
        clocks = np.array([one.clock_hz for one in self.machines], np.float64)
        limits = costs[:, :, len(MEASURES) :].transpose(1, 0, 2).copy()
        return BatchCost(**by_measure, cycles_range=limits, macs=entries.macs, clock_hz=clocks)


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
