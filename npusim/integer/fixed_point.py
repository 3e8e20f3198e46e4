# SPDX-License-Identifier: Apache-2.0
"""Exponentials and reciprocals in 32-bit fixed point, as TFLite Micro has them.

Numbers are raw int64 arrays; one of n integer bits stands for ``raw * 2**(n - 31)``.

Source: gemmlowp's fixed-point arithmetic, which defines these approximations bit for bit.
"""

from __future__ import annotations

from typing import Final

import numpy as np

from npusim.integer.requantize import Int64, high_product, shifted_right

_ONE: Final = (1 << 31) - 1
_EXP_OF_MINUS_EIGHTH: Final = 1895147668
_THIRD: Final = 715827883
_48_SEVENTEENTHS: Final = 1515870810
_32_SEVENTEENTHS: Final = 1010580540
_POWERS: Final = (
    *((-2, 1672461947), (-1, 1302514674), (0, 790015084), (1, 290630308)),
    *((2, 39332535), (3, 720401), (4, 242)),
)
"""exp(-2**n) by n, without integer bits."""


def _saturated(raw: Int64) -> Int64:
    return np.clip(raw, -(1 << 31), _ONE)


def exp_of_negative(raw: Int64, integer_bits: int) -> Int64:
    """exp of numbers that are not positive; the result has no integer bits."""
    fraction_bits = 31 - integer_bits
    quarter = 1 << (fraction_bits - 2)
    rest = (raw & (quarter - 1)) - quarter  # in -1/4..0
    x = _saturated(rest << integer_bits) + (1 << 28)
    x2 = high_product(x, x)
    x3, x4 = high_product(x2, x), high_product(x2, x2)
    series = shifted_right(high_product(shifted_right(x4, 2) + x3, _THIRD) + x2, 1)
    result = _saturated(_EXP_OF_MINUS_EIGHTH + high_product(_EXP_OF_MINUS_EIGHTH, x + series))
    quarters = rest - raw
    for exponent, power in _POWERS:
        if exponent < integer_bits:
            there = quarters >> (fraction_bits + exponent) & 1
            result = np.where(there == 1, high_product(result, power), result)
    return np.where(raw == 0, _ONE, result)


def _newton(raw: Int64) -> Int64:
    """2 / (1 + x) for x in 0..1 without integer bits; the result has 2."""
    total = raw + _ONE
    half = (total + 1) >> 1  # total is not negative
    x = _48_SEVENTEENTHS - high_product(half, _32_SEVENTEENTHS)
    for _ in range(3):
        x = x + _saturated(high_product(x, (1 << 29) - high_product(half, x)) << 2)
    return x


def inverse_of_one_plus(raw: Int64) -> Int64:
    """1 / (1 + x) for x in 0..1; neither has integer bits."""
    return _saturated(_newton(raw) << 1)


def softmax(differences: Int64, factor: Int64, shift: int, lowest: int) -> Int64:
    """Codes 0..256 of a softmax over the last axis, before they are limited to 8 bits.

    Args:
        differences: codes less the largest of their row.
        factor, shift: from codes to numbers of 5 integer bits: a 31-bit factor, a shift to the
            left.
        lowest: differences below it count as nothing.
    """
    there = differences >= lowest
    raw = high_product(np.where(there, differences, 0) << shift, factor)
    powers = np.where(there, exp_of_negative(raw, 5), 0)
    total = shifted_right(powers, 12).sum(-1, keepdims=True)
    headroom = 32 - np.frexp(total.astype(np.float64))[1].astype(np.int64)
    scale = inverse_of_one_plus((total << headroom) - (1 << 31))
    codes = shifted_right(high_product(scale, powers), 12 - headroom + 31 - 8)
    return np.where(there, codes, 0)


def logistic(raw: Int64) -> Int64:
    """1 / (1 + exp(-x)) of numbers of 4 integer bits; the result has none."""
    positive = inverse_of_one_plus(exp_of_negative(-np.abs(raw), 4))
    result = np.where(raw > 0, positive, _ONE - positive)
    return np.where(raw == 0, 1 << 30, result)


def tanh(raw: Int64) -> Int64:
    """tanh of numbers of 4 integer bits; the result has none."""
    power = exp_of_negative(-np.abs(raw), 5)  # of twice the number
    positive = _saturated((_newton(power) - (1 << 29)) << 2)
    return np.where(raw == 0, 0, np.sign(raw) * positive)
