# SPDX-License-Identifier: Apache-2.0
"""Kernels that estimate a stream's size from counts, or from one pass over the weights.

The configuration changes between blocks of weights only; a weight it cannot code has a charge. The
legacy encoder changes it far more often than regor, which shows where weights are padded: there,
one pass also follows its search over the zero runs and sees long runs of zeros outside of them.
"""

from __future__ import annotations

import numpy as np

from npusim._jit import kernel
from npusim.weights.plan_columns import (
    HIGHEST,
    N_ENTRIES,
    PALETTE_BITS,
    RAW_BITS,
)
from npusim.weights.section_kernels import choose_palette, count, index_table
from npusim.weights.tight_kernels import direct_bits

HEADERS = 36  # bits of a slice header and a palette header without entries
SWITCH = 40  # bits of a change of configuration: a slice header and padded chunks
BLOCK = 4096  # weights between possible changes
LONG = 16  # zeros in a row that may be worth a change of configuration and one back
SLICE = 35  # bits that a cut adds: a slice header and half a chunk each of weights and runs
LIMIT = 1 << 40  # most weights of one value
BAD_PADDING = -1000  # less the number of the row
COUNTED = -2  # instead of a zdiv: the zero runs are counted elsewhere


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
def run_bits(n, run_quotients, chosen):
    # n weights with n + 1 zero runs round them, run_quotients i64 [4]: sums of run >> zdiv; zdiv
    # if chosen already, else -1 -> bits
    best = np.int64(1 << 60)
    for zdiv in range(max(chosen, 0), 4 if chosen < 0 else chosen + 1):
        chunk = 8 if zdiv == 3 else 12
        unary = run_quotients[zdiv] + n + 1
        best = min(best, (n + 1) * zdiv + chunk * ((unary + chunk - 1) // chunk))
    return best


@kernel
def section_bits(blocks, totals, zero_runs, run_quotients, zdiv, regor, row, entries):
    # blocks i64 [n_blocks, 511]: occurrences of values + 255 in successive blocks, totals i64
    # [511] their sums; scratch: row i64 [10], entries i64 [32] -> bits of the section
    # The cheapest configuration block by block, where a change costs a slice.
    table = np.empty(511, np.int16)
    below = np.zeros(1025, np.int64)
    costs = np.empty(12, np.int64)
    sums = np.zeros(13, np.int64)
    choose_palette(totals, zero_runs, regor, row, entries)
    index_table(row, entries, table)
    highest, raw_bits = row[HIGHEST], row[RAW_BITS]
    low, high = 0, 510
    while low < 510 and totals[low] == 0:
        low += 1
    while high > low and totals[high] == 0:
        high -= 1
    n, least = 0, np.int64(0)
    for block in range(blocks.shape[0]):
        for index in range(highest + 2):
            below[index] = 0
        some = 0
        for value in range(low, high + 1):
            count_here = blocks[block, value]
            if value != 255 or not zero_runs:
                below[np.int64(table[value]) + 1] += count_here
                some += count_here
        for index in range(highest + 1):
            below[index + 1] += below[index]
        for state in range(12):
            costs[state] = 0
        direct_bits(below, highest, np.int64(0), costs)
        limit = least + SWITCH
        least = np.int64(1 << 60)
        for state in range(13):
            here = costs[state] if state < 12 else some * raw_bits
            if state == 12 and raw_bits < 0:
                here = np.int64(1 << 40)
            sums[state] = min(sums[state], limit) + here
            least = min(least, sums[state])
        n += some
    if n == 0:  # all zero: the first one is coded
        n, least = 1, np.int64(8)
    bits = HEADERS + row[N_ENTRIES] * row[PALETTE_BITS] + least + 6  # half a chunk of padding
    return bits + (run_bits(n, run_quotients, zdiv) if zero_runs and zdiv != COUNTED else 0)


@kernel
def spread_counts(counts, padding, regor, totals, quotients):
    # counts, padding and errors as bits_of_counts; totals i64 [511] <- counts with the padding;
    # quotients i64 [4] <- sums of run >> zdiv -> weights or what is wrong, zeros of the padding,
    # zero runs 0 or 1
    total, added = 0, 0
    for at in range(padding.shape[0]):
        length, n = padding[at, 0], padding[at, 1]
        if min(length, n) < 1 or n > (LIMIT - added) // length:
            return BAD_PADDING - at, added, np.int64(0)
        added += length * n
    for value in range(511):
        totals[value] = counts[value] + (added if value == 255 else 0)
        if counts[value] < 0 or totals[value] > LIMIT:
            return -1 - value, added, np.int64(0)
        total += totals[value]
    others = total - totals[255]
    share = counts[255] / max(1, total - added)
    for zdiv in range(4):
        longer = share ** (1 << zdiv)  # that a run goes on for 1 << zdiv zeros more
        quotients[zdiv] = np.int64((others + 1) * longer / (1 - longer)) if share < 1 else 0
        if others == 0:
            quotients[zdiv] = totals[255] >> zdiv
        else:
            for at in range(padding.shape[0]):
                quotients[zdiv] += padding[at, 1] * (padding[at, 0] >> zdiv)
    # zeros that outnumber all else stand in runs: there are many, or whole channels are zero
    return total, added, zero_runs_pay(totals, totals[255], regor)


@kernel
def bits_of_counts(counts, padding, section, regor):
    # counts i64 [511] of values + 255 without padding, whose zeros are spread evenly; padding
    # i64 [n, 2]: lengths of runs of further zeros and how many there are; sections of `section`
    # weights at the most -> bits; 0 for no weights; -1 - i if count i is out of range,
    # BAD_PADDING - i if row i of padding is
    row = np.zeros(10, np.int64)
    entries = np.empty(32, np.int64)
    quotients = np.zeros(4, np.int64)
    blocks = np.empty((1, 511), np.int64)
    totals = blocks[0]
    total, _, zero_runs = spread_counts(counts, padding, regor, totals, quotients)
    if total <= 0:
        return total
    others = total - totals[255]
    zdiv = np.int64(0 if regor and others == 0 else -1)  # regor begins with zdiv 0 at a run of 0
    own_bits = 0
    if zero_runs and others and not regor:
        own_bits, zdiv = legacy_padding_bits(others, quotients, padding), np.int64(COUNTED)
    bits = section_bits(blocks, totals, zero_runs, quotients, zdiv, regor, row, entries) + own_bits
    if not zero_runs:
        n_long, zeros = 0, 0
        for at in range(padding.shape[0]):
            if padding[at, 0] >= LONG:
                n_long += padding[at, 1]
                zeros += padding[at, 0] * padding[at, 1]
        if n_long:
            cost = np.int64(zero_bits(row, entries))
            with_own = totals.copy()
            blocks[0, 255] -= zeros
            apart = section_bits(blocks, with_own, zero_runs, quotients, zdiv, regor, row, entries)
            change = SWITCH + (SLICE if regor else 0)  # regor has lost SWITCH bits by then
            bits = min(bits, apart + zeros * cost + n_long * 2 * change)
    more = (total - 1) // section  # each further section has a header and a palette of its own
    return bits + more * (HEADERS + row[N_ENTRIES] * row[PALETTE_BITS])


@kernel
def legacy_padding_bits(others, run_quotients, padding):
    # others + 1 zero runs, run_quotients i64 [4]: their sums of run >> zdiv; of these, runs of
    # padding i64 [n, 2] as in bits_of_counts -> bits, with changes of zdiv that are planned for a
    # run of padding alone but come one run late (legacy_run_bits)
    least, real = np.int64(1 << 60), np.int64(0)
    for zdiv in range(4):
        planned = run_quotients[zdiv] + (others + 1) * (1 + zdiv)
        taken = planned
        for at in range(padding.shape[0]):
            length = padding[at, 0]
            saved, best = np.int64(0), zdiv
            for other in range(4):
                here = (length >> zdiv) + zdiv - (length >> other) - other
                if here > saved:
                    saved, best = here, other
            if saved > 2 * SWITCH:
                planned -= padding[at, 1] * (saved - 2 * SWITCH)
                taken += padding[at, 1] * (2 * SLICE + best - zdiv)
        if planned < least:
            least, real = planned, taken
    return real + 6  # half a chunk of padding


@kernel
def bits_of_values(values, section, regor):
    # values i16 [n] in stream order, sections of `section` weights at the most -> bits
    row = np.zeros(10, np.int64)
    entries = np.empty(32, np.int64)
    quotients = np.empty(4, np.int64)
    counts = np.empty(511, np.int64)
    lanes = np.empty((4, 511), np.int32)
    blocks = np.empty(((min(values.size, section) + BLOCK - 1) // BLOCK, 511), np.int64)
    bits = 0
    for start in range(0, values.size, section):
        part = values[start : start + section]
        n_blocks = (part.size + BLOCK - 1) // BLOCK
        for value in range(511):
            counts[value] = 0
        for block in range(n_blocks):
            count(part[block * BLOCK : (block + 1) * BLOCK], lanes, blocks[block])
            for value in range(511):
                counts[value] += blocks[block, value]
        zdiv = np.int64(-1)
        zero_runs = zero_runs_pay(counts, counts[255], regor)
        own_bits = 0
        if zero_runs and regor:
            in_runs, zdiv = add_runs(part, counts[255] == part.size, quotients)
            zero_runs = zero_runs_pay(counts, in_runs, regor)
        elif zero_runs:
            own_bits, zdiv = legacy_run_bits(part), np.int64(COUNTED)
        some = blocks[:n_blocks]
        there = section_bits(some, counts, zero_runs, quotients, zdiv, regor, row, entries)
        if not (zero_runs or regor):
            n_long, zeros = take_long_runs(part, some)
            if n_long:
                cost = np.int64(zero_bits(row, entries))
                apart = section_bits(some, counts, zero_runs, quotients, zdiv, regor, row, entries)
                there = min(there, apart + zeros * cost + n_long * 2 * SWITCH)
        bits += there + own_bits
    return bits


@kernel
def zero_bits(row, entries):
    # row i64 [10], entries i64 [32] of a palette -> bits of a zero where it is cheapest
    table = np.empty(511, np.int16)
    index_table(row, entries, table)
    index = np.int64(table[255])
    least = row[RAW_BITS] if row[RAW_BITS] >= 0 else np.int64(1 << 40)
    for k in range(6):
        quotient = index >> k
        least = min(least, (quotient + 1 if quotient > 2 else min(quotient + 1, 2)) + k)
    return least


@kernel
def take_long_runs(values, blocks):
    # values i16 [n]; blocks i64 [n_blocks, 511]: zeros in runs of LONG or more are taken out of
    # their counts -> number of these runs, their zeros
    # A run of LONG has a zero at a multiple of LONG: only there one has to look.
    n_long, zeros, at, n = 0, 0, 0, values.size
    while at < n:
        first = end = at
        if values[at] == 0:
            while first > 0 and values[first - 1] == 0:
                first -= 1
            while end < n and values[end] == 0:
                end += 1
            if end - first >= LONG:
                n_long += 1
                zeros += end - first
                for i in range(first, end):
                    blocks[i // BLOCK, 255] -= 1
        at = (max(at, end - 1) // LONG + 1) * LONG
    return n_long, zeros


@kernel
def legacy_run_bits(values):
    # values i16 [n] -> bits of the zero runs and of the slices they are cut into, as the legacy
    # encoder has it (twin: cheapest_path): a change of zdiv is planned for a run, but the slice
    # begins after that run, which is coded with the zdiv before. `real` is what a state's path
    # really takes.
    ends = np.empty(values.size + 1, np.int32)
    n_ends = run_ends(values, ends)
    if n_ends == 0:  # all zero: the first one is coded as a weight
        n_ends, ends[0], ends[1] = 1, 0, values.size
    # less than the best by: a to d, of zdiv 0 to 3; in scalars, which is five times as fast
    a = b = c = d = real_a = real_b = real_c = real_d = np.int64(0)
    best_real = best_zdiv = np.int64(0)
    before = np.int64(-1)
    for j in range(n_ends + 1):
        run = np.int64(ends[j]) - before - 1
        before = np.int64(ends[j])
        switched = best_real + (run >> best_zdiv) + 1 + best_zdiv + SLICE
        cost_a, cost_b, cost_c, cost_d = run + 1, (run >> 1) + 2, (run >> 2) + 3, (run >> 3) + 4
        real_a = switched if a > SWITCH else real_a + cost_a
        real_b = switched if b > SWITCH else real_b + cost_b
        real_c = switched if c > SWITCH else real_c + cost_c
        real_d = switched if d > SWITCH else real_d + cost_d
        a, b = min(a, SWITCH) + cost_a, min(b, SWITCH) + cost_b
        c, d = min(c, SWITCH) + cost_c, min(d, SWITCH) + cost_d
        least = min(min(a, b), min(c, d))
        a, b, c, d = a - least, b - least, c - least, d - least
        best_zdiv = 0 if a == 0 else 1 if b == 0 else 2 if c == 0 else 3
        best_real = real_a if a == 0 else real_b if b == 0 else real_c if c == 0 else real_d
    return best_real + 6  # half a chunk of padding


@kernel
def run_ends(values, ends):
    # values i16 [n]; ends i32 [n + 1] <- positions of the non-zeros, then n -> number of non-zeros
    n_ends = 0
    for i in range(values.size):  # no branch: whether a weight is zero cannot be foretold
        ends[np.uint64(n_ends)] = i
        n_ends += values[i] != 0
    ends[n_ends] = values.size
    return n_ends


@kernel
def add_runs(values, all_zero, quotients):
    # values i16 [n]; quotients i64 [4] <- sums of run >> zdiv -> zeros beside zeros, zdiv that
    # regor's greedy search ends with (twin: regor_path)
    ends = np.empty(values.size + 1, np.int32)
    n_ends = run_ends(values, ends)
    before, in_runs = -1, 0
    sums = (0, 0, 0, 0)
    active = np.int64(0) if all_zero else np.int64(-1)  # all zero: the first run is 0
    held = np.int64(0)
    for j in range(n_ends + 1):
        run = np.int64(ends[j]) - before - 1
        before = np.int64(ends[j])
        in_runs += run if run > 1 else 0
        sums = (sums[0] + run, sums[1] + (run >> 1), sums[2] + (run >> 2), sums[3] + (run >> 3))
        n = np.int64(j + 1)
        totals = (sums[0] + n, sums[1] + 2 * n, sums[2] + 3 * n, sums[3] + 4 * n)
        best = np.int64(0)
        for zdiv in range(1, 4):
            best = zdiv if totals[zdiv] < totals[best] else best
        if active < 0 or totals[best] + SWITCH < held:
            active = best
        held = totals[active]
    for zdiv in range(4):
        quotients[zdiv] = sums[zdiv]
    return in_runs, active
