# SPDX-License-Identifier: Apache-2.0
"""Kernels of a binary arithmetic coder and of the two models that drive it.

The coder keeps an interval of `span`, at most 48 bits wide, and hands out its leading byte when
that is settled. A one takes the lower part of the interval, of probability / 65536; probabilities
are 1..65535. At the end two more bytes name a part of the interval, whatever follows them.

Twins: reference_codes.py, functions of the same names.
"""

from __future__ import annotations

import numpy as np

from npusim._jit import kernel

SPAN = 1 << 48
LEAST_SPAN = 1 << 40
N_CONTEXTS = 3 + 1 + 3 * 8 + 254
MANTISSA = 28
EVEN_BINS = 6
"""Contexts of the mantissa begin as if they had seen these, as many ones as zeros: there are many
such contexts, most of them close to even."""
LEAST_PROBABILITY = 32
"""Significance, sign, length of the magnitude by what came before, mantissa."""


@kernel
def add_carry(out, at):  # out u8: add one to the byte before `at`, where there is one with room
    at -= 1
    while out[at] == 255:
        out[at] = 0
        at -= 1
    out[at] += 1


@kernel
def put_last(low, out, at):  # -> bytes with the two that name a part of the interval
    last = (low + (1 << 32) - 1) >> 32
    if out.size:
        if last > 65535:
            add_carry(out, at)
        out[at] = last >> 8 & 255
        out[at + 1] = last & 255
    return at + 2


@kernel
def put_mask(values, probability, out):
    # values i16 [n]: ones where not zero; out u8 <- if there is room -> bytes
    low, span, at = np.int64(0), np.int64(SPAN), np.int64(0)
    for i in range(values.size):
        bound = (span >> 16) * probability
        if values[i] != 0:
            span = bound
        else:
            low += bound
            span -= bound
            if low >= SPAN:
                low -= SPAN
                if out.size:
                    add_carry(out, at)
        while span < LEAST_SPAN:
            if out.size:
                out[at] = low >> 40
            at += 1
            low = (low & (LEAST_SPAN - 1)) << 8
            span <<= 8
    return put_last(low, out, at)


@kernel
def next_byte(data, at):  # data u8 -> byte `at`, zero beyond the end
    return np.int64(data[at]) if at < data.size else np.int64(0)


@kernel
def take_mask(data, probability, mask):
    # data u8; mask u8 [n] <- -> bytes that are the mask's; more than there are: it is cut
    code, span, at = np.int64(0), np.int64(SPAN), np.int64(6)
    for i in range(6):
        code = code << 8 | next_byte(data, i)
    for i in range(mask.size):
        bound = (span >> 16) * probability
        if code < bound:
            mask[i], span = 1, bound
        else:
            mask[i] = 0
            code -= bound
            span -= bound
        while span < LEAST_SPAN:
            code = code << 8 | next_byte(data, at)
            span <<= 8
            at += 1
            if at > data.size + 4:
                return at
    return at - 4


@kernel
def bins_of(value, near, contexts, bins):
    # value -255..255 after weights of near[0], near[1] bits; contexts, bins i64 [18] <- -> how many
    contexts[0] = np.int64(near[0] > 0) + np.int64(near[1] > 0)
    bins[0] = value != 0
    if value == 0:
        return 1
    contexts[1], bins[1] = 3, value < 0
    magnitude, n = abs(value), 0
    while magnitude >> n:
        n += 1
    base = 4 + 8 * min(2, (near[0] + near[1]) // 4)
    used = 2
    for length in range(1, 8):  # ones as long as there are more bits
        contexts[used], bins[used] = base + length - 1, n > length
        used += 1
        if n == length:
            break
    node = 1
    for bit in range(n - 2, -1, -1):
        contexts[used] = MANTISSA - 2 + (1 << (n - 1)) + node
        bins[used] = magnitude >> bit & 1
        node = node << 1 | (magnitude >> bit & 1)
        used += 1
    return used


@kernel
def learn(probability, bin_, share):  # share of a step towards bin_, 16 bits -> probability
    probability += ((bin_ << 16) - probability) * share >> 16
    return min(max(probability, LEAST_PROBABILITY), 65536 - LEAST_PROBABILITY)


@kernel
def put_values(values, shares, out):
    # values i16 [n]; shares i64 [m]: of a step, by the bins a context has seen, the last one for
    # all after; out u8 <- if there is room -> bytes
    probabilities = np.full(N_CONTEXTS, 32768)
    seen = np.zeros(N_CONTEXTS, np.int64)
    seen[MANTISSA:] = min(EVEN_BINS, shares.size - 1)
    contexts, bins = np.empty(18, np.int64), np.empty(18, np.int64)
    near = np.zeros(2, np.int64)
    low, span, at = np.int64(0), np.int64(SPAN), np.int64(0)
    for i in range(values.size):
        n_bins = bins_of(np.int64(values[i]), near, contexts, bins)
        for j in range(n_bins):
            context, bin_ = contexts[j], bins[j]
            bound = (span >> 16) * probabilities[context]
            if bin_:
                span = bound
            else:
                low += bound
                span -= bound
                if low >= SPAN:
                    low -= SPAN
                    if out.size:
                        add_carry(out, at)
            probabilities[context] = learn(probabilities[context], bin_, shares[seen[context]])
            seen[context] = min(seen[context] + 1, shares.size - 1)
            while span < LEAST_SPAN:
                if out.size:
                    out[at] = low >> 40
                at += 1
                low = (low & (LEAST_SPAN - 1)) << 8
                span <<= 8
        near[1] = near[0]
        near[0] = 0
        while abs(np.int64(values[i])) >> near[0]:
            near[0] += 1
    return put_last(low, out, at)


@kernel
def take_bin(state, data, probabilities, seen, shares, context):
    # state i64 [3]: code, span, next byte; data u8; the rest as put_values -> bin
    bound = (state[1] >> 16) * probabilities[context]
    bin_ = np.int64(state[0] < bound)
    if bin_:
        state[1] = bound
    else:
        state[0] -= bound
        state[1] -= bound
    probabilities[context] = learn(probabilities[context], bin_, shares[seen[context]])
    seen[context] = min(seen[context] + 1, shares.size - 1)
    while state[1] < LEAST_SPAN:
        state[0] = state[0] << 8 | next_byte(data, state[2])
        state[1] <<= 8
        state[2] += 1
    return bin_


@kernel
def take_values(data, shares, values):
    # data u8; shares as put_values; values i16 [n] <- -> bytes that are the values', more than
    # there are: they are cut
    probabilities = np.full(N_CONTEXTS, 32768)
    seen = np.zeros(N_CONTEXTS, np.int64)
    seen[MANTISSA:] = min(EVEN_BINS, shares.size - 1)
    state = np.zeros(3, np.int64)
    before, earlier = 0, 0
    for at in range(6):
        state[0] = state[0] << 8 | next_byte(data, at)
    state[1], state[2] = SPAN, 6
    for i in range(values.size):
        context = (before > 0) + (earlier > 0)
        value, n = 0, 0
        if take_bin(state, data, probabilities, seen, shares, context):
            negative = take_bin(state, data, probabilities, seen, shares, np.int64(3))
            base = 4 + 8 * min(2, (before + earlier) // 4)
            n = 1
            while n < 8 and take_bin(state, data, probabilities, seen, shares, base + n - 1):
                n += 1
            value = 1
            for _ in range(n - 1):
                context = MANTISSA - 2 + (1 << (n - 1)) + value
                value = value << 1 | take_bin(state, data, probabilities, seen, shares, context)
            value = -value if negative else value
        values[i] = value
        earlier = before
        before = n
        if state[2] > data.size + 4:
            return state[2]
    return state[2] - 4
