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
from npusim.cost.memory_table import Int64Array, MemoryTable, memory_table
from npusim.cost.program import Program
from npusim.errors import ConfigError

QUANTUM_BYTES: Final = 16
"""Sizes in the arena are multiples of this."""


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
class WeightBuffers:
    """Memory that weights are brought into before an operation reads them.

    Attributes:
        n_bytes: of the two halves of each operation's buffer, int64 [n_ops, 2]; 0: none.
        pre_buffered: whether the first half is filled under the operation before, bool [n_ops].
        n_slices: number of slices its weights are cut into, int64 [n_ops].
        shares: whether an operation uses the buffer of the NPU operation before it, which holds
            the same weights, bool [n_ops].
    """

    n_bytes: Int64Array
    pre_buffered: npt.NDArray[np.bool_]
    n_slices: Int64Array
    shares: npt.NDArray[np.bool_]


def live_ranges(
    program: Program | MemoryTable,
    formats: npt.ArrayLike,
    buffers: WeightBuffers | None = None,
) -> LiveRanges:
    """The live ranges of one program.

    Args:
        program: or its table.
        formats: of every map, as `npusim.cost.formats.map_formats` gives them.
        buffers: of the weights; None: they are read where they lie.
    """
    raise NotImplementedError
