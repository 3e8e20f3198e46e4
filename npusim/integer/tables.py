# SPDX-License-Identifier: Apache-2.0
"""Operators that runtimes compute by tables, or TFLite Micro in fixed point."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

import numpy as np

from npusim.integer import fixed_point
from npusim.integer.operands import Codes, centred, clamped, real_attribute, scale, single, zero
from npusim.integer.requantize import multiplier, rounded_away, scaled, shifted_right
from npusim.network import Op


def _sigmoid(x: np.ndarray) -> np.ndarray:
    return np.float32(1) / (np.float32(1) + np.exp(-x.astype(np.float64)).astype(np.float32))


def _tanh(x: np.ndarray) -> np.ndarray:
    return np.tanh(x.astype(np.float64)).astype(np.float32)


_FUNCTIONS: Final = {
    "LOGISTIC": (_sigmoid, fixed_point.logistic, 8),
    "TANH": (_tanh, fixed_point.tanh, 7),
}
"""By kind: in single precision, in fixed point, fraction bits of its codes."""


def _function(op: Op, arrays: list[Any], profile: str) -> Codes:
    function, in_fixed_point, bits = _FUNCTIONS[op.kind]
    centred_codes = centred(op.ifm, arrays[0])
    if profile == "tflm":
        m, shift = multiplier(scale(op.ifm) * 2.0**27)  # to 4 integer bits
        radius = int(15 * 2.0**27 / 2.0 ** int(shift))
        raw = scaled(np.clip(centred_codes, -radius, radius), m, shift)
        codes = shifted_right(in_fixed_point(raw), 31 - bits)
        full = 1 << bits
        codes = np.where(centred_codes >= radius, full, codes)
        codes = np.where(centred_codes <= -radius, 0 if op.kind == "LOGISTIC" else -full, codes)
        return clamped(op.ofm, codes + zero(op.ofm))
    result = function(single(op.ifm) * centred_codes.astype(np.float32))
    return clamped(op.ofm, rounded_away(result * (np.float32(1) / single(op.ofm))) + zero(op.ofm))


def _softmax(op: Op, arrays: list[Any], profile: str) -> Codes:
    codes = arrays[0].astype(np.int64)
    differences = codes - codes.max(-1, keepdims=True)
    beta = real_attribute(op, "beta")
    if profile == "tflm":
        m, shift = multiplier(min(float(beta) * scale(op.ifm) * 2.0**26, 2.0**31 - 1))
        lowest = -int(31 * 2.0**26 / 2.0 ** int(shift))
        found = fixed_point.softmax(differences, m, int(shift), lowest)
        return clamped(op.ofm, found + zero(op.ofm))
    exponents = np.float32(-(single(op.ifm) * beta)) * -differences.astype(np.float32)
    powers = np.exp(exponents.astype(np.float64)).astype(np.float32)
    total = np.add.accumulate(powers, axis=-1)[..., -1:]  # one after the other
    shares = powers * (np.float32(1) / (total * single(op.ofm)))
    return clamped(op.ofm, rounded_away(shares) + zero(op.ofm))


OPERATORS: Final[dict[str, Callable[[Op, list[Any], str], Codes]]] = {
    "LOGISTIC": _function,
    "SOFTMAX": _softmax,
    "TANH": _function,
}
