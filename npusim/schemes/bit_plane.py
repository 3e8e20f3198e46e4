# SPDX-License-Identifier: Apache-2.0
"""Extended bit-plane compression: zero runs, and bit planes of the differences of non-zeros."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import numpy.typing as npt

from npusim._arguments import integer
from npusim.errors import StreamError
from npusim.schemes.base import Scheme, Values, signed_range
from npusim.schemes.bitstream import BitReader, BitWriter, checked_levels
from npusim.schemes.decoder import Decoder
from npusim.schemes.statistics import zero_runs

_RUN_BITS = 4
_BLOCK = 8
_SPARE_BITS = 64  # the kernels look at whole codes


@dataclass(frozen=True, slots=True)
class BitPlane(Scheme):
    """Which weights are zero, then the non-zeros in blocks of eight.

    A one stands for a non-zero; a zero and 4 bits for up to 16 zeros. The codes of the blocks are
    in `npusim.schemes.bit_plane_kernels`; the last one is filled up with its last word.

    Attributes:
        bits: width of a weight, 2..9.

    Source: Cavigelli et al., EBPC, arXiv:1908.11645; Kim et al., ISCA 2016, for the codes.
    Differs: the width of a run of planes follows from the number of planes.

    >>> BitPlane().size([0] * 16)
    1
    """

    name: ClassVar[str] = "bit-plane"

    bits: int = 8

    def __post_init__(self) -> None:
        integer(f"bits of scheme {self.name!r}", self.bits, 2, 9)

    @property
    def value_range(self) -> tuple[int, int]:
        """All numbers of `bits` bits in two's complement."""
        return signed_range(self.bits)

    @property
    def decoder(self) -> Decoder:
        """A word a cycle."""
        return Decoder(
            symbol="weight",
            bits_per_cycle=32,
            weights_per_cycle=1,
            area_ge_low=3000,
            area_ge_high=3000,
            source="arXiv:1908.11645: a word a cycle at 600 MHz in 65 nm, 3.0 kGE to decode",
        )

    @property
    def _plane_run_bits(self) -> int:
        """Holds the number of planes, bits + 1, less two."""
        return (self.bits - 1).bit_length()

    def _size(self, values: Values) -> int:
        runs = zero_runs(values)
        n_zero_codes = int((-(-runs.lengths // 16) * runs.counts).sum()) + -(-runs.last // 16)
        bits = runs.n_nonzeros + n_zero_codes * (1 + _RUN_BITS)
        no_codes, no_lengths = np.empty(0, np.uint64), np.empty(0, np.int64)
        return -(-(bits + self._put(_blocks(values), no_codes, no_lengths)[1]) // 8)

    def _encode(self, values: Values) -> bytes:
        places = np.flatnonzero(values)
        runs = np.diff(places, prepend=-1, append=values.size) - 1
        n_codes = -(-runs // 16)
        ends = np.cumsum(n_codes + 1)  # of each run's codes and the non-zero after it
        codes = np.full(int(ends[-1]), 15 << 1, np.int64)
        lengths = np.full(codes.size, 1 + _RUN_BITS)
        codes[ends - 1], lengths[ends - 1] = 1, 1
        short = n_codes > 0
        codes[ends[short] - 2] = (runs[short] - 1) % 16 << 1
        out = BitWriter()
        out.codes(codes[:-1], lengths[:-1])  # no non-zero follows the last run
        blocks = _blocks(values)
        room = blocks.shape[0] * (self.bits + 2)
        codes_of_blocks, lengths = np.empty(room, np.uint64), np.empty(room, np.int64)
        used, _ = self._put(blocks, codes_of_blocks, lengths)
        out.codes(codes_of_blocks[:used], lengths[:used])
        return out.to_bytes()

    def _put(
        self,
        blocks: npt.NDArray[np.int64],
        codes: npt.NDArray[np.uint64],
        lengths: npt.NDArray[np.int64],
    ) -> tuple[int, int]:
        from npusim.schemes.bit_plane_kernels import put_blocks

        used, bits = put_blocks(blocks, self.bits, self._plane_run_bits, codes, lengths)
        return int(used), int(bits)

    def _decode(self, stream: bytes, n: int) -> Values:
        from npusim.schemes.bit_plane_kernels import take_blocks, take_zeros

        reader = BitReader(stream)
        if n > 16 * reader.end:
            raise reader.truncated()
        bits = np.zeros(reader.end + _SPARE_BITS, np.uint8)
        bits[: reader.end] = np.unpackbits(np.frombuffer(stream, np.uint8), bitorder="little")
        mask = np.zeros(n, np.uint8)
        reader.at, done = (int(found) for found in take_zeros(bits, _RUN_BITS, mask))
        if reader.at > reader.end:
            raise reader.truncated()
        if done != n:
            raise reader.error(f"mask must have {n} places, got {done}")
        nonzeros = np.flatnonzero(mask)
        blocks = np.empty((-(-nonzeros.size // _BLOCK), _BLOCK), np.int64)
        status, at = take_blocks(bits, reader.at, self.bits, self._plane_run_bits, blocks)
        if status:
            raise StreamError("bits must be the code of a bit plane, got others", int(at))
        if at > reader.end:
            raise reader.truncated()
        reader.at = int(at)
        reader.finish()
        levels = blocks.ravel()[: nonzeros.size]
        values = np.zeros(n, np.int16)
        values[nonzeros] = checked_levels(levels, reader, *self.value_range)
        return values


def _blocks(values: Values) -> npt.NDArray[np.int64]:
    """The non-zeros in rows of eight."""
    words = values[values != 0].astype(np.int64)
    padding = -words.size % _BLOCK
    return np.append(words, np.repeat(words[-1:], padding)).reshape(-1, _BLOCK)
