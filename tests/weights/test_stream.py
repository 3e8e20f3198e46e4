# SPDX-License-Identifier: Apache-2.0
"""encode, decode, encoded_size and slices as users call them: results, arguments, errors."""

from __future__ import annotations

import re
import tracemalloc
from concurrent.futures import ThreadPoolExecutor

import generators
import numpy as np
import pytest
from hand_made import BAD, GOOD, stream

from npusim.errors import ConfigError, StreamError, UnknownNameError
from npusim.weights import ENCODERS, decode, encode, encoded_size, slices, status
from npusim.weights.reference import Palette, Section, Slice, emit

EMPTY = b"\xff" * 16


def test_there_are_three_encoders():
    assert ENCODERS == ("legacy", "regor", "tight")


@pytest.mark.parametrize("encoder", ENCODERS)
@pytest.mark.parametrize("seed", range(12))
def test_weights_come_back_and_sizes_are_exact(encoder, seed):
    values = generators.tensor(np.random.default_rng(seed), 3000)
    content = encode(values, encoder)
    assert isinstance(content, bytes)
    assert len(content) % 16 == 0
    assert encoded_size(values, encoder) == len(content)
    assert np.array_equal(decode(content), values)


@pytest.mark.parametrize("encoder", ENCODERS)
@pytest.mark.parametrize("empty", [[], (), np.array([], np.int8), np.array([], int)])
def test_no_weights_are_an_end_marker(encoder, empty):
    assert encode(empty, encoder) == EMPTY
    assert encoded_size(empty, encoder) == 16
    assert decode(EMPTY).size == 0
    assert slices(EMPTY) == []


def test_regor_is_the_default():
    values = np.random.default_rng(1).integers(-9, 9, 3000)
    values[:1500] %= 2  # a palette section of its own for the legacy encoder
    assert encode(values) == encode(values, "regor") != encode(values, "legacy")
    assert encoded_size(values) == encoded_size(values, "regor")


@pytest.mark.parametrize("dtype", [np.int8, np.int16, np.int32, np.int64])
def test_every_integer_dtype_is_taken(dtype):
    values = np.random.default_rng(2).integers(-128, 128, 500)
    assert encode(values.astype(dtype)) == encode(values.tolist()) == encode(tuple(values))
    high = np.abs(values).astype(dtype if dtype != np.int8 else np.uint8)
    assert encode(high) == encode(high.tolist())


def test_strided_and_read_only_values_are_taken_and_left_alone():
    values = np.random.default_rng(3).integers(-5, 6, 1000).astype(np.int16)
    backwards = values[::-1].copy()
    values.flags.writeable = False
    before = values.copy()
    for encoder in ENCODERS:
        assert encode(values[::-1], encoder) == encode(backwards, encoder)
        assert encode(values, encoder) == encode(before, encoder)
    swapped = values.astype(values.dtype.newbyteorder())
    assert encode(swapped) == encode(values)
    assert np.array_equal(values, before)


@pytest.mark.parametrize("kind", [bytes, bytearray, memoryview])
def test_every_bytes_like_stream_is_taken(kind):
    content = encode([1, 0, -255])
    assert decode(kind(content)).tolist() == [1, 0, -255]
    assert len(slices(kind(content))) == 1


def test_decoded_weights_are_the_callers():
    content = encode([3, 4])
    decoded = decode(content)
    decoded[:] = 0
    assert decode(content).tolist() == [3, 4]


def test_streams_may_follow_one_another():
    first, second = np.arange(-9, 9), np.repeat([0, 7, 0], 500)
    joined = encode(first) + encode([]) + encode(second, "legacy")
    assert decode(joined).tolist() == [*first, *second]
    assert sum(part.n_weights + part.n_zeros for part in slices(joined)) == 18 + 1500


def test_max_weights_is_the_most_that_is_accepted():
    values = np.random.default_rng(4).integers(-5, 6, 700)
    content = encode(values)
    assert np.array_equal(decode(content, max_weights=700), values)
    assert slices(content, max_weights=700) == slices(content)
    for limit in (0, 1, 699):
        with pytest.raises(StreamError, match="at most max_weights weights, got more"):
            decode(content, max_weights=limit)
        with pytest.raises(StreamError, match="at most max_weights weights, got more"):
            slices(content, max_weights=limit)
    assert decode(EMPTY, max_weights=0).size == 0


def peak_bytes(call) -> int:
    tracemalloc.start()
    try:
        call()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def test_memory_is_bounded_by_the_stream_and_by_max_weights():
    """The densest stream there is: 64 weights a byte, all but one of them in a single run."""
    palette = Palette(zero_runs=True, direct_offset=0, palette_bits=2, entries=[])
    section = Section(palette, [2], [8_000_000, 0], [Slice(1, 0, 0, 3)])
    dense = emit([section])
    decode(encode([1]))
    assert 125_000 < len(dense) < 125_100
    assert decode(dense).size == 8_000_001

    def refused():
        with pytest.raises(StreamError, match="max_weights"):
            decode(dense, max_weights=8_000_000)

    slices_and_working_room = 130 * len(dense) + 2_000_000
    assert peak_bytes(refused) < slices_and_working_room
    assert peak_bytes(lambda: decode(dense)) < slices_and_working_room + 3 * 16_000_002


@pytest.mark.parametrize("name", GOOD)
def test_streams_by_hand_are_slices(name):
    good = GOOD[name]
    rows = slices(stream(good.bits))
    assert sum(row.n_weights + row.n_zeros for row in rows) == len(good.values)


@pytest.mark.parametrize("call", [decode, slices])
@pytest.mark.parametrize("name", BAD)
def test_bad_streams_are_refused_at_the_bit_that_is_wrong(name, call):
    bad = BAD[name]
    message = f"{status.MESSAGES[bad.status]} (at bit {bad.bit})"
    with pytest.raises(StreamError, match=f"^{re.escape(message)}$") as caught:
        call(bad.stream)
    assert caught.value.bit_offset == bad.bit


def test_every_status_has_a_message_and_a_bad_stream():
    assert set(status.NAMES.values()) == set(status.MESSAGES)
    assert {bad.status for bad in BAD.values()} | {"too_many"} == set(status.MESSAGES)


def test_messages_of_bad_streams():
    """The words users read; the rest of the tests take them from `status`."""
    assert status.MESSAGES == {
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


def test_every_truncation_is_refused():
    values = np.concatenate([np.arange(-40, 40), np.zeros(300, int), [9]])
    for encoder in ENCODERS:
        content = encode(values, encoder)
        end = max(n for n in range(len(content)) if content[n] != 0xFF)
        for n in range(end):
            with pytest.raises(StreamError):
                decode(content[:n])


@pytest.mark.parametrize("call", [encode, encoded_size])
@pytest.mark.parametrize("encoder", ENCODERS)
@pytest.mark.parametrize(
    ("values", "message"),
    [
        ([256], "weights must be in -255..255, got 256"),
        ([0, -256], "weights must be in -255..255, got -256"),
        (np.array([32767], np.int16), "weights must be in -255..255, got 32767"),
        ([2**40], "weights must be in -255..255, got 1099511627776"),
        (np.array([2**63], np.uint64), "weights must be in -255..255, got 9223372036854775808"),
        ([2**70], "weights must hold integers, got dtype object"),
        ([1.0], "weights must hold integers, got dtype float64"),
        (np.array([]), "weights must hold integers, got dtype float64"),
        ([True, False], "weights must hold integers, got dtype bool"),
        ([True, 2], "weights must hold integers, got a bool among them"),
        ((2, np.False_), "weights must hold integers, got a bool among them"),
        (["1"], "weights must hold integers, got dtype <U1"),
        (None, "weights must hold integers, got dtype object"),
        ([1, None], "weights must hold integers, got dtype object"),
        ([[1], [1, 2]], "weights must form one array, got rows of unequal length"),
        (7, r"weights must be one-dimensional, got shape \(\)"),
        ([[1, 2], [3, 4]], r"weights must be one-dimensional, got shape \(2, 2\)"),
        (np.zeros((0, 3), int), r"weights must be one-dimensional, got shape \(0, 3\)"),
    ],
)
def test_bad_weights_are_refused(call, encoder, values, message):
    with pytest.raises(ConfigError, match=f"^{message}$"):
        call(values, encoder)


@pytest.mark.parametrize("call", [encode, encoded_size])
@pytest.mark.parametrize("values", [[1, 2], []])
@pytest.mark.parametrize(
    ("encoder", "options", "error", "message"),
    [
        (
            "regr",
            {},
            UnknownNameError,
            "encoder must be one of legacy, regor, tight, got 'regr'; did you mean 'regor'?",
        ),
        (
            None,
            {},
            UnknownNameError,
            "encoder must be one of legacy, regor, tight, got None",
        ),
        (
            "tight",
            {"efort": 3},
            UnknownNameError,
            "option of encoder 'tight' must be one of direct_offset, effort, got 'efort'; "
            "did you mean 'effort'?",
        ),
        (
            "regor",
            {"effort": 3},
            ConfigError,
            "options must go with encoder 'tight', got effort with 'regor'",
        ),
        (
            "legacy",
            {"effort": 3, "direct_offset": "free"},
            ConfigError,
            "options must go with encoder 'tight', got direct_offset, effort with 'legacy'",
        ),
        ("tight", {"effort": 10}, ConfigError, "effort must be in 0..9, got 10"),
        ("tight", {"effort": -1}, ConfigError, "effort must be in 0..9, got -1"),
        ("tight", {"effort": 2.0}, ConfigError, "effort must be an integer, got 2.0"),
        ("tight", {"effort": True}, ConfigError, "effort must be an integer, got True"),
        (
            "tight",
            {"direct_offset": "fre"},
            UnknownNameError,
            "direct_offset must be one of conservative, free, got 'fre'; did you mean 'free'?",
        ),
    ],
)
def test_bad_encoders_and_options_are_refused(call, values, encoder, options, error, message):
    with pytest.raises(error, match=f"^{re.escape(message)}$"):
        call(values, encoder, **options)


@pytest.mark.parametrize("call", [decode, slices])
@pytest.mark.parametrize(
    ("content", "name"),
    [("ff", "str"), ([255], "list"), (255, "int"), (None, "NoneType"), ({}, "dict")],
)
def test_streams_must_be_bytes(call, content, name):
    with pytest.raises(ConfigError, match=f"^stream must be bytes, got {name}$"):
        call(content)


@pytest.mark.parametrize("call", [decode, slices])
@pytest.mark.parametrize(
    ("limit", "message"),
    [
        (-1, "max_weights must be in 0..4611686018427387904, got -1"),
        (1.5, "max_weights must be an integer, got 1.5"),
        (True, "max_weights must be an integer, got True"),
        ("9", "max_weights must be an integer, got '9'"),
    ],
)
def test_bad_limits_are_refused(call, limit, message):
    with pytest.raises(ConfigError, match=f"^{re.escape(message)}$"):
        call(EMPTY, max_weights=limit)


def test_threads_give_the_same_streams():
    """Kernels release the GIL: calls that run at once must not share anything."""
    rng = np.random.default_rng(5)
    tensors = [generators.tensor(rng, 20000) for _ in range(60)]
    jobs = [(values, encoder) for values in tensors for encoder in ("legacy", "regor")]

    def both_ways(job):
        content = encode(*job)
        return content, encoded_size(*job), decode(content).tobytes()

    alone = [both_ways(job) for job in jobs]
    with ThreadPoolExecutor(4) as pool:
        together = list(pool.map(both_ways, jobs * 2))
    assert together == alone * 2


def test_threads_give_the_same_tight_streams():
    rng = np.random.default_rng(6)
    tensors = [generators.tensor(rng, 5000) for _ in range(12)]
    alone = [encode(values, "tight", effort=1) for values in tensors]
    with ThreadPoolExecutor(4) as pool:
        together = list(pool.map(lambda values: encode(values, "tight", effort=1), tensors * 2))
    assert together == alone * 2
