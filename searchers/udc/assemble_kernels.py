# SPDX-License-Identifier: Apache-2.0
"""Kernels of `searchers.udc.assemble`: the weights of relaxed layers, and their gradients.

A weight is ``(a*theta + e*sign(theta) + sum_b d_b*n_b) * kept[level] * column``, where ``n_b =
round(clip((theta - sign(theta)*beta) / step_b))`` are whole levels. All loops are over pieces of
`PIECE` weights in buffers that stay in the first cache, without branches, so that they become
vector instructions. Pieces are slices: an index that is a sum might be negative, for all that the
compiler knows, and it would take one weight at a time. Sums over weights keep one running sum for
each place in a piece, because the compiler may not reorder floats. Adding and subtracting
``1.5 * 2**23`` rounds half to even.
"""

from __future__ import annotations

import numpy as np

from npusim._jit import kernel

PIECE = 512
ROUND = np.float32(12582912.0)
ONE = np.float32(1.0)
ZERO = np.float32(0.0)


@kernel
def repeated(factors, first, width, n):
    """f32 [n]: `width` of the factors f32 [C], from the first on, again and again."""
    tiled = np.empty(n, np.float32)
    for j in range(n):
        tiled[j] = factors[first + j % width]
    return tiled


@kernel
def assemble(theta, level, layers, formats, mixed, kept, columns, weights):
    """Weights of all layers and samples.

    theta f32 [N], level u8 [N]; layers i64 [L, 4]: first weight, weights, columns, first column;
    formats f32 [L, 2 + 3*B]: beta, sign scale, then of each format 1/step, levels, range; mixed
    f32 [S, L, 2 + B]: of theta, of sign(theta) (beta's part included), of the levels of each
    format; kept f32 [S, L, K]: by level; columns f32 [S, C]; weights f32 [S, N], is written.
    """
    value = np.empty(PIECE, np.float32)
    inside = np.empty(PIECE, np.float32)
    n_formats = mixed.shape[2] - 2
    for s in range(mixed.shape[0]):
        for at in range(layers.shape[0]):
            first, n, width, column = layers[at, 0], layers[at, 1], layers[at, 2], layers[at, 3]
            tile = width * max(1, PIECE // width)
            tiled = repeated(columns[s], column, width, tile)
            lut = kept[s, at]
            beta, of_theta, of_sign = formats[at, 0], mixed[s, at, 0], mixed[s, at, 1]
            done = 0
            while done < n:
                j0 = done % tile
                m = min(PIECE, n - done, tile - j0)
                here = slice(first + done, first + done + m)
                dense, at_level, out = theta[here], level[here], weights[s, here]
                column_of = tiled[j0 : j0 + m]
                for i in range(m):
                    x = dense[i]
                    sign = ONE if x >= ZERO else -ONE
                    value[i] = of_theta * x + of_sign * sign
                    inside[i] = x - sign * beta
                for b in range(n_formats):
                    scale, top = formats[at, 2 + 3 * b], formats[at, 3 + 3 * b]
                    step = mixed[s, at, 2 + b]
                    for i in range(m):
                        y = min(max(inside[i] * scale, -top), top)
                        value[i] += step * ((y + ROUND) - ROUND)
                for i in range(m):
                    out[i] = value[i] * lut[at_level[i]] * column_of[i]
                done += m


@kernel
def assemble_back(theta, level, layers, formats, mixed, kept, columns, outputs):
    """Gradients, given those of the weights; arguments as of `assemble`, then outputs, a tuple:

    grad f32 [S, N]: of the weights; the others are added to: of theta f32 [N]; sums f32
    [S, L, 2 + 2*B]: of t*theta, t*sign(theta), t*n_b and t*inside_b*(theta - sign*beta) with
    t = grad*kept*column; of kept f32 [S, L, K]; of columns f32 [S, C].
    """
    grad, theta_grad, shares, sums, kept_grad, column_grad = outputs
    value = np.empty(PIECE, np.float32)
    inside = np.empty(PIECE, np.float32)
    t = np.empty(PIECE, np.float32)
    passed = np.empty(PIECE, np.float32)
    other = np.empty(PIECE, np.float32)
    keeps = np.empty(PIECE, np.float32)
    n_formats = mixed.shape[2] - 2
    n_sums = 2 + 2 * n_formats
    running = np.empty((n_sums, PIECE), np.float32)
    bins = np.empty((kept.shape[2], 8), np.float32)
    for s in range(mixed.shape[0]):
        for at in range(layers.shape[0]):
            first, n, width, column = layers[at, 0], layers[at, 1], layers[at, 2], layers[at, 3]
            tile = width * max(1, PIECE // width)
            tiled = repeated(columns[s], column, width, tile)
            of_columns = np.zeros(tile, np.float32)
            running[:] = ZERO
            bins[:] = ZERO
            lut = kept[s, at]
            beta, of_theta, of_sign = formats[at, 0], mixed[s, at, 0], mixed[s, at, 1]
            done = 0
            while done < n:
                j0 = done % tile
                m = min(PIECE, n - done, tile - j0)
                here = slice(first + done, first + done + m)
                dense, at_level, slope = theta[here], level[here], grad[s, here]
                column_of, of_column = tiled[j0 : j0 + m], of_columns[j0 : j0 + m]
                of_dense = theta_grad[here]
                for i in range(m):
                    x = dense[i]
                    sign = ONE if x >= ZERO else -ONE
                    other[i] = sign
                    value[i] = of_theta * x + of_sign * sign
                    inside[i] = x - sign * beta
                for i in range(m):
                    keeps[i] = lut[at_level[i]]
                for i in range(m):
                    t[i] = slope[i] * column_of[i] * keeps[i]
                for i in range(m):
                    passed[i] = t[i] * shares[s, at, 0]
                theta_sum, sign_sum = running[0], running[1]
                for i in range(m):
                    theta_sum[i] += t[i] * dense[i]
                for i in range(m):
                    sign_sum[i] += t[i] * other[i]
                for b in range(n_formats):
                    scale, top = formats[at, 2 + 3 * b], formats[at, 3 + 3 * b]
                    most, part = formats[at, 4 + 3 * b], shares[s, at, 1 + b]
                    step = mixed[s, at, 2 + b]
                    levels_sum, inside_sum = running[2 + 2 * b], running[3 + 2 * b]
                    for i in range(m):
                        y = min(max(inside[i] * scale, -top), top)
                        y = (y + ROUND) - ROUND
                        value[i] += step * y
                        other[i] = y
                    for i in range(m):
                        levels_sum[i] += t[i] * other[i]
                    for i in range(m):
                        other[i] = t[i] if abs(inside[i]) <= most else ZERO
                    for i in range(m):
                        inside_sum[i] += other[i] * inside[i]
                    for i in range(m):
                        passed[i] += part * other[i]
                for i in range(m):
                    of_dense[i] += passed[i]
                for i in range(m):
                    passed[i] = slope[i] * value[i]
                for i in range(m):
                    of_column[i] += passed[i] * keeps[i]
                for i in range(m):
                    value[i] = passed[i] * column_of[i]
                for i in range(m):
                    bins[at_level[i], i & 7] += value[i]
                done += m
            for q in range(n_sums):
                total = ZERO
                for i in range(PIECE):
                    total += running[q, i]
                sums[s, at, q] = total
            for k in range(kept.shape[2]):
                total = ZERO
                for i in range(8):
                    total += bins[k, i]
                kept_grad[s, at, k] = total
            for j in range(tile):
                column_grad[s, column + j % width] += of_columns[j]
