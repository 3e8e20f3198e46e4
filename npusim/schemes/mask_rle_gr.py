# SPDX-License-Identifier: Apache-2.0
"""Zero runs and non-zero weights, each Golomb-Rice coded: the stream as [UDC] describes it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from npusim.errors import StreamError
from npusim.schemes.base import Scheme, Values
from npusim.schemes.bitstream import BitReader, BitWriter, rice_bits
from npusim.schemes.decoder import Decoder, Symbols
from npusim.schemes.statistics import (
    CODE_MAX,
    CODES,
    VALUE_MAX,
    Int64Array,
    nonzero_codes,
    value_counts,
    zero_runs,
)

_K_BITS = 4


@dataclass(frozen=True, slots=True)
class MaskRleGr(Scheme):
    """Before each non-zero the number of zeros, then the non-zero; zeros at the end are one run.

    A header holds log2 of the two divisors, 4 bits each, the best ones. Non-zeros 1, -1, 2, -2 ...
    are coded as 0, 1, 2, 3 ...; a code is zeros for the quotient, a one, and the remainder.

    Source: [UDC] section 2, "a binary mask marking non-zero elements (run-length and Golomb-Rice
    compressed), and the non-zero values (Golomb-Rice compressed)".
    Differs: Ethos-U's stream itself is `ethos-u-mlw`.

    >>> MaskRleGr().encode([0, 0, 1, 0]).hex()
    '002c'
    """

    name: ClassVar[str] = "mask-rle-gr"

    @property
    def decoder(self) -> Decoder:
        """A run and a non-zero a cycle, each with a zero counter and a shifter."""
        return Decoder(
            symbol="run and non-zero",
            bits_per_cycle=32,
            weights_per_cycle=16,
            area_ge_low=2000,
            area_ge_high=6000,
        )

    def _size(self, values: Values) -> int:
        runs, counts = zero_runs(values), value_counts(values)
        counts[VALUE_MAX] = 0
        lengths, n_runs = runs.lengths, runs.counts
        if runs.last:
            lengths, n_runs = np.append(lengths, runs.last), np.append(n_runs, 1)
        bits = rice_bits(lengths, n_runs)[1] + rice_bits(CODES, counts)[1]
        return -(-(2 * _K_BITS + bits) // 8)

    def _encode(self, values: Values) -> bytes:
        runs, codes = split(values)
        k_run, k_code = best_k(runs), best_k(codes)
        out = BitWriter()
        out.fields([k_run, k_code], _K_BITS)
        put_pairs(out, runs, codes, k_run, k_code)
        return out.to_bytes()

    def _decode(self, stream: bytes, n: int) -> Values:
        reader = BitReader(stream)
        k_run, k_code = reader.fields(2, _K_BITS).tolist()
        values = take_pairs(reader, n, k_run, k_code, CODE_MAX)
        reader.finish()
        return values

    def _symbols(self, values: Values) -> Symbols:
        runs, codes = split(values)
        return pair_symbols(runs, codes, best_k(runs), best_k(codes))


def split(values: Values) -> tuple[Int64Array, Int64Array]:
    """Zero runs, the one at the end among them if there is one, and codes of the non-zeros."""
    places = np.flatnonzero(values)
    runs = np.diff(places, prepend=-1) - 1
    last = values.size - 1 - (int(places[-1]) if places.size else -1)
    return np.append(runs, [last] if last else []).astype(np.int64), nonzero_codes(values[places])


def best_k(symbols: Int64Array) -> int:
    """log2 of the divisor with which they take the least bits."""
    return rice_bits(symbols, np.ones_like(symbols))[0]


def put_pairs(out: BitWriter, runs: Int64Array, codes: Int64Array, k_run: int, k_code: int) -> None:
    """Append runs and codes in turn; there may be one run more."""
    pairs = np.zeros((runs.size, 2, 2), np.int64)  # [pair, run or non-zero, unary or rest]
    lengths = np.zeros_like(pairs)
    for at, (symbols, k) in enumerate(((runs, k_run), (codes, k_code))):
        lengths[: symbols.size, at, 0] = symbols >> k
        lengths[: symbols.size, at, 1] = k + 1
        pairs[: symbols.size, at, 1] = 1 | (symbols & ((1 << k) - 1)) << 1
    out.codes(pairs, lengths)


def take_pairs(reader: BitReader, n: int, k_run: int, k_code: int, most: int) -> Values:
    """The `n` weights of what `put_pairs` appended, where no code is above `most`.

    Raises:
        StreamError: the stream ends before, or a run or a code is too large.
    """
    from npusim.schemes.run_kernels import take_runs

    if n > reader.end << k_run:  # more than all bits can say
        raise reader.truncated()
    values = np.empty(n, np.int16)
    status, at = take_runs(reader.words, reader.at, reader.end, k_run, k_code, most, values)
    reader.at = int(at)
    if status == -1:
        raise reader.truncated()
    if status == -2:
        raise StreamError("runs and weights must be in range, got a larger code", int(at))
    return values


def pair_symbols(runs: Int64Array, codes: Int64Array, k_run: int, k_code: int) -> Symbols:
    """A run and a non-zero at a time."""
    bits, weights = (runs >> k_run) + 1 + k_run, runs.copy()
    bits[: codes.size] += (codes >> k_code) + 1 + k_code
    weights[: codes.size] += 1
    return Symbols.of(bits, weights)
