# SPDX-License-Identifier: Apache-2.0
"""Zero-value compression: a mask of the non-zero weights, and those as they are."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from npusim._arguments import integer
from npusim.errors import StreamError
from npusim.schemes.base import Scheme, Values, signed_range
from npusim.schemes.bitstream import BitReader, BitWriter, checked_levels
from npusim.schemes.decoder import Decoder, Symbols

_SIZE_BITS = 32


@dataclass(frozen=True, slots=True)
class Zvc(Scheme):
    """Three surfaces, each padded with zeros: mask, bytes of each group's non-zeros, non-zeros.

    The defaults are NVDLA's: a group is what 32 kernels have, here 4096 weights, whose non-zeros
    begin at a byte. SparTen's masks of 128 weights, each with a pointer, are
    ``Zvc(group_weights=128, align_bytes=1)``.

    Attributes:
        bits: width of a weight, 1..9.
        group_weights: weights of a group; 0: one group without a size.
        align_bytes: what the surfaces are padded to, 1..4096.

    Source: NVDLA documentation, "In-memory data formats", sparse weights: surfaces and alignment;
    Gondimalla et al., SparTen, MICRO 2019.

    >>> Zvc(group_weights=0, align_bytes=1).encode([0, 3, 0, -1]).hex()
    '0a03ff'
    """

    name: ClassVar[str] = "zvc"

    bits: int = 8
    group_weights: int = 4096
    align_bytes: int = 128

    def __post_init__(self) -> None:
        integer(f"bits of scheme {self.name!r}", self.bits, 1, 9)
        integer(f"group_weights of scheme {self.name!r}", self.group_weights, 0, 1 << 24)
        integer(f"align_bytes of scheme {self.name!r}", self.align_bytes, 1, 4096)

    @property
    def value_range(self) -> tuple[int, int]:
        """All numbers of `bits` bits in two's complement."""
        return signed_range(self.bits)

    @property
    def decoder(self) -> Decoder:
        """Eight places of the mask a cycle."""
        return Decoder(
            symbol="8 weights",
            bits_per_cycle=80,
            weights_per_cycle=8,
            area_ge_low=500,
            area_ge_high=2000,
            seek="group" if self.group_weights else "stream",
        )

    def _group_bytes(self, values: Values) -> np.ndarray:
        size = self.group_weights or max(values.size, 1)
        starts = np.arange(0, values.size, size)
        counts = np.add.reduceat(values != 0, starts, dtype=np.int64) if values.size else starts
        return -(-counts * self.bits // 8)

    def _size(self, values: Values) -> int:
        group_bytes = self._group_bytes(values)
        sizes = _SIZE_BITS // 8 * group_bytes.size if self.group_weights else 0
        surfaces = (-(-values.size // 8), sizes, int(group_bytes.sum()))
        return sum(-(-n_bytes // self.align_bytes) * self.align_bytes for n_bytes in surfaces)

    def _encode(self, values: Values) -> bytes:
        align = 8 * self.align_bytes
        group_bytes = self._group_bytes(values)
        out = BitWriter()
        out.fields(values != 0, 1)
        out.align(align)
        if self.group_weights:
            out.fields(group_bytes, _SIZE_BITS)
            out.align(align)
        size = self.group_weights or max(values.size, 1)
        for start in range(0, values.size, size):
            group = values[start : start + size]
            out.fields(group[group != 0], self.bits)
            out.align(8)
        out.align(align)
        return out.to_bytes()

    def _decode(self, stream: bytes, n: int) -> Values:
        align = 8 * self.align_bytes
        reader = BitReader(stream)
        mask = reader.fields(n, 1) == 1
        reader.align(align)
        size = self.group_weights or max(n, 1)
        values = np.zeros(n, np.int16)
        wanted = self._group_bytes(mask.astype(np.int16))
        if self.group_weights:
            found = reader.fields(wanted.size, _SIZE_BITS)
            if (found != wanted).any():
                bad = int(np.argmax(found != wanted))
                raise StreamError(
                    f"size of group {bad} must be {wanted[bad]} bytes, got {found[bad]}",
                    min(reader.at, reader.end),
                )
            reader.align(align)
        for start in range(0, n, size):
            places = start + np.flatnonzero(mask[start : start + size])
            levels = reader.signed(places.size, self.bits)
            values[places] = checked_levels(levels, reader, *self.value_range)
            reader.align(8)
        reader.align(align)
        reader.finish()
        return values

    def _symbols(self, values: Values) -> Symbols:
        starts = np.arange(0, values.size, 8)
        counts = np.add.reduceat(values != 0, starts, dtype=np.int64) if values.size else starts
        weights = np.minimum(8, values.size - starts)
        return Symbols.of(weights + counts * self.bits, weights)
