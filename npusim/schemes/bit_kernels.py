# SPDX-License-Identifier: Apache-2.0
"""Kernels that write and read fields of bits, the least significant bit first.

Twins: reference.py, functions of the same names.
"""

from __future__ import annotations

import numpy as np

from npusim._jit import kernel


@kernel
def put_fields(codes, lengths, words, at):
    # codes u64 [n], lengths i64 [n]: of their fields, where those beyond 64 bits are zero; words
    # u64, zero from bit `at` on, with a word to spare -> end bit
    for i in range(codes.size):
        code, offset = codes[i], np.uint64(at & 63)
        words[at >> 6] |= code << offset
        words[(at >> 6) + 1] |= code >> np.uint64(1) >> (np.uint64(63) - offset)
        at += lengths[i]
    return at


@kernel
def take_fields(words, at, width, fields):
    # words u64 with a word to spare; fields i64 [n] <- n fields of width 0..32 from bit `at` on
    mask = np.uint64((1 << width) - 1)
    for i in range(fields.size):
        offset = np.uint64(at & 63)
        bits = words[at >> 6] >> offset
        bits |= words[(at >> 6) + 1] << np.uint64(1) << (np.uint64(63) - offset)
        fields[i] = np.int64(bits & mask)
        at += width


@kernel
def take_rice(words, at, end, k, most, values):
    # words u64 with a word to spare, `end` bits; values i64 [n] <- Golomb-Rice codes: zeros, a one,
    # k remainder bits; none above `most` -> 0 and the next bit, or 1 (cut) or 2 (too large) and a
    # bit
    mask = np.uint64((1 << k) - 1)
    for i in range(values.size):
        first = at
        while True:
            if at >= end:
                return 1, end
            bits = words[at >> 6] >> np.uint64(at & 63)
            if bits == np.uint64(0):
                at = (at | 63) + 1
                continue
            while bits & np.uint64(1) == np.uint64(0):
                bits >>= np.uint64(1)
                at += 1
            break
        quotient = at - first
        at += 1
        if at + k > end:
            return 1, end
        if quotient > most >> k:
            return 2, first
        offset = np.uint64(at & 63)
        bits = words[at >> 6] >> offset
        bits |= words[(at >> 6) + 1] << np.uint64(1) << (np.uint64(63) - offset)
        values[i] = quotient << k | np.int64(bits & mask)
        if values[i] > most:
            return 2, first
        at += k
    return 0, at


@kernel
def count_runs(values, counts, long_runs):
    # values i16 [n]; counts i64 [m] <- how many runs of 0..m-1 zeros stand before a non-zero;
    # long_runs i64 [n // m + 1] <- the others -> how many others, zeros after the last non-zero
    n_long, run = 0, 0
    for i in range(values.size):
        if values[i] == 0:
            run += 1
        elif run < counts.size:
            counts[run] += 1
            run = 0
        else:
            long_runs[n_long] = run
            n_long += 1
            run = 0
    return n_long, run
