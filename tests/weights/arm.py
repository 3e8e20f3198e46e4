# SPDX-License-Identifier: Apache-2.0
"""Arm's own codecs, as oracles: the C functions exported by the ethos-u-vela wheel's libraries.

`legacy_encode` and `decode` come from ``mlw_codec``, `regor_encode` from ``regor``; the argument
and result types are those of the public header ``mlw_encode.h`` [VELA]. Arm's decoder ends the
process on a bad stream, so only streams an encoder made may be passed to `decode`.
"""

from __future__ import annotations

import ctypes
import importlib
from functools import cache

import numpy as np
import pytest

SECTION_WEIGHTS = 131072
"""Weights that the compiler asks for at a time: regor starts a section at each."""


class _EncodeParams(ctypes.Structure):
    _fields_ = (
        ("source_buffering_hint", ctypes.c_int32),
        ("encoder_flags", ctypes.c_uint16),
        ("realloc_func", ctypes.c_void_p),
    )


class _EncodeResult(ctypes.Structure):
    _fields_ = (
        ("encoded_data", ctypes.POINTER(ctypes.c_uint8)),
        ("encoded_length", ctypes.c_int32),
        ("source_length", ctypes.c_int32),
        ("section_info", ctypes.c_void_p),
        ("section_count", ctypes.c_int32),
    )


class _SourceState(ctypes.Structure):
    _fields_ = (
        ("new_dim_mask", ctypes.c_uint8),
        ("end_dim_mask", ctypes.c_uint8),
        ("eos", ctypes.c_bool),
    )


_SOURCE = ctypes.CFUNCTYPE(
    ctypes.c_int32,
    ctypes.c_int32,
    ctypes.POINTER(_SourceState),
    ctypes.POINTER(ctypes.c_int16),
    ctypes.c_int32,
    ctypes.c_void_p,
)


@cache
def _library(name: str) -> ctypes.CDLL:
    pytest.importorskip("ethosu.vela", reason="Arm's codec comes with ethos-u-vela")
    path = importlib.import_module(f"ethosu.{name}").__file__
    assert path is not None
    return ctypes.CDLL(path)


def _int16(values: np.ndarray) -> np.ndarray:
    return np.ascontiguousarray(values, np.int16)


def legacy_encode(values: np.ndarray) -> bytes:
    """Bytes of the C encoder behind ``ethosu.mlw_codec`` (not for empty input: it is broken)."""
    library = _library("mlw_codec")
    values = _int16(values)
    out = ctypes.POINTER(ctypes.c_uint8)()
    data = values.ctypes.data_as(ctypes.POINTER(ctypes.c_int16))
    length = library.mlw_encode(data, ctypes.c_int(values.size), ctypes.byref(out), 0)
    stream = ctypes.string_at(out, length)
    library.mlw_free_outbuf(out)
    return stream


def decode(stream: bytes) -> np.ndarray:
    """Weights by the C decoder behind ``ethosu.mlw_codec``; ends the process on a bad stream."""
    library = _library("mlw_codec")
    out = ctypes.POINTER(ctypes.c_int16)()
    buffer = ctypes.create_string_buffer(stream, len(stream))
    n = library.mlw_decode(buffer, ctypes.c_int(len(stream)), ctypes.byref(out), 0)
    values = np.ctypeslib.as_array(out, (n,)).copy() if n else np.zeros(0, np.int16)
    library.mlw_free_outbuf(out)
    return values


def regor_encode(values: np.ndarray, section_weights: int = SECTION_WEIGHTS) -> bytes:
    """Bytes of the C++ encoder inside regor, fed as the compiler feeds it: piece by piece."""
    library = _library("regor")
    values = _int16(values)
    position = 0

    @_SOURCE
    def source(query, state, buffer, size, user):
        nonlocal position
        piece = values[position : position + size]
        ctypes.memmove(buffer, piece.ctypes.data, piece.nbytes)
        position += piece.size
        state.contents.eos = piece.size < size
        return piece.size

    params = _EncodeParams(section_weights, 0, None)
    result = _EncodeResult()
    context = ctypes.c_void_p()
    code = library.ml_encode_ethosu_stream(
        ctypes.byref(result), ctypes.byref(params), source, None, ctypes.byref(context)
    )
    assert code >= 0
    stream = ctypes.string_at(result.encoded_data, result.encoded_length)
    library.mle_destroy_context(context)
    library.mle_free(ctypes.byref(result))
    return stream


def regor_encode_once(values: np.ndarray) -> bytes:
    """Bytes of regor's one-shot entry: the whole tensor is one section."""
    library = _library("regor")
    library.mle_create_context.restype = ctypes.c_void_p
    values = _int16(values)
    context = ctypes.c_void_p(library.mle_create_context(0))
    result = _EncodeResult()
    data = values.ctypes.data_as(ctypes.POINTER(ctypes.c_int16))
    library.mle_encode(context, ctypes.byref(result), data, values.size, 0)
    stream = ctypes.string_at(result.encoded_data, result.encoded_length)
    library.mle_destroy_context(context)
    library.mle_free(ctypes.byref(result))
    return stream
