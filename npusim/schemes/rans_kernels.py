# SPDX-License-Identifier: Apache-2.0
"""Kernels of range asymmetric numeral systems with interleaved 32-bit states.

Symbol i belongs to state i modulo the number of states. A state x is in 2**16 .. 2**32 - 1 and
gives up its low 16 bits, a word, before it would outgrow that. Symbols are encoded from the last to
the first, so that words are decoded from the first on.

Twins: reference_codes.py, functions of the same names.
"""

from __future__ import annotations

import numpy as np

from npusim._jit import kernel


@kernel
def put_symbols(symbols, counts, starts, precision, states, words):
    # symbols i64 [n]; counts, starts i64 [n_symbols]: of 1 << precision; states i64 [lanes] <-;
    # words u16 <- the words, the last one first, if there is room for any -> how many
    n_words, limit = 0, 32 - precision
    lanes = states.size
    for lane in range(lanes):
        states[lane] = 1 << 16
    for i in range(symbols.size - 1, -1, -1):
        count = counts[symbols[i]]
        x = states[i % lanes]
        if x >= count << limit:
            if words.size:
                words[n_words] = x & 0xFFFF
            n_words += 1
            x >>= 16
        states[i % lanes] = (x // count << precision) + x % count + starts[symbols[i]]
    return n_words


@kernel
def take_symbols(words, counts, starts, precision, states, table, symbols):
    # words u16 [m], table i64 [1 << precision]: symbol of each slot; the rest as put_symbols;
    # symbols i64 [n] <- -> words read, -1 if there are too few
    at, mask, lanes = 0, (1 << precision) - 1, states.size
    for i in range(symbols.size):
        x = states[i % lanes]
        symbol = table[x & mask]
        symbols[i] = symbol
        x = counts[symbol] * (x >> precision) + (x & mask) - starts[symbol]
        if x < 1 << 16:
            if at == words.size:
                return -1
            x = x << 16 | np.int64(words[at])
            at += 1
        states[i % lanes] = x
    return at
