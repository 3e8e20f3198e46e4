# SPDX-License-Identifier: Apache-2.0
"""Groups of entries, a weight beside the zeros before it: the codes of SCNN and EIE."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from npusim._arguments import integer
from npusim.errors import StreamError
from npusim.schemes.base import Scheme, Values, signed_range
from npusim.schemes.bitstream import BitReader, BitWriter, checked_levels
from npusim.schemes.decoder import Symbols
from npusim.schemes.entries import count_entries, entries_of, expand

GROUP_MAX = 65535
_COUNT_BITS = 16


@dataclass(frozen=True, slots=True)
class RelativeIndex(Scheme):
    """First how many entries each group has, 16 bits each, then the entries, run then weight.

    A run of more zeros than the index can say has fillers, entries of weight 0; so have zeros at
    the end of a group.

    Attributes:
        index_bits: width of a run, 1..16.
        bits: width of a weight, 1..9.
        group_weights: weights of a group, whose entries can be decoded by themselves; 1..65535.
    """

    index_bits: int = 4
    bits: int = 8
    group_weights: int = 1024

    def __post_init__(self) -> None:
        integer(f"index_bits of scheme {self.name!r}", self.index_bits, 1, 16)
        integer(f"bits of scheme {self.name!r}", self.bits, 1, 9)
        integer(f"group_weights of scheme {self.name!r}", self.group_weights, 1, GROUP_MAX)

    @property
    def value_range(self) -> tuple[int, int]:
        """All numbers of `bits` bits in two's complement."""
        return signed_range(self.bits)

    @property
    def _run_max(self) -> int:
        return (1 << self.index_bits) - 1

    def _size(self, values: Values) -> int:
        counts = count_entries(values, self._run_max, self.group_weights)
        bits = counts.size * _COUNT_BITS + int(counts.sum()) * (self.index_bits + self.bits)
        return -(-bits // 8)

    def _encode(self, values: Values) -> bytes:
        runs, levels, counts = entries_of(values, self._run_max, self.group_weights)
        out = BitWriter()
        out.fields(counts, _COUNT_BITS)
        weights = levels.astype(np.int64) & ((1 << self.bits) - 1)
        out.fields(runs | weights << self.index_bits, self.index_bits + self.bits)
        return out.to_bytes()

    def _decode(self, stream: bytes, n: int) -> Values:
        reader = BitReader(stream)
        counts = reader.fields(-(-n // self.group_weights), _COUNT_BITS)
        entries = reader.fields(int(counts.sum()), self.index_bits + self.bits)
        reader.finish()
        if n > entries.size << self.index_bits:
            raise StreamError(f"stream must hold {n} weights, got fewer", reader.end)
        half = 1 << (self.bits - 1)
        levels = ((entries >> self.index_bits) ^ half) - half
        runs = entries & self._run_max
        values = expand(runs, levels, counts, n, reader, self.group_weights)
        return checked_levels(values, reader, *self.value_range)

    def _symbols(self, values: Values) -> Symbols:
        runs, _, _ = entries_of(values, self._run_max, self.group_weights)
        return Symbols.of(self.index_bits + self.bits, runs + 1)
