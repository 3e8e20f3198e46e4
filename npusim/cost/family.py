# SPDX-License-Identifier: Apache-2.0
"""Networks that differ in widths and weights alone, as arrays for `npusim.cost.batch`.

A program says which channels depend on each other: what a convolution computes has a width of its
own; what a pooling, an addition or a depthwise convolution reads and writes has the same; a
concatenation is as wide as its parts. The widths that are left free can be given for thousands of
networks at once.

The operations stay those of the program. Where Arm's compiler would take others for a width, as for
some convolutions of fewer than 8 channels, that is not followed.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Final

import numpy as np
import numpy.typing as npt

from npusim._arguments import integer_array
from npusim.cost import columns as col
from npusim.cost.batch import Batch
from npusim.cost.batch_arrays import op_columns, op_links
from npusim.cost.flash import other_bytes
from npusim.cost.formats import map_formats
from npusim.cost.lowering import program as lower
from npusim.cost.memory_table import (
    ACCESS_COLUMNS,
    MAP_COLUMNS,
    MemoryTable,
    memory_table,
    needs_nhwc,
    op_views,
)
from npusim.cost.program import NpuOp, Program, View
from npusim.cost.rows import best_traversals
from npusim.cost.weight_sizes import MADE
from npusim.errors import ConfigError
from npusim.network import Network
from npusim.weights.expected import TRAINED, WeightStatistics

Int64Array = npt.NDArray[np.int64]

WIDTH_MAX: Final = 1 << 16
_SAME_WIDTH_UNITS: Final = ("depthwise", "pooling", "elementwise")
_OWN_WIDTH_UNITS: Final = ("convolution", "product")
_DEPTH, _PART_DEPTH, _NEEDS_NHWC = map(ACCESS_COLUMNS.index, ("depth", "part_depth", "needs_nhwc"))
_MAP_DEPTH = MAP_COLUMNS.index("depth")
_DEPTH_COLUMNS: Final = (col.IFM_DEPTH, col.IFM2_DEPTH, col.OFM_DEPTH)
_FORMAT_COLUMNS: Final = (col.IFM_FORMAT, col.IFM2_FORMAT, col.OFM_FORMAT)
_BRICK_DEPTH: Final = 16
_ELEMENTS_MAX: Final = (1 << 31) - 1
_FORMATS_KEY, _CHOICE_KEY, _KEY_COLUMNS = 3, 6, 7
"""Of what tells an operation of one network from that of another: depths, formats, statistics."""


@dataclass(frozen=True, slots=True)
class Form:
    """A depth as a sum of widths: a constant, and so many times each of some widths."""

    constant: int
    times: tuple[tuple[int, int], ...] = ()

    def __add__(self, other: Form) -> Form:
        times = dict(self.times)
        for width, n in other.times:
            times[width] = times.get(width, 0) + n
        return Form(self.constant + other.constant, tuple(sorted(times.items())))

    def scaled(self, factor: int, divisor: int) -> Form | None:
        """So many times as deep; None where that is no sum of whole widths."""
        numbers = [self.constant, *(n for _, n in self.times)]
        if not divisor or any(factor * n % divisor for n in numbers):
            return None
        constant, *times = (factor * n // divisor for n in numbers)
        return Form(constant, tuple((w, n) for (w, _), n in zip(self.times, times, strict=True)))

    def depths(self, widths: Int64Array) -> Int64Array:
        """For widths [n, n_widths], shape [n]."""
        total = np.full(len(widths), self.constant, np.int64)
        for width, n in self.times:
            total += n * widths[:, width]
        return total


class Family:
    """All networks that have the operations of one, in any widths.

    Args:
        network: as `npusim.load` reads it, or a program.

    Attributes:
        program: its operations.
        widths: those that are free, by the name of the operation that first computes them, with
            the program's own values.
        weighted: names of the operations of the network that have weights.

    >>> from npusim.cost.program import FeatureMap, WeightSource
    >>> shapes = (1, 8, 8, 3), (1, 8, 8, 16), (1, 8, 8, 10)
    >>> maps = [FeatureMap(n, s, is_output=n == "z") for n, s in zip("xyz", shapes)]
    >>> x, y, z = (View(i, shape) for i, shape in enumerate(shapes))
    >>> weights = [WeightSource((n, 1, 1, m), (n,), "depth-first") for n, m in ((16, 3), (10, 16))]
    >>> ops = [NpuOp("y", "conv", x, y, weights=weights[0]),
    ...        NpuOp("z", "conv", y, z, weights=weights[1])]
    >>> family = Family(Program("two", tuple(maps), tuple(ops)))
    >>> family.widths
    {'y': 16}
    >>> from npusim.cost.batch import estimate_batch
    >>> estimate_batch(family.batch([[16], [32]])).macs.tolist()
    [13312, 26624]
    """

    def __init__(self, network: Network | Program):
        program = lower(network) if isinstance(network, Network) else network
        self.program = program
        depths = _Depths(program)
        self._free = depths.free()
        self.widths = {depths.names[width]: depths.values[width] for width in self._free}
        weights = [op.weights for op in program.ops]
        self._weighted = [i for i, own in enumerate(weights) if own and not own.is_made]
        self.weighted = [program.ops[i].name for i in self._weighted]
        self._table = memory_table(program)
        made = [MADE if op.weights and op.weights.is_made else (0.0, 0.0) for op in program.ops]
        self._ops = op_columns(program, made)
        self._links, self._other_bytes = op_links(program), other_bytes(program)
        self._maps = [depths.of_map(i) for i in range(len(program.maps))]
        self._operands = [_operands(op, depths) for op in program.ops]
        self._uses = _uses(program, depths)
        self._has_fixed_formats = _fixes_formats(self._table, self._uses)
        sums = np.isin(self._ops[:, col.UNIT], (col.CONVOLUTION, col.PRODUCT))
        self._chooses_traversal = sums & (best_traversals(self._ops) == self._ops[:, col.TRAVERSAL])

    def batch(
        self,
        widths: npt.ArrayLike,
        statistics: Sequence[WeightStatistics] = (TRAINED,),
        choices: npt.ArrayLike | None = None,
    ) -> Batch:
        """Networks of this family.

        Args:
            widths: of each network, in the order of `widths`, integers from 1 to 65536, shape
                [n_networks, n_widths].
            statistics: what may be known of the weights of an operation.
            choices: which of them holds, for each of `weighted`, shape [n_networks, n_weighted];
                None: the first for all.

        Raises:
            ConfigError: arrays of another shape, or values out of range.
        """
        given = self._checked(widths)
        chosen = self._checked_choices(choices, len(given), len(statistics))
        shared = self._keeps_formats(given)
        table = self._memory(given, shared)
        formats = np.tile(map_formats(self._table), len(given)) if shared else map_formats(table)
        by_network = formats.reshape(len(given), -1)
        ops: list[Int64Array] = []
        rows = np.empty((len(given), len(self.program.ops)), np.int64)
        n_rows = 0
        for index in range(len(self.program.ops)):
            lines, which = self._columns(index, given, by_network, statistics, chosen)
            rows[:, index] = which + n_rows
            ops.append(lines)
            n_rows += len(lines)
        return Batch(
            np.concatenate([self._ops[:0], *ops]),
            rows.reshape(-1),
            self._links,
            table,
            formats,
            np.full(len(given), self._other_bytes, np.int64),
        )

    def _checked(self, widths: npt.ArrayLike) -> Int64Array:
        array = integer_array("widths", widths)
        if array.ndim != 2 or array.shape[1] != len(self.widths):
            raise ConfigError(
                f"widths must have shape [n_networks, {len(self.widths)}], got {array.shape}"
            )
        if array.size and not (array.min() >= 1 and array.max() <= WIDTH_MAX):
            raise ConfigError(
                f"widths must be in 1..{WIDTH_MAX}, got {array.min()} to {array.max()}"
            )
        return array.astype(np.int64)

    def _checked_choices(
        self, choices: npt.ArrayLike | None, n_networks: int, n_statistics: int
    ) -> Int64Array:
        shape = (n_networks, len(self.weighted))
        if choices is None:
            return np.zeros(shape, np.int64)
        array = integer_array("choices", choices)
        if array.shape != shape:
            raise ConfigError(f"choices must have shape {shape}, got {array.shape}")
        if array.size and not (array.min() >= 0 and array.max() < n_statistics):
            raise ConfigError(
                f"choices must be in 0..{n_statistics - 1}, got {array.min()} to {array.max()}"
            )
        return array.astype(np.int64)

    def _keeps_formats(self, widths: Int64Array) -> bool:
        """Whether networks of these widths have the formats of the program, no map too large."""
        most = np.array([widths.max(axis=0, initial=1)])
        for one, form in zip(self.program.maps, self._maps, strict=True):
            depth = max(one.shape[3], int(form.depths(most)[0]))
            if math.prod(one.shape[:3]) * (depth + _BRICK_DEPTH) >= _ELEMENTS_MAX:
                return False
        return self._has_fixed_formats

    def _memory(self, widths: Int64Array, shared: bool) -> MemoryTable:
        """The maps of networks of these widths; shared: with the accesses of the program."""
        table = self._table.repeated(len(widths), shared=shared)
        maps = table.maps.reshape(len(widths), -1, len(MAP_COLUMNS))
        if not shared:
            self._fill_accesses(table, widths)
        for index, form in enumerate(self._maps):
            if form.times:
                maps[:, index, _MAP_DEPTH] = form.depths(widths)
        return table

    def _fill_accesses(self, table: MemoryTable, widths: Int64Array) -> None:
        """Write the depths in which operations see their maps."""
        accesses = table.accesses.reshape(len(widths), -1, len(ACCESS_COLUMNS))
        for line, use in enumerate(self._uses):
            if use.shape.times:
                accesses[:, line, _DEPTH] = use.shape.depths(widths)
            if use.part.times:
                accesses[:, line, _PART_DEPTH] = use.part.depths(widths)
            if use.offset.times:
                inside = use.offset.depths(widths) % _BRICK_DEPTH != 0
                accesses[:, line, _NEEDS_NHWC] = use.needs_nhwc | inside

    def _columns(
        self,
        index: int,
        widths: Int64Array,
        formats: npt.NDArray[np.int8],
        statistics: Sequence[WeightStatistics],
        choices: Int64Array,
    ) -> tuple[Int64Array, Int64Array]:
        """What one operation is in networks of these widths: those that differ, int64 [n,
        OP_COLUMNS], and which of them it is in each, int64 [n_networks]."""
        op = self.program.ops[index]
        keys = np.zeros((len(widths), _KEY_COLUMNS), np.int64)
        for column, form in enumerate(self._operands[index]):
            keys[:, column] = form.depths(widths)
        for column, view in enumerate((op.ifm, op.ifm2 or op.ifm, op.ofm)):
            keys[:, _FORMATS_KEY + column] = formats[:, view.map]
        if index in self._weighted:
            keys[:, _CHOICE_KEY] = choices[:, self._weighted.index(index)]
        different, which = _different(keys)
        lines = np.tile(self._ops[index], (len(different), 1))
        for column, form in zip(_DEPTH_COLUMNS, self._operands[index], strict=True):
            if form.times:
                lines[:, column] = different[:, _DEPTH_COLUMNS.index(column)]
        lines[:, _FORMAT_COLUMNS] = different[:, _FORMATS_KEY:_CHOICE_KEY]
        if self._chooses_traversal[index]:
            lines[:, col.TRAVERSAL] = best_traversals(lines)
        if index in self._weighted:
            self._fill_statistics(op, lines, statistics, different[:, _CHOICE_KEY])
        return lines, which

    def _fill_statistics(
        self,
        op: NpuOp,
        lines: Int64Array,
        statistics: Sequence[WeightStatistics],
        choices: Int64Array,
    ) -> None:
        """Write entropies and parts of zeros to the last columns."""
        from npusim.cost.entries_kernels import STATISTICS

        source = op.weights
        assert source is not None
        area, ones = source.shape[1] * source.shape[2], np.ones(len(lines), np.int64)
        depths = lines[:, col.IFM_DEPTH] if source.shape[3] > 1 else ones
        channels = lines[:, col.OFM_DEPTH] if source.shares_scale else ones
        expected: dict[tuple[int, int, int], tuple[float, float]] = {}
        keys = list(zip(choices.tolist(), depths.tolist(), channels.tolist(), strict=True))
        for key in set(keys):
            expected[key] = statistics[key[0]].expected(area * key[1], n_channels=key[2])
        known = [expected[key] for key in keys]
        lines[:, STATISTICS:] = np.array(known, np.float64).reshape(-1, 2).view(np.int64)


def _different(keys: Int64Array) -> tuple[Int64Array, Int64Array]:
    """Lines that differ, each once, and which of them each of keys int64 [n, n_columns] is."""
    from npusim.cost.entries_kernels import find_entries

    if (keys == keys[:1]).all():
        return keys[:1], np.zeros(len(keys), np.int64)
    known, which = np.empty_like(keys), np.empty(len(keys), np.int64)
    slots = np.full(4 << len(keys).bit_length(), -1, np.int64)
    n = find_entries(keys, known, 0, slots, which)
    return known[:n], which


@dataclass(frozen=True, slots=True)
class _Use:
    """One access to a map: depths of the map as it is seen, of the part, of what lies before it;
    and whether it needs NHWC wherever that begins."""

    shape: Form
    part: Form
    offset: Form
    needs_nhwc: bool


def _uses(program: Program, depths: _Depths) -> list[_Use]:
    """The accesses of a program, in the order of its memory table."""
    written: set[int] = set()
    uses = []
    for op in program.ops:
        for view, role in op_views(program, op, written):
            start = None if view.offset is None else (*view.offset[:3], 0)
            needs = needs_nhwc(program, op, replace(view, offset=start), role)
            uses.append(_Use(*depths.of_view(view), needs))
    return uses


def _fixes_formats(table: MemoryTable, uses: Sequence[_Use]) -> bool:
    """Whether the formats of maps of usual size are the same in all widths."""
    seen: dict[int, set[Form]] = {}
    indices = table.accesses[:, 1].tolist()
    nhwc = {index for index, use in zip(indices, uses, strict=True) if use.needs_nhwc}
    for index, use in zip(indices, uses, strict=True):
        if index not in nhwc and not table.maps[index, -1]:
            seen.setdefault(index, set()).update((use.shape, use.part, use.part + use.offset))
    return all(len(f) == 1 or not any(one.times for one in f) for f in seen.values())


def _operands(op: NpuOp, depths: _Depths) -> tuple[Form, Form, Form]:
    """Depths of ifm, ifm2 and ofm as rows have them."""
    ifm2 = Form(0) if op.ifm2 is None else depths.of_view(op.ifm2)[1]
    return depths.of_view(op.ifm)[1], ifm2, depths.of_view(op.ofm)[1]


class _Depths:
    """The depths of a program's maps as sums of widths."""

    def __init__(self, program: Program):
        self.program = program
        self.names: list[str] = []
        self.values: list[int] = []
        self._parents: list[int] = []
        self._fixed: list[bool] = []
        self._forms: dict[int, Form] = {}
        self._parts: dict[int, dict[int, Form]] = {}
        self._users: dict[object, tuple[Form, Form]] = {}
        for op in program.ops:
            self._follow(op)
        for index, one in enumerate(program.maps):
            if one.is_output or one.is_variable:
                self._fix(self._whole(index))

    def free(self) -> list[int]:
        """Widths that nothing fixes, each once; they are numbered in this order from now on."""
        roots = [i for i, parent in enumerate(self._parents) if i == parent and not self._fixed[i]]
        self._numbers = {width: number for number, width in enumerate(roots)}
        return roots

    def of_map(self, index: int) -> Form:
        """Depth of a map as it is stored, in free widths."""
        return self._resolved(self._whole(index))

    def of_view(self, view: View) -> tuple[Form, Form, Form]:
        """Depths of the map as a view has it, of the part, and of what lies before the part."""
        start = 0 if view.offset is None else view.offset[3]
        before = [form for at, form in self._parts.get(view.map, {}).items() if at < start]
        sums = sum(before, Form(0))
        offset = sums if self._value(sums) == start else Form(start)
        shape, part = self._shape(view), self._part(view)
        return self._resolved(shape), self._resolved(part), self._resolved(offset)

    def _follow(self, op: NpuOp) -> None:
        """What an operation says of the depths of its maps."""
        views = [op.ifm, *([] if op.ifm2 is None else [op.ifm2])]
        forms = [self._part(view) for view in views]
        depth = op.ofm.part[3]
        made: Form | None = None
        plain = not op.transposed and not op.keeps_accumulator and not op.depth_offset
        if plain and op.unit in _OWN_WIDTH_UNITS:
            assert op.weights is not None
            if op.weights.shape[3] == op.ifm.part[3] and op.weights.shape[0] == depth:
                made = self._new(op.name, depth)
        elif plain and op.unit in _SAME_WIDTH_UNITS and op.kind != "reverse":
            alike = [form for form, view in zip(forms, views, strict=True) if view.part[3] == depth]
            made = alike[0] if alike else None
            for form in alike[1:]:
                self._unify(alike[0], form)
        if made is None:
            for form in (*forms, *(self._part(view) for view in op.others)):
                self._fix(form)
            made = Form(depth)
        if op.weights is not None:
            first = self._users.setdefault(op.weights.key, (made, forms[0]))
            self._unify(first[0], made)
            self._unify(first[1], forms[0])
        self._write(op.ofm, made)

    def _write(self, view: View, form: Form) -> None:
        """Note what is written to a map, or to a part of its channels."""
        depth, seen = self.program.maps[view.map].shape[3], view.shape[3]
        if view.part[3] == seen:
            stored = form.scaled(depth, seen)
            if stored is None:
                self._fix(form)
                stored = Form(depth)
            self._unify(self._forms.setdefault(view.map, stored), stored)
        elif seen == depth and view.offset is not None:
            parts = self._parts.setdefault(view.map, {})
            self._unify(parts.setdefault(view.offset[3], form), form)
        else:
            self._fix(form)

    def _whole(self, index: int) -> Form:
        """Depth of a map as stored; that of one that is written in parts is their sum."""
        depth = self.program.maps[index].shape[3]
        if index in self._forms:
            return self._forms[index]
        total = sum(self._parts.get(index, {}).values(), Form(0))
        if self._value(total) == depth:
            return total
        self._fix(total)
        return Form(depth)

    def _shape(self, view: View) -> Form:
        """Depth of the map as a view has it."""
        form, stored = self._whole(view.map), self.program.maps[view.map].shape[3]
        seen = form.scaled(view.shape[3], stored)
        if seen is None:
            self._fix(form)
            return Form(view.shape[3])
        return seen

    def _part(self, view: View) -> Form:
        """Depth of the part that a view reads or writes."""
        if view.part[3] == view.shape[3]:
            return self._shape(view)
        assert view.offset is not None
        part = self._parts.get(view.map, {}).get(view.offset[3])
        if part is not None and self._value(part) == view.part[3]:
            return part
        self._fix(self._shape(view))
        return Form(view.part[3])

    def _new(self, name: str, value: int) -> Form:
        """A width of its own."""
        self.names.append(name)
        self.values.append(value)
        self._parents.append(len(self._parents))
        self._fixed.append(False)
        return Form(0, ((len(self._parents) - 1, 1),))

    def _root(self, width: int) -> int:
        while self._parents[width] != width:
            width = self._parents[width]
        return width

    def _fix(self, form: Form) -> None:
        """Leave all widths in a form as the program has them."""
        for width, _ in form.times:
            self._fixed[self._root(width)] = True

    def _unify(self, first: Form, second: Form) -> None:
        """Make two depths one, by fixing both where that takes more than giving them one name."""
        if self._rooted(first) == self._rooted(second):
            return
        plain = all(
            not form.constant and [n for _, n in form.times] == [1] for form in (first, second)
        )
        if not plain:
            self._fix(first)
            self._fix(second)
            return
        low, high = sorted(self._root(form.times[0][0]) for form in (first, second))
        self._parents[high] = low
        self._fixed[low] = self._fixed[low] or self._fixed[high]

    def _rooted(self, form: Form) -> Form:
        """With widths that are the same under one name."""
        return sum((Form(0, ((self._root(w), n),)) for w, n in form.times), Form(form.constant))

    def _resolved(self, form: Form) -> Form:
        """In free widths."""
        total = Form(form.constant)
        for width, n in form.times:
            root = self._root(width)
            if self._fixed[root]:
                total += Form(n * self.values[root])
            else:
                total += Form(0, ((self._numbers[root], n),))
        return total

    def _value(self, form: Form) -> int:
        """What a form in widths of the program is there."""
        return form.constant + sum(n * self.values[width] for width, n in form.times)
