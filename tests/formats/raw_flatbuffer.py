# SPDX-License-Identifier: Apache-2.0
"""Flatbuffers from plain Python values, valid or not, to see what a reader makes of them.

A table is a dict from slot to value; a vector of tables a list of dicts; a number a `Scalar`;
text is a string, bytes a vector of bytes, an array a vector of numbers. The same object at two
places is written once and pointed to twice.
"""

from __future__ import annotations

from functools import partial
from typing import Any, NamedTuple

import flatbuffers
import numpy as np


class Scalar(NamedTuple):
    """A number in a field: the name of its type as in `flatbuffers.Builder`, and its value."""

    type: str
    value: int | float | bool


BOOL, INT8, UINT8, INT32, UINT32, UINT64, FLOAT32 = (
    partial(Scalar, name)
    for name in ("Bool", "Int8", "Uint8", "Int32", "Uint32", "Uint64", "Float32")
)


def flatbuffer(root: dict[int, Any], identifier: bytes = b"TFL3") -> bytes:
    """The bytes of a flatbuffer with the table `root`."""
    builder = flatbuffers.Builder(1024)
    builder.Finish(_write(builder, root, {}), file_identifier=identifier)
    return bytes(builder.Output())


def _write(builder: flatbuffers.Builder, value: Any, written: dict[int, tuple[int, Any]]) -> int:
    if id(value) not in written:
        written[id(value)] = _write_new(builder, value, written), value
    return written[id(value)][0]


def _write_new(builder: flatbuffers.Builder, value: Any, written: dict[int, Any]) -> int:
    if isinstance(value, str):
        return builder.CreateString(value)
    if isinstance(value, bytes):
        return builder.CreateByteVector(value)
    if isinstance(value, np.ndarray):
        return builder.CreateNumpyVector(value)
    if isinstance(value, list):
        offsets = [_write(builder, item, written) for item in value]
        builder.StartVector(4, len(offsets), 4)
        for offset in reversed(offsets):
            builder.PrependUOffsetTRelative(offset)
        return builder.EndVector()
    offsets = {
        slot: _write(builder, item, written)
        for slot, item in value.items()
        if not isinstance(item, Scalar)
    }
    builder.StartObject(max(value, default=-1) + 1)
    for slot, item in value.items():
        if isinstance(item, Scalar):
            getattr(builder, f"Prepend{item.type}Slot")(slot, item.value, None)
        else:
            builder.PrependUOffsetTRelativeSlot(slot, offsets[slot], None)
    return builder.EndObject()


def ints(*values: int) -> np.ndarray:
    """A vector of int32."""
    return np.array(values, np.int32)


def model(
    tensors: list[dict[int, Any]],
    operators: list[dict[int, Any]] | None = None,
    *,
    codes: list[dict[int, Any]] | None = None,
    buffers: list[dict[int, Any]] | None = None,
    side_graphs: list[dict[int, Any]] | None = None,
    **more: Any,
) -> dict[int, Any]:
    """A TFLite model as a tree for `flatbuffer`; `more` are further slots ("slot3") of it."""
    graph = {0: tensors, 1: ints(0), 2: ints(0), 3: operators or []}
    return {
        0: UINT32(3),
        1: codes if codes is not None else [{0: INT8(19)}],
        2: [graph, *(side_graphs or [])],
        4: buffers if buffers is not None else [{}],
        **{int(name.removeprefix("slot")): value for name, value in more.items()},
    }


def tensor(
    *shape: int, dtype: int = 9, buffer: int = 0, name: str = "t", **more: Any
) -> dict[int, Any]:
    """A tensor for `model`; int8 and not constant unless told otherwise."""
    return {
        **{0: ints(*shape), 1: INT8(dtype), 2: UINT32(buffer), 3: name},
        **{int(key.removeprefix("slot")): value for key, value in more.items()},
    }
