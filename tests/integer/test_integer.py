# SPDX-License-Identifier: Apache-2.0
"""Integer inference equals LiteRT's, code for code."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import tflite_oracle

import npusim
from npusim.errors import ConfigError, UnknownNameError
from npusim.formats.tflite_write import to_bytes
from npusim.integer import OPERATORS, run
from npusim.network_builder import NetworkBuilder

RESOLVERS = {"litert_ref": "BUILTIN_REF", "litert_opt": "BUILTIN_WITHOUT_DEFAULT_DELEGATES"}


def random_network(seed):
    rng = np.random.default_rng(seed)
    net = NetworkBuilder("random")
    x = net.input(
        (1, int(rng.integers(7, 15)), 9, 5), scale=0.05, zero_point=int(rng.integers(-9, 9))
    )

    def layer(kind, x, shape, axis, **options):
        depth = shape[axis]
        codes = rng.integers(-127, 128, shape).astype(np.int8)
        weights = net.constant(codes, scales=rng.uniform(0.001, 0.01, depth), axis=axis)
        bias = net.constant(
            rng.integers(-2000, 2000, depth).astype(np.int32),
            scales=x.quantization.scales * weights.quantization.scales,
        )
        zero = int(rng.integers(-60, 60))
        return net.op(
            kind, x, weights, bias, scale=rng.uniform(0.05, 0.3), zero_point=zero, **options
        )

    activation = str(rng.choice(["NONE", "RELU", "RELU6"]))
    strides = dict(stride_h=int(rng.integers(1, 3)), stride_w=int(rng.integers(1, 3)))
    x = layer("CONV_2D", x, (8, 3, 3, 5), 0, fused_activation=activation, **strides)
    y = layer("DEPTHWISE_CONV_2D", x, (1, 3, 3, 8), 3)
    x = net.op("ADD", x, y, scale=0.2, zero_point=3, fused_activation=activation)
    x = net.op("MUL", x, y, scale=0.4, zero_point=-5)
    x = net.op("PAD", x, np.array([[0, 0], [1, 2], [0, 1], [0, 0]], np.int32))
    x = net.op("MAX_POOL_2D", x, filter_h=2, filter_w=3)
    x = net.op("AVERAGE_POOL_2D", x, filter_h=3, filter_w=2, padding="SAME")
    if seed % 2:
        x = net.op("MEAN", x, np.array([1, 2], np.int32), scale=0.1, zero_point=4, keep_dims=True)
    depth = int(np.prod(x.shape))
    x = net.op("RESHAPE", x, np.array([1, depth], np.int32), shape=(1, depth))
    return net.build(layer("FULLY_CONNECTED", x, (10, depth), 0))


def compare(network, profile, seed):
    """Share of equal codes of the output, and the largest difference."""
    rng = np.random.default_rng(seed)
    inputs = [rng.integers(-128, 128, t.shape).astype(np.int8) for t in network.inputs]
    given = {t.index: codes for t, codes in zip(network.inputs, inputs, strict=True)}
    made = tflite_oracle.interpreter(to_bytes(network), RESOLVERS[profile])
    (theirs,) = tflite_oracle.run(made, seed, given)
    ours = run(network, inputs, profile)[network.outputs[0].index]
    difference = np.abs(ours.astype(int) - theirs.astype(int))
    return float((difference == 0).mean()), int(difference.max())


@pytest.mark.parametrize("profile", RESOLVERS)
@pytest.mark.parametrize("seed", range(12))
def test_random_networks_equal_litert(seed, profile):
    tflite_oracle.require()
    assert compare(random_network(seed), profile, seed) == (1.0, 0)


@pytest.mark.data
@pytest.mark.parametrize("profile", RESOLVERS)
@pytest.mark.parametrize(
    "name", ["mlperf_kws_dscnn", "mlperf_resnet8", "mlperf_vww96", "mlperf_ad_autoencoder"]
)
def test_real_models_equal_litert(models_dir, name, profile):
    """Up to the softmax, where there is one."""
    tflite_oracle.require()
    network = npusim.load(models_dir / f"{name}_int8.tflite")
    if network.ops[-1].kind == "SOFTMAX":
        ops = network.ops[:-1]
        network = dataclasses.replace(network, ops=ops, outputs=ops[-1].outputs)
    assert all(compare(network, profile, seed) == (1.0, 0) for seed in range(4))


def test_wrong_arguments_are_refused():
    network = random_network(0)
    codes = np.zeros(network.inputs[0].shape, np.int8)
    with pytest.raises(UnknownNameError, match="profile"):
        run(network, [codes], "other")
    with pytest.raises(ConfigError, match="inputs must be 1 arrays, got 0"):
        run(network, [])
    with pytest.raises(ConfigError, match=r"input must fit int8.*, got int16"):
        run(network, [codes.astype(np.int16)])
    net = NetworkBuilder("soft")
    x = net.input((1, 4), scale=0.1)
    soft = net.build(net.op("SOFTMAX", x, scale=1 / 256, zero_point=-128))
    assert "SOFTMAX" not in OPERATORS
    with pytest.raises(ConfigError, match=r"kind of 'softmax' must be .*, got SOFTMAX"):
        run(soft, [np.zeros((1, 4), np.int8)])
