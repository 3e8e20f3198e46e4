# SPDX-License-Identifier: Apache-2.0
"""The fast weights of Ethos-U85: two, four or eight bits a weight after a header of 256."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from npusim.errors import StreamError
from npusim.schemes.base import Scheme, Values
from npusim.schemes.bitstream import BitReader, BitWriter
from npusim.schemes.decoder import Decoder, Symbols
from npusim.schemes.statistics import VALUE_MAX, value_counts

_RESERVED_BITS = 102
_ENTRIES = 16
_UNIT_BYTES = 32


@dataclass(frozen=True, slots=True)
class EthosU85Fast(Scheme):
    """Places in a table of up to 4 or 16 values, or weights plus `zero_adjust`.

    Header: whether raw, whether the table has at most 4 values, 102 zeros, zero_adjust 8 bits, 16
    values of 9 bits, folded (`npusim.weights.format`), in the order of their first appearance.
    Weights of more than 16 values must lie within 256 of one another.

    Source: [VELA] regor 5.2.0.

    >>> EthosU85Fast().size([0] * 1000)
    288
    """

    name: ClassVar[str] = "ethos-u85-fast"

    @property
    def lossless(self) -> bool:
        """False: weights of many values may lie too far apart."""
        return False

    @property
    def decoder(self) -> Decoder:
        """64 weights a cycle of a small table, 32 otherwise."""
        return Decoder(
            symbol="weight",
            steps_per_cycle=64.0,
            bits_per_cycle=256,
            weights_per_cycle=64,
            table_bits=_ENTRIES * 9,
            area_ge_low=2000,
            area_ge_high=6000,
            source="rate: [VELA] regor 5.2.0; area: engineering estimate",
            seek="weight",
        )

    def _refusal(self, values: Values) -> str | None:
        if _width(values) < 8 or int(values.max()) - int(values.min()) < 256:
            return None
        return (
            f"be of at most {_ENTRIES} values or less than 256 apart, "
            f"got {values.min()} and {values.max()}"
        )

    def _conditioned(self, values: Values) -> Values:
        return values if self._refusal(values) is None else values.clip(-128, 127)

    def _size(self, values: Values) -> int:
        n_bits = 256 + values.size * _width(values)
        return _UNIT_BYTES * -(-n_bits // (8 * _UNIT_BYTES))

    def _encode(self, values: Values) -> bytes:
        width = _width(values)
        raw = width == 8
        adjust = max(0, -int(values.min(initial=0))) if raw else 0
        wide = values.astype(np.int64)
        found, first = np.unique(wide, return_index=True)
        entries = np.zeros(_ENTRIES, np.int64)
        if not raw:
            table = found[np.argsort(first)]
            entries[: table.size] = 2 * np.abs(table) + (table < 0)
            places = np.zeros(2 * VALUE_MAX + 1, np.int64)
            places[table + VALUE_MAX] = np.arange(table.size)
            wide = places[wide + VALUE_MAX]
        out = BitWriter()
        out.fields([raw, width == 2], 1)
        out.codes(0, _RESERVED_BITS)
        out.fields([adjust], 8)
        out.fields(entries, 9)
        out.fields(wide + adjust, width)
        out.align(8 * _UNIT_BYTES)
        return out.to_bytes()

    def _decode(self, stream: bytes, n: int) -> Values:
        reader = BitReader(stream)
        raw, small = reader.fields(2, 1).tolist()
        if reader.fields(_RESERVED_BITS, 1).any():
            raise StreamError("reserved bits must be 0, got a 1", 2)
        adjust = reader.field(8)
        folded = reader.fields(_ENTRIES, 9)
        entries = np.where(folded & 1, -(folded >> 1), folded >> 1)
        if raw and small:
            raise StreamError("raw weights must have no table, got a small one", 1)
        codes = reader.fields(n, 8 if raw else 2 if small else 4)
        reader.align(8 * _UNIT_BYTES)
        reader.finish()
        values = codes - adjust if raw else entries[codes]
        return values.astype(np.int16)

    def _symbols(self, values: Values) -> Symbols:
        width = _width(values)
        return Symbols.of(np.full(values.size, width), 1, 1 if width == 2 else 2)


def _width(values: Values) -> int:
    """Bits of a weight."""
    n = int(np.count_nonzero(value_counts(values)))
    return 2 if n <= 4 else 4 if n <= _ENTRIES else 8
