# SPDX-License-Identifier: Apache-2.0
"""Weights as entries, a run of zeros and a weight, as codes of run lengths have them."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from npusim.schemes.base import Values
from npusim.schemes.bitstream import BitReader

Int64Array = npt.NDArray[np.int64]


def count_entries(values: Values, run_max: int, group: int | None = None) -> Int64Array:
    """Entries of each group of `group` weights, all of them if None: int64, shape [n_groups].

    >>> count_entries(np.array([0] * 20 + [5], np.int16), run_max=15).tolist()
    [2]
    """
    from npusim.schemes.entry_kernels import count_entries as count

    size = group or max(values.size, 1)
    entries = np.empty(-(-values.size // size), np.int64)
    count(values, run_max, size, entries)
    return entries


def entries_of(
    values: Values, run_max: int, group: int | None = None
) -> tuple[Int64Array, Values, Int64Array]:
    """Runs and weights of all entries, shape [n_entries] each, and the entries of each group."""
    from npusim.schemes.entry_kernels import fill_entries

    counts = count_entries(values, run_max, group)
    n = int(counts.sum())
    runs, levels = np.empty(n, np.int64), np.empty(n, np.int16)
    fill_entries(values, run_max, group or max(values.size, 1), runs, levels)
    return runs, levels, counts


def expand(
    runs: Int64Array,
    levels: Int64Array,
    counts: Int64Array,
    n: int,
    reader: BitReader,
    group: int | None = None,
) -> Int64Array:
    """The `n` weights of entries.

    Raises:
        StreamError: a group's entries are not exactly its weights.
    """
    from npusim.schemes.entry_kernels import expand_entries

    values = np.empty(n, np.int64)
    bad = int(expand_entries(runs, levels, counts, group or max(n, 1), values))
    if bad >= 0:
        raise reader.error(f"entries of group {bad} must give as many weights as it has")
    return values
