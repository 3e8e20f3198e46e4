# SPDX-License-Identifier: Apache-2.0
"""Kernels that size and write the stream of a plan (see section_kernels.py for its arrays).

Source: [VELA] bitstream; twins: reference.emit and, for the size, the length of what it writes.
"""

from __future__ import annotations

import numpy as np

from npusim._jit import kernel
from npusim.weights.bits import count_ones
from npusim.weights.plan_columns import (
    DIRECT_OFFSET,
    FIRST,
    N_ENTRIES,
    N_SLICES,
    PALETTE_BITS,
    RAW_BITS,
    ZERO_RUNS,
)


@kernel
def slice_bits(indices, runs, wdiv, wtrunc, raw_bits, zdiv, zero_runs):
    # indices i16 [n], runs i32 [n_runs] (used with zero_runs) -> bits of the slice's chunks
    n = indices.size
    bits = 0
    if wdiv == 7:
        bits += n * raw_bits
    else:
        positions, ones = 0, 0
        if wtrunc:
            positions = n
            limit = 1 << wdiv
            for i in range(n):
                ones += indices[i] >= limit
        else:
            for i in range(n):
                quotient = np.int32(indices[i]) >> np.int32(wdiv)
                positions += (quotient >> 1) + 1
                ones += (quotient + 1) >> 1
        bits += n * wdiv + 12 * ((positions + 11) // 12) + ones
    if zero_runs:
        unary = 0
        for i in range(runs.size):
            unary += (runs[i] >> zdiv) + 1
        chunk = 8 if zdiv == 3 else 12
        bits += runs.size * zdiv + chunk * ((unary + chunk - 1) // chunk)
    return bits


@kernel
def plan_bits(sections, indices, runs, slices):  # -> bits without the end marker
    bits, at = 0, 0
    for number in range(sections.shape[0]):
        row = sections[number]
        w = row[FIRST]
        z = w + number
        bits += 13 + row[N_ENTRIES] * row[PALETTE_BITS]
        for part in range(row[N_SLICES]):
            n, wdiv, wtrunc, zdiv = slices[at]
            end = z + n + (part == 0)
            bits += 23 + slice_bits(
                indices[w : w + n], runs[z:end], wdiv, wtrunc, row[RAW_BITS], zdiv, row[ZERO_RUNS]
            )
            w += n
            z = end
            at += 1
    return bits


# In the loops below helpers take scalars only: passing an array counts its references up and down,
# with atomic instructions that cost more than the loop. A stream of bits is written as words u64:
# `buffer` holds the `fill` < 64 bits that follow words[:word].


@kernel
def ones(n):  # u64 n < 64 -> u64
    return (np.uint64(1) << n) - np.uint64(1)


@kernel
def carried(value, n, fill):  # of n bits of value u64, the `fill` < n last ones
    return value >> np.uint64(1) >> (n - fill - np.uint64(1))


@kernel
def window(low, high, offset):  # u64 -> the 64 bits from bit `offset` < 64 of low, then high
    return low >> offset | high << np.uint64(1) << (np.uint64(63) - offset)


@kernel
def gather_quotients(indices, k, wtrunc, unary0, unary1):
    # indices i16 [n]; unary0, unary1 u64 <- the two bits of their unary positions
    # twin: quotient_steps
    word0, buffer0, fill0 = 0, np.uint64(0), np.uint64(0)
    word1, buffer1, fill1 = 0, np.uint64(0), np.uint64(0)
    for i in range(indices.size):
        quotient = np.uint64(indices[i]) >> np.uint64(k)
        if wtrunc:
            n0, n1 = np.uint64(1), np.uint64(quotient > 0)
            bits0, bits1 = n1, quotient >> np.uint64(1)
        else:
            twos = quotient >> np.uint64(1)
            n0, n1 = twos + np.uint64(1), (quotient + np.uint64(1)) >> np.uint64(1)
            bits0, bits1 = ones(n1), ones(twos)
        buffer0 |= bits0 << fill0
        fill0 += n0
        if fill0 >= np.uint64(64):
            unary0[word0] = buffer0
            word0 += 1
            fill0 -= np.uint64(64)
            buffer0 = carried(bits0, n0, fill0)
        buffer1 |= bits1 << fill1
        fill1 += n1
        if fill1 >= np.uint64(64):
            unary1[word1] = buffer1
            word1 += 1
            fill1 -= np.uint64(64)
            buffer1 = carried(bits1, n1, fill1)
    unary0[word0], unary0[word0 + 1] = buffer0, 0
    unary1[word1], unary1[word1 + 1] = buffer1, 0


@kernel
def gather_remainders(symbols, k, remainders):
    # symbols i16 or i32 [n]; remainders u64 <- their low k bits
    word, buffer, fill = 0, np.uint64(0), np.uint64(0)
    n = np.uint64(k)
    for i in range(symbols.size):
        value = np.uint64(symbols[i]) & ones(n)
        buffer |= value << fill
        fill += n
        if fill >= np.uint64(64):
            remainders[word] = buffer
            word += 1
            fill -= np.uint64(64)
            buffer = carried(value, n, fill)
    remainders[word], remainders[word + 1] = buffer, 0


@kernel
def gather_runs(runs, zdiv, unary):  # runs i32 [n]; unary u64 <- quotients: ones, then a zero
    word, buffer, fill = 0, np.uint64(0), np.uint64(0)
    for i in range(runs.size):
        quotient = np.uint64(runs[i]) >> np.uint64(zdiv)
        while quotient > np.uint64(62):
            buffer |= ones(np.uint64(63)) << fill
            fill += np.uint64(63)
            if fill >= np.uint64(64):
                unary[word] = buffer
                word += 1
                fill -= np.uint64(64)
                buffer = ones(fill)
            quotient -= np.uint64(63)
        buffer |= ones(quotient) << fill
        fill += quotient + np.uint64(1)
        if fill >= np.uint64(64):
            unary[word] = buffer
            word += 1
            fill -= np.uint64(64)
            buffer = carried(ones(quotient), quotient + np.uint64(1), fill)
    unary[word], unary[word + 1] = buffer, 0


@kernel
def put(words, at, value, n):
    # words u64, its bits from `at` on zero; value u64 < 1 << n, n <= 64 -> at + n
    offset = np.uint64(at & 63)
    words[at >> 6] |= value << offset
    words[(at >> 6) + 1] |= value >> np.uint64(1) >> (np.uint64(63) - offset)
    return at + n


@kernel
def interleave(n, n_runs, header, parts, words, at):
    # n weights and n_runs runs; header i64 [4]: k, wtrunc, raw, zdiv; parts u64 [5, .]: unary0,
    # unary1, remainders, run unary, run remainders; words u64 from bit `at` on -> end bit
    # twin: emit_slice
    k, wtrunc, raw, zdiv = header
    unary0, unary1, remainders = parts[0], parts[1], parts[2]
    z_unary, z_remainders = parts[3], parts[4]
    w_chunk = 8 if k > 5 and raw else 12
    z_chunk = 8 if zdiv == 3 else 12
    w_done, z_done = 0, 0
    w_rest, z_rest = 0, 0  # symbols that the iteration before completed
    at0, at1, at2, at3, at4 = 0, 0, 0, 0, 0  # bits read from the parts
    word, buffer, fill = at >> 6, words[at >> 6], np.uint64(at & 63)
    while True:
        balance = w_done - z_done if n_runs else 0
        weights_on = balance < 8 and w_done < n
        runs_on = balance >= 0 and z_done < n_runs
        w_new, z_new, n_bits = 0, 0, 0
        bits, steps, n_steps = np.uint64(0), np.uint64(0), np.uint64(0)
        if weights_on:
            w_new = w_chunk
            if not raw:
                bits = window(unary0[at0 >> 6], unary0[(at0 >> 6) + 1], np.uint64(at0 & 63))
                bits &= np.uint64(0xFFF)
                at0 += 12
                n_bits = 12
                n_steps = np.uint64(count_ones(bits))
                steps = window(unary1[at1 >> 6], unary1[(at1 >> 6) + 1], np.uint64(at1 & 63))
                steps &= ones(n_steps)
                at1 += np.int64(n_steps)
                if not wtrunc:  # a step of two completes nothing
                    w_new -= count_ones(steps)
            w_new = min(w_new, n - w_done)
        if runs_on:
            unary = window(z_unary[at3 >> 6], z_unary[(at3 >> 6) + 1], np.uint64(at3 & 63))
            unary &= ones(np.uint64(z_chunk))
            at3 += z_chunk
            bits |= unary << np.uint64(n_bits)
            n_bits += z_chunk
            z_new = min(z_chunk - count_ones(unary), n_runs - z_done)
        # unary parts of this iteration, then the remainders of the one before: 36 bits at the most,
        # 72 in two pieces, 24
        w_bits, z_bits = w_rest * k, z_rest * zdiv
        for piece in range(4):
            if piece == 0:
                length = np.uint64(n_bits) + n_steps
                bits |= steps << np.uint64(n_bits)
            elif piece < 3:
                some = min(w_bits, 36)
                w_bits -= some
                length = np.uint64(some)
                bits = window(
                    remainders[at2 >> 6], remainders[(at2 >> 6) + 1], np.uint64(at2 & 63)
                ) & ones(length)
                at2 += some
            else:
                length = np.uint64(z_bits)
                bits = window(
                    z_remainders[at4 >> 6], z_remainders[(at4 >> 6) + 1], np.uint64(at4 & 63)
                ) & ones(length)
                at4 += z_bits
            buffer |= bits << fill
            fill += length
            if fill >= np.uint64(64):
                words[word] = buffer
                word += 1
                fill -= np.uint64(64)
                buffer = carried(bits, length, fill)
        w_rest, z_rest = w_new, z_new
        w_done += w_new
        z_done += z_new
        if not weights_on and not runs_on:
            words[word] = buffer
            return 64 * word + np.int64(fill)


@kernel
def write_plan(sections, palettes, indices, runs, slices, parts, words):
    # parts u64 [5, .]: scratch; words u64 with room for the stream and two words more; writes all
    # but the end marker's padding with ones -> bits with the end marker
    at, number_of_slice = np.int64(0), 0
    header = np.empty(4, np.int64)
    for number in range(sections.shape[0]):
        row = sections[number]
        w = row[FIRST]
        z = w + number
        for part in range(row[N_SLICES]):
            n, wdiv, wtrunc, zdiv = slices[number_of_slice]
            if not row[ZERO_RUNS]:
                zdiv = 6
            raw = wdiv == 7
            k = row[RAW_BITS] if raw else wdiv
            value = zdiv | (n - 1) << 3 | wdiv << 18 | wtrunc << 21 | (part == 0) << 22
            at = put(words, at, np.uint64(value), np.int64(23))
            if part == 0:
                size = max(row[N_ENTRIES] - 1, 0)
                width = row[PALETTE_BITS]
                value = row[DIRECT_OFFSET] | size << 5 | (width - 2) << 10
                at = put(words, at, np.uint64(value), np.int64(13))
                for entry in range(row[N_ENTRIES]):
                    at = put(words, at, np.uint64(palettes[number, entry]), width)
            if not raw:
                gather_quotients(indices[w : w + n], k, wtrunc, parts[0], parts[1])
            gather_remainders(indices[w : w + n], k, parts[2])
            end = z
            if row[ZERO_RUNS]:
                end = z + n + (part == 0)
                gather_runs(runs[z:end], zdiv, parts[3])
                gather_remainders(runs[z:end], zdiv, parts[4])
            header[0], header[1], header[2], header[3] = k, wtrunc, raw, zdiv
            at = interleave(n, end - z, header, parts, words, at)
            w += n
            z = end
            number_of_slice += 1
    return put(words, at, np.uint64(7), np.int64(3))
