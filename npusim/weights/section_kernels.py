# SPDX-License-Identifier: Apache-2.0
"""Kernels that cut a tensor into palette sections and map its weights to indices and runs.

A *plan* is what an encoder decides about a tensor; it is kept in flat arrays:

    sections i64 [n_sections, 10]   one row a section, columns below
    palettes i64 [n_sections, 32]  folded values in palette order
    indices  i16 [n_weights]       weight indices of all sections, one after the other
    runs     i32 [n_weights + n_sections]  a section's zero runs start at FIRST + its number
    slices   i32 [n_slices, 4]     n_weights, wdiv, wtrunc, zdiv

Source: [VELA] behaviour of mlw_encode and mle_encode; twins in reference_encoders.py.
"""

from __future__ import annotations

import numpy as np

from npusim._jit import kernel
from npusim.weights.plan_columns import (
    DIRECT_OFFSET,
    FIRST,
    HIGHEST,
    N_ENTRIES,
    N_WEIGHTS,
    PALETTE_BITS,
    RAW_BITS,
    START,
    ZERO_RUNS,
)

RING = 2048  # more than the (2 * 512 + 2) latest non-zero positions the windows look back


@kernel
def log2_up(n):  # n i64 -> least b with n <= 1 << b, at most 8; twin: _log2_up
    bits = 0
    while bits < 8 and n > 1 << bits:
        bits += 1
    return bits


@kernel
def distinct_since(seen, low, high, start):
    # seen i32 [511], positions; values low..high (+255); twin: len({*values[start:]})
    count = np.int32(0)
    for value in range(np.uint64(low), np.uint64(high + 1)):
        count += np.int32(seen[value] >= start)
    return np.int64(count)


@kernel
def legacy_sections(values, low, high, starts, seen, ring):
    # values i16 [n] in low..high (+ 255), starts i64 [n + 1], seen i32 [511], ring i32 [RING]
    # -> number of starts; twin: reference_encoders.legacy_sections
    # Works on counts of non-zeros: a check is due when the non-zeros since the last restart are
    # a multiple of 32, and stays due for the zeros that follow, where only a change of `excess`
    # or of the state can change its outcome.
    n_starts, starts[0] = 1, 0
    last, have, size = 0, 0, 0
    nonzeros, before_last = 0, 0  # non-zeros up to and with i; before `last`
    seen[:] = -1
    due, done_at, done_excess = 33, -1, -1
    for i in range(values.size):
        value = np.uint64(np.int64(values[i]) + 255)
        if have and seen[value] < last:
            size += 1
            done_at = -1
            zeros = i - last - (nonzeros - before_last)
            excess = np.int64(zeros > (i - last) >> 2)
            fresh = size - 1 - excess
            if fresh & (fresh - 1) == 0 and (i - last - zeros > 512 or size - excess > 32):
                last, have, before_last = i, 0, nonzeros
                starts[n_starts] = i
                n_starts += 1
                due = nonzeros + 33
        seen[value] = i
        ring[np.uint64(nonzeros & (RING - 1))] = i
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
            distinct = distinct_since(seen, low, high, np.int32(start))
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


@kernel
def count(values, lanes, counts):
    # values i16 [n]; counts i64 [511] <- occurrences of each value + 255
    # lanes i32 [4, 511]: scratch; equal neighbours are counted apart, not one after the other
    n = values.size & ~3
    lanes[:] = 0
    for i in range(0, n, 4):
        for lane in range(4):
            lanes[lane, np.uint64(np.int64(values[i + lane]) + 255)] += 1
    for i in range(n, values.size):
        lanes[0, values[i] + 255] += 1
    for value in range(511):
        counts[value] = lanes[0, value] + lanes[1, value] + lanes[2, value] + lanes[3, value]


@kernel
def legacy_zero_runs(counts):  # counts i64 [511] of values + 255 -> 0 or 1
    zeros = counts[255]
    for value in range(511):
        if value != 255 and zeros <= 4 * counts[value]:
            return 0
    return 1


@kernel
def regor_zero_runs(values, counts):  # values i16 [n], counts i64 [511] -> 0 or 1
    zeros = counts[255]
    for value in range(511):
        if value != 255 and zeros <= 5 * counts[value]:
            return 0
    n = values.size
    in_runs = np.int32(0)  # zeros with a zero beside them
    for i in range(1, n - 1):
        beside = (values[i - 1] == 0) | (values[i + 1] == 0)
        in_runs += np.int32((values[i] == 0) & beside)
    if n > 1:
        in_runs += (values[0] == 0) & (values[1] == 0)
        in_runs += (values[n - 1] == 0) & (values[n - 2] == 0)
    return np.int64(in_runs >= zeros // 2)


@kernel
def choose_palette(counts, zero_runs, at_half, row, entries):
    # counts i64 [511] of values + 255; row i64 [10] and entries i64 [32] are filled
    # twin: reference_encoders.choose_palette
    used, total, largest, smallest = 0, 0, 0, 511
    for folded in range(511, -1, -1):
        n = counts[255 - (folded >> 1) if folded & 1 else 255 + (folded >> 1)]
        if folded != 1 and n > 0 and (folded > 0 or not zero_runs):
            used += 1
            total += n
            largest = max(largest, folded)
            smallest = folded
    row[ZERO_RUNS] = zero_runs
    all_zero = largest == 0
    row[DIRECT_OFFSET] = 0 if all_zero else min(smallest, 31)
    limit = 32 if used <= 32 else min(32, 511 - largest)
    if limit == 1:
        limit = 0
    kept, covered, widest = 0, 0, 0
    # insertion sort by count, then by folded value; small values are frequent: few moves
    for folded in range(largest + 1):
        n = counts[255 - (folded >> 1) if folded & 1 else 255 + (folded >> 1)]
        if folded == 1 or n == 0 or (folded == 0 and zero_runs) or limit == 0:
            continue
        if kept == limit and n < entries[kept - 1] >> 9:
            continue
        at = kept if kept < limit else kept - 1
        while at > 0 and entries[at - 1] >> 9 <= n:
            entries[at] = entries[at - 1]
            at -= 1
        entries[at] = n << 9 | folded
        kept = min(kept + 1, limit)
    for at in range(kept):
        covered += entries[at] >> 9
        entries[at] &= 511
        widest = max(widest, entries[at])
    half = total >> 1
    if covered < half or (covered == half and not at_half):
        kept = 0
    if kept == 1:
        entries[1] = 0
        kept = 2
    if kept == 0:
        widest = largest
    row[N_ENTRIES] = kept
    bits = 2
    while widest >> bits:
        bits += 1
    row[PALETTE_BITS] = bits
    row[HIGHEST] = max(kept - 1, max(largest, 1) + kept - row[DIRECT_OFFSET])
    row[RAW_BITS] = bits
    if kept:
        bits = 0
        while kept > 1 << bits:
            bits += 1
        row[RAW_BITS] = bits if used <= 32 else -1


@kernel
def index_table(row, entries, table):
    # row i64 [10], entries i64 [32]; table i16 [511] <- weight index of each value + 255
    shift = row[N_ENTRIES] - row[DIRECT_OFFSET]
    for value in range(511):
        weight = value - 255
        table[value] = (2 * weight if weight > 0 else 1 - 2 * weight) + shift
    for at in range(row[N_ENTRIES] - 1, -1, -1):
        folded = entries[at]
        table[255 - (folded >> 1) if folded & 1 else 255 + (folded >> 1)] = at


@kernel
def split(values, start, end, zero_runs, table, indices, runs):
    # values i16 [n] from start to end; table i16 [511]; indices i16 and runs i32 are filled from
    # their beginning -> number of indices; twin: reference.split_runs
    if not zero_runs:
        for i in range(start, end):
            indices[i - start] = table[np.uint64(np.int64(values[i]) + 255)]
        return end - start
    n, before = 0, start - 1
    for i in range(start, end):
        indices[n] = table[np.uint64(np.int64(values[i]) + 255)]
        runs[n] = i
        n += values[i] != 0
    if n == 0:
        indices[0] = table[255]
        runs[0], runs[1] = 0, end - start - 1
        return 1
    for j in range(n):
        at = runs[j]
        runs[j] = at - before - 1
        before = at
    runs[n] = end - before - 1
    return n


@kernel
def fill_sections(values, starts, regor, sections, palettes, indices, runs):
    # values i16 [n], starts i64 [n_sections], regor 0 or 1: whose rules -> number of indices
    counts = np.empty(511, np.int64)
    lanes = np.empty((4, 511), np.int32)
    table = np.empty(511, np.int16)
    first = 0
    for number in range(starts.size):
        start = starts[number]
        end = starts[number + 1] if number + 1 < starts.size else values.size
        count(values[start:end], lanes, counts)
        if regor:
            zero_runs = regor_zero_runs(values[start:end], counts)
        else:
            zero_runs = legacy_zero_runs(counts)
        row = sections[number]
        choose_palette(counts, zero_runs, regor, row, palettes[number])
        index_table(row, palettes[number], table)
        n = split(values, start, end, zero_runs, table, indices[first:], runs[first + number :])
        row[START], row[FIRST], row[N_WEIGHTS] = start, first, n
        first += n
    return first
