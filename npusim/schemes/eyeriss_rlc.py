# SPDX-License-Identifier: Apache-2.0
"""Eyeriss' run-length code: pairs of a zero run and a level, as many as fit into 64-bit words."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from npusim._arguments import integer
from npusim.errors import StreamError
from npusim.schemes.base import Scheme, Values, signed_range
from npusim.schemes.bitstream import BitReader, BitWriter, checked_levels
from npusim.schemes.decoder import Decoder, Symbols
from npusim.schemes.entries import count_entries, entries_of, expand

_WORD_BITS = 64


@dataclass(frozen=True, slots=True)
class EyerissRlc(Scheme):
    """Words of pairs, run then level, and in bit 63 whether it is the last word.

    With the paper's 16-bit levels a word holds three pairs, with 8-bit weights four. A longer run
    goes on after a pair with level 0; places without a pair are zero.

    Attributes:
        run_bits: width of a run, 1..16.
        bits: width of a level, 1..16.

    Source: Chen et al., Eyeriss, JSSC 2017, section V: 5-bit runs, 16-bit levels.

    >>> EyerissRlc().encode([0, 0, 7]).hex()
    'e200000000000080'
    """

    name: ClassVar[str] = "eyeriss-rlc"

    run_bits: int = 5
    bits: int = 8

    def __post_init__(self) -> None:
        integer(f"run_bits of scheme {self.name!r}", self.run_bits, 1, 16)
        integer(f"bits of scheme {self.name!r}", self.bits, 1, 16)

    @property
    def value_range(self) -> tuple[int, int]:
        """All numbers of `bits` bits in two's complement."""
        return signed_range(min(self.bits, 9))

    @property
    def decoder(self) -> Decoder:
        """A pair a cycle."""
        return Decoder(
            symbol="pair",
            bits_per_cycle=_WORD_BITS,
            weights_per_cycle=self._run_max + 1,
            area_ge_low=500,
            area_ge_high=1500,
        )

    @property
    def _run_max(self) -> int:
        return (1 << self.run_bits) - 1

    @property
    def _pairs(self) -> int:
        """Pairs in a word."""
        return (_WORD_BITS - 1) // (self.run_bits + self.bits)

    def _size(self, values: Values) -> int:
        n = int(count_entries(values, self._run_max).sum())
        return _WORD_BITS // 8 * -(-n // self._pairs)

    def _encode(self, values: Values) -> bytes:
        runs, levels, _ = entries_of(values, self._run_max)
        words = -(-runs.size // self._pairs)
        pairs = runs | (levels.astype(np.int64) & ((1 << self.bits) - 1)) << self.run_bits
        fields = np.zeros((words, self._pairs + 1), np.int64)
        fields[:, : self._pairs].flat[: runs.size] = pairs
        fields[-1:, -1] = 1
        width = self.run_bits + self.bits
        lengths = np.full(fields.shape, width, np.int64)
        lengths[:, -1] = _WORD_BITS - width * self._pairs
        fields[:, -1] <<= lengths[:, -1] - 1
        out = BitWriter()
        out.codes(fields, lengths)
        return out.to_bytes()

    def _decode(self, stream: bytes, n: int) -> Values:
        if len(stream) % 8 or (n and not stream):
            at = 8 * (len(stream) - len(stream) % 8)
            raise StreamError(f"stream must have words of 8 bytes, got {len(stream)} bytes", at)
        reader = BitReader(stream)
        words = np.frombuffer(stream, "<u8")
        width = self.run_bits + self.bits
        places = (width * np.arange(self._pairs)).astype(np.uint64)
        pairs = (words[:, None] >> places & np.uint64((1 << width) - 1)).astype(np.int64).ravel()
        if (words[:-1] >> np.uint64(63)).any() or (words[-1:] >> np.uint64(63) == 0).any():
            raise reader.error("bit 63 must be set in the last word alone")
        spare = words << np.uint64(1) >> np.uint64(1 + width * self._pairs)
        if spare.any():
            raise StreamError("bits after a word's pairs must be 0", 64 * int(spare.argmax()))
        ends = np.cumsum((pairs & self._run_max) + 1)
        used = int(np.searchsorted(ends, n)) + 1 if n else 0
        if n and (used > pairs.size or ends[used - 1] != n):
            raise reader.error(f"stream must hold {n} weights, got others")
        if pairs[used:].any() or pairs.size - used >= self._pairs:
            raise StreamError("words after the last weight must be none", 0)
        half = 1 << (self.bits - 1)
        levels = ((pairs[:used] >> self.run_bits) ^ half) - half
        counts = np.array([used] if n else [], np.int64)
        values = expand(pairs[:used] & self._run_max, levels, counts, n, reader)
        return checked_levels(values, reader, *self.value_range)

    def _symbols(self, values: Values) -> Symbols:
        runs, _, _ = entries_of(values, self._run_max)
        bits = np.full(runs.size, self.run_bits + self.bits)
        bits[self._pairs - 1 :: self._pairs] += _WORD_BITS - self._pairs * bits[:1].sum()
        return Symbols.of(bits, runs + 1)
