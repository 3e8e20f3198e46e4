# SPDX-License-Identifier: Apache-2.0
"""Compressed sparse rows: each non-zero with its column, and where each row begins."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from npusim._arguments import integer
from npusim.errors import StreamError
from npusim.schemes.base import Scheme, Values, signed_range
from npusim.schemes.bitstream import BitReader, BitWriter, checked_levels
from npusim.schemes.decoder import Decoder, Symbols

ROW_MAX = 65536
_POINTER_BITS = 32


@dataclass(frozen=True, slots=True)
class Csr(Scheme):
    """32-bit row pointers, one more than rows; then a column and a weight for each non-zero.

    Attributes:
        row_weights: weights of a row, 1..65536; the last row may have fewer.
        index_bits: width of a column; must hold ``row_weights - 1``.
        bits: width of a weight, 1..9.

    >>> Csr(row_weights=2).encode([0, 3, 0, 0]).hex()
    '000000000100000001000000010003'
    """

    name: ClassVar[str] = "csr"

    row_weights: int = 256
    index_bits: int = 16
    bits: int = 8

    def __post_init__(self) -> None:
        row = integer(f"row_weights of scheme {self.name!r}", self.row_weights, 1, ROW_MAX)
        least = (row - 1).bit_length()
        integer(f"index_bits of scheme {self.name!r}", self.index_bits, max(1, least), 16)
        integer(f"bits of scheme {self.name!r}", self.bits, 1, 9)

    @property
    def value_range(self) -> tuple[int, int]:
        """All numbers of `bits` bits in two's complement."""
        return signed_range(self.bits)

    @property
    def decoder(self) -> Decoder:
        """A non-zero a cycle; the zeros between come free."""
        return Decoder(
            symbol="non-zero",
            bits_per_cycle=32,
            weights_per_cycle=ROW_MAX,
            area_ge_low=500,
            area_ge_high=2000,
            seek="group",
        )

    def _size(self, values: Values) -> int:
        entry_bits = self.index_bits + self.bits
        bits = int(np.count_nonzero(values)) * entry_bits
        return -(-((self._rows(values.size) + 1) * _POINTER_BITS + bits) // 8)

    def _encode(self, values: Values) -> bytes:
        places = np.flatnonzero(values)
        starts = np.arange(self._rows(values.size) + 1) * self.row_weights
        out = BitWriter()
        out.fields(np.searchsorted(places, starts), _POINTER_BITS)
        columns = places % self.row_weights
        weights = values[places].astype(np.int64) & ((1 << self.bits) - 1)
        out.fields(columns | weights << self.index_bits, self.index_bits + self.bits)
        return out.to_bytes()

    def _decode(self, stream: bytes, n: int) -> Values:
        reader = BitReader(stream)
        pointers = reader.fields(self._rows(n) + 1, _POINTER_BITS)
        counts = np.diff(pointers)
        if pointers[0] or (counts < 0).any():
            raise StreamError("row pointers must rise from 0, got others", 0)
        entries = reader.fields(int(pointers[-1]), self.index_bits + self.bits)
        reader.finish()
        columns = entries & ((1 << self.index_bits) - 1)
        places = np.repeat(np.arange(counts.size), counts) * self.row_weights + columns
        if (np.diff(places, prepend=-1) <= 0).any() or (columns >= self.row_weights).any():
            raise reader.error("columns must rise within a row, got others")
        if places.size and places[-1] >= n:
            raise reader.error(f"stream must hold {n} weights, got more")
        half = 1 << (self.bits - 1)
        levels = ((entries >> self.index_bits) ^ half) - half
        values = np.zeros(n, np.int16)
        values[places] = checked_levels(levels, reader, *self.value_range)
        return values

    def _rows(self, n: int) -> int:
        return -(-n // self.row_weights)

    def _symbols(self, values: Values) -> Symbols:
        places = np.flatnonzero(values)
        weights = np.diff(places, prepend=-1, append=values.size - 1)
        bits = np.full(places.size + 1, self.index_bits + self.bits)
        bits[-1] = 0
        return Symbols.of(bits, weights)
