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
from npusim.integer import run
from npusim.integer.requantize import multiplier, scaled
from npusim.network_builder import NetworkBuilder

RESOLVERS = {
    "litert_ref": "BUILTIN_REF",
    "litert_opt": "BUILTIN_WITHOUT_DEFAULT_DELEGATES",
    "xnnpack": "AUTO",
}


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
    strides = {"stride_h": int(rng.integers(1, 3)), "stride_w": int(rng.integers(1, 3))}
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


def drawn(tensor, rng):
    """Values for an input."""
    if tensor.dtype == "float32":
        return rng.uniform(-1, 1, tensor.shape).astype(np.float32)
    limits = np.iinfo(tensor.dtype)
    return rng.integers(limits.min, limits.max, tensor.shape, tensor.dtype, endpoint=True)


def compare(network, profile, seed):
    """Share of equal codes of the outputs, and the largest difference."""
    rng = np.random.default_rng(seed)
    inputs = [drawn(tensor, rng) for tensor in network.inputs]
    given = {t.index: codes for t, codes in zip(network.inputs, inputs, strict=True)}
    made = tflite_oracle.interpreter(to_bytes(network), RESOLVERS[profile])
    values = run(network, inputs, profile)
    pairs = zip(network.outputs, tflite_oracle.run(made, seed, given), strict=True)
    differences = [
        np.abs(values[tensor.index].astype(float) - theirs).ravel() for tensor, theirs in pairs
    ]
    difference = np.concatenate(differences)
    return float((difference == 0).mean()), int(difference.max())


@pytest.mark.parametrize("profile", RESOLVERS)
@pytest.mark.parametrize("seed", range(100, 130))
def test_random_networks_equal_litert(seed, profile):
    tflite_oracle.require()
    assert compare(random_network(seed), profile, seed) == (1.0, 0)


MODELS = (
    *("mcunet_vww", "mlek_kws_micronet_m_int8", "mlek_yolo_fastest_192_face_int8"),
    *("mlperf_ad_autoencoder_int8", "mlperf_kws_dscnn_int8", "mlperf_resnet8_int8"),
    *("mlperf_streaming_ww_int8", "mlperf_vww96_int8", "mww_okay_nabu_int8", "mww_vad_int8"),
    *("openmv_blazeface128", "openmv_face_landmarks192", "openmv_movenet192"),
    *("silabs_kws_alexa", "silabs_magic_wand", "silabs_rps", "tflm_micro_speech_int8"),
    *("tflm_person_detect_int8", "tflm_pt_mobilenet_v2_224_int8", "tinyengine_lenet300"),
)
"""All models with int8 feature maps, but one of an LSTM."""


def real(models_dir, name):
    """A model, without the float operation at the end of one."""
    network = npusim.load(models_dir / f"{name}.tflite")
    if network.ops[-1].kind == "LOG_SOFTMAX":
        ops = network.ops[:-1]
        network = dataclasses.replace(network, ops=ops, outputs=ops[-1].outputs)
    return network


@pytest.mark.data
@pytest.mark.parametrize("profile", RESOLVERS)
@pytest.mark.parametrize("name", MODELS)
def test_real_models_equal_litert(models_dir, name, profile):
    tflite_oracle.require()
    assert compare(real(models_dir, name), profile, 0) == (1.0, 0)


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
    soft = net.build(net.op("LOG_SOFTMAX", x, scale=1 / 16, zero_point=127))
    with pytest.raises(ConfigError, match=r"kind of 'log_softmax' must be .*, got LOG_SOFTMAX"):
        run(soft, [np.zeros((1, 4), np.int8)])


def upscaler(kernel, padding, seed):
    """A transposed convolution and its concatenation with itself."""
    rng = np.random.default_rng(seed)
    net = NetworkBuilder("upscaler")
    x = net.input((1, 5, 6, 3), scale=0.05, zero_point=7)
    codes = rng.integers(-127, 128, (4, kernel, kernel, 3)).astype(np.int8)
    weights = net.constant(codes, scales=rng.uniform(0.001, 0.01, 4))
    bias = net.bias(rng.integers(-500, 500, 4), x, weights)
    extra = max(kernel - 2, 0) if padding == "VALID" else 0
    shape = (1, 10 + extra, 12 + extra, 4)
    sizes = np.array(shape, np.int32)
    options = {"padding": padding, "stride_h": 2, "stride_w": 2, "shape": shape}
    big = net.op("TRANSPOSE_CONV", sizes, weights, x, bias, scale=0.1, **options)
    return net.build(net.op("CONCATENATION", big, big, axis=3))


@pytest.mark.parametrize("profile", RESOLVERS)
@pytest.mark.parametrize("padding", ["SAME", "VALID"])
@pytest.mark.parametrize("kernel", [2, 3, 4])
def test_transposed_convolutions_equal_litert(kernel, padding, profile):
    tflite_oracle.require()
    assert compare(upscaler(kernel, padding, kernel), profile, kernel) == (1.0, 0)


@pytest.mark.parametrize(
    ("acc", "away", "upwards"), [(5, 3, 3), (-5, -3, -2), (3, 2, 2), (-3, -2, -1), (4, 2, 2)]
)
def test_profiles_differ_in_ties_of_negative_sums(acc, away, upwards):
    half, shift = multiplier(0.25)
    assert (int(half), int(shift)) == (1 << 30, -1)
    doubled = np.array([2 * acc])
    assert scaled(doubled, half, shift).tolist() == [away]
    assert scaled(doubled, half, shift, ties_up=True).tolist() == [upwards]


def convolution(scales=0.01, zero_points=0, depth=3, **options):
    net = NetworkBuilder("one")
    x = net.input((1, 4, 4, 6), scale=0.1)
    ones = np.ones((4, 1, 1, depth), np.int8)
    kernel = net.constant(ones, scales=scales, zero_points=zero_points)
    return net.build(net.op("CONV_2D", x, kernel, scale=0.1, **options))


def concatenation():
    net = NetworkBuilder("two")
    x, y = (net.input((1, 4), scale=scale) for scale in (0.1, 0.2))
    return net.build(net.op("CONCATENATION", x, y, axis=1))


def unquantized():
    net = NetworkBuilder("float")
    return net.build(net.op("RESHAPE", net.input((1, 4), "float32"), shape=(4,)))


@pytest.mark.parametrize(
    ("network", "message"),
    [
        (convolution(), r"groups of 'conv_2d' must be 1, got 2"),
        (convolution(zero_points=1, depth=6), r"weights of 'conv_2d' must be symmetric, got int8"),
        (
            convolution(depth=6, fused_activation="TANH"),
            r"activation of 'conv_2d' must be a clamp, got TANH",
        ),
        (concatenation(), r"inputs of 'concatenation' must be quantized as its ofm, got int8"),
        (unquantized(), r"feature maps of 'reshape' must be quantized int8, got float32"),
    ],
)
def test_networks_it_cannot_run_are_refused(network, message):
    inputs = [np.zeros(t.shape, t.dtype) for t in network.inputs]
    with pytest.raises(ConfigError, match=message):
        run(network, inputs)
