# SPDX-License-Identifier: Apache-2.0
"""Kernels that size and write the stream of a plan (see section_kernels.py for its arrays).

Source: [VELA] bitstream; twins: reference.emit and, for the size, the length of what it writes.
"""

from __future__ import annotations

import numpy as np

from npusim._jit import kernel

START, FIRST, N_WEIGHTS, ZERO_RUNS, N_ENTRIES, PALETTE_BITS, DIRECT_OFFSET, RAW_BITS, N_SLICES = (
    range(9)
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


@kernel
def put(words, at, value, n):  # words u64, zero from bit `at` on; value < 1 << n, n <= 64 -> at + n
    word, offset = at >> 6, at & 63
    words[word] |= np.uint64(value) << np.uint64(offset)
    if offset + n > 64:
        words[word + 1] |= np.uint64(value) >> np.uint64(64 - offset)
    return at + n


@kernel
def write_chunks(words, at, indices, runs, wdiv, wtrunc, raw_bits, zdiv, zero_runs):
    # indices i16 [n], runs i32 [n_runs]; writes the slice's chunks from bit `at` -> end bit
    n, n_runs = indices.size, runs.size if zero_runs else 0
    raw = wdiv == 7
    k = raw_bits if raw else wdiv
    raw_chunk = 8 if k > 5 else 12
    low, z_low = (1 << k) - 1, (1 << zdiv) - 1
    z_chunk = 8 if zdiv == 3 else 12
    w_done, z_done = 0, 0  # symbols whose last position is written
    w_sent, z_sent = 0, 0  # symbols whose remainder is written
    steps, z_ones = -1, -1  # what is left of a symbol that spans chunks; -1: none begun
    while True:
        balance = w_done - z_done if zero_runs else 0
        weights_on = balance < 8 and w_done < n
        runs_on = zero_runs and balance >= 0 and z_done < n_runs
        w_before, z_before = w_done, z_done
        unary0, unary1, ones = 0, 0, 0
        if weights_on and raw:
            w_done = min(n, w_done + raw_chunk)
        elif weights_on:
            position = 0
            while position < 12 and w_done < n:
                if steps < 0:
                    steps = np.int64(indices[w_done]) >> k
                if wtrunc:
                    unary0 |= np.int64(steps > 0) << position
                    unary1 |= np.int64(steps > 1) << ones
                    ones += steps > 0
                    position += 1
                else:
                    twos, last = steps >> 1, steps & 1
                    if position + twos >= 12:  # the final position is in a later chunk
                        room = 12 - position
                        unary0 |= ((1 << room) - 1) << position
                        unary1 |= ((1 << room) - 1) << ones
                        ones += room
                        steps -= 2 * room
                        break
                    unary0 |= ((1 << (twos + last)) - 1) << position
                    unary1 |= ((1 << twos) - 1) << ones
                    ones += twos + last
                    position += twos + 1
                steps = -1
                w_done += 1
            at = put(words, at, unary0, 12)
        if runs_on:
            unary, position = 0, 0
            while position < z_chunk and z_done < n_runs:
                if z_ones < 0:
                    z_ones = np.int64(runs[z_done]) >> zdiv
                if position + z_ones >= z_chunk:
                    room = z_chunk - position
                    unary |= ((1 << room) - 1) << position
                    z_ones -= room
                    break
                unary |= ((1 << z_ones) - 1) << position
                position += z_ones + 1
                z_ones = -1
                z_done += 1
            at = put(words, at, unary, z_chunk)
        at = put(words, at, unary1, ones)
        rest, rest_bits = 0, 0  # remainders of the symbols that the iteration before completed
        for i in range(w_sent, w_before):
            if rest_bits + k > 64:
                at = put(words, at, rest, rest_bits)
                rest, rest_bits = 0, 0
            rest |= (np.int64(indices[i]) & low) << rest_bits
            rest_bits += k
        at = put(words, at, rest, rest_bits)
        rest, rest_bits = 0, 0
        for i in range(z_sent, z_before):
            rest |= (np.int64(runs[i]) & z_low) << rest_bits
            rest_bits += zdiv
        at = put(words, at, rest, rest_bits)
        w_sent, z_sent = w_before, z_before
        if not weights_on and not runs_on:
            return at


@kernel
def write_plan(sections, palettes, indices, runs, slices, words):
    # words u64, zero, with room for the stream and a word more; writes all but the end marker's
    # padding, which is ones -> bits with the end marker
    at, number_of_slice = 0, 0
    for number in range(sections.shape[0]):
        row = sections[number]
        w = row[FIRST]
        z = w + number
        zero_runs = row[ZERO_RUNS]
        for part in range(row[N_SLICES]):
            n, wdiv, wtrunc, zdiv = slices[number_of_slice]
            header = (zdiv if zero_runs else 6) | (n - 1) << 3 | wdiv << 18 | wtrunc << 21
            at = put(words, at, header | np.int64(part == 0) << 22, 23)
            if part == 0:
                size = max(row[N_ENTRIES] - 1, 0)
                at = put(words, at, row[DIRECT_OFFSET] | size << 5 | (row[PALETTE_BITS] - 2) << 10, 13)
                for entry in range(row[N_ENTRIES]):
                    at = put(words, at, palettes[number, entry], row[PALETTE_BITS])
            end = z + n + (part == 0)
            at = write_chunks(
                words, at, indices[w : w + n], runs[z:end], wdiv, wtrunc, row[RAW_BITS], zdiv, zero_runs
            )
            w += n
            z = end
            number_of_slice += 1
    return put(words, at, 7, 3)
