# SPDX-License-Identifier: Apache-2.0
"""When each stretch of the arena is in use, and how full that makes it.

Time runs in steps of two for each operation (operations of a cascade share a step): an operation is
at work from its even time to the odd one after it, and a weight buffer that is filled under the
operation before is in use one step earlier. Ends are inclusive. Feature maps that take each other's
place, as the ofm of an elementwise operation does its ifm's, are one live range.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from npusim._arguments import integer_array
from npusim.cost.formats import NHCWB16, map_formats
from npusim.cost.memory_table import Int64Array, MemoryTable, memory_table
from npusim.cost.program import Program
from npusim.errors import ConfigError

QUANTUM_BYTES: Final = 16
"""Sizes in the arena are multiples of this."""
_BYTES_MAX: Final = (1 << 31) - 1


@dataclass(frozen=True, slots=True, eq=False)
class LiveRanges:
    """Stretches of the arena, in the order in which Arm's compiler comes across them.

    Attributes:
        start: first time step, int64 [n_ranges].
        end: last one.
        n_bytes: size, a multiple of `QUANTUM_BYTES`.
        of_map: which range each feature map is in, [n_maps]; -1: none, it is not in the arena.
        of_buffer: which ranges the weight buffers of each operation are, [n_ops, 2]; -1: none.
        op_time: time step at which each operation begins, [n_ops].
        n_steps: number of time steps.
    """

    start: Int64Array
    end: Int64Array
    n_bytes: Int64Array
    of_map: Int64Array
    of_buffer: Int64Array
    op_time: Int64Array
    n_steps: int

    def emptied(self) -> LiveRanges:
        """The same program in a memory in which it has nothing."""
        none, nowhere = np.empty(0, np.int64), -np.ones_like(self.of_map)
        buffers = -np.ones_like(self.of_buffer)
        return LiveRanges(none, none, none, nowhere, buffers, self.op_time, self.n_steps)

    @property
    def usage_bytes(self) -> Int64Array:
        """Bytes in use at each time step, shape [n_steps]."""
        change = np.zeros(self.n_steps + 1, np.int64)
        np.add.at(change, self.start, self.n_bytes)
        np.subtract.at(change, self.end + 1, self.n_bytes)
        return change.cumsum()[:-1]

    @property
    def peak_bytes(self) -> int:
        """The most that is in use at once: no arena can be smaller."""
        return int(self.usage_bytes.max(initial=0))

    @property
    def at_peak(self) -> npt.NDArray[np.bool_]:
        """Which ranges are in use at the first time step that needs most, shape [n_ranges]."""
        time = int(self.usage_bytes.argmax())
        return (self.start <= time) & (time <= self.end)


@dataclass(frozen=True, slots=True, eq=False)
class MemorySchedule:
    """What the scheduler decides about memory, operation by operation.

    Attributes:
        buffer_bytes: of the two halves of each operation's weight buffer, int64 [n_ops, 2];
            0: none.
        pre_buffered: whether the first half is filled under the operation before, [n_ops].
        n_slices: number of slices that the weights are cut into, [n_ops]; they take the halves in
            turn.
        buffer_of: the operation whose buffer is used, [n_ops]: its own number, or that of an
            earlier one with the same weights.
        cascade: number of the cascade that the operation is part of, [n_ops]; 0: none.
        rolling_bytes: of the rolling buffer that one of its inputs is within a cascade, [n_ops];
            0: none.
        rolling_input: which input that is, [n_ops], 0 or 1.

    Raises:
        ConfigError: an array is not of integers, has another length than the others or holds
            values out of range.
    """

    buffer_bytes: Int64Array
    pre_buffered: Int64Array
    n_slices: Int64Array
    buffer_of: Int64Array
    cascade: Int64Array
    rolling_bytes: Int64Array
    rolling_input: Int64Array

    def __post_init__(self) -> None:
        buffers = integer_array("buffer_bytes", self.buffer_bytes)
        if buffers.ndim != 2 or buffers.shape[1] != 2:
            raise ConfigError(f"buffer_bytes must have shape [n_ops, 2], got {buffers.shape}")
        for name, low, high in (
            ("buffer_bytes", 0, _BYTES_MAX),
            ("pre_buffered", 0, 1),
            ("n_slices", 1, _BYTES_MAX),
            ("buffer_of", 0, _BYTES_MAX),
            ("cascade", 0, _BYTES_MAX),
            ("rolling_bytes", 0, _BYTES_MAX),
            ("rolling_input", 0, 1),
        ):
            array = integer_array(name, getattr(self, name)).astype(np.int64)
            if len(array) != len(buffers) or (array.ndim != 1 and name != "buffer_bytes"):
                raise ConfigError(f"{name} must have {len(buffers)} rows, got shape {array.shape}")
            outside = (array < low) | (array > high)
            if outside.any():
                raise ConfigError(f"{name} must be in {low}..{high}, got {array[outside][0]}")
            object.__setattr__(self, name, array)

    @classmethod
    def unbuffered(cls, n_ops: int) -> MemorySchedule:
        """Weights that are read where they lie, without cascades."""
        zeros, ones = np.zeros(n_ops, np.int64), np.ones(n_ops, np.int64)
        own = np.arange(n_ops)
        return cls(np.zeros((n_ops, 2), np.int64), zeros, ones, own, zeros, zeros, zeros)

    def columns(self, table: MemoryTable) -> Int64Array:
        """The rows that kernels take for the operations of a table, int64 [n_ops, 9].

        Raises:
            ConfigError: the table has another number of operations, or an operation uses the
                buffer of a later one.
        """
        n_ops = len(table.in_place)
        if len(self.cascade) != n_ops:
            raise ConfigError(f"schedule must have {n_ops} rows, got {len(self.cascade)}")
        firsts = table.starts[:-1, 2]
        own = np.arange(n_ops) - np.repeat(firsts, np.diff(table.starts[:, 2]))
        late = self.buffer_of > own
        if late.any():
            op = int(late.argmax())
            raise ConfigError(
                f"buffer_of operation {own[op]} must be in 0..{own[op]}, got {self.buffer_of[op]}"
            )
        last_half = np.where(self.buffer_bytes[:, 1] > 0, (self.n_slices - 1) % 2, 0)
        rest = (self.buffer_of, self.cascade, self.rolling_bytes, self.rolling_input)
        buffers = (*self.buffer_bytes.T, self.pre_buffered, last_half)
        return np.column_stack((table.in_place, *buffers, *rest))


def live_ranges(
    program: Program | MemoryTable,
    formats: npt.ArrayLike | None = None,
    schedule: MemorySchedule | None = None,
) -> LiveRanges:
    """The live ranges of one program, in the order in which Arm's compiler comes across them.

    Args:
        program: or its table.
        formats: of every map, as `npusim.cost.formats.map_formats` gives them; None: those.
        schedule: weight buffers and cascades; None: neither.

    Raises:
        ConfigError: a table of several programs, or formats or schedule of another length.

    Source: [VELA] regor 5.2.0, which the tests compare range by range.

    >>> from npusim.cost.program import FeatureMap, NpuOp, View
    >>> shapes = [(1, 8, 8, 4), (1, 8, 8, 24), (1, 8, 8, 24)]
    >>> maps = [FeatureMap(name, shape) for name, shape in zip("xyz", shapes)]
    >>> views = [View(i, shape) for i, shape in enumerate(shapes)]
    >>> ops = NpuOp("y", "conv", *views[:2]), NpuOp("z", "abs", *views[1:])
    >>> ranges = live_ranges(Program("two", tuple(maps), ops))
    >>> ranges.n_bytes.tolist(), ranges.of_map.tolist(), ranges.usage_bytes.tolist()
    ([1024, 2048], [0, 1, 1], [3072, 3072, 2048, 2048, 0, 0])
    """
    from npusim.cost.memory_kernels import find_ranges

    table = program if isinstance(program, MemoryTable) else memory_table(program)
    if table.n_programs != 1:
        raise ConfigError(f"table must hold one program, got {table.n_programs}")
    chosen = map_formats(table) if formats is None else integer_array("formats", formats)
    n_maps, n_ops = len(table.maps), len(table.in_place)
    if chosen.shape != (n_maps,):
        raise ConfigError(f"formats must have shape [{n_maps}], got {chosen.shape}")
    schedule = MemorySchedule.unbuffered(n_ops) if schedule is None else schedule
    ranges, owners = _room(n_maps, n_ops)
    n_ranges, n_steps = find_ranges(
        *(table.accesses, table.maps, schedule.columns(table)),
        *(np.require(chosen, np.int8, ["C", "A"]), ranges, owners),
    )
    start, end, n_bytes = ranges[:n_ranges, :3].T.copy()
    of_map, of_buffer, op_time = owners[:n_maps, 0], owners[n_maps:, :2], owners[n_maps:, 2]
    return LiveRanges(start, end, n_bytes, of_map, of_buffer, op_time, n_steps)


def map_bytes(table: MemoryTable, formats: npt.ArrayLike) -> Int64Array:
    """What each map takes in the arena, shape [n_maps]: a multiple of `QUANTUM_BYTES`."""
    batch, height, width, depth, _, bits, _ = table.maps.T.astype(np.int64)
    padded = np.where(np.asarray(formats) == NHCWB16, -(-depth // 16) * 16, depth)
    n_bits = batch * height * width * padded * bits
    n_bytes: Int64Array = -(-n_bits // (8 * QUANTUM_BYTES)) * QUANTUM_BYTES
    return n_bytes


def peak_bytes(table: MemoryTable, schedule: MemorySchedule | None = None) -> Int64Array:
    """What each of many programs needs at once, shape [n_programs]: no arena can be smaller.

    Args:
        table: of the programs.
        schedule: weight buffers and cascades of all their operations; None: neither.

    Raises:
        ConfigError: the schedule has another number of operations.
    """
    from npusim.cost.memory_kernels import find_peaks

    n_maps, n_ops = len(table.maps), len(table.in_place)
    schedule = MemorySchedule.unbuffered(n_ops) if schedule is None else schedule
    most = np.diff(table.starts, axis=0).max(axis=0, initial=0)
    ranges, owners = _room(int(most[1]), int(most[2]))
    peaks = np.empty(table.n_programs, np.int64)
    find_peaks(
        *(table.accesses, table.maps, schedule.columns(table), table.starts),
        *(np.empty(n_maps, np.int8), ranges, owners, peaks),
    )
    return peaks


def _room(n_maps: int, n_ops: int) -> tuple[Int64Array, Int64Array]:
    """Arrays ranges and owners for the kernels."""
    n_ranges = n_maps + 2 * n_ops + 3
    return np.empty((n_ranges, 4), np.int64), np.empty((n_maps + n_ops, 3), np.int64)
