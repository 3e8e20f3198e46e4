# SPDX-License-Identifier: Apache-2.0
"""Checks of single arguments, so that every surface refuses bad input in the same words."""

from __future__ import annotations

import math
import operator
from collections.abc import Iterable
from typing import Any

import numpy as np
import numpy.typing as npt

from npusim.errors import ConfigError, UnknownNameError


def integer(what: str, value: Any, low: int, high: int) -> int:
    """`value` as an int in low..high; a bool, a float or text is not an integer.

    Raises:
        ConfigError: `value` is not an integer or out of range.
    """
    if type(value) is int and low <= value <= high:
        return value
    try:
        if isinstance(value, (bool, np.bool_)):
            raise TypeError
        number = operator.index(value)
    except TypeError:
        raise ConfigError(f"{what} must be an integer, got {_short(value)}") from None
    if not low <= number <= high:
        raise ConfigError(f"{what} must be in {low}..{high}, got {number}")
    return number


def choice(what: str, value: Any, known: Iterable[str]) -> str:
    """`value` if it is one of `known`.

    Raises:
        UnknownNameError: it is not; lists the known ones and guesses.
    """
    names = tuple(known)
    if not isinstance(value, str) or value not in names:
        raise UnknownNameError(what, value, names)
    return value


def integer_array(what: str, values: npt.ArrayLike) -> npt.NDArray[Any]:
    """`values` as an array of some integer dtype, any shape, not copied if it is one already.

    Raises:
        ConfigError: `values` are ragged, or of another dtype (bool, float, object, text).
    """
    try:
        array = np.asarray(values)
    except ValueError:
        raise ConfigError(f"{what} must form one array, got rows of unequal length") from None
    if array.dtype.kind not in "iu":
        raise ConfigError(f"{what} must hold integers, got dtype {array.dtype}")
    if _has_bool(values):  # numpy takes one beside integers for 0 or 1
        raise ConfigError(f"{what} must hold integers, got a bool among them")
    return array


def _has_bool(values: Any) -> bool:
    """Whether a list or tuple, nested or not, has a bool in it."""
    if not isinstance(values, (list, tuple)):
        return False
    kinds = set(map(type, values))
    if kinds & {bool, np.bool_}:
        return True
    return bool(kinds & {list, tuple}) and any(map(_has_bool, values))


def real_array(what: str, values: npt.ArrayLike, low: float, high: float) -> npt.NDArray[Any]:
    """`values` as float64 of any shape, each in low..high; NaN is outside every range.

    Raises:
        ConfigError: `values` are ragged, not real numbers, or one is out of range.
    """
    try:
        array = np.asarray(values)
    except ValueError:
        raise ConfigError(f"{what} must form one array, got rows of unequal length") from None
    if array.dtype.kind not in "iuf":
        raise ConfigError(f"{what} must be real numbers, got dtype {array.dtype}")
    array = array.astype(np.float64)
    outside = ~((array >= low) & (array <= high))
    if outside.any():
        bound = f"in {low:g}..{high:g}" if math.isfinite(high) else f"at least {low:g}"
        raise ConfigError(f"{what} must be {bound}, got {array[outside].flat[0]:g}")
    return array


def real(what: str, value: Any, low: float, high: float) -> float:
    """`value` as one float in low..high; NaN is outside every range.

    Raises:
        ConfigError: `value` is not one real number or out of range.
    """
    array = real_array(what, value, low, high)
    if array.ndim:
        raise ConfigError(f"{what} must be one number, got shape {array.shape}")
    return float(array)


def positive(what: str, value: Any) -> float:
    """`value` as one float that is finite and more than zero.

    Raises:
        ConfigError: `value` is not one real number, is not finite, or is zero or less.
    """
    if isinstance(value, bool) or not isinstance(value, (int, float, np.integer, np.floating)):
        raise ConfigError(f"{what} must be one number, got {_short(value)}")
    if not 0 < value < math.inf:
        raise ConfigError(f"{what} must be more than 0 and finite, got {_short(value)}")
    try:
        return float(value)
    except OverflowError:
        raise ConfigError(f"{what} must be more than 0 and finite, got {_short(value)}") from None


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{type(value).__name__} {text[:56]}..."
