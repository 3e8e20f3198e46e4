# SPDX-License-Identifier: Apache-2.0
"""How often a decoder goes round its loop: the chunk iterations of weight streams.

The format is written in chunks: an iteration holds up to twelve positions of weight indices and of
zero runs side by side, and the remainders of the symbols that the iteration before completed. A
decoder that works off one iteration a cycle is the natural model of its speed; what Arm publishes
of Ethos-U85, 8 to 32 weights a cycle, follows it (`npusim.schemes.decoder_simulation`).
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from npusim.weights import format as f
from npusim.weights.estimate import checked_counts, counted
from npusim.weights.stream import StreamDecoder, plan

Int64Array = npt.NDArray[np.int64]
Int32Array = npt.NDArray[np.int32]


def chunk_iterations(stream: Any, max_weights: int | None = None) -> Int64Array:
    """Chunk iterations of each slice of a stream, the last one, of remainders only, included.

    Args:
        stream, max_weights: as `npusim.weights.decode`.

    Returns:
        int64, shape [n_slices], each at least 2.

    Raises:
        StreamError, ConfigError: as `npusim.weights.decode`.

    >>> from npusim.weights import encode
    >>> chunk_iterations(encode([5] * 24 + [-5] * 12, encoder="regor")).tolist()
    [4]
    """
    decoder = StreamDecoder(stream, max_weights)
    decoder.run()
    return _of_stream(decoder, _no_trace())


def chunk_trace(stream: Any, max_weights: int | None = None) -> Int32Array:
    """What each chunk iteration of a stream reads and gives, slice after slice.

    Args:
        stream, max_weights: as `npusim.weights.decode`.

    Returns:
        int32, shape [n_iterations, 2]: bits read, headers not among them; weights known, zeros of
        runs included.

    Raises:
        StreamError, ConfigError: as `npusim.weights.decode`.
    """
    decoder = StreamDecoder(stream, max_weights)
    decoder.run()
    trace = np.empty((int(_of_stream(decoder, _no_trace()).sum()), 2), np.int32)
    _of_stream(decoder, trace)
    return trace


def _no_trace() -> Int32Array:
    return np.empty((0, 2), np.int32)


def _of_stream(decoder: StreamDecoder, trace: Int32Array) -> Int64Array:
    from npusim.weights import decode_kernels as k
    from npusim.weights.chunk_kernels import stream_chunks

    iterations = np.empty(len(decoder.info), np.int64)
    done = 0
    for number, row in enumerate(decoder.info):
        header = np.empty(4, np.int64)
        n, raw = int(row[k.N_WEIGHTS]), row[k.WDIV] == f.WDIV_RAW
        header[:] = row[k.WEIGHT_REST] // n, row[k.WTRUNC], raw, row[k.ZDIV]
        palette_bits = f.PALETTE_HEADER_BITS + row[k.N_ENTRIES] * row[k.PALETTE_BITS]
        at = int(row[k.BIT]) + f.HEADER_BITS + int(row[k.NEW_PALETTE] * palette_bits)
        iterations[number] = stream_chunks(
            decoder.words, at, n, int(row[k.N_RUNS]), header, trace[done:]
        )
        done += int(iterations[number]) if trace.size else 0
    return iterations


def planned_iterations(
    weights: npt.ArrayLike, encoder: str = "regor", **options: Any
) -> Int64Array:
    """`chunk_iterations` of what `npusim.weights.encode` would write, without writing it.

    Args:
        weights, encoder, **options: as `npusim.weights.encode`.

    Returns:
        int64, shape [n_slices].

    Raises:
        ConfigError, UnknownNameError: as `npusim.weights.encode`.

    >>> planned_iterations([5] * 24 + [-5] * 12).tolist()
    [4]
    """
    return _of_plan(weights, encoder, options, _no_trace())


def planned_trace(weights: npt.ArrayLike, encoder: str = "regor", **options: Any) -> Int32Array:
    """`chunk_trace` of what `npusim.weights.encode` would write (arguments: see there)."""
    n = int(planned_iterations(weights, encoder, **options).sum())
    trace = np.empty((n, 2), np.int32)
    _of_plan(weights, encoder, options, trace)
    return trace


def _of_plan(
    weights: npt.ArrayLike, encoder: str, options: dict[str, Any], trace: Int32Array
) -> Int64Array:
    made = plan(weights, encoder, **options)
    if made is None:
        return np.empty(0, np.int64)
    from npusim.weights.chunk_kernels import plan_chunks

    iterations = np.empty(len(made.slices), np.int64)
    plan_chunks(made.sections, made.indices, made.runs, made.slices, iterations, trace)
    return iterations


def estimate_iterations_from_counts(
    counts: npt.ArrayLike, padding: npt.ArrayLike = (), encoder: str = "regor"
) -> int:
    """Estimated chunk iterations of a tensor's one stream, whose order is not known.

    Args:
        counts, padding, encoder: as `npusim.weights.estimate_size_from_counts`.

    Returns:
        Iterations; 0 for no weights. Weights and runs are taken never to wait for one another, and
        one configuration to code all; `planned_iterations` has the exact number.

    Raises:
        ConfigError, UnknownNameError: as `npusim.weights.estimate_size_from_counts`.

    >>> from npusim.weights import value_counts
    >>> estimate_iterations_from_counts(value_counts([5] * 24 + [-5] * 12))
    4
    """
    array, runs = checked_counts(counts, padding, encoder)
    from npusim.weights.chunk_kernels import iterations_of_counts

    return counted(iterations_of_counts(array, runs, int(encoder == "regor")), array, runs)
