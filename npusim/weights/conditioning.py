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

from npusim._arguments import integer, integer_array, real, real_array
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
    worst = _in_range(array)
    smallest, largest = max(levels, 1), abs(worst)
    if bits == 1 or largest <= smallest:
        return float(smallest)
    counts = np.bincount(np.abs(array).ravel(), minlength=WEIGHT_MAX + 1)
    errors = _squared_errors(levels)[: largest + 1 - smallest] @ counts
    return float(smallest + np.argmin(errors))


def _in_range(array: npt.NDArray[Any]) -> int:
    """The weight of largest magnitude, 0 without weights, if that is at most 255."""
    extremes = (int(array.min()), int(array.max())) if array.size else (0, 0)
    worst = max(extremes, key=abs)
    if abs(worst) > WEIGHT_MAX:
        raise ConfigError(f"weights must be in -{WEIGHT_MAX}..{WEIGHT_MAX}, got {worst}")
    return worst


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


def n_of_m(weights: npt.ArrayLike, n: int, m: int) -> npt.NDArray[Any]:
    """Of every `m` weights in a row the `n` of largest magnitude, the others zero.

    Among equal magnitudes the earlier one is kept. The last group may be shorter.

    Args:
        weights: integers, shape [n_weights], zero point subtracted, in the order of the groups.
        n: weights to keep of a group, 0..m.
        m: weights of a group, 1..256.

    Returns:
        Same dtype and shape.

    Raises:
        ConfigError: weights are not integers of at most 32 bits in one dimension, or `n` or `m` is
            out of range.

    >>> n_of_m([3, -5, 0, 4, 1], n=2, m=4).tolist()
    [0, -5, 0, 4, 1]
    """
    size = integer("m", m, 1, 256)
    kept = integer("n", n, 0, size)
    array = _checked(weights)
    if array.ndim != 1:
        raise ConfigError(f"weights must be one-dimensional, got shape {array.shape}")
    padded = np.zeros(-(-array.size // size) * size, array.dtype)
    padded[: array.size] = array
    groups = padded.reshape(-1, size)
    order = np.argsort(-np.abs(groups), axis=1, kind="stable")
    np.put_along_axis(groups, order[:, kept:], 0, axis=1)
    kept_only: npt.NDArray[Any] = padded[: array.size].astype(np.asarray(weights).dtype)
    return kept_only


def cluster(weights: npt.ArrayLike, n_values: int) -> npt.NDArray[Any]:
    """Weights of at most `n_values` different values, of least squared error but for rounding.

    The values are what k-means in one dimension gives, the exact optimum, found by dynamic
    programming over the histogram, rounded to integers; zero stays zero, and is one of the values
    where it occurs: pruned weights remain pruned.

    Args:
        weights: integers in -255..255 of any shape, zero point subtracted.
        n_values: K, 1..511; at least 2 where both zeros and other weights occur.

    Returns:
        Same dtype and shape.

    Raises:
        ConfigError: weights are not such integers, or `n_values` is out of range.

    Source: Han et al., Deep Compression, ICLR 2016, section 3, weight sharing.

    >>> cluster([0, 9, 10, 11, -4, 0], n_values=3).tolist()
    [0, 10, 10, 10, -4, 0]
    """
    array = _checked(weights)
    _in_range(array)
    counts = np.bincount(array.ravel().astype(np.int64) + WEIGHT_MAX, minlength=2 * WEIGHT_MAX + 1)
    zeros = counts[WEIGHT_MAX] > 0
    others = counts.copy()
    others[WEIGHT_MAX] = 0
    least = 2 if zeros and others.any() else 1
    k = integer("n_values", n_values, least, 2 * WEIGHT_MAX + 1) - (1 if zeros else 0)
    values = np.flatnonzero(others)
    table = np.arange(-WEIGHT_MAX, WEIGHT_MAX + 1)
    if values.size > k:
        table[values] = _centres(values - WEIGHT_MAX, others[values], k)
    clustered: npt.NDArray[Any] = table[array + WEIGHT_MAX].astype(np.asarray(weights).dtype)
    return clustered


def _centres(
    values: npt.NDArray[np.int64], counts: npt.NDArray[np.int64], k: int
) -> npt.NDArray[np.int64]:
    """For each of the rising `values` the rounded mean of its cluster, in the best k clusters."""
    n = values.size
    sums = [np.concatenate([[0], np.cumsum(counts * values**power)]) for power in (0, 1, 2)]
    first, end = np.arange(n)[:, None], np.arange(1, n + 1)[None, :]
    size, total, squares = (array[end] - array[first] for array in sums)
    valid = end > first
    size = np.where(valid, size, 1)
    errors = np.where(valid, squares - total * total / size, np.inf)  # [first, end - 1]
    least = errors[0]  # of the values up to each, in one cluster
    starts = [np.zeros(n, np.int64)]
    for _ in range(k - 1):
        sums_of_two = np.concatenate([[0.0], least[:-1]])[:, None] + errors
        starts.append(sums_of_two.argmin(axis=0))
        least = sums_of_two.min(axis=0)
    centres = np.empty(n, np.int64)
    last = n
    for start_of in reversed(starts):
        start = int(start_of[last - 1])
        centres[start:last] = round(
            float((counts[start:last] * values[start:last]).sum() / counts[start:last].sum())
        )
        last = start
        if last == 0:
            break
    return centres


def weight_error(weights: npt.ArrayLike, approximation: npt.ArrayLike) -> tuple[float, float]:
    """How far weights are from those they stand for.

    Args:
        weights: real numbers, any shape.
        approximation: real numbers in the same unit (codes times their step), same shape.

    Returns:
        Relative L2 error, the norm of the difference over that of the weights, 0 where nothing
        differs and infinite where all weights are 0 but not their approximation; and the ratio of
        signal to quantization noise in dB, ``-20 log10`` of it, infinite without an error.

    Raises:
        ConfigError: not real numbers, or of different shapes.

    >>> [round(number, 3) for number in weight_error([3, 4], [3, 3.5])]
    [0.1, 20.0]
    """
    exact = real_array("weights", weights, -math.inf, math.inf)
    other = real_array("approximation", approximation, -math.inf, math.inf)
    if exact.shape != other.shape:
        raise ConfigError(f"approximation must have shape {exact.shape}, got {other.shape}")
    signal, noise = float(np.sum(exact**2)), float(np.sum((exact - other) ** 2))
    if noise == 0:
        return 0.0, math.inf
    if signal == 0:
        return math.inf, -math.inf
    return math.sqrt(noise / signal), 10 * math.log10(signal / noise)


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
