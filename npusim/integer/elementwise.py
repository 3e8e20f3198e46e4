# SPDX-License-Identifier: Apache-2.0
"""Operators that treat each element by itself.

Differs: the optimised MUL of LiteRT wraps products of more than 32,767 steps of its ofm.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, Final

import numpy as np

from npusim.integer.operands import (
    Codes,
    activated,
    centred,
    clamped,
    real_attribute,
    require_same,
    scale,
    single,
    zero,
)
from npusim.integer.requantize import (
    Int64,
    in_vectors,
    multiplier,
    rounded_away,
    rounded_even,
    scaled,
    shifted_right,
)
from npusim.network import Op

_XNNPACK_SHIFT: Final = 8
"""Fraction bits of the factors that XNNPACK applies to single feature maps."""


def _sum(op: Op, arrays: list[Any], profile: str, sign: int = 1) -> Codes:
    """ADD, and SUB with sign -1."""
    pairs = list(zip(op.inputs, arrays, (1, sign), strict=True))
    if profile == "xnnpack":  # factors of 21 bits
        ratios = [single(tensor) / single(op.ofm) for tensor in op.inputs]
        shift = 21 - int(np.frexp(max(ratios))[1])
        acc = np.zeros((), np.int64)
        for (tensor, codes, s), ratio in zip(pairs, ratios, strict=True):
            acc = acc + s * centred(tensor, codes) * int(np.rint(np.ldexp(ratio, shift)))
        return activated(op, shifted_right(acc, shift, ties_up=True) + zero(op.ofm))
    top = 2 * max(scale(tensor) for tensor in op.inputs)
    acc = np.zeros((), np.int64)
    for tensor, codes, s in pairs:
        m, right = multiplier(scale(tensor) / top)
        widened = centred(tensor, codes) << 20
        term = scaled(widened, m, right)
        if profile == "litert_opt" and sign > 0:  # vectors round once
            once = shifted_right(widened * m, 31 - right, ties_up=True)
            term = np.where(in_vectors(term.size, 16).reshape(term.shape), once, term)
        acc = acc + s * term
    codes = scaled(acc, *multiplier(top / ((1 << 20) * scale(op.ofm))))
    return activated(op, codes + zero(op.ofm))


def _mul(op: Op, arrays: list[Any], profile: str) -> Codes:
    a, b = (centred(t, codes) for t, codes in zip(op.inputs, arrays, strict=True))
    real = single(op.inputs[0]) * single(op.inputs[1]) / single(op.ofm)
    if profile == "xnnpack":
        return activated(op, rounded_even(a * b, real) + zero(op.ofm))
    return activated(op, scaled(a * b, *multiplier(real)) + zero(op.ofm))


def _extreme(op: Op, arrays: list[Any], profile: str, choose: Any) -> Codes:
    for tensor in op.inputs:
        require_same(op, tensor)
    return np.asarray(choose(*arrays))


def _relu(op: Op, arrays: list[Any], profile: str) -> Codes:
    if profile == "tflm" and op.kind == "RELU6":  # a clamp of codes, however the ofm is quantized
        return clamped(op.ifm, arrays[0].astype(np.int64), op.kind)
    codes = scaled(centred(op.ifm, arrays[0]), *multiplier(single(op.ifm) / single(op.ofm)))
    return clamped(op.ofm, codes + zero(op.ofm), op.kind)


def _by_short_factor(acc: Int64, real: np.float32) -> Int64:
    """``acc * real`` as XNNPACK has it for one feature map: the factor rounded to 8 bits."""
    factor = int(np.rint(np.ldexp(real, _XNNPACK_SHIFT)))
    return shifted_right(acc * factor, _XNNPACK_SHIFT, ties_up=True)


def _leaky_relu(op: Op, arrays: list[Any], profile: str) -> Codes:
    acc = centred(op.ifm, arrays[0])
    positive = single(op.ifm) / single(op.ofm)
    alpha = real_attribute(op, "alpha")
    if profile == "xnnpack":
        codes = np.where(
            acc >= 0, _by_short_factor(acc, positive), _by_short_factor(acc, positive * alpha)
        )
    else:
        negative = single(op.ifm) * alpha / single(op.ofm)
        codes = np.where(
            acc >= 0, scaled(acc, *multiplier(positive)), scaled(acc, *multiplier(negative))
        )
    return clamped(op.ofm, codes + zero(op.ofm))


def _prelu(op: Op, arrays: list[Any], profile: str) -> Codes:
    acc, slopes = (centred(t, codes) for t, codes in zip(op.inputs, arrays, strict=True))
    positive = single(op.ifm) / single(op.ofm)
    negative = single(op.ifm) * single(op.inputs[1]) / single(op.ofm)
    codes = np.where(
        acc >= 0, scaled(acc, *multiplier(positive)), scaled(acc * slopes, *multiplier(negative))
    )
    return clamped(op.ofm, codes + zero(op.ofm))


def _quantize(op: Op, arrays: list[Any], profile: str) -> Codes:
    x = arrays[0]
    if x.dtype.kind == "f":
        if profile == "xnnpack":
            codes = rounded_even(x, np.float32(1) / single(op.ofm))
        else:
            codes = rounded_away(x / single(op.ofm))
        return clamped(op.ofm, codes + zero(op.ofm))
    acc = centred(op.ifm, x)
    if profile == "xnnpack" and x.dtype == op.outputs[0].dtype:
        codes = _by_short_factor(acc, single(op.ifm) / single(op.ofm))
    else:
        optimised = profile in ("litert_opt", "xnnpack")
        ties_up = in_vectors(acc.size, 16).reshape(acc.shape) & optimised
        codes = scaled(acc, *multiplier(scale(op.ifm) / scale(op.ofm)), ties_up=ties_up)
    return clamped(op.ofm, codes + zero(op.ofm))


def _dequantize(op: Op, arrays: list[Any], profile: str) -> Codes:
    step = single(op.ifm)
    values = np.asarray(centred(op.ifm, arrays[0]) * float(step), np.float32)
    if profile == "litert_opt":  # two products in single precision
        apart = arrays[0].astype(np.float32) * step + np.float32(-zero(op.ifm)) * step
        values = np.where(in_vectors(values.size, 8).reshape(values.shape), apart, values)
    return values


OPERATORS: Final[dict[str, Callable[[Op, list[Any], str], Codes]]] = {
    "ADD": _sum,
    "DEQUANTIZE": _dequantize,
    "LEAKY_RELU": _leaky_relu,
    "MAXIMUM": partial(_extreme, choose=np.maximum),
    "MINIMUM": partial(_extreme, choose=np.minimum),
    "MUL": _mul,
    "PRELU": _prelu,
    "QUANTIZE": _quantize,
    "RELU": _relu,
    "RELU6": _relu,
    "RELU_N1_TO_1": _relu,
    "SUB": partial(_sum, sign=-1),
}
