# SPDX-License-Identifier: Apache-2.0
"""Networks: roles of inputs, weights for the NPU, MACs, look-ups, and rules they keep."""

from __future__ import annotations

import pickle
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from example_networks import every_step_network
from hypothesis import given, settings
from hypothesis import strategies as st

from npusim.errors import ConfigError
from npusim.network import Network, Op, Quantization, Tensor
from npusim.network_builder import NetworkBuilder

IFM = Tensor(0, "x", (1, 5, 6, 2), "int8")
OFM = Tensor(2, "y", (1, 5, 6, 3), "int8")


def weighted(kind: str, data: np.ndarray, quantization: Quantization | None = None) -> Op:
    """An operation of `kind` with the constant weights `data`."""
    dtype = str(data.dtype)
    weights = Tensor(1, "w", data.shape, dtype, quantization, data)
    inputs = (None, weights, IFM) if kind == "TRANSPOSE_CONV" else (IFM, weights)
    return Op(0, kind, "op", inputs, (OFM,))


def test_conv_weights_are_as_stored_less_zero_points_per_channel() -> None:
    data = np.arange(3 * 2 * 2 * 2, dtype=np.int8).reshape(3, 2, 2, 2)
    op = weighted("CONV_2D", data, Quantization.of([1, 2, 3], [0, 5, -7]))
    corrected = op.weights_ohwi()
    assert corrected.dtype == np.int16
    assert np.array_equal(corrected[0], data[0])
    assert np.array_equal(corrected[1], data[1] - 5)
    assert np.array_equal(corrected[2], data[2] + 7)


def test_uint8_weights_reach_both_ends_of_the_range() -> None:
    data = np.array([0, 255], np.uint8).reshape(1, 1, 1, 2)
    low = weighted("CONV_2D", data, Quantization.of(1, 255)).weights_ohwi()
    high = weighted("CONV_2D", data, Quantization.of(1, 0)).weights_ohwi()
    assert low.ravel().tolist() == [-255, 0]
    assert high.ravel().tolist() == [0, 255]


def test_depthwise_weights_get_one_input_channel() -> None:
    data = np.arange(2 * 3 * 4, dtype=np.int8).reshape(1, 2, 3, 4)
    op = weighted("DEPTHWISE_CONV_2D", data, Quantization.of([1, 1, 1, 1], [0, 1, 2, 3], axis=3))
    corrected = op.weights_ohwi()
    assert corrected.shape == (4, 2, 3, 1)
    assert corrected.flags.c_contiguous
    for channel in range(4):
        assert np.array_equal(corrected[channel, :, :, 0], data[0, :, :, channel] - channel)


def test_fully_connected_weights_are_a_1x1_kernel() -> None:
    data = np.arange(6, dtype=np.int8).reshape(3, 2)
    corrected = weighted("FULLY_CONNECTED", data).weights_ohwi()
    assert corrected.shape == (3, 1, 1, 2)
    assert np.array_equal(corrected[:, 0, 0, :], data)


def test_transpose_conv_weights_are_turned_so_that_it_is_a_convolution() -> None:
    """Scattering with the stored kernel is convolving the padded ifm with the turned one."""
    rng = np.random.default_rng(0)
    data = rng.integers(-127, 128, (3, 2, 3, 2)).astype(np.int8)
    ifm = rng.integers(-9, 10, (4, 5, 2))
    scattered = np.zeros((4 + 1, 5 + 2, 3), int)
    for y in range(4):
        for x in range(5):
            scattered[y : y + 2, x : x + 3] += np.einsum("ohwi,i->hwo", data.astype(int), ifm[y, x])
    turned = weighted("TRANSPOSE_CONV", data).weights_ohwi().astype(int)
    padded = np.pad(ifm, ((1, 1), (2, 2), (0, 0)))
    for y in range(5):
        for x in range(7):
            window = padded[y : y + 2, x : x + 3]
            assert np.array_equal(np.einsum("ohwi,hwi->o", turned, window), scattered[y, x])


def test_weights_ohwi_is_a_new_array() -> None:
    op = weighted("CONV_2D", np.ones((3, 1, 1, 2), np.int8))
    op.weights_ohwi()[:] = 9
    assert op.weights_ohwi().max() == 1


@settings(derandomize=True, deadline=None)
@given(
    st.sampled_from(["int8", "uint8", "int16"]),
    st.integers(-(2**31), 2**31 - 1) | st.integers(-300, 300),
    st.lists(st.integers(-(2**15), 2**15 - 1), min_size=1, max_size=4),
)
def test_weights_ohwi_is_exact_or_refused(dtype: str, point: int, raw: list[int]) -> None:
    data = np.array(raw).astype(dtype).reshape(1, 1, 1, -1)
    expected = [int(value) - point for value in data.ravel()]
    op = weighted("CONV_2D", data, Quantization.of(1, point))
    if all(-255 <= value <= 255 for value in expected):
        assert op.weights_ohwi().ravel().tolist() == expected
    else:
        with pytest.raises(ConfigError, match=r"less their zero points must be in -255..255, got"):
            op.weights_ohwi()


@pytest.mark.parametrize(
    ("op", "message"),
    [
        (Op(0, "ADD", "a", (IFM, IFM), (OFM,)), r"must be one of CONV_2D, .*, got ADD 'a'"),
        (
            Op(0, "CONV_2D", "c", (IFM, Tensor(1, "w", (3, 1, 1, 2), "int8")), (OFM,)),
            r"weights of CONV_2D 'c' must be constant .* got int8\[3, 1, 1, 2\] 'w', not constant",
        ),
        (
            weighted("CONV_2D", np.ones((3, 1, 1, 2), np.float32)),
            r"must be constant and of int2, .*, got float32\[3, 1, 1, 2\] 'w', constant",
        ),
        (
            weighted("DEPTHWISE_CONV_2D", np.ones((3, 1, 1, 2), np.int8)),
            r"must have shape \[1, H, W, O\], got \(3, 1, 1, 2\)",
        ),
        (
            replace(
                weighted("FULLY_CONNECTED", np.ones((3, 2), np.int8)),
                attributes={"weights_format": "SHUFFLED4x16INT8"},
            ),
            r"weights_format of FULLY_CONNECTED 'op' must be DEFAULT, got SHUFFLED4x16INT8",
        ),
    ],
)
def test_weights_ohwi_refuses(op: Op, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        op.weights_ohwi()


@pytest.mark.parametrize(
    ("inputs", "message"),
    [
        ((IFM,), r"CONV_2D 'c' must have weights, got none"),
        ((None, IFM), r"CONV_2D 'c' must have ifm, got none"),
        ((IFM, Tensor(1, "w", (3, 2), "int8")), r"weights of CONV_2D 'c' must have 4 axes"),
    ],
)
def test_convolution_must_have_its_parts(inputs: tuple[Any, ...], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        Op(0, "CONV_2D", "c", inputs, (OFM,))


def test_roles_of_inputs() -> None:
    shape, weights, bias = (Tensor(i, "", (4, 1, 1, 2)[: 4 - (i == 3)], "int8") for i in (1, 2, 3))
    op = Op(0, "TRANSPOSE_CONV", "t", (shape, weights, IFM, bias), (OFM,))
    assert op.ifm is IFM
    assert op.weights is weights
    assert op.bias is bias
    assert op.ofm is OFM
    assert op.input("ofm_shape") is shape
    assert op.weight_tensors == (weights,)
    with pytest.raises(ConfigError, match=r"must be one of ofm_shape, weights, ifm, bias, got 'x'"):
        op.input("x")


def test_ifm_of_a_kind_without_roles_is_the_first_that_is_not_constant() -> None:
    constant = Tensor(1, "c", (1,), "int8", data=np.ones(1, np.int8))
    assert Op(0, "MUL", "m", (constant, IFM), (OFM,)).ifm is IFM
    assert Op(0, "MUL", "m", (constant,), (OFM,)).ifm is None
    assert Op(0, "CALL_ONCE", "c", (), ()).ofm is None
    assert Op(0, "MUL", "m", (IFM, IFM), (OFM,)).bias is None


def lstm(time_major: bool = False) -> Op:
    """An LSTM of 3 inputs and 4 cells, without optional parts, on 5 steps of 2 sequences."""
    gates = tuple(Tensor(0, f"w{i}", (4, 3 if i < 4 else 4), "int8") for i in range(8))
    biases = tuple(Tensor(0, f"b{i}", (4,), "int32") for i in range(4))
    ifm = Tensor(0, "x", (5, 2, 3) if time_major else (2, 5, 3), "int8")
    inputs = (ifm, *gates, None, None, None, *biases, None, None, IFM, IFM)
    return Op(0, "UNIDIRECTIONAL_SEQUENCE_LSTM", "l", inputs, (Tensor(0, "y", (2, 5, 4), "int8"),))


def test_recurrent_kinds_have_several_weight_tensors() -> None:
    op = lstm()
    assert [tensor.name for tensor in op.weight_tensors] == [f"w{i}" for i in range(8)]
    assert op.weights is None
    assert op.bias is None
    assert op.n_weights == 4 * (4 * 3 + 4 * 4)
    assert op.macs == lstm(time_major=True).macs == 2 * 5 * op.n_weights


def test_macs_by_hand() -> None:
    network = every_step_network()
    by_kind: dict[str, int] = {}
    for op in network.ops:
        if op.kind not in by_kind:
            by_kind[op.kind] = op.macs
    conv = next(op for op in network.ops if op.kind == "CONV_2D")
    assert conv.ofm is not None
    assert conv.weights is not None
    _, height, width, depth = conv.ofm.shape
    _, kernel_h, kernel_w, ifm_depth = conv.weights.shape
    assert by_kind["CONV_2D"] == height * width * depth * kernel_h * kernel_w * ifm_depth
    depthwise = next(op for op in network.ops if op.kind == "DEPTHWISE_CONV_2D")
    assert depthwise.ofm is not None
    assert by_kind["DEPTHWISE_CONV_2D"] == depthwise.ofm.n_elements * 3 * 2
    transposed = next(op for op in network.ops if op.kind == "TRANSPOSE_CONV")
    assert transposed.ifm is not None
    assert by_kind["TRANSPOSE_CONV"] == transposed.ifm.n_elements * 4 * 3 * 2
    dense = next(op for op in network.ops if op.kind == "FULLY_CONNECTED")
    assert dense.weights is not None
    assert by_kind["FULLY_CONNECTED"] == dense.weights.n_elements
    assert by_kind["ADD"] == by_kind["PAD"] == 0
    assert network.macs == sum(op.macs for op in network.ops)


def test_macs_of_degenerate_shapes_are_zero() -> None:
    empty = Tensor(1, "w", (0, 1, 1, 2), "int8")
    assert Op(0, "CONV_2D", "c", (IFM, empty), (OFM,)).macs == 0
    scalar = Tensor(0, "x", (), "int8")
    assert Op(0, "SVDF", "s", (scalar, Tensor(1, "w", (3,), "int8")), (OFM,)).macs == 3


def test_producers_consumers_and_graph_agree() -> None:
    network = every_step_network()
    graph = network.graph()
    assert graph.number_of_nodes() == len(network.ops)
    edges = dict.fromkeys(graph.edges(), 0)
    for u, v, tensor in graph.edges(data="tensor"):
        edges[u, v] += 1
        assert network.producer(tensor) is network.ops[u]
        assert network.ops[v] in network.consumers(tensor)
        assert graph.nodes[v]["op"] is network.ops[v]
    concatenation = next(op for op in network.ops if op.kind == "CONCATENATION")
    assert edges[concatenation.index - 1, concatenation.index] == 2
    assert concatenation.ifm is not None
    assert network.consumers(concatenation.ifm) == (concatenation,)
    assert network.producer(network.inputs[0]) is None
    assert network.consumers(network.outputs[0]) == ()


def test_tensor_of_another_network_is_refused() -> None:
    network, other = every_step_network(), every_step_network()
    with pytest.raises(ConfigError, match=r"tensors of network 'every_step' must be in the"):
        network.producer(other.tensors[0])
    with pytest.raises(ConfigError, match=r"tensors of network 'every_step' must be in the"):
        network.consumers(other.tensors[0])


A, B, C = (Tensor(i, name, (1,), "int8") for i, name in enumerate("abc"))
CONSTANT = Tensor(2, "c", (1,), "int8", data=np.ones(1, np.int8))


def relu(index: int, source: Tensor, target: Tensor, name: str = "") -> Op:
    return Op(index, "RELU", name or target.name, (source,), (target,))


@pytest.mark.parametrize(
    ("tensors", "ops", "message"),
    [
        ((A, C), (), r"index of int8\[1\] 'c' must be 1, got 2"),
        ((A, B), (relu(1, A, B),), r"index of RELU 'b' must be 0, got 1"),
        ((A, B, C), (relu(0, A, B), relu(1, A, C, "b")), r"names of ops must differ, got 'b'"),
        ((A,), (relu(0, A, B),), r"tensors of RELU 'b' must be in the network's list"),
        (
            (A, B),
            (relu(0, A, B), relu(1, A, B, "again")),
            r"int8\[1\] 'b' must be written once, got RELU 'b' and RELU 'again'",
        ),
        (
            (A, B, C),
            (relu(0, B, C), relu(1, A, B)),
            r"'b' must be written before it is read, got RELU 'c' before RELU 'b'",
        ),
        ((A,), (relu(0, A, A),), r"'a' must be written before it is read, got RELU 'a' before"),
        ((A, B, CONSTANT), (relu(0, A, CONSTANT),), r"output of RELU 'c' must not be constant"),
    ],
)
def test_network_refuses(tensors: tuple[Tensor, ...], ops: tuple[Op, ...], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        Network("n", tensors, ops, (A,), (A,))


def test_subgraphs_are_counted_from_one() -> None:
    side = Network("side", (), (), (), ())
    network = Network("main", (A,), (), (A,), (A,), subgraphs=(side,))
    assert network.subgraph(0) is network
    assert network.subgraph(1) is side
    with pytest.raises(ConfigError, match=r"subgraph of 'main' must be in 0..1, got 2"):
        network.subgraph(2)


def test_shared_weights_count_once_but_work_twice() -> None:
    net = NetworkBuilder("shared")
    x = net.input((1, 4, 4, 2), scale=1.0)
    weights = net.constant(np.ones((2, 1, 1, 2), np.int8), scales=1.0)
    y = net.op("CONV_2D", net.op("CONV_2D", x, weights), weights)
    network = net.build(y)
    assert network.n_weights == 4
    assert network.macs == 2 * 16 * 4


def test_networks_compare_by_value_and_survive_pickling() -> None:
    network = every_step_network()
    assert network == every_step_network()
    assert pickle.loads(pickle.dumps(network)) == network
    assert replace(network, description="other") != network
    assert len({*network.ops, *network.ops}) == len(network.ops)


def test_text_of_a_network_is_one_line() -> None:
    network = every_step_network()
    assert str(network).startswith("every_step: 13 ops, ")
    assert str(network).endswith(" MACs, int8[1, 12, 10, 3] -> int8[1, 10]")
    assert "\n" not in repr(network)
