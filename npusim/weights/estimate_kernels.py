# SPDX-License-Identifier: Apache-2.0
"""Kernels that estimate a stream's size from counts, or from one pass over the weights.

One section and one configuration are assumed, and a charge for each weight it cannot code.
"""

from __future__ import annotations

import numpy as np

from npusim._jit import kernel
from npusim.weights.section_kernels import choose_palette, count, index_table

START, FIRST, N_WEIGHTS, ZERO_RUNS, N_ENTRIES = range(5)
PALETTE_BITS, DIRECT_OFFSET, RAW_BITS, HIGHEST, N_SLICES = range(5, 10)
ESCAPE = 66  # bits for a weight the configuration cannot code: a slice of its own


@kernel
def zero_runs_pay(counts, in_runs, regor):
    # counts i64 [511] of values + 255, in_runs zeros beside zeros -> 0 or 1
    # twins: legacy_zero_runs, regor_zero_runs
    most = 0
    for value in range(511):
        if value != 255:
            most = max(most, counts[value])
    zeros = counts[255]
    if regor:
        return np.int64(zeros > 5 * most and in_runs >= zeros // 2)
    return np.int64(zeros > 4 * most)


@kernel
def section_bits(counts, zero_runs, run_quotients, regor, row, entries, table, histogram):
    # counts i64 [511] of values + 255, run_quotients i64 [4]: sums of run >> zdiv; scratch: row
    # i64 [10], entries i64 [32], table i16 [511], histogram i64 [1024] -> bits of the section
    choose_palette(counts, zero_runs, regor, row, entries)
    index_table(row, entries, table)
    highest = row[HIGHEST]
    histogram[: highest + 1] = 0
    n = 0
    for value in range(511):
        if counts[value] and (value != 255 or not zero_runs):
            histogram[table[value]] += counts[value]
            n += counts[value]
    if n == 0:  # all zero: the first one is coded
        n = 1
        histogram[table[255]] = 1
    best = n * row[RAW_BITS] if row[RAW_BITS] >= 0 else 1 << 60
    for k in range(6):
        positions, ones, short, bits, bits_short = 0, 0, 0, 0, 0
        for index in range(highest + 1):
            some = histogram[index]
            quotient = index >> k
            if quotient > 31:
                bits += some * ESCAPE
            else:
                positions += some * ((quotient >> 1) + 1)
                ones += some * ((quotient + 1) >> 1)
                bits += some * k
            if quotient > 2:
                bits_short += some * ESCAPE
            else:
                short += some
                bits_short += some * (k + (quotient > 0))
        best = min(best, bits + 12 * ((positions + 11) // 12) + ones)
        best = min(best, bits_short + 12 * ((short + 11) // 12))
    if zero_runs:
        runs_best = 1 << 60
        for zdiv in range(4):
            chunk = 8 if zdiv == 3 else 12
            unary = run_quotients[zdiv] + n + 1
            bits = (n + 1) * zdiv + chunk * ((unary + chunk - 1) // chunk)
            runs_best = min(runs_best, bits)
        best += runs_best
    return 36 + row[N_ENTRIES] * row[PALETTE_BITS] + best


@kernel
def bits_of_counts(counts, padding, section, regor):
    # counts i64 [511] of values + 255 with `padding` zeros that stand together, the others spread
    # evenly; sections of `section` weights at the most -> bits
    row = np.zeros(10, np.int64)
    entries = np.empty(32, np.int64)
    table = np.empty(511, np.int16)
    histogram = np.empty(1024, np.int64)
    quotients = np.zeros(4, np.int64)
    total = 0
    for value in range(511):
        total += counts[value]
    zeros = counts[255]
    spread = max(zeros - padding, 0)
    others = total - zeros
    share = spread / max(1, total - padding)
    in_runs = padding + np.int64(spread * (1 - (1 - share) ** 2))
    zero_runs = zero_runs_pay(counts, in_runs, regor)
    for zdiv in range(4):
        longer = share ** (1 << zdiv)  # that a run goes on for 1 << zdiv zeros more
        quotients[zdiv] = np.int64((others + 1) * longer / (1 - longer) if share < 1 else 0)
        quotients[zdiv] += (padding if share < 1 else zeros) >> zdiv
    bits = section_bits(counts, zero_runs, quotients, regor, row, entries, table, histogram)
    more = (total - 1) // section  # each further section has a header and a palette of its own
    return bits + more * (36 + row[N_ENTRIES] * row[PALETTE_BITS])


@kernel
def bits_of_values(values, section, regor):
    # values i16 [n] in stream order, sections of `section` weights at the most -> bits
    row = np.zeros(10, np.int64)
    entries = np.empty(32, np.int64)
    table = np.empty(511, np.int16)
    histogram = np.empty(1024, np.int64)
    quotients = np.empty(4, np.int64)
    counts = np.empty(511, np.int64)
    lanes = np.empty((4, 511), np.int32)
    bits = 0
    for start in range(0, values.size, section):
        part = values[start : start + section]
        count(part, lanes, counts)
        in_runs, run = 0, 0
        quotients[:] = 0
        zero_runs = zero_runs_pay(counts, counts[255], regor)
        if zero_runs:
            last = -1
            for i in range(part.size):
                if part[i] != 0:
                    run = i - last - 1
                    in_runs += run if run > 1 else 0
                    quotients[0] += run
                    quotients[1] += run >> 1
                    quotients[2] += run >> 2
                    quotients[3] += run >> 3
                    last = i
            run = part.size - last - 1
            in_runs += run if run > 1 else 0
            for zdiv in range(4):
                quotients[zdiv] += run >> zdiv
            zero_runs = zero_runs_pay(counts, in_runs, regor)
        bits += section_bits(counts, zero_runs, quotients, regor, row, entries, table, histogram)
    return bits
