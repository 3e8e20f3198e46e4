# SPDX-License-Identifier: Apache-2.0
"""An arithmetic-coded mask of the non-zero weights, and those Golomb-Rice coded or as they are."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from npusim._arguments import choice, integer
from npusim.errors import StreamError
from npusim.schemes.base import Scheme, Values, signed_range
from npusim.schemes.bitstream import BitReader, BitWriter, checked_levels, rice_bits
from npusim.schemes.decoder import Decoder, Symbols
from npusim.schemes.statistics import (
    CODE_MAX,
    CODES,
    VALUE_MAX,
    nonzero_codes,
    nonzero_values,
    value_counts,
)

_PROBABILITY_BITS = 16
_K_BITS = 8


@dataclass(frozen=True, slots=True)
class MaskArithmetic(Scheme):
    """The share of non-zeros in 16 bits, log2 of the divisor in 8, the mask, the non-zeros.

    The mask takes its entropy and two bytes at the most.

    Attributes:
        nonzeros: "gr" for Golomb-Rice codes (`MaskRleGr` says which), "raw" for `bits` bits each.
        bits: width of a raw non-zero, 1..9; weights are in its range anyway.

    Source: [UDC] section 6.2, "by compressing m using arithmetic coding".

    >>> MaskArithmetic().size([0] * 1000), MaskArithmetic().mask_bytes([0] * 500 + [1] * 500)
    (5, 126)
    """

    name: ClassVar[str] = "mask-arithmetic"

    nonzeros: str = "gr"
    bits: int = 8

    def __post_init__(self) -> None:
        choice(f"nonzeros of scheme {self.name!r}", self.nonzeros, ("gr", "raw"))
        integer(f"bits of scheme {self.name!r}", self.bits, 1, 9)

    @property
    def value_range(self) -> tuple[int, int]:
        """All numbers of `bits` bits in two's complement."""
        return signed_range(self.bits)

    @property
    def decoder(self) -> Decoder:
        """A place of the mask a cycle: each one's interval depends on the one before."""
        return Decoder(
            symbol="weight",
            bits_per_cycle=32,
            weights_per_cycle=1,
            area_ge_low=3000,
            area_ge_high=8000,
            source="rate: one bin a cycle, as CABAC decoders; area: engineering estimate",
        )

    def mask_bytes(self, values: Values) -> int:
        """Bytes of the mask alone."""
        array = self.checked(values)
        return self._put_mask(array, _probability(array), np.empty(0, np.uint8))

    def _size(self, values: Values) -> int:
        bits = 8 * self.mask_bytes(values) + _PROBABILITY_BITS + _K_BITS
        counts = value_counts(values)
        counts[VALUE_MAX] = 0
        if self.nonzeros == "raw":
            return -(-(bits + self.bits * int(counts.sum())) // 8)
        return -(-(bits + rice_bits(CODES, counts)[1]) // 8)

    def _encode(self, values: Values) -> bytes:
        codes = nonzero_codes(values[values != 0])
        k = rice_bits(codes, np.ones_like(codes))[0] if self.nonzeros == "gr" else 0
        probability = _probability(values)
        mask = np.empty(self.mask_bytes(values), np.uint8)
        self._put_mask(values, probability, mask)
        out = BitWriter()
        out.fields([probability], _PROBABILITY_BITS)
        out.fields([k], _K_BITS)
        out.fields(mask, 8)
        if self.nonzeros == "gr":
            out.rice(codes, k)
        else:
            out.fields(values[values != 0], self.bits)
        return out.to_bytes()

    def _put_mask(self, values: Values, probability: int, out: np.ndarray) -> int:
        from npusim.schemes.arithmetic_kernels import put_mask

        return int(put_mask(values, probability, out))

    def _decode(self, stream: bytes, n: int) -> Values:
        from npusim.schemes.arithmetic_kernels import take_mask

        reader = BitReader(stream)
        probability, k = reader.field(_PROBABILITY_BITS), reader.field(_K_BITS)
        if probability == 0 or k > 15 or (k and self.nonzeros == "raw"):
            raise StreamError("header must hold a probability and a divisor, got others", 0)
        data = np.frombuffer(stream, np.uint8)[reader.at // 8 :].copy()
        if n > data.size << 20:  # a place takes 2**-17 bits or more
            raise reader.truncated()
        mask = np.empty(n, np.uint8)
        used = int(take_mask(data, probability, mask))
        if used > data.size:
            raise StreamError("mask must not end before its last place", reader.end)
        reader.at += 8 * used
        n_nonzeros = int(np.count_nonzero(mask))
        if self.nonzeros == "gr":
            levels = nonzero_values(reader.rice(n_nonzeros, k, CODE_MAX))
        else:
            levels = reader.signed(n_nonzeros, self.bits)
        reader.finish()
        values = np.zeros(n, np.int16)
        values[mask == 1] = checked_levels(levels, reader, *self.value_range)
        return values

    def _symbols(self, values: Values) -> Symbols:
        ends = np.arange(1, values.size + 1) * (8 * self.mask_bytes(values)) // max(1, values.size)
        bits = np.diff(ends, prepend=0)
        codes = nonzero_codes(values[values != 0])
        if self.nonzeros == "gr":
            k = rice_bits(codes, np.ones_like(codes))[0]
            bits[values != 0] += (codes >> k) + 1 + k
        else:
            bits[values != 0] += self.bits
        return Symbols.of(bits, np.ones_like(bits))


def _probability(values: Values) -> int:
    """Share of the non-zeros, of 65536, never quite 0 or 1."""
    n = int(np.count_nonzero(values))
    return min(max(round(65536 * n / max(1, values.size)), 1), 65535)
