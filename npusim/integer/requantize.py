# SPDX-License-Identifier: Apache-2.0
"""Accumulators to codes: the roundings that runtimes differ in."""

from __future__ import annotations

import math
from typing import Any, Final

import numpy as np
import numpy.typing as npt

PROFILES: Final = ("litert_ref", "litert_opt", "xnnpack", "tflm")
"""Whose numerics: LiteRT's reference kernels, its optimised ones, those of XNNPACK, which it uses
by default, with the optimised ones for what XNNPACK lacks; and TFLite Micro's.

The first three are what LiteRT 2.3.0 computes on x86; the tests compare with both runtimes.
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


def high_product(a: npt.ArrayLike, b: npt.ArrayLike) -> Int64:
    """``a * b / 2**31`` rounded to nearest, ties upwards."""
    product = np.asarray(a, np.int64) * np.asarray(b, np.int64)
    nudged = product + np.where(product >= 0, 1 << 30, 1 - (1 << 30))
    return np.asarray(np.sign(nudged) * (np.abs(nudged) >> 31), np.int64)  # towards zero


def shifted_right(values: Int64, right: npt.ArrayLike, *, ties_up: npt.ArrayLike = False) -> Int64:
    """``values / 2**right`` to nearest, ties away from zero or, where `ties_up`, upwards."""
    right = np.asarray(right, np.int64)
    half = (1 << right) >> 1
    half = half - ((values < 0) & (right > 0) & ~np.asarray(ties_up, np.bool_))
    return np.asarray((values + half) >> right, np.int64)


def scaled(acc: Int64, m: Int64, shift: Int64, *, ties_up: npt.ArrayLike = False) -> Int64:
    """``acc * m * 2**(shift - 31)``, rounded twice.

    The high half of the product is rounded to nearest, ties upwards; then the shift to the right,
    ties away from zero or, where `ties_up`, upwards.
    """
    high = high_product(acc << np.maximum(shift, 0), m)
    return shifted_right(high, np.maximum(-shift, 0), ties_up=ties_up)


def in_vectors(n: int, n_lanes: int) -> npt.NDArray[np.bool_]:
    """Which of n values whole vectors hold; optimised kernels may round the rest otherwise.

    >>> in_vectors(5, 2).tolist()
    [True, True, True, True, False]
    """
    return np.arange(n) < n // n_lanes * n_lanes


def rounded_away(values: npt.NDArray[Any]) -> Int64:
    """Nearest integers, ties away from zero.

    >>> rounded_away(np.array([-2.5, 2.5])).tolist()
    [-3, 3]
    """
    return np.asarray(np.trunc(values + np.copysign(0.5, values)), np.int64)


def rounded_even(acc: Int64, real: npt.ArrayLike) -> Int64:
    """``acc * real`` in single precision to nearest integers, ties to even ones.

    >>> rounded_even(np.array([3, 5]), 0.5).tolist()
    [2, 2]
    """
    products = np.asarray(acc, np.float32) * np.asarray(real, np.float32)
    return np.asarray(np.rint(products), np.int64)


def divided_away(total: Int64, count: Int64) -> Int64:
    """Nearest quotients of integers, ties away from zero."""
    return np.asarray(np.sign(total) * ((np.abs(total) + count // 2) // count), np.int64)


def mean_multiplier(ratio: float, count: int) -> tuple[Int64, Int64]:
    """The factor of a mean over `count` values, the division in its multiplier."""
    m, shift = (int(part) for part in multiplier(ratio))
    extra = min(int(math.log2(count)), 32, 31 + shift)
    return np.asarray((m << extra) // count), np.asarray(shift - extra)
