# SPDX-License-Identifier: Apache-2.0
"""Deep Compression: relative indices and weights, each stream Huffman coded or plain."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from npusim._arguments import integer
from npusim.errors import ConfigError
from npusim.schemes.base import Scheme, Values, signed_range
from npusim.schemes.bitstream import BitReader, BitWriter, checked_levels
from npusim.schemes.decoder import Decoder, Symbols
from npusim.schemes.entries import count_entries, entries_of, expand
from npusim.schemes.huffman_code import HuffmanCode

_COUNT_BITS = 32
_LENGTH_MAX = 15


@dataclass(frozen=True, slots=True)
class DeepCompression(Scheme):
    """How many entries there are in 32 bits, all weights, then all zero runs before them.

    A run of more zeros than an index can say has fillers, entries of weight 0; so have zeros at the
    end. With Huffman codes each of the two streams begins with a table of its own. Without, and
    with indices of 4 bits, it is the format of the published SqueezeNet, where weights are numbers
    of 256 shared ones.

    Attributes:
        index_bits: width of a run, 1..8; the paper takes 8 for convolutions and 5 for others.
        bits: width of a weight that is not Huffman coded, 1..9; weights are in its range anyway.
        huffman: whether both streams are Huffman coded.

    Source: Han et al., Deep Compression, ICLR 2016, sections 2 to 4.

    >>> DeepCompression(index_bits=4, huffman=False).encode([0, 0, 7]).hex()
    '010000000702'
    """

    name: ClassVar[str] = "deep-compression"

    index_bits: int = 8
    bits: int = 8
    huffman: bool = True

    def __post_init__(self) -> None:
        integer(f"index_bits of scheme {self.name!r}", self.index_bits, 1, 8)
        integer(f"bits of scheme {self.name!r}", self.bits, 1, 9)
        if not isinstance(self.huffman, bool):
            raise ConfigError(
                f"huffman of scheme {self.name!r} must be True or False, got {self.huffman!r}"
            )

    @property
    def value_range(self) -> tuple[int, int]:
        """All numbers of `bits` bits in two's complement."""
        return signed_range(self.bits)

    @property
    def decoder(self) -> Decoder:
        """An entry a cycle: two Huffman decoders side by side."""
        return Decoder(
            symbol="entry",
            bits_per_cycle=2 * _LENGTH_MAX,
            weights_per_cycle=1 << self.index_bits,
            table_bits=2 * 160 * 8 if self.huffman else 0,
            area_ge_low=3000 if self.huffman else 500,
            area_ge_high=10000 if self.huffman else 2000,
        )

    @property
    def _run_max(self) -> int:
        return (1 << self.index_bits) - 1

    def _size(self, values: Values) -> int:
        if not self.huffman:
            n = int(count_entries(values, self._run_max).sum())
            return -(-(_COUNT_BITS + n * (self.bits + self.index_bits)) // 8)
        runs, levels, _ = entries_of(values, self._run_max)
        bits = _COUNT_BITS
        for symbols in (levels.astype(np.int64), runs):
            code = _code(symbols)
            bits += code.table_bits + int(code.bits(symbols).sum())
        return -(-bits // 8)

    def _encode(self, values: Values) -> bytes:
        runs, levels, _ = entries_of(values, self._run_max)
        out = BitWriter()
        out.fields([runs.size], _COUNT_BITS)
        for symbols, width in ((levels.astype(np.int64), self.bits), (runs, self.index_bits)):
            if self.huffman:
                code = _code(symbols)
                code.write_table(out)
                code.write(symbols, out)
            else:
                out.fields(symbols, width)
        return out.to_bytes()

    def _decode(self, stream: bytes, n: int) -> Values:
        reader = BitReader(stream)
        n_entries = reader.field(_COUNT_BITS)
        if self.huffman:
            levels = HuffmanCode.read_table(reader).read(n_entries, reader)
            runs = HuffmanCode.read_table(reader).read(n_entries, reader)
        else:
            levels = reader.signed(n_entries, self.bits)
            runs = reader.fields(n_entries, self.index_bits)
        reader.finish()
        if runs.size and runs.min() < 0:
            raise reader.error(f"runs must be at least 0, got {runs.min()}")
        if n != int((runs + 1).sum()):
            raise reader.error(f"stream must hold {n} weights, got {int((runs + 1).sum())}")
        counts = np.array([n_entries] if n else [], np.int64)
        values = expand(runs, levels, counts, n, reader)
        return checked_levels(values, reader, *self.value_range)

    def _symbols(self, values: Values) -> Symbols:
        runs, levels, _ = entries_of(values, self._run_max)
        if not self.huffman:
            return Symbols.of(self.bits + self.index_bits, runs + 1)
        wide = levels.astype(np.int64)
        return Symbols.of(_code(wide).bits(wide) + _code(runs).bits(runs), runs + 1)


def _code(symbols: np.ndarray) -> HuffmanCode:
    if not symbols.size:
        return HuffmanCode(0, np.empty(0, np.int64))
    least = int(symbols.min())
    return HuffmanCode.of_counts(least, np.bincount(symbols - least), _LENGTH_MAX)
