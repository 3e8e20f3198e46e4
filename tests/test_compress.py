# SPDX-License-Identifier: Apache-2.0
"""Sizes of whole networks against sizes worked out from their weights alone."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

import npusim
from npusim.compress import BOUNDS, OpOnCpu, compress
from npusim.cost.layers import weight_layers
from npusim.errors import ConfigError, UnknownNameError
from npusim.network import Network
from npusim.network_builder import NetworkBuilder
from npusim.weights import (
    ENCODERS,
    encode,
    least_error_clip,
    prune,
    reorder,
    reorder_slices,
    requantize,
)
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
        for encoder in ENCODERS:
            n_bytes = len(encode(values, encoder))
            assert size.n_bytes[encoder] == n_bytes
            values_json = size.to_json(encoder)
            assert values_json["bits_per_weight"] == round(8 * n_bytes / weights.size, 4)
            assert values_json["zero_fraction"] == round(size.n_zeros / weights.size, 6)
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
    assert [layer.same_as for layer in twice.layers] == ["", twice.layers[0].name, ""]
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
    conv = prune(CONV, nonzeros)
    if bits is not None:
        conv = requantize(conv, bits, least_error_clip(conv, bits))
    values = stream_order(conv, weight_layers(network)[0])
    size = report.layers[0]
    assert size.n_bytes["regor"] == len(encode(values))
    assert size.n_weights - size.n_zeros == np.count_nonzero(conv)
    assert size.n_zeros >= size.n_weights - round(nonzeros * size.n_weights)
    assert size.n_distinct == len(np.unique(conv))
    assert (report.bits, report.nonzeros) == (bits, nonzeros)


def test_ones_of_a_mean_are_neither_pruned_nor_requantized():
    net = NetworkBuilder("mean")
    x = net.input((1, 4, 4, 8), scale=0.1)
    mean = net.op("MEAN", x, np.array([1, 2], np.int32), scale=0.1)
    network = net.build(mean)
    plain, conditioned = compress(network), compress(network, bits=2, nonzeros=0.1)
    assert plain.layers == conditioned.layers
    assert (plain.layers[0].n_distinct, plain.layers[0].n_zeros) == (1, 0)


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
    assert report.nonzero_fraction == 0
    total = report.to_json()["total"]
    assert (total["zero_fraction"], total["bits_per_weight"]) == (None, None)


def test_what_stays_on_the_cpu_is_told_with_its_reason():
    net = NetworkBuilder("float")
    x = net.input((1, 4, 4, 8), "float32")
    weights = net.constant(np.ones((2, 1, 1, 8), np.float32))
    y = net.op("CONV_2D", x, weights, net.constant(np.zeros(2, np.float32)), name="conv")
    report = compress(net.build(y))
    assert report.layers == ()
    (op,) = report.on_cpu
    assert (op.name, op.op, op.n_weights) == ("conv", "CONV_2D", 16)
    assert "float32" in op.reason


def test_weights_of_subgraphs_and_unknown_operations_are_told():
    inner = small_network()
    unknown = replace(inner.ops[1], kind="BUILTIN_999", known=False)
    ops = tuple(unknown if op.kind == "RESHAPE" else op for op in inner.ops)
    report = compress(replace(inner, ops=ops, subgraphs=(inner,)))
    assert report.layers == compress(inner).layers
    assert report.on_cpu == (
        OpOnCpu(unknown.name, "BUILTIN_999", 0, "kind must be known to npusim, got another"),
        *(
            OpOnCpu(*layer, "ops must be in the main graph, got subgraph 1")
            for layer in (("conv", "CONV_2D", CONV.size), ("dense", "FULLY_CONNECTED", DENSE.size))
        ),
    )


def test_a_compiled_network_is_refused():
    network = small_network()
    op = replace(network.ops[1], kind="ETHOS_U", custom_code="ethos-u")
    with pytest.raises(ConfigError, match=r"'small' must not be compiled yet, .*: npusim stream"):
        compress(replace(network, ops=(network.ops[0], op, *network.ops[2:])))


def test_the_same_again_and_done_layer_by_layer():
    told = []
    network = small_network(twice=True)
    assert compress(network, done=told.append) == compress(network)
    assert told == [1 / 3, 2 / 3, 1]


def test_an_error_in_one_layer_is_the_callers(monkeypatch):
    def fail(*args, **options):
        raise MemoryError("too large")

    monkeypatch.setattr("npusim.compress.reorder_slices", fail)
    with pytest.raises(MemoryError, match="too large"):
        compress(small_network())


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


def test_refused_names():
    with pytest.raises(UnknownNameError, match=r"encoder must be one of .*, got 'zip'"):
        compress(small_network(), encoders=["zip"])
    with pytest.raises(UnknownNameError, match="npu must be one of"):
        compress(small_network(), "ethos-u99")


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
