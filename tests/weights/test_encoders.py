# SPDX-License-Identifier: Apache-2.0
"""Encoders against Arm's binaries and the plain-Python encoders: the same bytes, always."""

from __future__ import annotations

import time
from collections.abc import Iterable

import arm
import arm_process
import generators
import numpy as np
import pytest
import real_layers
from hypothesis import given, settings
from hypothesis import strategies as st

from npusim.npu import names
from npusim.weights import decode, encode, encoded_size, reference_encoders

ARMS = {"legacy": arm.legacy_encode, "regor": arm.regor_encode}
REFERENCES = {"legacy": reference_encoders.legacy, "regor": reference_encoders.regor}
CORNERS = generators.corner_cases()


def differing(tensors: Iterable[np.ndarray]) -> list[tuple[int, str, int]]:
    """(which tensor, encoder, length) wherever bytes, size or the way back are not as Arm's."""
    found = []
    for number, values in enumerate(tensors):
        for encoder, arms in ARMS.items():
            stream = encode(values, encoder)
            same = stream == arms(values)
            exact = encoded_size(values, encoder) == len(stream)
            if not (same and exact and np.array_equal(decode(stream), values)):
                found.append((number, encoder, values.size))
    return found


def random_tensors(seed: int, n: int, most: int) -> Iterable[np.ndarray]:
    rng = np.random.default_rng(seed)
    return (generators.tensor(rng, most) for _ in range(n))


def test_arms_bytes_on_random_tensors():
    assert differing(random_tensors(seed=1, n=250, most=3000)) == []


def test_arms_bytes_on_longer_tensors():
    assert differing(random_tensors(seed=2, n=25, most=70000)) == []


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(10))
def test_arms_bytes_on_ten_times_two_thousand_tensors(seed):
    assert differing(random_tensors(seed=100 + seed, n=2000, most=70000)) == []


@pytest.mark.slow
def test_arms_bytes_on_many_short_tensors():
    assert differing(random_tensors(seed=3, n=10000, most=300)) == []


@pytest.mark.parametrize("name", CORNERS)
def test_arms_bytes_on_corner_cases(name):
    assert differing([CORNERS[name]]) == []


@pytest.mark.parametrize("kind", generators.KINDS, ids=lambda kind: kind.__name__)
def test_arms_bytes_on_every_kind_of_weights(kind):
    rng = np.random.default_rng(4)
    assert differing(kind(rng, n) for n in (1, 2, 3, 40, 700, 5000)) == []


@pytest.mark.parametrize("multiple", [1, 2])
@pytest.mark.parametrize("more", [-1, 0, 1])
def test_arms_bytes_where_regor_asks_for_an_empty_last_piece(multiple, more):
    rng = np.random.default_rng(5)
    values = generators.tensor_of(rng, multiple * arm.SECTION_WEIGHTS + more)
    assert encode(values, "regor") == arm.regor_encode(values)


def test_a_single_section_is_what_regor_encodes_at_once():
    rng = np.random.default_rng(6)
    for _ in range(20):
        values = generators.tensor(rng, 20000)
        assert encode(values, "regor") == arm.regor_encode_once(values)


@settings(deadline=None, derandomize=True, max_examples=120)
@given(seed=st.integers(0, 2**32 - 1), most=st.sampled_from([4, 40, 400]))
@pytest.mark.parametrize("encoder", REFERENCES)
def test_encoder_equals_its_reference(encoder, seed, most):
    values = generators.tensor(np.random.default_rng(seed), most)
    stream = encode(values, encoder)
    assert stream == REFERENCES[encoder](values.tolist())
    assert encoded_size(values, encoder) == len(stream)


@settings(deadline=None, derandomize=True, max_examples=150)
@given(values=st.lists(st.integers(-255, 255), min_size=1, max_size=80))
@pytest.mark.parametrize("encoder", REFERENCES)
def test_encoder_equals_its_reference_on_arbitrary_values(encoder, values):
    stream = encode(values, encoder)
    assert stream == REFERENCES[encoder](values)
    assert stream == ARMS[encoder](np.array(values, np.int16))


@pytest.mark.parametrize("encoder", REFERENCES)
@pytest.mark.parametrize("name", ["palette_33", "palette_32_in_zeros", "sparse_then_dense"])
def test_reference_gives_arms_bytes(name, encoder):
    values = CORNERS[name]
    assert REFERENCES[encoder](values.tolist()) == ARMS[encoder](values)


def test_zero_counts_as_a_value_of_a_legacy_section_only_once_it_occurs():
    """Two tensors on which sections fall otherwise if zero counts from the start."""
    first = [-251] * 27 + [31, 11, 1, -3, -16, -21, 29, -7, -15, -2, -25, -10, -11, -13, 12, -17]
    first += [10, 4, -12, -20, -8, 0, -24, 9, -14, 5, -19, -4, 15, 2, 8]
    second = [127] * 9 + [0] * 45 + [-127] + [-126] * 5 + [77] + [15] * 110 + [3, -4, 7, -11]
    for values in (first, second):
        assert encode(values, "legacy") == arm.legacy_encode(np.array(values))
        assert reference_encoders.legacy(values) == arm.legacy_encode(np.array(values))


def burst_then_zeros(n: int) -> np.ndarray:
    return np.concatenate([np.arange(1, 34), np.zeros(n)]).astype(np.int16)


def test_arms_bytes_where_the_legacy_encoder_is_quadratic():
    for n in (2000, 8000):
        assert encode(burst_then_zeros(n), "legacy") == arm.legacy_encode(burst_then_zeros(n))


def test_legacy_takes_linear_time_where_arms_is_quadratic():
    def seconds(n: int) -> float:
        values, times = burst_then_zeros(n), []
        for _ in range(5):
            start = time.thread_time()
            encode(values, "legacy")
            times.append(time.thread_time() - start)
        return min(times)

    encode(burst_then_zeros(10), "legacy")  # compiles
    assert seconds(1_600_000) < 40 * seconds(100_000)  # linear is 16 times, quadratic 256


def test_arm_decodes_what_we_encode():
    rng = np.random.default_rng(8)
    tensors = [generators.tensor(rng, 4000) for _ in range(60)] + list(CORNERS.values())
    streams = [encode(values, encoder) for values in tensors for encoder in ARMS]
    decoded = arm_process.decode(streams)
    expected = [values for values in tensors for _ in ARMS]
    differing = [i for i, pair in enumerate(zip(decoded, expected, strict=True)) if not same(*pair)]
    assert differing == []


def same(a: np.ndarray, b: np.ndarray) -> bool:
    return np.array_equal(a, b)


@pytest.mark.data
@pytest.mark.slow
@pytest.mark.parametrize("npu", names())
def test_arms_bytes_on_all_layers_of_real_models(models_dir, npu):
    n_streams, found = 0, []
    for path in real_layers.model_files(models_dir):
        for layer, values in real_layers.layer_values(path, npu):
            n_streams += 1
            found += [(path.name, layer, *d) for d in differing([values])]
    assert n_streams > 500
    assert found == []
