# SPDX-License-Identifier: Apache-2.0
"""Building networks: defaults, shapes of feature maps, and what is refused."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import npusim
from npusim.errors import ConfigError, UnknownNameError
from npusim.formats import tflite_schema
from npusim.network_builder import NetworkBuilder
from npusim.ofm_shape import SHAPE_KINDS, ofm_shape
from npusim.tensor import Tensor


def ifm(*shape: int) -> Tensor:
    return Tensor(0, "x", shape, "int8")


def parameter(*values: int) -> Tensor:
    data = np.array(values, np.int32)
    return Tensor(1, "p", data.shape, "int32", data=data)


def defaults(kind: str, **changes: Any) -> dict[str, Any]:
    fields = {field.name: field.initial for field in tflite_schema.fields(kind)}
    return {**fields, **changes}


@settings(derandomize=True, deadline=None, max_examples=300)
@given(
    st.integers(1, 20),
    st.integers(1, 5),
    st.integers(1, 4),
    st.integers(1, 4),
    st.sampled_from(["SAME", "VALID"]),
)
def test_windows_are_those_that_fit(
    length: int, size: int, stride: int, dilation: int, padding: str
) -> None:
    """Count the window's positions one by one."""
    span = (size - 1) * dilation + 1
    last = length - span if padding == "VALID" else length - 1
    expected = len(range(0, last + 1, stride))
    steps = {"stride_h": stride, "stride_w": 1, "dilation_h": dilation}
    attributes = defaults("CONV_2D", padding=padding, **steps)
    inputs = [ifm(2, length, 7, 3), Tensor(1, "w", (5, size, 1, 3), "int8")]
    if expected:
        assert ofm_shape("CONV_2D", inputs, attributes) == (2, expected, 7, 5)
    else:
        with pytest.raises(ConfigError, match=r"ofm of CONV_2D must not be empty"):
            ofm_shape("CONV_2D", inputs, attributes)


@pytest.mark.parametrize(
    ("kind", "inputs", "changes", "expected"),
    [
        ("DEPTHWISE_CONV_2D", [ifm(1, 4, 4, 3), ifm(1, 3, 3, 6)], {}, (1, 4, 4, 6)),
        ("CONV_2D", [ifm(1, 4, 4, 6), ifm(8, 1, 1, 3)], {}, (1, 4, 4, 8)),
        ("FULLY_CONNECTED", [ifm(2, 3, 4), ifm(5, 12)], {}, (2, 5)),
        ("FULLY_CONNECTED", [ifm(2, 3, 4), ifm(5, 4)], {"keep_num_dims": True}, (2, 3, 5)),
        ("ADD", [ifm(1, 4, 1, 3), ifm(4, 5, 1)], {}, (1, 4, 5, 3)),
        ("CONCATENATION", [ifm(1, 2, 3), ifm(1, 5, 3)], {"axis": -2}, (1, 7, 3)),
        ("RESHAPE", [ifm(2, 6), parameter(3, -1)], {}, (3, 4)),
        ("RESHAPE", [ifm(2, 6)], {"new_shape": (12,)}, (12,)),
        ("RESHAPE", [ifm(1), Tensor(1, "p", (0,), "int32")], {}, ()),
        ("PAD", [ifm(1, 2), parameter(0, 0, 3, 4)], {}, (1, 9)),
        ("MEAN", [ifm(2, 3, 4), parameter(-1, 0)], {}, (3,)),
        ("MEAN", [ifm(2, 3, 4), parameter(1)], {"keep_dims": True}, (2, 1, 4)),
        ("TRANSPOSE", [ifm(2, 3, 4), parameter(2, 0, 1)], {}, (4, 2, 3)),
        ("RESIZE_BILINEAR", [ifm(1, 2, 3, 4), parameter(5, 6)], {}, (1, 5, 6, 4)),
        ("DEPTH_TO_SPACE", [ifm(1, 2, 3, 8)], {"block_size": 2}, (1, 4, 6, 2)),
        ("SPACE_TO_DEPTH", [ifm(1, 4, 6, 2)], {"block_size": 2}, (1, 2, 3, 8)),
        ("SOFTMAX", [ifm(1, 9)], {}, (1, 9)),
    ],
)
def test_ofm_shape(
    kind: str, inputs: list[Tensor], changes: dict[str, Any], expected: tuple[int, ...]
) -> None:
    strides = {name: 1 for name in defaults(kind) if name.startswith("stride_")}
    assert ofm_shape(kind, inputs, defaults(kind, **strides, **changes)) == expected


@pytest.mark.parametrize(
    ("kind", "inputs", "changes", "message"),
    [
        ("CONV_2D", [ifm(1, 4, 4, 3), ifm(8, 1, 1, 2)], {}, r"must fit the ifm depth 3, got"),
        ("DEPTHWISE_CONV_2D", [ifm(1, 4, 4, 3), ifm(1, 1, 1, 4)], {}, r"must fit the ifm depth 3"),
        ("CONV_2D", [ifm(1, 4, 4, 3)], {}, r"CONV_2D must have weights as input 1, got none"),
        ("FULLY_CONNECTED", [ifm(2, 3), ifm(5, 4)], {}, r"must fit the 6 values of the ifm"),
        ("ADD", [ifm(2), ifm(3)], {}, r"inputs of ADD must fit each other, got \[\(2,\), \(3,\)\]"),
        ("CONCATENATION", [ifm(1, 2), ifm(2, 2)], {"axis": 1}, r"must differ along axis 1 only"),
        ("CONCATENATION", [ifm(1, 2), ifm(1, 2)], {"axis": 2}, r"must fit each other"),
        ("RESHAPE", [ifm(2, 6), parameter(5, -1)], {}, r"must keep the 12 values of the ifm, got"),
        ("PAD", [ifm(1, 2), parameter(0, 0)], {}, r"inputs of PAD must fit each other"),
        ("PAD", [ifm(1, 2), ifm(2, 2)], {}, r"parameter of PAD must be constant, got int8\[2, 2\]"),
        ("PAD", [ifm(1), parameter(0, -1)], {}, r"ofm of PAD must not be empty, got \(0,\)"),
        (
            "TRANSPOSE_CONV",
            [parameter(1, 9, 8, 4), ifm(4, 3, 3, 2), ifm(1, 4, 4, 2)],
            {"stride_h": 2, "stride_w": 2},
            r"ofm_shape of TRANSPOSE_CONV must fit an ifm \(1, 4, 4, 2\) and weights",
        ),
    ],
)
def test_ofm_shape_refuses(
    kind: str, inputs: list[Tensor], changes: dict[str, Any], message: str
) -> None:
    strides = {name: 1 for name in defaults(kind) if name.startswith("stride_")}
    with pytest.raises(ConfigError, match=message):
        ofm_shape(kind, inputs, defaults(kind, **{**strides, **changes}))


def test_kind_without_a_rule_is_named() -> None:
    with pytest.raises(UnknownNameError, match=r"kind with a rule for its shape must be one of"):
        ofm_shape("SVDF", [], {})


@pytest.mark.data
def test_shapes_of_real_models(models_dir: Path) -> None:
    seen: dict[str, int] = {}
    for path in sorted(models_dir.glob("**/*.tflite")):
        for op in npusim.load(path).ops:
            at_run_time = op.kind == "TRANSPOSE_CONV" and op.input("ofm_shape").data is None
            if op.kind in SHAPE_KINDS and not at_run_time:
                assert op.ofm is not None
                assert ofm_shape(op.kind, op.inputs, op.attributes) == op.ofm.shape, (path, op)
                seen[op.kind] = seen.get(op.kind, 0) + 1
    assert seen["CONV_2D"] >= 400
    assert seen["DEPTHWISE_CONV_2D"] >= 200
    assert len(seen) >= 15


def test_outputs_follow_the_ifm_unless_told_otherwise() -> None:
    net = NetworkBuilder("n")
    x = net.input((1, 4), scale=0.5, zero_point=3)
    same = net.op("RELU", x)
    other = net.op("QUANTIZE", same, dtype="uint8", scale=0.25, zero_point=7, name="other")
    network = net.build(other)
    assert same.quantization == x.quantization
    assert other.quantization is not None
    assert other.quantization.scales.tolist() == [0.25]
    assert (other.dtype, other.name, network.ops[1].name) == ("uint8", "other", "other")


def test_attributes_have_defaults_that_can_be_executed() -> None:
    net = NetworkBuilder("n")
    net.op("CONV_2D", net.input((1, 4, 4, 1)), np.ones((2, 3, 3, 1), np.int8), stride_w=2)
    attributes = net.build(net._tensors[-1]).ops[0].attributes
    assert attributes == {
        **{"padding": "SAME", "stride_w": 2, "stride_h": 1, "fused_activation": "NONE"},
        **{"dilation_w": 1, "dilation_h": 1, "quantized_bias_type": "float32"},
    }


def test_float_attributes_are_float32() -> None:
    net = NetworkBuilder("n")
    network = net.build(net.op("LEAKY_RELU", net.input((1, 4)), alpha=0.1))
    assert network.ops[0].attributes["alpha"] == float(np.float32(0.1))


def test_names_are_unique() -> None:
    net = NetworkBuilder("n")
    x = net.input((1, 4))
    network = net.build(net.op("RELU", net.op("RELU", x), name="relu"))
    assert [op.name for op in network.ops] == ["relu", "relu#2"]


def test_shape_given_where_no_rule_is_known() -> None:
    net = NetworkBuilder("n")
    assert net.op("TILE", net.input((1, 4)), np.array([1, 2]), shape=(1, 8)).shape == (1, 8)


def conv_with(**attributes: Any) -> Callable[[NetworkBuilder], object]:
    weights = np.ones((2, 3, 3, 1), np.int8)
    return lambda net: net.op("CONV_2D", net.input((1, 4, 4, 1)), weights, **attributes)


@pytest.mark.parametrize(
    ("step", "error", "message"),
    [
        (lambda net: net.op("CONV2D"), UnknownNameError, r"did you mean 'CONV_2D'"),
        (conv_with(stride=2), ConfigError, r"attributes of CONV_2D must be among .*, got 'stride'"),
        (conv_with(stride_h=0), ConfigError, r"stride_h of CONV_2D must be in 1..2147483647"),
        (conv_with(stride_h=1.5), ConfigError, r"stride_h of CONV_2D must be an integer, got 1.5"),
        (conv_with(padding="FULL"), UnknownNameError, r"padding of CONV_2D must be one of SAME"),
        (lambda net: net.op("RELU"), ConfigError, r"RELU must have an ifm, got 0 inputs"),
        (
            lambda net: net.op("LEAKY_RELU", net.input((1,)), alpha=float("nan")),
            ConfigError,
            r"alpha of LEAKY_RELU must be in",
        ),
        (
            lambda net: net.op("MEAN", net.input((1,)), np.array([0]), keep_dims=1),
            ConfigError,
            r"keep_dims of MEAN must be of type bool, got 1",
        ),
        (
            lambda net: net.bias([1], net.input((1,)), net.constant(np.ones(1, np.int8))),
            ConfigError,
            r"ifm and weights of a bias must be quantized",
        ),
        (
            lambda net: net.bias(
                [2**31], net.input((1,), scale=1), net.constant(np.ones(1, np.int8), scales=1)
            ),
            ConfigError,
            r"bias must fit int32, got 2147483648..2147483648",
        ),
        (
            lambda net: net.bias(
                [0.5], net.input((1,), scale=1), net.constant(np.ones(1, np.int8), scales=1)
            ),
            ConfigError,
            r"bias must hold integers, got dtype float64",
        ),
        (lambda net: net.build(), ConfigError, r"network 'n' must have an output, got none"),
    ],
)
def test_builder_refuses(
    step: Callable[[NetworkBuilder], object], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        step(NetworkBuilder("n"))
