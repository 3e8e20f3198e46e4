# SPDX-License-Identifier: Apache-2.0
"""What every registered scheme must do, with its default parameters and with others."""

from __future__ import annotations

import dataclasses
import inspect

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from npusim import schemes
from npusim.errors import ConfigError, StreamError, UnknownNameError
from npusim.schemes import Scheme

OTHER_PARAMETERS = {
    "raw": [{"bits": 1}, {"bits": 3}, {"bits": 9}],
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
    return schemes.get(name, **parameters)


def edge_cases(scheme: Scheme) -> dict[str, np.ndarray]:
    low, high = scheme.value_range
    rng = np.random.default_rng(7)
    mixed = rng.integers(low, high + 1, 3000).astype(np.int16)
    sparse = np.where(rng.random(5000) < 0.95, 0, rng.choice([low, high], 5000))
    return {
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
        scheme = schemes.get(name, **parameters)
        low, high = scheme.value_range
        runs = st.tuples(st.integers(low, high), st.integers(1, 40))
        values = [v for v, n in data.draw(st.lists(runs, max_size=40)) for _ in range(n)]
        check_round_trip(scheme, np.array(values, np.int16))

    def test_kind_of_integers_does_not_matter(self, scheme):
        low, high = scheme.value_range
        values = [0, high, 0, low, 0, 0]
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
            with pytest.raises(StreamError):
                scheme.decode(stream, n)

    def test_a_stream_cut_short_is_an_error(self, scheme):
        values = edge_cases(scheme)["sparse"]
        stream = scheme.encode(values)
        for n_bytes in (0, 1, len(stream) // 4, len(stream) // 2):
            with pytest.raises(StreamError) as error:
                scheme.decode(stream[:n_bytes], values.size)
            assert 0 <= error.value.bit_offset <= 8 * n_bytes

    def test_flipped_bits_give_an_error_or_as_many_weights(self, scheme):
        values = edge_cases(scheme)["sparse"]
        low, high = scheme.value_range
        stream = scheme.encode(values)
        rng = np.random.default_rng(11)
        for bit in rng.integers(0, 8 * len(stream), 300).tolist():
            flipped = bytearray(stream)
            flipped[bit // 8] ^= 1 << bit % 8
            decoded, bit_offset = values, 0
            try:
                decoded = scheme.decode(flipped, values.size)
            except StreamError as error:
                bit_offset = error.bit_offset
            assert decoded.shape == values.shape
            assert low <= decoded.min() <= decoded.max() <= high
            assert 0 <= bit_offset <= 8 * len(stream)


class TestNames:
    def test_builtins_are_registered(self):
        assert {"raw", "ethos-u-mlw"} <= set(schemes.names())

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
