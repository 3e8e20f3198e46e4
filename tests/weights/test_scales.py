# SPDX-License-Identifier: Apache-2.0
"""The bias and scale block: bytes by hand, against Arm's packer, round trips, refused input."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from npusim.errors import ConfigError, StreamError
from npusim.weights.scales import pack_scales, scale_bytes, unpack_scales

ENTRIES = st.lists(
    st.tuples(
        st.integers(-(2**39), 2**39 - 1) | st.sampled_from([-(2**39), 2**39 - 1, 0, -1]),
        st.integers(0, 2**32 - 1),
        st.integers(0, 63),
    ),
    min_size=1,
    max_size=40,
)


def test_entries_by_hand():
    block = pack_scales([1, -1, 2**39 - 1, -(2**39)], [2, 2**32 - 1, 0, 1 << 31], [3, 63, 0, 32])
    assert [block[10 * i : 10 * i + 10].hex() for i in range(4)] == [
        "01000000000200000003",
        "ffffffffffffffffff3f",
        "ffffffff7f0000000000",
        "00000000800000008020",
    ]
    assert block[40:] == bytes(8)


def test_block_sizes_by_hand():
    assert [scale_bytes(n) for n in (1, 2, 3, 8, 9, 16)] == [16, 32, 32, 80, 96, 160]


@settings(deadline=None, derandomize=True)
@given(entries=ENTRIES)
def test_blocks_round_trip(entries):
    bias, scale, shift = zip(*entries, strict=True)
    block = pack_scales(bias, scale, shift)
    assert len(block) == scale_bytes(len(entries))
    channels = unpack_scales(block, len(entries))
    assert channels.bias.tolist() == list(bias)
    assert channels.scale.tolist() == list(scale)
    assert channels.shift.tolist() == list(shift)


def test_entries_equal_arms():
    api = pytest.importorskip("ethosu.vela.api", reason="ethos-u-vela is the oracle")
    rng = np.random.default_rng(0)
    bias = rng.integers(-(2**39), 2**39, 500)
    scale, shift = rng.integers(0, 2**32, 500), rng.integers(0, 64, 500)
    theirs = [
        bytes(api.npu_encode_bias(np.int64(b), int(m), int(s)))
        for b, m, s in zip(bias, scale, shift, strict=True)
    ]
    block = pack_scales(bias, scale, shift)
    assert [block[10 * i : 10 * i + 10] for i in range(500)] == theirs


def test_one_scale_serves_all_channels():
    assert pack_scales([5, 6], 7, 8) == pack_scales([5, 6], [7, 7], [8, 8])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (([2**39], 0, 0), r"bias must be in -549755813888..549755813887, got 549755813888"),
        (([-(2**39) - 1], 0, 0), r"bias must be in .* got -549755813889"),
        (([0], 2**32, 0), r"scale must be in 0..4294967295, got 4294967296"),
        (([0], -1, 0), r"scale must be in 0..4294967295, got -1"),
        (([0], 0, 64), r"shift must be in 0..63, got 64"),
        (([0], 0, -1), r"shift must be in 0..63, got -1"),
        (([0.0], 0, 0), "bias must hold integers, got dtype float64"),
        (([0], 1.5, 0), "scale must hold integers, got dtype float64"),
        (([0], 0, True), "shift must hold integers, got dtype bool"),
        ((np.zeros(0, int), 0, 0), r"bias must have shape \[n_channels\], got \(0,\)"),
        ((np.zeros((1, 1), int), 0, 0), r"bias must have shape \[n_channels\], got \(1, 1\)"),
        ((0, 0, 0), r"bias must have shape \[n_channels\], got \(\)"),
        (([0, 0], [1, 2, 3], 0), r"scale must be one value or have shape \(2,\), got \(3,\)"),
        (([0, 0], 1, [1]), r"shift must be one value or have shape \(2,\), got \(1,\)"),
    ],
)
def test_bad_entries_are_refused(arguments, message):
    with pytest.raises(ConfigError, match=message):
        pack_scales(*arguments)


@pytest.mark.parametrize("n_channels", [0, -1, 1.0, "1", True])
def test_bad_channel_counts_are_refused(n_channels):
    for call in (scale_bytes, lambda n: unpack_scales(bytes(16), n)):
        with pytest.raises(ConfigError, match="n_channels must be"):
            call(n_channels)


@pytest.mark.parametrize(
    ("at", "value", "bit_offset"), [(9, 0x40, 72), (19, 0x80, 152), (20, 1, 160), (31, 0x80, 248)]
)
def test_set_unused_bits_are_refused(at, value, bit_offset):
    block = bytearray(pack_scales([1, -1], 2, 3))
    block[at] |= value
    with pytest.raises(StreamError, match="unused bits must be 0, got byte 0x") as caught:
        unpack_scales(bytes(block), 2)
    assert caught.value.bit_offset == bit_offset


@pytest.mark.parametrize("length", [0, 10, 16, 31, 33, 48])
def test_blocks_of_other_lengths_are_refused(length):
    with pytest.raises(StreamError, match=f"of 2 channels must have 32 bytes, got {length}"):
        unpack_scales(bytes(length), 2)


@pytest.mark.parametrize("block", ["text", None, 3, [1, 2]])
def test_blocks_are_bytes(block):
    with pytest.raises(ConfigError, match="block must be bytes, got"):
        unpack_scales(block, 1)
