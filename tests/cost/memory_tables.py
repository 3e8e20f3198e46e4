# SPDX-License-Identifier: Apache-2.0
"""Random tables of programs and schedules, for Hypothesis; and small programs by hand."""

from __future__ import annotations

from typing import Any

import numpy as np
from hypothesis import strategies as st

from npusim.cost.liveness import MemorySchedule
from npusim.cost.memory_table import READS, WORKS_IN, WRITES, MemoryTable
from npusim.cost.program import FeatureMap, NpuOp, Program, View

SHAPE = (1, 8, 8, 24)


def chain(*shapes: Any, kinds: Any = (), **flags: dict[int, Any]) -> Program:
    """A program of operations that each read the map before theirs, all of them whole.

    Args:
        shapes: of the maps.
        kinds: of the operations; "max_pool" where not given.
        flags: fields of maps by number, such as ``is_output={2: True}``.
    """
    maps = [
        FeatureMap(f"map {i}", shape, **{name: by[i] for name, by in flags.items() if i in by})
        for i, shape in enumerate(shapes)
    ]
    kinds = [*kinds, *["max_pool"] * (len(shapes) - 1 - len(kinds))]
    ops = [
        NpuOp(
            *(f"op {i}", kind, View(i, shapes[i]), View(i + 1, shapes[i + 1])),
            kernel=(2, 2) if kind.endswith("pool") else (1, 1),
        )
        for i, kind in enumerate(kinds)
    ]
    return Program("chain", tuple(maps), tuple(ops))


@st.composite
def tables(draw: Any, n_programs: int = 1) -> MemoryTable:
    """Tables whose few sizes make views agree often."""
    accesses: list[Any] = []
    maps: list[Any] = []
    in_place: list[int] = []
    starts = [[0, 0, 0]]
    few = st.sampled_from((1, 3, 16, 20))
    for _ in range(n_programs):
        n_maps, n_ops = draw(st.integers(1, 6)), draw(st.integers(0, 6))
        flags = st.sampled_from((0, 0, 0, 0, 1, 2, 3, 4, 8))
        for _ in range(n_maps):
            height = draw(st.sampled_from((1, 2, 1 << 27)) if draw(few) == 20 else few)
            dtype = draw(st.sampled_from(((0, 32), (9, 8), (9, 8), (9, 8))))
            maps.append([1, height, draw(few), draw(few), *dtype, draw(flags)])
        for op in range(n_ops):
            roles = [READS] * draw(st.integers(0, 2)) + [WORKS_IN] * draw(st.integers(0, 1))
            for role in [*roles, WRITES]:
                map_ = draw(st.integers(0, n_maps - 1))
                whole = maps[starts[-1][1] + map_][2:4]
                part = whole if draw(st.booleans()) else [draw(few), draw(few)]
                nhwc = draw(st.sampled_from((0, 0, 0, 1)))
                accesses.append([op, map_, role, *whole, *part, nhwc])
            in_place.append(int(draw(st.booleans())))
        starts.append([len(accesses), len(maps), len(in_place)])
    arrays = [np.array(rows, np.int64).reshape(-1, n) for rows, n in ((accesses, 8), (maps, 7))]
    return MemoryTable(*arrays, np.array(in_place, np.int64), np.array(starts))


@st.composite
def schedules(draw: Any, table: MemoryTable) -> MemorySchedule:
    """Weight buffers, some of them shared, and cascades of neighbours."""
    rows = []
    for first, last in zip(table.starts[:-1, 2], table.starts[1:, 2], strict=True):
        cascade = 0
        for op in range(last - first):
            if draw(st.booleans()):
                cascade = draw(st.integers(0, 1)) * (op + 1)
            halves = draw(st.sampled_from(((0, 0), (16, 0), (160, 0), (64, 32))))
            shares = op > 0 and draw(st.booleans()) and rows[-1][:2] == list(halves)
            owner = rows[-1][4] if shares else op
            early, n_slices = draw(st.integers(0, 1)), draw(st.integers(1, 4))
            rolling = 48 if cascade and draw(st.booleans()) else 0
            which = draw(st.integers(0, 1))
            rows.append([*halves, early, n_slices, owner, cascade, rolling, which])
    table_rows = np.array(rows, np.int64).reshape(-1, 8)
    return MemorySchedule(table_rows[:, :2], *table_rows[:, 2:].T)
