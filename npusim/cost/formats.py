# SPDX-License-Identifier: Apache-2.0
"""The order that the elements of a feature map have in memory.

NHCWB16 keeps 16 channels of a pixel together, so that a block of channels is read in long bursts;
its depth is padded to a multiple of 16. Arm's compiler uses it for every feature map but those

- that the network's caller or the CPU sees, constants, and variables;
- that an operation can use in NHWC alone: a part that begins inside 16 channels, columns with gaps,
  transposition, turning round, products of two maps, copies of 32-bit elements and their sums over
  the depth;
- whose readers do not all read the width and depth that it is written with: views of a reshaped
  map, or parts along width or depth.
"""

from __future__ import annotations

from typing import Final

import numpy as np
import numpy.typing as npt

from npusim.cost.memory_table import MemoryTable, memory_table
from npusim.cost.program import Program

NHWC, NHCWB16 = 0, 1
FORMATS: Final = ("NHWC", "NHCWB16")
"""Names of the formats; `map_formats` gives indices into them."""


def map_formats(program: Program | MemoryTable) -> npt.NDArray[np.int8]:
    """The format of every feature map: `NHWC` (0) or `NHCWB16` (1), shape [n_maps].

    Args:
        program: one program, or the table of many.

    Source: [VELA] regor 5.2.0, which the tests compare map by map.

    >>> from npusim.cost.program import FeatureMap, NpuOp, View
    >>> shape = (1, 8, 8, 4)
    >>> maps = (FeatureMap("x", shape, is_input=True), FeatureMap("y", shape))
    >>> op = NpuOp("y", "max_pool", View(0, shape), View(1, shape), kernel=(2, 2))
    >>> [FORMATS[i] for i in map_formats(Program("one", maps, (op,)))]
    ['NHWC', 'NHCWB16']
    """
    from npusim.cost.memory_kernels import find_all_formats

    table = program if isinstance(program, MemoryTable) else memory_table(program)
    formats = np.empty(len(table.maps), np.int8)
    most = np.diff(table.starts[:, 1]).max(initial=0)
    agreed = np.empty((most, 3), np.int64)
    find_all_formats(table.accesses, table.maps, table.starts, agreed, formats)
    return formats
