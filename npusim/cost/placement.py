# SPDX-License-Identifier: Apache-2.0
"""Which operations with weights Arm's compiler gives to the NPU, and which it leaves to the CPU.

Source: [VELA] the operator constraints that regor 5.2.0 prints for Ethos-U55 and U65.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final

import numpy as np

from npusim.network import Attribute, Op
from npusim.tensor import Tensor

STRIDE_MAX: Final = 3
"""Largest stride of the hardware."""
_IFM_DTYPES: Final = ("int8", "uint8", "int16")
_BIAS_DTYPES: Final = ("int32", "int64")
_WEIGHT_SUM_MAX: Final = 127 << 16
_REDUCED_AXIS_LIMIT: Final = 4096
_REDUCED_ELEMENTS_MAX: Final = {"int8": 1 << 24, "uint8": 1 << 23, "int16": 1 << 16}
_MAC_KINDS: Final = ("CONV_2D", "DEPTHWISE_CONV_2D", "FULLY_CONNECTED", "TRANSPOSE_CONV")


def npu_obstacle(op: Op) -> str | None:
    """Why Arm's compiler leaves an operation that takes weights on the NPU to the CPU.

    Args:
        op: CONV_2D, DEPTHWISE_CONV_2D, FULLY_CONNECTED, TRANSPOSE_CONV, MEAN, RESIZE_BILINEAR,
            RESIZE_NEAREST_NEIGHBOR or UNIDIRECTIONAL_SEQUENCE_LSTM; of other kinds none takes any.

    Returns:
        A rule and what breaks it, or None where the NPU executes the operation.
    """
    rule = _RULES.get(op.kind)
    if rule is None:
        return f"kind must take weights on the NPU, got {op.kind}"
    return _feature_maps(op) or rule(op)


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
    """Strides (height, width) of a convolution, 1 along axes on which the ofm has one element."""
    strides = integers(op, "stride_h", "stride_w")
    height, width = (
        1 if extent == 1 else stride
        for extent, stride in zip(maps(op)[1].shape[1:3], strides, strict=True)
    )
    return height, width


def reduced_axes(op: Op) -> tuple[int, ...]:
    """Axes that MEAN reduces, from 0; none if they are not constant."""
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


def _kernel(op: Op) -> tuple[int, ...]:
    assert op.weights is not None
    return op.weights.shape[1:3]


def _feature_maps(op: Op) -> str | None:
    for role, tensor in (("ifm", op.ifm), ("ofm", op.ofm)):
        if tensor is None:
            return f"{role} must be there, got none"
        if tensor.data is not None:
            return f"{role} must not be constant, got {tensor!s}"
        if tensor.quantization is None:
            return f"{role} must be quantized, got {tensor!s}"
    assert op.ifm is not None
    if op.ifm.dtype not in _IFM_DTYPES:
        return f"ifm must be of {', '.join(_IFM_DTYPES)}, got {op.ifm!s}"
    return None


def _weights(tensor: Tensor | None) -> str | None:
    if tensor is None or tensor.data is None:
        return f"weights must be constant, got {tensor!s}"
    if tensor.dtype not in ("int8", "uint8"):
        return f"weights must have 8 bits, got {tensor!s}"
    if tensor.quantization is None:
        return f"weights must be quantized, got {tensor!s}"
    return None


def _mac(op: Op) -> str | None:
    """Rules that all convolutions and fully connected layers share."""
    bias = op.bias
    if bias is not None and (bias.data is None or bias.dtype not in _BIAS_DTYPES):
        return f"bias must be constant and of {', '.join(_BIAS_DTYPES)}, got {bias!s}"
    obstacle = _weights(op.weights)
    if obstacle:
        return obstacle
    assert op.weights is not None
    axis = 3 if op.kind == "DEPTHWISE_CONV_2D" else 0
    n_taps = op.weights.n_elements // max(op.weights.shape[axis], 1)
    if n_taps * 255 > _WEIGHT_SUM_MAX:
        ohwi = op.weights_ohwi().astype(np.int64)
        largest = int(np.abs(ohwi).sum(axis=(1, 2, 3)).max())
        if largest > _WEIGHT_SUM_MAX:
            return f"weights of a channel must add up to {_WEIGHT_SUM_MAX} at most, got {largest}"
    return None


def _conv(op: Op) -> str | None:
    dilations = integers(op, "dilation_h", "dilation_w")
    if max(effective_strides(op)) > STRIDE_MAX:
        strides = integers(op, "stride_h", "stride_w")
        extents = zip(maps(op)[0].shape[1:3], _kernel(op), strides, dilations, strict=True)
        padded = op.attributes.get("padding") == "SAME" and any(same_padding(*e) for e in extents)
        if padded or max(dilations) > 1:
            return (
                f"strides above {STRIDE_MAX} must have neither padding nor dilation, got {strides}"
            )
    return _mac(op)


def _depthwise(op: Op) -> str | None:
    strides = integers(op, "stride_h", "stride_w")
    if max(strides) > STRIDE_MAX:
        return f"strides must be in 1..{STRIDE_MAX}, got {strides}"
    return _mac(op)


def _transpose_conv(op: Op) -> str | None:
    strides = integers(op, "stride_h", "stride_w")
    flat = [i == k == 1 for i, k in zip(maps(op)[0].shape[1:3], _kernel(op), strict=True)]
    allowed = [(1, 1), (2, 2)] + [(1, 2)] * flat[0] + [(2, 1)] * flat[1]
    if strides not in allowed:
        return f"strides must be one of {allowed}, got {strides}"
    return _mac(op)


def _mean(op: Op) -> str | None:
    ifm = maps(op)[0]
    shape, axes = ifm.shape, reduced_axes(op)
    if not axes:
        return "axes must be constant, got none"
    if len(shape) > 4 or (len(shape) == 4 and shape[0] != 1):
        return f"batch must be 1, got shape {shape}"
    if len(shape) - 1 in axes and shape[-1] > 1 and 1 not in spatial_shape(shape):
        return f"height, width or depth must be 1 to reduce depth, got shape {shape}"
    lengths = [shape[axis] for axis in axes]
    if max(lengths) >= _REDUCED_AXIS_LIMIT:
        return f"reduced axes must be shorter than {_REDUCED_AXIS_LIMIT}, got {lengths}"
    n_elements, most = int(np.prod(lengths)), _REDUCED_ELEMENTS_MAX[ifm.dtype]
    if n_elements > most:
        return f"reduced elements must be at most {most}, got {n_elements}"
    return None


def _resize(op: Op) -> str | None:
    ifm, ofm = (map_.shape[1:3] for map_ in maps(op))
    if ifm in ((1, 1), ofm):
        return None
    corners = int(bool(op.attributes.get("align_corners")))
    half_pixels = bool(op.attributes.get("half_pixel_centers"))
    factors = [
        (o - corners, i - corners) for o, i in zip(ofm, ifm, strict=True) if (o, i) != (1, 1)
    ]
    scales = {o // i if i and o % i == 0 else 0 for o, i in factors}
    known = {2} if half_pixels and op.kind == "RESIZE_BILINEAR" else {2, 4, 8}
    if len(scales) != 1 or not scales <= known:
        return f"scale must be one of {sorted(known)} along all axes, got {ifm} to {ofm}"
    return None


def _lstm(op: Op) -> str | None:
    roles = ("weights_input", "peephole_input", "weights_projection", "layer_norm_input")
    present = [op.input(role) is not None for role in roles]
    if present != [True, False, False, False]:
        return "LSTM must have four plain gates, got gates of another form"
    for tensor in op.weight_tensors:
        obstacle = _weights(tensor)
        if obstacle:
            return obstacle
    return None


_RULES: Final[Mapping[str, Callable[[Op], str | None]]] = {
    "CONV_2D": _conv,
    "DEPTHWISE_CONV_2D": _depthwise,
    "FULLY_CONNECTED": _mac,
    "TRANSPOSE_CONV": _transpose_conv,
    "MEAN": _mean,
    "RESIZE_BILINEAR": _resize,
    "RESIZE_NEAREST_NEIGHBOR": _resize,
    "UNIDIRECTIONAL_SEQUENCE_LSTM": _lstm,
}
