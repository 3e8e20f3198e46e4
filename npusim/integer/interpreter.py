# SPDX-License-Identifier: Apache-2.0
"""Int8 networks, operation by operation, in NumPy.

Sums are exact: products of codes are added in float64, far below 2**53.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from npusim._arguments import choice
from npusim.errors import ConfigError
from npusim.integer.requantize import (
    PROFILES,
    Int64,
    divided_away,
    mean_multiplier,
    multiplier,
    rounded_away,
    scaled,
)
from npusim.network import Network, Op
from npusim.tensor import Quantization, Tensor

Codes = npt.NDArray[Any]


def run(network: Network, inputs: Sequence[Codes], profile: str = "litert_ref") -> dict[int, Codes]:
    """Codes of every tensor of one inference, by `Tensor.index`.

    Args:
        network: of int8 feature maps.
        inputs: codes of `network.inputs`, in their shapes and dtypes.
        profile: one of `PROFILES`.

    Raises:
        ConfigError: an operation is not among `OPERATORS`, a feature map is not int8, or inputs
            do not fit the network.
        UnknownNameError: no such profile.

    >>> from npusim.network_builder import NetworkBuilder
    >>> net = NetworkBuilder("sum")
    >>> a, b = (net.input((1, 2), scale=0.5) for _ in range(2))
    >>> total = net.op("ADD", a, b, scale=1.0)
    >>> codes = [np.array([[1, 7]], np.int8), np.array([[3, -2]], np.int8)]
    >>> run(net.build(total), codes)[total.index].tolist()
    [[2, 3]]
    """
    choice("profile", profile, PROFILES)
    for op in network.ops:
        if op.kind not in OPERATORS:
            known = ", ".join(sorted(OPERATORS))
            raise ConfigError(
                f"kind of {op.name!r} must be an integer operator ({known}), got {op.kind}"
            )
        for tensor in (op.ifm, op.ofm):
            if tensor is None or tensor.dtype != "int8" or tensor.quantization is None:
                raise ConfigError(
                    f"feature maps of {op.name!r} must be quantized int8, got {tensor!s}"
                )
    if len(inputs) != len(network.inputs):
        raise ConfigError(f"inputs must be {len(network.inputs)} arrays, got {len(inputs)}")
    values = {t.index: t.data for t in network.tensors if t.data is not None}
    for tensor, codes in zip(network.inputs, inputs, strict=True):
        if codes.shape != tensor.shape or str(codes.dtype) != tensor.dtype:
            raise ConfigError(f"input must fit {tensor!s}, got {codes.dtype}{list(codes.shape)}")
        values[tensor.index] = codes
    for op in network.ops:
        ofm = op.outputs[0]
        arrays = [None if t is None else values[t.index] for t in op.inputs]
        codes = OPERATORS[op.kind](op, arrays, profile)
        values[ofm.index] = codes.reshape(ofm.shape).astype(np.int8)
    return values


def _quantization(tensor: Tensor | None) -> Quantization:
    if tensor is None or tensor.dtype != "int8" or tensor.quantization is None:
        raise ConfigError(f"feature maps must be quantized int8, got {tensor!s}")
    return tensor.quantization


def _scale(tensor: Tensor | None) -> float:
    return float(_quantization(tensor).scales[0])


def _zero(tensor: Tensor | None) -> int:
    return int(_quantization(tensor).zero_points[0])


def _attribute(op: Op, name: str) -> int:
    value = op.attributes.get(name, 1)
    assert isinstance(value, int)
    return value


def _activated(op: Op, codes: Int64) -> Int64:
    """Clamped to what the fused activation lets pass."""
    activation = op.attributes.get("fused_activation", "NONE")
    ranges = {"NONE": (None, None), "RELU": (0, None), "RELU6": (0, 6), "RELU_N1_TO_1": (-1, 1)}
    if activation not in ranges:
        raise ConfigError(f"activation of {op.name!r} must be a clamp, got {activation}")
    scale, zero = np.float32(_scale(op.ofm)), _zero(op.ofm)
    low, high = (
        None if end is None else zero + int(rounded_away(np.asarray(np.float32(end) / scale)))
        for end in ranges[str(activation)]
    )
    return np.clip(
        codes, -128 if low is None else max(-128, low), 127 if high is None else min(127, high)
    )


def _requantized(op: Op, acc: Int64, bias: Codes | None, profile: str) -> Int64:
    """Of a convolution or fully connected layer, channels last; with bias, zero point and clamp."""
    weights = op.weights
    if weights is None or weights.quantization is None or weights.quantization.zero_points.any():
        raise ConfigError(f"weights of {op.name!r} must be symmetric, got {weights!s}")
    if bias is not None:
        acc = acc + bias.astype(np.int64)
    real = _scale(op.ifm) * weights.quantization.scales.astype(np.float64) / _scale(op.ofm)
    dense = op.kind == "FULLY_CONNECTED"
    if dense and profile == "litert_ref":
        codes = rounded_away(acc * real)
    else:
        ties_up = profile == "litert_opt" and op.kind in (
            "CONV_2D",
            "DEPTHWISE_CONV_2D",
            "FULLY_CONNECTED",
        )
        codes = scaled(acc, *multiplier(real), ties_up=ties_up)
    return _activated(op, codes + _zero(op.ofm))


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
        stride, gap = (_attribute(op, f"{what}_{letter}") for what in ("stride", "dilation"))
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


def _conv(op: Op, arrays: list[Any], profile: str) -> Int64:
    x, w = arrays[0].astype(np.float64) - _zero(op.ifm), arrays[1].astype(np.float64)
    if x.shape[3] != w.shape[3]:
        raise ConfigError(f"groups of {op.name!r} must be 1, got {x.shape[3] // w.shape[3]}")
    windows = _windows(op, x, w.shape[1:3])
    acc = np.tensordot(windows, w.transpose(0, 3, 1, 2), axes=((3, 4, 5), (1, 2, 3)))
    return _requantized(op, acc.astype(np.int64), _bias(arrays, 2), profile)


def _depthwise(op: Op, arrays: list[Any], profile: str) -> Int64:
    x, w = arrays[0].astype(np.float64) - _zero(op.ifm), arrays[1].astype(np.float64)[0]
    x = np.repeat(x, w.shape[2] // x.shape[3], axis=3)
    acc = np.einsum("nhwcij,ijc->nhwc", _windows(op, x, w.shape[:2]), w)
    return _requantized(op, acc.astype(np.int64), _bias(arrays, 2), profile)


def _transposed(op: Op, arrays: list[Any], profile: str) -> Int64:
    """Each input pixel adds its own window of the output; inputs: shape, weights, ifm, bias."""
    assert op.ofm is not None
    x, w = arrays[2].astype(np.float64) - _zero(op.ifm), arrays[1].astype(np.float64)
    stride = _attribute(op, "stride_h"), _attribute(op, "stride_w")
    (n, *size, _), kernel = x.shape, w.shape[1:3]
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


def _dense(op: Op, arrays: list[Any], profile: str) -> Int64:
    w = arrays[1].astype(np.float64)
    x = arrays[0].astype(np.float64).reshape(-1, w.shape[1]) - _zero(op.ifm)
    return _requantized(op, (x @ w.T).astype(np.int64), _bias(arrays, 2), profile)


def _average(op: Op, arrays: list[Any], profile: str) -> Int64:
    kernel = _attribute(op, "filter_h"), _attribute(op, "filter_w")
    x = arrays[0].astype(np.int64)
    total = _windows(op, x, kernel).sum(axis=(4, 5))
    count = _windows(op, np.ones_like(x), kernel).sum(axis=(4, 5))
    return _activated(op, divided_away(total, count))


def _maximum(op: Op, arrays: list[Any], profile: str) -> Int64:
    kernel = _attribute(op, "filter_h"), _attribute(op, "filter_w")
    return _activated(op, _windows(op, arrays[0].astype(np.int64), kernel, -128).max(axis=(4, 5)))


def _add(op: Op, arrays: list[Any], profile: str) -> Int64:
    top = 2 * max(_scale(tensor) for tensor in op.inputs)
    acc: Int64 = np.zeros((), np.int64)
    for tensor, codes in zip(op.inputs, arrays, strict=True):
        shifted = (codes.astype(np.int64) - _zero(tensor)) << 20
        acc = acc + scaled(shifted, *multiplier(_scale(tensor) / top))
    codes = scaled(acc, *multiplier(top / ((1 << 20) * _scale(op.ofm))))
    return _activated(op, codes + _zero(op.ofm))


def _mul(op: Op, arrays: list[Any], profile: str) -> Int64:
    a, b = (c.astype(np.int64) - _zero(t) for c, t in zip(arrays, op.inputs, strict=True))
    real = _scale(op.inputs[0]) * _scale(op.inputs[1]) / _scale(op.ofm)
    return _activated(op, scaled(a * b, *multiplier(real)) + _zero(op.ofm))


def _mean(op: Op, arrays: list[Any], profile: str) -> Int64:
    axes = tuple(int(axis) for axis in np.ravel(arrays[1]))
    count = int(np.prod([arrays[0].shape[axis] for axis in axes]))
    acc = (arrays[0].astype(np.int64) - _zero(op.ifm)).sum(axis=axes)
    if profile == "litert_opt":  # of the codes as they are, the zero point apart
        acc = arrays[0].astype(np.int64).sum(axis=axes)
        ratio = np.float32(_scale(op.ifm)) / np.float32(_scale(op.ofm))
        bias = _zero(op.ofm) - int(_zero(op.ifm) * ratio)
        codes = scaled(acc, *multiplier(_scale(op.ifm) / (count * _scale(op.ofm))))
        return np.clip(codes + bias, -128, 127)
    m, shift = mean_multiplier(_scale(op.ifm) / _scale(op.ofm), count)
    return np.clip(scaled(acc, m, shift) + _zero(op.ofm), -128, 127)


def _pad(op: Op, arrays: list[Any], profile: str) -> Codes:
    return np.pad(arrays[0], arrays[1], constant_values=_zero(op.ofm))


def _concatenation(op: Op, arrays: list[Any], profile: str) -> Codes:
    for tensor in op.inputs:
        if (_scale(tensor), _zero(tensor)) != (_scale(op.ofm), _zero(op.ofm)):
            raise ConfigError(f"inputs of {op.name!r} must be quantized as its ofm, got {tensor!s}")
    return np.concatenate(arrays, axis=_attribute(op, "axis"))


def _reshape(op: Op, arrays: list[Any], profile: str) -> Codes:
    return np.asarray(arrays[0])


OPERATORS: Final[dict[str, Callable[[Op, list[Any], str], Codes]]] = {
    "ADD": _add,
    "AVERAGE_POOL_2D": _average,
    "CONCATENATION": _concatenation,
    "CONV_2D": _conv,
    "DEPTHWISE_CONV_2D": _depthwise,
    "FULLY_CONNECTED": _dense,
    "MAX_POOL_2D": _maximum,
    "MEAN": _mean,
    "MUL": _mul,
    "PAD": _pad,
    "RESHAPE": _reshape,
    "TRANSPOSE_CONV": _transposed,
}
"""What can run, by kind of operation."""
