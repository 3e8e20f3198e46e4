# SPDX-License-Identifier: Apache-2.0
"""One canonical Huffman code for all weights."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from npusim._arguments import integer
from npusim.schemes.base import Scheme, Values
from npusim.schemes.bitstream import BitReader, BitWriter, checked_levels
from npusim.schemes.decoder import Decoder, Symbols
from npusim.schemes.huffman_code import HuffmanCode
from npusim.schemes.statistics import VALUE_MAX, value_counts


@dataclass(frozen=True, slots=True)
class Huffman(Scheme):
    """A table of code lengths, then a code word a weight.

    Attributes:
        length_max: longest code word, 9..15.

    Source: Larmore and Hirschberg, JACM 1990, package-merge; `HuffmanCode` has the format.

    >>> Huffman().size([0, 0, 7])
    7
    """

    name: ClassVar[str] = "huffman"

    length_max: int = 12

    def __post_init__(self) -> None:
        integer(f"length_max of scheme {self.name!r}", self.length_max, 9, 15)

    @property
    def decoder(self) -> Decoder:
        """A weight a cycle by a table of the first bits."""
        return Decoder(
            symbol="weight",
            bits_per_cycle=self.length_max,
            weights_per_cycle=1,
            table_bits=512 * 9 + 32 * self.length_max,
            area_ge_low=1500,
            area_ge_high=5000,
        )

    def _code(self, values: Values) -> HuffmanCode:
        return HuffmanCode.of_counts(-VALUE_MAX, value_counts(values), self.length_max)

    def _size(self, values: Values) -> int:
        counts = value_counts(values)
        code = HuffmanCode.of_counts(-VALUE_MAX, counts, self.length_max)
        start = code.first + VALUE_MAX
        bits = int((code.lengths * counts[start : start + code.lengths.size]).sum())
        return -(-(code.table_bits + bits) // 8)

    def _encode(self, values: Values) -> bytes:
        code, out = self._code(values), BitWriter()
        code.write_table(out)
        code.write(values.astype("i8"), out)
        return out.to_bytes()

    def _decode(self, stream: bytes, n: int) -> Values:
        reader = BitReader(stream)
        values = HuffmanCode.read_table(reader).read(n, reader)
        reader.finish()
        return checked_levels(values, reader, *self.value_range)

    def _symbols(self, values: Values) -> Symbols:
        return Symbols.of(self._code(values).bits(values.astype("i8")), 1)
