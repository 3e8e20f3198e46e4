# SPDX-License-Identifier: Apache-2.0
"""A palette of all weights that occur, and each weight's place in it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from npusim.errors import StreamError
from npusim.schemes.base import Scheme, Values
from npusim.schemes.bitstream import BitReader, BitWriter, checked_levels
from npusim.schemes.decoder import Decoder, Symbols
from npusim.schemes.statistics import VALUE_MAX, value_counts

_SIZE_BITS = 9
_ENTRY_BITS = 9


@dataclass(frozen=True, slots=True)
class Palette(Scheme):
    """The palette's size in 9 bits, its entries from the least, then a place a weight.

    Entries have 9 bits, in two's complement; places have as many bits as the palette needs, none
    for one entry. Weights clustered to K (`npusim.weights.cluster`) take ``log2 K`` bits each.

    >>> Palette().encode([5, 5, -1, 5]).hex()
    '02fe1758'
    """

    name: ClassVar[str] = "palette"

    @property
    def decoder(self) -> Decoder:
        """Eight look-ups a cycle."""
        return Decoder(
            symbol="weight",
            steps_per_cycle=8.0,
            bits_per_cycle=72,
            weights_per_cycle=8,
            table_bits=256 * 8,
            area_ge_low=500,
            area_ge_high=2000,
            seek="weight",
        )

    def _size(self, values: Values) -> int:
        n = int(np.count_nonzero(value_counts(values)))
        return -(-(_SIZE_BITS + n * _ENTRY_BITS + values.size * _width(n)) // 8)

    def _encode(self, values: Values) -> bytes:
        entries = np.flatnonzero(value_counts(values))
        places = np.zeros(2 * VALUE_MAX + 1, np.int64)
        places[entries] = np.arange(entries.size)
        out = BitWriter()
        out.fields([entries.size], _SIZE_BITS)
        out.fields(entries - VALUE_MAX, _ENTRY_BITS)
        out.fields(places[values.astype(np.int64) + VALUE_MAX], _width(entries.size))
        return out.to_bytes()

    def _decode(self, stream: bytes, n: int) -> Values:
        reader = BitReader(stream)
        size = reader.field(_SIZE_BITS)
        if (size == 0) != (n == 0) or size > max(n, 1):
            raise StreamError(f"palette of {n} weights must be no larger, got {size} entries", 0)
        entries = checked_levels(reader.signed(size, _ENTRY_BITS), reader, -VALUE_MAX, VALUE_MAX)
        places = reader.fields(n, _width(size))
        reader.finish()
        if n and places.max() >= size:
            raise reader.error(f"places must be below {size}, got {places.max()}")
        return entries[places]

    def _symbols(self, values: Values) -> Symbols:
        width = _width(int(np.count_nonzero(value_counts(values))))
        return Symbols.of(np.full(values.size, width), 1)


def _width(n_entries: int) -> int:
    """Bits of a place."""
    return max(n_entries - 1, 0).bit_length()
