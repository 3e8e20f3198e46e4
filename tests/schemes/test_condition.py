# SPDX-License-Identifier: Apache-2.0
"""Networks with conditioned weights: what changes, what stays, and what LiteRT makes of them."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from npusim.errors import ConfigError
from npusim.formats import load_bytes
from npusim.formats.tflite_write import to_bytes
from npusim.integer import run
from npusim.network import Network
from npusim.network_builder import NetworkBuilder
from npusim.npu import get
from npusim.schemes.condition import Condition, conditioned, conditions
from npusim.weights import cluster, prune

NPU = get("ethos-u55-128")
RNG = np.random.default_rng(5)


def network(n_scales=1, shared=False) -> Network:
    """Two convolutions, a depthwise one, a pool and a matrix, biases among them."""
    net, rng = NetworkBuilder("four"), np.random.default_rng(5)
    x = net.input((1, 8, 8, 8), scale=0.02)

    def weights(shape, axis=0):
        drawn = np.rint(rng.laplace(0, 25, shape)).clip(-127, 127).astype(np.int8)
        n = shape[axis] if n_scales > 1 else 1
        return net.constant(drawn, scales=np.linspace(0.004, 0.006, n), axis=axis)

    kernel = weights((8, 3, 3, 8))
    bias = net.bias(rng.integers(-900, 900, 8).tolist(), x, kernel)
    x = net.op("CONV_2D", x, kernel, bias, scale=0.02, name="first")
    if shared:
        x = net.op("CONV_2D", x, kernel, bias, scale=0.02, name="again")
    kernel = weights((1, 3, 3, 8), axis=3)
    x = net.op("DEPTHWISE_CONV_2D", x, kernel, net.bias([50] * 8, x, kernel), scale=0.02)
    kernel = weights((16, 512))
    return net.build(net.op("FULLY_CONNECTED", x, kernel, net.bias([9] * 16, x, kernel), scale=0.1))


def reals(tensor):
    """What a constant stands for."""
    shape = [1] * tensor.data.ndim
    scales = tensor.quantization.scales.astype(np.float64)
    if scales.size > 1:
        shape[tensor.quantization.axis] = scales.size
    points = tensor.quantization.zero_points.reshape(shape)
    return (tensor.data.astype(np.float64) - points) * scales.reshape(shape)


def pairs(before, after):
    """Weights and biases of the operations of both networks."""
    for old, new in zip(before.ops, after.ops, strict=True):
        if old.weights is not None:
            yield old.weights, new.weights, old.bias, new.bias


def test_nothing_to_do():
    net = network()
    assert conditioned(net, Condition(), NPU) is net


def test_pruned_and_clustered_tensor_by_tensor():
    net = network()
    found = conditioned(net, Condition(nonzeros=0.4, clusters=6), NPU)
    for old, new, old_bias, new_bias in pairs(net, found):
        expected = cluster(prune(old.data.astype(np.int16), 0.4), 6)
        np.testing.assert_array_equal(new.data, expected)
        assert new.quantization == old.quantization
        assert new_bias == old_bias


@pytest.mark.parametrize("n_scales", [1, 8])
@pytest.mark.parametrize(("bits", "worst"), [(8, 0.003), (6, 0.035), (4, 0.14), (1, 0.75)])
def test_requantized_weights_stand_for_nearly_the_same(bits, worst, n_scales):
    net = network(n_scales)
    found = conditioned(net, Condition(bits=bits), NPU)
    for old, new, old_bias, new_bias in pairs(net, found):
        levels = max(1, (1 << (bits - 1)) - 1)
        assert np.abs(new.data).max() <= levels
        error = np.linalg.norm(reals(new) - reals(old)) / np.linalg.norm(reals(old))
        assert error < worst
        assert (error == 0) == (bits == 8)
        half = np.float64(new_bias.quantization.scales.max()) / 2
        assert np.abs(reals(new_bias) - reals(old_bias)).max() <= half * 1.0001
        ratios = new.quantization.scales / old.quantization.scales
        np.testing.assert_allclose(
            new_bias.quantization.scales / old_bias.quantization.scales, ratios, rtol=1e-5
        )


def test_unsigned_weights_get_a_zero_point_in_the_middle():
    net = NetworkBuilder("unsigned")
    x = net.input((1, 4, 4, 8), scale=0.02, dtype="uint8")
    drawn = RNG.integers(0, 256, (8, 1, 1, 8)).astype(np.uint8)
    kernel = net.constant(drawn, scales=0.01, zero_points=90)
    network = net.build(net.op("CONV_2D", x, kernel, net.bias([0] * 8, x, kernel), scale=0.1))
    plain = conditioned(network, Condition(nonzeros=0.5), NPU).ops[0].weights
    np.testing.assert_array_equal(plain.data, prune(drawn.astype(np.int16) - 90, 0.5) + 90)
    found = conditioned(network, Condition(bits=4), NPU).ops[0].weights
    assert found.quantization.zero_points.tolist() == [128]
    assert np.abs(found.data.astype(np.int16) - 128).max() == 7
    assert np.abs(reals(found) - reals(network.ops[0].weights)).max() < 0.2


def test_patterns_hold_along_channels():
    net = network()
    found = conditioned(net, Condition(n_of_m=(1, 4)), NPU)
    for _, new, _, _ in pairs(net, found):
        groups = new.data.reshape(-1, 4)
        assert np.count_nonzero(groups, axis=1).max() == 1
    odd = NetworkBuilder("odd")
    x = odd.input((1, 4, 4, 3), scale=0.02)
    kernel = odd.constant(np.full((2, 1, 1, 3), 5, np.int8), scales=0.01)
    made = odd.build(odd.op("CONV_2D", x, kernel, odd.bias([0, 0], x, kernel), scale=0.1))
    weights = conditioned(made, Condition(n_of_m=(1, 2)), NPU).ops[0].weights
    assert weights.data.reshape(2, 3).tolist() == [[5, 0, 5]] * 2


def test_shared_tensors_stay_shared():
    net = network(shared=True)
    found = conditioned(net, Condition(bits=4), NPU)
    assert found.ops[0].weights is found.ops[1].weights
    assert found.ops[0].bias is found.ops[1].bias
    assert len(found.tensors) == len(net.tensors)


def test_a_bias_beside_two_weights_becomes_two():
    net = NetworkBuilder("two")
    x = net.input((1, 4, 4, 8), scale=0.02)
    kernels = [
        net.constant(RNG.integers(-high, high + 1, (8, 1, 1, 8)).astype(np.int8), scales=0.01)
        for high in (127, 60)
    ]
    bias = net.bias([700] * 8, x, kernels[0])
    for kernel in kernels:
        x = net.op("CONV_2D", x, kernel, bias, scale=0.02)
    found = conditioned(net.build(x), Condition(bits=3), NPU)
    for op in found.ops:
        expected = op.weights.quantization.scales * np.float32(0.02)
        np.testing.assert_allclose(op.bias.quantization.scales, expected, rtol=1e-5)


def test_can_be_written_and_run():
    net = network()
    (ifm,) = net.inputs
    codes = RNG.integers(-128, 128, ifm.shape).astype(np.int8)
    outputs = {}
    for condition in conditions(bits=[None, 8, 6, 4]):
        found = conditioned(net, condition, NPU)
        back = load_bytes(to_bytes(found), found.name)
        assert [op.weights for op in back.ops] == [op.weights for op in found.ops]
        out = run(back, [codes])[back.outputs[0].index]
        outputs[condition.bits] = out.astype(np.float64)
    assert (outputs[8] == outputs[None]).all()
    errors = [np.abs(outputs[bits] - outputs[None]).mean() for bits in (6, 4)]
    assert 0 < errors[0] < errors[1]


def test_compiled_networks_are_refused():
    net = network()
    compiled = dataclasses.replace(net, ops=(dataclasses.replace(net.ops[0], kind="ETHOS_U"),))
    with pytest.raises(ConfigError, match="must not be compiled yet"):
        conditioned(compiled, Condition(bits=4), NPU)
