# SPDX-License-Identifier: Apache-2.0
"""Kernels of `npusim.cost.weight_sizes`: bytes of weights that are not known; twin: real streams.

row i64 [35] and npu i64 [24] as `npusim.cost.columns` lays them out; statistics f64 [2]: entropy of
a weight in bits, negative for weights that the compiler makes, and part of the weights that are
zero. law has the constants of `npusim.weights.expected`: f64 [1 + n, 1 + m] with knots of padding
in the first column, of entropy in the first row, and bits beside the entropy in between; f64 [4]:
bits of every stream, for every different value in it, and of a coded value that the compiler makes;
what all but the last are multiplied by.

A table of slices (heads i64 [n_ops], lines i64 [n, LINE_COLUMNS], sizes i64 [m, 2]) has the bytes
of weights that are known: of streams, and of biases and scales, slice by slice. heads is the first
line of each operation, -1 if it has none.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from npusim._jit import leaf_kernel
from npusim.cost import columns as col

_SUB_KERNEL_MAX = 8
_CHANNEL_BYTES = 10
_ALIGN_BYTES = 16
_ENTROPY, _ZEROS = 0, 1
_STREAM_BITS, _VALUE_BITS, _MADE_BITS, _FACTOR = 0, 1, 2, 3

BLOCK_DEPTH, FIRST, NEXT, AT, COUNT, NEXT_LINE = range(6)
LINE_COLUMNS = 6
"""Depth of the ofm block; channels of the first slice and of the next ones; where their sizes
begin, and how many they are; the operation's next line, or -1."""


@leaf_kernel
def padded(value: Any, step: Any) -> Any:
    """The least multiple of step that is not less; both i64."""
    return (value + step - 1) // step * step


@leaf_kernel
def kernel_elements(row: Any, step: Any) -> Any:
    """Elements of a kernel, those of each sub-kernel padded to a multiple of step; all i64."""
    rows = max(_SUB_KERNEL_MAX // row[col.DILATION_HEIGHT], 1)
    columns = max(_SUB_KERNEL_MAX // row[col.DILATION_WIDTH], 1)
    total = 0
    for y in range(0, row[col.KERNEL_HEIGHT], rows):
        height = min(row[col.KERNEL_HEIGHT] - y, rows)
        for x in range(0, row[col.KERNEL_WIDTH], columns):
            total += padded(height * min(row[col.KERNEL_WIDTH] - x, columns), step)
    return total


@leaf_kernel
def coded_weights(row: Any, npu: Any, depth: Any) -> Any:
    """Values in the stream of one core that computes `depth` channels, padding included; i64."""
    wide = row[col.IFM_BITS] == 16
    if row[col.UNIT] == col.DEPTHWISE:
        return padded(depth, npu[col.OFM_UBLOCK_DEPTH]) * kernel_elements(row, 4)
    if row[col.TRAVERSAL] == col.PART_KERNEL:
        elements = kernel_elements(row, 2 if wide else 4)
        ifm_depth = padded(row[col.IFM_DEPTH], npu[col.IFM_UBLOCK_DEPTH])
    else:
        elements = kernel_elements(row, 1)
        ifm_depth = padded(row[col.IFM_DEPTH], 16 if wide else 32)
    return padded(depth, npu[col.OFM_UBLOCK_DEPTH]) * elements * ifm_depth


@leaf_kernel
def real_weights(row: Any, depth: Any) -> Any:
    """Weights of `depth` channels, i64."""
    n = depth * row[col.KERNEL_HEIGHT] * row[col.KERNEL_WIDTH]
    return n if row[col.UNIT] == col.DEPTHWISE else n * row[col.IFM_DEPTH]


@leaf_kernel
def surprise(part: Any) -> Any:
    """-part * log2(part), f64; 0 for nothing."""
    return -part * np.log2(part) if part > 0.0 else 0.0


@leaf_kernel
def coded_entropy(entropy: Any, zeros: Any, padding: Any) -> Any:
    """Bits of a coded value, if a part `padding` of them are zeros beside the weights; all f64."""
    all_zeros = zeros + padding * (1.0 - zeros)
    others = (1.0 - padding) * (entropy - surprise(zeros))
    return surprise(all_zeros) + max(others, 0.0) + (1.0 - zeros) * surprise(1.0 - padding)


@leaf_kernel
def between(x: Any, knots: Any) -> Any:
    """Where x f64 lies among knots f64 [n]: index and part of the way to the next one."""
    last = knots.size - 2
    i = 0
    while i < last and x >= knots[i + 1]:
        i += 1
    way = (x - knots[i]) / (knots[i + 1] - knots[i])
    return i, min(max(way, 0.0), 1.0)


@leaf_kernel
def stream_bytes(n: Any, n_coded: Any, statistics: Any, law: Any) -> Any:
    """Bytes of the stream of n weights and the padding that makes them n_coded; all i64."""
    table, fixed = law
    padding = 1.0 - n / n_coded
    bits = coded_entropy(statistics[_ENTROPY], statistics[_ZEROS], padding)
    i, up = between(padding, table[1:, 0])
    j, right = between(bits, table[0, 1:])
    low = table[i + 1, j + 1] * (1.0 - right) + table[i + 1, j + 2] * right
    high = table[i + 2, j + 1] * (1.0 - right) + table[i + 2, j + 2] * right
    total = n_coded * max(bits + low * (1.0 - up) + high * up, 0.0)
    total += fixed[_STREAM_BITS] + fixed[_VALUE_BITS] * min(2.0**bits, float(n))
    total *= fixed[_FACTOR]
    if statistics[_ENTROPY] < 0.0:
        total = n_coded * fixed[_MADE_BITS] + fixed[_STREAM_BITS]
    return padded(int(np.ceil(total / 8.0)), _ALIGN_BYTES)


@leaf_kernel
def slice_bytes(row: Any, npu: Any, depth: Any, statistics: Any, law: Any) -> Any:
    """Bytes of the streams, and of biases and scales, of a slice of `depth` channels; i64."""
    n_cores = npu[col.N_CORES]
    streams, scales = 0, 0
    for core in range(min(n_cores, depth)):
        own = (depth - core + n_cores - 1) // n_cores
        n_coded = coded_weights(row, npu, own)
        streams += stream_bytes(real_weights(row, own), n_coded, statistics, law)
        scales += padded(own * _CHANNEL_BYTES, _ALIGN_BYTES)
    return streams, scales


@leaf_kernel
def find_slices(op: Any, block_depth: Any, first: Any, step: Any, table: Any) -> Any:
    """Where the sizes of an operation's slices begin, and how many they are; 0 if not known. All
    i64; first and step: channels of the first slice and of the next ones."""
    heads, lines, _ = table
    at = heads[op]
    while at >= 0:
        line = lines[at]
        if line[BLOCK_DEPTH] == block_depth and line[FIRST] == first and line[NEXT] == step:
            return line[AT], line[COUNT]
        at = line[NEXT_LINE]
    return 0, 0
