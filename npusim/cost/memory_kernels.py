# SPDX-License-Identifier: Apache-2.0
"""Kernels of `npusim.cost.formats` and `npusim.cost.liveness`; twin: `reference_memory`.

accesses i64 [n_accesses, 8], maps i64 [n_maps, 6], ops i64 [n_ops, 2], starts i64
[n_programs + 1, 3]: the arrays of `npusim.cost.memory_table.MemoryTable`. formats i8 [n_maps]: 0
NHWC, 1 NHCWB16.
"""

from __future__ import annotations

from typing import Any

from npusim._jit import kernel

_OP, _MAP, _ROLE, _WIDTH, _DEPTH, _PART_WIDTH, _PART_DEPTH, _NEEDS_NHWC = 0, 1, 2, 3, 4, 5, 6, 7
_READS, _WRITES, _WORKS_IN = 0, 1, 2
_ELEMENT_BITS, _FLAGS = 4, 5
_IS_INPUT, _IS_OUTPUT, _IS_CONSTANT, _IS_VARIABLE = 1, 2, 4, 8
_DEPTH_ALIGNMENT = 16
_ELEMENTS_MAX = (1 << 31) - 1
_QUANTUM = 16


@kernel
def padded_elements(map_: Any, brick: Any) -> Any:
    """Elements of a map i64 [6] in memory, its depth padded if brick."""
    depth = map_[3]
    if brick:
        depth = (depth + _DEPTH_ALIGNMENT - 1) // _DEPTH_ALIGNMENT * _DEPTH_ALIGNMENT
    return map_[0] * map_[1] * map_[2] * depth


@kernel
def find_formats(accesses: Any, maps: Any, starts: Any, read: Any, formats: Any) -> Any:
    """Fill formats; read i64 [n_maps, 2] is for the width and depth that readers agree on."""
    for i in range(maps.shape[0]):
        seen = maps[i, _FLAGS] != 0 or padded_elements(maps[i], True) > _ELEMENTS_MAX
        formats[i] = 0 if seen else 1
        read[i, 0] = -1
    for program in range(starts.shape[0] - 1):
        first, last, base = starts[program, 0], starts[program + 1, 0], starts[program, 1]
        for row in range(first, last):
            i = base + accesses[row, _MAP]
            if accesses[row, _NEEDS_NHWC]:
                formats[i] = 0
            if accesses[row, _ROLE] == _READS:
                read[i, 0], read[i, 1] = accesses[row, _PART_WIDTH], accesses[row, _PART_DEPTH]
        for row in range(first, last):
            i = base + accesses[row, _MAP]
            if read[i, 0] < 0 or accesses[row, _ROLE] == _WORKS_IN:
                continue
            same = accesses[row, _WIDTH] == read[i, 0] and accesses[row, _DEPTH] == read[i, 1]
            if accesses[row, _ROLE] == _READS:
                same &= accesses[row, _PART_WIDTH] == read[i, 0]
                same &= accesses[row, _PART_DEPTH] == read[i, 1]
            if not same:
                formats[i] = 0
