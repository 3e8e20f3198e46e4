# SPDX-License-Identifier: Apache-2.0
"""Canonical Huffman codes of limited length: the best ones there are, by package-merge."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from npusim.errors import ConfigError, StreamError
from npusim.schemes.bitstream import BitReader, BitWriter

Int64Array = npt.NDArray[np.int64]

LENGTH_BITS: Final = 4
"""A code length of 1..15, or 0 for a symbol that does not occur, in the table."""
SYMBOL_BITS: Final = 9
TABLE_HEADER_BITS: Final = 2 * SYMBOL_BITS


@dataclass(frozen=True)
class HuffmanCode:
    """A code for the symbols ``first`` .. ``first + len(lengths) - 1``.

    Its table in a stream: `first` in two's complement + 256 and the number of lengths, 9 bits each,
    then the lengths, 4 bits each. Code words are written from their first bit on.

    Attributes:
        first: least symbol that occurs.
        lengths: bits of each symbol's code word, int64; 0 for those that do not occur.

    >>> code = HuffmanCode.of_counts(-1, np.array([1, 5, 2]), length_max=12)
    >>> code.lengths.tolist(), [f"{w:0{n}b}" for w, n in zip(code.words, code.lengths)]
    ([2, 1, 2], ['10', '0', '11'])
    """

    first: int
    lengths: Int64Array

    @classmethod
    def of_counts(cls, first: int, counts: Int64Array, length_max: int) -> HuffmanCode:
        """The code of least bits for symbols from `first` on that occur so often.

        Raises:
            ConfigError: more symbols occur than `length_max` bits can tell apart.
        """
        used = np.flatnonzero(counts)
        if used.size > 1 << length_max:
            raise ConfigError(
                f"length_max must tell {used.size} symbols apart, got {length_max} bits"
            )
        if not used.size:
            return cls(0, np.empty(0, np.int64))
        counts = counts[used[0] : used[-1] + 1]
        lengths = np.zeros(counts.size, np.int64)
        places = np.flatnonzero(counts)
        order = places[np.argsort(counts[places], kind="stable")]
        if order.size == 1:
            lengths[order] = 1
        else:
            from npusim.schemes.huffman_kernels import code_lengths

            found = np.zeros(order.size, np.int64)
            code_lengths(counts[order], length_max, found)
            lengths[order] = found
        return cls(first + int(used[0]), lengths)

    @property
    def _order(self) -> Int64Array:
        """Symbols that occur, by length and then by value, less `first`."""
        places = np.flatnonzero(self.lengths)
        return places[np.argsort(self.lengths[places], kind="stable")]

    @property
    def words(self) -> Int64Array:
        """Each symbol's code word, the first bit the most significant one."""
        words = np.zeros(self.lengths.size, np.int64)
        word, before = 0, 0
        for place in self._order:
            length = int(self.lengths[place])
            word <<= length - before
            words[place], before = word, length
            word += 1
        return words

    @property
    def table_bits(self) -> int:
        """Bits of the table in a stream."""
        return TABLE_HEADER_BITS + LENGTH_BITS * self.lengths.size

    def bits(self, symbols: Int64Array) -> Int64Array:
        """Bits of the code word of each symbol."""
        return self.lengths[symbols - self.first]

    def write_table(self, out: BitWriter) -> None:
        """Append the table."""
        out.fields([self.first + 256, self.lengths.size], SYMBOL_BITS)
        out.fields(self.lengths, LENGTH_BITS)

    def write(self, symbols: Int64Array, out: BitWriter) -> None:
        """Append the code words of symbols that occur."""
        words = np.array(
            [int(f"{w:0{n}b}"[::-1], 2) for w, n in zip(self.words, self.lengths, strict=True)],
            np.int64,
        )
        places = symbols - self.first
        out.codes(words[places], self.lengths[places])

    @classmethod
    def read_table(cls, reader: BitReader) -> HuffmanCode:
        """The code whose table comes next.

        Raises:
            StreamError: the stream ends before, or there is no code with these lengths.
        """
        start = reader.at
        first, n = reader.fields(2, SYMBOL_BITS).tolist()
        lengths = reader.fields(n, LENGTH_BITS)
        used = lengths[lengths > 0]
        if (2.0**-used).sum() > 1:
            raise StreamError("code lengths must leave room for one another, got too short", start)
        return cls(first - 256, lengths)

    def read(self, n: int, reader: BitReader) -> Int64Array:
        """The next `n` symbols.

        Raises:
            StreamError: the stream ends before, or bits are no code word.
        """
        if n > reader.end - reader.at:
            raise reader.truncated()
        values = np.empty(n, np.int64)
        if not n:
            return values
        from npusim.schemes.huffman_kernels import take_codes

        most = int(self.lengths.max(initial=1))
        counts = np.bincount(self.lengths, minlength=most + 1)
        counts[0] = 0
        firsts, offsets = np.zeros(most + 2, np.int64), np.zeros(most + 2, np.int64)
        for length in range(1, most + 1):
            firsts[length] = (firsts[length - 1] + counts[length - 1]) << 1
            offsets[length + 1] = offsets[length] + counts[length]
        status, at = take_codes(
            reader.words, reader.at, reader.end, firsts, offsets, self._order, values
        )
        if status == 1:
            raise reader.truncated()
        if status == 2:
            raise StreamError("bits must be a code word, got others", int(at))
        reader.at = int(at)
        return values + self.first
