# SPDX-License-Identifier: Apache-2.0
"""The kernel that reads zero runs and non-zero weights in turn, both Golomb-Rice coded.

Twin: reference.py:take_runs.
"""

from __future__ import annotations

import numpy as np

from npusim._jit import kernel


@kernel
def take_code(words, at, end, k, most):
    # words u64 with a word to spare, `end` bits -> value, next bit; or -1 (cut) or -2 (above
    # `most`) and a bit
    first = at
    while True:
        if at >= end:
            return np.int64(-1), end
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
        return np.int64(-1), end
    if quotient > most >> k:
        return np.int64(-2), first
    offset = np.uint64(at & 63)
    bits = words[at >> 6] >> offset
    bits |= words[(at >> 6) + 1] << np.uint64(1) << (np.uint64(63) - offset)
    value = quotient << k | np.int64(bits & np.uint64((1 << k) - 1))
    return (np.int64(-2), first) if value > most else (value, at + k)


@kernel
def take_runs(words, at, end, k_run, k_code, most, values):
    # words u64 with a word to spare, `end` bits; values i16 [n] <- a run of zeros, a non-zero, and
    # so on until there are n; codes of non-zeros are 0..most -> as take_code, 0 for the value
    done = np.int64(0)
    while done < values.size:
        run, after = take_code(words, at, end, k_run, np.int64(values.size - done))
        if run < 0:
            return run, after
        for i in range(done, done + run):
            values[i] = 0
        done += run
        at = after
        if done == values.size:
            break
        code, after = take_code(words, at, end, k_code, most)
        if code < 0:
            return code, after
        magnitude = (code >> 1) + 1
        values[done] = -magnitude if code & 1 else magnitude
        done += 1
        at = after
    return np.int64(0), at
