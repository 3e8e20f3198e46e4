# SPDX-License-Identifier: Apache-2.0
"""Kernels of the tight encoder: sections by dynamic programming, palettes by cost.

Costs here are estimates in bits, exact but for chunk padding, for slices cut inside a section and
for zero runs that cross a block's border; the plans that come out are measured exactly.
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
from npusim.weights.section_kernels import split

SLICE_HEADER, PALETTE_HEADER = 23, 13
ESCAPE = 66  # what a weight costs that the configuration cannot code: a slice of its own
ENDLESS = 1 << 60


@kernel
def block_counts(values, block, counts, quotients):
    # values i16 [n]; counts i32 [n_blocks + 1, 512] <- occurrences of each folded value before
    # each block; quotients i64 [n_blocks + 1, 4] <- sums of run >> zdiv over runs that end before
    run = 0
    n_folded = counts.shape[1]
    for folded in range(n_folded):
        counts[0, folded] = 0
    for zdiv in range(4):
        quotients[0, zdiv] = 0
    for number in range(counts.shape[0] - 1):
        for folded in range(n_folded):
            counts[number + 1, folded] = counts[number, folded]
        for zdiv in range(4):
            quotients[number + 1, zdiv] = quotients[number, zdiv]
        for i in range(number * block, min(values.size, (number + 1) * block)):
            weight = np.int64(values[i])
            counts[number + 1, 2 * weight if weight >= 0 else 1 - 2 * weight] += 1
            if weight == 0:
                run += 1
            else:
                for zdiv in range(4):
                    quotients[number + 1, zdiv] += run >> zdiv
                run = 0


@kernel
def rank(counts, low, highest, ranked):
    # counts i32 [512] from folded value `low` on; ranked i64 [32] <- count << 9 | folded value of
    # the most frequent ones, most frequent first -> how many, number of distinct values, weights
    kept, used, total = 0, 0, 0
    for folded in range(low, highest + 1):  # small values are frequent: few moves
        n = np.int64(counts[folded])
        if n == 0:
            continue
        used += 1
        total += n
        if kept == 32 and n < ranked[31] >> 9:
            continue
        at = kept if kept < 32 else 31
        while at > 0 and ranked[at - 1] >> 9 <= n:
            ranked[at] = ranked[at - 1]
            at -= 1
        ranked[at] = n << 9 | folded
        kept = min(kept + 1, 32)
    return kept, used, total


@kernel
def bit_width(value):  # -> bits that hold value, at least 2
    bits = 2
    while value >> bits:
        bits += 1
    return bits


@kernel
def direct_bits(below, highest, shift, costs):
    # below i64 [513]: direct weights with folded values below each; adds to costs i64 [12] what
    # they cost as indices (folded value + shift, at least 0) with wdiv 0..5, plain and truncated:
    # the sum of quotients is the sum over m of the weights whose quotient is m or more
    total = below[highest + 1]
    for k in range(6):
        beyond = total - below[min(highest + 1, max(0, (32 << k) - shift))]
        bits = (total - beyond) * (1 + k) + beyond * ESCAPE
        for m in range(1, 32):
            at = (m << k) - shift
            if at > highest:
                break
            bits += total - below[max(0, at)] - beyond
        costs[k] += bits
        above = total - below[min(highest + 1, max(0, (1 << k) - shift))]
        beyond = total - below[min(highest + 1, max(0, (3 << k) - shift))]
        costs[6 + k] += (total - beyond) * (1 + k) + above - beyond + beyond * ESCAPE


@kernel
def best_palette(counts, highest, zero_quotients, sizes, free, work, choice):
    # counts i32 [512] of folded values up to `highest`, zero_quotients i64 [4]; sizes i64: palette
    # sizes to try; work i32 [512]: scratch; choice i64 [2] <- zero runs, palette size -> bits
    ranked = np.empty(32, np.int64)
    costs = np.empty(12, np.int64)
    below = np.empty(513, np.int64)
    best = ENDLESS
    for zero_runs in range(2):
        if zero_runs and counts[0] == 0:
            break
        low = 2 if zero_runs else 0
        kept, used, total = rank(counts, low, highest, ranked)
        bits_of_runs = 0
        if zero_runs:
            total, bits_of_runs = max(total, 1), ENDLESS
            for zdiv in range(4):
                some = zero_quotients[zdiv] + (total + 1) * (1 + zdiv)
                bits_of_runs = min(bits_of_runs, some)
        for folded in range(highest + 1):
            work[folded] = counts[folded] if folded >= low else 0
        in_palette, smallest = 0, low
        while smallest < highest and work[smallest] == 0:
            smallest += 1
        overall_smallest = smallest
        widest = 0
        for size in sizes:
            if size > max(kept, 2) or (size and used == 0):
                break
            while in_palette < min(size, kept):
                folded = ranked[in_palette] & 511
                widest = max(widest, folded)
                work[folded] = 0
                in_palette += 1
            all_in = in_palette == used and size > 0
            while smallest < highest and work[smallest] == 0:
                smallest += 1
            offset = min(31, highest, smallest if free else overall_smallest)
            if all_in:
                offset = 0
            width = bit_width(widest)
            if not all_in and highest + size - offset > 1023:
                continue
            cost = total * bit_width(highest - offset) if size == 0 else ENDLESS
            if all_in:
                bits = 0
                while size > 1 << bits:
                    bits += 1
                cost = total * bits
            for state in range(12):
                costs[state] = 0
            for at in range(in_palette):
                n = ranked[at] >> 9
                for k in range(6):
                    quotient = at >> k
                    costs[k] += n * (quotient + 1 + k)
                    costs[6 + k] += n * (min(quotient + 1, 2) + k if quotient <= 2 else ESCAPE)
            if not all_in:
                below[0] = 0
                for folded in range(highest + 1):
                    below[folded + 1] = below[folded] + work[folded]
                direct_bits(below, highest, size - offset, costs)
            for state in range(12):
                cost = min(cost, costs[state])
            cost += SLICE_HEADER + PALETTE_HEADER + size * width + bits_of_runs
            if cost < best:
                best = cost
                choice[0], choice[1] = zero_runs, size
    return best


@kernel
def best_sections(counts, quotients, sizes, free, least, come_from):
    # counts and quotients as block_counts gives them; least i64 and come_from i64 [n_blocks + 1]
    # <- cost of the blocks before each and the block where the last section before it begins
    n_blocks = counts.shape[0] - 1
    some = np.empty(512, np.int32)
    work = np.empty(512, np.int32)
    runs = np.empty(4, np.int64)
    choice = np.empty(2, np.int64)
    highest = 511
    while highest > 0 and counts[n_blocks, highest] == 0:
        highest -= 1
    least[0] = 0
    for end in range(1, n_blocks + 1):
        least[end] = ENDLESS
        for start in range(end - 1, -1, -1):
            for folded in range(highest + 1):
                some[folded] = counts[end, folded] - counts[start, folded]
            for zdiv in range(4):
                runs[zdiv] = quotients[end, zdiv] - quotients[start, zdiv]
            bits = least[start] + best_palette(some, highest, runs, sizes, free, work, choice)
            if bits < least[end]:
                least[end] = bits
                come_from[end] = start


@kernel
def fill_tight(values, starts, sizes, free, sections, palettes, indices, runs):
    # as fill_sections, with the palettes that cost least -> number of indices
    counts = np.empty((2, 512), np.int32)
    quotients = np.empty((2, 4), np.int64)
    work = np.empty(512, np.int32)
    ranked = np.empty(32, np.int64)
    choice = np.empty(2, np.int64)
    table = np.empty(511, np.int16)
    first = 0
    for number in range(starts.size):
        start = starts[number]
        end = starts[number + 1] if number + 1 < starts.size else values.size
        block_counts(values[start:end], end - start, counts, quotients)
        highest = 511
        while highest > 0 and counts[1, highest] == 0:
            highest -= 1
        best_palette(counts[1], highest, quotients[1], sizes, free, work, choice)
        zero_runs, size = choice
        low = 2 if zero_runs else 0
        kept, used, _ = rank(counts[1], low, highest, ranked)
        row = sections[number]
        row[START], row[FIRST], row[ZERO_RUNS], row[N_ENTRIES] = start, first, zero_runs, size
        for folded in range(highest + 1):
            work[folded] = counts[1, folded] if folded >= low else 0
        widest, overall_smallest = 0, low
        while overall_smallest < highest and work[overall_smallest] == 0:
            overall_smallest += 1
        for at in range(size):
            folded = ranked[at] & 511 if at < kept else 0
            palettes[number, at] = folded
            widest = max(widest, folded)
            work[folded] = 0
        smallest = overall_smallest
        while smallest < highest and work[smallest] == 0:
            smallest += 1
        all_in = size > 0 and used <= size
        offset = min(31, highest, smallest if free else overall_smallest)
        if all_in:
            offset = 0
        row[DIRECT_OFFSET] = offset
        shift = size - offset
        for value in range(511):
            weight = value - 255
            table[value] = (2 * weight if weight >= 0 else 1 - 2 * weight) + shift
        for at in range(size - 1, -1, -1):
            folded = palettes[number, at]
            table[255 - (folded >> 1) if folded & 1 else 255 + (folded >> 1)] = at
        row[HIGHEST] = size - 1 if all_in else max(size - 1, highest + shift)
        row[PALETTE_BITS] = bit_width(widest if size else highest + shift)
        row[RAW_BITS] = row[PALETTE_BITS] if size == 0 else -1
        if all_in:
            bits = 0
            while size > 1 << bits:
                bits += 1
            row[RAW_BITS] = bits
        n = split(values, start, end, zero_runs, table, indices[first:], runs[first + number :])
        row[N_WEIGHTS] = n
        first += n
    return first
