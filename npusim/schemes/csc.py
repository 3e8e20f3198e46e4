# SPDX-License-Identifier: Apache-2.0
"""Compressed sparse columns: `csr` of the transposed matrix."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from npusim.schemes.base import Scheme, Values
from npusim.schemes.csr import ROW_MAX, Csr
from npusim.schemes.decoder import Decoder, Symbols


@dataclass(frozen=True, slots=True)
class Csc(Scheme):
    """Column pointers; then a row and a weight for each non-zero, column by column.

    Attributes:
        row_weights: weights of a row, 1..65536: as many columns; the last row is filled up with
            zeros. At most 65536 rows.
        bits: width of a weight, 1..9.

    >>> Csc(row_weights=2).encode([0, 3, 0, 0]).hex()
    '000000000000000001000000000003'
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
        return self._columns(values.size).size(self._turned(values))

    def _encode(self, values: Values) -> bytes:
        return self._columns(values.size).encode(self._turned(values))

    def _decode(self, stream: bytes, n: int) -> Values:
        rows = -(-n // self.row_weights)
        turned = self._columns(n).decode(stream, rows * self.row_weights)
        values = np.ascontiguousarray(turned.reshape(self.row_weights, rows).T).ravel()
        return values[:n]

    def _symbols(self, values: Values) -> Symbols:
        turned = self._columns(values.size).symbols(self._turned(values))
        # zeros that fill up the last row are not handed on
        ends = np.minimum(np.cumsum(turned.weights, dtype=np.int64), values.size)
        return Symbols.of(turned.bits, np.diff(ends, prepend=0))
