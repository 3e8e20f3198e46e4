# SPDX-License-Identifier: Apache-2.0
"""ONNX models as int8 networks: they compute what the ONNX reference evaluator does."""

from __future__ import annotations

import io
import warnings

import numpy as np
import pytest

import npusim
from npusim.errors import ConfigError, FormatError, MissingExtraError
from npusim.formats import load_bytes, onnx_rules
from npusim.formats.onnx import DEFAULT_SCALE, read
from npusim.integer import run

onnx = pytest.importorskip("onnx")

from onnx import TensorProto, helper, numpy_helper  # noqa: E402
from onnx.reference import ReferenceEvaluator  # noqa: E402

SHAPE = (1, 6, 9, 8)


def model(nodes, opset=17, **constants):
    """A model with input x; arrays in `constants` by name."""
    known = [numpy_helper.from_array(np.asarray(v), k) for k, v in constants.items()]
    graph = helper.make_graph(
        nodes,
        "graph",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, SHAPE)],
        [helper.make_tensor_value_info("y", TensorProto.UNDEFINED, None)],
        known,
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=9)


def node(kind, *inputs, output="y", **attributes):
    return helper.make_node(kind, ["x", *inputs], [output], name=f"a_{kind}", **attributes)


def ranges_of(proto, x):
    """Least and largest value of all maps for an input, by the reference evaluator."""
    every = onnx.ModelProto()
    every.CopyFrom(proto)
    del every.graph.output[:]
    names = [name for each in proto.graph.node for name in each.output]
    every.graph.output.extend(
        helper.make_tensor_value_info(name, TensorProto.UNDEFINED, None) for name in names
    )
    found = dict(zip(names, ReferenceEvaluator(every).run(None, {"x": x}), strict=True))
    return {name: (v.min(), v.max()) for name, v in found.items()} | {"x": (x.min(), x.max())}


def compare(proto, n_steps, seed=0):
    """Assert that a model's integers are what its floats are, to some steps of the result."""
    shape = tuple(axis.dim_value for axis in proto.graph.input[0].type.tensor_type.shape.dim)
    x = np.random.default_rng(seed).normal(size=shape).astype(np.float32)
    network = read(proto.SerializeToString(), ranges=ranges_of(proto, x))
    grid = network.inputs[0].quantization
    codes = np.clip(np.rint(x / grid.scales[0]) + grid.zero_points[0], -128, 127)
    rounded = ((codes - grid.zero_points[0]) * grid.scales[0]).astype(np.float32)
    (expected,) = ReferenceEvaluator(proto).run(None, {"x": rounded})
    codes = codes.astype(np.int8)
    if codes.ndim == 4:
        codes, expected = codes.transpose(0, 2, 3, 1), expected
        if expected.ndim == 4:
            expected = expected.transpose(0, 2, 3, 1)
    output = network.outputs[0]
    found = run(network, [codes])[output.index].astype(np.float64)
    grid = output.quantization
    found = (found - grid.zero_points[0]) * grid.scales[0]
    assert found.shape == expected.shape
    assert np.abs(found - expected).max() <= n_steps * grid.scales[0]
    return network


RNG = np.random.default_rng(1)


def weights(*shape):
    return (RNG.normal(size=shape) / np.sqrt(np.prod(shape[1:]))).astype(np.float32)


WINDOW = {"kernel_shape": [3, 3]}
CONV = {"w": weights(5, 6, 3, 3), "b": weights(5)}
CASES = {
    "conv": ([node("Conv", "w", "b", **WINDOW)], CONV),
    "conv with symmetric margins": (
        [node("Conv", "w", "b", pads=[1, 1, 1, 1], strides=[2, 2], **WINDOW)],
        CONV,
    ),
    "conv with margins of SAME": ([node("Conv", "w", pads=[1, 1, 1, 1], **WINDOW)], CONV),
    "conv with SAME_UPPER": (
        [node("Conv", "w", auto_pad="SAME_UPPER", strides=[2, 2], **WINDOW)],
        CONV,
    ),
    "conv with dilations": ([node("Conv", "w", dilations=[2, 2], **WINDOW)], CONV),
    "depthwise": (
        [node("Conv", "w", group=6, pads=[1, 1, 1, 1], **WINDOW)],
        {"w": weights(12, 1, 3, 3)},
    ),
    "conv transpose": ([node("ConvTranspose", "w", strides=[2, 2])], {"w": weights(6, 4, 2, 2)}),
    "conv transpose, SAME": (
        [node("ConvTranspose", "w", "b", strides=[2, 2], pads=[1, 1, 1, 1])],
        {"w": weights(6, 4, 4, 4), "b": weights(4)},
    ),
    "batch norm": (
        [node("BatchNormalization", "s", "b", "m", "v")],
        {"s": -weights(6), "b": weights(6), "m": weights(6), "v": weights(6) ** 2 + 0.5},
    ),
    "add": ([node("Add", "c")], {"c": weights(6, 1, 1)}),
    "mul": ([node("Mul", "c")], {"c": weights(1, 6, 1, 1)}),
    "sub": ([node("Sub", "x")], {}),
    "relu": ([node("Relu")], {}),
    "clip": ([node("Clip", "lo", "hi")], {"lo": np.float32(0), "hi": np.float32(6)}),
    "leaky": ([node("LeakyRelu", alpha=0.2)], {}),
    "prelu": ([node("PRelu", "s")], {"s": np.abs(weights(6, 1, 1))}),
    "sigmoid": ([node("Sigmoid")], {}),
    "tanh": ([node("Tanh")], {}),
    "max pool": ([node("MaxPool", pads=[1, 1, 1, 1], strides=[2, 2], **WINDOW)], {}),
    "average pool": ([node("AveragePool", strides=[2, 2], **WINDOW)], {}),
    "average pool, margins": (
        [node("AveragePool", pads=[1, 1, 1, 1], count_include_pad=1, strides=[2, 2], **WINDOW)],
        {},
    ),
    "average pool, SAME": ([node("AveragePool", pads=[1, 1, 1, 1], **WINDOW)], {}),
    "global pool": ([node("GlobalAveragePool")], {}),
    "mean": ([node("ReduceMean", axes=[2, 3], keepdims=0)], {}),
    "concat": ([node("Concat", "x", axis=1)], {}),
    "transpose": ([node("Transpose", perm=[0, 2, 3, 1])], {}),
    "pad": ([node("Pad", "p")], {"p": np.array([0, 0, 1, 2, 0, 0, 0, 1])}),
    "nearest": (
        [node("Resize", "", "s", mode="nearest", coordinate_transformation_mode="asymmetric",
              nearest_mode="floor")],
        {"s": np.array([1, 1, 2, 2], np.float32)},
    ),
    "bilinear": (
        [node("Resize", "", "", "s", mode="linear")],
        {"s": np.array([1, 6, 18, 16])},
    ),
    "depth to space": ([node("DepthToSpace", blocksize=1)], {}),
    "identity": ([node("Identity", output="i"), helper.make_node("Relu", ["i"], ["y"])], {}),
}  # fmt: skip


@pytest.mark.parametrize("case", CASES)
def test_nodes_compute_what_the_reference_does(case):
    nodes, constants = CASES[case]
    network = compare(model(nodes, **constants), n_steps=2)
    assert len(network.ops) >= 1


def test_classifiers_behind_flattened_maps_have_their_columns_in_order():
    nodes = [
        node("Relu", output="r"),
        helper.make_node("Flatten", ["r"], ["f"], name="flatten"),
        helper.make_node("Gemm", ["f", "w", "b"], ["g"], name="gemm", transB=1),
        helper.make_node("Relu", ["g"], ["h"], name="act"),
        helper.make_node("MatMul", ["h", "v"], ["m"], name="matmul"),
        helper.make_node("Softmax", ["m"], ["y"], name="softmax", axis=-1),
    ]
    constants = {"w": weights(7, 6 * 9 * 8), "b": weights(7), "v": weights(7, 3)}
    network = compare(model(nodes, **constants), n_steps=4)
    kinds = [op.kind for op in network.ops]
    assert kinds == ["RELU", "RESHAPE", "FULLY_CONNECTED", "FULLY_CONNECTED", "SOFTMAX"]
    assert network.ops[2].attributes["fused_activation"] == "RELU"


def test_batch_norm_and_activations_become_part_of_convolutions():
    nodes = [
        node("Conv", "w", output="c", pads=[1, 1, 1, 1], **WINDOW),
        helper.make_node("BatchNormalization", ["c", "s", "b", "m", "v"], ["n"], name="norm"),
        helper.make_node("Clip", ["n", "lo", "hi"], ["y"], name="clip"),
    ]
    norm = {"s": weights(5), "b": weights(5), "m": weights(5), "v": weights(5) ** 2 + 0.5}
    proto = model(nodes, w=CONV["w"], lo=np.float32(0), hi=np.float32(6), **norm)
    (op,) = compare(proto, n_steps=2).ops
    assert (op.kind, op.attributes["fused_activation"]) == ("CONV_2D", "RELU6")


def test_networks_of_torch_are_read():
    torch = pytest.importorskip("torch")
    torch.manual_seed(0)

    class Net(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.stem = torch.nn.Conv2d(3, 8, 3, 2, 1)
            self.norm = torch.nn.BatchNorm2d(8)
            self.depthwise = torch.nn.Conv2d(8, 8, 3, 1, 1, groups=8)
            self.up = torch.nn.ConvTranspose2d(8, 6, 2, 2)
            self.classifier = torch.nn.Linear(6 * 8 * 8, 10)

        def forward(self, x):
            x = torch.relu(self.norm(self.stem(x)))
            x = x + torch.nn.functional.relu6(self.depthwise(x))
            x = torch.nn.functional.max_pool2d(x, 3, 2, 1)
            x = torch.nn.functional.leaky_relu(self.up(x), 0.1)
            return self.classifier(x.reshape(x.shape[0], -1))

    net = Net().eval()
    net.norm.running_var.uniform_(0.5, 2)
    file = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch says that another exporter is to come
        torch.onnx.export(
            net, torch.zeros(1, 3, 16, 16), file, input_names=["x"], output_names=["y"],
            dynamo=False,
        )  # fmt: skip
    network = compare(onnx.load_model_from_string(file.getvalue()), n_steps=8)
    kinds = [op.kind for op in network.ops]
    assert kinds == [
        *("PAD", "CONV_2D", "DEPTHWISE_CONV_2D", "ADD", "PADV2", "MAX_POOL_2D", "TRANSPOSE_CONV"),
        *("LEAKY_RELU", "RESHAPE", "FULLY_CONNECTED"),
    ]
    assert network.n_weights == sum(p.numel() for p in net.parameters() if p.dim() > 1)


def quantized(uint8=False):
    """A convolution between quantizing nodes, its weights by channel."""
    shift = 128 if uint8 else 0
    points = np.uint8 if uint8 else np.int8
    codes = RNG.integers(-127, 128, (5, 6, 3, 3)).astype(np.int8)
    scales = RNG.uniform(0.001, 0.01, 5).astype(np.float32)
    constants = {
        **{"sx": np.float32(0.05), "zx": points(3 + shift), "w": codes, "sw": scales},
        **{"zw": np.zeros(5, np.int8), "sy": np.float32(0.08), "zy": points(shift - 20)},
        **{"b": RNG.integers(-500, 500, 5).astype(np.int32), "sb": np.float32(0.05) * scales},
    }
    make = helper.make_node
    nodes = [
        make("QuantizeLinear", ["x", "sx", "zx"], ["qx"], name="q1"),
        make("DequantizeLinear", ["qx", "sx", "zx"], ["dx"], name="d1"),
        make("DequantizeLinear", ["w", "sw", "zw"], ["dw"], name="d2", axis=0),
        make("DequantizeLinear", ["b", "sb"], ["db"], name="d3", axis=0),
        make("Conv", ["dx", "dw", "db"], ["c"], name="conv", kernel_shape=[3, 3]),
        make("Relu", ["c"], ["r"], name="relu"),
        make("QuantizeLinear", ["r", "sy", "zy"], ["qy"], name="q2"),
        make("DequantizeLinear", ["qy", "sy", "zy"], ["y"], name="d4"),
    ]
    return model(nodes, opset=19, **constants), constants


@pytest.mark.parametrize("uint8", [False, True])
def test_quantized_models_keep_their_codes_and_grids(uint8):
    proto, constants = quantized(uint8)
    network = read(proto.SerializeToString())
    (op,) = network.ops
    np.testing.assert_array_equal(op.weights.data, constants["w"].transpose(0, 2, 3, 1))
    np.testing.assert_array_equal(op.weights.quantization.scales, constants["sw"])
    np.testing.assert_array_equal(op.bias.data, constants["b"])
    assert op.attributes["fused_activation"] == "RELU"
    assert (op.ifm.quantization.zero_points[0], op.ofm.quantization.zero_points[0]) == (3, -20)
    x = RNG.normal(size=SHAPE).astype(np.float32)
    codes = np.clip(np.rint(x / np.float32(0.05)) + 3, -128, 127).astype(np.int8)
    found = run(network, [codes.transpose(0, 2, 3, 1)])[op.ofm.index].astype(int)
    (expected,) = ReferenceEvaluator(proto).run(None, {"x": x})
    expected = np.rint(expected.transpose(0, 2, 3, 1) / np.float32(0.08)) - 20
    assert np.abs(found - expected).max() <= 1


def test_without_ranges_all_maps_have_one_grid():
    network = read(model([node("Conv", "w", "b", **WINDOW)], **CONV).SerializeToString())
    assert {float(t.quantization.scales[0]) for t in (*network.inputs, *network.outputs)} == {
        float(np.float32(DEFAULT_SCALE))
    }


class TestLoad:
    def test_tells_the_format_by_content(self, tmp_path):
        content = model([node("Relu")]).SerializeToString()
        (tmp_path / "some.model").write_bytes(content)
        network = npusim.load(tmp_path / "some.model")
        assert (network.name, [op.kind for op in network.ops]) == ("some", ["RELU"])
        assert load_bytes(content, "a").name == "a"

    def test_commands_take_onnx(self, tmp_path, capsys):
        from npusim.cli import main

        path = tmp_path / "small.onnx"
        path.write_bytes(model([node("Conv", "w", "b", **WINDOW)], **CONV).SerializeToString())
        for command in (["estimate"], ["compress"], ["schemes", "compare"]):
            with pytest.raises(SystemExit) as exit_code:
                main([*command, str(path)])
            assert exit_code.value.code == 0, command
            assert "small" in capsys.readouterr().out

    def test_says_which_extra_is_missing(self, monkeypatch):
        import sys

        monkeypatch.setitem(sys.modules, "onnx", None)
        with pytest.raises(MissingExtraError, match=r"ONNX models must have the extra \[onnx\]"):
            load_bytes(model([node("Relu")]).SerializeToString())


def scaled(scale, point):
    constants = {"s": np.asarray(scale, np.float32), "z": np.asarray(point)}
    nodes = [node("QuantizeLinear", "s", "z", output="q"), helper.make_node("Relu", ["q"], ["y"])]
    return model(nodes, **constants)


BAD = {
    "kind": ([node("Einsum", equation="abcd->abcd")], {}, r"known kind .*, got Einsum 'a_"),
    "weights": ([node("Conv", "x", **WINDOW)], {}, "Conv 'a_Conv': input must be constant"),
    "clip": ([node("Clip", "lo")], {"lo": np.float32(1)}, r"ends of a clip must be 0 and 6"),
    "ceil": ([node("MaxPool", ceil_mode=1, **WINDOW)], {}, "ceil_mode must be 0, got 1"),
    "average": (
        [node("AveragePool", pads=[1, 1, 1, 1], strides=[2, 2], **WINDOW)],
        {},
        "margins of an average must be those of SAME",
    ),
    "transposed": (
        [node("ConvTranspose", "w", strides=[2, 2], pads=[1, 1, 1, 1])],
        {"w": weights(6, 4, 3, 3)},
        "pads must be those of SAME or VALID",
    ),
    "mean": ([node("ReduceMean", axes=[1])], {}, r"means .* height and width, got axes \[1\]"),
    "softmax": ([node("Softmax", axis=1)], {}, "softmax must be over the channels"),
    "resize": (
        [node("Resize", "", "s", mode="cubic")],
        {"s": np.ones(4, np.float32)},
        "a resize must be nearest or linear, got cubic",
    ),
    "pad": (
        [node("Pad", "p", mode="reflect")],
        {"p": np.zeros(8, np.int64)},
        "margins must be zeros, got others",
    ),
    "depth": ([node("DepthToSpace", blocksize=1, mode="CRD")], {}, "mode must be DCR, got CRD"),
    "reshape": (
        [node("Reshape", "s")],
        {"s": np.array([1, 6, 8, 9])},
        "shapes must have fewer than 4 axes or be flattened",
    ),
    "flattened": (
        [node("Flatten", output="f"), helper.make_node("Sigmoid", ["f"], ["y"], name="s")],
        {},
        r"flattened map 'f' must go to a Gemm or MatMul",
    ),
    "shapes": ([node("Add", "c")], {"c": np.ones((5, 1, 1), np.float32)}, "Add 'a_Add'"),
}  # fmt: skip


class TestRefusals:
    @pytest.mark.parametrize("case", BAD)
    def test_of_nodes_by_name(self, case):
        nodes, constants, message = BAD[case]
        with pytest.raises(FormatError, match=message):
            load_bytes(model(nodes, **constants).SerializeToString())

    def test_of_maps_by_channel(self):
        proto = scaled([0.1] * 6, np.zeros(6, np.int8))
        with pytest.raises(ConfigError, match=r"maps must have one scale, got 6 at QuantizeLinear"):
            read(proto.SerializeToString())

    def test_of_wide_codes(self):
        proto = scaled(0.1, np.int16(0))
        with pytest.raises(ConfigError, match="codes must be int8, uint8 or int32, got int16"):
            read(proto.SerializeToString())

    def test_of_content_that_is_no_model(self):
        with pytest.raises(FormatError, match="content must be an ONNX model"):
            load_bytes(b"\x08\xff\xff\xff\xff\xff\xff\xff")
        with pytest.raises(FormatError, match="ONNX model must have operations and outputs, got 0"):
            load_bytes(b"\x08\x09")


def test_kinds_are_those_of_the_cases():
    nodes = [each for each, *_ in (*CASES.values(), *BAD.values())]
    tested = {one.op_type for each in nodes for one in each}
    assert set(onnx_rules.RULES) - tested <= {"Gemm", "MatMul", "Squeeze", "Unsqueeze", "Upsample"}
