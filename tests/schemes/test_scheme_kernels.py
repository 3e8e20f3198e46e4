# SPDX-License-Identifier: Apache-2.0
"""Each kernel of the schemes against its twin in plain Python."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from npusim.schemes import (
    arithmetic_kernels,
    bit_kernels,
    bit_plane_kernels,
    decoder_kernels,
    entry_kernels,
    huffman_kernels,
    rans_kernels,
    reference,
    reference_codes,
    run_kernels,
)
from npusim.schemes.cabac import Cabac
from npusim.schemes.rans import frequencies

often = settings(deadline=None, derandomize=True, max_examples=150)
seeds = st.integers(0, 2**32 - 1)


def weights(rng: np.random.Generator, n_max: int = 300) -> np.ndarray:
    """Weights of some scale, sparse or dense, with the extremes now and then."""
    n = int(np.exp(rng.uniform(0, np.log(n_max + 1))))
    values = np.rint(rng.laplace(0, rng.choice([0.3, 3, 40]), n)).clip(-255, 255).astype(np.int16)
    values[rng.random(n) < rng.choice([0, 0.5, 0.95])] = 0
    values[rng.random(n) < 0.02] = rng.choice([-255, 255])
    return values


def words_of(bits: str) -> np.ndarray:
    words = np.zeros(len(bits) // 64 + 3, np.uint64)
    data = np.packbits(np.array(list(bits), np.uint8), bitorder="little")
    words.view(np.uint8)[: data.size] = data
    return words


def bits_of(words: np.ndarray, n: int) -> str:
    return "".join(map(str, np.unpackbits(words.view(np.uint8), bitorder="little")[:n]))


@often
@given(fields=st.lists(st.integers(0, 64).flatmap(lambda n: st.tuples(
    st.integers(0, max(0, 2**n - 1)), st.just(n)))))  # fmt: skip
def test_put_fields(fields):
    codes = np.array([code for code, _ in fields], np.uint64)
    lengths = np.array([n for _, n in fields], np.int64)
    words = np.zeros(lengths.sum() // 64 + 2, np.uint64)
    end = bit_kernels.put_fields(codes, lengths, words, 0)
    assert bits_of(words, end) == reference.put_fields(codes.tolist(), lengths.tolist())
    assert end == lengths.sum()


def test_put_fields_longer_than_a_word():
    words = np.zeros(5, np.uint64)
    end = bit_kernels.put_fields(np.array([5, 1], "u8"), np.array([200, 1]), words, 0)
    assert bits_of(words, end) == "101" + "0" * 197 + "1"


@often
@given(seed=seeds, width=st.integers(0, 32), at=st.integers(0, 70), n=st.integers(0, 20))
def test_take_fields(seed, width, at, n):
    bits = "".join(map(str, np.random.default_rng(seed).integers(0, 2, at + n * width)))
    fields = np.empty(n, np.int64)
    bit_kernels.take_fields(words_of(bits), at, width, fields)
    assert fields.tolist() == reference.take_fields(bits, at, width, n)


@often
@given(
    values=st.lists(st.integers(0, 700), max_size=30), k=st.integers(0, 15), at=st.integers(0, 70)
)
def test_take_rice(values, k, at):
    bits = "1" * at + "".join(reference.rice_code(value, k) for value in values)
    found = np.empty(len(values), np.int64)
    status, end = bit_kernels.take_rice(words_of(bits), at, len(bits), k, 700, found)
    assert (status, end) == (0, len(bits))
    assert (found.tolist(), end) == reference.take_rice(bits, at, k, len(values))
    if values:
        cut = bit_kernels.take_rice(words_of(bits), at, len(bits) - 1, k, 700, found)
        assert cut == (1, len(bits) - 1)
        if max(values):
            most = max(values) - 1
            status, bit = bit_kernels.take_rice(words_of(bits), at, len(bits), k, most, found)
            first = next(i for i, value in enumerate(values) if value > most)
            wanted = at + sum(len(reference.rice_code(value, k)) for value in values[:first])
            assert (status, bit) == (2, wanted)


@often
@given(seed=seeds, size=st.sampled_from([2, 5, 4096]))
def test_count_runs(seed, size):
    values = weights(np.random.default_rng(seed))
    counts, others = np.zeros(size, np.int64), np.empty(values.size // size + 1, np.int64)
    n_others, last = bit_kernels.count_runs(values, counts, others)
    runs, wanted_last = reference.zero_runs(values.tolist())
    assert sorted([*np.repeat(np.arange(size), counts), *others[:n_others]]) == sorted(runs)
    assert last == wanted_last


@often
@given(seed=seeds, k_run=st.integers(0, 15), k_code=st.integers(0, 15))
def test_take_runs(seed, k_run, k_code):
    values = weights(np.random.default_rng(seed)).tolist()
    runs, last = reference.zero_runs(values)
    bits = ""
    for run, value in zip(runs, [value for value in values if value], strict=True):
        code = 2 * abs(value) - 2 + (value < 0)
        bits += reference.rice_code(run, k_run) + reference.rice_code(code, k_code)
    bits += reference.rice_code(last, k_run) if last else ""
    found = np.empty(len(values), np.int16)
    status, at = run_kernels.take_runs(words_of(bits), 0, len(bits), k_run, k_code, 509, found)
    assert (status, found.tolist()) == (0, values)
    assert reference.take_runs(bits, 0, k_run, k_code, len(values)) == (values, at)


@often
@given(seed=seeds, run_max=st.sampled_from([1, 3, 15, 255]), group=st.sampled_from([1, 7, 64, 999]))
def test_entries(seed, run_max, group):
    values = weights(np.random.default_rng(seed))
    wanted = reference.fill_entries(values.tolist(), run_max, group)
    counts = np.empty(-(-values.size // group), np.int64)
    entry_kernels.count_entries(values, run_max, group, counts)
    assert counts.tolist() == [len(entries) for entries in wanted]
    runs, levels = np.empty(counts.sum(), np.int64), np.empty(counts.sum(), np.int16)
    entry_kernels.fill_entries(values, run_max, group, runs, levels)
    flat = [entry for entries in wanted for entry in entries]
    assert list(zip(runs.tolist(), levels.tolist(), strict=True)) == flat
    found = np.empty(values.size, np.int64)
    wide = levels.astype(np.int64)
    assert entry_kernels.expand_entries(runs, wide, counts, group, found) == -1
    np.testing.assert_array_equal(found, values)
    if values.size:
        runs[-1] += 1
        bad = entry_kernels.expand_entries(runs, wide, counts, group, found)
        assert bad == counts.size - 1


@often
@given(
    counts=st.lists(st.integers(1, 5000), min_size=2, max_size=40).map(sorted),
    more=st.integers(0, 8),
)
def test_code_lengths(counts, more):
    length_max = min(15, (len(counts) - 1).bit_length() + more)
    lengths = np.zeros(len(counts), np.int64)
    huffman_kernels.code_lengths(np.array(counts), length_max, lengths)
    wanted = reference_codes.code_lengths(counts, length_max)
    # equal weights may be told apart in either way
    cost = [sum(c * n for c, n in zip(counts, found, strict=True)) for found in (lengths, wanted)]
    assert cost[0] == cost[1]
    assert sum(2.0**-lengths) == 1
    assert 1 <= lengths.min() <= lengths.max() <= length_max


@often
@given(seed=seeds, precision=st.integers(9, 15), lanes=st.sampled_from([1, 2, 5, 64]))
def test_rans(seed, precision, lanes):
    rng = np.random.default_rng(seed)
    symbols = (weights(rng).astype(np.int64) + 255) % int(rng.choice([1, 3, 511]))
    counts = frequencies(np.bincount(symbols), precision) if symbols.size else np.array([1])
    starts = np.cumsum(counts) - counts
    states, words = np.empty(lanes, np.int64), np.empty(symbols.size + 1, np.uint16)
    n = rans_kernels.put_symbols(symbols, counts, starts, precision, states, words)
    wanted = reference_codes.put_symbols(symbols.tolist(), counts.tolist(), precision, lanes)
    read = words[:n][::-1].copy()
    assert (states.tolist(), read.tolist()) == wanted
    none = np.empty(0, np.uint16)
    scratch = np.empty(lanes, np.int64)
    assert rans_kernels.put_symbols(symbols, counts, starts, precision, scratch, none) == n
    found, slots = np.empty_like(symbols), np.repeat(np.arange(counts.size), counts)
    again = reference_codes.take_symbols(*wanted, counts.tolist(), precision, symbols.size)
    used = rans_kernels.take_symbols(read, counts, starts, precision, states, slots, found)
    assert used == n
    assert (found.tolist(), states.tolist()) == again
    np.testing.assert_array_equal(found, symbols)
    if n:
        states[:] = wanted[0]
        cut = read[:-1].copy()
        assert rans_kernels.take_symbols(cut, counts, starts, precision, states, slots, found) == -1


@often
@given(seed=seeds, probability=st.sampled_from([1, 2, 700, 32768, 60000, 65535]))
def test_mask(seed, probability):
    values = weights(np.random.default_rng(seed), 2000)
    wanted = reference_codes.put_mask(values.tolist(), probability)
    out = np.empty(len(wanted), np.uint8)
    assert arithmetic_kernels.put_mask(values, probability, out[:0]) == len(wanted)
    assert arithmetic_kernels.put_mask(values, probability, out) == len(wanted)
    assert out.tobytes() == wanted
    mask = np.empty(values.size, np.uint8)
    for following in (b"", b"\xff" * 9, b"\0" * 9):
        data = np.frombuffer(wanted + following, np.uint8).copy()
        assert arithmetic_kernels.take_mask(data, probability, mask) == len(wanted)
    np.testing.assert_array_equal(mask, values != 0)
    assert reference_codes.take_mask(wanted, probability, values.size) == (
        mask.tolist(),
        len(wanted),
    )


@often
@given(seed=seeds, memory=st.sampled_from([2, 30, 512]))
def test_values(seed, memory):
    values = weights(np.random.default_rng(seed))
    shares = Cabac(memory=memory)._shares
    wanted = reference_codes.put_values(values.tolist(), memory)
    out = np.empty(len(wanted), np.uint8)
    assert arithmetic_kernels.put_values(values, shares, out[:0]) == len(wanted)
    assert arithmetic_kernels.put_values(values, shares, out) == len(wanted)
    assert out.tobytes() == wanted
    found = np.empty_like(values)
    assert arithmetic_kernels.take_values(out, shares, found) == len(wanted)
    np.testing.assert_array_equal(found, values)
    assert reference_codes.take_values(wanted, memory, values.size) == (
        values.tolist(),
        len(wanted),
    )


@pytest.mark.parametrize("byte", [0, 1, 255])
def test_carries_go_through_bytes_of_ones(byte):
    # a long row of unlikely zeros at the interval's upper end
    values = np.array([0] * 3000 + [1] * byte, np.int16)
    wanted = reference_codes.put_mask(values.tolist(), 65535)
    out = np.empty(len(wanted), np.uint8)
    arithmetic_kernels.put_mask(values, 65535, out)
    assert out.tobytes() == wanted


@often
@given(seed=seeds, bits=st.integers(2, 9))
def test_bit_planes(seed, bits):
    rng = np.random.default_rng(seed)
    half = 1 << (bits - 1)
    scale = int(rng.choice([1, 3, half]))
    words = rng.integers(-min(scale, half), min(scale, half), (3, 8))
    words[rng.random(3) < 0.3] = rng.integers(-half, half)
    run_bits = (bits - 1).bit_length()
    wanted = "".join(reference_codes.put_block(block, bits, run_bits) for block in words.tolist())
    codes = np.empty(3 * (bits + 2), np.uint64)
    lengths = np.empty(codes.size, np.int64)
    used, total = bit_plane_kernels.put_blocks(words, bits, run_bits, codes, lengths)
    found = reference.put_fields(codes[:used].tolist(), lengths[:used].tolist())
    assert (found, total) == (wanted, len(wanted))
    assert bit_plane_kernels.put_blocks(words, bits, run_bits, codes[:0], lengths[:0])[1] == total
    data = np.array([*map(int, wanted), *[0] * bit_plane_kernels.SPARE], np.uint8)
    again = np.empty_like(words)
    assert bit_plane_kernels.take_blocks(data, 0, bits, run_bits, again) == (0, total)
    np.testing.assert_array_equal(again, words)
    assert reference_codes.take_block(wanted, 0, bits, run_bits)[0] == words[0].tolist()


@often
@given(seed=seeds)
def test_take_zeros(seed):
    values = weights(np.random.default_rng(seed))
    text = reference_codes.put_zeros(values.tolist(), 4)
    data = np.array([*map(int, text), *[0] * bit_plane_kernels.SPARE], np.uint8)
    mask = np.zeros(values.size, np.uint8)
    assert bit_plane_kernels.take_zeros(data, 4, mask) == (len(text), values.size)
    np.testing.assert_array_equal(mask, values != 0)


symbols = st.tuples(st.integers(0, 40), st.integers(0, 50), st.integers(0, 5))


@often
@given(
    parts=st.lists(st.lists(symbols, max_size=12), min_size=1, max_size=4),
    fifo=st.integers(1, 60),
    dma=st.integers(1, 60),
    rates=st.tuples(st.integers(1, 50), st.integers(1, 40), st.integers(10_000, 300_000)),
)
def test_run_lanes(parts, fifo, dma, rates):
    k = decoder_kernels
    flat = np.array([symbol for part in parts for symbol in part], np.int32).reshape(-1, 3)
    ends = np.cumsum([len(part) for part in parts])
    lanes = np.zeros((len(parts), k.LANE_COLUMNS), np.int64)
    lanes[:, k.NEXT], lanes[:, k.LAST] = ends - [len(part) for part in parts], ends
    lanes[:, k.UNREAD] = [sum(bits for bits, _, _ in part) for part in parts]
    rows = np.array(rates, np.int64)
    wanted = reference.run_lanes(parts, fifo, dma, rates)
    assert k.run_lanes(flat, lanes.copy(), fifo, dma, rows, 1 << 40) == wanted
    if wanted[0]:
        assert k.run_lanes(flat, lanes, fifo, dma, rows, wanted[0] - 1)[0] == -1
