# SPDX-License-Identifier: Apache-2.0
"""N:M sparsity: of every M weights at most N are not zero, and only N are stored."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from npusim._arguments import integer
from npusim.schemes.base import Scheme, Values, signed_range
from npusim.schemes.bitstream import BitReader, BitWriter, checked_levels
from npusim.schemes.decoder import Decoder, Symbols
from npusim.weights.conditioning import n_of_m


@dataclass(frozen=True, slots=True)
class NM(Scheme):
    """For each group N times a place in the group and a weight, places rising.

    Weights that keep to the pattern come back as they are; others are refused. The last group may
    be shorter and is filled up with zeros.

    Attributes:
        n: weights stored of a group, 1..m.
        m: weights of a group, 2..16.
        bits: width of a weight, 1..9.

    Source: Mishra et al., Accelerating Sparse Deep Neural Networks, 2021: 2:4.

    >>> NM().encode([0, 3, 0, -1]).hex()
    '0dfc0f'
    """

    name: ClassVar[str] = "n-m"

    n: int = 2
    m: int = 4
    bits: int = 8

    def __post_init__(self) -> None:
        integer(f"m of scheme {self.name!r}", self.m, 2, 16)
        integer(f"n of scheme {self.name!r}", self.n, 1, self.m)
        integer(f"bits of scheme {self.name!r}", self.bits, 1, 9)

    @property
    def value_range(self) -> tuple[int, int]:
        """All numbers of `bits` bits in two's complement."""
        return signed_range(self.bits)

    @property
    def lossless(self) -> bool:
        """Whether N is M: otherwise only weights with the pattern can be coded."""
        return self.n == self.m

    @property
    def decoder(self) -> Decoder:
        """Multiplexers: as fast as memory, every group at a place known beforehand."""
        return Decoder(
            symbol=f"{self.m} weights",
            steps_per_cycle=8.0,
            bits_per_cycle=128,
            weights_per_cycle=8 * self.m,
            area_ge_low=200,
            area_ge_high=800,
            seek="weight",
        )

    @property
    def _place_bits(self) -> int:
        return (self.m - 1).bit_length()

    def _refusal(self, values: Values) -> str | None:
        counts = (self._groups(values) != 0).sum(axis=1)
        if (counts <= self.n).all():
            return None
        return (
            f"have at most {self.n} non-zeros in every {self.m}, "
            f"got {counts.max()} from weight {self.m * int(counts.argmax())} on"
        )

    def _conditioned(self, values: Values) -> Values:
        return n_of_m(values, self.n, self.m).astype(np.int16)

    def _groups(self, values: Values) -> Values:
        padded = np.zeros(-(-values.size // self.m) * self.m, np.int16)
        padded[: values.size] = values
        return padded.reshape(-1, self.m)

    def _size(self, values: Values) -> int:
        groups = -(-values.size // self.m)
        return -(-groups * self.n * (self.bits + self._place_bits) // 8)

    def _encode(self, values: Values) -> bytes:
        groups = self._groups(values)
        # non-zeros first, then zeros, each by place; the first n, by place again
        order = np.argsort(groups == 0, axis=1, kind="stable")[:, : self.n]
        places = np.sort(order, axis=1).astype(np.int64)
        kept = np.take_along_axis(groups, places, axis=1).astype(np.int64)
        weights = kept & ((1 << self.bits) - 1)
        out = BitWriter()
        out.fields(places | weights << self._place_bits, self._place_bits + self.bits)
        return out.to_bytes()

    def _decode(self, stream: bytes, n: int) -> Values:
        reader = BitReader(stream)
        n_groups = -(-n // self.m)
        entries = reader.fields(n_groups * self.n, self.bits + self._place_bits)
        reader.finish()
        places = (entries & ((1 << self._place_bits) - 1)).reshape(-1, self.n)
        if (np.diff(places, axis=1) <= 0).any() or (places >= self.m).any():
            raise reader.error("places must rise within a group, got others")
        half = 1 << (self.bits - 1)
        levels = ((entries >> self._place_bits) ^ half) - half
        groups = np.zeros((n_groups, self.m), np.int16)
        kept = checked_levels(levels, reader, *self.value_range).reshape(-1, self.n)
        np.put_along_axis(groups, places, kept, axis=1)
        if groups.ravel()[n:].any():
            raise reader.error(f"stream must hold {n} weights, got more")
        return groups.ravel()[:n].copy()

    def _symbols(self, values: Values) -> Symbols:
        starts = np.arange(0, values.size, self.m)
        bits = self.n * (self.bits + self._place_bits)
        return Symbols.of(bits, np.minimum(self.m, values.size - starts))
