# SPDX-License-Identifier: Apache-2.0
"""Accumulators to codes: the roundings that runtimes differ in."""

from __future__ import annotations

import math
from typing import Any, Final

import numpy as np
import numpy.typing as npt

PROFILES: Final = ("litert_ref", "litert_opt", "tflm")
"""Whose numerics: LiteRT's reference kernels, its optimised ones, TFLite Micro's.

The first two are what LiteRT 2.3.0 computes, which the tests compare with; the last, which rounds
twice everywhere, has not been compared with its runtime.
"""

Int64 = npt.NDArray[np.int64]


def multiplier(real: npt.ArrayLike) -> tuple[Int64, Int64]:
    """Real factors as 31-bit integers and exponents: ``m * 2**(shift - 31)``.

    >>> [int(part) for part in multiplier(0.75)]
    [1610612736, 0]
    """
    fraction, shift = np.frexp(np.asarray(real, np.float64))
    m = np.floor(fraction * (1 << 31) + 0.5).astype(np.int64)
    carries = m == 1 << 31
    m, shift = np.where(carries, m // 2, m), shift.astype(np.int64) + carries
    too_small = shift < -31
    return np.where(too_small, 0, m), np.where(too_small, 0, shift)


def scaled(acc: Int64, m: Int64, shift: Int64, *, ties_up: bool = False) -> Int64:
    """``acc * m * 2**(shift - 31)``, rounded twice.

    The high half of the product is rounded to nearest, ties upwards; then the shift to the right,
    ties away from zero or, with `ties_up`, upwards.
    """
    product = (acc << np.maximum(shift, 0)) * m
    nudged = product + np.where(product >= 0, 1 << 30, 1 - (1 << 30))
    high = np.sign(nudged) * (np.abs(nudged) >> 31)  # towards zero
    right = np.maximum(-shift, 0)
    half = (1 << right) >> 1
    if not ties_up:
        half = half - ((high < 0) & (right > 0))
    return np.asarray((high + half) >> right, np.int64)


def rounded_away(values: npt.NDArray[Any]) -> Int64:
    """Nearest integers, ties away from zero.

    >>> rounded_away(np.array([-2.5, 2.5])).tolist()
    [-3, 3]
    """
    return np.asarray(np.trunc(values + np.copysign(0.5, values)), np.int64)


def divided_away(total: Int64, count: Int64) -> Int64:
    """Nearest quotients of integers, ties away from zero."""
    return np.asarray(np.sign(total) * ((np.abs(total) + count // 2) // count), np.int64)


def mean_multiplier(ratio: float, count: int) -> tuple[Int64, Int64]:
    """The factor of a mean over `count` values, the division in its multiplier."""
    m, shift = (int(part) for part in multiplier(ratio))
    extra = min(int(math.log2(count)), 32, 31 + shift)
    return np.asarray((m << extra) // count), np.asarray(shift - extra)
