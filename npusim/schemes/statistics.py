# SPDX-License-Identifier: Apache-2.0
"""Histograms of weights and of zero runs: sizes of many schemes follow from them alone."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from npusim.schemes.base import Values

Int64Array = npt.NDArray[np.int64]

VALUE_MAX: Final = 255
_LONG_RUN: Final = 4096


def value_counts(values: Values) -> Int64Array:
    """Occurrences of -255..255: int64, shape [511]."""
    from npusim.weights.section_kernels import count

    counts = np.zeros(2 * VALUE_MAX + 1, np.int64)
    count(values, np.empty((4, 2 * VALUE_MAX + 1), np.int32), counts)
    return counts


def nonzero_codes(values: npt.NDArray[np.integer]) -> Int64Array:
    """Non-zero weights 1, -1, 2, -2 ... as 0, 1, 2, 3 ...

    >>> nonzero_codes(np.array([1, -1, 3])).tolist()
    [0, 1, 4]
    """
    wide = values.astype(np.int64)
    return 2 * np.abs(wide) - 2 + (wide < 0)


def nonzero_values(codes: Int64Array) -> Int64Array:
    """Weights of `nonzero_codes`."""
    magnitudes = (codes >> 1) + 1
    return np.where(codes & 1, -magnitudes, magnitudes)


CODES: Final = nonzero_codes(np.arange(-VALUE_MAX, VALUE_MAX + 1))
"""Of each weight -255..255; that of zero is meaningless."""
CODES.setflags(write=False)
CODE_MAX: Final = 2 * VALUE_MAX - 1
"""The largest of them."""


@dataclass(frozen=True, slots=True)
class Runs:
    """Runs of zeros.

    Attributes:
        lengths: those that occur before a non-zero, int64, shape [n_lengths], 0 among them.
        counts: how often.
        last: zeros after the last non-zero.
    """

    lengths: Int64Array
    counts: Int64Array
    last: int

    @property
    def n_nonzeros(self) -> int:
        """Non-zero weights: each ends a run."""
        return int(self.counts.sum())


def zero_runs(values: Values) -> Runs:
    """The zero runs of weights.

    >>> runs = zero_runs(np.array([0, 0, 5, 7, 0], np.int16))
    >>> runs.lengths.tolist(), runs.counts.tolist(), runs.last
    ([0, 2], [1, 1], 1)
    """
    from npusim.schemes.bit_kernels import count_runs

    counts = np.zeros(_LONG_RUN, np.int64)
    others = np.empty(values.size // _LONG_RUN + 1, np.int64)
    n_others, last = count_runs(values, counts, others)
    lengths = np.flatnonzero(counts)
    others = others[:n_others]
    ones = np.ones(n_others, np.int64)
    return Runs(
        np.concatenate([lengths, others]), np.concatenate([counts[lengths], ones]), int(last)
    )
