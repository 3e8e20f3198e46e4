# SPDX-License-Identifier: Apache-2.0
"""Shapes of output feature maps, from the inputs and attributes of an operation."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Final, TypeAlias

import numpy as np

from npusim._arguments import choice
from npusim.errors import ConfigError
from npusim.network import INPUT_ROLES, Attribute
from npusim.tensor import Tensor

Shape: TypeAlias = tuple[int, ...]
_Inputs: TypeAlias = Sequence[Tensor | None]
_Attributes: TypeAlias = Mapping[str, Attribute]


def ofm_shape(kind: str, inputs: _Inputs, attributes: _Attributes) -> Shape:
    """Shape of the (single) ofm of an operation of one of `SHAPE_KINDS`.

    Args:
        kind: such as "CONV_2D".
        inputs: as of `Op.inputs`; those that fix the shape must be constant.
        attributes: as of `Op.attributes`.

    Raises:
        UnknownNameError: no rule for `kind`.
        ConfigError: the inputs do not fit each other or the attributes.

    >>> x = Tensor(0, "x", (1, 9, 9, 3), "int8")
    >>> pool = {"filter_h": 2, "filter_w": 2, "stride_h": 2, "stride_w": 2, "padding": "VALID"}
    >>> ofm_shape("MAX_POOL_2D", [x], pool)
    (1, 4, 4, 3)
    """
    choice("kind with a rule for its shape", kind, SHAPE_KINDS)
    try:
        shape = _RULES[kind](kind, inputs, attributes)
    except (IndexError, ValueError) as error:
        if isinstance(error, ConfigError):
            raise
        shapes = [tensor and tensor.shape for tensor in inputs]
        raise ConfigError(f"inputs of {kind} must fit each other, got {shapes}") from None
    if min(shape, default=1) < 1:
        shapes = [tensor and tensor.shape for tensor in inputs]
        raise ConfigError(f"ofm of {kind} must not be empty, got {shape} from inputs {shapes}")
    return shape


def _input(kind: str, inputs: _Inputs, role: str) -> Tensor:
    roles = INPUT_ROLES.get(kind, ("ifm", "parameter"))
    position = roles.index(role)
    tensor = inputs[position] if position < len(inputs) else None
    if tensor is None:
        raise ConfigError(f"{kind} must have {role} as input {position}, got none")
    return tensor


def _constant(kind: str, inputs: _Inputs, role: str) -> list[int]:
    tensor = _input(kind, inputs, role)
    if tensor.data is None and tensor.n_elements:
        raise ConfigError(f"{role} of {kind} must be constant, got {tensor!s}")
    return [] if tensor.data is None else [int(value) for value in tensor.data.ravel()]


def _integer(attributes: _Attributes, name: str) -> int:
    value = attributes[name]
    assert isinstance(value, int)
    return value


def _windows(attributes: _Attributes, ifm: Tensor, kernel: tuple[int, int]) -> tuple[int, int]:
    """Positions along H and W of a window of `kernel` elements on an ifm [N, H, W, C]."""
    _, *lengths, _ = ifm.shape
    positions = []
    for axis, length, size in zip("hw", lengths, kernel, strict=True):
        stride = _integer(attributes, f"stride_{axis}")
        span = (size - 1) * int(attributes.get(f"dilation_{axis}", 1)) + 1  # type: ignore[arg-type]
        free = length - span if attributes["padding"] == "VALID" else length - 1
        positions.append(free // stride + 1)
    return positions[0], positions[1]


def _conv(kind: str, inputs: _Inputs, attributes: _Attributes) -> Shape:
    ifm, weights = _input(kind, inputs, "ifm"), _input(kind, inputs, "weights")
    height, width = weights.shape[1:3]
    depth = weights.shape[3 if kind == "DEPTHWISE_CONV_2D" else 0]
    step = weights.shape[3] if kind == "CONV_2D" else 1
    if ifm.shape[3] % step or (kind == "DEPTHWISE_CONV_2D" and depth % ifm.shape[3]):
        raise ConfigError(
            f"weights of {kind} must fit the ifm depth {ifm.shape[3]}, got {weights.shape}"
        )
    return (ifm.shape[0], *_windows(attributes, ifm, (height, width)), depth)


def _pool(kind: str, inputs: _Inputs, attributes: _Attributes) -> Shape:
    ifm = _input(kind, inputs, "ifm")
    kernel = (_integer(attributes, "filter_h"), _integer(attributes, "filter_w"))
    return (ifm.shape[0], *_windows(attributes, ifm, kernel), ifm.shape[3])


def _transpose_conv(kind: str, inputs: _Inputs, attributes: _Attributes) -> Shape:
    ifm, weights = _input(kind, inputs, "ifm"), _input(kind, inputs, "weights")
    shape = tuple(_constant(kind, inputs, "ofm_shape"))
    ofm = Tensor(0, "", shape, ifm.dtype)
    expected = (ifm.shape[0], *ifm.shape[1:3], weights.shape[0])
    if (shape[0], *_windows(attributes, ofm, weights.shape[1:3]), shape[3]) != expected:  # type: ignore[arg-type]
        raise ConfigError(
            f"ofm_shape of {kind} must fit an ifm {ifm.shape} and weights {weights.shape}, "
            f"got {shape}"
        )
    return shape


def _fully_connected(kind: str, inputs: _Inputs, attributes: _Attributes) -> Shape:
    ifm, weights = _input(kind, inputs, "ifm"), _input(kind, inputs, "weights")
    ofm_depth, ifm_depth = weights.shape
    if ifm.n_elements % ifm_depth:
        raise ConfigError(
            f"weights of {kind} must fit the {ifm.n_elements} values of the ifm, "
            f"got {weights.shape}"
        )
    if attributes["keep_num_dims"]:
        return (*ifm.shape[:-1], ofm_depth)
    return (ifm.n_elements // ifm_depth, ofm_depth)


def _same(kind: str, inputs: _Inputs, attributes: _Attributes) -> Shape:
    return _input(kind, inputs, "ifm").shape


def _broadcast(kind: str, inputs: _Inputs, attributes: _Attributes) -> Shape:
    return np.broadcast_shapes(*(tensor.shape for tensor in inputs if tensor is not None))


def _concatenation(kind: str, inputs: _Inputs, attributes: _Attributes) -> Shape:
    shapes = [list(tensor.shape) for tensor in inputs if tensor is not None]
    axis = range(len(shapes[0]))[_integer(attributes, "axis")]
    length = sum(shape[axis] for shape in shapes)
    for shape in shapes:
        shape[axis] = length
    if any(shape != shapes[0] for shape in shapes):
        raise ConfigError(f"inputs of {kind} must differ along axis {axis} only, got {shapes}")
    return tuple(shapes[0])


def _reshape(kind: str, inputs: _Inputs, attributes: _Attributes) -> Shape:
    ifm = _input(kind, inputs, "ifm")
    if len(inputs) > 1:
        wanted = _constant(kind, inputs, "parameter")
    else:
        wanted = list(attributes["new_shape"])  # type: ignore[arg-type]
    known = math.prod(length for length in wanted if length != -1)
    if -1 in wanted and known:
        wanted[wanted.index(-1)] = ifm.n_elements // known
    if math.prod(wanted) != ifm.n_elements:
        raise ConfigError(
            f"new shape of {kind} must keep the {ifm.n_elements} values of the ifm, got {wanted}"
        )
    return tuple(wanted)


def _pad(kind: str, inputs: _Inputs, attributes: _Attributes) -> Shape:
    lengths = _input(kind, inputs, "ifm").shape
    paddings = _constant(kind, inputs, "parameter")
    before_and_after = zip(lengths, paddings[::2], paddings[1::2], strict=True)
    return tuple(length + before + after for length, before, after in before_and_after)


def _reduce(kind: str, inputs: _Inputs, attributes: _Attributes) -> Shape:
    shape = _input(kind, inputs, "ifm").shape
    axes = {range(len(shape))[axis] for axis in _constant(kind, inputs, "parameter")}
    if attributes["keep_dims"]:
        return tuple(1 if axis in axes else length for axis, length in enumerate(shape))
    return tuple(length for axis, length in enumerate(shape) if axis not in axes)


def _transpose(kind: str, inputs: _Inputs, attributes: _Attributes) -> Shape:
    shape = _input(kind, inputs, "ifm").shape
    return tuple(shape[axis] for axis in _constant(kind, inputs, "parameter"))


def _resize(kind: str, inputs: _Inputs, attributes: _Attributes) -> Shape:
    batch, _, _, depth = _input(kind, inputs, "ifm").shape
    height, width = _constant(kind, inputs, "parameter")
    return batch, height, width, depth


def _depth_to_space(kind: str, inputs: _Inputs, attributes: _Attributes) -> Shape:
    batch, height, width, depth = _input(kind, inputs, "ifm").shape
    size = _integer(attributes, "block_size")
    if kind == "SPACE_TO_DEPTH":
        return batch, height // size, width // size, depth * size * size
    return batch, height * size, width * size, depth // (size * size)


_RULES: Final[Mapping[str, Callable[[str, _Inputs, _Attributes], Shape]]] = {
    **dict.fromkeys(("CONV_2D", "DEPTHWISE_CONV_2D"), _conv),
    **dict.fromkeys(("AVERAGE_POOL_2D", "MAX_POOL_2D"), _pool),
    **dict.fromkeys(("ADD", "SUB", "MUL", "MAXIMUM", "MINIMUM"), _broadcast),
    **dict.fromkeys(("MEAN", "SUM", "REDUCE_MAX", "REDUCE_MIN"), _reduce),
    **dict.fromkeys(("RESIZE_BILINEAR", "RESIZE_NEAREST_NEIGHBOR"), _resize),
    **dict.fromkeys(("DEPTH_TO_SPACE", "SPACE_TO_DEPTH"), _depth_to_space),
    **dict.fromkeys(("SOFTMAX", "LOG_SOFTMAX", "LOGISTIC", "TANH", "HARD_SWISH"), _same),
    **dict.fromkeys(("RELU", "RELU6", "RELU_N1_TO_1", "LEAKY_RELU", "PRELU"), _same),
    **dict.fromkeys(("QUANTIZE", "DEQUANTIZE"), _same),
    "TRANSPOSE_CONV": _transpose_conv,
    "FULLY_CONNECTED": _fully_connected,
    "CONCATENATION": _concatenation,
    "RESHAPE": _reshape,
    **dict.fromkeys(("PAD", "PADV2"), _pad),
    "TRANSPOSE": _transpose,
}
SHAPE_KINDS: Final = tuple(_RULES)
"""Kinds whose ofm shape `ofm_shape` knows."""
