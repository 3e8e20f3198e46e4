# SPDX-License-Identifier: Apache-2.0
"""Range asymmetric numeral systems: order-0 entropy at a table look-up and a product a weight."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import numpy.typing as npt

from npusim._arguments import integer
from npusim.errors import StreamError
from npusim.schemes.base import Scheme, Values
from npusim.schemes.bitstream import BitReader, BitWriter, checked_levels
from npusim.schemes.decoder import Decoder
from npusim.schemes.statistics import VALUE_MAX, value_counts

Int64Array = npt.NDArray[np.int64]

_STATE_BITS = 32
_WORD_BITS = 16
_SYMBOL_BITS = 9


@dataclass(frozen=True, slots=True)
class Rans(Scheme):
    """A table of frequencies, the states, then words of 16 bits as the states need them.

    Table: least weight + 256 and the number of weights from there on, 9 bits each; for each of them
    whether it occurs, and if so its frequency - 1 in `precision` bits.

    Attributes:
        precision: frequencies are of ``1 << precision``, 9..15.
        states: interleaved states, 1..64, which a decoder can work on side by side.

    Source: Duda, arXiv:1311.2540; Giesen, arXiv:1402.3392 for the interleaving.

    >>> Rans(states=1).encode([7, 7]).hex()
    '0703fc7f00800000'
    """

    name: ClassVar[str] = "rans"

    precision: int = 12
    states: int = 2

    def __post_init__(self) -> None:
        integer(f"precision of scheme {self.name!r}", self.precision, 9, 15)
        integer(f"states of scheme {self.name!r}", self.states, 1, 64)

    @property
    def decoder(self) -> Decoder:
        """A weight a cycle and state, with a multiplier and a table of all slots."""
        return Decoder(
            symbol="weight",
            steps_per_cycle=float(self.states),
            bits_per_cycle=_WORD_BITS * self.states,
            weights_per_cycle=self.states,
            table_bits=(9 << self.precision) + 512 * 2 * self.precision,
            area_ge_low=5000 * self.states,
            area_ge_high=10000 * self.states,
        )

    def _size(self, values: Values) -> int:
        if not values.size:
            return 0
        table = _Table.of_counts(value_counts(values), self.precision)
        states = np.empty(self.states, np.int64)
        n_words = table.put(values, states, np.empty(0, np.uint16))
        bits = table.bits + self.states * _STATE_BITS + n_words * _WORD_BITS
        return -(-bits // 8)

    def _encode(self, values: Values) -> bytes:
        if not values.size:
            return b""
        table = _Table.of_counts(value_counts(values), self.precision)
        states = np.empty(self.states, np.int64)
        words = np.empty(values.size + 1, np.uint16)
        n_words = table.put(values, states, words)
        out = BitWriter()
        table.write(out)
        out.fields(states, _STATE_BITS)
        out.fields(words[:n_words][::-1], _WORD_BITS)
        return out.to_bytes()

    def _decode(self, stream: bytes, n: int) -> Values:
        reader = BitReader(stream)
        if not n:
            reader.finish()
            return np.empty(0, np.int16)
        table = _Table.read(reader, self.precision)
        states = reader.fields(self.states, _STATE_BITS)
        words = reader.fields((reader.end - reader.at) // _WORD_BITS, _WORD_BITS)
        if states.min() < 1 << _WORD_BITS:
            raise reader.error(f"states must be at least {1 << _WORD_BITS}, got {states.min()}")
        if (
            n > max(8 * reader.end, 1) << self.precision
        ):  # a weight takes 2**-precision bits or more
            raise reader.truncated()
        symbols = np.empty(n, np.int64)
        used = table.take(words.astype(np.uint16), states, symbols)
        if used < 0:
            raise reader.truncated()
        if used != words.size or (states != 1 << _WORD_BITS).any():
            raise reader.error(f"stream must hold {n} weights, got others")
        reader.finish()
        return checked_levels(symbols + table.first, reader, *self.value_range)


@dataclass(frozen=True)
class _Table:
    """Frequencies of the weights from `first` on, int64, which add up to ``1 << precision``."""

    first: int
    counts: Int64Array
    precision: int

    @classmethod
    def of_counts(cls, counts: Int64Array, precision: int) -> _Table:
        used = np.flatnonzero(counts)
        counts = counts[used[0] : used[-1] + 1]
        return cls(int(used[0]) - VALUE_MAX, frequencies(counts, precision), precision)

    @property
    def bits(self) -> int:
        used = int(np.count_nonzero(self.counts))
        return 2 * _SYMBOL_BITS + self.counts.size + used * self.precision

    @property
    def starts(self) -> Int64Array:
        return np.cumsum(self.counts) - self.counts

    def put(self, values: Values, states: Int64Array, words: npt.NDArray[np.uint16]) -> int:
        from npusim.schemes.rans_kernels import put_symbols

        symbols = values.astype(np.int64) - self.first
        return int(put_symbols(symbols, self.counts, self.starts, self.precision, states, words))

    def take(self, words: npt.NDArray[np.uint16], states: Int64Array, symbols: Int64Array) -> int:
        from npusim.schemes.rans_kernels import take_symbols

        slots = np.repeat(np.arange(self.counts.size), self.counts)
        return int(
            take_symbols(words, self.counts, self.starts, self.precision, states, slots, symbols)
        )

    def write(self, out: BitWriter) -> None:
        out.fields([self.first + 256, self.counts.size], _SYMBOL_BITS)
        used = self.counts > 0
        lengths = np.where(used, 1 + self.precision, 1)
        out.codes(np.where(used, 1 | (self.counts - 1) << 1, 0), lengths)

    @classmethod
    def read(cls, reader: BitReader, precision: int) -> _Table:
        start = reader.at
        first, n = reader.fields(2, _SYMBOL_BITS).tolist()
        counts = np.zeros(n, np.int64)
        for symbol in range(n):
            if reader.field(1):
                counts[symbol] = reader.field(precision) + 1
        if counts.sum() != 1 << precision:
            raise StreamError(
                f"frequencies must add up to {1 << precision}, got {counts.sum()}", start
            )
        return cls(first - 256, counts, precision)


def frequencies(counts: Int64Array, precision: int) -> Int64Array:
    """Frequencies of ``1 << precision`` in all, at least 1 for what occurs, of nearly least bits.

    >>> frequencies(np.array([0, 1, 2, 1000]), precision=9).tolist()
    [0, 1, 1, 510]
    """
    total = 1 << precision
    found: Int64Array = np.maximum(counts * total // counts.sum(), counts > 0)
    while (missing := total - int(found.sum())) != 0:
        step = 1 if missing > 0 else -1
        can = (counts > 0) & (found + step > 0)
        gain = counts * np.log2(np.where(can, found + step, 1) / np.where(can, found, 1))
        found[np.argmax(np.where(can, gain, -np.inf))] += step
    return found
