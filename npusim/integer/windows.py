# SPDX-License-Identifier: Apache-2.0
"""Operators over windows and channels: convolutions, matrix products, pools, means.

Sums are exact: products of codes are added in float64, far below 2**53.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

import numpy as np

from npusim.errors import ConfigError
from npusim.integer.operands import Codes, activated, attribute, clamped, scale, single, zero
from npusim.integer.requantize import (
    Int64,
    divided_away,
    in_vectors,
    mean_multiplier,
    multiplier,
    rounded_away,
    rounded_even,
    scaled,
)
from npusim.network import Op


def _requantized(op: Op, acc: Int64, bias: Codes | None, profile: str) -> Codes:
    """Of a convolution or fully connected layer, channels last; with bias, zero point and clamp."""
    weights = op.weights
    if weights is None or weights.quantization is None or weights.quantization.zero_points.any():
        raise ConfigError(f"weights of {op.name!r} must be symmetric, got {weights!s}")
    if bias is not None:
        acc = acc + bias.astype(np.int64)
    if profile == "xnnpack":
        real = single(op.ifm) * weights.quantization.scales / single(op.ofm)
        return activated(op, rounded_even(acc, real) + zero(op.ofm))
    real = scale(op.ifm) * weights.quantization.scales.astype(np.float64) / scale(op.ofm)
    dense = op.kind == "FULLY_CONNECTED"
    if dense and profile == "litert_ref":
        codes = rounded_away(acc * real)
    else:
        ties_up = np.zeros(acc.shape[-1], np.bool_)
        if profile == "litert_opt":
            lanes = 8 if op.kind in ("DEPTHWISE_CONV_2D", "TRANSPOSE_CONV") else 1
            ties_up = in_vectors(acc.shape[-1], lanes)
        codes = scaled(acc, *multiplier(real), ties_up=ties_up)
    return activated(op, codes + zero(op.ofm))


def _padding(op: Op, length: int, ofm_length: int, window: int, stride: int) -> tuple[int, int]:
    if op.attributes["padding"] == "VALID":
        return 0, 0
    total = max((ofm_length - 1) * stride + window - length, 0)
    return total // 2, total - total // 2


def _windows(op: Op, x: Codes, kernel: tuple[int, int], fill: int = 0) -> Codes:
    """[N, H, W, C] -> [N, OH, OW, C, KH, KW]; padding holds `fill`."""
    assert op.ofm is not None
    pads, sizes, steps, gaps = [], [], [], []
    for axis, letter in enumerate("hw"):
        stride, gap = (attribute(op, f"{what}_{letter}") for what in ("stride", "dilation"))
        size = (kernel[axis] - 1) * gap + 1
        pads.append(_padding(op, x.shape[1 + axis], op.ofm.shape[1 + axis], size, stride))
        sizes.append(size)
        steps.append(stride)
        gaps.append(gap)
    x = np.pad(x, [(0, 0), *pads, (0, 0)], constant_values=fill)
    views = np.lib.stride_tricks.sliding_window_view(x, tuple(sizes), axis=(1, 2))
    return views[:, :: steps[0], :: steps[1], :, :: gaps[0], :: gaps[1]]


def _bias(arrays: list[Any], position: int) -> Codes | None:
    return arrays[position] if position < len(arrays) else None


def _conv(op: Op, arrays: list[Any], profile: str) -> Codes:
    x, w = arrays[0].astype(np.float64) - zero(op.ifm), arrays[1].astype(np.float64)
    if x.shape[3] != w.shape[3]:
        raise ConfigError(f"groups of {op.name!r} must be 1, got {x.shape[3] // w.shape[3]}")
    windows = _windows(op, x, w.shape[1:3])
    acc = np.tensordot(windows, w.transpose(0, 3, 1, 2), axes=((3, 4, 5), (1, 2, 3)))
    return _requantized(op, acc.astype(np.int64), _bias(arrays, 2), profile)


def _depthwise(op: Op, arrays: list[Any], profile: str) -> Codes:
    x, w = arrays[0].astype(np.float64) - zero(op.ifm), arrays[1].astype(np.float64)[0]
    x = np.repeat(x, w.shape[2] // x.shape[3], axis=3)
    acc = np.einsum("nhwcij,ijc->nhwc", _windows(op, x, w.shape[:2]), w)
    if profile == "xnnpack" and attribute(op, "depth_multiplier") == 0:  # which it does not take
        profile = "litert_opt"
    return _requantized(op, acc.astype(np.int64), _bias(arrays, 2), profile)


def _transposed(op: Op, arrays: list[Any], profile: str) -> Codes:
    """Each input pixel adds its own window of the output; inputs: shape, weights, ifm, bias."""
    assert op.ofm is not None
    x, w = arrays[2].astype(np.float64) - zero(op.ifm), arrays[1].astype(np.float64)
    stride = attribute(op, "stride_h"), attribute(op, "stride_w")
    (n, *size, _), kernel = x.shape, w.shape[1:3]
    if profile == "xnnpack" and (kernel[0] < stride[0] or kernel[1] < stride[1]):  # not taken
        profile = "litert_opt"
    full = [(size[i] - 1) * stride[i] + kernel[i] for i in (0, 1)]
    begin = [_padding(op, op.ofm.shape[1 + i], size[i], kernel[i], stride[i])[0] for i in (0, 1)]
    extent = [max(full[i], begin[i] + op.ofm.shape[1 + i]) for i in (0, 1)]
    acc = np.zeros((n, *extent, w.shape[0]))
    for i, j in np.ndindex(*kernel):
        rows = slice(i, i + (size[0] - 1) * stride[0] + 1, stride[0])
        columns = slice(j, j + (size[1] - 1) * stride[1] + 1, stride[1])
        acc[:, rows, columns] += x @ w[:, i, j].T
    acc = acc[:, begin[0] :, begin[1] :][:, : op.ofm.shape[1], : op.ofm.shape[2]]
    return _requantized(op, acc.astype(np.int64), _bias(arrays, 3), profile)


def _dense(op: Op, arrays: list[Any], profile: str) -> Codes:
    w = arrays[1].astype(np.float64)
    x = arrays[0].astype(np.float64).reshape(-1, w.shape[1]) - zero(op.ifm)
    return _requantized(op, (x @ w.T).astype(np.int64), _bias(arrays, 2), profile)


def _average(op: Op, arrays: list[Any], profile: str) -> Codes:
    kernel = attribute(op, "filter_h"), attribute(op, "filter_w")
    x = arrays[0].astype(np.int64)
    total = _windows(op, x, kernel).sum(axis=(4, 5))
    count = _windows(op, np.ones_like(x), kernel).sum(axis=(4, 5))
    return activated(op, divided_away(total, count))


def _maximum(op: Op, arrays: list[Any], profile: str) -> Codes:
    kernel = attribute(op, "filter_h"), attribute(op, "filter_w")
    return activated(op, _windows(op, arrays[0].astype(np.int64), kernel, -128).max(axis=(4, 5)))


def _mean(op: Op, arrays: list[Any], profile: str) -> Codes:
    axes = tuple(int(axis) % arrays[0].ndim for axis in np.ravel(arrays[1]))
    count = int(np.prod([arrays[0].shape[axis] for axis in axes]))
    raw = arrays[0].astype(np.int64).sum(axis=axes)
    acc = raw - zero(op.ifm) * count
    if profile == "xnnpack":
        ratio = single(op.ifm) / single(op.ofm) * (np.float32(1) / np.float32(count))
        offset = np.float32(zero(op.ofm)) - np.float32(zero(op.ifm) * count) * ratio
        codes = np.rint(raw.astype(np.float32) * ratio + offset)
        return clamped(op.ofm, codes.astype(np.int64))
    if profile == "litert_opt" and op.attributes["keep_dims"] and sorted(axes) == [1, 2]:
        # of the codes as they are, the zero point apart
        moved = np.asarray(zero(op.ifm) * single(op.ifm) / single(op.ofm))
        bias = zero(op.ofm) - rounded_away(moved)
        real = scale(op.ifm) / (count * scale(op.ofm))
        codes = scaled(raw, *multiplier(real), ties_up=in_vectors(raw.shape[-1], 16))
        return clamped(op.ofm, codes + bias)
    m, shift = mean_multiplier(scale(op.ifm) / scale(op.ofm), count)
    return clamped(op.ofm, scaled(acc, m, shift) + zero(op.ofm))


OPERATORS: Final[dict[str, Callable[[Op, list[Any], str], Codes]]] = {
    "AVERAGE_POOL_2D": _average,
    "CONV_2D": _conv,
    "DEPTHWISE_CONV_2D": _depthwise,
    "FULLY_CONNECTED": _dense,
    "MAX_POOL_2D": _maximum,
    "MEAN": _mean,
    "TRANSPOSE_CONV": _transposed,
}
