# SPDX-License-Identifier: Apache-2.0
"""The weight stream and Arm's codecs under pytest-benchmark, one group for each task and data set.

    pytest benches/bench_weight_stream.py --benchmark-columns=min,median

The last column's factor is the ratio within a group. `weight_stream.py` beside this file prints the
README's table, over real models too. Times are CPU times of this thread, kernels compiled before.
"""

from __future__ import annotations

import time

import numpy as np
import pytest
from weight_stream import arm, synthetic

from npusim.weights import (
    decode,
    encode,
    encoded_size,
    estimate_size,
    estimate_size_from_counts,
    value_counts,
)

DATA = synthetic(200_000)
TASKS = {
    "encode legacy": {
        "C": arm.legacy_encode,
        "npusim": lambda values: encode(values, "legacy"),
    },
    "encode regor": {
        "C++": arm.regor_encode,
        "npusim": lambda values: encode(values, "regor"),
    },
    "size legacy": {
        "C": lambda values: len(arm.legacy_encode(values)),
        "npusim": lambda values: encoded_size(values, "legacy"),
    },
    "size regor": {
        "C++": lambda values: len(arm.regor_encode(values)),
        "npusim": lambda values: encoded_size(values, "regor"),
    },
}


def measure(benchmark, function, argument):
    """Result of `function`; its least CPU time goes to pytest-benchmark's table."""
    function(argument)
    return benchmark.pedantic(function, (argument,), rounds=5, warmup_rounds=1)


pytestmark = pytest.mark.benchmark(timer=time.thread_time, disable_gc=True)


@pytest.mark.parametrize("name", DATA)
@pytest.mark.parametrize(("task", "codec"), [(t, c) for t, codecs in TASKS.items() for c in codecs])
def test_encoders(benchmark, name, task, codec):
    benchmark.group = f"{task}, {name}"
    results = [function(DATA[name]) for function in TASKS[task].values()]
    assert measure(benchmark, TASKS[task][codec], DATA[name]) == results[0] == results[1]


@pytest.mark.parametrize("name", DATA)
@pytest.mark.parametrize(("codec", "function"), [("C", arm.decode), ("npusim", decode)])
def test_decode(benchmark, name, codec, function):
    benchmark.group = f"decode, {name}"
    assert np.array_equal(measure(benchmark, function, encode(DATA[name])), DATA[name])


@pytest.mark.parametrize("name", DATA)
@pytest.mark.parametrize("effort", [0, 3])
def test_tight(benchmark, name, effort):
    benchmark.group = f"tight, {name}"
    size = measure(benchmark, lambda v: encoded_size(v, "tight", effort=effort), DATA[name])
    assert size <= encoded_size(DATA[name])


@pytest.mark.parametrize("name", DATA)
def test_estimates(benchmark, name):
    benchmark.group = f"estimate from the stream, {name}"
    size = measure(benchmark, estimate_size, DATA[name])
    assert abs(size / encoded_size(DATA[name]) - 1) < 0.05


def test_estimate_from_counts(benchmark):
    benchmark.group = "estimate from a histogram"
    values = DATA["Laplace b=8"]
    size = benchmark(estimate_size_from_counts, value_counts(values))
    assert abs(size / encoded_size(values) - 1) < 0.05


@pytest.mark.parametrize(
    ("codec", "function"),
    [("C", arm.legacy_encode), ("npusim", lambda values: encode(values, "legacy"))],
)
def test_where_legacy_is_quadratic(benchmark, codec, function):
    benchmark.group = "encode legacy, 33 non-zeros and 20,000 zeros"
    values = np.zeros(20_033, np.int16)
    values[:33] = range(1, 34)
    assert len(measure(benchmark, function, values)) == encoded_size(values, "legacy")
