# SPDX-License-Identifier: Apache-2.0
"""The bias and scale block before each weight stream: 10 bytes an output channel.

A channel's entry, little-endian, least significant bit first::

    bias 40 (two's complement) | scale 32 (unsigned) | shift 6 | 2 zero bits

The entries of one core's channels follow each other; zeros pad the block to 16 bytes. The NPU adds
the bias to the accumulator and multiplies the sum by ``scale * 2**-shift``.

Source: [VELA] weight_compressor.encode_bias.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from npusim._arguments import integer, integer_array
from npusim.errors import ConfigError, StreamError
from npusim.weights.format import SCALE_BYTES, STREAM_ALIGN_BYTES

BIAS_MIN: Final = -(1 << 39)
BIAS_MAX: Final = (1 << 39) - 1
SCALE_MAX: Final = (1 << 32) - 1
SHIFT_MAX: Final = 63
_N_CHANNELS_MAX: Final = 1 << 31
_BIAS_BYTES: Final = 5
_SHIFT_BYTE: Final = 9


@dataclass(frozen=True, slots=True)
class ChannelScales:
    """Biases and scales of a block's channels.

    Attributes:
        bias: int64, shape [n_channels], in `BIAS_MIN`..`BIAS_MAX`.
        scale: int64, shape [n_channels], in 0..`SCALE_MAX`.
        shift: int64, shape [n_channels], in 0..`SHIFT_MAX`.
    """

    bias: npt.NDArray[np.int64]
    scale: npt.NDArray[np.int64]
    shift: npt.NDArray[np.int64]


def scale_bytes(n_channels: int) -> int:
    """Bytes of the block of `n_channels` output channels, a multiple of 16.

    Raises:
        ConfigError: `n_channels` is not an integer from 1.

    >>> scale_bytes(1), scale_bytes(8), scale_bytes(64)
    (16, 80, 640)
    """
    n_entries = integer("n_channels", n_channels, 1, _N_CHANNELS_MAX)
    return -(-SCALE_BYTES * n_entries // STREAM_ALIGN_BYTES) * STREAM_ALIGN_BYTES


def pack_scales(bias: npt.ArrayLike, scale: npt.ArrayLike, shift: npt.ArrayLike) -> bytes:
    """The bias and scale block of some channels.

    Args:
        bias: integers in -2**39..2**39-1, shape [n_channels], n_channels at least 1.
        scale: integers in 0..2**32-1, shape [n_channels], or one for all channels.
        shift: integers in 0..63, shape [n_channels], or one for all channels.

    Returns:
        `scale_bytes` of n_channels bytes.

    Raises:
        ConfigError: a value is out of range or not an integer, or the shapes differ.

    >>> pack_scales([-2], 3, 4).hex(" ")
    'fe ff ff ff ff 03 00 00 00 04 00 00 00 00 00 00'
    """
    biases = _field("bias", bias, BIAS_MIN, BIAS_MAX)
    if biases.ndim != 1 or biases.size == 0:
        raise ConfigError(f"bias must have shape [n_channels], got {biases.shape}")
    scales = _field("scale", scale, 0, SCALE_MAX)
    shifts = _field("shift", shift, 0, SHIFT_MAX)
    for what, values in (("scale", scales), ("shift", shifts)):
        if values.shape not in ((), biases.shape):
            raise ConfigError(
                f"{what} must be one value or have shape {biases.shape}, got {values.shape}"
            )
    block = np.zeros(scale_bytes(biases.size), np.uint8)
    entries = block[: SCALE_BYTES * biases.size].reshape(-1, SCALE_BYTES)
    entries[:, :_BIAS_BYTES] = _as_bytes(biases)[..., :_BIAS_BYTES]
    entries[:, _BIAS_BYTES:_SHIFT_BYTE] = _as_bytes(scales)[..., : _SHIFT_BYTE - _BIAS_BYTES]
    entries[:, _SHIFT_BYTE] = shifts
    return block.tobytes()


def unpack_scales(block: bytes, n_channels: int) -> ChannelScales:
    """Biases and scales of a block that `pack_scales` or Arm's compiler wrote.

    Args:
        block: bytes-like, `scale_bytes(n_channels)` bytes.
        n_channels: channels in the block, at least 1.

    Raises:
        ConfigError: `block` is not bytes-like, or `n_channels` no integer from 1.
        StreamError: the block has another length, or a bit that must be zero is set.

    >>> unpack_scales(pack_scales([-2, 7], 3, 4), 2).bias.tolist()
    [-2, 7]
    """
    n_expected = scale_bytes(n_channels)
    try:
        content = np.frombuffer(block, np.uint8)
    except (TypeError, ValueError, BufferError):
        raise ConfigError(f"block must be bytes, got {type(block).__name__}") from None
    if content.size != n_expected:
        raise StreamError(
            f"bias and scale block of {n_channels} channels must have {n_expected} bytes, got "
            f"{content.size}",
            8 * min(content.size, n_expected),
        )
    n_used = SCALE_BYTES * n_channels
    entries = content[:n_used].reshape(-1, SCALE_BYTES)
    allowed = np.zeros(n_expected, np.uint8)
    allowed[:n_used] = 0xFF
    allowed[_SHIFT_BYTE:n_used:SCALE_BYTES] = SHIFT_MAX
    stray = np.flatnonzero(content & ~allowed)
    if stray.size:
        at = int(stray[0])
        raise StreamError(f"unused bits must be 0, got byte {content[at]:#04x}", 8 * at)
    bias = _from_bytes(entries[:, :_BIAS_BYTES])
    return ChannelScales(
        bias=bias - ((bias > BIAS_MAX) * np.int64(1 << 40)),
        scale=_from_bytes(entries[:, _BIAS_BYTES:_SHIFT_BYTE]),
        shift=entries[:, _SHIFT_BYTE].astype(np.int64),
    )


def _field(what: str, values: npt.ArrayLike, low: int, high: int) -> npt.NDArray[np.int64]:
    array = integer_array(what, values)
    for extreme in (int(array.min()), int(array.max())) if array.size else ():
        if not low <= extreme <= high:
            raise ConfigError(f"{what} must be in {low}..{high}, got {extreme}")
    return array.astype(np.int64)


def _as_bytes(values: npt.NDArray[np.int64]) -> npt.NDArray[np.uint8]:
    """Little-endian bytes of each value, shape [..., 8]."""
    return values.astype("<i8").reshape(*values.shape, 1).view(np.uint8)


def _from_bytes(parts: npt.NDArray[np.uint8]) -> npt.NDArray[np.int64]:
    """Values of little-endian bytes [n, at most 7], as unsigned ones."""
    whole = np.zeros((len(parts), 8), np.uint8)
    whole[:, : parts.shape[1]] = parts
    return whole.view("<i8").reshape(-1).astype(np.int64)
