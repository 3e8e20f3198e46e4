# SPDX-License-Identifier: Apache-2.0
"""Operators that move codes, and resizing, which mixes neighbours."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

import numpy as np

from npusim.errors import ConfigError
from npusim.integer.operands import Codes, attribute, require_same, zero
from npusim.integer.requantize import Int64, divided_away, shifted_right
from npusim.network import Op

_FRACTION_BITS: Final = 10
"""Of positions and weights in LiteRT's bilinear resizing."""


def _same(op: Op, arrays: list[Any], profile: str) -> Codes:
    require_same(op, op.ifm)
    return np.asarray(arrays[0])


def _pad(op: Op, arrays: list[Any], profile: str) -> Codes:
    require_same(op, op.ifm)
    fill = zero(op.ofm) if len(arrays) < 3 else int(arrays[2].ravel()[0])
    return np.pad(arrays[0], arrays[1], constant_values=fill)


def _concatenation(op: Op, arrays: list[Any], profile: str) -> Codes:
    for tensor in op.inputs:
        require_same(op, tensor)
    return np.concatenate(arrays, axis=attribute(op, "axis"))


def _transpose(op: Op, arrays: list[Any], profile: str) -> Codes:
    require_same(op, op.ifm)
    return np.transpose(arrays[0], arrays[1])


def _slice(op: Op, arrays: list[Any], profile: str) -> Codes:
    require_same(op, op.ifm)
    x, begin, size = arrays
    ends = [b + s if s >= 0 else None for b, s in zip(begin, size, strict=True)]
    return np.asarray(x[tuple(map(slice, begin, ends))])


def _strided_slice(op: Op, arrays: list[Any], profile: str) -> Codes:
    require_same(op, op.ifm)
    x, *bounds = arrays
    for mask in ("ellipsis_mask", "new_axis_mask", "offset"):
        if op.attributes[mask]:
            raise ConfigError(f"{mask} of {op.name!r} must be 0, got {op.attributes[mask]}")
    masks = [attribute(op, f"{what}_mask") for what in ("begin", "end", "shrink_axis")]
    index: list[slice] = []
    for axis, (begin, end, stride) in enumerate(zip(*map(np.ravel, bounds), strict=True)):
        unbound_begin, unbound_end, shrink = (mask >> axis & 1 for mask in masks)
        if shrink:  # one element, whatever its end
            index.append(slice(begin, begin + 1 or None))
            continue
        index.append(slice(None if unbound_begin else begin, None if unbound_end else end, stride))
    return np.asarray(x[tuple(index)])


def _split(op: Op, arrays: list[Any], profile: str) -> list[Codes]:
    """SPLIT (axis, ifm) and SPLIT_V (ifm, sizes, axis), as large as the outputs are."""
    require_same(op, op.ifm)
    x, axis = (arrays[1], arrays[0]) if op.kind == "SPLIT" else (arrays[0], arrays[2])
    along = int(np.ravel(axis)[0])
    ends = np.cumsum([tensor.shape[along] for tensor in op.outputs])
    return list(np.split(x, ends[:-1], axis=along))


def _positions(op: Op, length: int, ofm_length: int) -> Int64:
    """Where the ofm's elements lie along an axis of the ifm, in units of 1/1024."""
    corners = bool(op.attributes["align_corners"]) and ofm_length > 1
    top, bottom = (length - 1, ofm_length - 1) if corners else (length, ofm_length)
    step = ((top << _FRACTION_BITS) + bottom // 2) // bottom
    at = np.arange(ofm_length, dtype=np.int64) * step
    if op.attributes["half_pixel_centers"]:
        at = at + step // 2 - (1 << _FRACTION_BITS - 1)
    return at


def _bilinear(op: Op, arrays: list[Any], profile: str) -> Codes:
    require_same(op, op.ifm)
    x, one = arrays[0].astype(np.int64), 1 << _FRACTION_BITS
    if profile == "xnnpack":
        return _bilinear_xnnpack(op, x)
    for axis in (1, 2):
        at = _positions(op, x.shape[axis], op.outputs[0].shape[axis])
        low = np.maximum(np.trunc(at / one).astype(np.int64), 0)
        high = np.minimum((at + one - 1) // one, x.shape[axis] - 1)
        share = (at - low * one).reshape((-1, *(1,) * (3 - axis)))
        x = x.take(low, axis) * (one - share) + x.take(high, axis) * share
    return divided_away(x, np.asarray(one * one))


def _bilinear_xnnpack(op: Op, x: Int64) -> Codes:
    """Weights are 11-bit fractions of positions in single precision."""
    for axis in (1, 2):
        length, ofm_length = x.shape[axis], op.outputs[0].shape[axis]
        corners = bool(op.attributes["align_corners"]) and ofm_length > 1
        top, bottom = (length - 1, ofm_length - 1) if corners else (length, ofm_length)
        step = np.float32(top) / np.float32(bottom)
        at = np.arange(ofm_length, dtype=np.float32) * step
        if op.attributes["half_pixel_centers"]:
            at = at + (np.float32(0.5) * step - np.float32(0.5))
        at = np.clip(at, np.float32(0), np.float32(length - 1))
        low = at.astype(np.int64)
        high = np.minimum(low + 1, length - 1)
        share = np.rint((at - low.astype(np.float32)) * 2048).astype(np.int64)
        share = share.reshape((-1, *(1,) * (3 - axis)))
        x = (x.take(low, axis) << 11) + (x.take(high, axis) - x.take(low, axis)) * share
    return shifted_right(x, 22, ties_up=True)


def _nearest(op: Op, arrays: list[Any], profile: str) -> Codes:
    require_same(op, op.ifm)
    x = arrays[0]
    half = np.float32(0.5 if op.attributes["half_pixel_centers"] else 0)
    for axis in (1, 2):
        length, ofm_length = x.shape[axis], op.outputs[0].shape[axis]
        corners = bool(op.attributes["align_corners"])
        top, bottom = (length, ofm_length)
        if corners and ofm_length > 1:
            top, bottom = length - 1, ofm_length - 1
        at = (np.arange(ofm_length, dtype=np.float32) + half) * (
            np.float32(top) / np.float32(bottom)
        )
        whole = np.floor(at + np.float32(0.5)) if corners else np.floor(at)
        x = x.take(np.clip(whole.astype(np.int64), 0, length - 1), axis)
    return np.asarray(x)


def _depth_to_space(op: Op, arrays: list[Any], profile: str) -> Codes:
    require_same(op, op.ifm)
    (n, height, width, depth), size = arrays[0].shape, attribute(op, "block_size")
    blocks = arrays[0].reshape(n, height, width, size, size, depth // size**2)
    return np.asarray(blocks.transpose(0, 1, 3, 2, 4, 5))


OPERATORS: Final[dict[str, Callable[[Op, list[Any], str], Codes | list[Codes]]]] = {
    "CONCATENATION": _concatenation,
    "DEPTH_TO_SPACE": _depth_to_space,
    "EXPAND_DIMS": _same,
    "PAD": _pad,
    "PADV2": _pad,
    "RESHAPE": _same,
    "RESIZE_BILINEAR": _bilinear,
    "RESIZE_NEAREST_NEIGHBOR": _nearest,
    "SLICE": _slice,
    "SPLIT": _split,
    "SPLIT_V": _split,
    "SQUEEZE": _same,
    "STRIDED_SLICE": _strided_slice,
    "TRANSPOSE": _transpose,
}
