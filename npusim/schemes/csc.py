# SPDX-License-Identifier: Apache-2.0
"""Compressed sparse columns: `csr` of the transposed matrix."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from npusim.errors import StreamError
from npusim.schemes.base import Scheme, Values
from npusim.schemes.csr import ROW_MAX, Csr
from npusim.schemes.decoder import Decoder, Symbols

_COUNT_BYTES = 4


@dataclass(frozen=True, slots=True)
class Csc(Scheme):
    """How many weights there are in 32 bits, then what `csr` makes of the columns.

    Attributes:
        row_weights: weights of a row, 1..65536: as many columns; the last row is filled up with
            zeros. At most 65536 rows.
        bits: width of a weight, 1..9.

    >>> Csc(row_weights=2).encode([0, 3, 0, 0]).hex()
    '04000000000000000000000001000000000003'
    """

    name: ClassVar[str] = "csc"

    row_weights: int = 256
    bits: int = 8

    def __post_init__(self) -> None:
        Csr(self.row_weights, bits=self.bits)  # refuses what does not fit

    @property
    def value_range(self) -> tuple[int, int]:
        """All numbers of `bits` bits in two's complement."""
        return Csr(bits=self.bits).value_range

    @property
    def decoder(self) -> Decoder:
        """As that of `csr`."""
        return Csr(bits=self.bits).decoder

    @property
    def lossless(self) -> bool:
        """False: there may be too many rows."""
        return False

    def _refusal(self, values: Values) -> str | None:
        n_rows = -(-values.size // self.row_weights)
        return None if n_rows <= ROW_MAX else f"have at most {ROW_MAX} rows, got {n_rows}"

    def _columns(self, n: int) -> Csr:
        return Csr(max(1, -(-n // self.row_weights)), bits=self.bits)

    def _turned(self, values: Values) -> Values:
        rows = -(-values.size // self.row_weights)
        padded = np.zeros(rows * self.row_weights, np.int16)
        padded[: values.size] = values
        return np.ascontiguousarray(padded.reshape(rows, self.row_weights).T).ravel()

    def _size(self, values: Values) -> int:
        return _COUNT_BYTES + self._columns(values.size).size(self._turned(values))

    def _encode(self, values: Values) -> bytes:
        count = values.size.to_bytes(_COUNT_BYTES, "little")
        return count + self._columns(values.size).encode(self._turned(values))

    def _decode(self, stream: bytes, n: int) -> Values:
        found = int.from_bytes(stream[:_COUNT_BYTES], "little")
        if len(stream) < _COUNT_BYTES or found != n:
            raise StreamError(f"stream must hold {n} weights, got {found}", 0)
        rows = -(-n // self.row_weights)
        if rows > ROW_MAX:
            raise StreamError(f"stream must hold at most {ROW_MAX} rows, got {rows}", 0)
        try:
            turned = self._columns(n).decode(stream[_COUNT_BYTES:], rows * self.row_weights)
        except StreamError as error:
            message = str(error).removesuffix(f" (at bit {error.bit_offset})")
            raise StreamError(message, error.bit_offset + 8 * _COUNT_BYTES) from None
        values = np.ascontiguousarray(turned.reshape(self.row_weights, rows).T).ravel()
        if values[n:].any():
            raise StreamError(f"stream must hold {n} weights, got more", 8 * len(stream))
        return values[:n]

    def _symbols(self, values: Values) -> Symbols:
        turned = self._columns(values.size).symbols(self._turned(values))
        # zeros that fill up the last row are not handed on
        ends = np.minimum(np.cumsum(turned.weights, dtype=np.int64), values.size)
        return Symbols.of(turned.bits, np.diff(ends, prepend=0))
