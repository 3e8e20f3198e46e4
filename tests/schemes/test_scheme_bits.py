# SPDX-License-Identifier: Apache-2.0
"""Streams of every scheme written out by hand, and what is wrong with others."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from test_raw import bits

from npusim import schemes
from npusim.errors import ConfigError, MissingExtraError, StreamError, UnknownNameError


def number(value: int, width: int) -> str:
    """A field of several bits, the least significant one first."""
    return f"{value:0{width}b}"[::-1]


NONE = "0"
ONE_GROUP = {"group_weights": 0, "align_bytes": 1}
SPARTEN = {"group_weights": 128, "align_bytes": 1}
PLAIN = {"index_bits": 4, "huffman": False}
RAW_MASK = {"nonzeros": "raw"}
TABLE_OF_ZEROS = NONE * 16 * 9

BY_HAND: list[tuple[str, dict[str, Any], list[int], str]] = [
    ("bit-plane", {}, [0] * 16, "0 1111"),
    # filled up to eight times 1: nine planes of zeros
    ("bit-plane", {}, [1], "1" + number(1, 8) + "01" + number(7, 3)),
    # differences of 1: eight planes of zeros, one of ones
    ("bit-plane", {}, [0, 1, 2, 3, 4, 5, 6, 7, 8], "0 0000" + "1" * 8 + number(1, 8)
     + "01" + number(6, 3) + "00000"),
    # 1 1 1 1 1 1 1 3: a single one at the seventh difference, in plane 1; plane 0 is zero again
    ("bit-plane", {}, [1] * 7 + [3], "1" * 8 + number(1, 8) + "01" + number(5, 3)
     + "00011" + number(6, 3) + "00001"),
    ("cabac", {}, [], number(0, 16)),
    # the upper half of the interval: 0b1
    ("cabac", {}, [0], number(0x80, 16)),
    # not zero: lower half; positive: upper half of it; one bit long: upper half of that: 0b011
    ("cabac", {}, [1], number(0b01100000, 16)),
    ("csc", {"row_weights": 2}, [0, 3, 0, 0], number(4, 32) + number(0, 32) + number(0, 32)
     + number(1, 32) + number(0, 16) + number(3, 8)),
    ("csc", {"row_weights": 2}, [1], number(1, 32) + number(0, 32) + number(1, 32)
     + number(1, 32) + number(0, 16) + number(1, 8)),
    ("csc", {"row_weights": 1, "bits": 2}, [0, -1], number(2, 32) + number(0, 32)
     + number(1, 32) + number(1, 16) + "11"),
    ("csr", {"row_weights": 2}, [0, 3, 0, 0], number(0, 32) + number(1, 32) + number(1, 32)
     + number(1, 16) + number(3, 8)),
    ("csr", {}, [], number(0, 32)),
    ("csr", {"row_weights": 4, "index_bits": 2, "bits": 2}, [0, 0, 1, -1], number(0, 32)
     + number(2, 32) + "01 10" + "11 11"),
    ("dead-zone-gr", {}, [], number(0, 18)),
    # runs 2, 1 and 3 with k 1; 90 and -91 are 0 and 3 after 89 magnitudes that do not occur
    ("dead-zone-gr", {}, [0, 0, 90, 0, -91, 0, 0, 0], number(1, 5) + number(0, 5) + number(89, 8)
     + "010" + "1" + "11" + "0001" + "011"),
    ("dead-zone-gr", {}, [1, -1, 1, 0], number(31, 5) + number(0, 13) + "01 001 01 1"),
    ("deep-compression", PLAIN, [0, 0, 7], number(1, 32) + number(7, 8) + number(2, 4)),
    ("deep-compression", PLAIN, [0] * 17, number(2, 32) + number(0, 16) + number(15, 4)
     + number(0, 4)),
    # 5 three times; runs 0, 0 and 1
    ("deep-compression", {}, [5, 5, 0, 5], number(3, 32)
     + number(256 + 5, 9) + number(1, 9) + number(1, 4) + "000"
     + number(256, 9) + number(2, 9) + number(1, 4) + number(1, 4) + "001"),
    ("eie", {"bits": 4, "group_weights": 2}, [1, 0, 0, -1], number(2, 16) + number(1, 16)
     + "0000 1000" + "0000 0000" + "1000 1111"),
    ("eie", {}, [0] * 17, number(2, 16) + number(15, 4) + number(0, 8) + number(0, 12)),
    ("eie", {}, [-128], number(1, 16) + number(0, 4) + number(128, 8)),
    ("ethos-u85-fast", {}, [0] * 4, "01" + NONE * (102 + 8) + TABLE_OF_ZEROS + NONE * 8
     + NONE * 248),
    ("ethos-u85-fast", {}, [-1, 3], "01" + NONE * (102 + 8) + number(3, 9) + number(6, 9)
     + NONE * 14 * 9 + number(0, 2) + number(1, 2) + NONE * 252),
    ("ethos-u85-fast", {}, list(range(-1, 16)), "10" + NONE * 102 + number(1, 8)
     + TABLE_OF_ZEROS + "".join(number(i, 8) for i in range(17)) + NONE * 120),
    ("eyeriss-rlc", {}, [0, 0, 7], number(2, 5) + number(7, 8) + NONE * 39 + NONE * 11 + "1"),
    ("eyeriss-rlc", {"bits": 16}, [0] * 32 + [1], number(31, 5) + number(0, 16) + number(0, 5)
     + number(1, 16) + NONE * 21 + "1"),
    ("eyeriss-rlc", {}, [1] * 5, ("00000" + number(1, 8)) * 4 + NONE * 12
     + "00000" + number(1, 8) + NONE * 39 + NONE * 11 + "1"),
    ("huffman", {}, [], number(256, 9) + NONE * 9),
    # 0 is 0, 7 is 1
    ("huffman", {}, [7, 7, 0], number(256, 9) + number(8, 9) + number(1, 4) + NONE * 24
     + number(1, 4) + "110"),
    # 1 is 0, 2 is 10, 3 is 11
    ("huffman", {}, [1, 3, 2, 1], number(257, 9) + number(3, 9) + number(1, 4)
     + number(2, 4) * 2 + "0 11 10 0"),
    # never zero, of probability 65535: the interval still begins with 0
    ("mask-arithmetic", RAW_MASK, [1], "1" * 16 + number(0, 8) + number(0, 16) + number(1, 8)),
    # never but zero: above 1/65536 of the interval, 0x0001
    ("mask-arithmetic", RAW_MASK, [0], number(1, 16) + number(0, 8) + number(0, 8) + number(1, 8)),
    # a one of two: lower half, then its upper half, 0b01; code 0 with k = 0
    ("mask-arithmetic", {}, [1, 0], number(32768, 16) + number(0, 8) + number(0b01000000, 16)
     + "1"),
    ("mask-gr", {}, [], "0000"),
    ("mask-gr", {}, [0, 1, -2], number(0, 4) + "011" + "1" + "0001"),
    ("mask-gr", {}, [5, 5], number(2, 4) + "11" + ("001" + "00") * 2),
    ("mask-rle-gr", {}, [], "0000 0000"),
    ("mask-rle-gr", {}, [0, 0, 1, 0], "0000 0000" + "001" + "1" + "01"),
    ("mask-rle-gr", {}, [0] * 40, number(4, 4) + number(0, 4) + "001" + number(8, 4)),
    ("n-m", {}, [0, 3, 0, -1], number(1, 2) + number(3, 8) + number(3, 2) + "1" * 8),
    ("n-m", {}, [0, 0, 0, 5], number(0, 2) + number(0, 8) + number(3, 2) + number(5, 8)),
    ("n-m", {"n": 1, "m": 2, "bits": 2}, [1, 0, -1], "0 10" + "0 11"),
    ("palette", {}, [], NONE * 9),
    ("palette", {}, [9] * 50, number(1, 9) + number(9, 9)),
    ("palette", {}, [5, 5, -1, 5], number(2, 9) + "1" * 9 + number(5, 9) + "1101"),
    ("rans", {}, [], ""),
    # one weight of frequency 4096, the state never changes
    ("rans", {"states": 1}, [7, 7], number(263, 9) + number(1, 9) + "1" + number(4095, 12)
     + number(65536, 32)),
    # 65536 -> 32 * 4096 + 2048 for 1 -> 65 * 4096 for 0
    ("rans", {"states": 1}, [0, 1], number(256, 9) + number(2, 9) + ("1" + number(2047, 12)) * 2
     + number(65 * 4096, 32)),
    ("scnn", {}, [0, 0, 7], number(1, 16) + number(2, 4) + number(7, 8)),
    ("scnn", {}, [0] * 16, number(1, 16) + number(15, 4) + number(0, 8)),
    ("scnn", {}, [0] * 20 + [-1], number(2, 16) + number(15, 4) + number(0, 8) + number(4, 4)
     + "1" * 8),
    ("zvc", ONE_GROUP, [0, 3, 0, -1], "0101 0000" + number(3, 8) + "1" * 8),
    ("zvc", SPARTEN, [2] + [0] * 128 + [3], "1" + NONE * 128 + "1" + NONE * 6 + number(1, 32) * 2
     + number(2, 8) + number(3, 8)),
    ("zvc", {}, [1], "1" + NONE * 1023 + number(1, 32) + NONE * 992 + number(1, 8) + NONE * 1016),
]  # fmt: skip


@pytest.mark.parametrize(("name", "parameters", "values", "wanted"), BY_HAND)
def test_bits_by_hand(name, parameters, values, wanted):
    scheme = schemes.get(name, **parameters)
    wanted = wanted.replace(" ", "")
    stream = scheme.encode(values)
    assert bits(stream) == wanted + NONE * (-len(wanted) % 8)
    assert scheme.decode(stream, len(values)).tolist() == values


def test_every_format_of_ours_has_three_examples():
    names = [name for name, *_ in BY_HAND]
    ours = set(schemes.names()) - {"raw", "ethos-u-mlw", "zstd"}  # elsewhere, and not ours
    assert {name for name in names if names.count(name) >= 3} == ours


def packed(text: str) -> bytes:
    digits = np.array(list(text.replace(" ", "")), np.uint8)
    return np.packbits(digits, bitorder="little").tobytes()


BAD: list[tuple[str, dict[str, Any], str, int, str]] = [
    ("mask-gr", {}, "0000 1", 9, "must not end before its last weight"),
    ("mask-gr", {}, "0000 1 0000000" + "0" * 600 + "1", 1, "must stand for at most 509, got"),
    ("mask-gr", {}, "0000 0 000" + NONE * 8, 1, "must end after its last weight, got more"),
    ("mask-gr", {}, "0000 0 001", 1, "padding bits must be 0, got a 1"),
    ("mask-rle-gr", {}, "0000 0000 00001", 3, "runs and weights must be in range, got a larger"),
    ("mask-rle-gr", {}, "0000 0000 00", 3, "must not end before its last weight"),
    ("dead-zone-gr", {}, number(16, 5) + number(0, 13), 1, "header must hold two divisors and a"),
    ("dead-zone-gr", {}, number(0, 5) + number(16, 13), 1, "header must hold two divisors and a"),
    ("dead-zone-gr", {}, number(0, 10) + number(255, 8), 1, "header must hold two divisors and a"),
    ("dead-zone-gr", {}, number(31, 10) + number(1, 8), 1, "header must hold two divisors and a"),
    ("dead-zone-gr", {}, number(0, 10) + number(254, 8) + "1" + "00001", 1, "must be in range"),
    ("csr", {"row_weights": 2}, number(1, 64), 2, "row pointers must rise from 0"),
    ("csr", {"row_weights": 2}, number(0, 32) + number(2, 32) + number(1, 16) + number(3, 8)
     + number(1, 16) + number(3, 8), 2, "columns must rise within a row"),
    ("csr", {"row_weights": 9}, number(0, 32) + number(1, 32) + number(5, 16) + number(3, 8), 2,
     "stream must hold 2 weights, got more"),
    ("csc", {}, number(7, 32), 1, "stream must hold 1 weights, got 7"),
    ("csc", {"row_weights": 1}, number(1 << 17, 32), 1 << 17, "at most 65536 rows, got 131072"),
    ("csc", {"row_weights": 2}, number(1, 32) + number(0, 32) + number(0, 32) + number(1, 32)
     + number(0, 16) + number(1, 8), 1, "stream must hold 1 weights, got more"),
    ("deep-compression", PLAIN, number(1, 32) + number(7, 8) + number(2, 4), 2,
     "stream must hold 2 weights, got 3"),
    ("deep-compression", {}, number(1, 32) + number(256, 9) + number(1, 9) + number(1, 4) + "0"
     + number(255, 9) + number(1, 9) + number(1, 4) + "0", 1, "runs must be at least 0, got -1"),
    ("eie", {}, number(1, 16) + number(2, 4) + number(7, 8), 2, "entries of group 0 must give"),
    ("ethos-u85-fast", {}, "01 1" + NONE * 509, 1, "reserved bits must be 0, got a 1"),
    ("ethos-u85-fast", {}, "11" + NONE * 510, 1, "raw weights must have no table"),
    ("eyeriss-rlc", {}, NONE * 8, 1, "must have words of 8 bytes, got 1 bytes"),
    ("eyeriss-rlc", {}, NONE * 64, 1, "bit 63 must be set in the last word alone"),
    ("eyeriss-rlc", {}, NONE * 60 + "0101", 1, "bits after a word's pairs must be 0"),
    ("eyeriss-rlc", {}, NONE * 63 + "1", 9, "stream must hold 9 weights, got others"),
    ("eyeriss-rlc", {}, NONE * 127 + "1", 1, "words after the last weight must be none"),
    ("huffman", {}, number(256, 9) + number(3, 9) + number(1, 12) + number(1, 4), 2,
     "bits must be a code word"),
    ("huffman", {}, number(256, 9) + number(3, 9) + number(1, 4) * 3, 1,
     "code lengths must leave room for one another"),
    ("huffman", {}, number(0, 9) + number(1, 9) + number(1, 4) + "0", 1,
     "weights must be in -255..255, got -256"),
    ("mask-arithmetic", {}, NONE * 32, 1, "header must hold a probability and a divisor"),
    ("mask-arithmetic", {}, number(9, 16) + number(1, 8) + NONE * 8, 99,
     "mask must not end before its last place"),
    ("n-m", {}, number(0, 20), 4, "places must rise within a group"),
    ("n-m", {}, number(0, 2) + number(0, 8) + number(3, 2) + number(5, 8), 3,
     "stream must hold 3 weights, got more"),
    ("palette", {}, number(3, 9) + number(1, 27), 2, "palette of 2 weights must be no larger"),
    ("palette", {}, number(3, 9) + number(5, 27) + "11" * 3, 3, "places must be below 3, got 3"),
    ("rans", {}, number(256, 9) + number(1, 9) + "0", 1, "frequencies must add up to 4096"),
    ("rans", {"states": 1}, number(263, 9) + number(1, 9) + "1" + number(4095, 12)
     + number(65535, 32), 2, "states must be at least 65536, got 65535"),
    ("rans", {"states": 1}, number(263, 9) + number(1, 9) + "1" + number(4095, 12)
     + number(65537, 32), 2, "stream must hold 2 weights, got others"),
    ("zvc", SPARTEN, "1" + NONE * 7 + number(2, 32) + number(2, 8), 1,
     "size of group 0 must be 1 bytes, got 2"),
    ("bit-plane", {}, "0 1111", 3, "mask must have 3 places, got 16"),
    ("bit-plane", {}, "1" + number(1, 8) + "1" + NONE * 7, 1, "must be the code of a bit plane"),
    ("cabac", {}, number(128, 24), 1, "stream must have 2 bytes or more, got 3"),
    ("cabac", {}, "", 1 << 30, "stream must hold 1073741824 weights, got its end before"),
    ("zstd", {}, NONE * 16, 1, "stream must be a frame of zstd"),
]  # fmt: skip


@pytest.mark.parametrize(("name", "parameters", "text", "n", "message"), BAD)
def test_bad_streams(name, parameters, text, n, message):
    if name == "zstd":
        pytest.importorskip("zstandard", reason="the extra [schemes] is not installed")
    stream = packed(text)
    with pytest.raises(StreamError, match=message) as error:
        schemes.get(name, **parameters).decode(stream, n)
    assert 0 <= error.value.bit_offset <= 8 * len(stream)


def test_zstd_of_another_length():
    pytest.importorskip("zstandard", reason="the extra [schemes] is not installed")
    zstd = schemes.get("zstd")
    with pytest.raises(StreamError, match=r"^stream must hold 3 weights, got 2 bytes"):
        zstd.decode(zstd.encode([1, 2]), 3)


def test_zstd_where_it_is_not_installed(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "zstandard", None)
    with pytest.raises(MissingExtraError, match=r"^scheme 'zstd' must have the extra \[schemes\]"):
        schemes.get("zstd")


@pytest.mark.parametrize(
    ("name", "parameters", "message"),
    [
        ("bit-plane", {"bits": 1}, r"bits of scheme 'bit-plane' must be in 2\.\.9, got 1$"),
        ("cabac", {"memory": 1}, r"memory of scheme 'cabac' must be in 2\.\.4096, got 1$"),
        ("csr", {"index_bits": 7}, r"index_bits of scheme 'csr' must be in 8\.\.16, got 7$"),
        ("csr", {"row_weights": 0}, r"row_weights of scheme 'csr' must be in 1\.\.65536, got 0$"),
        ("deep-compression", {"index_bits": 9}, r"index_bits of .* must be in 1\.\.8, got 9$"),
        ("deep-compression", {"huffman": 1}, r"huffman of .* must be True or False, got 1$"),
        ("eie", {"group_weights": 65536}, r"group_weights of scheme 'eie' must be in 1\.\.65535"),
        ("eyeriss-rlc", {"run_bits": 17}, r"run_bits of .* must be in 1\.\.16, got 17$"),
        ("huffman", {"length_max": 8}, r"length_max of scheme 'huffman' must be in 9\.\.15"),
        ("n-m", {"n": 5}, r"n of scheme 'n-m' must be in 1\.\.4, got 5$"),
        ("n-m", {"m": 1}, r"m of scheme 'n-m' must be in 2\.\.16, got 1$"),
        ("rans", {"precision": 8}, r"precision of scheme 'rans' must be in 9\.\.15, got 8$"),
        ("rans", {"states": 0}, r"states of scheme 'rans' must be in 1\.\.64, got 0$"),
        ("scnn", {"bits": 10}, r"bits of scheme 'scnn' must be in 1\.\.9, got 10$"),
        ("zvc", {"align_bytes": 0}, r"align_bytes of scheme 'zvc' must be in 1\.\.4096, got 0$"),
    ],
)
def test_bad_parameters(name, parameters, message):
    with pytest.raises(ConfigError, match=message):
        schemes.get(name, **parameters)


def test_unknown_kind_of_nonzeros():
    with pytest.raises(UnknownNameError, match=r"^nonzeros of .* must be one of gr, raw, got 'z'"):
        schemes.get("mask-arithmetic", nonzeros="z")


class TestWeightsThatCannotBeCoded:
    def test_of_another_pattern(self):
        message = r"^weights for scheme 'n-m' must have at most 2 non-zeros in every 4, got 3 from "
        with pytest.raises(ConfigError, match=message + r"weight 4 on$"):
            schemes.get("n-m").encode([1, 0, 0, 0, 1, 2, 3, 0])
        kept = schemes.get("n-m").conditioned([1, 0, 0, 0, 1, 2, 3, 0])
        assert kept.tolist() == [1, 0, 0, 0, 0, 2, 3, 0]

    def test_too_far_apart(self):
        values = np.arange(-200, 200)
        fast = schemes.get("ethos-u85-fast")
        message = r"must be of at most 16 values or less than 256 apart, got -200 and 199$"
        with pytest.raises(ConfigError, match=message):
            fast.size(values)
        assert fast.conditioned(values).tolist() == values.clip(-128, 127).tolist()
        assert fast.size(values.clip(-100, 155)) == 32 * -(-(256 + 400 * 8) // 256)

    def test_too_many_rows(self):
        values = np.zeros(65537, int)
        with pytest.raises(ConfigError, match=r"must have at most 65536 rows, got 65537$"):
            schemes.get("csc", row_weights=1).size(values)
