# SPDX-License-Identifier: Apache-2.0
"""Kernels for weights as entries: a run of zeros of limited length, then a weight.

A longer run has fillers, entries whose weight is a zero; so have zeros at the end of a group.
Groups of weights, the last one maybe shorter, have entries of their own.

Twins: reference.py, functions of the same names.
"""

from __future__ import annotations

import numpy as np

from npusim._jit import kernel


@kernel
def count_entries(values, run_max, group, entries):
    # values i16 [n]; entries i64 [n_groups] <- entries of each group of `group` weights
    run, n, left, number = np.int64(0), np.int64(0), group, 0
    for i in range(values.size):
        if values[i] != 0 or run == run_max:
            n += 1
            run = 0
        else:
            run += 1
        left -= 1
        if left == 0 or i == values.size - 1:
            entries[number] = n + (run > 0)
            number += 1
            run, n, left = np.int64(0), np.int64(0), group


@kernel
def fill_entries(values, run_max, group, runs, levels):
    # values i16 [n]; runs i64 and levels i16 [n_entries] <-
    run, left, at = np.int64(0), group, 0
    for i in range(values.size):
        left -= 1
        last = left == 0 or i == values.size - 1
        if values[i] != 0 or run == run_max or last:
            runs[at], levels[at] = run, values[i]
            at += 1
            run = 0
        else:
            run += 1
        if last:
            left = group


@kernel
def expand_entries(runs, levels, entries, group, values):
    # runs, levels i64 [n_entries], entries i64 [n_groups]; values i64 [n] <- -> -1, or the first
    # group whose entries are not exactly its weights
    at, done = 0, 0
    for number in range(entries.size):
        end = min(values.size, done + group)
        for _ in range(entries[number]):
            if runs[at] >= end - done:
                return number
            for i in range(done, done + runs[at]):
                values[i] = 0
            done += runs[at]
            values[done] = levels[at]
            done += 1
            at += 1
        if done != end:
            return number
    return -1
