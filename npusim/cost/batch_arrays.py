# SPDX-License-Identifier: Apache-2.0
"""Programs as the arrays that `npusim.cost.batch` takes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable, Iterable, Sequence
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
from npusim.cost.memory_table import MemoryTable, memory_table
from npusim.cost.program import NpuOp, Program
from npusim.cost.rows import row
from npusim.cost.weight_sizes import Statistics, op_statistics
from npusim.errors import ConfigError

Int64Array = npt.NDArray[np.int64]

_SLICED_DEPTH_MAX: Final = 1 << 16


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


def program_arrays(
    program: Program, statistics: Statistics
) -> tuple[Int64Array, Int64Array, MemoryTable, npt.NDArray[np.int8], int]:
    """One program: operations, links, memory table, formats, and bytes in flash beside weights.

    Raises:
        ConfigError: weights of more than 65536 channels.
        UnknownNameError: the statistics are those of other operations.
    """
    table = memory_table(program)
    formats = map_formats(table)
    known = [
        (0.0, 0.0) if op.weights is None else op_statistics(op, statistics) for op in program.ops
    ]
    ops = op_columns(program, formats, known)
    return ops, op_links(program), table, formats, other_bytes(program)


def op_links(program: Program) -> Int64Array:
    """How operations depend on others of their program, int64 [n_ops, LINK_COLUMNS]."""
    from npusim.cost import lookup_kernels as kernels

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


def joined(tables: Sequence[MemoryTable]) -> MemoryTable:
    """Tables of memory as one."""
    ends = np.cumsum([table.starts[-1] for table in tables], axis=0)
    return MemoryTable(
        np.concatenate([table.accesses for table in tables]),
        np.concatenate([table.maps for table in tables]),
        np.concatenate([table.in_place for table in tables]),
        np.concatenate([np.zeros((1, 3), np.int64), ends]),
    )
