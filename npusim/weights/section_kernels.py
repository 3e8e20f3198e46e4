# SPDX-License-Identifier: Apache-2.0
"""Kernels that cut a tensor into palette sections and map its weights to indices and runs.

A *plan* is what an encoder decides about a tensor; it is kept in flat arrays:

    sections i64 [n_sections, 9]   one row a section, columns below
    palettes i64 [n_sections, 32]  folded values in palette order
    indices  i16 [n_weights]       weight indices of all sections, one after the other
    runs     i32 [n_weights + n_sections]  a section's zero runs start at FIRST + its number
    slices   i32 [n_slices, 4]     n_weights, wdiv, wtrunc, zdiv

Source: [VELA] behaviour of mlw_encode and mle_encode; twins in reference_encoders.py.
"""

from __future__ import annotations

import numpy as np

from npusim._jit import kernel

START, FIRST, N_WEIGHTS, ZERO_RUNS, N_ENTRIES, PALETTE_BITS, DIRECT_OFFSET, RAW_BITS, N_SLICES = (
    range(9)
)
SECTION_COLUMNS = 9
RING = 2048  # more than the (2 * 512 + 2) latest non-zero positions the windows look back


@kernel
def log2_up(n):  # n i64 -> least b with n <= 1 << b, at most 8; twin: _log2_up
    bits = 0
    while bits < 8 and n > 1 << bits:
        bits += 1
    return bits


@kernel
def distinct_since(seen, low, high, start):
    # seen i32 [511], positions; values low..high (+255); twin: len({0, *values[start:]})
    count = 0
    for value in range(low, high + 1):
        count += seen[value] >= start
    return count + (seen[255] < start)


@kernel
def legacy_sections(values, starts, seen, ring):
    # values i16 [n], starts i64 [n + 1], seen i32 [511], ring i64 [RING] -> number of starts
    # Works on counts of non-zeros: a check is due when the non-zeros since the last restart are
    # a multiple of 32, and stays due for the zeros that follow, where only a change of `excess`
    # or of the state can change its outcome.
    n_starts, starts[0] = 1, 0
    last, have, size = 0, 0, 0
    nonzeros, before_last = 0, 0  # non-zeros up to and with i; before `last`
    low, high = 255, 255
    seen[:] = -1
    due, done_at, done_excess = 33, -1, -1
    for i in range(values.size):
        value = values[i] + 255
        if have and seen[value] < last:
            size += 1
            done_at = -1
            zeros = i - last - (nonzeros - before_last)
            excess = np.int64(zeros > (i - last) >> 2)
            fresh = size - 1 - excess
            if fresh & (fresh - 1) == 0 and (
                i - last - zeros > 512 or size - excess > 32
            ):
                last, have, before_last = i, 0, nonzeros
                starts[n_starts] = i
                n_starts += 1
                due = nonzeros + 33
        seen[value] = i
        low = min(low, value)
        high = max(high, value)
        ring[nonzeros & (RING - 1)] = i
        nonzeros += value != 255
        if nonzeros < due:
            continue
        zeros = i - last - (nonzeros - before_last - (value != 255))
        excess = np.int64(zeros > (i - last) >> 2)
        if nonzeros == done_at and excess == done_excess:
            continue
        done_at, done_excess = nonzeros, excess
        for step in range(5):
            span = (32 << step) << have
            in_section = nonzeros - before_last
            if in_section <= 1 or (in_section - 1) & (span - 1):
                continue
            first = nonzeros - span - 2  # number of the (span + 2)-th latest non-zero
            start = ring[first & (RING - 1)] if first >= before_last else last
            distinct = distinct_since(seen, low, high, start)
            fresh = distinct - excess
            if have:
                gain = span * 15 * (log2_up(size - excess) - log2_up(fresh))
                if gain <= 0:
                    break  # a longer window holds as many distinct values or more
            elif fresh > 32:
                break
            else:
                gain = span * (90 - 15 * log2_up(fresh))
            if gain // 16 - 8 * distinct - 20 > 0:
                before_last = first if first >= before_last else before_last
                last, size, have = start, distinct, 1
                done_at = -1
                if starts[n_starts - 1] != start:
                    starts[n_starts] = start
                    n_starts += 1
        in_section = nonzeros - before_last
        if in_section > 1 and (in_section - 1) & ((32 << have) - 1) == 0:
            due = nonzeros
        else:
            due = before_last + 1 + (((in_section + 31 + 32 * have) >> (5 + have)) << (5 + have))
    return n_starts
