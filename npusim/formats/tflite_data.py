# SPDX-License-Identifier: Apache-2.0
"""Constants of TFLite models: bytes of a buffer <-> array of a tensor.

Numbers are little-endian in C order; 2 and 4-bit integers are packed from the low bits up; a string
tensor is a count, the start of each string and the end of the last, as int32, and the bytes.

Source: [TFLITE] schema.fbs and string_util.h.
"""

from __future__ import annotations

import math
from struct import unpack_from
from typing import Any

import numpy as np
import numpy.typing as npt

from npusim.errors import FormatError
from npusim.formats.flatbuffer import Buffer
from npusim.tensor import DTYPES, Tensor


def decode(
    file: Buffer, start: int, n_bytes: int, dtype: str, shape: tuple[int, ...]
) -> npt.NDArray[Any]:
    """The constant of `dtype` and `shape` in the `n_bytes` from `start`, which lie in the file.

    Returns:
        A read-only view where a byte or more holds one element; else a new array.

    Raises:
        FormatError: the bytes are more or fewer than the shape asks for, or are not of `dtype`.
    """
    bits, storage = DTYPES[dtype]
    if not storage:
        raise FormatError(f"a tensor of dtype {dtype} must have no data, got {n_bytes} bytes")
    n_elements = math.prod(shape)
    if dtype == "string":
        return _decode_strings(file, start, n_bytes, n_elements).reshape(shape)
    expected = (n_elements * bits + 7) // 8
    if n_bytes != expected:
        raise FormatError(f"data of {dtype}{list(shape)} must take {expected} bytes, got {n_bytes}")
    if bits < 8:
        file.spend(n_bytes)
        packed = np.frombuffer(file.data, np.uint8, n_bytes, start)
        return _unpack(packed, bits, storage == "int8", n_elements).reshape(shape)
    if dtype == "bool":
        file.spend(n_bytes)
        highest = max(file.data[start : start + n_bytes], default=0)
        if highest > 1:
            raise FormatError(f"data of a bool tensor must be 0 and 1, got {highest}")
    little_endian = np.dtype(storage).newbyteorder("<")
    return np.frombuffer(file.data, little_endian, n_elements, start).reshape(shape)


def encode(tensor: Tensor) -> bytes:
    """The bytes of a constant, as `decode` reads them."""
    assert tensor.data is not None
    bits = DTYPES[tensor.dtype].bits
    if tensor.dtype == "string":
        return _encode_strings([bytes(item) for item in tensor.data.ravel()])
    if bits < 8:
        return _pack(tensor.data.ravel(), bits).tobytes()
    return tensor.data.astype(tensor.data.dtype.newbyteorder("<"), copy=False).tobytes()


def _unpack(
    packed: npt.NDArray[np.uint8], bits: int, signed: bool, n_elements: int
) -> npt.NDArray[Any]:
    shifts = np.arange(0, 8, bits, dtype=np.uint8)
    codes = ((packed[:, None] >> shifts) & ((1 << bits) - 1)).ravel()[:n_elements]
    if not signed:
        return codes
    sign = 1 << (bits - 1)
    return (codes.astype(np.int8) ^ sign) - np.int8(sign)


def _pack(values: npt.NDArray[Any], bits: int) -> npt.NDArray[np.uint8]:
    per_byte = 8 // bits
    codes = np.zeros(-(-values.size // per_byte) * per_byte, np.uint8)
    codes[: values.size] = values.astype(np.uint8) & ((1 << bits) - 1)
    shifts = np.arange(0, 8, bits, dtype=np.uint8)
    packed: npt.NDArray[np.uint8] = np.bitwise_or.reduce(
        codes.reshape(-1, per_byte) << shifts, axis=1
    )
    return packed


def _decode_strings(
    file: Buffer, start: int, n_bytes: int, n_elements: int
) -> npt.NDArray[np.object_]:
    file.spend(n_bytes)
    n_strings = int.from_bytes(file.data[start : start + 4], "little")
    head = 4 * (n_strings + 2)
    if n_strings != n_elements or head > n_bytes:
        raise FormatError(
            f"data of a string tensor must hold {n_elements} strings, got {n_strings} "
            f"in {n_bytes} bytes"
        )
    bounds = unpack_from(f"<{n_strings + 1}i", file.data, start + 4)
    if list(bounds) != sorted(bounds) or bounds[0] < head or bounds[-1] > n_bytes:
        raise FormatError("strings of a string tensor must follow each other inside its data")
    strings = np.empty(n_strings, object)
    for i in range(n_strings):
        strings[i] = file.data[start + bounds[i] : start + bounds[i + 1]]
    return strings


def _encode_strings(strings: list[bytes]) -> bytes:
    head = 4 * (len(strings) + 2)
    bounds = np.cumsum([head, *(len(item) for item in strings)]).astype("<i4")
    return len(strings).to_bytes(4, "little") + bounds.tobytes() + b"".join(strings)
