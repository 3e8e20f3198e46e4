# SPDX-License-Identifier: Apache-2.0
"""What a scheme's decoder is in hardware: its rate, its tables, its area, where it can start.

Few of these figures are published. Those that are name their source; the others are engineering
estimates, which say so, and are meant to be replaced::

    dataclasses.replace(scheme.decoder, steps_per_cycle=2.0)
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from npusim._arguments import integer, real
from npusim.errors import ConfigError

ESTIMATE: Final = "engineering estimate"
"""Source of figures that nobody published."""
TABLE_GE_PER_BIT: Final = (0.5, 6.0)
"""Gate equivalents of a bit of table, low in a memory macro, high in flip-flops: engineering
estimate."""
_MANY: Final = 1 << 20

Int32Array = npt.NDArray[np.int32]


@dataclass(frozen=True, slots=True)
class Decoder:
    """A decoder's lane, how many there are, and what they share.

    A lane works off the symbols of one stream in order. A symbol takes some steps, some bits and
    gives some weights (`Symbols`); each of the three has its limit a cycle.

    Attributes:
        symbol: what is decoded in one go, in words.
        steps_per_cycle: steps a lane takes in a cycle, more than 0, fractions allowed.
        bits_per_cycle: bits a lane can take from its FIFO in a cycle: the width of its shifter.
        weights_per_cycle: weights a lane can hand on in a cycle.
        table_bits: memory of a lane for tables, in bits.
        area_ge_low, area_ge_high: gate equivalents of a lane without tables.
        source: of the rates and the area.
        seek: where decoding can start: "weight", "group" or "stream".
        lanes: how many; each has a stream of its own.
    """

    symbol: str
    steps_per_cycle: float = 1.0
    bits_per_cycle: int = 32
    weights_per_cycle: int = 32
    table_bits: int = 0
    area_ge_low: int = 500
    area_ge_high: int = 2000
    source: str = ESTIMATE
    seek: str = "stream"
    lanes: int = 1

    def __post_init__(self) -> None:
        if real("steps_per_cycle", self.steps_per_cycle, 0.0, _MANY) == 0:
            raise ConfigError("steps_per_cycle must be more than 0, got 0")
        for name, low in (("bits_per_cycle", 1), ("weights_per_cycle", 1), ("lanes", 1)):
            integer(name, getattr(self, name), low, _MANY)
        for name in ("table_bits", "area_ge_low"):
            integer(name, getattr(self, name), 0, 1 << 40)
        integer("area_ge_high", self.area_ge_high, self.area_ge_low, 1 << 40)
        if self.seek not in ("weight", "group", "stream"):
            raise ConfigError(f"seek must be 'weight', 'group' or 'stream', got {self.seek!r}")

    @property
    def area_ge(self) -> tuple[int, int]:
        """Gate equivalents of all lanes with their tables: low, high."""
        low, high = TABLE_GE_PER_BIT
        return (
            math.ceil(self.lanes * (self.area_ge_low + low * self.table_bits)),
            math.ceil(self.lanes * (self.area_ge_high + high * self.table_bits)),
        )

    @property
    def logic_kge(self) -> float:
        """Thousand gate equivalents of all lanes without tables, the mean of low and high."""
        return self.lanes * (self.area_ge_low + self.area_ge_high) / 2000

    def to_json(self) -> dict[str, Any]:
        """JSON values: the attributes by name, and ``area_ge``: low and high with tables."""
        record = {name: getattr(self, name) for name in self.__dataclass_fields__}
        return {**record, "area_ge": list(self.area_ge)}


@dataclass(frozen=True, slots=True)
class Symbols:
    """What a decoder works off for some weights, in order; int32, shape [n_symbols] each.

    Attributes:
        bits: that a symbol takes from the stream.
        weights: that it gives.
        steps: of the decoder that it needs.
    """

    bits: Int32Array
    weights: Int32Array
    steps: Int32Array

    @classmethod
    def of(cls, bits: npt.ArrayLike, weights: npt.ArrayLike, steps: npt.ArrayLike = 1) -> Symbols:
        """Symbols from what may also be one number for all."""
        arrays = np.broadcast_arrays(*np.atleast_1d(bits, weights, steps))
        return cls(*(np.ascontiguousarray(array, np.int32) for array in arrays))

    @classmethod
    def even(cls, n: int, n_bits: int, group: int = 1) -> Symbols:
        """Symbols of `group` weights each, of `n` weights that share `n_bits` evenly."""
        ends = np.append(np.arange(group, n, group, dtype=np.int64), [n] if n else [])
        ends = ends.astype(np.int64)
        shares = ends * n_bits // max(n, 1)
        return cls.of(np.diff(shares, prepend=0), np.diff(ends, prepend=0))
