# SPDX-License-Identifier: Apache-2.0
"""Rules that operations of a kind must keep to be executed by the NPU.

Source: [VELA] the operator constraints that regor 5.2.0 prints for Ethos-U55 and U65.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Final

import numpy as np

from npusim.cost.placement import (
    STRIDE_MAX,
    effective_strides,
    integers,
    maps,
    operands,
    reduced_axes,
    same_padding,
    spatial_shape,
)
from npusim.network import Op
from npusim.tensor import Tensor

Rule = Callable[[Op], str | None]
"""Tells what breaks it, or None."""

_BIAS_DTYPES: Final = ("int32", "int64")
_BIAS_MAX: Final = (1 << 40) - 1
_WEIGHT_SUM_MAX: Final = 127 << 16
_REDUCED_AXIS_LIMIT: Final = 4096
_REDUCED_ELEMENTS_MAX: Final = {"int8": 1 << 24, "uint8": 1 << 23, "int16": 1 << 16}
_POOL_HEIGHT_MAX: Final = 256
_POOL_AREA_MAX: Final = 256 * 256
_PADDED_POOL_MAX: Final = 8
_AXIS_MAX: Final = 1 << 16
_ARG_MAX_DEPTH_MAX: Final = 127
_DIRECT_TRANSPOSES: Final = ((0, 2, 1, 3), (0, 1, 3, 2), (0, 3, 2, 1), (0, 2, 3, 1), (0, 3, 1, 2))


def _kernel(op: Op) -> tuple[int, ...]:
    assert op.weights is not None
    return op.weights.shape[1:3]


def _weights_of(tensor: Tensor | None) -> str | None:
    if tensor is None or tensor.data is None:
        return f"weights must be constant, got {tensor!s}"
    if tensor.dtype not in ("int8", "uint8"):
        return f"weights must have 8 bits, got {tensor!s}"
    if tensor.quantization is None:
        return f"weights must be quantized, got {tensor!s}"
    return None


def _weights(op: Op) -> str | None:
    return _weights_of(op.weights)


def _bias(op: Op) -> str | None:
    bias = op.bias
    if bias is None:
        return None
    if bias.data is None or bias.dtype not in _BIAS_DTYPES:
        return f"bias must be constant and of {', '.join(_BIAS_DTYPES)}, got {bias!s}"
    if len(bias.shape) > 1:
        return f"bias must have one axis, got {bias!s}"
    if bias.dtype == "int64" and bias.data.max() > _BIAS_MAX:
        return f"bias must be at most {_BIAS_MAX}, got {bias.data.max()}"
    return None


def _weight_sum(op: Op) -> str | None:
    assert op.weights is not None
    axis = 3 if op.kind == "DEPTHWISE_CONV_2D" else 0
    n_taps = op.weights.n_elements // max(op.weights.shape[axis], 1)
    if n_taps * 255 < _WEIGHT_SUM_MAX:
        return None
    ohwi = op.weights_ohwi().astype(np.int64)
    largest = int(np.abs(ohwi).sum(axis=(1, 2, 3)).max())
    if largest > _WEIGHT_SUM_MAX:
        return f"weights of a channel must add up to {_WEIGHT_SUM_MAX} at most, got {largest}"
    return None


def _is_padded(op: Op, kernel: tuple[int, ...], dilations: tuple[int, ...]) -> bool:
    strides = integers(op, "stride_h", "stride_w")
    extents = zip(maps(op)[0].shape[1:3], kernel, strides, dilations, strict=True)
    return op.attributes.get("padding") == "SAME" and any(same_padding(*e) for e in extents)


def _conv_strides(op: Op) -> str | None:
    dilations = integers(op, "dilation_h", "dilation_w")
    strides = effective_strides(op)
    hinders = max(dilations) > 1 or _is_padded(op, _kernel(op), dilations)
    if max(strides) > STRIDE_MAX and hinders:
        return (
            f"strides above {STRIDE_MAX} must have neither padding nor dilation, "
            f"got {integers(op, 'stride_h', 'stride_w')}"
        )
    return None


def _depthwise_strides(op: Op) -> str | None:
    strides = integers(op, "stride_h", "stride_w")
    if max(strides) > STRIDE_MAX:
        return f"strides must be in 1..{STRIDE_MAX}, got {strides}"
    return None


def _transpose_conv(op: Op) -> str | None:
    strides = integers(op, "stride_h", "stride_w")
    flat = [i == k == 1 for i, k in zip(maps(op)[0].shape[1:3], _kernel(op), strict=True)]
    allowed = [(1, 1), (2, 2)] + [(1, 2)] * flat[0] + [(2, 1)] * flat[1]
    if strides not in allowed:
        return f"strides must be one of {allowed}, got {strides}"
    is_same = op.attributes.get("padding") == "SAME"
    expected = tuple(
        length * stride + (0 if is_same else max(size - stride, 0))
        for length, stride, size in zip(maps(op)[0].shape[1:3], strides, _kernel(op), strict=True)
    )
    if (shape := maps(op)[1].shape[1:3]) != expected:
        return f"ofm must have height and width {expected}, got {shape}"
    return None


def _product(op: Op) -> str | None:
    weights = op.weights
    assert weights is not None
    if weights.data is not None:
        return None
    if weights.quantization is None:
        return f"weights must be quantized, got {weights!s}"
    return _matmul_axes(op, weights.shape[-1], op.outputs[0].shape[-1])


def _matmul(op: Op) -> str | None:
    ifm, ofm = maps(op)
    reduced = ifm.shape[-2] if op.attributes.get("adj_x") else ifm.shape[-1]
    return _matmul_axes(op, reduced, ofm.shape[-1])


def _matmul_axes(op: Op, reduced: int, depth: int) -> str | None:
    ifm = op.inputs[0]
    assert ifm is not None
    if ifm.dtype != "int8":
        return f"ifm of a product of feature maps must be of int8, got {ifm!s}"
    if max(reduced, depth) > _AXIS_MAX:
        return f"axes of a product must be at most {_AXIS_MAX} long, got {reduced} and {depth}"
    return None


def _average_pool(op: Op) -> str | None:
    kernel = integers(op, "filter_h", "filter_w")
    if not _is_padded(op, kernel, (1, 1)):
        return _max_pool(op)
    height, width = kernel
    if width != effective_strides(op)[1] and width > _PADDED_POOL_MAX:
        return f"width of a padded pool must be at most {_PADDED_POOL_MAX}, got {width}"
    if height > _PADDED_POOL_MAX:
        return f"height of a padded pool must be at most {_PADDED_POOL_MAX}, got {height}"
    return None


def _max_pool(op: Op) -> str | None:
    height, width = integers(op, "filter_h", "filter_w")
    if height > _POOL_HEIGHT_MAX:
        return f"height of a pool must be at most {_POOL_HEIGHT_MAX}, got {height}"
    if height * width > _POOL_AREA_MAX:
        return f"elements of a pool must be at most {_POOL_AREA_MAX}, got {height * width}"
    return None


def _pool_strides(op: Op) -> str | None:
    strides = effective_strides(op)
    kernel = integers(op, "filter_h", "filter_w")
    if max(strides) > STRIDE_MAX and _is_padded(op, kernel, (1, 1)):
        return f"strides above {STRIDE_MAX} must have no padding, got {strides}"
    return None


def _same_codes(op: Op) -> str | None:
    ofm = maps(op)[1]
    for tensor in operands(op):
        assert tensor is not None
        if tensor.quantization != ofm.quantization:
            return f"quantization must be that of the ofm, got {tensor.quantization!r}"
    return None


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
    n_elements, most = math.prod(lengths), _REDUCED_ELEMENTS_MAX[ifm.dtype]
    if n_elements > most:
        return f"reduced elements must be at most {most}, got {n_elements}"
    return None


def _resize(op: Op) -> str | None:
    ifm, ofm = (map_.shape[1:3] for map_ in maps(op))
    half_pixels = bool(op.attributes.get("half_pixel_centers")) and op.kind == "RESIZE_BILINEAR"
    if ifm == (1, 1) or (ifm == ofm and not half_pixels):
        return None
    corners = int(bool(op.attributes.get("align_corners")))
    factors = [
        (o - corners, i - corners) for o, i in zip(ofm, ifm, strict=True) if (o, i) != (1, 1)
    ]
    scales = {o // i if i and o % i == 0 else 0 for o, i in factors}
    known = {2} if half_pixels else {2, 4, 8}
    if len(scales) != 1 or not scales <= known:
        return f"scale must be one of {sorted(known)} along all axes, got {ifm} to {ofm}"
    return None


def _lstm(op: Op) -> str | None:
    roles = ("weights_input", "peephole_input", "weights_projection", "layer_norm_input")
    present = [op.input(role) is not None for role in roles]
    if present != [True, False, False, False]:
        return "LSTM must have four plain gates, got gates of another form"
    for tensor in op.weight_tensors:
        obstacle = _weights_of(tensor)
        if obstacle:
            return obstacle
    return None


def _transpose(op: Op) -> str | None:
    ifm = maps(op)[0]
    order = op.inputs[1]
    if order is None or order.data is None:
        return f"permutation must be constant, got {order!s}"
    rank = len(ifm.shape)
    shape = (1,) * (4 - rank) + ifm.shape
    permutation = tuple(int(axis) % rank for axis in order.data.ravel())
    shift = len(shape) - rank
    permutation = (*range(shift), *(axis + shift for axis in permutation))
    flat = (math.prod(shape[:-2]), *shape[-2:])
    unchanged = permutation == tuple(range(len(shape)))
    if ifm.dtype == "int32":
        return _wide_transpose(shape, permutation, flat)
    if unchanged:
        return None
    if permutation in _DIRECT_TRANSPOSES and math.prod(shape[:-3]) == 1:
        if max(flat) > _AXIS_MAX:
            return f"axes of a transpose must be at most {_AXIS_MAX} long, got shape {shape}"
    elif math.prod(sorted(shape)[2:]) > _AXIS_MAX:
        return (
            f"axes of this transpose but the two shortest must have at most {_AXIS_MAX} elements "
            f"together, got shape {shape}"
        )
    return None


def _wide_transpose(
    shape: tuple[int, ...], permutation: tuple[int, ...], flat: tuple[int, ...]
) -> str | None:
    limits = {
        (0, 1, 2, 3): (shape, (math.inf, math.inf, math.inf, 1 << 15)),
        (0, 2, 1, 3): (shape, (1, _AXIS_MAX, _AXIS_MAX, 1 << 14)),
        (0, 1, 3, 2): (flat, (_AXIS_MAX, _AXIS_MAX, _AXIS_MAX)),
    }
    if permutation not in limits:
        return f"permutation of 32 bits must be one of {list(limits)}, got {permutation}"
    lengths, most = limits[permutation]
    if any(length > limit for length, limit in zip(lengths, most, strict=True)):
        return f"axes of this transpose must be at most {most} long, got shape {shape}"
    return None


def _arg_max(op: Op) -> str | None:
    ifm = maps(op)[0]
    axis = op.inputs[1]
    if axis is None or axis.data is None:
        return f"axis must be constant, got {axis!s}"
    if int(axis.data.ravel()[0]) not in (len(ifm.shape) - 1, -1):
        return f"axis must be the last one, got {axis.data.ravel()[0]}"
    if ifm.shape[-1] > _ARG_MAX_DEPTH_MAX:
        return f"depth must be at most {_ARG_MAX_DEPTH_MAX}, got {ifm.shape[-1]}"
    return None


def _constant(position: int, what: str) -> Rule:
    """The rule that an input must be constant."""

    def rule(op: Op) -> str | None:
        tensor = op.inputs[position] if position < len(op.inputs) else None
        if tensor is None or tensor.data is None:
            return f"{what} must be constant, got {tensor!s}"
        return None

    return rule


def _slice_strides(op: Op) -> str | None:
    tensor = op.inputs[3]
    assert tensor is not None
    assert tensor.data is not None
    strides = [int(stride) for stride in tensor.data]
    if min(strides) < 0:
        return f"strides must not be negative, got {strides}"
    others = strides[: max(len(strides) - 3, 0)] + strides[-1:]
    if max(others, default=1) > 1:
        return f"strides may be along height and width only, got {strides}"
    return None


def _of_dtypes(*dtypes: str) -> Rule:
    """The rule that an ifm must have one of some data types, and the ofm the same."""

    def rule(op: Op) -> str | None:
        for tensor in maps(op):
            if tensor.dtype not in dtypes or tensor.dtype != maps(op)[0].dtype:
                return f"ifm and ofm must both be of {' or '.join(dtypes)}, got {tensor!s}"
        return None

    return rule


_FREE: Final = (
    *("ADD", "SUB", "MUL", "ABS", "NEG", "QUANTIZE", "SQUARED_DIFFERENCE", "LEAKY_RELU", "PRELU"),
    *("RELU", "RELU6", "RELU_0_TO_1", "RELU_N1_TO_1", "LOGISTIC", "TANH", "HARD_SWISH"),
    *("EXP", "SOFTMAX", "CONCATENATION", "PACK", "UNPACK"),
    *("RESHAPE", "SQUEEZE", "EXPAND_DIMS"),
)
RULES: Final[Mapping[str, tuple[Rule, ...]]] = {
    **dict.fromkeys(_FREE, ()),
    "CONV_2D": (_conv_strides, _bias, _weights, _weight_sum),
    "DEPTHWISE_CONV_2D": (_depthwise_strides, _bias, _weights, _weight_sum),
    "TRANSPOSE_CONV": (_transpose_conv, _bias, _weights, _weight_sum),
    "FULLY_CONNECTED": (_bias, _weights, _weight_sum),
    "BATCH_MATMUL": (_matmul,),
    "AVERAGE_POOL_2D": (_pool_strides, _average_pool),
    "MAX_POOL_2D": (_pool_strides, _max_pool),
    "MINIMUM": (_same_codes,),
    "MAXIMUM": (_same_codes,),
    "MEAN": (_mean,),
    **dict.fromkeys(("SUM", "REDUCE_MAX", "REDUCE_MIN"), (_constant(1, "axes"),)),
    "ARG_MAX": (_arg_max,),
    "RESIZE_BILINEAR": (_resize,),
    "RESIZE_NEAREST_NEIGHBOR": (_resize,),
    "TRANSPOSE": (_transpose,),
    "ELU": (_of_dtypes("int8"),),
    **dict.fromkeys(("LOG", "RSQRT"), (_of_dtypes("int8", "int16"),)),
    "GELU": (_of_dtypes("int8", "uint8"),),
    **dict.fromkeys(("PAD", "PADV2", "MIRROR_PAD"), (_constant(1, "margins"),)),
    "TILE": (_constant(1, "counts"),),
    "SLICE": (_constant(1, "begin"), _constant(2, "size")),
    "STRIDED_SLICE": (
        *(_constant(1, "begin"), _constant(2, "end"), _constant(3, "strides")),
        _slice_strides,
    ),
    "SPLIT": (_constant(0, "axis"),),
    "SPLIT_V": (_constant(2, "axis"),),
    "UNIDIRECTIONAL_SEQUENCE_LSTM": (_lstm,),
}
"""The rules of each kind that the NPU executes, in the order they are asked for."""
