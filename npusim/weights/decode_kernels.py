# SPDX-License-Identifier: Apache-2.0
"""The kernel that reads weight streams: slices to weights, never beyond the stream's end.

The surface calls `decode_slices` again and again: it stops at the end, at an error, or where `out`
is too small, and can go on from the slice it stopped before. Every slice leaves a row of facts:

    info i64 [n_slices, 20]  columns below, all sizes in bits

Source: [VELA] bitstream; twins: reference.read_header, read_slice and decode.
"""

from __future__ import annotations

import numpy as np

from npusim._jit import kernel
from npusim.weights.bits import count_ones
from npusim.weights.status import (
    MODE_CHANGE,
    MORE_ROOM,
    NO_PALETTE,
    OK,
    OUT_OF_RANGE,
    QUOTIENT,
    RESERVED_WDIV,
    RESERVED_ZDIV,
    RUN_PADDING,
    TOO_MANY,
    TRUNCATED,
    WEIGHT_PADDING,
)

# Columns of info: the header ...
BIT, ZDIV, N_WEIGHTS, WDIV, WTRUNC, NEW_PALETTE, DIRECT_OFFSET, N_ENTRIES = range(8)
PALETTE_BITS, PALETTE_ROW = 8, 9
# ... and what the slice holds and takes
ZEROS, END, WEIGHT_UNARY0, WEIGHT_UNARY1, WEIGHT_PAD, WEIGHT_REST = range(10, 16)
RUN_UNARY, RUN_PAD, RUN_REST, N_RUNS = range(16, 20)
INFO_COLUMNS = 20

# Cells of the state that outlives a call
AT, N_OUT, N_SLICES, N_PALETTES, HAVE = range(5)
STATE_CELLS = 5

BAD_WEIGHT = 1000  # stands in the table of weights for an index outside -255..255
HALVES = 2 * 4096 + 64 + 16
SLACK = 32  # entries past a slice's last that chunks of twelve may write
TABLE = 1024  # indices are below (31 << 5) + 32


@kernel
def window(low, high, at):  # words u64 at bit at & ~63 and the next -> the 64 bits from bit `at`
    offset = np.uint64(at & 63)
    return np.int64(low >> offset | high << np.uint64(1) << (np.uint64(63) - offset))


@kernel
def field(words, at, n):  # words u64 with a word to spare -> the n < 64 bits from bit `at`
    # not for inner loops: passing an array counts its references, with slow atomic instructions
    return window(words[np.uint64(at >> 6)], words[np.uint64((at >> 6) + 1)], at) & ((1 << n) - 1)


@kernel
def read_header(words, end, at, row, palettes, state):
    # row i64 [20] <- header; a new palette becomes row N_PALETTES of palettes i64 [., 32]
    # -> status, bit: the next one or that of the error
    row[BIT] = at
    if at + 3 > end:
        return TRUNCATED, at
    row[ZDIV] = field(words, at, np.int64(3))
    at += 3
    if row[ZDIV] == 7:
        return OK, (at + 7) & ~7
    if 3 < row[ZDIV] < 6:
        return RESERVED_ZDIV, at - 3
    if at + 15 > end:
        return TRUNCATED, at
    row[N_WEIGHTS] = field(words, at, np.int64(15)) + 1
    at += 15
    if at + 3 > end:
        return TRUNCATED, at
    row[WDIV] = field(words, at, np.int64(3))
    at += 3
    if row[WDIV] == 6:
        return RESERVED_WDIV, at - 3
    if at + 2 > end:
        return TRUNCATED, end
    row[WTRUNC] = field(words, at, np.int64(1))
    row[NEW_PALETTE] = field(words, at + 1, np.int64(1))
    at += 2
    if row[NEW_PALETTE]:
        for column, width in ((DIRECT_OFFSET, 5), (N_ENTRIES, 5), (PALETTE_BITS, 3)):
            if at + width > end:
                return TRUNCATED, at
            row[column] = field(words, at, width)
            at += width
        row[PALETTE_BITS] += 2
        if row[N_ENTRIES]:
            row[N_ENTRIES] += 1
        number = state[N_PALETTES]
        for entry in range(row[N_ENTRIES]):
            if at + row[PALETTE_BITS] > end:
                return TRUNCATED, at
            palettes[number, entry] = field(words, at, row[PALETTE_BITS])
            at += row[PALETTE_BITS]
        row[PALETTE_ROW] = number
    elif not state[HAVE]:
        return NO_PALETTE, row[BIT]
    return OK, at


@kernel
def weight_table(row, entries, table):  # table i16 [1024] <- weight of each index
    size = row[N_ENTRIES]
    for index in range(TABLE):
        folded = index - size + row[DIRECT_OFFSET]
        weight = -(folded >> 1) if folded & 1 else folded >> 1
        table[index] = weight if folded <= 511 else BAD_WEIGHT
    for index in range(size):
        folded = entries[index]
        table[index] = -(folded >> 1) if folded & 1 else folded >> 1


@kernel
def fill_halves(halves):
    # halves u64 [2 * 4096 + 64 + 16] <- what half a chunk holds: the symbols' quotients, a byte
    # each, from bit 48 their number, from bit 52 the quotient of a symbol that goes on. Weights:
    # key unary0 << 6 | unary1, then the same truncated; runs: six bits, then four.
    for key in range(halves.size):
        weights, wtrunc = key < 8192, key >= 4096
        n_bits = 6 if key < 8192 + 64 else 4
        zeros_and_ones = key >> 6 & 63 if weights else (key - 8192 if n_bits == 6 else key - 8256)
        taken, quotient, n, entry = 0, 0, 0, 0
        for position in range(n_bits):
            step = zeros_and_ones >> position & 1
            final = not step
            if weights:
                step += step & key >> taken
                taken += step > 0
                final = wtrunc or step < 2
            quotient += step
            if final:
                entry |= quotient << 8 * n
                n += 1
                quotient = 0
        halves[key] = entry | n << 48 | quotient << 52


@kernel
def careful_quotients(words, end, at, row, unary0, unary0_at, quotients, done, quotient):
    # One chunk of weight positions with every check -> status, bit after unary1 or of the error,
    # weights done, quotient begun, positions that hold no weight
    n = row[N_WEIGHTS]
    padding = 0
    for position in range(12):
        step = unary0 >> position & 1
        if step:
            if at >= end:
                return TRUNCATED, at, done, quotient, padding
            step += field(words, at, np.int64(1))
            at += 1
        if done == n:
            padding += 1
            if step:
                return WEIGHT_PADDING, unary0_at, done, quotient, padding
            continue
        quotient += step
        if quotient > 31:
            return QUOTIENT, unary0_at, done, quotient, padding
        if step < 2 or row[WTRUNC]:
            quotients[done] = quotient
            done += 1
            quotient = 0
    return OK, at, done, quotient, padding


@kernel
def careful_runs(unary, n_bits, quotients, done, n, quotient):
    # One chunk of run bits that may hold the last run -> runs done or -1, quotient, unused bits
    padding = 0
    for position in range(n_bits):
        one = unary >> position & 1
        if done == n:
            padding += 1
            if one:
                return -1, quotient, padding
        elif one:
            quotient += 1
        else:
            quotients[done] = quotient
            done += 1
            quotient = 0
    return done, quotient, padding


@kernel
def read_slice(words, end, at, row, k, halves, quotients, rests, runs):
    # quotients u8 and rests i16 [n + 32] <- quotients and remainders of the weight indices, runs
    # i64 [2, n + 32] <- those of the zero runs; completes row -> status, bit: next or of the error
    z_quotients, z_rests = runs[0], runs[1]
    n, zdiv, wtrunc = row[N_WEIGHTS], row[ZDIV], row[WTRUNC]
    zero_runs, raw = zdiv != 6, row[WDIV] == 7
    n_runs = n + row[NEW_PALETTE] if zero_runs else 0
    w_chunk = 8 if raw and k > 5 else 12
    z_chunk = 8 if zdiv == 3 else 12
    mask, z_mask = (1 << k) - 1, (1 << zdiv) - 1
    w_done, z_done = np.int64(0), np.int64(0)  # no literals: a kernel has one signature
    w_read, z_read = 0, 0
    quotient, z_quotient = np.int64(0), np.int64(0)  # of a symbol that spans chunks
    unary1_bits, w_chunks, z_chunks, w_padding, z_padding = 0, 0, 0, 0, 0
    while True:
        balance = w_done - z_done if zero_runs else 0
        weights_on = balance < 8 and w_done < n
        runs_on = zero_runs and balance >= 0 and z_done < n_runs
        w_before, z_before = w_done, z_done
        unary0_at, unary0, z_unary = at, 0, 0
        if weights_on and not raw:
            if at + 12 > end:
                return TRUNCATED, at
            unary0 = window(words[np.uint64(at >> 6)], words[np.uint64((at >> 6) + 1)], at) & 0xFFF
            at += 12
            w_chunks += 1
        z_unary_at = at
        if runs_on:
            if at + z_chunk > end:
                return TRUNCATED, at
            z_unary = window(words[np.uint64(at >> 6)], words[np.uint64((at >> 6) + 1)], at)
            at += z_chunk
            z_chunks += 1
        if weights_on and raw:
            w_done = min(n, w_done + w_chunk)
        elif weights_on and (n - w_done <= 12 or at + 12 > end or quotient > 7):
            before = at
            status, at, w_done, quotient, padding = careful_quotients(
                words, end, at, row, unary0, unary0_at, quotients, w_done, quotient
            )
            if status != OK:
                return status, at
            unary1_bits += at - before
            w_padding += padding
        elif weights_on:
            unary1 = window(words[np.uint64(at >> 6)], words[np.uint64((at >> 6) + 1)], at)
            bits = unary0
            for _ in range(2):
                key = (bits & 63) << 6 | unary1 & 63 | wtrunc << 12
                entry = np.int64(halves[np.uint64(key)]) + quotient
                for i in range(6):  # entries past the last symbol are void
                    quotients[np.uint64(w_done + i)] = entry >> 8 * i
                new = entry >> 48 & 15
                quotient = (entry >> 52) + (0 if new else quotient)
                w_done += new
                unary1 >>= count_ones(np.uint64(bits & 63))
                bits >>= 6
            bits = count_ones(np.uint64(unary0))
            at += bits
            unary1_bits += bits
        if runs_on and n_runs - z_done > 12:
            half = z_chunk >> 1
            for _ in range(2):
                key = z_unary & ((1 << half) - 1) | (8192 if half == 6 else 8256)
                entry = np.int64(halves[np.uint64(key)])
                for i in range(6):
                    z_quotients[np.uint64(z_done + i)] = entry >> 8 * i & 255
                z_quotients[np.uint64(z_done)] += z_quotient
                new = entry >> 48 & 15
                z_quotient = (entry >> 52) + (0 if new else z_quotient)
                z_done += new
                z_unary >>= half
        elif runs_on:
            z_done, z_quotient, padding = careful_runs(
                z_unary, z_chunk, z_quotients, z_done, n_runs, z_quotient
            )
            if z_done < 0:
                return RUN_PADDING, z_unary_at
            z_padding += padding
        if w_before > w_read:  # remainders: at most 60 bits, raw ones of up to 9 bits in two halves
            if at + k * (w_before - w_read) > end:
                return TRUNCATED, at + k * ((end - at) // k)
            bits = window(words[np.uint64(at >> 6)], words[np.uint64((at >> 6) + 1)], at)
            for i in range(12):
                rests[np.uint64(w_read + i)] = bits & mask
                bits >>= k
            if k > 5:
                half = at + 4 * k
                bits = window(words[np.uint64(half >> 6)], words[np.uint64((half >> 6) + 1)], half)
                for i in range(4, 8):
                    rests[np.uint64(w_read + i)] = bits & mask
                    bits >>= k
            at += k * (w_before - w_read)
            w_read = w_before
        if z_before > z_read and zdiv:
            if at + zdiv * (z_before - z_read) > end:
                return TRUNCATED, at + zdiv * ((end - at) // zdiv)
            bits = window(words[np.uint64(at >> 6)], words[np.uint64((at >> 6) + 1)], at)
            for i in range(12):
                z_rests[np.uint64(z_read + i)] = bits & z_mask
                bits >>= zdiv
            at += zdiv * (z_before - z_read)
        z_read = z_before
        if not weights_on and not runs_on:
            break
    row[END], row[N_RUNS] = at, n_runs
    row[WEIGHT_UNARY0], row[WEIGHT_UNARY1] = 12 * w_chunks, unary1_bits
    row[WEIGHT_PAD], row[WEIGHT_REST] = w_padding, n * k
    row[RUN_UNARY], row[RUN_PAD] = z_chunk * z_chunks, z_padding
    row[RUN_REST] = n_runs * zdiv if zero_runs else 0
    if raw:
        quotients[:n] = 0
    return OK, at


@kernel
def join(row, k, quotients, rests, runs):
    # rests and runs[0] <- weight indices and zero runs; completes ZEROS in row
    for i in range(row[N_WEIGHTS]):
        rests[i] |= np.int16(quotients[i]) << np.int16(k)
    zdiv, zeros = row[ZDIV], 0
    if zdiv == 0:
        for i in range(row[N_RUNS]):
            zeros += runs[0, i]
    else:
        for i in range(row[N_RUNS]):
            runs[0, i] = runs[0, i] << zdiv | runs[1, i]
            zeros += runs[0, i]
    row[ZEROS] = zeros


@kernel
def expand(row, table, indices, runs, out):
    # out i16 [>= N_WEIGHTS + ZEROS] <- the slice's weights and zeros -> 1 if one is out of range
    bad = np.int16(0)
    n = row[N_WEIGHTS]
    if row[ZDIV] == 6:
        for i in range(n):
            weight = table[np.uint64(indices[i])]
            bad = max(bad, weight)
            out[i] = weight
        return bad == BAD_WEIGHT
    out[: n + row[ZEROS]] = 0
    first = row[NEW_PALETTE]
    at = runs[0] if first else np.int64(0)
    for i in range(n):
        weight = table[np.uint64(indices[i])]
        bad = max(bad, weight)
        out[np.uint64(at)] = weight
        at += 1 + runs[i + first]
    return bad == BAD_WEIGHT


@kernel
def decode_slices(words, end, limit, halves, state, info, palettes, out):
    # words u64 with two words to spare, `end` bits; out i16, at most `limit` weights; state i64 [5]
    # info i64 [., 20], palettes i64 [., 32] -> status, bit of the error or room that out must have
    table = np.empty(TABLE, np.int16)
    quotients = np.empty(0, np.uint8)  # these grow with the slices
    indices = np.empty(0, np.int16)
    runs = np.empty((2, 0), np.int64)
    if state[HAVE]:
        row = info[state[N_SLICES] - 1]
        weight_table(row, palettes[row[PALETTE_ROW]], table)
    while True:
        row = info[state[N_SLICES]]
        status, at = read_header(words, end, state[AT], row, palettes, state)
        if status != OK:
            return status, at
        if row[ZDIV] == 7:
            state[AT], state[HAVE] = at, 0
            if at == end:
                return OK, at
            continue
        if row[NEW_PALETTE]:
            weight_table(row, palettes[row[PALETTE_ROW]], table)
        else:
            before = info[state[N_SLICES] - 1]
            if (before[ZDIV] == 6) != (row[ZDIV] == 6):
                return MODE_CHANGE, row[BIT]
            row[DIRECT_OFFSET], row[N_ENTRIES] = before[DIRECT_OFFSET], before[N_ENTRIES]
            row[PALETTE_BITS], row[PALETTE_ROW] = before[PALETTE_BITS], before[PALETTE_ROW]
        k = row[WDIV]
        if k == 7:
            k = row[PALETTE_BITS]
            if row[N_ENTRIES]:
                k = 0
                while row[N_ENTRIES] > 1 << k:
                    k += 1
        room = row[N_WEIGHTS] + SLACK
        if quotients.size < room:
            quotients = np.empty(room, np.uint8)
            indices = np.empty(room, np.int16)
        if row[ZDIV] != 6 and runs.shape[1] < room:
            runs = np.empty((2, room), np.int64)
        status, at = read_slice(words, end, at, row, k, halves, quotients, indices, runs)
        if status != OK:
            return status, at
        join(row, k, quotients, indices, runs)
        total = row[N_WEIGHTS] + row[ZEROS]
        room = state[N_OUT] + total
        if room > out.size and room <= limit:
            return MORE_ROOM, room
        if room > limit:  # an index out of range counts first
            for i in range(row[N_WEIGHTS]):
                if table[indices[i]] == BAD_WEIGHT:
                    return OUT_OF_RANGE, row[BIT]
            return TOO_MANY, row[BIT]
        if expand(row, table, indices, runs[0], out[state[N_OUT] :]):
            return OUT_OF_RANGE, row[BIT]
        state[N_OUT] = room
        state[AT] = at
        state[N_SLICES] += 1
        state[N_PALETTES] += row[NEW_PALETTE]
        state[HAVE] = 1
