# SPDX-License-Identifier: Apache-2.0
"""Kernels of length-limited canonical Huffman codes.

Twins: reference_codes.py, functions of the same names.
"""

from __future__ import annotations

import numpy as np

from npusim._jit import kernel


@kernel
def code_lengths(counts, length_max, lengths):
    # counts i64 [n > 1], ascending; 1 << length_max >= n; lengths i64 [n], zeros, <- of the code
    # words: package-merge. Row by row, symbols are merged with pairs of the row before.
    n = counts.size
    weights = np.empty((length_max, 2 * n), np.int64)
    is_symbol = np.zeros((length_max, 2 * n), np.uint8)
    size = 0
    for row in range(length_max):
        pairs, pair, symbol, at = size // 2, 0, 0, 0
        while pair < pairs or symbol < n:
            packed = np.int64(1 << 62)
            if pair < pairs:
                packed = weights[row - 1, 2 * pair] + weights[row - 1, 2 * pair + 1]
            if symbol < n and counts[symbol] <= packed:
                weights[row, at], is_symbol[row, at] = counts[symbol], 1
                symbol += 1
            else:
                weights[row, at] = packed
                pair += 1
            at += 1
        size = at
    taken = 2 * n - 2
    for row in range(length_max - 1, -1, -1):
        symbols = 0
        for at in range(taken):
            symbols += is_symbol[row, at]
        for symbol in range(symbols):
            lengths[symbol] += 1
        taken = 2 * (taken - symbols)


@kernel
def take_codes(words, at, end, first, offset, symbols, values):
    # words u64, `end` bits; first i64 [length_max + 2]: first code word of each length, offset i64
    # the same: place in symbols i64 of its symbol; values i64 [n] <- -> 0 and the next bit, or 1
    # (cut) or 2 (no code word) and a bit
    length_max = first.size - 2
    for i in range(values.size):
        code, length, start = np.int64(0), 0, at
        while True:
            if at >= end:
                return 1, end
            bit = words[at >> 6] >> np.uint64(at & 63) & np.uint64(1)
            code = code << 1 | np.int64(bit)
            at += 1
            length += 1
            place = offset[length] + code - first[length]
            if place < offset[length + 1]:
                values[i] = symbols[place]
                break
            if length == length_max:
                return 2, start
    return 0, at
