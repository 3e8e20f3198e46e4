# SPDX-License-Identifier: Apache-2.0
"""What can be wrong with a weight stream: the codes kernels return, and how to say them."""

from __future__ import annotations

OK, MORE_ROOM, TRUNCATED, RESERVED_ZDIV, RESERVED_WDIV, NO_PALETTE, MODE_CHANGE = range(7)
WEIGHT_PADDING, RUN_PADDING, QUOTIENT, OUT_OF_RANGE, TOO_MANY = range(7, 12)

NAMES = {
    TRUNCATED: "truncated",
    RESERVED_ZDIV: "reserved_zdiv",
    RESERVED_WDIV: "reserved_wdiv",
    NO_PALETTE: "no_palette",
    MODE_CHANGE: "mode_change",
    WEIGHT_PADDING: "weight_padding",
    RUN_PADDING: "run_padding",
    QUOTIENT: "quotient",
    OUT_OF_RANGE: "out_of_range",
    TOO_MANY: "too_many",
}
"""Short names, which the plain-Python decoder uses."""

MESSAGES = {
    "truncated": "stream must end with an end marker, got its end within a field",
    "reserved_zdiv": "ZDIV must be 0..3, 6 or 7, got a reserved value",
    "reserved_wdiv": "WDIV must be 0..5 or 7, got the reserved value 6",
    "no_palette": "first slice of a stream must have a new palette, got none",
    "mode_change": "zero-run mode must change only with a new palette, got a change without",
    "weight_padding": "unary bits after a slice's last weight must be 0, got a 1",
    "run_padding": "unary bits after a slice's last zero run must be 0, got a 1",
    "quotient": "quotient of a weight index must be at most 31, got a larger one",
    "out_of_range": "weights must be in -255..255, got an index beyond",
    "too_many": "stream must hold at most max_weights weights, got more",
}
