# SPDX-License-Identifier: Apache-2.0
"""Weights as they are, in a fixed number of bits: what every other scheme is measured against."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from npusim._arguments import integer
from npusim.errors import StreamError
from npusim.schemes.base import Scheme, Values
from npusim.schemes.decoder import Decoder

_BITS_MAX = 9  # uint8 weights less their zero point


@dataclass(frozen=True, slots=True)
class Raw(Scheme):
    """Two's complement numbers side by side, the least significant bit first, no header.

    The last byte is filled with zero bits.

    Attributes:
        bits: width of a weight, 1..9.

    >>> Raw(bits=4).encode([1, -1, 7]).hex()
    'f107'
    """

    name: ClassVar[str] = "raw"

    bits: int = 8

    def __post_init__(self) -> None:
        integer("bits of scheme 'raw'", self.bits, 1, _BITS_MAX)

    @property
    def decoder(self) -> Decoder:
        """A shifter of one memory word."""
        return Decoder(
            symbol="weight",
            steps_per_cycle=max(1, 64 // self.bits),
            bits_per_cycle=64,
            weights_per_cycle=max(1, 64 // self.bits),
            area_ge_low=200,
            area_ge_high=600,
            seek="weight",
        )

    @property
    def value_range(self) -> tuple[int, int]:
        """All numbers of `bits` bits in two's complement."""
        half = 1 << (self.bits - 1)
        return -half, half - 1

    def _size(self, values: Values) -> int:
        return -(-values.size * self.bits // 8)

    def _encode(self, values: Values) -> bytes:
        if self.bits == 8:
            return values.astype(np.int8).tobytes()
        planes = values[:, None] >> np.arange(self.bits, dtype=np.int16) & 1
        return np.packbits(planes.astype(np.uint8), bitorder="little").tobytes()

    def _decode(self, stream: bytes, n: int) -> Values:
        n_bits = n * self.bits
        if len(stream) != -(-n_bits // 8):
            raise StreamError(
                f"stream of {n} weights must have {-(-n_bits // 8)} bytes, got {len(stream)}",
                8 * min(len(stream), n_bits // 8),
            )
        data = np.frombuffer(stream, np.uint8)
        if self.bits == 8:
            return data.view(np.int8).astype(np.int16)
        planes = np.unpackbits(data, bitorder="little")
        if planes[n_bits:].any():
            first = n_bits + int(planes[n_bits:].argmax())
            raise StreamError("bits after the last weight must be 0, got 1", first)
        weights = np.left_shift(1, np.arange(self.bits, dtype=np.int16))
        weights[-1] *= -1  # the sign bit
        return planes[:n_bits].reshape(n, self.bits).astype(np.int16) @ weights
