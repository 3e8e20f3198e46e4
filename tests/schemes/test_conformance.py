# SPDX-License-Identifier: Apache-2.0
"""What every registered scheme must do, with its default parameters and with others."""

from __future__ import annotations

import dataclasses
import inspect
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from npusim import schemes
from npusim.errors import ConfigError, StreamError, UnknownNameError
from npusim.schemes import Scheme

OTHER_PARAMETERS = {
    "bit-plane": [{"bits": 2}, {"bits": 9}],
    "cabac": [{"memory": 2}],
    "csc": [{"row_weights": 7, "bits": 9}],
    "csr": [{"row_weights": 9, "index_bits": 6, "bits": 4}],
    "deep-compression": [
        {"index_bits": 4, "huffman": False},
        {"index_bits": 1, "bits": 9},
    ],
    "eie": [{"bits": 4, "group_weights": 3}],
    "eyeriss-rlc": [{"bits": 16}, {"run_bits": 1, "bits": 2}],
    "huffman": [{"length_max": 9}],
    "mask-arithmetic": [{"nonzeros": "raw"}, {"nonzeros": "raw", "bits": 9}],
    "n-m": [{"n": 1, "m": 3}, {"n": 4, "bits": 9}],
    "rans": [{"precision": 15, "states": 1}, {"precision": 9, "states": 64}],
    "raw": [{"bits": 1}, {"bits": 3}, {"bits": 9}],
    "scnn": [{"index_bits": 1, "group_weights": 65535, "bits": 9}],
    "zstd": [{"level": 1}],
    "zvc": [{"bits": 3}, {"group_weights": 128, "align_bytes": 1}, {"group_weights": 0}],
    "ethos-u-mlw": [
        {"encoder": "legacy"},
        {"encoder": "tight", "effort": 0, "direct_offset": "free"},
    ],
}
VARIANTS = [
    (name, parameters)
    for name in schemes.names()
    for parameters in [{}, *OTHER_PARAMETERS.get(name, [])]
]

relaxed = settings(deadline=None, derandomize=True, max_examples=60)


@pytest.fixture(params=VARIANTS, ids=lambda variant: f"{variant[0]}{variant[1] or ''}")
def scheme(request: pytest.FixtureRequest) -> Scheme:
    name, parameters = request.param
    return made(name, parameters)


def made(name: str, parameters: dict[str, Any]) -> Scheme:
    if name == "zstd":
        pytest.importorskip("zstandard", reason="the extra [schemes] is not installed")
    return schemes.get(name, **parameters)


def edge_cases(scheme: Scheme) -> dict[str, np.ndarray]:
    low, high = scheme.value_range
    rng = np.random.default_rng(7)
    mixed = rng.integers(low, high + 1, 3000).astype(np.int16)
    sparse = np.where(rng.random(5000) < 0.95, 0, rng.choice([low, high], 5000))
    cases = {
        "empty": np.empty(0, np.int16),
        "one zero": np.zeros(1, np.int16),
        "all zero": np.zeros(4097, np.int16),
        "least": np.full(300, low, np.int16),
        "greatest": np.full(1, high, np.int16),
        "every value": np.arange(low, high + 1, dtype=np.int16),
        "two ends in turn": np.resize(np.array([low, high], np.int16), 999),
        "one weight, then zeros": np.r_[high, np.zeros(40_000)].astype(np.int16),
        "zeros, then one weight": np.r_[np.zeros(40_000), low].astype(np.int16),
        "dense": mixed,
        "sparse": sparse.astype(np.int16),
    }
    return {name: scheme.conditioned(values) for name, values in cases.items()}


def check_round_trip(scheme: Scheme, values: np.ndarray) -> None:
    stream = scheme.encode(values)
    assert isinstance(stream, bytes)
    assert scheme.size(values) == len(stream)
    decoded = scheme.decode(stream, len(values))
    assert decoded.dtype == np.int16
    np.testing.assert_array_equal(decoded, values)


class TestEveryScheme:
    def test_is_a_frozen_dataclass_with_a_default_for_each_parameter(self, scheme):
        assert dataclasses.is_dataclass(scheme)
        assert type(scheme).__dataclass_params__.frozen
        assert dataclasses.replace(scheme) == scheme
        defaults = type(scheme)()
        assert list(defaults.parameters) == list(inspect.signature(type(scheme)).parameters)

    def test_its_parameters_make_it_again(self, scheme):
        assert schemes.get(scheme.name, **scheme.parameters) == scheme

    def test_edge_cases_round_trip_and_size_is_exact(self, scheme):
        for values in edge_cases(scheme).values():
            check_round_trip(scheme, values)

    @given(data=st.data())
    @relaxed
    def test_any_values_round_trip_and_size_is_exact(self, data):
        name, parameters = data.draw(st.sampled_from(VARIANTS))
        scheme = made(name, parameters)
        low, high = scheme.value_range
        runs = st.tuples(st.integers(low, high), st.integers(1, 40))
        values = [v for v, n in data.draw(st.lists(runs, max_size=40)) for _ in range(n)]
        check_round_trip(scheme, scheme.conditioned(np.array(values, np.int16)))

    def test_kind_of_integers_does_not_matter(self, scheme):
        low, high = scheme.value_range
        values = scheme.conditioned([0, high, 0, low, 0, 0]).tolist()
        wanted = scheme.encode(values)
        for dtype in (np.int16, np.int32, np.int64, ">i2"):
            array = np.array(values, dtype)
            assert scheme.encode(array) == wanted
            assert scheme.encode(np.repeat(array, 2)[::2]) == wanted
            assert scheme.size(array) == len(wanted)

    def test_leaves_its_input_alone(self, scheme):
        values = edge_cases(scheme)["dense"]
        before = values.copy()
        values.flags.writeable = False
        stream = scheme.encode(values)
        scheme.size(values)
        np.testing.assert_array_equal(values, before)
        decoded = scheme.decode(bytearray(stream), values.size)
        decoded[:] = 0  # the caller's own, not a view of the stream
        np.testing.assert_array_equal(scheme.decode(memoryview(stream), values.size), before)

    def test_refuses_what_is_no_list_of_weights(self, scheme):
        low, high = scheme.value_range
        bad = {
            rf"must be in {low}\.\.{high}, got {high + 1}$": [0, high + 1],
            rf"must be in {low}\.\.{high}, got {low - 1}$": [low - 1, 0],
            r"must be one-dimensional, got shape \(2, 2\)$": [[0, 0], [0, 0]],
            r"must be one-dimensional, got shape \(\)$": np.int64(0),
            "must hold integers, got dtype float64$": [0.5],
            "must hold integers, got dtype bool$": np.array([True]),
            "rows of unequal length$": [[0], [0, 0]],
        }
        for message, values in bad.items():
            for surface in (scheme.encode, scheme.size):
                with pytest.raises(ConfigError, match=message):
                    surface(values)

    def test_refuses_what_is_no_stream(self, scheme):
        with pytest.raises(ConfigError, match=r"stream must be bytes, got str$"):
            scheme.decode("00", 1)
        with pytest.raises(ConfigError, match=r"stream must be bytes, got list$"):
            scheme.decode([0], 1)
        with pytest.raises(ConfigError, match=r"n must be in 0\.\.\d+, got -1$"):
            scheme.decode(scheme.encode([]), -1)
        with pytest.raises(ConfigError, match=r"n must be an integer, got 1.0$"):
            scheme.decode(scheme.encode([0]), 1.0)

    def test_another_number_of_weights_is_an_error(self, scheme):
        values = edge_cases(scheme)["dense"]
        stream = scheme.encode(values)
        for n in (0, values.size - 100, values.size + 100):
            with pytest.raises(StreamError) as error:
                scheme.decode(stream, n)
            assert 0 <= error.value.bit_offset <= 8 * len(stream)

    def test_a_stream_cut_short_is_an_error(self, scheme):
        values = edge_cases(scheme)["sparse"]
        stream = scheme.encode(values)
        for n_bytes in (0, 1, len(stream) // 4, len(stream) // 2):
            with pytest.raises(StreamError) as error:
                scheme.decode(stream[:n_bytes], values.size)
            assert 0 <= error.value.bit_offset <= 8 * n_bytes

    def test_flipped_bits_give_an_error_or_as_many_weights(self, scheme):
        values = edge_cases(scheme)["sparse"]
        stream = scheme.encode(values)
        rng = np.random.default_rng(11)
        for bit in rng.integers(0, 8 * len(stream), 300).tolist():
            flipped = bytearray(stream)
            flipped[bit // 8] ^= 1 << bit % 8
            check_decodes_or_refuses(scheme, bytes(flipped), values.size)

    def test_any_bytes_give_an_error_or_as_many_weights(self, scheme):
        rng = np.random.default_rng(12)
        for _ in range(300):
            n_bytes = int(rng.integers(0, 80))
            content = rng.choice([0, 1, 255, int(rng.integers(256))], n_bytes).astype(np.uint8)
            n = int(rng.choice([0, 1, 8, 100, 3000]))
            check_decodes_or_refuses(scheme, content.tobytes(), n)

    def test_asking_for_more_than_memory_holds_is_refused_before_it_is_taken(self, scheme):
        with pytest.raises(StreamError):
            scheme.decode(scheme.encode([]), 1 << 40)
        with pytest.raises(StreamError):
            scheme.decode(b"\xff" * 64, 1 << 40)

    def test_conditioned_weights_can_be_coded_and_stay_if_they_could(self, scheme):
        low, high = scheme.value_range
        values = np.random.default_rng(13).integers(low, high + 1, 999)
        once = scheme.conditioned(values)
        assert once.dtype == np.int16
        np.testing.assert_array_equal(scheme.conditioned(once), once)
        check_round_trip(scheme, once)
        if scheme.lossless:
            np.testing.assert_array_equal(once, values)

    def test_is_fitted_to_a_layer_but_for_what_was_given(self, scheme):
        plain, layer = schemes.get(scheme.name).parameters, {"bits": 9, "row_weights": 64}
        fitted = scheme.fitted(**layer).parameters
        for name, value in scheme.parameters.items():
            given = name not in layer or value != plain[name]
            assert fitted[name] == (value if given else layer[name])

    def test_fits_wide_weights(self, scheme):
        fitted = schemes.get(scheme.name).fitted(bits=9, row_weights=64)
        check_round_trip(fitted, fitted.conditioned([-255, 0, 0, 255]))


def check_decodes_or_refuses(scheme: Scheme, stream: bytes, n: int) -> None:
    low, high = scheme.value_range
    decoded, bit_offset = np.full(n, low), 0
    try:
        decoded = scheme.decode(stream, n)
    except StreamError as error:
        bit_offset = error.bit_offset
    assert decoded.shape == (n,)
    assert n == 0 or low <= decoded.min() <= decoded.max() <= high
    assert 0 <= bit_offset <= 8 * len(stream)


@pytest.mark.slow
def test_ten_thousand_tensors_round_trip(scheme):
    rng = np.random.default_rng(14)
    low, high = scheme.value_range
    for _ in range(10_000):
        n = int(np.exp(rng.uniform(0, np.log(600))))
        scale = high * rng.choice([0.02, 0.1, 1])
        values = np.rint(rng.laplace(0, scale, n)).clip(low, high).astype(np.int16)
        values[rng.random(n) < rng.choice([0, 0.3, 0.9])] = 0
        check_round_trip(scheme, scheme.conditioned(values))


class TestNames:
    def test_builtins_are_registered(self):
        assert {name for name, _ in VARIANTS} == set(schemes.names())
        assert len(schemes.names()) >= 20

    def test_unknown_name(self):
        with pytest.raises(UnknownNameError, match=r"scheme must be one of .*did you mean 'raw'"):
            schemes.get("rav")

    def test_unknown_parameter(self):
        with pytest.raises(
            ConfigError, match=r"parameter of scheme 'raw' must be one of bits, got 'width'$"
        ):
            schemes.get("raw", width=4)

    def test_something_else_under_a_name(self, monkeypatch):
        from npusim import registry
        from npusim.errors import PluginError

        monkeypatch.setattr(registry, "get", lambda group, name: dict)
        with pytest.raises(PluginError, match=r"scheme 'raw' must be a Scheme of that name, got"):
            schemes.get("raw")
