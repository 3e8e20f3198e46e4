# SPDX-License-Identifier: Apache-2.0
"""The weights of lowered operations: which they are and how the NPU reads them.

Values are made only when they are asked for.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from npusim.cost.placement import integers
from npusim.cost.program import Pair, WeightSource
from npusim.network import Op
from npusim.tensor import Tensor
from npusim.weights.traversal import choose_traversal, split_dilation

Int16Array = npt.NDArray[np.int16]
_HALF_PIXEL: Final = np.array([[1, 3], [3, 9]])


def needed_dilation(op: Op) -> Pair:
    """Dilation (height, width), 1 along axes on which the kernel has one element."""
    assert op.weights is not None
    height, width = integers(op, "dilation_h", "dilation_w")
    return (
        height if op.weights.shape[1] > 1 else 1,
        width if op.weights.shape[2] > 1 else 1,
    )


def spread_kernel(op: Op) -> tuple[Pair, Pair]:
    """Kernel with zeros for the dilation that the NPU does not do, and the dilation it does."""
    assert op.weights is not None
    dilation_y, dilation_x = needed_dilation(op)
    left = (2 - dilation_y % 2, 2 - dilation_x % 2)
    _, height, width, _ = op.weights.shape
    kernel = (
        (height - 1) * (dilation_y // left[0]) + 1,
        (width - 1) * (dilation_x // left[1]) + 1,
    )
    return kernel, left


def convolution(op: Op, bits: int, group: int = 0, n_groups: int = 1) -> WeightSource:
    """Weights of a convolution, or of one of its groups."""
    assert op.weights is not None
    ofm_depth, ifm_depth = op.weights.shape[0] // n_groups, op.weights.shape[3]
    shape = (ofm_depth, *spread_kernel(op)[0], ifm_depth)
    channels = slice(group * ofm_depth, (group + 1) * ofm_depth)
    return _source(op, op.weights, shape, bits, partial(_spread, op, channels), group)


def depthwise(op: Op, bits: int, multiplier: int = 1, index: int | None = None) -> WeightSource:
    """Weights of a depthwise convolution, or of one of those it becomes if it has a multiplier."""
    assert op.weights is not None
    n_parts = 1 if index is None else multiplier
    ofm_depth = op.weights.shape[3] // n_parts
    shape = (ofm_depth, *spread_kernel(op)[0], 1)
    channels = slice(index, None, n_parts)
    kernels = multiplier if index is None else 1
    traversal = choose_traversal(shape, op.kind, bits, depth_multiplier=kernels)
    make = partial(_spread, op, channels)
    return _source(op, op.weights, shape, bits, make, index, traversal=traversal)


def transpose_convolution(op: Op, bits: int) -> WeightSource:
    """Weights of a transpose convolution."""
    assert op.weights is not None
    first, height, width, last = op.weights.shape
    return _source(op, op.weights, (first, height, width, last), bits, op.weights_ohwi)


def product(op: Op, weights: Tensor, bits: int) -> WeightSource:
    """Weights of a matrix product, [O, I]."""
    shape = (weights.shape[0], 1, 1, weights.shape[-1])
    traversal = choose_traversal(shape, "FULLY_CONNECTED", bits)
    make = partial(_product_values, weights)
    return _source(op, weights, shape, bits, make, traversal=traversal)


def ones(op: Op, suffix: str, kernel: Pair, depth: int, value: int = 1) -> WeightSource:
    """Depthwise weights that are all alike."""
    return _made(op, suffix, np.full((*kernel, 1), value), depth)


def sum_of_channels(op: Op, depth: int, bits: int) -> WeightSource:
    """Weights of a convolution that adds up all channels."""
    shape = (1, 1, 1, depth)
    traversal = choose_traversal(shape, "CONV_2D", bits)
    values = np.ones(shape, np.int16)
    return WeightSource(shape, (op.name, "channels"), traversal, values.copy, is_made=True)


def half_pixels(op: Op, row: int, column: int, depth: int) -> WeightSource:
    """Depthwise weights that interpolate between pixels, for one parity of row and column."""
    kernel = _HALF_PIXEL[:: 1 - 2 * row, :: 1 - 2 * column, None]
    return _made(op, f"{row}{column}", kernel, depth)


def centre(op: Op, kernel: Pair, depth: int) -> WeightSource:
    """Depthwise weights that pick the element behind the middle."""
    values = np.zeros((*kernel, 1))
    values[kernel[0] // 2, kernel[1] // 2] = 1
    return _made(op, "centre", values, depth)


def _source(
    op: Op,
    tensor: Tensor,
    shape: tuple[int, int, int, int],
    bits: int,
    make: Callable[[], Int16Array],
    part: int | None = None,
    *,
    traversal: str = "",
) -> WeightSource:
    traversal = traversal or choose_traversal(shape, op.kind, bits)
    dilation = spread_kernel(op)[1] if len(tensor.shape) == 4 else (1, 1)
    key = ((part, traversal, bits, dilation), tensor.index)
    return WeightSource(shape, key, traversal, make, tensor=tensor)


def _made(op: Op, suffix: str, kernel: npt.NDArray[Any], depth: int) -> WeightSource:
    shape = (depth, *kernel.shape[:2], 1)
    key = (op.name, suffix)
    return WeightSource(shape, key, "depthwise", partial(_tiled, kernel, depth), is_made=True)


def _spread(op: Op, channels: slice) -> Int16Array:
    """Some output channels' weights, with zeros for the dilation that the NPU does not do."""
    weights, _ = split_dilation(op.weights_ohwi()[channels], needed_dilation(op))
    return np.ascontiguousarray(weights)


def _tiled(kernel: npt.NDArray[Any], depth: int) -> Int16Array:
    """The same depthwise kernel [H, W, 1] for every channel."""
    return np.tile(kernel.astype(np.int16), (depth, 1, 1, 1))


def _product_values(tensor: Tensor) -> Int16Array:
    assert tensor.data is not None
    assert tensor.quantization is not None
    points = tensor.quantization.zero_points.astype(np.int16)
    values: Int16Array = tensor.data.astype(np.int16) - points[:, None]
    return values.reshape(tensor.shape[0], 1, 1, -1)
