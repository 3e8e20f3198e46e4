# SPDX-License-Identifier: Apache-2.0
"""Sizes of whole networks against sizes worked out from their weights alone."""

from __future__ import annotations

import threading
from itertools import pairwise

import numpy as np
import pytest

import npusim
from npusim.compress import BOUNDS, compress, sweep
from npusim.cost.layers import weight_layers
from npusim.errors import ConfigError, UnknownNameError
from npusim.network import Network
from npusim.network_builder import NetworkBuilder
from npusim.weights import ENCODERS, condition, encode, reorder, reorder_slices
from npusim.weights.stream import encoded_size, encoded_sizes

RNG = np.random.default_rng(0)
CONV = RNG.integers(-60, 61, (24, 3, 3, 16)).astype(np.int8)
DENSE = RNG.integers(-3, 4, (10, 24)).astype(np.int8)


def small_network(conv=CONV, dense=DENSE, twice=False) -> Network:
    """A convolution, once or twice with the same weights, and a classifier."""
    net = NetworkBuilder("small")
    x = net.input((1, 1, 1, 16), scale=0.02)
    weights = net.constant(conv, scales=0.01)
    bias = net.bias([0] * 24, x, weights)
    first = net.op("CONV_2D", x, weights, bias, scale=0.1, name="conv")
    if twice:
        second = net.op("CONV_2D", x, weights, bias, scale=0.1, name="again")
        first = net.op("ADD", first, second, scale=0.1)
    last = net.constant(dense, scales=0.01)
    flat = net.op("RESHAPE", first, np.array([1, 24], np.int32))
    y = net.op("FULLY_CONNECTED", flat, last, net.bias([0] * 10, flat, last), name="dense")
    return net.build(y)


def stream_order(weights, layer, npu="ethos-u55-128"):
    return reorder(weights, npu, **layer.reorder_options)


def entropy_bytes(values: np.ndarray) -> int:
    _, counts = np.unique(values, return_counts=True)
    return int(np.ceil(-(counts * np.log2(counts / counts.sum())).sum() / 8))


def test_each_figure_of_a_layer_is_what_its_weights_give():
    network = small_network()
    report = compress(network)
    conv, dense = report.layers
    for size, layer, weights in zip(
        report.layers, weight_layers(network), (CONV, DENSE[:, None, None]), strict=True
    ):
        values = stream_order(weights, layer)
        assert size.n_weights == weights.size
        assert size.n_coded == values.size
        assert size.n_zeros == int((weights == 0).sum())
        assert size.n_distinct == len(np.unique(weights))
        assert size.zero_fraction == size.n_zeros / weights.size
        for encoder in ENCODERS:
            n_bytes = len(encode(values, encoder))
            assert size.n_bytes[encoder] == n_bytes
            assert size.bits_per_weight(encoder) == 8 * n_bytes / weights.size
        assert size.n_bytes["entropy"] == entropy_bytes(values)
        assert size.n_bytes["raw"] == weights.size
    assert (conv.name, conv.op, conv.shape) == ("conv", "CONV_2D", (24, 3, 3, 16))
    assert (dense.name, dense.op, dense.shape) == ("dense", "FULLY_CONNECTED", (10, 1, 1, 24))
    assert (conv.scale_bytes, dense.scale_bytes) == (240, 112)  # 10 a channel, to 16 bytes
    assert report.on_cpu == ()


def test_eq4_at_the_bits_that_the_values_need():
    dense = np.zeros((10, 24), np.int8)
    dense[:, :6] = -128
    dense[0, 0] = 127
    (_, size) = compress(small_network(dense=dense)).layers
    s = 0.25
    entropy = -s * np.log2(s) - (1 - s) * np.log2(1 - s)
    assert size.n_bytes["eq4"] == int(np.ceil((s * 8 + entropy) * 240 / 8))


def test_totals():
    report = compress(small_network(), encoder="tight")
    assert list(report.n_bytes) == [*ENCODERS, *BOUNDS]
    for name, n_bytes in report.n_bytes.items():
        assert n_bytes == sum(layer.n_bytes[name] for layer in report.layers)
    assert report.scale_bytes == 352
    assert report.n_weights == CONV.size + DENSE.size
    assert report.flash_bytes == report.n_bytes["tight"] + 352


def test_shared_weights_count_once():
    once, twice = compress(small_network()), compress(small_network(twice=True))
    assert [layer.same_as for layer in twice.layers] == ["", "conv", ""]
    assert twice.layers[0].n_bytes == twice.layers[1].n_bytes
    assert twice.n_bytes == once.n_bytes
    assert twice.n_weights == once.n_weights
    assert twice.flash_bytes == once.flash_bytes


def test_two_cores_have_a_stream_each():
    network, npu = small_network(), "ethos-u65-512"
    report = compress(network, npu)
    for size, layer, weights in zip(
        report.layers, weight_layers(network, npu), (CONV, DENSE[:, None, None]), strict=True
    ):
        streams = [
            encode(reorder(weights, npu, core=core, **layer.reorder_options)) for core in (0, 1)
        ]
        assert size.n_bytes["regor"] == sum(map(len, streams))
    assert report.layers[0].scale_bytes == 2 * 128  # 12 channels a core
    assert report.layers[1].scale_bytes == 2 * 64


@pytest.mark.parametrize(("bits", "nonzeros"), [(8, 0.3), (3, 1.0), (1, 0.01), (None, 0.5)])
def test_conditioned_weights_are_the_ones_measured(bits, nonzeros):
    network = small_network()
    report = compress(network, bits=bits, nonzeros=nonzeros)
    conv = condition(CONV, bits=bits, nonzero_fraction=nonzeros)
    values = stream_order(conv, weight_layers(network)[0])
    size = report.layers[0]
    assert size.n_bytes["regor"] == len(encode(values))
    assert size.n_weights - size.n_zeros == np.count_nonzero(conv)
    assert size.n_zeros >= size.n_weights - round(nonzeros * size.n_weights)
    assert size.n_distinct <= (2**bits if bits and bits > 1 else 3 if bits else 256)
    assert (report.bits, report.nonzeros) == (bits, nonzeros)


def test_effort_reaches_the_encoder():
    weights = np.concatenate([RNG.integers(-2, 3, 5000), RNG.integers(-120, 121, 5000)])
    network = small_network(dense=np.resize(weights, (416, 24)).astype(np.int8)[:10])
    values = stream_order(network.ops[-1].weights.data[:, None, None], weight_layers(network)[-1])
    for effort in (0, 9):
        size = compress(network, encoders=["tight"], encoder="tight", effort=effort).layers[-1]
        assert size.n_bytes["tight"] == len(encode(values, "tight", effort=effort))
        assert list(size.n_bytes) == ["tight", *BOUNDS]


def test_a_network_without_weights():
    net = NetworkBuilder("none")
    x = net.input((1, 4, 4, 8), scale=0.1)
    report = compress(net.build(net.op("ADD", x, x, scale=0.1)))
    assert report.layers == ()
    assert report.n_bytes == dict.fromkeys([*ENCODERS, *BOUNDS], 0)
    assert (report.flash_bytes, report.n_weights) == (0, 0)
    with pytest.raises(ConfigError, match="'none' must have weights on the NPU, got none"):
        sweep(net.build(x))


def test_what_stays_on_the_cpu_is_told_with_its_reason():
    net = NetworkBuilder("float")
    x = net.input((1, 4, 4, 8), "float32")
    weights = net.constant(np.ones((2, 1, 1, 8), np.float32))
    y = net.op("CONV_2D", x, weights, net.constant(np.zeros(2, np.float32)), name="conv")
    report = compress(net.build(y))
    assert report.layers == ()
    ((name, kind, reason),) = report.on_cpu
    assert (name, kind) == ("conv", "CONV_2D")
    assert "float32" in reason


def test_the_same_again_and_done_for_each_layer():
    calls = []
    lock = threading.Lock()

    def done():
        with lock:
            calls.append(1)

    network = small_network(twice=True)
    assert compress(network, done=done) == compress(network)
    assert len(calls) == 3


def test_sweep():
    network = small_network()
    found = sweep(network, bits=[8, 4, 1], nonzeros=[1.0, 0.5, 0.1], encoder="legacy")
    assert found.baseline == compress(network, encoders=["legacy"], encoder="legacy")
    assert [(p.bits, p.nonzeros) for p in found.points] == [
        (bits, share) for bits in (8, 4, 1) for share in (1.0, 0.5, 0.1)
    ]
    for point in found.points:
        report = compress(network, encoder="legacy", bits=point.bits, nonzeros=point.nonzeros)
        assert point.flash_bytes == report.flash_bytes
        assert point.reduction == found.baseline.flash_bytes / point.flash_bytes
    flash = np.array([p.flash_bytes for p in found.points]).reshape(3, 3)
    assert (np.diff(flash, axis=0) < 0).all()
    assert (np.diff(flash, axis=1) < 0).all()
    assert flash[0, 0] == found.baseline.flash_bytes  # 8 bits hold the weights as they are


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"bits": 9}, r"bits must be in 1\.\.8, got 9"),
        ({"bits": 2.0}, "bits must be an integer, got 2.0"),
        ({"nonzeros": 1.5}, r"nonzeros must be in 0\.\.1, got 1.5"),
        ({"effort": 10}, r"effort must be in 0\.\.9, got 10"),
        ({"effort": 3, "encoders": ["regor"]}, "must go with encoder 'tight', got effort with 'r"),
    ],
)
def test_refused_arguments(options, message):
    with pytest.raises(ConfigError, match=message):
        compress(small_network(), **options)


def test_refused_names_and_points():
    with pytest.raises(UnknownNameError, match=r"encoder must be one of .*, got 'zip'"):
        compress(small_network(), encoders=["zip"])
    with pytest.raises(UnknownNameError, match="npu must be one of"):
        compress(small_network(), "ethos-u99")
    with pytest.raises(ConfigError, match=r"bits must be in 1\.\.8, got 0"):
        sweep(small_network(), bits=[8, 0])
    with pytest.raises(ConfigError, match=r"nonzeros must be in 0\.\.1, got -1"):
        sweep(small_network(), nonzeros=[1, -1])


def test_sizes_of_several_encoders_are_those_of_each():
    values = RNG.integers(-9, 10, 4000)
    for names in (ENCODERS, ["tight"], ["tight", "regor"], ["legacy", "legacy"], []):
        found = encoded_sizes(values, names)
        assert found == {name: encoded_size(values, name) for name in names}
    assert encoded_sizes([], ["regor", "tight"]) == {"regor": 16, "tight": 16}
    sizes = encoded_sizes(values, ["tight"], effort=0, direct_offset="free")
    assert sizes["tight"] == encoded_size(values, "tight", effort=0, direct_offset="free")
    with pytest.raises(ConfigError, match="got effort with no encoder"):
        encoded_sizes(values, [], effort=1)


def flash_bytes(network: Network, npu: str) -> int:
    """Streams of all stored layers, written out, and 10 bytes a channel rounded up to 16."""
    total = 0
    for layer in weight_layers(network, npu):
        if layer.same_as:
            continue
        parts = reorder_slices(layer.weights_ohwi(), None, npu, **layer.reorder_options)
        total += sum(len(encode(part.values)) for part in parts)
        total += -(-10 * layer.n_channels // 16) * 16
    return total


@pytest.mark.data
def test_flash_of_real_models(models_dir):
    paths = sorted(models_dir.rglob("*.tflite"))
    reports = []
    for path in paths:
        network = npusim.load(path)
        report = compress(network, encoders=["regor"])
        assert report.flash_bytes == flash_bytes(network, "ethos-u55-128"), path.name
        reports.append(report)
    assert sum(bool(report.layers) for report in reports) > 40


@pytest.mark.data
def test_figure_1_falls_with_bits_and_non_zeros(models_dir):
    network = npusim.load(models_dir / "mlperf_vww96_int8.tflite")
    found = sweep(network, bits=[8, 4, 1], nonzeros=[1.0, 0.3, 0.01])
    for share in (1.0, 0.3, 0.01):
        column = [p.flash_bytes for p in found.points if p.nonzeros == share]
        assert all(wider > narrower for wider, narrower in pairwise(column))
    assert found.points[-1].reduction == max(p.reduction for p in found.points)
