# SPDX-License-Identifier: Apache-2.0
"""Kernels of bit planes: blocks of eight words, the first as it is, the others as differences.

The planes of the seven differences are taken from the top, each as its exclusive or with the one
above it (the top one with nothing). Codes of what that leaves, first bit first:

    001             a plane of zeros             00000   a plane of ones
    01 n            n + 2 planes of zeros        00001   not zero, though the plane itself is
    00010 i         ones at i and i + 1 only     00011 i a one at i only
    1 and the plane anything else

with n as wide as the number of planes needs and i of three bits.

Twins: reference_codes.py, functions of the same names.
"""

from __future__ import annotations

import numpy as np

from npusim._jit import kernel

SPARE = 64


@kernel
def put_blocks(words, bits, run_bits, codes, lengths):
    # words i64 [n, 8]: of `bits` bits; codes u64 and lengths i64 [n * (bits + 2)] <-, if there is
    # room, else nothing -> number of codes, bits in all
    used, total = 0, 0
    n_planes = bits + 1
    planes = np.empty(n_planes, np.int64)
    for block in range(words.shape[0]):
        for plane in range(n_planes):
            planes[plane] = 0
        for i in range(7):
            difference = words[block, i + 1] - words[block, i]
            for plane in range(n_planes):
                planes[plane] |= (difference >> plane & 1) << i
        code, length = words[block, 0] & ((1 << bits) - 1), bits
        zeros, above, plane = 0, np.int64(0), n_planes
        while True:
            if lengths.size:
                codes[used], lengths[used] = code, length
            used += 1
            total += length
            if plane == 0:
                break
            plane -= 1
            changed = planes[plane] ^ above
            above = planes[plane]
            if changed == 0:
                zeros = 1
                while plane > 0 and planes[plane - 1] == above:
                    plane -= 1
                    zeros += 1
                code, length = 4, 3
                if zeros > 1:
                    code, length = 2 | (zeros - 2) << 2, 2 + run_bits
                continue
            low = 0
            while not changed >> low & 1:
                low += 1
            if changed == 127:
                code, length = 0, 5
            elif planes[plane] == 0:
                code, length = 16, 5
            elif changed == 3 << low:
                code, length = 8 | low << 5, 8
            elif changed == 1 << low:
                code, length = 24 | low << 5, 8
            else:
                code, length = 1 | changed << 1, 8
    return used, total


@kernel
def take_blocks(data, at, bits, run_bits, words):
    # data u8: a bit each, with 64 to spare; words i64 [n, 8] <- -> 0 and the next bit, or 1 (no
    # such code) and a bit; a bit beyond the end if the stream is cut
    n_planes = bits + 1
    planes = np.empty(n_planes, np.int64)
    end = data.size - SPARE
    for block in range(words.shape[0]):
        first = 0
        for i in range(bits):
            first |= np.int64(data[at + i]) << i
        at += bits
        plane, above = n_planes, np.int64(0)
        while plane > 0 and at < end:
            start = at
            run, changed = 0, np.int64(0)
            if data[at]:
                for i in range(7):
                    changed |= np.int64(data[at + 1 + i]) << i
                at += 8
                if changed == 0:
                    return 1, start
            elif data[at + 1]:
                for i in range(run_bits):
                    run |= np.int64(data[at + 2 + i]) << i
                run += 2
                at += 2 + run_bits
            elif data[at + 2]:
                run = 1
                at += 3
            else:
                kind = data[at + 3] * 2 + data[at + 4]
                place = 0
                for i in range(3):
                    place |= np.int64(data[at + 5 + i]) << i
                at += 5 if kind < 2 else 8
                if kind == 0:
                    changed = 127
                elif kind == 1:
                    changed = above
                else:
                    changed = 3 << place if kind == 2 else 1 << place
                if changed == 0 or changed > 127:
                    return 1, start
            if run > plane:
                return 1, start
            for _ in range(run):
                plane -= 1
                planes[plane] = above
            if run == 0:
                plane -= 1
                above ^= changed
                planes[plane] = above
        if at > end or plane > 0:
            return 0, end + 1
        first = (first ^ (1 << (bits - 1))) - (1 << (bits - 1))
        words[block, 0] = first
        for i in range(7):
            difference = np.int64(0)
            for plane in range(n_planes):
                difference |= (planes[plane] >> i & 1) << plane
            difference = (difference ^ (1 << bits)) - (1 << bits)
            words[block, i + 1] = words[block, i] + difference
    return 0, at


@kernel
def take_zeros(data, run_bits, mask):
    # data u8: a bit each, with 64 to spare; mask u8 [n], zeros, <- ones where not zero -> next bit,
    # beyond the end if the stream is cut; places found
    at, done, end = 0, 0, data.size - SPARE
    while done < mask.size and at < end:
        if data[at]:
            mask[done] = 1
            done += 1
            at += 1
        else:
            run = 1
            for i in range(run_bits):
                run += np.int64(data[at + 1 + i]) << i
            done += run
            at += 1 + run_bits
    if done < mask.size:
        return end + 1, done
    return at, done
