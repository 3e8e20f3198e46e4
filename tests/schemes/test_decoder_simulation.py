# SPDX-License-Identifier: Apache-2.0
"""Cycles of decoders: cases that can be counted by hand, limits, and the chunks of real streams."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import pytest

from npusim import schemes
from npusim.errors import ConfigError
from npusim.schemes.decoder import TABLE_GE_PER_BIT, Decoder, Symbols
from npusim.schemes.decoder_simulation import decode_cycles
from npusim.weights import planned_iterations
from npusim.weights.chunks import planned_trace

RNG = np.random.default_rng(5)
DENSE = np.rint(RNG.laplace(0, 8, 20_000)).clip(-127, 127).astype(np.int16)
SPARSE = np.where(RNG.random(DENSE.size) < 0.9, 0, DENSE)


class TestByHand:
    def test_raw_is_as_fast_as_its_shifter_or_memory(self):
        raw = schemes.get("raw")  # 8 weights of 8 bits a cycle
        assert decode_cycles(raw, np.ones(800, int)).cycles == 100
        slow = decode_cycles(raw, np.ones(800, int), dma_bytes_per_cycle=2)
        assert (slow.cycles, slow.decode_cycles, slow.fetch_cycles) == (400, 100, 400)
        assert slow.stall_cycles == 300
        assert slow.weights_per_cycle == 2.0

    def test_a_bin_a_cycle(self):
        # a zero is one bin; 1 is not zero, positive, of one bit: three bins
        found = decode_cycles(schemes.get("cabac"), [0, 1, 0, 1])
        assert found.cycles == 8

    def test_runs_longer_than_a_lane_hands_on(self):
        decoder = Decoder("run and non-zero", weights_per_cycle=4)
        found = decode_cycles(schemes.get("mask-rle-gr"), [0] * 9 + [1], decoder=decoder)
        assert found.cycles == 3  # ten weights, four a cycle

    def test_half_a_step_a_cycle(self):
        decoder = Decoder("weight", steps_per_cycle=0.5, weights_per_cycle=1)
        assert decode_cycles(schemes.get("huffman"), [1] * 10, decoder=decoder).cycles == 20

    def test_no_weights_take_no_time(self):
        found = decode_cycles(schemes.get("raw"), [])
        assert (found.cycles, found.n_weights, found.weights_per_cycle) == (0, 0, 0.0)


class TestEthosU:
    @pytest.mark.parametrize("values", [DENSE, SPARSE], ids=["dense", "sparse"])
    def test_counts_the_chunks_of_its_stream(self, values):
        scheme = schemes.get("ethos-u-mlw")
        n = int(planned_iterations(values).sum())
        wide = dataclasses.replace(scheme.decoder, weights_per_cycle=1 << 20, bits_per_cycle=1024)
        assert decode_cycles(scheme, values, decoder=wide).cycles == n
        limited = decode_cycles(scheme, values).cycles
        weights = planned_trace(values)[:, 1]
        assert n <= limited <= np.maximum(1, -(-weights // 32)).sum()

    def test_rates_are_those_arm_publishes_of_u85(self):
        scheme = schemes.get("ethos-u-mlw")
        assert 8 <= decode_cycles(scheme, DENSE).weights_per_cycle <= 10
        assert 24 <= decode_cycles(scheme, SPARSE).weights_per_cycle <= 32


@pytest.mark.parametrize("name", schemes.names())
class TestEveryScheme:
    @pytest.fixture
    def scheme(self, name):
        if name == "zstd":
            pytest.importorskip("zstandard")
        return schemes.get(name)

    def test_symbols_give_all_weights_and_take_no_more_bits_than_there_are(self, scheme):
        for values in ([], [0], [5], np.zeros(700, int), DENSE, SPARSE):
            values = scheme.conditioned(values)
            symbols = scheme.symbols(values)
            assert symbols.weights.sum() == values.size
            assert symbols.bits.min(initial=0) >= 0
            assert symbols.bits.sum() <= 8 * scheme.size(values)

    def test_neither_memory_nor_a_small_fifo_make_it_faster(self, scheme):
        values = scheme.conditioned(SPARSE)
        free = decode_cycles(scheme, values)
        assert free.stall_cycles == free.fetch_cycles == 0
        before = free.cycles
        for rate in (64, 8, 1, 0.25):
            found = decode_cycles(scheme, values, dma_bytes_per_cycle=rate)
            assert found.decode_cycles == free.cycles
            assert found.cycles >= max(before, found.fetch_cycles)
            assert found.fetch_cycles == math.ceil(8 * found.n_bytes / int(8 * rate))
            before = found.cycles
        small = decode_cycles(scheme, values, dma_bytes_per_cycle=8, fifo=64)
        large = decode_cycles(scheme, values, dma_bytes_per_cycle=8, fifo=4096)
        assert small.cycles >= large.cycles

    def test_lanes_share_the_work_and_have_streams_of_their_own(self, scheme):
        values = scheme.conditioned(DENSE)
        one, four = decode_cycles(scheme, values), decode_cycles(scheme, values, lanes=4)
        assert four.cycles < 0.4 * one.cycles
        assert 0.85 * one.n_bytes <= four.n_bytes <= 1.2 * one.n_bytes
        assert four.n_weights == one.n_weights == values.size

    def test_decoder_is_described(self, scheme):
        decoder = scheme.decoder
        assert decoder.source
        low, high = decoder.area_ge
        assert 0 < low <= high
        two = dataclasses.replace(decoder, lanes=2)
        assert two.area_ge == (2 * low, 2 * high) or decoder.table_bits % 2
        assert decoder.to_json()["area_ge"] == [low, high]


def test_tables_count_for_area():
    low, high = TABLE_GE_PER_BIT
    decoder = Decoder("weight", table_bits=1000, area_ge_low=100, area_ge_high=200)
    assert decoder.area_ge == (100 + 1000 * low, 200 + 1000 * high)


def test_bits_are_shared_evenly():
    even = Symbols.even(10, 27, group=4)
    assert (even.weights.tolist(), even.bits.sum()) == ([4, 4, 2], 27)
    assert Symbols.even(0, 8).bits.size == 0


def test_errors():
    raw = schemes.get("raw")
    for message, options in {
        r"^lanes must be in 1\.\.\d+, got 0$": {"lanes": 0},
        r"^fifo must be in 1\.\.\d+, got 0$": {"fifo": 0},
        r"^dma_bytes_per_cycle must be in 0.125\.\..*, got 0$": {"dma_bytes_per_cycle": 0},
    }.items():
        with pytest.raises(ConfigError, match=message):
            decode_cycles(raw, [1], **options)
    with pytest.raises(ConfigError, match=r"^scheme must be a Scheme, got 'raw'$"):
        decode_cycles("raw", [1])
    for message, options in {
        r"^steps_per_cycle must be more than 0, got 0$": {"steps_per_cycle": 0},
        r"^bits_per_cycle must be in 1\.\.\d+, got 0$": {"bits_per_cycle": 0},
        r"^area_ge_high must be in 500\.\.\d+, got 1$": {"area_ge_high": 1},
        r"^table_bits must be in 0\.\.\d+, got -1$": {"table_bits": -1},
        r"^seek must be 'weight', 'group' or 'stream', got 'bit'$": {"seek": "bit"},
    }.items():
        with pytest.raises(ConfigError, match=message):
            Decoder("weight", **options)
