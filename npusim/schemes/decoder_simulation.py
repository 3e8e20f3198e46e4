# SPDX-License-Identifier: Apache-2.0
"""How long a scheme's decoder takes for some weights, cycle by cycle.

Memory fills the FIFOs of the lanes in turn; each lane takes bits from its own, works off its
symbols and hands on weights, each at a limited rate (`npusim.schemes.decoder`). What is not
simulated: latency of the memory, and a multiplier array that does not take weights when it could.

>>> from npusim import schemes
>>> decode_cycles(schemes.get("raw"), [1] * 1000, dma_bytes_per_cycle=4).cycles
250
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from npusim._arguments import integer, real
from npusim.errors import ConfigError
from npusim.schemes.base import Scheme, Values
from npusim.schemes.decoder import Decoder, Symbols

FIFO_BITS: Final = 1024
"""Room of a lane's FIFO unless said otherwise: engineering estimate."""
_MOST: Final = 1 << 40
_PART: Final = 240
"""Parts of weights are multiples of this, and so of most groups of N:M."""


@dataclass(frozen=True, slots=True)
class DecodeCycles:
    """What decoding some weights takes.

    Attributes:
        cycles: until the last weight is there.
        decode_cycles: the same with all bits there from the start.
        fetch_cycles: that memory needs for the bytes alone.
        wait_cycles: in which a lane had no bits, all lanes together.
        n_bytes: of the lanes' streams.
        n_weights: decoded.
    """

    cycles: int
    decode_cycles: int
    fetch_cycles: int
    wait_cycles: int
    n_bytes: int
    n_weights: int

    @property
    def weights_per_cycle(self) -> float:
        """In the mean; 0 without weights."""
        return self.n_weights / self.cycles if self.cycles else 0.0

    @property
    def stall_cycles(self) -> int:
        """Cycles that memory costs beyond those of the decoder itself."""
        return self.cycles - self.decode_cycles

    def to_json(self) -> dict[str, Any]:
        """JSON values: the attributes and properties by name."""
        record = {name: getattr(self, name) for name in self.__dataclass_fields__}
        record["weights_per_cycle"] = round(self.weights_per_cycle, 4)
        return {**record, "stall_cycles": self.stall_cycles}


def decode_cycles(
    scheme: Scheme,
    values: npt.ArrayLike,
    *,
    lanes: int | None = None,
    fifo: int = FIFO_BITS,
    dma_bytes_per_cycle: float = math.inf,
    decoder: Decoder | None = None,
) -> DecodeCycles:
    """Simulate the decoding of weights.

    Args:
        scheme: whose streams to decode.
        values: weights as `Scheme.encode` takes them; each lane has an equal part of them, cut at
            multiples of 240, in a stream of its own.
        lanes: how many; None for those of the decoder.
        fifo: bits of a lane's FIFO, 1..2**40.
        dma_bytes_per_cycle: what memory delivers to all lanes together, 1/8 or more; infinite for
            all bits from the start. Fractions of a bit are dropped.
        decoder: rates to take instead of the scheme's own.

    Raises:
        ConfigError: weights that the scheme cannot code, or an argument out of range.
    """
    if not isinstance(scheme, Scheme):
        raise ConfigError(f"scheme must be a Scheme, got {scheme!r}")
    rates = scheme.decoder if decoder is None else decoder
    if lanes is not None:
        rates = replace(rates, lanes=lanes)
    fifo_bits = integer("fifo", fifo, 1, _MOST)
    dma_bits = _MOST
    if dma_bytes_per_cycle != math.inf:
        rate = real("dma_bytes_per_cycle", dma_bytes_per_cycle, 0.125, _MOST // 8)
        dma_bits = int(8 * rate)
    array = scheme.checked(values)
    found = [scheme.symbols(part) for part in _parts(array, rates.lanes)]
    n_bytes = sum(lane_bytes(scheme, array, rates.lanes))
    cycles, waits = _run(found, rates, fifo_bits, dma_bits)
    free = cycles if dma_bits == _MOST else _run(found, rates, _MOST, _MOST)[0]
    fetch = 0 if dma_bits == _MOST else -(-8 * n_bytes // dma_bits)
    return DecodeCycles(max(cycles, fetch), free, fetch, waits, n_bytes, array.size)


def lane_bytes(scheme: Scheme, values: npt.ArrayLike, lanes: int) -> list[int]:
    """Bytes of the streams of a decoder's lanes (arguments and errors: see `decode_cycles`).

    >>> from npusim import schemes
    >>> lane_bytes(schemes.get("raw"), [1] * 1000, lanes=2)
    [480, 520]
    """
    integer("lanes", lanes, 1, _MOST)
    return [scheme.size(part) for part in _parts(scheme.checked(values), lanes)]


def _parts(values: Values, lanes: int) -> list[Values]:
    ends = np.linspace(0, values.size, lanes + 1).astype(np.int64)
    ends[1:-1] -= ends[1:-1] % _PART
    return [values[a:b] for a, b in pairwise(ends)]


def _run(found: list[Symbols], decoder: Decoder, fifo: int, dma: int) -> tuple[int, int]:
    from npusim.schemes import decoder_kernels as k

    symbols = np.concatenate(
        [np.stack([part.bits, part.weights, part.steps], axis=1) for part in found]
    )
    ends = np.cumsum([part.bits.size for part in found])
    lanes = np.zeros((len(found), k.LANE_COLUMNS), np.int64)
    lanes[:, k.NEXT] = ends - [part.bits.size for part in found]
    lanes[:, k.LAST] = ends
    lanes[:, k.UNREAD] = [int(part.bits.sum(dtype=np.int64)) for part in found]
    steps = max(1, round(decoder.steps_per_cycle * k.ONE_STEP))
    rates = np.array([decoder.bits_per_cycle, decoder.weights_per_cycle, steps], np.int64)
    cycles, waits = k.run_lanes(symbols, lanes, fifo, dma, rates, _MOST)
    return int(cycles), int(waits)
