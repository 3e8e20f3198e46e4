# SPDX-License-Identifier: Apache-2.0
"""Which operations Arm's compiler gives to the NPU, and which it leaves to the CPU.

Source: [VELA] the operator constraints that regor 5.2.0 prints for Ethos-U55 and U65.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from npusim.network import Attribute, Op
from npusim.tensor import Tensor

STRIDE_MAX: Final = 3
"""Largest stride of the hardware."""
DTYPES: Final = ("int8", "uint8", "int16", "int32", "int64")
"""Data types of feature maps that can be on the NPU at all."""

_OPERANDS: Final[dict[str, tuple[int, ...]]] = {
    "SPLIT": (1,),
    "TRANSPOSE_CONV": (2,),
    **dict.fromkeys(("ADD", "SUB", "MUL", "MINIMUM", "MAXIMUM", "SQUARED_DIFFERENCE"), (0, 1)),
    "BATCH_MATMUL": (0, 1),
}
_ALL_ARE_OPERANDS: Final = ("CONCATENATION", "PACK")
_WITH_32_BITS: Final = (
    *("ADD", "SUB", "MUL", "NEG", "SUM", "ARG_MAX", "TRANSPOSE", "MIRROR_PAD"),
    *("BATCH_MATMUL", "FULLY_CONNECTED", "RESHAPE", "SQUEEZE", "EXPAND_DIMS"),
)
_WITH_64_BITS: Final = ("ARG_MAX",)
_UNQUANTIZED: Final = (
    *("ARG_MAX", "MIRROR_PAD", "QUANTIZE", "TRANSPOSE", "PAD", "PADV2", "EXPAND_DIMS"),
)
_ANY_ZERO_POINT: Final = (
    *("AVERAGE_POOL_2D", "RESIZE_BILINEAR", "RESIZE_NEAREST_NEIGHBOR"),
    "UNIDIRECTIONAL_SEQUENCE_LSTM",
)
_BY_CHANNEL: Final = (
    *("CONV_2D", "DEPTHWISE_CONV_2D", "TRANSPOSE_CONV", "FULLY_CONNECTED"),
    "UNIDIRECTIONAL_SEQUENCE_LSTM",
)


def npu_obstacle(op: Op) -> str | None:
    """Why Arm's compiler leaves an operation to the CPU.

    Args:
        op: of any kind.

    Returns:
        A rule and what breaks it, or None where the NPU executes the operation.
    """
    from npusim.cost.placement_rules import RULES

    if op.kind not in RULES:
        return f"kind must be one that the NPU executes, got {op.kind}"
    obstacle = _feature_maps(op)
    for rule in RULES[op.kind]:
        obstacle = obstacle or rule(op)
    return obstacle


def operands(op: Op) -> tuple[Tensor | None, ...]:
    """The inputs of an operation that are feature maps or, element by element, constants."""
    if op.kind in _ALL_ARE_OPERANDS:
        return op.inputs
    return tuple(
        op.inputs[position] if position < len(op.inputs) else None
        for position in _OPERANDS.get(op.kind, (0,))
    )


def maps(op: Op) -> tuple[Tensor, Tensor]:
    """Ifm and ofm of an operation that has them."""
    ifm, ofm = op.ifm, op.ofm
    assert ifm is not None
    assert ofm is not None
    return ifm, ofm


def integers(op: Op, *names: str) -> tuple[int, ...]:
    """Attributes that are numbers, 1 where the file does not say."""
    return tuple(_integer(op.attributes.get(name, 1)) for name in names)


def same_padding(extent: int, kernel: int, stride: int, dilation: int) -> int:
    """Rows or columns that padding SAME adds on both sides together."""
    return max((-(-extent // stride) - 1) * stride + (kernel - 1) * dilation + 1 - extent, 0)


def effective_strides(op: Op) -> tuple[int, int]:
    """Strides (height, width) of a window, 1 along axes on which the ofm has one element."""
    strides = integers(op, "stride_h", "stride_w")
    height, width = (
        1 if extent == 1 else stride
        for extent, stride in zip(maps(op)[1].shape[1:3], strides, strict=True)
    )
    return height, width


def reduced_axes(op: Op) -> tuple[int, ...]:
    """Axes that a reduction takes together, from 0; none if they are not constant."""
    axes = op.inputs[1] if len(op.inputs) > 1 else None
    if axes is None or axes.data is None or op.ifm is None:
        return ()
    rank = len(op.ifm.shape)
    return tuple(sorted({int(axis) % rank for axis in axes.data.ravel()}))


def spatial_shape(shape: tuple[int, ...]) -> tuple[int, int, int]:
    """(height, width, depth) of a map of at most 4 axes."""
    height, width, depth = (1, 1, *shape)[-3:]
    return height, width, depth


def _integer(value: Attribute) -> int:
    assert isinstance(value, int)
    return value


def _roles(op: Op) -> Iterator[tuple[str, Tensor | None]]:
    for number, tensor in enumerate(operands(op)):
        yield f"ifm{number + 1}" if number else "ifm", tensor
    for number, tensor in enumerate(op.outputs or (None,)):
        yield f"ofm{number + 1}" if number else "ofm", tensor


def _feature_maps(op: Op) -> str | None:
    """Rules for the feature maps of all kinds."""
    for role, tensor in _roles(op):
        if tensor is None:
            return f"{role} must be there, got none"
        if not tensor.shape and tensor.data is None:
            return f"{role} must have a shape, got {tensor!s}"
        if tensor.dtype not in DTYPES:
            return f"{role} must be of {', '.join(DTYPES)}, got {tensor!s}"
        obstacle = _bits(op, role, tensor) or _quantization(op, role, tensor)
        if obstacle:
            return obstacle
    return None


def _bits(op: Op, role: str, tensor: Tensor) -> str | None:
    if tensor.dtype == "int64" and op.kind not in _WITH_64_BITS:
        return f"{role} must have at most 32 bits, got {tensor!s}"
    if tensor.dtype == "int32" and op.kind not in _WITH_32_BITS:
        return f"{role} must be of int8, uint8 or int16, got {tensor!s}"
    return None


def _quantization(op: Op, role: str, tensor: Tensor) -> str | None:
    quantization = tensor.quantization
    if quantization is None:
        if op.kind in _UNQUANTIZED:
            return None
        return f"{role} must be quantized, got {tensor!s}"
    if quantization.scales.size > 1 and op.kind not in _BY_CHANNEL:
        return f"{role} must have one scale, got {quantization.scales.size}"
    if op.kind in _ANY_ZERO_POINT:
        return None
    points = quantization.zero_points
    if tensor.dtype == "int32" and points.any():
        return f"zero point of an {role} of int32 must be 0, got {points[0]}"
    if tensor.dtype == "uint8" and points.min() < 0:
        return f"zero point of an {role} of uint8 must be at least 0, got {points.min()}"
    return None
