# SPDX-License-Identifier: Apache-2.0
"""Kernels that count the chunk iterations of a slice: in a stream, and in a plan of one.

Both fill a trace:

    trace i32 [n_iterations, 2]  bits that an iteration reads, weights and zeros that it completes

A weight counts where its remainder is read, an iteration after its quotient; zeros of a run count
as soon as a decoder knows of them: 1 << zdiv for each one of its quotient, the rest with its
remainder. With no rows in the trace the kernels only count.

Source: [VELA] bitstream; twin of both: reference_chunks.chunk_trace.
"""

from __future__ import annotations

import numpy as np

from npusim._jit import kernel
from npusim.weights.bits import count_ones
from npusim.weights.estimate_kernels import spread_counts
from npusim.weights.plan_columns import FIRST, HIGHEST, N_SLICES, RAW_BITS, ZERO_RUNS
from npusim.weights.section_kernels import choose_palette, index_table
from npusim.weights.tight_kernels import direct_bits

TIE = 50  # states within a fiftieth of the least bits are taken in turn


@kernel
def window(low, high, at):  # words u64 at bit at & ~63 and the next -> the 64 bits from bit `at`
    offset = np.uint64(at & 63)
    return np.int64(low >> offset | high << np.uint64(1) << (np.uint64(63) - offset))


@kernel
def field_sum(words, at, width, n):  # words u64, n fields of `width` < 4 bits from `at` -> sum
    total = 0
    bits = window(words[at >> 6], words[(at >> 6) + 1], at)
    for _ in range(n):
        total += bits & ((1 << width) - 1)
        bits >>= width
    return total


@kernel
def stream_chunks(words, at, n, n_runs, header, trace):
    # words u64 with two to spare, a valid slice's chunks from bit `at` on: n weights, n_runs runs;
    # header i64 [4]: k, wtrunc, raw, zdiv; trace i32 [., 2] <- -> iterations
    k, wtrunc, raw, zdiv = header
    w_chunk = 8 if raw and k > 5 else 12
    z_chunk = 8 if zdiv == 3 else 12
    w_done, z_done = 0, 0
    w_rest, z_rest = 0, 0  # symbols that the iteration before completed
    iterations = 0
    while True:
        balance = w_done - z_done if n_runs else 0
        weights_on = balance < 8 and w_done < n
        runs_on = balance >= 0 and z_done < n_runs
        first, w_new, z_new, n_ones, n_zeros = at, 0, 0, 0, 0
        if weights_on:
            w_new = w_chunk
            if not raw:
                unary0 = window(words[at >> 6], words[(at >> 6) + 1], at) & 0xFFF
                n_ones = count_ones(np.uint64(unary0))
                at += 12
        if runs_on:
            unary = window(words[at >> 6], words[(at >> 6) + 1], at) & ((1 << z_chunk) - 1)
            at += z_chunk
            n_zeros = count_ones(np.uint64(unary))
            z_new = min(z_chunk - n_zeros, n_runs - z_done)
            n_zeros <<= zdiv
        if n_ones:
            unary1 = window(words[at >> 6], words[(at >> 6) + 1], at) & ((1 << n_ones) - 1)
            at += n_ones
            if not wtrunc:  # a step of two completes nothing
                w_new -= count_ones(np.uint64(unary1))
        w_new = min(w_new, n - w_done) if weights_on else 0
        at += w_rest * k
        if z_rest and zdiv:
            n_zeros += field_sum(words, at, zdiv, z_rest)
            at += z_rest * zdiv
        if trace.shape[0]:
            trace[iterations, 0] = at - first
            trace[iterations, 1] = w_rest + n_zeros
        iterations += 1
        w_rest, z_rest = w_new, z_new
        w_done += w_new
        z_done += z_new
        if not weights_on and not runs_on:
            return iterations


@kernel
def slice_chunks(indices, runs, header, trace):
    # indices i16 [n], runs i32 [n_runs], header i64 [4]: k, wtrunc, raw, zdiv; trace i32 [., 2] <-
    # -> iterations that the slice will take
    k, wtrunc, raw, zdiv = header
    n, n_runs = indices.size, runs.size
    w_chunk = 8 if raw and k > 5 else 12
    z_chunk = 8 if zdiv == 3 else 12
    w_done, z_done = 0, 0
    w_rest, z_rest = 0, 0
    w_left, z_left = 0, 0  # unary of the symbol at hand that chunks before this one hold
    iterations = 0
    while True:
        balance = w_done - z_done if n_runs else 0
        weights_on = balance < 8 and w_done < n
        runs_on = balance >= 0 and z_done < n_runs
        w_before, z_before, n_bits, n_zeros = w_done, z_done, 0, 0
        if weights_on and raw:
            w_done = min(n, w_done + w_chunk)
        elif weights_on:
            n_bits += 12
            room = 12
            while room and w_done < n:
                quotient = np.int64(indices[w_done]) >> k
                if wtrunc:
                    n_bits += quotient > 0
                    room -= 1
                    w_done += 1
                    continue
                twos = min((quotient >> 1) - w_left, room)
                n_bits += twos
                room -= twos
                w_left += twos
                if room:  # for the last position, of code 0 or 1
                    n_bits += quotient & 1
                    room -= 1
                    w_done += 1
                    w_left = 0
        if runs_on:
            n_bits += z_chunk
            room = z_chunk
            while room and z_done < n_runs:
                ones = min((np.int64(runs[z_done]) >> zdiv) - z_left, room)
                n_zeros += ones << zdiv
                room -= ones
                z_left += ones
                if room:
                    room -= 1
                    z_done += 1
                    z_left = 0
        n_bits += w_rest * k + z_rest * zdiv
        if trace.shape[0]:
            for i in range(z_before - z_rest, z_before):
                n_zeros += runs[i] & ((1 << zdiv) - 1)
            trace[iterations, 0] = n_bits
            trace[iterations, 1] = w_rest + n_zeros
        iterations += 1
        w_rest, z_rest = w_done - w_before, z_done - z_before
        if not weights_on and not runs_on:
            return iterations


@kernel
def plan_chunks(sections, indices, runs, slices, iterations, trace):
    # a plan's arrays (section_kernels.py); iterations i64 [n_slices] <-; trace i32 [., 2] <- those
    # of all slices, one after the other, if it has rows
    at, row_of_trace = 0, 0
    header = np.empty(4, np.int64)
    for number in range(sections.shape[0]):
        row = sections[number]
        w = row[FIRST]
        z = w + number
        for part in range(row[N_SLICES]):
            n, wdiv, wtrunc, zdiv = slices[at]
            raw = wdiv == 7
            header[0], header[1] = row[RAW_BITS] if raw else wdiv, wtrunc
            header[2], header[3] = raw, zdiv if row[ZERO_RUNS] else 0
            end = z + n + (part == 0) if row[ZERO_RUNS] else z
            iterations[at] = slice_chunks(
                indices[w : w + n], runs[z:end], header, trace[row_of_trace:]
            )
            row_of_trace += iterations[at] if trace.shape[0] else 0
            w += n
            z = end
            at += 1


@kernel
def iterations_of_counts(counts, padding, regor):
    # counts, padding, regor and errors as estimate_kernels.bits_of_counts -> chunk iterations of
    # one slice: those of the weights or of the runs, whichever has more chunks, and the last one
    row = np.zeros(10, np.int64)
    entries = np.empty(32, np.int64)
    quotients = np.zeros(4, np.int64)
    totals = np.empty(511, np.int64)
    table = np.empty(511, np.int16)
    below = np.zeros(1025, np.int64)
    costs = np.zeros(12, np.int64)
    total, _, zero_runs = spread_counts(counts, padding, regor, totals, quotients)
    if total <= 0:
        return total
    choose_palette(totals, zero_runs, regor, row, entries)
    index_table(row, entries, table)
    n = 0
    for value in range(511):
        if totals[value] and (value != 255 or not zero_runs):
            below[np.int64(table[value]) + 1] += totals[value]
            n += totals[value]
    for index in range(row[HIGHEST] + 1):
        below[index + 1] += below[index]
    direct_bits(below, row[HIGHEST], np.int64(0), costs)
    least, chunk = costs.min(), 12
    positions, n_states = 0, 0
    if row[RAW_BITS] >= 0 and n * row[RAW_BITS] <= least:
        positions, n_states, chunk = n, 1, 8 if row[RAW_BITS] > 5 else 12
    else:
        for state in range(12):  # the encoders go to and fro between those that are as good
            if costs[state] - least <= least // TIE:
                n_states += 1
                positions += n
                for index in range(row[HIGHEST] + 1 if state < 6 else 0):
                    positions += (below[index + 1] - below[index]) * (index >> state >> 1)
    positions //= n_states
    iterations = (positions + chunk - 1) // chunk
    if zero_runs:
        best, run_chunks = np.int64(1 << 60), np.int64(0)
        for zdiv in range(4):
            chunk = 8 if zdiv == 3 else 12
            unary = quotients[zdiv] + n + 1
            if unary + (n + 1) * zdiv < best:
                best, run_chunks = unary + (n + 1) * zdiv, (unary + chunk - 1) // chunk
        iterations = max(iterations, run_chunks)
    return iterations + 1
