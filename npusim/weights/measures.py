# SPDX-License-Identifier: Apache-2.0
"""How small a layer's weights can get, without an encoder: the paper's measures of model size.

Three measures, all in bits a weight, all vectorised over layers:

* `entropy_bits`, `weights_entropy_bits`: the empirical entropy, left side of [UDC] eq. (4);
* `mask_aware_bits`: ``s*b + H2(s)``, an upper bound of it that needs no weights, the default;
* `as_printed_bits`: ``b + H2(s)``, the right side of [UDC] eq. (4) as the text prints it.

``s`` is the fraction of weights that are not zero, ``b`` the bits of one that is not, and ``H2``
the entropy of the mask that tells them apart. `compressed_bytes` turns any of them into bytes.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import numpy as np
import numpy.typing as npt

from npusim._arguments import choice, integer_array, real_array
from npusim.errors import ConfigError

Float64Array = npt.NDArray[np.float64]

BITS_MAX: Final = 32
"""Widest weights a measure is defined for: unquantized ones."""
_COUNT_MAX: Final = float(1 << 53)


def binary_entropy_bits(fraction: npt.ArrayLike) -> Float64Array | np.float64:
    """Entropy of a yes-no choice in bits: ``H2(s) = -s log2 s - (1-s) log2 (1-s)``.

    Args:
        fraction: probabilities of "yes", each in 0..1, any shape.

    Returns:
        0..1, same shape; exactly 0 at 0 and at 1, exactly 1 at one half.

    Raises:
        ConfigError: a fraction is out of range or not a number.

    >>> float(binary_entropy_bits(0.5)), binary_entropy_bits([0, 1]).tolist()
    (1.0, [0.0, 0.0])
    """
    s = real_array("fraction", fraction, 0.0, 1.0)
    return _terms(s) + _terms(1.0 - s)


def entropy_bits(counts: npt.ArrayLike) -> Float64Array | np.float64:
    """Empirical entropy of histograms, in bits a weight.

    Args:
        counts: how often each value occurs, integers from 0, shape [..., n_values]; each histogram
            counts at least one weight.

    Returns:
        Shape [...]; exactly 0 where all weights are equal.

    Raises:
        ConfigError: counts are not integers, negative, have no axis, or count nothing.

    >>> entropy_bits([[4, 4], [8, 0]]).tolist()
    [1.0, 0.0]
    """
    array = integer_array("counts", counts)
    if array.ndim == 0 or array.shape[-1] == 0:
        raise ConfigError(f"counts must have shape [..., n_values], got {array.shape}")
    n = real_array("counts", array, 0.0, _COUNT_MAX)
    total = n.sum(axis=-1, keepdims=True)
    if (total == 0).any():
        raise ConfigError("counts must count at least one weight, got a histogram of zeros")
    bits: Float64Array | np.float64 = _terms(n / total).sum(axis=-1)
    return bits


def weights_entropy_bits(weights: npt.ArrayLike) -> float:
    """Empirical entropy of one tensor's values, in bits a weight: [UDC] eq. (4), left side.

    No code that gives each value its own code word gets below it; one that adapts to the values'
    order, as the Ethos-U stream does with its sections, can.

    Args:
        weights: integers of any shape, at least one.

    Raises:
        ConfigError: weights are not integers, or there are none.

    >>> weights_entropy_bits([[0, 0], [1, -1]])
    1.5
    """
    array = integer_array("weights", weights)
    if array.size == 0:
        raise ConfigError(f"weights must not be empty, got shape {array.shape}")
    if array.dtype.itemsize <= 2:  # counting beats sorting
        counts = np.bincount(array.ravel().astype(np.int64) - int(array.min()))
    else:
        counts = np.unique(array, return_counts=True)[1]
    return float(entropy_bits(counts))


def mask_aware_bits(
    bits: npt.ArrayLike, nonzero_fraction: npt.ArrayLike
) -> Float64Array | np.float64:
    """Bits a weight of a mask and of `bits` for every weight it keeps: ``s*b + H2(s)``.

    It bounds the empirical entropy of weights with a fraction s of non-zeros and at most 2**b
    non-zero levels: let m be the mask of the non-zeros. Knowing the weights q is knowing m, and
    knowing m leaves q open only where m is 1, to one of at most 2**b levels, so
    ``H(q) = H(m) + H(q | m) <= H2(s) + s*b``. The bound is reached when the levels are equally
    frequent.

    Args:
        bits: bit width b of each layer's weights, real, each in 1..32.
        nonzero_fraction: s of each layer, each in 0..1; broadcast against `bits`.

    Returns:
        Bits a weight, of the broadcast shape.

    Raises:
        ConfigError: a value is out of range or not a number, or the shapes do not broadcast.

    Source: [UDC] eq. (4).
    Differs: the text prints ``b + H2(s)``, see `as_printed_bits`. Only this form shrinks as weights
    become zero, and the sizes that Arm's compiler reports follow it.

    >>> float(mask_aware_bits(4, 0.5))
    3.0
    """
    b, s = _checked(bits, nonzero_fraction)
    return s * b + binary_entropy_bits(s)


def as_printed_bits(
    bits: npt.ArrayLike, nonzero_fraction: npt.ArrayLike
) -> Float64Array | np.float64:
    """[UDC] eq. (4), right side, exactly as the text prints it: ``b + H2(s)`` bits a weight.

    Kept for comparison with the text. It charges every weight `bits`, zero or not, and the mask on
    top: it never falls below `bits`, so pruning cannot make a model smaller by it. It still bounds
    the entropy, but loosely; every default here is `mask_aware_bits`.

    Args:
        bits, nonzero_fraction: as `mask_aware_bits`.

    Returns:
        Bits a weight, of the broadcast shape.

    Raises:
        ConfigError: as `mask_aware_bits`.

    >>> float(as_printed_bits(4, 0.5))
    5.0
    """
    b, s = _checked(bits, nonzero_fraction)
    return b + binary_entropy_bits(s)


MEASURES: Final[dict[str, Callable[..., Float64Array | np.float64]]] = {
    "mask-aware": mask_aware_bits,
    "as-printed": as_printed_bits,
}
"""The measures that need no weights, by name."""


def compressed_bytes(
    n_weights: npt.ArrayLike,
    bits: npt.ArrayLike,
    nonzero_fraction: npt.ArrayLike,
    measure: str = "mask-aware",
) -> Float64Array | np.float64:
    """Bytes that layers take by a measure: weights x bits a weight / 8, not rounded.

    Args:
        n_weights: weights of each layer, integers from 0.
        bits, nonzero_fraction: as `mask_aware_bits`; all three broadcast.
        measure: a name in `MEASURES`.

    Returns:
        Bytes of each layer, of the broadcast shape; the model's size is their sum.

    Raises:
        ConfigError: a value is out of range or not a number, or the shapes do not broadcast.
        UnknownNameError: no such measure.

    >>> compressed_bytes([1000, 2000], bits=4, nonzero_fraction=[1.0, 0.5]).tolist()
    [500.0, 750.0]
    """
    choice("measure", measure, MEASURES)
    n = real_array("n_weights", integer_array("n_weights", n_weights), 0.0, _COUNT_MAX)
    bits_per_weight = MEASURES[measure](bits, nonzero_fraction)
    n, bits_per_weight = _broadcast(n, np.asarray(bits_per_weight))
    return n * bits_per_weight / 8


def _terms(p: Float64Array) -> Float64Array:
    """``-p log2 p``, and 0 where p is 0."""
    return -p * np.log2(np.where(p > 0, p, 1.0)) + 0.0  # + 0.0 turns -0.0 into 0.0


def _checked(
    bits: npt.ArrayLike, nonzero_fraction: npt.ArrayLike
) -> tuple[Float64Array, Float64Array]:
    b = real_array("bits", bits, 1.0, BITS_MAX)
    s = real_array("nonzero_fraction", nonzero_fraction, 0.0, 1.0)
    return _broadcast(b, s)


def _broadcast(a: Float64Array, b: Float64Array) -> tuple[Float64Array, Float64Array]:
    try:
        first, second = np.broadcast_arrays(a, b)
    except ValueError:
        raise ConfigError(f"shapes of layers must broadcast, got {a.shape} and {b.shape}") from None
    return first, second
