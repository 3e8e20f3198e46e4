# SPDX-License-Identifier: Apache-2.0
"""The Ethos-U weight stream ("MLW") on one page: fields, widths, codes and limits.

Bits are written little-endian: the first bit of the stream is bit 0 of byte 0, and a field of
several bits is written with its least significant bit first. A weight ``w`` in -255..255 is
*folded* to ``2*|w| + (w < 0)``, so that 0, +1, -1, +2, -2 become 0, 2, 3, 4, 5; the folded value 1
is "minus zero" and decodes to 0. A weight is coded as a **weight index** ``x``: below
the palette size it is a palette position, from there on it stands for the folded value
``x - palette_size + direct_offset``. Zeros may instead be coded as run lengths between weights.

A stream is a row of slices and an end marker::

    slice header    ZDIV 3 | SLICE_LEN 15 | WDIV 3 | WTRUNC 1 | NEW_PALETTE 1
    palette header  DIRECT_OFFSET 5 | PALETTE_SIZE 5 | PALETTE_BITS 3 | entries   (if NEW_PALETTE)
    chunks          WUNARY0 | ZUNARY | WUNARY1 | weight remainders | run remainders
    end marker      ZDIV = 7, ones to the byte boundary, bytes of ones to a multiple of 16 bytes

Source: [VELA] the format shared by mlw_codec and regor, verified against both.
"""

from __future__ import annotations

from typing import Final

STREAM_VERSION: Final = 1
"""Raised when a byte of any stream npusim writes changes."""

# Weights and indices
WEIGHT_MAX: Final = 255
"""Largest magnitude of a zero-point corrected weight: 9 bits, sign and magnitude."""
FOLDED_MAX: Final = 2 * WEIGHT_MAX + 1
MINUS_ZERO: Final = 1
"""Folded value that decodes to 0; both of Arm's encoders send it for a zero coded directly."""

# Slice header, 23 bits
ZDIV_FIELD_BITS: Final = 3
SLICE_LEN_FIELD_BITS: Final = 15
WDIV_FIELD_BITS: Final = 3
HEADER_BITS: Final = ZDIV_FIELD_BITS + SLICE_LEN_FIELD_BITS + WDIV_FIELD_BITS + 1 + 1
ZDIV_MAX: Final = 3
"""ZDIV 0..3: zero runs are coded, with Golomb-Rice divisor ``1 << ZDIV``."""
ZDIV_OFF: Final = 6
"""ZDIV value of a slice without zero runs."""
ZDIV_END: Final = 7
"""ZDIV value of the end marker; 4 and 5 are reserved."""
SLICE_LEN_MAX: Final = 1 << SLICE_LEN_FIELD_BITS
SLICE_LEN_EMITTED_MAX: Final = SLICE_LEN_MAX - 1
"""Longest slice that Arm's encoders (and ours) write."""
WDIV_MAX: Final = 5
"""WDIV 0..5: weight indices are Golomb-Rice coded with divisor ``1 << WDIV``."""
WDIV_RAW: Final = 7
"""WDIV value of raw indices, without a unary part; 6 is reserved."""

# Palette header, 13 bits and the entries
DIRECT_OFFSET_FIELD_BITS: Final = 5
PALETTE_SIZE_FIELD_BITS: Final = 5
PALETTE_BITS_FIELD_BITS: Final = 3
PALETTE_HEADER_BITS: Final = (
    DIRECT_OFFSET_FIELD_BITS + PALETTE_SIZE_FIELD_BITS + PALETTE_BITS_FIELD_BITS
)
PALETTE_MAX: Final = 32
"""Most palette entries; the field holds size - 1, and 0 for none, so a palette of 1 cannot be."""
PALETTE_BITS_MIN: Final = 2
PALETTE_BITS_MAX: Final = 9
DIRECT_OFFSET_MAX: Final = 31

# Symbols and chunks
QUOTIENT_MAX: Final = 31
"""Largest unary quotient of a weight index (31 in 16 two-step positions)."""
QUOTIENT_TRUNC_MAX: Final = 2
"""Largest quotient with truncated unary (WTRUNC = 1): one position a weight."""
CHUNK_WEIGHTS: Final = 12
"""Unary positions of weights in a chunk; in raw mode, indices of up to 5 bits."""
CHUNK_WEIGHTS_RAW_WIDE: Final = 8
"""Raw indices in a chunk when they are wider than `RAW_NARROW_BITS`."""
RAW_NARROW_BITS: Final = 5
CHUNK_RUN_BITS: Final = 12
"""Unary bits of zero runs in a chunk with ZDIV 0..2."""
CHUNK_RUN_BITS_ZDIV3: Final = 8
"""Unary bits of zero runs in a chunk with ZDIV 3."""
BALANCE_MAX: Final = 8
"""Weights may be this far ahead of runs before weight chunks pause."""

# Container
STREAM_ALIGN_BYTES: Final = 16
SCALE_BYTES: Final = 10
"""Bias and scale of one output channel: bias 40 bits, scale 32 bits, shift 6 bits, 2 zero bits."""
