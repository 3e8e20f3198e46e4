# SPDX-License-Identifier: Apache-2.0
"""Estimates of a stream's size that do not search: from a histogram, or from one pass.

For search tools that need many sizes: both assume one palette for the whole tensor (regor: for each
of its sections) and few changes of configuration, which real weights come close to; the exact size
is `npusim.weights.encoded_size`. How close is measured by ``benches/weight_stream.py``. The palette
sections of the legacy encoder, which it makes of weights of few values, are not foreseen.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from npusim._arguments import choice, integer_array
from npusim.errors import ConfigError
from npusim.weights import format as f
from npusim.weights.plan import REGOR_SECTION_WEIGHTS

ESTIMATED_ENCODERS = ("legacy", "regor")
_NO_SECTION_END = 2**62
_COUNT_MAX = 2**40


def value_counts(weights: npt.ArrayLike) -> npt.NDArray[np.int64]:
    """Occurrences of -255..255 in a tensor of any shape: int64, shape [511].

    Raises:
        ConfigError: not integers, or one is not in -255..255.

    >>> value_counts([[0, 3], [0, -1]])[[254, 255, 258]].tolist()
    [1, 2, 1]
    """
    array = integer_array("weights", weights).ravel()
    if array.size and (array.min() < -f.WEIGHT_MAX or array.max() > f.WEIGHT_MAX):
        worst = array.min() if array.min() < -f.WEIGHT_MAX else array.max()
        raise ConfigError(f"weights must be in -{f.WEIGHT_MAX}..{f.WEIGHT_MAX}, got {worst}")
    return np.bincount(array.astype(np.int64) + f.WEIGHT_MAX, minlength=2 * f.WEIGHT_MAX + 1)


def estimate_size_from_counts(
    counts: npt.ArrayLike, padding: npt.ArrayLike = (), encoder: str = "regor"
) -> int:
    """Estimated stream bytes of a tensor whose order is not known.

    Args:
        counts: occurrences of -255..255, shape [511] (`value_counts`), without padding.
        padding: runs of zeros that reordering adds, as `padding_runs` gives them for a shape:
            length and number of each kind, shape [n_kinds, 2].
        encoder: ``"regor"`` or ``"legacy"``.

    Returns:
        Bytes, a multiple of 16; the other zeros are taken as spread evenly. Where regor's choice of
        zero-run mode depends on their order, they are taken as standing together: zeros that
        outnumber all else by so much are whole channels, or so many that they do.

    Raises:
        ConfigError: wrong shape or type, a negative count, a length or number below 1, more than
            2**40 zeros.
        UnknownNameError: no such encoder, or one that cannot be estimated.

    >>> from npusim.weights import padding_runs
    >>> weights = np.arange(-72, 72).reshape(16, 3, 3, 1)
    >>> padding = padding_runs(weights.shape, traversal="depthwise")
    >>> estimate_size_from_counts(value_counts(weights), padding)
    176
    """
    array, runs = checked_counts(counts, padding, encoder)
    from npusim.weights.estimate_kernels import bits_of_counts

    regor = encoder == "regor"
    section = REGOR_SECTION_WEIGHTS if regor else _NO_SECTION_END
    bits = counted(bits_of_counts(array, runs, section, int(regor)), array, runs)
    return _bytes(bits) if bits else f.STREAM_ALIGN_BYTES


def checked_counts(
    counts: npt.ArrayLike, padding: npt.ArrayLike, encoder: str
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Counts and padding as the kernels take them (arguments: see `estimate_size_from_counts`).

    Raises:
        ConfigError: a wrong shape or type.
        UnknownNameError: no such encoder, or one that cannot be estimated.
    """
    choice("encoder", encoder, ESTIMATED_ENCODERS)
    array = integer_array("counts", counts)
    if array.shape != (2 * f.WEIGHT_MAX + 1,):
        raise ConfigError(f"counts must have shape [{2 * f.WEIGHT_MAX + 1}], got {array.shape}")
    return np.require(array, np.int64, ("C", "W")), _runs_of_padding(padding)


def counted(result: int, counts: npt.NDArray[np.int64], padding: npt.NDArray[np.int64]) -> int:
    """What a kernel makes of counts.

    Raises:
        ConfigError: it found a count or a row of the padding out of range.
    """
    from npusim.weights.estimate_kernels import BAD_PADDING

    if result <= BAD_PADDING:
        raise ConfigError(
            "padding must be lengths and numbers from 1 on, of at most 2**40 zeros, "
            f"got {padding[BAD_PADDING - result].tolist()}"
        )
    if result < 0:
        raise ConfigError(
            f"counts must be in 0..2**40, padding included, got {counts[-1 - result]}"
        )
    return int(result)


def _runs_of_padding(padding: npt.ArrayLike) -> npt.NDArray[np.int64]:
    if isinstance(padding, (list, tuple)) and not padding:
        return np.empty((0, 2), np.int64)
    array = integer_array("padding", padding)
    if array.ndim != 2 or array.shape[1] != 2:
        raise ConfigError(f"padding must have shape [n_kinds, 2], got {array.shape}")
    return np.require(array, np.int64, ("C", "W"))


def estimate_size(values: npt.ArrayLike, encoder: str = "regor") -> int:
    """Estimated stream bytes from one pass over the weights, without a parameter search.

    Args:
        values: integers in -255..255 in stream order, shape [n_weights].
        encoder: ``"regor"`` or ``"legacy"``.

    Returns:
        Bytes, a multiple of 16.

    Raises:
        ConfigError: values of another type, shape or range.
        UnknownNameError: no such encoder, or one that cannot be estimated.

    >>> estimate_size([0, 0, 0, 7])
    16
    """
    from npusim.weights.stream import checked_values

    choice("encoder", encoder, ESTIMATED_ENCODERS)
    array = checked_values(values)
    if not array.size:
        return f.STREAM_ALIGN_BYTES
    from npusim.weights.estimate_kernels import bits_of_values

    regor = encoder == "regor"
    section = REGOR_SECTION_WEIGHTS if regor else _NO_SECTION_END
    return _bytes(bits_of_values(array, section, int(regor)))


def _bytes(bits: int) -> int:
    unit_bits = 8 * f.STREAM_ALIGN_BYTES
    return f.STREAM_ALIGN_BYTES * -(-(bits + f.ZDIV_FIELD_BITS) // unit_bits)
