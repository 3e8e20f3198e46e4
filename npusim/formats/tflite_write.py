# SPDX-License-Identifier: Apache-2.0
"""Writing networks as TFLite models (.tflite) of schema version 3.

Every kind that npusim knows can be written, and custom operations as they were read. Constants
that share their memory share a buffer in the file; buffers start at multiples of 16 bytes.

Source: [TFLITE] schema.fbs.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TypeAlias

import flatbuffers
import numpy as np
import numpy.typing as npt

from npusim._arguments import integer
from npusim.errors import ConfigError
from npusim.formats import tflite_data, tflite_schema
from npusim.formats.tflite_schema import ENUMS, OPTION_TYPES, TENSOR_TYPES, Field
from npusim.network import Network, Op
from npusim.tensor import Quantization, Tensor

if TYPE_CHECKING:
    import os

_Slot: TypeAlias = tuple[Callable[..., None], int, Any]
"""How to write a field of a table, its slot and its value; None leaves it out."""

_DATA_ALIGN_BYTES: Final = 16
_FILE_BYTES_MAX: Final = 2**31 - 1
_RECORD_BYTES: Final = 512
"""First guess of what a tensor or an operation takes without its data; need not hold."""

_BOOL = flatbuffers.Builder.PrependBoolSlot
_FLOAT32 = flatbuffers.Builder.PrependFloat32Slot
_INT8 = flatbuffers.Builder.PrependInt8Slot
_INT32 = flatbuffers.Builder.PrependInt32Slot
_INT64 = flatbuffers.Builder.PrependInt64Slot
_UINT8 = flatbuffers.Builder.PrependUint8Slot
_UINT32 = flatbuffers.Builder.PrependUint32Slot
_OFFSET = flatbuffers.Builder.PrependUOffsetTRelativeSlot

_SCALARS: Final[Mapping[str, Callable[..., None]]] = {
    "bool": _BOOL,
    "float": _FLOAT32,
    "int": _INT32,
    "int64": _INT64,
    "subgraph": _INT32,
}
_VECTORS: Final = {"bytes": "<u1", "floats": "<f4", "ints": "<i4"}


def write(network: Network, path: str | os.PathLike[str]) -> None:
    """Write `network` to a .tflite file; an existing one is replaced.

    Raises:
        ConfigError: as for `to_bytes`, or the file cannot be written.
    """
    content = to_bytes(network)
    try:
        Path(path).write_bytes(content)
    except OSError as error:
        raise ConfigError(
            f"model must go to a writable file, got {str(path)!r} ({error.strerror})"
        ) from None


def to_bytes(network: Network) -> bytes:
    """The content of a .tflite file that `npusim.formats.load_bytes` reads as an equal network.

    The file calls the main graph "main" and does not hold the network's name; it holds float
    attributes as float32.

    Raises:
        ConfigError: a kind without a code, attributes that are not those of their kind, or more
            data than a .tflite file can hold.
    """
    return _Writer(network).file()


class _Writer:
    """The state of writing one file: its builder, buffers and operator codes."""

    def __init__(self, network: Network):
        self.network = network
        self.graphs = (network, *network.subgraphs)
        self.codes: dict[tuple[int, str, int], int] = {}
        self.buffers: list[bytes] = [b""]
        self.buffer_of: dict[tuple[int, str, int], int] = {}
        for graph in self.graphs:
            for tensor in graph.tensors:
                if tensor.data is not None and _memory(tensor) not in self.buffer_of:
                    self.buffer_of[_memory(tensor)] = len(self.buffers)
                    self.buffers.append(tflite_data.encode(tensor))
            for op in graph.ops:
                self.codes.setdefault(_code(op), len(self.codes))
        self.n_data = len(self.buffers)
        self.buffers += [content for _, content in network.metadata]
        self.builder = flatbuffers.Builder(self._guess_bytes())

    def _guess_bytes(self) -> int:
        n_records = sum(len(graph.tensors) + len(graph.ops) for graph in self.graphs)
        n_bytes = sum(map(len, self.buffers)) + _RECORD_BYTES * (n_records + 8)
        if n_bytes > _FILE_BYTES_MAX:
            raise ConfigError(
                f"constants of {self.network.name!r} must fit a file of {_FILE_BYTES_MAX} bytes, "
                f"got about {n_bytes}"
            )
        return n_bytes

    def file(self) -> bytes:
        """The whole file."""
        buffers = self._tables(map(self._buffer, self.buffers))
        metadata = self._tables(
            self._table((_OFFSET, 0, self._string(name)), (_UINT32, 1, number))
            for number, (name, _) in enumerate(self.network.metadata, start=self.n_data)
        )
        codes = self._tables(self._operator_code(*code) for code in self.codes)
        subgraphs = self._tables(map(self._subgraph, self.graphs))
        model = self._table(
            (_UINT32, 0, tflite_schema.VERSION),
            (_OFFSET, 1, codes),
            (_OFFSET, 2, subgraphs),
            (_OFFSET, 3, self._string(self.network.description)),
            (_OFFSET, 4, buffers),
            (_OFFSET, 6, metadata),
        )
        self.builder.Finish(model, file_identifier=tflite_schema.IDENTIFIER)
        return bytes(self.builder.Output())

    def _buffer(self, content: bytes) -> int:
        if not content:
            return self._table()
        return self._table((_OFFSET, 0, self._blob(content, _DATA_ALIGN_BYTES)))

    def _operator_code(self, code: int, custom_code: str, version: int) -> int:
        return self._table(
            (_INT8, 0, min(code, tflite_schema.LEGACY_CODE_MAX)),
            (_OFFSET, 1, self._string(custom_code) if custom_code else None),
            (_INT32, 2, version),
            (_INT32, 3, code),
        )

    def _subgraph(self, graph: Network) -> int:
        name = "main" if graph is self.network else graph.name
        return self._table(
            (_OFFSET, 0, self._tables(map(self._tensor, graph.tensors))),
            (_OFFSET, 1, self._indices(graph.inputs)),
            (_OFFSET, 2, self._indices(graph.outputs)),
            (_OFFSET, 3, self._tables(map(self._op, graph.ops))),
            (_OFFSET, 4, self._string(name)),
        )

    def _tensor(self, tensor: Tensor) -> int:
        signature = tensor.shape_signature
        return self._table(
            (_OFFSET, 0, self._vector(tensor.shape, "<i4")),
            (_INT8, 1, TENSOR_TYPES.index(tensor.dtype)),
            (_UINT32, 2, None if tensor.data is None else self.buffer_of[_memory(tensor)]),
            (_OFFSET, 3, self._string(tensor.name) if tensor.name else None),
            (_OFFSET, 4, self._quantization(tensor.quantization)),
            (_BOOL, 5, tensor.is_variable or None),
            (_OFFSET, 7, None if signature is None else self._vector(signature, "<i4")),
            (_BOOL, 8, tensor.dtype not in ("resource", "variant") or None),
        )

    def _quantization(self, quantization: Quantization | None) -> int | None:
        if quantization is None:
            return None
        return self._table(
            (_OFFSET, 2, self._vector(quantization.scales, "<f4")),
            (_OFFSET, 3, self._vector(quantization.zero_points, "<i8")),
            (_INT32, 6, quantization.axis),
        )

    def _op(self, op: Op) -> int:
        options = tflite_schema.OPTIONS.get(op.kind, "NONE")
        return self._table(
            (_UINT32, 0, self.codes[_code(op)]),
            (_OFFSET, 1, self._indices(op.inputs)),
            (_OFFSET, 2, self._indices(op.outputs)),
            (_UINT8, 3, OPTION_TYPES.index(options)),
            (_OFFSET, 4, None if options == "NONE" else self._options(op)),
            (_OFFSET, 5, self._blob(op.custom_options, 1) if op.custom_options else None),
            (_OFFSET, 8, self._indices(op.intermediates) if op.intermediates else None),
        )

    def _options(self, op: Op) -> int:
        slots = enumerate(tflite_schema.fields(op.kind))
        return self._table(
            *(self._attribute(op, slot, field) for slot, field in slots if field.name)
        )

    def _attribute(self, op: Op, slot: int, field: Field) -> _Slot:
        what = f"{field.name} of {op!s}"
        value: Any = tflite_schema.checked(field, what, op.attributes[field.name])
        if field.type in ENUMS:
            return _INT8, slot, ENUMS[field.type].index(value)
        if field.type == "string":
            return _OFFSET, slot, self._string(value)
        if field.type in _VECTORS:
            return _OFFSET, slot, self._vector(value, _VECTORS[field.type])
        return _SCALARS[field.type], slot, value

    def _table(self, *slots: _Slot) -> int:
        builder = self.builder
        builder.StartObject(1 + max((slot for _, slot, _ in slots), default=-1))
        for prepend, slot, value in slots:
            prepend(builder, slot, value, None)
        return int(builder.EndObject())

    def _tables(self, made: Iterable[int]) -> int:
        offsets = list(made)
        self.builder.StartVector(4, len(offsets), 4)
        for offset in reversed(offsets):
            self.builder.PrependUOffsetTRelative(offset)
        return int(self.builder.EndVector())

    def _indices(self, tensors: Iterable[Tensor | None]) -> int:
        return self._vector([-1 if t is None else t.index for t in tensors], "<i4")

    def _vector(self, values: npt.ArrayLike, dtype: str) -> int:
        return int(self.builder.CreateNumpyVector(np.asarray(values, dtype)))

    def _string(self, text: str) -> int:
        return int(self.builder.CreateString(text))

    def _blob(self, content: bytes, align_bytes: int) -> int:
        self.builder.StartVector(1, len(content), align_bytes)
        head = self.builder.head - len(content)
        self.builder.head = head
        self.builder.Bytes[head : head + len(content)] = content
        return int(self.builder.EndVector())


def _memory(tensor: Tensor) -> tuple[int, str, int]:
    """Equal for tensors whose constants have the same bytes in a file and the same memory here."""
    assert tensor.data is not None
    return tensor.data.__array_interface__["data"][0], tensor.dtype, tensor.data.nbytes


def _code(op: Op) -> tuple[int, str, int]:
    """Operator code, custom code and version; refuses operations that cannot be written."""
    version = integer(f"version of {op!s}", op.version, 1, 2**31 - 1)
    if op.kind in tflite_schema.CODES:
        names = {field.name for field in tflite_schema.fields(op.kind) if field.name}
        if set(op.attributes) != names:
            raise ConfigError(
                f"attributes of {op!s} must be {', '.join(sorted(names)) or 'none'}, "
                f"got {', '.join(sorted(op.attributes)) or 'none'}"
            )
        return tflite_schema.CODES[op.kind], "", version
    if not op.custom_code:
        raise ConfigError(f"kind of {op!s} must be known or custom to be written")
    return tflite_schema.CUSTOM_CODE, op.custom_code, version
