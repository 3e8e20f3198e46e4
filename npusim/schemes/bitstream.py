# SPDX-License-Identifier: Apache-2.0
"""Fields of bits to bytes and back, the least significant bit first: what most schemes write.

>>> out = BitWriter()
>>> out.fields([5, 1], width=3)
>>> out.rice([9], k=2)
>>> BitReader(out.to_bytes()).fields(2, width=3).tolist()
[5, 1]
"""

from __future__ import annotations

from typing import Any, Final

import numpy as np
import numpy.typing as npt

from npusim.errors import StreamError

Int64Array = npt.NDArray[np.int64]

RICE_K_MAX: Final = 15
"""Largest log2 of a Golomb-Rice divisor that the schemes choose: a field of four bits holds it."""


def rice_bits(values: Int64Array, counts: Int64Array) -> tuple[int, int]:
    """The k of least bits for Golomb-Rice codes of values from 0 that occur so often, and the bits.

    >>> rice_bits(np.array([0, 3]), np.array([1, 2]))
    (1, 8)
    """
    n = int(counts.sum())
    best = n + int(values @ counts)
    for k in range(1, RICE_K_MAX + 1):
        bits = n * (1 + k) + int((values >> k) @ counts)
        if bits >= best:  # each step saves less than the one before, and costs as much
            return k - 1, best
        best = bits
    return RICE_K_MAX, best


class BitWriter:
    """Collects fields, then writes them all at once."""

    def __init__(self) -> None:
        self._codes: list[npt.NDArray[np.uint64]] = []
        self._lengths: list[Int64Array] = []
        self.n_bits = 0

    def codes(self, codes: npt.ArrayLike, lengths: npt.ArrayLike) -> None:
        """Append codes of these lengths; bits of a length beyond 64 are zero."""
        arrays = np.broadcast_arrays(np.atleast_1d(codes), np.atleast_1d(lengths))
        self._codes.append(np.ravel(arrays[0]).astype(np.uint64))
        self._lengths.append(np.ravel(arrays[1]).astype(np.int64))
        self.n_bits += int(self._lengths[-1].sum())

    def fields(self, values: npt.ArrayLike, width: int) -> None:
        """Append the low `width` bits of integers, 0..63."""
        array = np.asarray(values).astype(np.int64) & ((1 << width) - 1)
        self.codes(array, width)

    def rice(self, values: npt.ArrayLike, k: int) -> None:
        """Append Golomb-Rice codes of integers from 0: zeros, a one, `k` bits of remainder."""
        array = np.asarray(values).astype(np.int64)
        lengths = np.stack([array >> k, np.full_like(array, k + 1)], axis=-1)
        codes = np.stack([np.zeros_like(array), 1 | (array & ((1 << k) - 1)) << 1], axis=-1)
        self.codes(codes, lengths)

    def align(self, n_bits: int) -> None:
        """Append zeros up to a multiple of `n_bits`."""
        self.codes(0, -self.n_bits % n_bits)

    def to_bytes(self) -> bytes:
        """All that was appended, with zeros up to a whole byte."""
        from npusim.schemes.bit_kernels import put_fields

        words = np.zeros((self.n_bits >> 6) + 2, np.uint64)
        at = 0
        for codes, lengths in zip(self._codes, self._lengths, strict=True):
            at = put_fields(codes, lengths, words, at)
        return words.astype("<u8", copy=False).tobytes()[: -(-self.n_bits // 8)]


class BitReader:
    """Reads what a `BitWriter` wrote, never beyond the stream's end.

    Attributes:
        words: the stream, uint64, with two words to spare.
        end: its bits.
        at: the next bit.
    """

    def __init__(self, stream: bytes):
        words = np.zeros(len(stream) // 8 + 3, np.uint64)
        words.view(np.uint8)[: len(stream)] = np.frombuffer(stream, np.uint8)
        self.words = words.astype("<u8", copy=False)
        self.end = 8 * len(stream)
        self.at = 0

    def fields(self, n: int, width: int) -> Int64Array:
        """The next `n` fields of `width` bits, 0..32.

        Raises:
            StreamError: the stream ends before.
        """
        if self.at + n * width > self.end:
            raise self.truncated()
        from npusim.schemes.bit_kernels import take_fields

        values = np.empty(n, np.int64)
        take_fields(self.words, self.at, width, values)
        self.at += n * width
        return values

    def field(self, width: int) -> int:
        """The next field of `width` bits, 0..32 (errors: see `fields`)."""
        return int(self.fields(1, width)[0])

    def signed(self, n: int, width: int) -> Int64Array:
        """The next `n` fields as two's complement numbers (errors: see `fields`)."""
        half = 1 << (width - 1)
        return (self.fields(n, width) ^ half) - half

    def rice(self, n: int, k: int, most: int) -> Int64Array:
        """The next `n` Golomb-Rice codes with this `k`.

        Raises:
            StreamError: the stream ends before, or a value is more than `most`.
        """
        if n * (k + 1) > self.end - self.at:
            raise self.truncated()
        from npusim.schemes.bit_kernels import take_rice

        values = np.empty(n, np.int64)
        status, at = take_rice(self.words, self.at, self.end, k, most, values)
        if status == 1:
            raise self.truncated()
        if status == 2:
            raise StreamError(f"code must stand for at most {most}, got a larger one", int(at))
        self.at = int(at)
        return values

    def align(self, n_bits: int) -> None:
        """Skip zeros up to a multiple of `n_bits`, at most the rest of the stream.

        Raises:
            StreamError: one of them is a 1, or the stream ends before.
        """
        n = -self.at % n_bits
        while n:
            width = min(n, 32)
            first = self.at
            if self.fields(1, width)[0]:
                raise StreamError("padding bits must be 0, got a 1", first)
            n -= width

    def finish(self) -> None:
        """Refuse what follows the last field, but for zeros up to a whole byte.

        Raises:
            StreamError: more bytes follow, or a bit is set.
        """
        if self.end - self.at >= 8:
            raise self.error("stream must end after its last weight, got more")
        self.align(8)

    def error(self, message: str) -> StreamError:
        """What is wrong, at the next bit."""
        return StreamError(message, min(self.at, self.end))

    def truncated(self) -> StreamError:
        """The stream ends before the field at hand."""
        return self.error("stream must not end before its last weight, got its end within a field")


def checked_levels(levels: Any, reader: BitReader, low: int, high: int) -> npt.NDArray[np.int16]:
    """Decoded weights as int16.

    Raises:
        StreamError: one is not in low..high.
    """
    if levels.size and (levels.min() < low or levels.max() > high):
        worst = levels.max() if levels.max() > high else levels.min()
        raise reader.error(f"weights must be in {low}..{high}, got {worst}")
    return levels.astype(np.int16)  # type: ignore[no-any-return]
