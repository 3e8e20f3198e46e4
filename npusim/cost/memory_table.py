# SPDX-License-Identifier: Apache-2.0
"""What the memory kernels must know of programs, as arrays: one program or thousands in a row.

`memory_table` makes the arrays of one `Program`; search tools that have shapes alone fill them
themselves. Rows of `accesses` are in the order of execution, and within an operation inputs before
outputs; so the rows of one program lie together, and `starts` says where each begins.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, TypeAlias

import numpy as np
import numpy.typing as npt

from npusim._arguments import integer_array
from npusim._once import once_per_object
from npusim.cost.program import FeatureMap, NpuOp, Program, View
from npusim.errors import ConfigError
from npusim.tensor import DTYPES

Int64Array: TypeAlias = npt.NDArray[np.int64]

ACCESS_COLUMNS: Final = (
    *("op", "map", "role", "width", "depth", "part_width", "part_depth", "needs_nhwc"),
)
"""One use of a map by an operation: both as numbers within their program; `ROLES`; the map's width
and depth as the operation counts them; those of the part it uses; whether that needs NHWC."""
MAP_COLUMNS: Final = ("batch", "height", "width", "depth", "dtype", "element_bits", "flags")
"""Its shape as stored; number of its type in `npusim.tensor.DTYPES`; bits of an element; flags."""

READS, WRITES, WORKS_IN = 0, 1, 2
ROLES: Final = ("reads", "writes", "works in")
IS_INPUT, IS_OUTPUT, IS_ELSEWHERE, IS_VARIABLE = 1, 2, 4, 8
"""Bits of a map's flags; elsewhere than in the arena are constants, and maps without elements."""

_DEPTH_ALIGNMENT: Final = 16
_NHWC_KINDS: Final = ("transpose", "matmul")


@dataclass(frozen=True, slots=True, eq=False)
class MemoryTable:
    """How the operations of one or more programs use their feature maps.

    Attributes:
        accesses: int64 [n_accesses, 8], columns `ACCESS_COLUMNS`.
        maps: int32 [n_maps, 7], columns `MAP_COLUMNS`.
        in_place: whether the ofm may take the place of an ifm, int8 [n_ops], 0 or 1.
        starts: int64 [n_programs + 1, 3]: first access, map and operation of each program, and
            behind the last one how many there are.

    Raises:
        ConfigError: an array has another number of columns, is not of integers or has too large
            ones, or `starts` do not divide the arrays.
    """

    accesses: Int64Array
    maps: npt.NDArray[np.int32]
    in_place: npt.NDArray[np.int8]
    starts: Int64Array

    def __post_init__(self) -> None:
        for name, columns, dtype in (
            ("accesses", len(ACCESS_COLUMNS), np.int64),
            ("maps", len(MAP_COLUMNS), np.int32),
            ("in_place", 0, np.int8),
            ("starts", 3, np.int64),
        ):
            array = integer_array(name, getattr(self, name))
            if array.shape[1:] != ((columns,) if columns else ()) or not array.ndim:
                shape = f"[n, {columns}]" if columns else "[n]"
                raise ConfigError(f"{name} must have shape {shape}, got {array.shape}")
            least, most = np.iinfo(dtype).min, np.iinfo(dtype).max
            if array.size and not least <= array.min() <= array.max() <= most:
                raise ConfigError(
                    f"{name} must be in {least}..{most}, got {array.min()} to {array.max()}"
                )
            object.__setattr__(self, name, np.require(array, dtype, ["C", "A"]))
        ends = [len(self.accesses), len(self.maps), len(self.in_place)]
        starts = self.starts
        if not len(starts) or starts[0].any() or starts[-1].tolist() != ends:
            raise ConfigError(f"starts must begin at 0 and end at {ends}, got {starts.tolist()}")
        if (np.diff(starts, axis=0) < 0).any():
            raise ConfigError(f"starts must not decrease, got {starts.tolist()}")
        self._check_accesses()

    def _check_accesses(self) -> None:
        """Every access must name an operation and a map of its own program, in order."""
        counts = np.diff(self.starts, axis=0)
        n_maps, n_ops = (np.repeat(counts[:, i], counts[:, 0]) for i in (1, 2))
        for what, values, ends in (
            ("op", self.accesses[:, 0], n_ops),
            ("map", self.accesses[:, 1], n_maps),
            ("role", self.accesses[:, 2], np.full(len(self.accesses), len(ROLES))),
        ):
            outside = (values < 0) | (values >= ends)
            if outside.any():
                row = int(outside.argmax())
                raise ConfigError(
                    f"{what} of access {row} must be in 0..{ends[row] - 1}, got {values[row]}"
                )
        program = np.repeat(np.arange(self.n_programs), counts[:, 0])
        falls = (np.diff(self.accesses[:, 0]) < 0) & (np.diff(program) == 0)
        if falls.any():
            row = int(falls.argmax()) + 1
            raise ConfigError(f"accesses must be in the order of operations, got row {row} late")

    def repeated(self, n: int, *, shared: bool = False) -> MemoryTable:
        """The table of one program as that of n, each with arrays of its own; what is right in one
        is right in all, so that nothing is checked again.

        Args:
            n: number of programs.
            shared: whether they have but one set of accesses, which for all of them starts at 0.
        """
        starts = np.arange(n + 1)[:, None] * self.starts[-1]
        accesses = self.accesses if shared else np.tile(self.accesses, (n, 1))
        if shared:
            starts[:, 0] = 0
        return MemoryTable._of(
            accesses, np.tile(self.maps, (n, 1)), np.tile(self.in_place, n), starts
        )

    @classmethod
    def _of(cls, *arrays: npt.NDArray[np.signedinteger]) -> MemoryTable:
        """The table of arrays that are known to be right."""
        table = object.__new__(cls)
        for name, array in zip(cls.__slots__, arrays, strict=True):
            object.__setattr__(table, name, array)
        return table

    @property
    def n_programs(self) -> int:
        """Number of programs."""
        return len(self.starts) - 1


@once_per_object
def memory_table(program: Program) -> MemoryTable:
    """The arrays of one program.

    >>> from npusim.cost.program import FeatureMap, NpuOp, Program, View
    >>> maps = (FeatureMap("x", (1, 8, 8, 3), is_input=True), FeatureMap("y", (1, 8, 8, 4)))
    >>> views = [View(i, map.shape) for i, map in enumerate(maps)]
    >>> memory_table(Program("one", maps, (NpuOp("y", "conv", *views),))).accesses[:, :5].tolist()
    [[0, 0, 0, 8, 3], [0, 1, 1, 8, 4]]
    """
    written: set[int] = set()
    accesses: list[list[int]] = []
    in_place: list[int] = []
    for i, op in enumerate(program.ops):
        for view, role in op_views(program, op, written):
            nhwc = needs_nhwc(program, op, view, role)
            accesses.append([i, view.map, role, *view.shape[2:], *view.part[2:], nhwc])
        in_place.append(_goes_in_place(op))
    dtypes = list(DTYPES)
    maps = [[*one.shape, dtypes.index(one.dtype), one.bits, _flags(one)] for one in program.maps]
    starts = [[0, 0, 0], [len(accesses), len(maps), len(in_place)]]
    return MemoryTable._of(
        np.array(accesses, np.int64).reshape(-1, len(ACCESS_COLUMNS)),
        np.array(maps, np.int32).reshape(-1, len(MAP_COLUMNS)),
        np.array(in_place, np.int8),
        np.array(starts, np.int64),
    )


def op_views(program: Program, op: NpuOp, written: set[int]) -> list[tuple[View, int]]:
    """What an operation uses, inputs first; `written` gets the maps that it writes.

    Of the further maps of a CPU operation it writes those that nobody has written before.
    """
    inputs, outputs = [op.ifm], [op.ofm]
    if op.ifm2 is not None:
        inputs.append(op.ifm2)
    for view in op.others:
        one = program.maps[view.map]
        given = one.is_input or one.is_constant or one.is_variable or view.map in written
        (inputs if given else outputs).append(view)
    views = [(view, READS) for view in inputs]
    if op.scratch is not None:
        views.append((View(op.scratch, program.maps[op.scratch].shape), WORKS_IN))
    written |= {view.map for view in outputs}
    return views + [(view, WRITES) for view in outputs]


def _goes_in_place(op: NpuOp) -> bool:
    """Whether every element of the ofm comes from the one at the same place of an ifm."""
    if op.kind == "transpose":
        return not op.transposed
    moves = op.unit == "pooling" and op.kernel == (1, 1) and op.kind != "reverse"
    return moves or op.unit == "elementwise"


def _flags(one: FeatureMap) -> int:
    return (
        one.is_input * IS_INPUT
        + one.is_output * IS_OUTPUT
        + (one.is_constant or not one.n_elements * one.bits) * IS_ELSEWHERE
        + one.is_variable * IS_VARIABLE
    )


def needs_nhwc(program: Program, op: NpuOp, view: View, role: int) -> bool:
    """Whether an operation can use a map in NHWC alone, whatever others do with it."""
    if not op.on_npu or role == WORKS_IN or op.kind in _NHWC_KINDS:
        return True
    if view.step[1] != 1 or (view.offset is not None and view.offset[3] % _DEPTH_ALIGNMENT):
        return True
    if op.kind == "reverse" and role == WRITES:
        return True
    if op.kind in ("copy", "reverse"):
        return 32 in (program.maps[op.ifm.map].bits, program.maps[op.ofm.map].bits)
    return op.kind == "reduce_sum" and role == READS and program.maps[op.ifm.map].bits == 32
