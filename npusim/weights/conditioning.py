# SPDX-License-Identifier: Apache-2.0
"""Make integer weights more compressible, as [UDC] conditions a model: prune, then quantize.

Both change what the network computes. They show how the compressed size reacts to sparsity and bit
width, without training; accuracy has to be won back by training.
"""

from __future__ import annotations

import math
from functools import lru_cache
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from npusim._arguments import integer, integer_array, real
from npusim.errors import ConfigError
from npusim.weights.format import WEIGHT_MAX

BITS_MAX: Final = 8
"""Widest codes of `requantize`: what the weight tensors of a .tflite file hold."""
_WEIGHT_MAX: Final = 1 << 31


def magnitude_mask(weights: npt.ArrayLike, nonzero_fraction: float) -> npt.NDArray[np.bool_]:
    """Where the largest magnitudes are: exactly ``round(nonzero_fraction * n)`` positions.

    Among equal magnitudes the earlier position, in C order, is kept. Zeros are the last to be kept,
    when there are fewer other weights than positions to keep; they stay zeros all the same.

    Args:
        weights: integers of any shape, zero point subtracted.
        nonzero_fraction: s, fraction of positions to keep, 0..1; ``s*n`` rounds half to even.

    Returns:
        True where kept, same shape.

    Raises:
        ConfigError: weights are not integers of at most 32 bits, or the fraction is out of range.

    Source: [UDC] eq. (2) and the paragraph before it.

    >>> magnitude_mask([3, -5, 0, 3], 0.5).tolist()
    [True, True, False, False]
    """
    array = _checked(weights)
    n_kept = round(real("nonzero_fraction", nonzero_fraction, 0.0, 1.0) * array.size)
    if n_kept == 0:
        return np.zeros(array.shape, np.bool_)
    magnitudes = np.abs(array).ravel()
    place = array.size - n_kept
    smallest_kept = np.partition(magnitudes, place)[place]
    mask: npt.NDArray[np.bool_] = magnitudes > smallest_kept
    ties = np.flatnonzero(magnitudes == smallest_kept)
    mask[ties[: n_kept - int(mask.sum())]] = True
    return mask.reshape(array.shape)


def prune(weights: npt.ArrayLike, nonzero_fraction: float) -> npt.NDArray[Any]:
    """Weights with all but the largest magnitudes set to zero.

    Args:
        weights, nonzero_fraction: as `magnitude_mask`.

    Returns:
        Same shape and dtype, a copy; non-zeros are ``round(nonzero_fraction * n)``, or what there
        were if those were fewer.

    Raises:
        ConfigError: as `magnitude_mask`.

    >>> prune([3, -5, 1, 2], 0.5).tolist()
    [3, -5, 0, 0]
    """
    mask = magnitude_mask(weights, nonzero_fraction)
    array = integer_array("weights", weights)
    return np.where(mask, array, array.dtype.type(0))


def requantize(
    weights: npt.ArrayLike, bits: int, clip: float | None = None
) -> npt.NDArray[np.int8]:
    """Integer weights as symmetric codes of `bits` bits.

    With more than one bit, codes are ``round(clip(w, -r, r) / d)`` with ``d = r / (2**(b-1) - 1)``,
    halves to even: at most ``2**(b-1) - 1`` levels on each side of zero. With one bit they are the
    signs. Zero always becomes zero, and with several bits so do weights below ``d/2``.

    Args:
        weights: integers of any shape, zero point subtracted.
        bits: b, bit width of the codes, 1..8.
        clip: r, range of the quantizer, more than 0; without effect for one bit. None takes the
            largest magnitude, but no grid finer than the weights' own: weights that fit into `bits`
            come back unchanged.

    Returns:
        Codes in -(2**(b-1) - 1)..2**(b-1) - 1, or -1..1 for one bit, int8, same shape. A weight is
        its code times d; d belongs to the layer's scale and is not stored with the codes.

    Raises:
        ConfigError: weights are not integers of at most 32 bits, or `bits` or `clip` out of range.

    Source: [UDC] eq. (3).

    >>> requantize([-127, -40, 0, 9, 10, 127], bits=4).tolist()
    [-7, -2, 0, 0, 1, 7]
    >>> requantize([-127, -40, 0, 9, 10, 127], bits=1).tolist()
    [-1, -1, 0, 1, 1, 1]
    """
    array = _checked(weights)
    levels = _levels(bits)
    if clip is not None:
        r = real("clip", clip, 0.0, math.inf)
        if not 0.0 < r < math.inf:
            raise ConfigError(f"clip must be finite and more than 0, got {clip}")
    elif array.size:
        r = float(max(np.abs(array).max(), levels))
    if bits == 1 or array.size == 0:
        signs: npt.NDArray[np.int8] = np.sign(array).astype(np.int8)
        return signs
    codes = array.astype(np.float64)
    np.clip(codes, -r, r, out=codes)
    codes *= levels
    codes /= r  # last, so that exact halves stay exact
    np.rint(codes, out=codes)  # [UDC] eq. (3), in units of d
    return codes.astype(np.int8)


def least_error_clip(weights: npt.ArrayLike, bits: int) -> float:
    """Range r of the quantizer for which requantized weights are closest to the weights.

    Weights that training did not adapt to few bits have a few large values that would stretch the
    grid until most others round to zero; the least squared error trades the ones for the others.

    Args:
        weights: integers in -255..255 of any shape, zero point subtracted.
        bits: as `requantize`.

    Returns:
        The smallest integer r, from ``2**(b-1) - 1`` (no grid finer than the weights' own) to the
        largest magnitude, with the least sum of ``(w - Q(w, b, r))**2``. With one bit, where it is
        without effect, and without weights, the smallest r.

    Raises:
        ConfigError: weights are not such integers, or `bits` is out of range.

    Source: [UDC] eq. (3), where r is a parameter that training finds.

    >>> least_error_clip([-10, -9, 0, 8, 9, 10, 127], bits=3)
    127.0
    >>> least_error_clip([-10, -9, 0, 8, 9, 10, 20], bits=2)
    11.0
    """
    array = _checked(weights)
    levels = _levels(bits)
    extremes = (int(array.min()), int(array.max())) if array.size else (0, 0)
    worst = max(extremes, key=abs)
    if abs(worst) > WEIGHT_MAX:
        raise ConfigError(f"weights must be in -{WEIGHT_MAX}..{WEIGHT_MAX}, got {worst}")
    smallest, largest = max(levels, 1), abs(worst)
    if bits == 1 or largest <= smallest:
        return float(smallest)
    counts = np.bincount(np.abs(array).ravel(), minlength=WEIGHT_MAX + 1)
    errors = _squared_errors(levels)[: largest + 1 - smallest] @ counts
    return float(smallest + np.argmin(errors))


def _levels(bits: int) -> int:
    """Codes on each side of zero with more than one bit."""
    return (1 << (integer("bits", bits, 1, BITS_MAX) - 1)) - 1


@lru_cache(maxsize=BITS_MAX)
def _squared_errors(levels: int) -> npt.NDArray[np.float64]:
    """Squared error of each magnitude with each range, shape [ranges from `levels`, magnitudes]."""
    clips = np.arange(levels, WEIGHT_MAX + 1, dtype=np.float64)[:, None]
    magnitudes = np.arange(WEIGHT_MAX + 1, dtype=np.float64)
    codes = np.rint(np.minimum(magnitudes, clips) * levels / clips)  # [UDC] eq. (3)
    errors: npt.NDArray[np.float64] = (magnitudes - codes * clips / levels) ** 2
    return errors


def condition(
    weights: npt.ArrayLike, *, bits: int | None = None, nonzero_fraction: float = 1.0
) -> npt.NDArray[Any]:
    """Prune by magnitude and quantize: ``Q(w, b, r)`` where the mask of ``w`` keeps it, else 0.

    The mask is chosen on the weights, not on their codes, which would tie. Codes that round to zero
    make the result sparser than the mask.

    Args:
        weights: integers of any shape, zero point subtracted.
        bits: bit width of the codes, 1..8, or None to leave the grid as it is.
        nonzero_fraction: fraction of weights to keep, 0..1.

    Returns:
        Codes as `requantize` gives them, or with None weights of the same dtype; same shape.

    Raises:
        ConfigError: as `magnitude_mask` and `requantize`.

    Source: [UDC] section 3, "Sparsity and quantization".

    >>> condition([127, -64, 9, 0], bits=2, nonzero_fraction=0.75).tolist()
    [1, -1, 0, 0]
    """
    if bits is None:
        return prune(weights, nonzero_fraction)
    return requantize(weights, bits) * magnitude_mask(weights, nonzero_fraction)


def _checked(weights: npt.ArrayLike) -> npt.NDArray[Any]:
    """Weights in a signed type that also holds the negative of each."""
    array = integer_array("weights", weights)
    for extreme in (int(array.min()), int(array.max())) if array.size else ():
        if abs(extreme) > _WEIGHT_MAX:
            raise ConfigError(f"weights must be in -{_WEIGHT_MAX}..{_WEIGHT_MAX}, got {extreme}")
    wider = {1: np.int16, 2: np.int32}.get(array.dtype.itemsize, np.int64)
    return array.astype(wider)
