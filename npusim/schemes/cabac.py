# SPDX-License-Identifier: Apache-2.0
"""Context-adaptive binary arithmetic coding of weights: best in bits, slowest to decode."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import numpy.typing as npt

from npusim._arguments import integer
from npusim.errors import StreamError
from npusim.schemes.base import Scheme, Values
from npusim.schemes.decoder import Decoder, Symbols


@dataclass(frozen=True, slots=True)
class Cabac(Scheme):
    """Each weight as bins: whether it is zero, its sign, the length of its magnitude, the rest.

    Bins have contexts of their own, by whether the two weights before are zero and how long they
    are; a context's probability is the mean of the bins it has seen, of the last ones more, where
    those of the rest begin as if they had seen some.

    Attributes:
        memory: how many bins a context remembers, 2..4096.

    Source: Wiedemann et al., DeepCABAC, arXiv:1907.11900.
    Differs: the magnitude is its length and its bits, all with contexts, instead of a row of flags
    and an Exp-Golomb code; probabilities are exact to 16 bits; nothing is quantized on the way.

    >>> Cabac().size([0] * 1000)
    2
    """

    name: ClassVar[str] = "cabac"

    memory: int = 512

    def __post_init__(self) -> None:
        integer(f"memory of scheme {self.name!r}", self.memory, 2, 4096)

    @property
    def decoder(self) -> Decoder:
        """A bin a cycle: each one's interval depends on the one before."""
        return Decoder(
            symbol="weight",
            steps_per_cycle=1.0,
            bits_per_cycle=16,
            weights_per_cycle=1,
            table_bits=282 * (16 + 12),
            area_ge_low=6000,
            area_ge_high=20000,
            source="rate: one bin a cycle, as CABAC decoders; area: engineering estimate",
        )

    @property
    def _shares(self) -> npt.NDArray[np.int64]:
        """What a bin counts in the mean, of 65536, by how many there were before."""
        return np.floor(65536 / (np.arange(self.memory) + 1.5)).astype(np.int64)

    def _size(self, values: Values) -> int:
        return self._put(values, np.empty(0, np.uint8))

    def _encode(self, values: Values) -> bytes:
        out = np.empty(self._size(values), np.uint8)
        self._put(values, out)
        return out.tobytes()

    def _put(self, values: Values, out: npt.NDArray[np.uint8]) -> int:
        from npusim.schemes.arithmetic_kernels import put_values

        return int(put_values(values, self._shares, out))

    def _decode(self, stream: bytes, n: int) -> Values:
        from npusim.schemes.arithmetic_kernels import take_values

        if n > len(stream) << 15:  # a bin takes 1/1419 bit or more
            raise StreamError(f"stream must hold {n} weights, got its end before", 8 * len(stream))
        values = np.empty(n, np.int16)
        used = int(take_values(np.frombuffer(stream, np.uint8).copy(), self._shares, values))
        if used != len(stream):
            end = min(8 * used, 8 * len(stream))
            raise StreamError(f"stream must have {used} bytes or more, got {len(stream)}", end)
        return values

    def _symbols(self, values: Values) -> Symbols:
        lengths = np.frexp(np.abs(values).astype(np.float32))[1]
        steps = np.where(values == 0, 1, 2 + np.minimum(lengths, 7) + lengths - 1)
        even = Symbols.even(values.size, 8 * self._size(values))
        return Symbols.of(even.bits, even.weights, steps)
