# SPDX-License-Identifier: Apache-2.0
"""The `raw` scheme's bits, written out by hand."""

from __future__ import annotations

import numpy as np
import pytest

from npusim.errors import ConfigError, StreamError
from npusim.schemes.raw import Raw


def bits(stream: bytes) -> str:
    """Bits in the order they are written: the least significant of a byte first."""
    return "".join(f"{byte:08b}"[::-1] for byte in stream)


class TestBits:
    def test_one_bit(self):
        assert bits(Raw(bits=1).encode([0, -1, -1, 0, -1])) == "01101" + "000"

    def test_three_bits(self):
        assert bits(Raw(bits=3).encode([1, -1, 3, -4])) == "100" + "111" + "110" + "001" + "0000"

    def test_eight_bits(self):
        assert Raw().encode([1, -1, 127, -128]) == bytes([0x01, 0xFF, 0x7F, 0x80])

    def test_nine_bits(self):
        assert bits(Raw(bits=9).encode([-256, 255])) == "000000001" + "111111110" + "000000"


class TestSize:
    @pytest.mark.parametrize("width", range(1, 10))
    def test_closed_form(self, width):
        for n in range(20):
            assert Raw(bits=width).size(np.zeros(n, np.int8)) == (n * width + 7) // 8


class TestErrors:
    @pytest.mark.parametrize("width", [0, 10, -1])
    def test_width(self, width):
        with pytest.raises(
            ConfigError, match=rf"bits of scheme 'raw' must be in 1\.\.9, got {width}$"
        ):
            Raw(bits=width)

    def test_length(self):
        with pytest.raises(
            StreamError, match=r"stream of 3 weights must have 2 bytes, got 1 \(at bit 8\)"
        ):
            Raw(bits=4).decode(b"\x00", 3)

    def test_set_padding(self):
        with pytest.raises(
            StreamError, match=r"bits after the last weight must be 0, got 1 \(at bit 14\)"
        ):
            Raw(bits=4).decode(b"\x00\x40", 3)
