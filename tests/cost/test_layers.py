# SPDX-License-Identifier: Apache-2.0
"""Layers with weights: what Arm's compiler makes of real and random networks, byte for byte."""

from __future__ import annotations

import csv
import re
from collections import Counter, defaultdict

import numpy as np
import pytest
import regor_oracle as oracle
from random_networks import MAC_KINDS, VARIANTS, RandomNetwork

from npusim import npu as npus
from npusim.cost.layers import WeightLayer, weight_layers
from npusim.cost.placement import npu_obstacle
from npusim.formats import load, load_bytes
from npusim.formats.vela_stream import compiled_streams
from npusim.network import Network, Op
from npusim.network_builder import NetworkBuilder
from npusim.weights.reorder import reorder_slices
from npusim.weights.stream import encode, encoded_size

KINDS = (*MAC_KINDS, "MEAN", "RESIZE_BILINEAR", "RESIZE_NEAREST_NEIGHBOR")


def streams_of(network: Network, npu: str) -> set[bytes]:
    return {
        encode(part.values, "regor")
        for layer in weight_layers(network, npu)
        for part in reorder_slices(layer.weights_ohwi(), None, npu, **layer.reorder_options)
    }


def compare(variant: str, seed: int) -> str:
    """What of a random network differs from the compiler's: "", "refused" or a description."""
    rng = np.random.default_rng((seed, list(VARIANTS).index(variant)))
    network, npu = RandomNetwork(rng, variant).build(), str(rng.choice(npus.names()))
    if network.macs > 30_000_000:
        return "refused"
    try:
        compiled = oracle.compile_model(network, npu, slices=False)
    except RuntimeError:  # the compiler gives up on some networks
        return "refused"
    left = [op for op in network.ops if op.kind in KINDS and npu_obstacle(op) is not None]
    if bool(left) != bool(compiled.perf_report.cpuOps):
        return f"{npu}: {network}: {left} on the CPU"
    theirs = set()
    if compiled.perf_report.npuOps:
        model = load_bytes(bytes(compiled.model))
        theirs = {bytes(stream.data) for stream in compiled_streams(model)}
    ours = streams_of(network, npu)
    difference = [sorted(map(len, found)) for found in (ours - theirs, theirs - ours)]
    return "" if ours == theirs else f"{npu}: {network}: bytes {difference}"


@pytest.mark.parametrize("variant", VARIANTS)
def test_streams_of_random_networks(variant):
    results = [compare(variant, seed) for seed in range(6)]
    assert results.count("") >= 4
    assert [result for result in results if result not in ("", "refused")] == []


@pytest.mark.slow
@pytest.mark.parametrize("variant", VARIANTS)
def test_streams_of_many_random_networks(variant):
    results = [compare(variant, seed) for seed in range(100, 300)]
    assert results.count("") > 120
    assert [result for result in results if result not in ("", "refused")] == []


def layers_by_sizes(layers: list[WeightLayer]) -> dict[object, list[WeightLayer]]:
    found = defaultdict(list)
    for layer in layers:
        sizes = layer.geometry
        found[sizes.kernel, sizes.ifm_shape, sizes.ofm_shape, layer.block].append(layer)
    return found


def stored_models(models_dir, oracle_dir, npu):
    """Network and rows of each stored model whose operations with weights the oracle lists."""
    rows = defaultdict(list)
    for row in oracle.stored_rows(oracle_dir, npu):
        rows[row["model"]].append(row)
    for name in sorted(rows):
        yield load(models_dir / f"{name}.tflite"), rows[name]


@pytest.mark.data
@pytest.mark.parametrize("npu", npus.names())
def test_sizes_and_blocks_of_real_models(models_dir, oracle_dir, npu):
    n_layers = 0
    for network, rows in stored_models(models_dir, oracle_dir, npu):
        layers = layers_by_sizes(weight_layers(network, npu))
        n_layers += len(rows)
        expected = Counter()
        for row in rows:
            sizes = oracle.geometry_of(row)
            expected[sizes.kernel, sizes.ifm_shape, sizes.ofm_shape, oracle.block_of(row)] += 1
        assert {sizes: len(found) for sizes, found in layers.items()} == expected, network.name
    assert n_layers > 400


@pytest.mark.data
def test_bytes_of_real_models(models_dir, oracle_dir):
    """With the compiler's depth slices every layer takes exactly as many bytes."""
    npu, n_layers, n_sliced = "ethos-u55-128", 0, 0
    for network, rows in stored_models(models_dir, oracle_dir, npu):
        layers = layers_by_sizes(weight_layers(network, npu))
        for row in rows:
            sizes = oracle.geometry_of(row)
            key = (sizes.kernel, sizes.ifm_shape, sizes.ofm_shape, oracle.block_of(row))
            offsets = [int(offset) for offset in str(row["ofm_depth_slices"]).split("|")]
            candidates = layers[key]
            sizes_bytes = [layer_bytes(layer, npu, offsets) for layer in candidates]
            assert row["weight_total_bytes"] in sizes_bytes, (network.name, key)
            candidates.pop(sizes_bytes.index(row["weight_total_bytes"]))
            n_layers += 1
            n_sliced += len(offsets) > 2
    assert (n_layers, n_sliced) == (714, 69)


def layer_bytes(layer: WeightLayer, npu: str, offsets: list[int] | None = None) -> int:
    parts = reorder_slices(layer.weights_ohwi(), offsets, npu, **layer.reorder_options)
    return sum(encoded_size(part.values, "regor") for part in parts)


@pytest.mark.data
@pytest.mark.parametrize("npu", ["ethos-u55-32", "ethos-u55-256"])
def test_totals_of_real_models(models_dir, oracle_dir, npu):
    """Without depth slices, as where weights are not buffered, totals are the compiler's."""
    totals = {}
    with (oracle_dir.parent / "summary.csv").open(newline="") as lines:
        for row in csv.DictReader(lines):
            if row["acc"] == npu and row["mem"] == "Sram_Only" and row["opt"] == "Performance":
                totals[row["model"]] = int(row["enc_weights"])
    # its report counts a tensor once even where two layers need it in two orders
    del totals["coral_automl_traffic"]
    for name, total in totals.items():
        layers = weight_layers(load(models_dir / f"{name}.tflite"), npu)
        ours = sum(layer_bytes(layer, npu) for layer in layers if not layer.same_as)
        assert ours == total, name
    assert len(totals) >= 20


@pytest.mark.data
@pytest.mark.slow
def test_streams_of_real_models(models_dir):
    """What lies in flash, each stream as often as it does, where weights are not buffered."""
    npu, n_streams = "ethos-u55-128", 0
    for path in sorted(models_dir.rglob("*.tflite")):
        network = load(path)
        ours = Counter(
            encode(part.values, "regor")
            for layer in weight_layers(network, npu)
            if not layer.same_as
            for part in reorder_slices(layer.weights_ohwi(), None, npu, **layer.reorder_options)
        )
        if ours:
            compiled = oracle.compile_model(path.read_bytes(), npu, slices=False)
            streams = compiled_streams(load_bytes(bytes(compiled.model)))
            assert ours == Counter(bytes(stream.data) for stream in streams), path.name
            n_streams += len(streams)
    assert n_streams >= 743


def shared_weights(sizes: tuple[int, int]) -> Network:
    net = NetworkBuilder("shared")
    codes = np.random.default_rng(0).integers(-9, 9, (80, 1, 1, 128)).astype(np.int8)
    weights = net.constant(codes, scales=np.full(80, 0.01))
    outputs = []
    for size in sizes:
        image = net.input((1, size, size, 128), scale=0.05)
        bias = net.bias(np.zeros(80, int), image, weights)
        outputs.append(net.op("CONV_2D", image, weights, bias, scale=0.5))
    return net.build(*outputs)


def test_layers_that_share_weights():
    first, second = weight_layers(shared_weights((8, 8)))
    assert (first.same_as, second.same_as) == ("", first.name)
    first, second = weight_layers(shared_weights((8, 32)))  # other blocks, so another order
    assert (first.same_as, second.same_as) == ("", "")


def test_a_layer_tells_its_weights():
    network = RandomNetwork(np.random.default_rng(3), "groups").build()
    layers = weight_layers(network, "ethos-u55-64")
    assert [layer.name for layer in layers] == ["conv_2d (group 0)", "conv_2d (group 1)"]
    for layer in layers:
        weights = layer.weights_ohwi()
        assert weights.shape == layer.shape
        assert weights.dtype == np.int16
        assert layer.n_channels == layer.shape[0]
        assert layer.reorder_options["ofm_block_depth"] == layer.block.ofm_block_depth
        assert weights is not layer.weights_ohwi()
    both = np.concatenate([layer.weights_ohwi() for layer in layers])
    assert (both[both != 0] == network.ops[0].weights_ohwi().ravel()).all()  # dilated: zeros added


def single(kind, ifm, weights, axis=0, dtype="int8", **attributes) -> Op:
    net = NetworkBuilder("single")
    x = net.input(ifm, dtype, scale=0.05)
    codes = net.constant(np.ones(weights, np.int8), scales=np.full(weights[axis], 0.01), axis=axis)
    inputs = [x, codes, net.bias(np.zeros(weights[axis], int), x, codes)]
    if kind == "TRANSPOSE_CONV":
        inputs = [np.array([1, 24, 24, weights[0]], np.int32), codes, *inputs[::2]]
    return net.build(net.op(kind, *inputs, scale=0.5, **attributes)).ops[0]


def unary(kind, shape, parameter, **attributes) -> Op:
    net = NetworkBuilder("unary")
    x = net.input(shape, scale=0.05)
    return net.build(net.op(kind, x, np.array(parameter, np.int32), **attributes)).ops[0]


@pytest.mark.parametrize(
    ("op", "reason"),
    [
        (single("CONV_2D", (1, 9, 9, 4), (8, 3, 3, 4), stride_h=4), r"got \(4, 1\)"),
        (
            single("CONV_2D", (1, 8, 8, 4), (8, 3, 3, 4), dtype="int32"),
            "ifm must be of int8, uint8",
        ),
        (
            single("DEPTHWISE_CONV_2D", (1, 8, 8, 4), (1, 3, 3, 4), 3, stride_w=4),
            r"strides must be in 1..3, got \(1, 4\)",
        ),
        (
            single("TRANSPOSE_CONV", (1, 8, 8, 4), (8, 3, 3, 4), stride_h=3, stride_w=3),
            r"strides must be one of \[\(1, 1\), \(2, 2\)\], got \(3, 3\)",
        ),
        (unary("MEAN", (1, 7, 7, 32), [3]), "must be 1 to reduce depth"),
        (unary("MEAN", (2, 7, 7, 32), [1, 2]), "batch must be 1"),
        (unary("MEAN", (1, 1, 4096, 2), [2]), "must be shorter than 4096"),
        (unary("RESIZE_BILINEAR", (1, 4, 4, 8), [12, 12]), r"one of \[2, 4, 8\]"),
        (
            unary("RESIZE_BILINEAR", (1, 4, 4, 8), [16, 16], half_pixel_centers=True),
            r"one of \[2\] along all axes, got \(4, 4\) to \(16, 16\)",
        ),
        (unary("LOG_SOFTMAX", (1, 4, 4, 8), [1]), "kind must be one that the NPU executes"),
    ],
)
def test_reason_for_the_cpu(op, reason):
    assert re.search(reason, str(npu_obstacle(op)))


def test_operations_of_the_cpu_are_left_out():
    op = single("DEPTHWISE_CONV_2D", (1, 8, 8, 4), (1, 3, 3, 4), 3, stride_w=4)
    assert npu_obstacle(op) is not None
    net = NetworkBuilder("mixed")
    image = net.input((1, 8, 8, 4), scale=0.05)
    weights = net.constant(np.ones((1, 3, 3, 4), np.int8), scales=np.full(4, 0.01), axis=3)
    bias = net.bias(np.zeros(4, int), image, weights)
    near = net.op("DEPTHWISE_CONV_2D", image, weights, bias, scale=0.5, depth_multiplier=1)
    far = net.op(
        "DEPTHWISE_CONV_2D", near, weights, bias, scale=0.5, depth_multiplier=1, stride_h=4
    )
    layers = weight_layers(net.build(far))
    assert [layer.name for layer in layers] == [near.name]
