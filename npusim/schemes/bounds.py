# SPDX-License-Identifier: Apache-2.0
"""Sizes that schemes are measured against. They are no schemes: nothing can be encoded by them.

>>> bounds([0, 0, 1, -1], bits=8)
{'entropy': 1, 'mask-entropy': 1, 'mask-raw': 3}
"""

from __future__ import annotations

import math
from typing import Final

import numpy.typing as npt

from npusim._arguments import integer
from npusim.weights.estimate import value_counts
from npusim.weights.measures import binary_entropy_bits, entropy_bits

BOUNDS: Final = ("entropy", "mask-entropy", "mask-raw")
"""Names of what `bounds` gives."""


def bounds(weights: npt.ArrayLike, bits: int) -> dict[str, int]:
    """Bytes of weights by each of `BOUNDS`.

    * ``entropy``: of the weights, order 0; no code with a word of its own for each value gets below
      it, one that adapts to the weights' order can. Source: [UDC] eq. (4), left side.
    * ``mask-entropy``: of the mask of the non-zeros alone.
    * ``mask-raw``: the mask's entropy and `bits` for each non-zero, ``n H2(s) + n s b``. It bounds
      only what leaves non-zeros as they are. Source: [UDC] eq. (4), right side, mask-aware.

    Args:
        weights: integers in -255..255, any shape.
        bits: b, width of a non-zero, 1..9.

    Raises:
        ConfigError: weights of another type or range, or `bits` out of range.
    """
    width = integer("bits", bits, 1, 9)
    counts = value_counts(weights)
    n = int(counts.sum())
    if not n:
        return dict.fromkeys(BOUNDS, 0)
    zeros = int(counts[counts.size // 2])
    mask_bits = n * float(binary_entropy_bits(zeros / n))
    found = (n * float(entropy_bits(counts)), mask_bits, mask_bits + width * (n - zeros))
    return {name: math.ceil(size / 8) for name, size in zip(BOUNDS, found, strict=True)}
