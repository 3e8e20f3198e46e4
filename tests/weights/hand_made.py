# SPDX-License-Identifier: Apache-2.0
"""Streams written out bit by bit from the format: good ones, and one for each thing to refuse.

Bits stand in the order of the stream; a field of several bits begins with its least significant.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from npusim.weights.reference import Palette, Section, Slice

END = "111"
NO_PALETTE = "00000 00000 000"  # direct offset 0, no entries, width 2
REST = "0" * 11  # of a chunk that holds a single position


def stream(bits: str) -> bytes:
    """Bytes of a string of bits (blanks only separate), filled up with ones to 16 bytes."""
    bits = bits.replace(" ", "")
    bits += "1" * (-len(bits) % 128)
    return int(bits[::-1], 2).to_bytes(len(bits) // 8, "little")


def header(zdiv: str, last: str, wdiv: str, wtrunc: str, new: str) -> str:
    """Slice header; `last`, the number of weights less one, is filled up to 15 bits."""
    return zdiv + last.ljust(15, "0") + wdiv + wtrunc + new


@dataclass(frozen=True)
class Good:
    """A stream, what it decodes to, and the plan that gives it."""

    bits: str
    values: list[int]
    sections: list[Section] = field(default_factory=list)


def _one_section(
    palette: Palette, part: Slice, indices: list[int], runs: list[int] | None = None
) -> list[Section]:
    return [Section(palette, indices, runs or [], [part])]


DIRECT = Palette(False, 0, 2, [])

GOOD: dict[str, Good] = {
    "nothing": Good(END, []),
    # index 2: a step of two, then one of none
    "one weight": Good(
        header("011", "0", "000", "0", "1") + NO_PALETTE + "100000000000 1" + END,
        [1],
        _one_section(DIRECT, Slice(1, 0, 0, 0), [2]),
    ),
    # index 5: quotient 2 in one position, remainder 1
    "truncated unary": Good(
        header("011", "0", "100", "1", "1") + NO_PALETTE + "1" + REST + "1  1" + END,
        [-2],
        _one_section(DIRECT, Slice(1, 1, 1, 0), [5]),
    ),
    # quotients 0, 1, 2, 3 with remainders 1, 0, 0, 1: indices 1, 2, 4, 7, values 0, 1, 2, -3
    "quotients and remainders": Good(
        header("011", "11", "100", "0", "1")
        + NO_PALETTE
        + "0 1 10 11 000000  0 1 10  1 0 0 1"
        + END,
        [0, 1, 2, -3],
        _one_section(DIRECT, Slice(4, 1, 0, 0), [1, 2, 4, 7]),
    ),
    # index 31: fifteen steps of two and one of one, which is the last
    "longest symbol": Good(
        header("011", "0", "000", "0", "1")
        + NO_PALETTE
        + "111111111111 111111111111  111100000000 1110"
        + END,
        [-15],
        _one_section(DIRECT, Slice(1, 0, 0, 0), [31]),
    ),
    # three bits a weight: indices 2, 3, 7
    "raw": Good(
        header("011", "01", "111", "0", "1") + "00000 00000 100" + "010 110 111" + END,
        [1, -1, -3],
        _one_section(Palette(False, 0, 3, []), Slice(3, 7, 0, 0), [2, 3, 7]),
    ),
    # weights of six bits come in chunks of eight: twelve runs, eight weights, eight weights that
    # let the runs catch up, then both
    "raw chunks of eight": Good(
        header("000", "11001", "111", "0", "1")
        + "00000 00000 001"
        + "000000000000"
        + "010000" * 8
        + "000000000000"
        + "010000" * 8
        + "010000" * 4
        + END,
        [1] * 20,
        _one_section(Palette(True, 0, 6, []), Slice(20, 7, 0, 0), [2] * 20, [0] * 21),
    ),
    # palette +9, -9, +1 of five bits; index 3 is the direct value 0 + offset 4
    "palette": Good(
        header("011", "11", "010", "0", "1")
        + "00100 01000 110"
        + "01001 11001 01000"
        + "0 0 0 0 00000000  00 10 01 11"
        + END,
        [9, -9, 1, 2],
        _one_section(Palette(False, 4, 5, [18, 19, 2]), Slice(4, 2, 0, 0), [0, 1, 2, 3]),
    ),
    # three entries take two raw bits, so raw index 3 is a direct value
    "raw palette with a direct value": Good(
        header("011", "1", "111", "0", "1")
        + "00100 01000 110"
        + "01001 11001 01000"
        + "00 11"
        + END,
        [9, 2],
        _one_section(Palette(False, 4, 5, [18, 19, 2]), Slice(2, 7, 0, 0), [0, 3]),
    ),
    # runs of 3 and 0 with divisor 2: one and remainder 1, none and remainder 0
    "zero runs": Good(
        header("100", "0", "000", "0", "1") + NO_PALETTE + "100000000000 100000000000 1  1 0" + END,
        [0, 0, 0, 1],
        _one_section(Palette(True, 0, 2, []), Slice(1, 0, 0, 1), [2], [3, 0]),
    ),
    # runs with divisor 8 come in chunks of eight: 9 is one and remainder 1
    "zero runs in chunks of eight": Good(
        header("110", "0", "000", "0", "1") + NO_PALETTE + "100000000000 01000000 1  000 100" + END,
        [1, *[0] * 9],
        _one_section(Palette(True, 0, 2, []), Slice(1, 0, 0, 3), [2], [0, 9]),
    ),
    # twelve weights are done when the first run still goes on: they wait for it
    "weights ahead of runs": Good(
        header("000", "11101", "000", "1", "1")
        + "01000 00000 000"
        + "000000000000 111111111111"
        + "111111111111"
        + "000000000000"
        + "000000000000 000000000000"
        + "000000000000"
        + END,
        [*[0] * 24, *[1] * 24],
        _one_section(Palette(True, 2, 2, []), Slice(24, 0, 1, 0), [0] * 24, [24, *[0] * 24]),
    ),
    # twelve runs are done before the first weight: they wait for the weights
    "runs ahead of weights": Good(
        header("000", "0011", "000", "0", "1")
        + "01000 00000 000"
        + "111111111111 000000000000 111111111111"
        + "1111 11111111 1110 11111111"
        + "11111111 0000 11111110"
        + "0000000 00000"
        + "00 0000000000"
        + END,
        [-16, -16, *[1] * 11],
        _one_section(Palette(True, 2, 2, []), Slice(13, 0, 0, 0), [31, 31, *[0] * 11], [0] * 14),
    ),
    # the second slice keeps the palette and has no run before its first weight
    "two slices": Good(
        header("000", "0", "000", "0", "1")
        + "00000 10000 000"
        + "01 11"
        + "000000000000 010000000000"
        + header("000", "0", "000", "0", "0")
        + "100000000000 000000000000 0"
        + END,
        [1, 0, -1],
        [Section(Palette(True, 0, 2, [2, 3]), [0, 1], [0, 1, 0], [Slice(1, 0, 0, 0)] * 2)],
    ),
    # a new palette may switch zero runs on
    "two sections": Good(
        header("011", "0", "000", "0", "1")
        + NO_PALETTE
        + "100000000000 1"
        + header("000", "0", "000", "0", "1")
        + NO_PALETTE
        + "100000000000 100000000000 1"
        + END,
        [1, 0, 1],
        [
            Section(DIRECT, [2], [], [Slice(1, 0, 0, 0)]),
            Section(Palette(True, 0, 2, []), [2], [1, 0], [Slice(1, 0, 0, 0)]),
        ],
    ),
}

_ONE = GOOD["one weight"].bits.removesuffix(END)
_RAW_TO_A_BYTE = header("011", "1", "111", "0", "1") + NO_PALETTE + "01 11"  # 40 bits


@dataclass(frozen=True)
class Bad:
    """A stream, the name (in `npusim.weights.status`) of what is wrong, and at which bit."""

    stream: bytes
    status: str
    bit: int


BAD: dict[str, Bad] = {
    "empty": Bad(b"", "truncated", 0),
    "header cut": Bad(stream(_ONE)[:2], "truncated", 3),
    "palette header cut": Bad(stream(_ONE)[:3], "truncated", 23),
    "chunk cut": Bad(stream(_ONE)[:5], "truncated", 36),
    "second unary bits cut": Bad(stream(_ONE)[:6], "truncated", 48),
    "end marker cut": Bad(stream(_RAW_TO_A_BYTE)[:5], "truncated", 40),
    "remainders cut": Bad(
        stream(header("011", "1" * 15, "111", "0", "1") + "00000 00000 111"), "truncated", 126
    ),
    "zdiv 4": Bad(stream("001"), "reserved_zdiv", 0),
    "zdiv 5": Bad(stream(_ONE + "101"), "reserved_zdiv", 49),
    "wdiv 6": Bad(stream(header("011", "0", "011", "0", "1")), "reserved_wdiv", 18),
    "first slice without palette": Bad(
        stream(header("011", "0", "000", "0", "0")), "no_palette", 0
    ),
    "no palette after an end marker": Bad(
        stream(_ONE + END) + stream(header("011", "0", "000", "0", "0")), "no_palette", 128
    ),
    "runs switched on without palette": Bad(
        stream(_ONE + header("000", "0", "000", "0", "0")), "mode_change", 49
    ),
    "weight in padding": Bad(
        stream(header("011", "0", "000", "0", "1") + NO_PALETTE + "010000000000 0"),
        "weight_padding",
        36,
    ),
    "run in padding": Bad(
        stream(header("000", "0", "000", "0", "1") + NO_PALETTE + "000000000000 001000000000"),
        "run_padding",
        48,
    ),
    "quotient 32": Bad(
        stream(
            header("011", "0", "000", "0", "1")
            + NO_PALETTE
            + "111111111111 111111111111  111100000000 1111"
        ),
        "quotient",
        60,
    ),
    "folded value 512": Bad(
        stream(header("011", "0", "111", "0", "1") + "10000 00000 111" + "111111111"),
        "out_of_range",
        0,
    ),
}
