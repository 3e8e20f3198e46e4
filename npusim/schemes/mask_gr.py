# SPDX-License-Identifier: Apache-2.0
"""A mask of the non-zero weights, one bit a weight, then their Golomb-Rice codes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from npusim.schemes.base import Scheme, Values
from npusim.schemes.bitstream import BitReader, BitWriter, rice_bits
from npusim.schemes.decoder import Decoder, Symbols
from npusim.schemes.statistics import (
    CODE_MAX,
    CODES,
    VALUE_MAX,
    nonzero_codes,
    nonzero_values,
    value_counts,
)

_K_BITS = 4


@dataclass(frozen=True, slots=True)
class MaskGr(Scheme):
    """log2 of the divisor in 4 bits, the mask, the codes (`MaskRleGr` says which).

    >>> MaskGr().encode([0, 0, 1, 0]).hex()
    '4001'
    """

    name: ClassVar[str] = "mask-gr"

    @property
    def decoder(self) -> Decoder:
        """A non-zero a cycle, and the zeros of the mask before it."""
        return Decoder(
            symbol="non-zero",
            bits_per_cycle=32,
            weights_per_cycle=16,
            area_ge_low=1500,
            area_ge_high=4500,
        )

    def _size(self, values: Values) -> int:
        counts = value_counts(values)
        counts[VALUE_MAX] = 0
        return -(-(_K_BITS + values.size + rice_bits(CODES, counts)[1]) // 8)

    def _encode(self, values: Values) -> bytes:
        codes = nonzero_codes(values[values != 0])
        k = _best(codes)
        out = BitWriter()
        out.fields([k], _K_BITS)
        out.fields(values != 0, 1)
        out.rice(codes, k)
        return out.to_bytes()

    def _decode(self, stream: bytes, n: int) -> Values:
        reader = BitReader(stream)
        k = reader.field(_K_BITS)
        mask = reader.fields(n, 1) == 1
        codes = reader.rice(int(mask.sum()), k, CODE_MAX)
        reader.finish()
        values = np.zeros(n, np.int16)
        values[mask] = nonzero_values(codes)
        return values

    def _symbols(self, values: Values) -> Symbols:
        places = np.flatnonzero(values)
        codes = nonzero_codes(values[places])
        weights = np.diff(places, prepend=-1, append=values.size - 1)
        k = _best(codes)
        bits = weights + np.append((codes >> k) + 1 + k, 0)
        return Symbols.of(bits, weights)


def _best(codes: np.ndarray) -> int:
    return rice_bits(codes, np.ones_like(codes))[0]
