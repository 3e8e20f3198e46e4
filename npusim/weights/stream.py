# SPDX-License-Identifier: Apache-2.0
"""Weights to streams and back: the public surface, which validates and then calls kernels."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
import numpy.typing as npt

from npusim._arguments import choice, integer, integer_array
from npusim.errors import ConfigError, StreamError
from npusim.weights import format as f
from npusim.weights import status
from npusim.weights.plan import Plan, legacy_plan, regor_plan
from npusim.weights.tight import check_options, tight_plan

_PLANNERS: dict[str, Callable[..., Plan]] = {
    "legacy": legacy_plan,
    "regor": regor_plan,
    "tight": tight_plan,
}

ENCODERS = tuple(_PLANNERS)
"""The C encoder of Vela up to 4.x, the C++ one of Vela 5 and ours; Arm's decoder reads all."""

WEIGHTS_MAX = 2**31 - 2
"""Most weights of one stream: kernels keep positions in 32 bits."""

EMPTY_STREAM = b"\xff" * f.STREAM_ALIGN_BYTES
"""Stream of no weights: an end marker."""

_ZEROS_PER_BIT = 8  # a stream of nothing but run quotients with ZDIV 3


def checked_values(values: npt.ArrayLike) -> npt.NDArray[np.int16]:
    """`values` as a contiguous int16 array, shape [n_weights], for the kernels.

    Raises:
        ConfigError: not one-dimensional, not integers, or one is not in -255..255.
    """
    if isinstance(values, (list, tuple)) and not values:
        return np.empty(0, np.int16)  # numpy takes an empty list for floats
    array = integer_array("weights", values)
    if array.ndim != 1:
        raise ConfigError(f"weights must be one-dimensional, got shape {array.shape}")
    if not array.size:
        return np.empty(0, np.int16)
    if array.size > WEIGHTS_MAX:
        raise ConfigError(f"weights must be at most {WEIGHTS_MAX}, got {array.size}")
    low, high = int(array.min()), int(array.max())
    if low < -f.WEIGHT_MAX or high > f.WEIGHT_MAX:
        worst = high if high > f.WEIGHT_MAX else low
        raise ConfigError(f"weights must be in -{f.WEIGHT_MAX}..{f.WEIGHT_MAX}, got {worst}")
    return np.require(array, np.int16, ("C", "A", "W"))


def plan(values: npt.ArrayLike, encoder: str = "regor", **options: Any) -> Plan | None:
    """What `encoder` decides about a tensor; None for an empty one (arguments: see `encode`)."""
    choice("encoder", encoder, ENCODERS)
    if options and encoder != "tight":
        raise ConfigError(
            f"options must go with encoder 'tight', got {', '.join(sorted(options))} "
            f"with {encoder!r}"
        )
    array = checked_values(values)
    if encoder == "tight":
        check_options(**options)
    if not array.size:
        return None
    return _PLANNERS[encoder](array, **options)


def encode(values: npt.ArrayLike, encoder: str = "regor", **options: Any) -> bytes:
    """Compress weights into an Ethos-U weight stream.

    Args:
        values: integers in -255..255 in stream order (`reorder`), shape [n_weights]; may be empty.
        encoder: ``"regor"`` (default: Vela 5's), ``"legacy"`` (Vela up to 4.x), each byte for
            byte, or ``"tight"``: never larger than the smaller of the two.
        **options: of ``"tight"`` only: `effort` 0..9 (default 2) and `direct_offset`
            ``"conservative"`` (default) or ``"free"``; see `npusim.weights.tight`.

    Returns:
        The stream, a multiple of 16 bytes; 16 bytes for no weights.

    Raises:
        ConfigError: values of another type, shape or range; an option that does not fit.
        UnknownNameError: no such encoder.

    >>> encode([0, 0, 0, 7]).hex()
    '1e004010048e00feffffffffffffffff'
    """
    made = plan(values, encoder, **options)
    return EMPTY_STREAM if made is None else made.stream()


def encoded_size(values: npt.ArrayLike, encoder: str = "regor", **options: Any) -> int:
    """Exact size in bytes of what `encode` returns for the same arguments, without writing it.

    >>> encoded_size([0, 0, 0, 7], encoder="legacy")
    16
    """
    made = plan(values, encoder, **options)
    return len(EMPTY_STREAM) if made is None else made.n_bytes()


def encoded_sizes(
    values: npt.ArrayLike, encoders: Sequence[str] = ENCODERS, **options: Any
) -> dict[str, int]:
    """`encoded_size` for several encoders at once, without doing for one what another did.

    Args:
        values: as in `encode`.
        encoders: which; each once in the result.
        **options: of ``"tight"``, which must then be among `encoders`.

    Returns:
        Bytes by encoder, in the order given.

    Raises:
        ConfigError, UnknownNameError: as `encode`.

    >>> encoded_sizes([0, 0, 0, 7], ["legacy", "tight"])
    {'legacy': 16, 'tight': 16}
    """
    names = tuple(dict.fromkeys(choice("encoder", name, ENCODERS) for name in encoders))
    if options and "tight" not in names:
        raise ConfigError(
            f"options must go with encoder 'tight', got {', '.join(sorted(options))} "
            f"with {', '.join(map(repr, names)) or 'no encoder'}"
        )
    check_options(**options)
    array = checked_values(values)
    if not array.size:
        return dict.fromkeys(names, len(EMPTY_STREAM))
    plans = {name: _PLANNERS[name](array) for name in names if name != "tight"}
    if "tight" in names:
        arms = [plans.get(name) or _PLANNERS[name](array) for name in ("legacy", "regor")]
        plans["tight"] = tight_plan(array, arms=arms, **options)
    return {name: plans[name].n_bytes() for name in names}


@dataclass(frozen=True, slots=True)
class StreamSlice:
    """One slice of a stream, as decoded: its header and where its bits go.

    Attributes:
        bit_offset: of the slice's header from the stream's start.
        zero_runs: whether runs of zeros are coded apart.
        n_weights, n_zeros: coded weights and zeros in runs.
        wdiv, wtrunc, zdiv: Golomb-Rice divisors (log2; wdiv 7 is raw) and truncation.
        new_palette: whether a palette header follows the slice header; a section starts there.
        direct_offset, palette_bits, palette: palette in force, entries as weights.
        bits: per field: ``header``, ``palette``, ``weight_unary``, ``weight_remainder``,
            ``run_unary``, ``run_remainder``, ``padding`` (unary positions that hold nothing).
    """

    bit_offset: int
    zero_runs: bool
    n_weights: int
    n_zeros: int
    wdiv: int
    wtrunc: bool
    zdiv: int
    new_palette: bool
    direct_offset: int
    palette_bits: int
    palette: tuple[int, ...]
    bits: dict[str, int]


@cache
def _halves() -> npt.NDArray[np.uint64]:
    """Look-up table of the decoding kernel, made at its first use."""
    from npusim.weights.decode_kernels import HALVES, fill_halves

    table = np.empty(HALVES, np.uint64)
    fill_halves(table)
    return table


class StreamDecoder:
    """One run of the decoding kernel, with its growing buffers.

    Attributes:
        words: the stream, uint64, with two words to spare.
        info, palettes: once it has run, the kernel's facts of each slice (decode_kernels.py).
    """

    def __init__(self, stream: Any, max_weights: int | None):
        try:
            data = memoryview(stream).cast("B")
        except TypeError:
            raise ConfigError(f"stream must be bytes, got {type(stream).__name__}") from None
        self.n_bits = 8 * len(data)
        self.limit = _ZEROS_PER_BIT * self.n_bits
        if max_weights is not None:
            self.limit = min(self.limit, integer("max_weights", max_weights, 0, 2**62))
        words = np.zeros(len(data) // 8 + 3, np.uint64)
        words.view(np.uint8)[: len(data)] = np.frombuffer(data, np.uint8)
        self.words = words.astype("<u8", copy=False)

    def run(self) -> npt.NDArray[np.int16]:
        """The stream's weights (errors: see `decode`)."""
        from npusim.weights import decode_kernels as kernels

        rows = self.n_bits // f.HEADER_BITS + 2
        self.info = np.empty((rows, kernels.INFO_COLUMNS), np.int64)
        palettes = self.n_bits // (f.HEADER_BITS + f.PALETTE_HEADER_BITS) + 2
        self.palettes = np.empty((palettes, f.PALETTE_MAX), np.int64)
        state = np.zeros(kernels.STATE_CELLS, np.int64)
        out = np.empty(min(self.limit, self.n_bits), np.int16)
        while True:
            code, where = kernels.decode_slices(
                self.words, self.n_bits, self.limit, _halves(), state, self.info, self.palettes, out
            )
            if code == status.MORE_ROOM:
                grown = np.empty(min(self.limit, where + where // 2), np.int16)
                grown[: state[kernels.N_OUT]] = out[: state[kernels.N_OUT]]
                out = grown
                continue
            if code != status.OK:
                raise StreamError(status.MESSAGES[status.NAMES[code]], int(where))
            self.info = self.info[: state[kernels.N_SLICES]]
            out.resize(int(state[kernels.N_OUT]), refcheck=False)  # gives back what is not used
            return out


def decode(stream: Any, max_weights: int | None = None) -> npt.NDArray[np.int16]:
    """Weights of an Ethos-U weight stream, or of several that follow one another.

    Strict: reserved codes, a missing end marker, set padding bits or a weight out of range are
    errors. A stream cannot hold more than 64 weights a byte, which bounds the memory used.

    Args:
        stream: bytes-like.
        max_weights: most weights to accept; None sets no limit of its own.

    Returns:
        int16, shape [n_weights], each in -255..255.

    Raises:
        StreamError: the stream breaks the format or holds more weights; has `bit_offset`.
        ConfigError: `stream` is not bytes-like, or `max_weights` is no integer >= 0.

    >>> decode(encode([0, 0, 0, 7])).tolist()
    [0, 0, 0, 7]
    """
    return StreamDecoder(stream, max_weights).run()


def slices(stream: Any, max_weights: int | None = None) -> list[StreamSlice]:
    """The slices of a stream (arguments and errors: see `decode`).

    >>> [(s.n_weights, s.n_zeros, s.palette) for s in slices(encode([0, 0, 0, 7]))]
    [(4, 0, (0, 7))]
    """
    decoder = StreamDecoder(stream, max_weights)
    decoder.run()
    return list(_slices(decoder))


def _slices(decoder: StreamDecoder) -> Iterator[StreamSlice]:
    from npusim.weights import decode_kernels as k
    from npusim.weights.reference import unfold

    for row in decoder.info.tolist():
        entries = decoder.palettes[row[k.PALETTE_ROW], : row[k.N_ENTRIES]].tolist()
        new = bool(row[k.NEW_PALETTE])
        palette_bits = f.PALETTE_HEADER_BITS + row[k.N_ENTRIES] * row[k.PALETTE_BITS]
        padding = row[k.WEIGHT_PAD] + row[k.RUN_PAD]
        yield StreamSlice(
            bit_offset=row[k.BIT],
            zero_runs=row[k.ZDIV] != f.ZDIV_OFF,
            n_weights=row[k.N_WEIGHTS],
            n_zeros=row[k.ZEROS],
            wdiv=row[k.WDIV],
            wtrunc=bool(row[k.WTRUNC]),
            zdiv=row[k.ZDIV],
            new_palette=new,
            direct_offset=row[k.DIRECT_OFFSET],
            palette_bits=row[k.PALETTE_BITS],
            palette=tuple(unfold(entry) for entry in entries),
            bits={
                "header": f.HEADER_BITS,
                "palette": palette_bits if new else 0,
                "weight_unary": row[k.WEIGHT_UNARY0] + row[k.WEIGHT_UNARY1] - row[k.WEIGHT_PAD],
                "weight_remainder": row[k.WEIGHT_REST],
                "run_unary": row[k.RUN_UNARY] - row[k.RUN_PAD],
                "run_remainder": row[k.RUN_REST],
                "padding": padding,
            },
        )
