# SPDX-License-Identifier: Apache-2.0
"""Programs as the arrays that `npusim.cost.batch` takes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable, Sequence
from typing import Final

import numpy as np
import numpy.typing as npt

from npusim._once import once_per_object
from npusim.cost import columns as col
from npusim.cost.flash import other_bytes, scales_of, weight_values
from npusim.cost.memory_table import MemoryTable, memory_table
from npusim.cost.program import NpuOp, Program
from npusim.cost.rows import program_rows
from npusim.cost.weight_sizes import Statistics, op_statistics
from npusim.errors import ConfigError

Int64Array = npt.NDArray[np.int64]

_SLICED_DEPTH_MAX: Final = 1 << 16
_MOVING_KINDS: Final = ("copy", "transpose", "reverse", "tile")


def op_columns(program: Program, statistics: Sequence[tuple[float, float]]) -> Int64Array:
    """Operations of one program as the kernels take them, int64 [n_ops, OP_COLUMNS].

    Raises:
        ConfigError: weights of more than 65536 channels.
    """
    from npusim.cost import entries_kernels as kernels

    ops = op_lines(program).copy()
    known = np.array(statistics, np.float64).reshape(-1, 2)
    ops[:, kernels.STATISTICS :] = known.view(np.int64)
    wide = (ops[:, kernels.HAS_WEIGHTS] > 0) & (ops[:, col.OFM_DEPTH] > _SLICED_DEPTH_MAX)
    if wide.any():
        index = int(wide.argmax())
        raise ConfigError(
            f"channels of {program.ops[index].name!r} must be at most {_SLICED_DEPTH_MAX} in a "
            f"batch, got {ops[index, col.OFM_DEPTH]}"
        )
    return ops


@once_per_object
def op_lines(program: Program) -> Int64Array:
    """What is known of operations but for their weights, int64 [n_ops, OP_COLUMNS]."""
    from npusim.cost import entries_kernels as kernels

    ops = np.zeros((len(program.ops), kernels.OP_COLUMNS), np.int64)
    _, ops[:, : col.ROW_COLUMNS] = program_rows(program)
    flags = np.array(_flags(program), np.int64)
    ops[:, col.ROW_COLUMNS : kernels.STATISTICS] = flags.reshape(
        -1, kernels.STATISTICS - col.ROW_COLUMNS
    )
    return ops


def _flags(program: Program) -> list[tuple[int, ...]]:
    """What `entries_kernels` wants to know of operations beside their rows."""
    maps = program.maps
    producer: dict[int, NpuOp] = {}
    for op in program.ops:
        if op.on_npu:
            producer.setdefault(op.ofm.map, op)
    found: list[tuple[int, ...]] = []
    for op in program.ops:
        made_by = producer.get(op.ifm.map)
        found.append(
            (
                op.weights is not None,
                op.unit in ("convolution", "depthwise", "product") and not op.transposed,
                made_by is not None and made_by.kind not in _MOVING_KINDS,
                maps[op.ifm.map].is_constant,
                maps[(op.ifm2 or op.ifm).map].is_constant,
                op.table_bytes if op.kind == "activation" else 0,
            )
        )
    return found


def program_arrays(
    program: Program, statistics: Statistics
) -> tuple[Int64Array, Int64Array, MemoryTable, npt.NDArray[np.int8], int]:
    """One program: operations, links, memory table, formats, and bytes in flash beside weights.

    Raises:
        ConfigError: weights of more than 65536 channels.
        UnknownNameError: the statistics are those of other operations.
    """
    table, (formats, _) = memory_table(program), program_rows(program)
    known = [
        (0.0, 0.0) if op.weights is None else op_statistics(op, statistics) for op in program.ops
    ]
    ops = op_columns(program, known)
    return ops, op_links(program), table, formats, other_bytes(program)


@once_per_object
def op_links(program: Program) -> Int64Array:
    """How operations depend on others of their program, int64 [n_ops, LINK_COLUMNS]."""
    from npusim.cost import lookup_kernels as kernels
    from npusim.cost.plans_kernels import N_SHARING, READER

    links = np.zeros((len(program.ops), kernels.LINK_COLUMNS), np.int64)
    links[:, [READER, kernels.SAME_WEIGHTS]] = -1
    links[:, N_SHARING] = 1
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
            links[index, N_SHARING] = n_users[keys[index]]
        if index and values[index - 1] == values[index]:
            before = program.ops[index - 1]
            links[index, kernels.SAME_AS_BEFORE] = before.depth_offset == op.depth_offset
    for index, op in enumerate(program.ops):
        links[index, READER] = readers.get(op.ofm.map, -1)
    return links


def joined(tables: Sequence[MemoryTable]) -> MemoryTable:
    """Tables of memory as one."""
    if len(tables) == 1:
        return tables[0]
    ends = np.cumsum([table.starts[-1] for table in tables], axis=0)
    return MemoryTable(
        np.concatenate([table.accesses for table in tables]),
        np.concatenate([table.maps for table in tables]),
        np.concatenate([table.in_place for table in tables]),
        np.concatenate([np.zeros((1, 3), np.int64), ends]),
    )
