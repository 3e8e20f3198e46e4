# SPDX-License-Identifier: Apache-2.0
"""How each kind of ONNX node is added to a network; see `npusim.formats.onnx`.

Source: [ONNX] operators.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from npusim.errors import ConfigError
from npusim.formats.onnx_graph import (
    CODE_MAX,
    TO_NHWC,
    Constant,
    Node,
    activation,
    batch_norm,
    text,
)
from npusim.tensor import Quantization, Tensor

if TYPE_CHECKING:
    from npusim.formats.onnx import Reader


def _steps(node: Node) -> tuple[list[int], dict[str, Any]]:
    strides = list(node.attributes.get("strides", [1, 1]))
    return strides, {"stride_h": strides[0], "stride_w": strides[1]}


def _conv(reader: Reader, node: Node) -> Tensor:
    ifm = reader.map(node.inputs[0])
    shape = reader.values(node.inputs[1]).shape
    if len(shape) != 4 or len(ifm.shape) != 4:
        raise ConfigError(f"convolutions must have 2 axes, got weights {shape}")
    strides, attributes = _steps(node)
    dilations = node.attributes.get("dilations", [1, 1])
    groups, depth = node.attributes.get("group", 1), shape[0]
    by_channel = groups > 1 and groups == ifm.shape[3]
    order, axis = ((1, 2, 3, 0), 3) if by_channel else (TO_NHWC, 0)
    ifm, padding = reader.padded(node, ifm, list(shape[2:]), strides)
    weights = reader.weights(node.inputs[1], order, axis)
    bias = reader.bias(node, 2, ifm, weights, depth)
    if by_channel:
        attributes["depth_multiplier"] = depth // groups
    return reader.net.op(
        "DEPTHWISE_CONV_2D" if by_channel else "CONV_2D",
        *(ifm, weights, bias),
        name=node.name,
        padding=padding,
        dilation_h=dilations[0],
        dilation_w=dilations[1],
        fused_activation=node.fused,
        **attributes,
        **reader.grid(node, ifm),
    )


def _conv_transpose(reader: Reader, node: Node) -> Tensor:
    ifm = reader.map(node.inputs[0])
    weights = reader.weights(node.inputs[1], (1, 2, 3, 0), 0)
    strides, attributes = _steps(node)
    depth, *kernel, _ = weights.shape
    extra = node.attributes.get("output_padding", [0, 0])
    pads = node.attributes.get("pads", [0, 0, 0, 0])
    allowed: dict[str, Any] = {"group": 1, "dilations": [1, 1], "auto_pad": b"NOTSET"}
    for what, given in allowed.items():
        if node.attributes.get(what, given) != given:
            raise ConfigError(f"{what} must be {given!r}, got {node.attributes[what]!r}")
    lengths = [
        (ifm.shape[1 + i] - 1) * strides[i] + kernel[i] + extra[i] - pads[i] - pads[i + 2]
        for i in (0, 1)
    ]
    over = [max(kernel[i] - strides[i], 0) for i in (0, 1)]
    if lengths == [ifm.shape[1 + i] * strides[i] for i in (0, 1)] and pads[:2] == [
        each // 2 for each in over
    ]:
        padding = "SAME"
    elif not any(pads) and not any(extra):
        padding = "VALID"
    else:
        raise ConfigError(f"pads must be those of SAME or VALID, got {pads} and {extra}")
    shape = np.array([ifm.shape[0], *lengths, depth], np.int32)
    bias = reader.bias(node, 2, ifm, weights, depth)
    options: dict[str, Any] = {"padding": padding, "fused_activation": node.fused, **attributes}
    operands = (shape, weights, ifm, bias)
    return reader.net.op(
        "TRANSPOSE_CONV", *operands, name=node.name, **options, **reader.grid(node, ifm)
    )


def _dense(reader: Reader, node: Node) -> Tensor:
    """Gemm, and MatMul with constant weights."""
    name = node.inputs[0]
    ifm = reader.map(name, in_order=False)
    for what in ("alpha", "beta"):
        if node.attributes.get(what, 1.0) != 1.0:
            raise ConfigError(f"{what} must be 1, got {node.attributes[what]}")
    if node.attributes.get("transA", 0):
        raise ConfigError("transA must be 0, got 1")
    order = (0, 1) if node.attributes.get("transB", 0) else (1, 0)
    shape = reader.values(node.inputs[1]).shape
    if len(shape) != 2:
        raise ConfigError(f"weights must have 2 axes, got {shape}")
    columns = None
    if name in reader.flattened:  # of the weights: from [C, H, W] to [H, W, C]
        depth, height, width = reader.flattened[name]
        numbers = np.arange(depth * height * width).reshape(depth, height, width)
        columns = numbers.transpose(1, 2, 0).ravel()
    weights = reader.weights(node.inputs[1], order, 0, columns)
    bias = reader.bias(node, 2, ifm, weights, weights.shape[0])
    keep: dict[str, Any] = {"keep_num_dims": len(ifm.shape) > 2, "fused_activation": node.fused}
    operands = (ifm, weights, bias)
    return reader.net.op(
        "FULLY_CONNECTED", *operands, name=node.name, **keep, **reader.grid(node, ifm)
    )


def _elementwise(kind: str) -> Callable[[Reader, Node], Tensor]:
    def rule(reader: Reader, node: Node) -> Tensor:
        maps = [name for name in node.inputs if name not in reader.graph.constants]
        if not maps:
            raise ConfigError("one input must be a map, got constants")
        rank = max(len(reader.map(name).shape) for name in maps)
        operands = [
            reader.map(name) if name in maps else _operand(reader, name, rank)
            for name in node.inputs
        ]
        grid = reader.grid(node, reader.map(maps[0]))
        return reader.net.op(kind, *operands, name=node.name, fused_activation=node.fused, **grid)

    return rule


def _operand(reader: Reader, name: str, rank: int) -> Tensor:
    """A constant beside a map of 4 axes has its channels last, too; it has one scale."""
    constant = reader.graph.constants[name]
    values = constant.values
    if constant.scales is not None:
        values = values * constant.scales.reshape(-1)[0]
    if rank == 4:
        values = values.reshape(*(1,) * (4 - values.ndim), *values.shape).transpose(TO_NHWC)
    largest = float(np.abs(values).max())
    scale = max(largest / CODE_MAX, float(np.finfo(np.float32).tiny))
    codes = np.rint(values / scale).astype(np.int8)
    return reader.net.constant(np.atleast_1d(codes), scales=scale, name=name)


def _pool(reader: Reader, node: Node) -> Tensor:
    ifm = reader.map(node.inputs[0])
    strides, attributes = _steps(node)
    kernel, maximum = list(node.attributes["kernel_shape"]), node.kind == "MaxPool"
    if node.attributes.get("dilations", [1, 1]) != [1, 1]:
        raise ConfigError(f"dilations must be 1, got {node.attributes['dilations']}")
    before = ifm
    ifm, padding = reader.padded(node, ifm, kernel, strides, lowest=maximum)
    counted = bool(node.attributes.get("count_include_pad", 0))
    if (
        not maximum
        and (ifm is not before) != counted
        and padding + str(ifm is before) != "VALIDTrue"
    ):
        raise ConfigError("margins of an average must be those of SAME and not count, got others")
    return reader.net.op(
        "MAX_POOL_2D" if maximum else "AVERAGE_POOL_2D",
        ifm,
        name=node.name,
        filter_h=kernel[0],
        filter_w=kernel[1],
        padding=padding,
        **attributes,
    )


def _global_average(reader: Reader, node: Node) -> Tensor:
    ifm = reader.map(node.inputs[0])
    axes = np.array([1, 2], np.int32)
    return reader.net.op(
        "MEAN", ifm, axes, name=node.name, keep_dims=True, **reader.grid(node, ifm)
    )


def _reduce_mean(reader: Reader, node: Node) -> Tensor:
    ifm = reader.map(node.inputs[0])
    axes = node.attributes.get("axes")
    if axes is None and len(node.inputs) > 1:
        axes = reader.values(node.inputs[1]).ravel().tolist()
    keep = bool(node.attributes.get("keepdims", 1))
    wanted = sorted(axis % len(ifm.shape) for axis in axes or ())
    if len(ifm.shape) != 4 or wanted != [2, 3]:
        raise ConfigError(f"means must be over height and width, got axes {axes}")
    return reader.net.op(
        "MEAN",
        *(ifm, np.array([1, 2], np.int32)),
        name=node.name,
        keep_dims=keep,
        **reader.grid(node, ifm),
    )


def _clamp(reader: Reader, node: Node) -> Tensor:
    kind = activation(reader.graph, node)
    if kind == "NONE":
        raise ConfigError("ends of a clip must be 0 and 6, 0 and none, or -1 and 1, got others")
    ifm = reader.map(node.inputs[0], in_order=False)
    if node.inputs[0] in reader.flattened:
        reader.flattened[node.outputs[0]] = reader.flattened[node.inputs[0]]
    return reader.net.op(kind, ifm, name=node.name, **reader.grid(node, ifm))


def _leaky(reader: Reader, node: Node) -> Tensor:
    ifm = reader.map(node.inputs[0])
    alpha = float(node.attributes.get("alpha", 0.01))
    return reader.net.op("LEAKY_RELU", ifm, name=node.name, alpha=alpha, **reader.grid(node, ifm))


def _prelu(reader: Reader, node: Node) -> Tensor:
    ifm = reader.map(node.inputs[0])
    slopes = _operand(reader, node.inputs[1], len(ifm.shape))
    return reader.net.op("PRELU", ifm, slopes, name=node.name, **reader.grid(node, ifm))


def _fixed(kind: str, scale: float, zero_point: int) -> Callable[[Reader, Node], Tensor]:
    """Functions whose result has a grid of its own in TFLite."""

    def rule(reader: Reader, node: Node) -> Tensor:
        ifm = reader.map(node.inputs[0])
        last = node.attributes.get("axis", -1) % len(ifm.shape) == len(ifm.shape) - 1
        if kind == "SOFTMAX" and (len(ifm.shape) == 4 or not last):
            raise ConfigError(
                "softmax must be over the channels of a map without height, got another"
            )
        extra: dict[str, Any] = {"beta": 1.0} if kind == "SOFTMAX" else {}
        return reader.net.op(kind, ifm, name=node.name, scale=scale, zero_point=zero_point, **extra)

    return rule


def _concat(reader: Reader, node: Node) -> Tensor:
    maps = [reader.map(name) for name in node.inputs]
    axis = node.attributes["axis"] % len(maps[0].shape)
    grid = reader.grid(node, maps[0])
    wanted = Quantization.of(grid["scale"], grid["zero_point"])
    same = [
        each
        if each.quantization == wanted
        else reader.net.op("QUANTIZE", each, name=f"{node.name}.quantize", **grid)
        for each in maps
    ]
    axis = TO_NHWC.index(axis) if len(maps[0].shape) == 4 else axis
    return reader.net.op("CONCATENATION", *same, name=node.name, axis=axis)


def _reshape(reader: Reader, node: Node) -> Tensor:
    """Reshape, Flatten, Squeeze and Unsqueeze, by what shape comes out."""
    ifm = reader.map(node.inputs[0])
    shape = list(ifm.shape)
    if len(shape) == 4:
        shape = [shape[0], shape[3], shape[1], shape[2]]
    wanted = _new_shape(reader, node, shape)
    if len(shape) == 4 and len(wanted) == 2 and wanted[0] == shape[0]:
        if shape[2] * shape[3] > 1:
            reader.flattened[node.outputs[0]] = tuple(shape[1:])
    elif 4 in (len(shape), len(wanted)) and shape != wanted:
        raise ConfigError(f"shapes must have fewer than 4 axes or be flattened, got {wanted}")
    new = np.array(wanted, np.int32)
    return reader.net.op("RESHAPE", ifm, new, name=node.name, new_shape=wanted)


def _new_shape(reader: Reader, node: Node, shape: list[int]) -> list[int]:
    if node.kind == "Flatten":
        at = node.attributes.get("axis", 1)
        return [math.prod(shape[:at]), math.prod(shape[at:])]
    if node.kind == "Reshape":
        given = reader.values(node.inputs[1]).ravel().tolist()
        wanted = [shape[i] if length == 0 else int(length) for i, length in enumerate(given)]
        if -1 in wanted:
            known = -math.prod(wanted)
            wanted[wanted.index(-1)] = math.prod(shape) // known
        return wanted
    axes = node.attributes.get("axes")
    if axes is None and len(node.inputs) > 1:
        axes = reader.values(node.inputs[1]).ravel().tolist()
    if node.kind == "Squeeze":
        dropped = (
            {i for i, n in enumerate(shape) if n == 1}
            if axes is None
            else {axis % len(shape) for axis in axes}
        )
        return [length for i, length in enumerate(shape) if i not in dropped]
    wanted, added = list(shape), axes or ()
    for axis in sorted(axis % (len(shape) + len(added)) for axis in added):
        wanted.insert(axis, 1)
    return wanted


def _transpose(reader: Reader, node: Node) -> Tensor:
    ifm = reader.map(node.inputs[0])
    order = list(node.attributes.get("perm", range(len(ifm.shape))[::-1]))
    if len(order) == 4:
        order = [TO_NHWC.index(order[axis]) for axis in TO_NHWC]
    return reader.net.op("TRANSPOSE", ifm, np.array(order, np.int32), name=node.name)


def _pad(reader: Reader, node: Node) -> Tensor:
    ifm = reader.map(node.inputs[0])
    pads = node.attributes.get("pads")
    if pads is None:
        pads = reader.values(node.inputs[1]).ravel().tolist()
    value = node.attributes.get("value", 0.0)
    if len(node.inputs) > 2 and node.inputs[2]:
        value = float(reader.values(node.inputs[2]).reshape(()))
    if text(node.attributes.get("mode", b"constant")) != "constant" or value != 0:
        raise ConfigError("margins must be zeros, got others")
    half = len(pads) // 2
    margins = np.array(list(zip(pads[:half], pads[half:], strict=True)), np.int32)
    if half == 4:
        margins = margins[list(TO_NHWC)]
    return reader.net.op("PAD", ifm, margins, name=node.name)


def _resize(reader: Reader, node: Node) -> Tensor:
    ifm = reader.map(node.inputs[0])
    if len(node.inputs) > 3 and node.inputs[3]:
        size = reader.values(node.inputs[3])[2:]
    else:
        scales = reader.values(node.inputs[1 if node.kind == "Upsample" else 2])
        size = np.floor(np.array(ifm.shape[1:3]) * scales[2:])
    mode = text(node.attributes.get("mode", b"nearest"))
    kinds = {"nearest": "RESIZE_NEAREST_NEIGHBOR", "linear": "RESIZE_BILINEAR"}
    where = text(node.attributes.get("coordinate_transformation_mode", b"half_pixel"))
    where = "asymmetric" if node.kind == "Upsample" else where
    flags: dict[str, dict[str, Any]] = {
        "asymmetric": {},
        "half_pixel": {"half_pixel_centers": True},
        "pytorch_half_pixel": {"half_pixel_centers": True},
        "align_corners": {"align_corners": True},
    }
    if mode not in kinds or where not in flags:
        raise ConfigError(f"a resize must be nearest or linear, got {mode}, {where}")
    size = np.asarray(size, np.int32)
    return reader.net.op(kinds[mode], ifm, size, name=node.name, **flags[where])


def _batch_norm(reader: Reader, node: Node) -> Tensor:
    """Where no convolution is before it: a factor and a shift for each channel."""
    ifm = reader.map(node.inputs[0])
    factor, shift = batch_norm(reader.graph, node)
    names = [f"{node.name}.weights", f"{node.name}.bias"]
    reader.graph.constants[names[0]] = Constant(factor.reshape(-1, 1, 1, 1))
    reader.graph.constants[names[1]] = Constant(shift)
    weights = reader.weights(names[0], (1, 2, 3, 0), 3)
    plain = Node("Conv", node.name, [node.inputs[0], *names], node.outputs, {})
    bias = reader.bias(plain, 2, ifm, weights, factor.size)
    operands = (ifm, weights, bias)
    return reader.net.op(
        "DEPTHWISE_CONV_2D",
        *operands,
        name=node.name,
        depth_multiplier=1,
        **reader.grid(node, ifm),
    )


def _depth_to_space(reader: Reader, node: Node) -> Tensor:
    if text(node.attributes.get("mode", b"DCR")) != "DCR":
        raise ConfigError("mode must be DCR, got CRD")
    ifm = reader.map(node.inputs[0])
    return reader.net.op(
        "DEPTH_TO_SPACE", ifm, name=node.name, block_size=node.attributes["blocksize"]
    )


RULES: Final[dict[str, Callable[[Reader, Node], Tensor]]] = {
    **dict.fromkeys(("AveragePool", "MaxPool"), _pool),
    **dict.fromkeys(("Clip", "Relu"), _clamp),
    **dict.fromkeys(("Flatten", "Reshape", "Squeeze", "Unsqueeze"), _reshape),
    **dict.fromkeys(("Gemm", "MatMul"), _dense),
    **dict.fromkeys(("Resize", "Upsample"), _resize),
    "Add": _elementwise("ADD"),
    "BatchNormalization": _batch_norm,
    "Concat": _concat,
    "Conv": _conv,
    "ConvTranspose": _conv_transpose,
    "DepthToSpace": _depth_to_space,
    "GlobalAveragePool": _global_average,
    "LeakyRelu": _leaky,
    "Mul": _elementwise("MUL"),
    "PRelu": _prelu,
    "Pad": _pad,
    "ReduceMean": _reduce_mean,
    "Sigmoid": _fixed("LOGISTIC", 1 / 256, -128),
    "Softmax": _fixed("SOFTMAX", 1 / 256, -128),
    "Sub": _elementwise("SUB"),
    "Tanh": _fixed("TANH", 1 / 128, 0),
    "Transpose": _transpose,
}
"""How each kind of node is added to a network."""
