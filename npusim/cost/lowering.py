# SPDX-License-Identifier: Apache-2.0
"""What Arm's compiler makes of a network's operations: multiply-accumulates with their weights.

Most operations become one. Others change on the way to the NPU:

* A stride along an axis on which the ofm has one element is 1, so is a dilation of one kernel
  element; a dilation above 2 is built from zeros between the kernel's elements.
* A convolution in groups becomes one for each group, a depthwise convolution with a depth
  multiplier one for each of its kernels, and with one input channel a plain convolution.
* A convolution whose stride is above 3 is computed ofm element by ofm element.
* A PAD that only convolutions read joins those whose kernel is larger than each of its margins.
* A transpose convolution is a convolution of the ifm with zeros between its elements.
* The rows of a batch of a fully connected layer are arranged as a map that is nearly square.
* MEAN becomes depthwise convolutions by ones, of at most 64 rows and 4096 elements.
* RESIZE_BILINEAR by 2 with half pixel centres becomes four depthwise convolutions, one for each
  parity of row and column; RESIZE_NEAREST_NEIGHBOR with aligned corners ends with one.
* Each gate of an LSTM becomes two fully connected layers.

Source: [VELA] regor 5.2.0, found by comparing with its compiled operations and weight streams.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from npusim.cost.blocks import MacGeometry
from npusim.cost.placement import (
    STRIDE_MAX,
    effective_strides,
    integers,
    maps,
    reduced_axes,
    spatial_shape,
)
from npusim.network import Network, Op
from npusim.tensor import Tensor
from npusim.weights.traversal import choose_traversal, split_dilation

Int16Array = npt.NDArray[np.int16]

TABLE_KINDS: Final = (
    *("LOGISTIC", "TANH", "HARD_SWISH", "LEAKY_RELU"),
    *("ELU", "GELU", "EXP", "LOG", "RSQRT"),
)
"""Kinds that become a table of an 8-bit operation before them, if only they read its ofm."""
_PADDED_KINDS: Final = ("CONV_2D", "DEPTHWISE_CONV_2D")
_KERNEL_ROWS_MAX: Final = 64
_KERNEL_ELEMENTS_MAX: Final = 4096
_HALF_PIXEL: Final = np.array([[1, 3], [3, 9]])
_GATES: Final = ("input", "forget", "cell", "output")


@dataclass(frozen=True, slots=True)
class MacPart:
    """One multiply-accumulate that an operation becomes.

    Attributes:
        suffix: tells the parts of one operation apart; empty for an only part.
        geometry: sizes as the NPU executes them.
        weights: makes the weights as the NPU reads them, shape [O, H, W, I].
    """

    suffix: str
    geometry: MacGeometry
    weights: Callable[[], Int16Array]


def lower(network: Network, op: Op) -> list[MacPart]:
    """The parts with weights of an operation that the NPU executes, each weight once.

    Args:
        network: what `op` belongs to.
        op: one for which `npusim.cost.placement.npu_obstacle` finds no obstacle.
    """
    return list(_LOWERINGS[op.kind](network, op))


def _ifm_bits(op: Op) -> int:
    return 16 if maps(op)[0].dtype == "int16" else 8


def _has_table(network: Network, op: Op) -> bool:
    """Whether a look-up table follows in the same NPU operation."""
    ofm = maps(op)[1]
    if _ifm_bits(op) != 8 or ofm.dtype == "int16":
        return False
    activation = op.attributes.get("fused_activation", "NONE")
    if activation != "NONE":
        return activation == "TANH"
    readers = network.consumers(ofm)
    if len(readers) != 1 or any(ofm is output for output in network.outputs):
        return False
    without_slope = readers[0].attributes.get("alpha") == 0.0  # that is RELU
    return readers[0].kind in TABLE_KINDS and not without_slope


def _unpadded(network: Network, op: Op) -> Tensor:
    """The ifm, or that of the PAD before it if the compiler joins the two."""
    ifm = maps(op)[0]
    pad = network.producer(ifm)
    if pad is None or pad.kind != "PAD" or any(ifm is output for output in network.outputs):
        return ifm
    if pad.ifm is None or any(r.kind not in _PADDED_KINDS for r in network.consumers(ifm)):
        return ifm
    return pad.ifm if _joins(pad, op) else ifm


def _joins(pad: Op, reader: Op) -> bool:
    """Whether a convolution can do the padding of a PAD before it."""
    margins = pad.inputs[1]
    assert reader.weights is not None
    if reader.attributes.get("padding") != "VALID" or margins is None or margins.data is None:
        return False
    if margins.shape != (4, 2) or margins.data[0].any() or margins.data[3].any():
        return False
    kernel = reader.weights.shape[1:3]
    dilation = integers(reader, "dilation_h", "dilation_w")
    return all(
        margins.data[1 + axis].max() <= (kernel[axis] - 1) * dilation[axis] for axis in (0, 1)
    )


def _convolution(network: Network, op: Op) -> Iterator[MacPart]:
    ifm, ofm = _unpadded(network, op), maps(op)[1]
    ofm_depth, kernel, ifm_depth, dilation = _spread(op)
    stride, bits = effective_strides(op), _ifm_bits(op)
    n_groups = ifm.shape[3] // ifm_depth
    ofm_depth //= n_groups
    ifm_extents, ofm_extents = ifm.shape[1:3], ofm.shape[1:3]
    if max(stride) > STRIDE_MAX:
        ifm_extents, ofm_extents, stride = kernel, (1, 1), (1, 1)
    geometry = MacGeometry(
        spatial_shape((*ifm_extents, ifm_depth)),
        spatial_shape((*ofm_extents, ofm_depth)),
        choose_traversal((ofm_depth, *kernel, ifm_depth), op.kind, bits),
        *(kernel, stride, dilation),
        ifm_bits=bits,
        table=n_groups == 1 and _has_table(network, op),
    )
    for group in range(n_groups):
        channels = slice(group * ofm_depth, (group + 1) * ofm_depth)
        suffix = f"group {group}" if n_groups > 1 else ""
        yield MacPart(suffix, geometry, partial(_spread_weights, op, channels))


def _spread(op: Op) -> tuple[int, tuple[int, int], int, tuple[int, int]]:
    """Ofm depth, kernel with zeros for dilation, ifm depth of the weights, dilation that is left.

    The ifm depth is 1 for depthwise weights.
    """
    assert op.weights is not None
    first, height, width, last = op.weights.shape
    ofm_depth, ifm_depth = (last, 1) if op.kind == "DEPTHWISE_CONV_2D" else (first, last)
    dilation_y, dilation_x = _needed_dilation(op)
    left = (2 - dilation_y % 2, 2 - dilation_x % 2)
    kernel = (
        (height - 1) * (dilation_y // left[0]) + 1,
        (width - 1) * (dilation_x // left[1]) + 1,
    )
    return ofm_depth, kernel, ifm_depth, left


def _needed_dilation(op: Op) -> tuple[int, int]:
    """Dilation (height, width), 1 along axes on which the kernel has one element."""
    assert op.weights is not None
    height, width = integers(op, "dilation_h", "dilation_w")
    return (
        height if op.weights.shape[1] > 1 else 1,
        width if op.weights.shape[2] > 1 else 1,
    )


def _spread_weights(op: Op, channels: slice) -> Int16Array:
    """Some output channels' weights, with zeros for the dilation that the NPU does not do."""
    weights, _ = split_dilation(op.weights_ohwi()[channels], _needed_dilation(op))
    return np.ascontiguousarray(weights)


def _depthwise(network: Network, op: Op) -> Iterator[MacPart]:
    ifm, ofm = _unpadded(network, op), maps(op)[1]
    ofm_depth, kernel, _, dilation = _spread(op)
    ifm_depth, bits = ifm.shape[3], _ifm_bits(op)
    multiplier = ofm_depth // ifm_depth
    shape = (ofm_depth, *kernel, 1)
    traversal = choose_traversal(shape, op.kind, bits, depth_multiplier=multiplier)
    n_parts = multiplier if traversal == "depthwise" else 1
    geometry = MacGeometry(
        spatial_shape((*ifm.shape[1:3], ifm_depth)),
        spatial_shape((*ofm.shape[1:3], ofm_depth // n_parts)),
        traversal,
        *(kernel, effective_strides(op), dilation),
        ifm_bits=bits,
        table=n_parts == 1 and _has_table(network, op),
    )
    for index in range(n_parts):
        channels = slice(index, None, n_parts)
        suffix = f"kernel {index}" if n_parts > 1 else ""
        yield MacPart(suffix, geometry, partial(_spread_weights, op, channels))


def _transpose_conv(network: Network, op: Op) -> Iterator[MacPart]:
    ifm, ofm = maps(op)
    assert op.weights is not None
    bits = _ifm_bits(op)
    upscale_y, upscale_x = integers(op, "stride_h", "stride_w")
    _, height, width, _ = op.weights.shape
    geometry = MacGeometry(
        spatial_shape(ifm.shape),
        spatial_shape(ofm.shape),
        choose_traversal(op.weights.shape, op.kind, bits),
        (height, width),
        upscale=(upscale_y, upscale_x),
        ifm_bits=bits,
        table=_has_table(network, op),
    )
    yield MacPart("", geometry, op.weights_ohwi)


def _fully_connected(network: Network, op: Op) -> Iterator[MacPart]:
    assert op.weights is not None
    n_rows = maps(op)[1].n_elements // op.weights.shape[0]
    geometry = _product(op.weights, n_rows, _ifm_bits(op), _has_table(network, op))
    yield MacPart("", geometry, op.weights_ohwi)


def _product(weights: Tensor, n_rows: int, bits: int, table: bool) -> MacGeometry:
    """A matrix product as a convolution of a map of n_rows elements."""
    ofm_depth, ifm_depth = weights.shape
    height = max(d for d in range(1, int(n_rows**0.5) + 1) if n_rows % d == 0)
    width = n_rows // height
    return MacGeometry(
        (height, width, ifm_depth),
        (height, width, ofm_depth),
        choose_traversal((ofm_depth, 1, 1, ifm_depth), "FULLY_CONNECTED", bits),
        ifm_bits=bits,
        table=table,
    )


def _mean(network: Network, op: Op) -> Iterator[MacPart]:
    ifm = maps(op)[0]
    axes = {axis + 3 - len(ifm.shape) for axis in reduced_axes(op)}
    reduced = [axis in axes for axis in range(3)]
    height, width, depth = spatial_shape(ifm.shape)
    if reduced[2] and depth > 1:  # depth becomes width, in front of it whichever axis is left
        kept = 1 if height == 1 else 0
        reduced = [reduced[kept], True, False]
        height, width, depth = (height, width)[kept], depth, 1
    flat = height > _KERNEL_ROWS_MAX and height * width <= _KERNEL_ELEMENTS_MAX
    if flat and reduced[0] and reduced[1]:
        height, width = 1, height * width
    kernel_width = width if reduced[1] else 1
    heights = {1: ""}
    if reduced[0]:
        most = min(_KERNEL_ROWS_MAX, _KERNEL_ELEMENTS_MAX // kernel_width)
        heights = {height: ""}
        if height > most:
            heights = {rows: f"{rows} rows" for rows in (height % most, most) if rows}
    for rows, suffix in heights.items():
        geometry = MacGeometry(
            (rows if reduced[0] else height, width, depth),
            (1 if reduced[0] else height, 1 if reduced[1] else width, depth),
            "depthwise",
            (rows, kernel_width),
            ifm_bits=_ifm_bits(op),
        )
        yield MacPart(suffix, geometry, partial(_tiled, np.ones((rows, kernel_width, 1)), depth))


def _resize_bilinear(network: Network, op: Op) -> Iterator[MacPart]:
    ifm, ofm = maps(op)
    if not op.attributes.get("half_pixel_centers") or ifm.shape[1:3] in ((1, 1), ofm.shape[1:3]):
        return
    height, width, depth = spatial_shape(ifm.shape)
    geometry = MacGeometry(
        (height + 1, width + 1, depth),
        spatial_shape(ofm.shape),
        "depthwise",
        _HALF_PIXEL.shape,
        ifm_bits=_ifm_bits(op),
    )
    for y in (0, 1):
        for x in (0, 1):
            kernel = _HALF_PIXEL[:: 1 - 2 * y, :: 1 - 2 * x, None]
            yield MacPart(f"rows {y}, columns {x}", geometry, partial(_tiled, kernel, depth))


def _resize_nearest(network: Network, op: Op) -> Iterator[MacPart]:
    ifm, ofm = maps(op)
    if not op.attributes.get("align_corners") or ifm.shape[1:3] in ((1, 1), ofm.shape[1:3]):
        return
    pairs = list(zip(ifm.shape[1:3], ofm.shape[1:3], strict=True))
    scale = max((long - 1) // (short - 1) for short, long in pairs if short > 1)
    height, width = (short * scale // 2 if short > 1 else 1 for short, _ in pairs)
    rows, columns = (scale if short > 1 else 1 for short, _ in pairs)
    depth = ifm.shape[3]
    kernel = np.zeros((rows, columns, 1))
    kernel[rows // 2, columns // 2] = 1
    geometry = MacGeometry(
        (height, width, depth),
        spatial_shape(ofm.shape),
        "depthwise",
        (rows, columns),
        upscale=(2, 2),
        nearest=True,
        ifm_bits=_ifm_bits(op),
    )
    yield MacPart("", geometry, partial(_tiled, kernel, depth))


def _tiled(kernel: npt.NDArray[Any], depth: int) -> Int16Array:
    """The same depthwise kernel [H, W, 1] for every channel."""
    return np.tile(kernel.astype(np.int16), (depth, 1, 1, 1))


def _lstm(network: Network, op: Op) -> Iterator[MacPart]:
    for gate in _GATES:
        for role in (f"weights_{gate}", f"weights_recurrent_{gate}"):
            tensor = op.input(role)
            assert tensor is not None
            geometry = _product(tensor, 1, _ifm_bits(op), table=False)
            yield MacPart(role.removeprefix("weights_"), geometry, partial(_gate_weights, tensor))


def _gate_weights(tensor: Tensor) -> Int16Array:
    assert tensor.data is not None
    assert tensor.quantization is not None
    values: Int16Array = tensor.data - tensor.quantization.zero_points[0].astype(np.int16)
    return values[:, None, None, :]


_LOWERINGS: Final[Mapping[str, Callable[[Network, Op], Iterator[MacPart]]]] = {
    "CONV_2D": _convolution,
    "DEPTHWISE_CONV_2D": _depthwise,
    "FULLY_CONNECTED": _fully_connected,
    "TRANSPOSE_CONV": _transpose_conv,
    "MEAN": _mean,
    "RESIZE_BILINEAR": _resize_bilinear,
    "RESIZE_NEAREST_NEIGHBOR": _resize_nearest,
    "UNIDIRECTIONAL_SEQUENCE_LSTM": _lstm,
}
LOWERED_KINDS: Final = tuple(_LOWERINGS)
"""Kinds that `lower` takes."""
