# SPDX-License-Identifier: Apache-2.0
"""Zstandard, for comparison: what software reaches with matches and entropy codes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from npusim._arguments import integer
from npusim.errors import MissingExtraError, StreamError
from npusim.schemes.base import Scheme, Values
from npusim.schemes.bitstream import BitReader, checked_levels
from npusim.schemes.decoder import Decoder


@dataclass(frozen=True, slots=True)
class Zstd(Scheme):
    """One frame of the weights, a byte each, of two bytes if one does not fit.

    Its size is found by compressing; nothing in hardware decodes it at a weight decoder's cost.

    Attributes:
        level: of zstd, 1..22.

    Raises:
        MissingExtraError: the extra [schemes] is not installed.
    """

    name: ClassVar[str] = "zstd"

    level: int = 19

    def __post_init__(self) -> None:
        integer(f"level of scheme {self.name!r}", self.level, 1, 22)
        _zstandard()

    @property
    def decoder(self) -> Decoder:
        """A byte a cycle: matches and finite-state entropy codes, a window of memory."""
        return Decoder(
            symbol="weight",
            bits_per_cycle=64,
            weights_per_cycle=1,
            table_bits=8 * (1 << 17),
            area_ge_low=50_000,
            area_ge_high=300_000,
        )

    def _size(self, values: Values) -> int:
        return len(self._encode(values))

    def _encode(self, values: Values) -> bytes:
        fits = not values.size or (values.min() >= -128 and values.max() <= 127)
        data = values.astype("i1" if fits else "<i2").tobytes()
        made: bytes = _zstandard().ZstdCompressor(level=self.level).compress(data)
        return made

    def _decode(self, stream: bytes, n: int) -> Values:
        zstandard = _zstandard()
        try:
            data = zstandard.ZstdDecompressor().decompress(
                stream, max_output_size=2 * n, allow_extra_data=False
            )
        except zstandard.ZstdError as error:
            raise StreamError(f"stream must be a frame of zstd, got: {error}", 0) from None
        if len(data) not in (n, 2 * n):
            raise StreamError(f"stream must hold {n} weights, got {len(data)} bytes", 0)
        values = np.frombuffer(data, "i1" if len(data) == n else "<i2")
        return checked_levels(values, BitReader(stream), *self.value_range)


def _zstandard() -> Any:
    try:
        import zstandard
    except ImportError as error:
        raise MissingExtraError("scheme 'zstd'", "schemes", error) from error
    return zstandard
