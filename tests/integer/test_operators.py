# SPDX-License-Identifier: Apache-2.0
"""Each operator by itself equals LiteRT's and TFLite Micro's, code for code."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import tflite_oracle

from npusim.errors import ConfigError
from npusim.formats.tflite_write import to_bytes
from npusim.integer import KINDS, PROFILES, run
from npusim.network import Network
from npusim.network_builder import NetworkBuilder

RESOLVERS = {
    "litert_ref": "BUILTIN_REF",
    "litert_opt": "BUILTIN_WITHOUT_DEFAULT_DELEGATES",
    "xnnpack": "AUTO",
}
SHAPE = (1, 9, 7, 22)
SEEDS = range(5)


class Drawn:
    """A network of one operation, drawn at random."""

    def __init__(self, seed: int):
        self.rng = np.random.default_rng(seed)
        self.net = NetworkBuilder("one")

    def quantization(self, dtype: str = "int8") -> dict[str, Any]:
        zero_point = int(self.rng.integers(-60, 60)) + (128 if dtype == "uint8" else 0)
        return {"scale": float(self.rng.uniform(0.02, 0.3)), "zero_point": zero_point}

    def input(self, shape: tuple[int, ...] = SHAPE, dtype: str = "int8", like: Any = None) -> Any:
        if like is not None:
            quantization = like.quantization
            return self.net.input(
                shape, scale=quantization.scales[0], zero_point=int(quantization.zero_points[0])
            )
        given = {} if dtype == "float32" else self.quantization(dtype)
        return self.net.input(shape, dtype, **given)

    def requantized(self) -> dict[str, Any]:
        return self.quantization() if self.rng.random() < 0.5 else {}

    def flag(self) -> bool:
        return bool(self.rng.integers(2))


def i32(*values: Any) -> np.ndarray:
    return np.array(values, np.int32)


def binary(kind):
    def draw(d):
        fused = str(d.rng.choice(["NONE", "RELU", "RELU6", "RELU_N1_TO_1"]))
        scale = float(d.rng.uniform(0.1, 0.3))
        ofm = {"scale": scale, "zero_point": int(d.rng.integers(-60, 60))}
        return d.net.op(kind, d.input(), d.input(), fused_activation=fused, **ofm)

    return draw


def extreme(kind):
    def draw(d):
        x = d.input()
        return d.net.op(kind, x, d.input(like=x))

    return draw


def unary(kind, **ofm):
    return lambda d: d.net.op(kind, d.input(), **(ofm or d.requantized()))


def leaky(d):
    return d.net.op("LEAKY_RELU", d.input(), alpha=d.rng.uniform(0.01, 0.5), **d.requantized())


def prelu(d):
    codes = d.rng.integers(-128, 128, (1, 1, SHAPE[3])).astype(np.int8)
    slopes = d.net.constant(codes, scales=d.rng.uniform(0.01, 0.02))
    return d.net.op("PRELU", d.input(), slopes, **d.quantization())


def quantize(ifm, ofm):
    return lambda d: d.net.op("QUANTIZE", d.input(dtype=ifm), dtype=ofm, **d.quantization(ofm))


def softmax(d):
    beta = float(d.rng.choice([1.0, 0.5]))
    return d.net.op("SOFTMAX", d.input(), beta=beta, scale=1 / 256, zero_point=-128)


def resize(kind):
    def draw(d):
        size = i32(18, 14) if d.flag() else d.rng.integers(3, 30, 2).astype(np.int32)
        how = [{}, {"align_corners": True}, {"half_pixel_centers": True}][d.rng.integers(3)]
        return d.net.op(kind, d.input(), size, **how)

    return draw


def padded(d):
    x = d.input()
    quantization = x.quantization
    fill = d.net.constant(
        np.array([5], np.int8), scales=quantization.scales, zero_points=quantization.zero_points
    )
    return d.net.op("PADV2", x, i32([0, 0], [1, 2], [0, 1], [0, 3]), fill)


def sliced(d):
    return d.net.op("SLICE", d.input(), i32(0, 2, 1, 3), i32(1, 4, -1, 2), shape=(1, 4, 6, 2))


def strided(d):
    bounds = (i32(0, 2, 6, 3), i32(1, 9, 0, 2), i32(1, 2, -2, 1))
    masks = {"begin_mask": 1, "end_mask": 4, "shrink_axis_mask": 8}
    return d.net.op("STRIDED_SLICE", d.input(), *bounds, shape=(1, 4, 4), **masks)


def mean(d):
    return d.net.op("MEAN", d.input(), i32(1, 2), keep_dims=d.flag(), **d.quantization())


def depth_to_space(d):
    return d.net.op("DEPTH_TO_SPACE", d.input((1, 4, 5, 12)), block_size=2)


def pool(kind):
    def draw(d):
        padding = "SAME" if d.flag() else "VALID"
        sizes = {"filter_h": 3, "filter_w": 2, "stride_h": 2}
        return d.net.op(kind, d.input(), padding=padding, **sizes)

    return draw


def depthwise(d):
    """Powers of two, so that ties are frequent."""
    x = d.net.input(SHAPE, scale=0.5, zero_point=3)
    codes = d.rng.integers(-127, 128, (1, 2, 2, SHAPE[3])).astype(np.int8)
    weights = d.net.constant(codes, scales=[0.25] * SHAPE[3], axis=3)
    bias = d.net.bias(d.rng.integers(-500, 500, SHAPE[3]), x, weights)
    given = {"depth_multiplier": int(d.flag())}  # XNNPACK does not take 0
    return d.net.op("DEPTHWISE_CONV_2D", x, weights, bias, scale=16.0, zero_point=-4, **given)


DRAWN = {
    **{kind: binary(kind) for kind in ("ADD", "SUB", "MUL")},
    **{kind: extreme(kind) for kind in ("MAXIMUM", "MINIMUM")},
    **{kind: unary(kind) for kind in ("RELU", "RELU6", "RELU_N1_TO_1")},
    **{kind: pool(kind) for kind in ("AVERAGE_POOL_2D", "MAX_POOL_2D")},
    **{kind: resize(kind) for kind in ("RESIZE_BILINEAR", "RESIZE_NEAREST_NEIGHBOR")},
    "DEPTHWISE_CONV_2D": depthwise,
    "DEPTH_TO_SPACE": depth_to_space,
    "DEQUANTIZE": unary("DEQUANTIZE", dtype="float32"),
    "LEAKY_RELU": leaky,
    "LOGISTIC": unary("LOGISTIC", scale=1 / 256, zero_point=-128),
    "MEAN": mean,
    "PADV2": padded,
    "PRELU": prelu,
    "QUANTIZE": quantize("int8", "int8"),
    "QUANTIZE from float": quantize("float32", "int8"),
    "QUANTIZE from uint8": quantize("uint8", "int8"),
    "QUANTIZE to uint8": quantize("int8", "uint8"),
    "SLICE": sliced,
    "SOFTMAX": softmax,
    "STRIDED_SLICE": strided,
    "TANH": unary("TANH", scale=1 / 128, zero_point=0),
    "TRANSPOSE": lambda d: d.net.op("TRANSPOSE", d.input(), d.rng.permutation(4).astype(np.int32)),
}


def drawn(name: str, seed: int) -> tuple[Network, list[np.ndarray]]:
    """A network, and inputs for it."""
    d = Drawn(seed)
    network = d.net.build(DRAWN[name](d))
    inputs = []
    for tensor in network.inputs:
        if tensor.dtype == "float32":
            inputs.append(d.rng.normal(0, 4, tensor.shape).astype(np.float32))
        else:
            limits = np.iinfo(tensor.dtype)
            codes = d.rng.integers(limits.min, limits.max, tensor.shape, endpoint=True)
            inputs.append(codes.astype(tensor.dtype))
    return network, inputs


@pytest.mark.parametrize("profile", RESOLVERS)
@pytest.mark.parametrize("name", DRAWN)
def test_operators_equal_litert(name, profile):
    tflite_oracle.require()
    for seed in SEEDS:
        network, inputs = drawn(name, seed)
        given = {t.index: codes for t, codes in zip(network.inputs, inputs, strict=True)}
        made = tflite_oracle.interpreter(to_bytes(network), RESOLVERS[profile])
        (theirs,) = tflite_oracle.run(made, seed, given)
        ours = run(network, inputs, profile)[network.outputs[0].index]
        np.testing.assert_array_equal(ours, theirs)


NOT_IN_MICRO = ("DEQUANTIZE", "QUANTIZE from float", "RELU_N1_TO_1")


@pytest.mark.parametrize("name", [name for name in DRAWN if name not in NOT_IN_MICRO])
def test_operators_equal_tflite_micro(name):
    runtime = pytest.importorskip("tflite_micro.python.tflite_micro.runtime")
    n_compared = 0
    for seed in range(2 * len(SEEDS)):
        network, inputs = drawn(name, seed)
        if network.ops[0].attributes.get("depth_multiplier") == 0:
            continue  # which it takes by its word
        interpreter = runtime.Interpreter.from_bytes(to_bytes(network), arena_size=1 << 20)
        for position, codes in enumerate(inputs):
            interpreter.set_input(codes, position)
        interpreter.invoke()
        ours = run(network, inputs, "tflm")[network.outputs[0].index]
        np.testing.assert_array_equal(ours, interpreter.get_output(0))
        n_compared += 1
    assert n_compared >= 3


def test_optimised_sums_round_their_terms_once():
    """150.4999985 would otherwise be 150.5."""
    net = NetworkBuilder("sum")
    a = net.input((1, 16), scale=0.04282106086611748, zero_point=-128)
    b = net.input((1, 16), scale=0.040989745408296585, zero_point=-7)
    network = net.build(net.op("ADD", a, b, scale=0.04125797376036644, zero_point=-128))
    inputs = [np.full((1, 16), code, np.int8) for code in (-50, 63)]
    assert run(network, inputs, "litert_opt")[2].tolist() == [[22] * 16]
    assert run(network, inputs, "litert_ref")[2].tolist() == [[23] * 16]
    tflite_oracle.require()
    given = dict(enumerate(inputs))
    for profile, code in (("litert_opt", 22), ("litert_ref", 23)):
        made = tflite_oracle.interpreter(to_bytes(network), RESOLVERS[profile])
        (theirs,) = tflite_oracle.run(made, 0, given)
        assert theirs.tolist() == [[code] * 16]


@pytest.mark.parametrize("kind", ["ADD", "SUB"])
@pytest.mark.parametrize("scales", [(0.4, 0.5, 0.2), (0.125, 0.1, 0.2), (0.5, 0.2, 0.2)])
@pytest.mark.parametrize("profile", ["litert_ref", "litert_opt"])
def test_sums_of_all_codes_where_ties_abound(kind, scales, profile):
    tflite_oracle.require()
    every = np.arange(-128, 128, dtype=np.int8)
    first, second = (part.ravel()[:-3] for part in np.meshgrid(every, every))  # and a rest
    net = NetworkBuilder("sum")
    terms = [net.input((1, len(first)), scale=scale) for scale in scales[:2]]
    network = net.build(net.op(kind, *terms, scale=scales[2]))
    inputs = [first[None], second[None]]
    made = tflite_oracle.interpreter(to_bytes(network), RESOLVERS[profile])
    (theirs,) = tflite_oracle.run(made, 0, dict(enumerate(inputs)))
    assert np.array_equal(run(network, inputs, profile)[2], theirs)


@pytest.mark.parametrize("depth", [7, 8, 16, 19])
@pytest.mark.parametrize("kernel", [(1, 1), (1, 3), (2, 2), (3, 1), (3, 3)])
def test_transposed_convolutions_of_any_depth_and_kernel(depth, kernel):
    tflite_oracle.require()
    rng = np.random.default_rng(depth)
    net = NetworkBuilder("transposed")
    image = net.input((1, 6, 7, 12), scale=0.1, zero_point=-3)
    codes = rng.integers(-9, 10, (depth, *kernel, 12)).astype(np.int8)
    weights = net.constant(codes, scales=rng.choice([0.1, 0.2, 0.25], depth) / 10)
    shape = (1, 12, 14, depth)
    window = {"padding": "SAME", "stride_h": 2, "stride_w": 2, "shape": shape}
    bias = net.bias(rng.integers(-50, 50, depth), image, weights)
    network = net.build(
        net.op("TRANSPOSE_CONV", i32(*shape), weights, image, bias, scale=0.05, **window)
    )
    inputs = [rng.integers(-128, 128, (1, 6, 7, 12)).astype(np.int8)]
    for profile, resolver in RESOLVERS.items():
        made = tflite_oracle.interpreter(to_bytes(network), resolver)
        (theirs,) = tflite_oracle.run(made, 0, dict(enumerate(inputs)))
        ours = run(network, inputs, profile)[network.outputs[0].index]
        assert np.array_equal(ours, theirs), profile


def test_profiles_are_told_apart_by_what_is_drawn():
    found = set()
    for name in ("DEPTHWISE_CONV_2D", "MEAN", "RESIZE_BILINEAR", "QUANTIZE", "RELU6"):
        for seed in SEEDS:
            network, inputs = drawn(name, seed)
            codes = [run(network, inputs, each)[network.outputs[0].index] for each in PROFILES]
            for i, one in enumerate(codes):
                found |= {(i, j) for j, other in enumerate(codes) if (one != other).any()}
    assert found == {(i, j) for i in range(4) for j in range(4) if i != j}


def test_every_operator_is_drawn_or_in_the_networks():
    moved = {"CONCATENATION", "EXPAND_DIMS", "PAD", "RESHAPE", "SPLIT", "SPLIT_V", "SQUEEZE"}
    weighted = {"CONV_2D", "FULLY_CONNECTED", "TRANSPOSE_CONV"}
    variables = {"ASSIGN_VARIABLE", "CALL_ONCE", "READ_VARIABLE", "VAR_HANDLE"}
    assert {name.split()[0] for name in DRAWN} | moved | weighted | variables == set(KINDS)


def test_splits_have_the_sizes_of_their_outputs():
    net = NetworkBuilder("split")
    x = net.input((1, 6), scale=0.1)
    first = net.op("SPLIT", i32(1), x, num_splits=2, shape=(1, 3))
    network = net.build(first)
    (op,) = network.ops
    second = net._add("second", (1, 3), "int8", x.quantization)
    object.__setattr__(op, "outputs", (first, second))
    codes = np.arange(6, dtype=np.int8)[None]
    found = run(net.build(first, second), [codes])
    assert [found[t.index].tolist() for t in (first, second)] == [[[0, 1, 2]], [[3, 4, 5]]]


def masked(**masks):
    net = NetworkBuilder("slice")
    x = net.input((4,), scale=0.1)
    return net.build(net.op("STRIDED_SLICE", x, i32(0), i32(2), i32(1), shape=(2,), **masks))


def test_slices_that_litert_does_not_make_of_int8_are_refused():
    with pytest.raises(ConfigError, match=r"new_axis_mask of 'strided_slice' must be 0, got 1"):
        run(masked(new_axis_mask=1), [np.zeros(4, np.int8)])
