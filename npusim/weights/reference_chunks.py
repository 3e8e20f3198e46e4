# SPDX-License-Identifier: Apache-2.0
"""Chunk iterations of a stream in plain Python: what `chunk_kernels` is held against."""

from __future__ import annotations

from npusim.weights import format as f
from npusim.weights.reference import BitReader, SliceHeader, read_header


def chunk_trace(stream: bytes) -> list[list[tuple[int, int]]]:
    """For each slice of a valid stream, bits read and weights completed in each iteration."""
    reader = BitReader(stream)
    slices = []
    header: SliceHeader | None = None
    while True:
        header = read_header(reader, header)
        if header is not None:
            slices.append(_slice_trace(reader, header))
        elif reader.at == reader.end:
            return slices


def _slice_trace(reader: BitReader, header: SliceHeader) -> list[tuple[int, int]]:
    n = header.n_weights
    n_runs = n + header.new_palette if header.zero_runs else 0
    w_done = z_done = w_rest = z_rest = 0
    trace = []
    while True:
        balance = w_done - z_done if header.zero_runs else 0
        weights_on = balance < f.BALANCE_MAX and w_done < n
        runs_on = header.zero_runs and balance >= 0 and z_done < n_runs
        start, weights, w_new, z_new = reader.at, w_rest, 0, 0
        unary0 = reader.take(f.CHUNK_WEIGHTS) if weights_on and not header.raw else 0
        if runs_on:
            ones = reader.take(header.chunk_run_bits).bit_count()
            z_new = min(header.chunk_run_bits - ones, n_runs - z_done)
            weights += ones << header.zdiv
        if weights_on:
            twos = reader.take(unary0.bit_count()).bit_count()
            w_new = header.chunk_weights - (0 if header.wtrunc else twos)
            w_new = min(w_new, n - w_done)
        reader.take(header.index_bits * w_rest)
        if header.zero_runs:
            weights += sum(reader.take(header.zdiv) for _ in range(z_rest))
        trace.append((reader.at - start, weights))
        w_rest, z_rest = w_new, z_new
        w_done, z_done = w_done + w_new, z_done + z_new
        if not weights_on and not runs_on:
            return trace
