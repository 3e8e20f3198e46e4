# SPDX-License-Identifier: Apache-2.0
"""Reading TFLite models (.tflite) of schema version 3 into a `Network`.

Left out, as no use of a network needs them: minimum and maximum beside a quantization,
signatures, debug metadata, and the hint which inputs an operator changes. What cannot be left out
without changing the network (sparse or external constants, quantization by blocks) is refused.

Source: [TFLITE] schema.fbs.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, NamedTuple, ParamSpec, TypeVar

import numpy as np

from npusim.errors import FormatError, NpusimError
from npusim.formats import flatbuffer, tflite_data, tflite_schema
from npusim.formats.flatbuffer import (
    BOOL,
    FLOAT32,
    INT8,
    INT32,
    INT64,
    UINT8,
    UINT32,
    UINT64,
    Table,
)
from npusim.formats.tflite_schema import (
    ENUMS,
    IDENTIFIER,
    OPERATORS,
    OPTION_TYPES,
    TENSOR_TYPES,
    Field,
)
from npusim.network import Attribute, Network, Op, UniqueNames
from npusim.tensor import Quantization, Tensor, check_shape, shortened

P = ParamSpec("P")
T = TypeVar("T")

_BUFFER_COST = 8
"""Bytes of an empty buffer in a file, which is the usual one."""
_OFFSET_MIN = 2
"""Smaller values of an offset from the file's start stand for none."""
_SCALARS = {
    "bool": BOOL,
    "float": FLOAT32,
    "int": INT32,
    "int64": INT64,
    "subgraph": INT32,
}
_FLOATS = np.dtype("<f4")
_INTS = np.dtype("<i8")
_VECTORS = {"bytes": "B", "floats": "f", "ints": "i"}


class _Code(NamedTuple):
    kind: str
    known: bool
    custom_code: str
    version: int


def read(data: bytes, name: str) -> Network:
    """The network in the bytes of a .tflite file: its first subgraph, with the others listed.

    Constants are views of `data`. Time and memory are bounded by its length.

    Args:
        data: the whole file.
        name: what the network is called.

    Raises:
        FormatError: the bytes are no TFLite model, are damaged, or use what is not supported.
    """
    if len(data) < 8 or data[4:8] != IDENTIFIER:
        raise FormatError(
            f"a TFLite model must have {IDENTIFIER.decode()!r} at byte 4, got {len(data)} bytes "
            f"that start with {data[:8]!r}"
        )
    model = flatbuffer.Buffer(data).root()
    version = model.scalar(0, UINT32, 0)
    if version != tflite_schema.VERSION:
        raise FormatError(f"schema version must be {tflite_schema.VERSION}, got {version}")
    tables = list(model.tables(2))
    if not tables:
        raise FormatError("a model must have at least one subgraph, got none")
    reader = _Reader(model, len(tables))
    subgraphs = tuple(
        _within(f"subgraph {number}", reader.network, table, table.string(4) or "")
        for number, table in enumerate(tables[1:], start=1)
    )
    return reader.network(
        tables[0],
        name,
        description=model.string(3) or "",
        metadata=tuple(reader.metadata(table) for table in model.tables(6)),
        subgraphs=subgraphs,
    )


def _within(what: str, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """Call `function`; an error says in what part of the file it arose."""
    try:
        return function(*args, **kwargs)
    except NpusimError as error:
        raise FormatError(f"{what}: {error}") from None


class _Reader:
    """What the subgraphs of one model share: the file, its buffers and operator codes."""

    def __init__(self, model: Table, n_subgraphs: int):
        self.file = model.buffer
        self.n_subgraphs = n_subgraphs
        self.codes = [
            _within(f"operator code {i}", _code, table) for i, table in enumerate(model.tables(1))
        ]
        self.spans = [
            _within(f"buffer {i}", self._span, table, 0, 1)
            for i, table in enumerate(model.tables(4, _BUFFER_COST))
        ]

    def network(self, table: Table, name: str, **rest: Any) -> Network:
        """A subgraph as a network called `name`."""
        tensors = [
            _within(f"tensor {i}", self._tensor, entry, i)
            for i, entry in enumerate(table.tables(0))
        ]
        unique = UniqueNames()
        ops = [
            _within(f"operator {i}", self._op, entry, i, tensors, unique)
            for i, entry in enumerate(table.tables(3))
        ]
        return Network(
            name=name,
            tensors=tuple(tensors),
            ops=tuple(ops),
            inputs=_pick(tensors, table, 1, "network inputs"),
            outputs=_pick(tensors, table, 2, "network outputs"),
            **rest,
        )

    def metadata(self, table: Table) -> tuple[str, bytes]:
        """Name and content of an entry of metadata."""
        start, n_bytes = self._buffer(table.scalar(1, UINT32, 0))
        self.file.spend(n_bytes)
        return table.string(0) or "", self.file.data[start : start + n_bytes]

    def _span(self, table: Table, data_slot: int, offset_slot: int) -> tuple[int, int]:
        """First byte and length of data in a vector, or else at an offset beyond the tables."""
        start = table.scalar(offset_slot, UINT64, 0)
        if start < _OFFSET_MIN:
            start, n_bytes = table.vector(data_slot, 1)
        else:
            n_bytes = table.scalar(offset_slot + 1, UINT64, 0)
            self.file.check(start, n_bytes, "data")
        self.file.spend(n_bytes)
        return start, n_bytes

    def _buffer(self, number: int) -> tuple[int, int]:
        if number >= len(self.spans):
            raise FormatError(f"buffer must be one of {len(self.spans)}, got number {number}")
        return self.spans[number] if number else (0, 0)

    def _tensor(self, table: Table, index: int) -> Tensor:
        name = table.string(3) or ""
        code = table.scalar(1, INT8, 0)
        if not 0 <= code < len(TENSOR_TYPES):
            raise FormatError(f"type must be in 0..{len(TENSOR_TYPES) - 1}, got {code}")
        dtype = TENSOR_TYPES[code]
        if table.table(6) is not None:
            raise FormatError(f"{shortened(name)!r} must be dense, got a sparse tensor")
        external = table.scalar(10, UINT32, 0)
        if external:
            raise FormatError(
                f"{shortened(name)!r} must have its data in this file, "
                f"got external buffer {external}"
            )
        shape = table.numbers(0) or ()
        check_shape(shape)
        start, n_bytes = self._buffer(table.scalar(2, UINT32, 0))
        return Tensor(
            index=index,
            name=name,
            shape=shape,
            dtype=dtype,
            quantization=_quantization(table.table(4), len(shape)),
            data=tflite_data.decode(self.file, start, n_bytes, dtype, shape) if n_bytes else None,
            is_variable=table.scalar(5, BOOL, False),
            shape_signature=table.numbers(7),
        )

    def _op(self, table: Table, index: int, tensors: list[Tensor], unique: UniqueNames) -> Op:
        number = table.scalar(0, UINT32, 0)
        if number >= len(self.codes):
            raise FormatError(
                f"operator code must be one of {len(self.codes)}, got number {number}"
            )
        kind, known, custom_code, version = self.codes[number]
        outputs = _pick(tensors, table, 2, "outputs")
        name = next((t.name for t in outputs if t.name), kind.lower())
        self.file.spend(len(name))
        start, n_bytes = self._span(table, 5, 9)
        return Op(
            index=index,
            kind=kind,
            name=unique(name),
            inputs=_pick_optional(tensors, table, 1, "inputs"),
            outputs=outputs,
            attributes=self._attributes(table, kind),
            known=known,
            version=version,
            intermediates=_pick_optional(tensors, table, 8, "intermediates"),
            custom_code=custom_code,
            custom_options=self.file.data[start : start + n_bytes],
        )

    def _attributes(self, table: Table, kind: str) -> dict[str, Attribute]:
        fields = tflite_schema.fields(kind)
        if not fields:
            return {}
        number = table.scalar(3, UINT8, 0)
        options = table.table(4) if number else None
        expected = OPTION_TYPES.index(tflite_schema.OPTIONS[kind])
        if number and (number != expected or options is None):
            given = f"type {number}" if options else f"no table of type {number}"
            raise FormatError(f"options of {kind} must be of type {expected}, got {given}")
        attributes = {
            field.name: field.initial if options is None else _attribute(options, slot, field)
            for slot, field in enumerate(fields)
            if field.name
        }
        for field in fields:
            if field.minimum is not None or field.type == "subgraph":
                self._check_range(field, kind, attributes[field.name])
        return attributes

    def _check_range(self, field: Field, kind: str, value: Any) -> None:
        if field.minimum is not None and value < field.minimum:
            raise FormatError(
                f"{field.name} of {kind} must be at least {field.minimum}, got {value}"
            )
        if field.type == "subgraph" and not 0 <= value < self.n_subgraphs:
            raise FormatError(
                f"{field.name} of {kind} must be in 0..{self.n_subgraphs - 1}, got {value}"
            )


def _attribute(options: Table, slot: int, field: Field) -> Attribute:
    """The value of one field of a table of options, as `Op.attributes` holds it."""
    if field.type in ENUMS:
        names = ENUMS[field.type]
        code: int = options.scalar(slot, INT8, field.default)
        if not 0 <= code < len(names):
            raise FormatError(f"{field.name} must be in 0..{len(names) - 1}, got {code}")
        return names[code]
    if field.type == "string":
        return options.string(slot) or ""
    if field.type in _VECTORS:
        values: tuple[int | float, ...] = options.numbers(slot, _VECTORS[field.type]) or ()
        if any(map(math.isnan, values)):
            raise FormatError(f"{field.name} must hold numbers, got nan")
        return values
    value: int | float = options.scalar(slot, _SCALARS[field.type], field.initial)
    if math.isnan(value):
        raise FormatError(f"{field.name} must be a number, got nan")
    return value


def _code(table: Table) -> _Code:
    """What an entry of the list of operator codes stands for."""
    code = max(table.scalar(0, INT8, 0), table.scalar(3, INT32, 0))
    custom_code = table.string(1) or ""
    version = table.scalar(2, INT32, 1)
    if code == tflite_schema.CUSTOM_CODE:
        if custom_code == tflite_schema.ETHOS_U:
            return _Code("ETHOS_U", True, custom_code, version)
        return _Code(f"CUSTOM:{custom_code}", False, custom_code, version)
    if not 0 <= code < len(OPERATORS):
        return _Code(f"BUILTIN_{code}", False, "", version)
    return _Code(OPERATORS[code], OPERATORS[code] in tflite_schema.CODES, "", version)


def _quantization(table: Table | None, rank: int) -> Quantization | None:
    if table is None:
        return None
    details = table.scalar(4, UINT8, 0)
    if details:
        raise FormatError(f"quantization must be affine, got details of type {details}")
    scales = table.array(2, _FLOATS)
    if scales is None:
        return None
    zero_points = table.array(3, _INTS)
    if zero_points is None or zero_points.size == 1 < scales.size:
        zero_points = np.full(scales.size, 0 if zero_points is None else zero_points[0], np.int64)
    # Old converters give one-dimensional biases the axis of their weights.
    axis = table.scalar(6, INT32, 0) if rank > 1 else 0
    return Quantization(scales, zero_points, axis)


def _pick_optional(
    tensors: list[Tensor], table: Table, slot: int, what: str
) -> tuple[Tensor | None, ...]:
    numbers = table.numbers(slot) or ()
    for number in numbers:
        if not -1 <= number < len(tensors):
            raise FormatError(f"{what} must be in -1..{len(tensors) - 1}, got {number}")
    return tuple(None if number == -1 else tensors[number] for number in numbers)


def _pick(tensors: list[Tensor], table: Table, slot: int, what: str) -> tuple[Tensor, ...]:
    numbers = table.numbers(slot) or ()
    for number in numbers:
        if not 0 <= number < len(tensors):
            raise FormatError(f"{what} must be in 0..{len(tensors) - 1}, got {number}")
    return tuple(tensors[number] for number in numbers)
