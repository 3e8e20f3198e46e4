# SPDX-License-Identifier: Apache-2.0
"""What Arm's compiler decides on a layer's weights before it reorders them."""

from __future__ import annotations

from typing import Any, Final

import numpy as np
import numpy.typing as npt

from npusim._arguments import choice, integer, integer_array
from npusim.errors import ConfigError
from npusim.weights.reorder import Shape, check_ifm_bits, checked_shape, round_up

KINDS: Final = ("CONV_2D", "DEPTHWISE_CONV_2D", "FULLY_CONNECTED", "TRANSPOSE_CONV")
"""Kinds of operations whose weights `npusim.network.Op.weights_ohwi` gives as [O, H, W, I]."""
_DILATION_MAX: Final = 1 << 16


def choose_traversal(
    shape: Shape, kind: str, ifm_bits: int = 8, *, depth_multiplier: int = 1
) -> str:
    """The order in which Arm's compiler lets the NPU read a layer's weights.

    A convolution is read part-kernel first when that uses the multipliers no worse than
    depth-first, or with at most 8 input channels. A fully connected layer is a convolution of
    one by one, and so is, with its own kernel, a depthwise convolution of one input channel.

    Args:
        shape: (O, H, W, I) of the weights, depthwise (O, H, W, 1).
        kind: one of `KINDS`.
        ifm_bits: 8 or 16.
        depth_multiplier: output channels for each input channel of a depthwise convolution.

    Returns:
        "depth-first", "part-kernel" or "depthwise".

    Raises:
        ConfigError: `shape`, `ifm_bits` or `depth_multiplier` are out of range.
        UnknownNameError: no such kind.

    Source: [VELA] regor, which the tests compare on compiled models.
    Differs: Vela before 5.0 reads every fully connected layer depth-first.

    >>> choose_traversal((16, 3, 3, 3), "CONV_2D"), choose_traversal((16, 1, 1, 32), "CONV_2D")
    ('part-kernel', 'depth-first')
    """
    ofm_depth, height, width, ifm_depth = checked_shape(shape)
    check_ifm_bits(ifm_bits)
    choice("kind", kind, KINDS)
    integer("depth_multiplier", depth_multiplier, 1, ofm_depth)
    if kind == "DEPTHWISE_CONV_2D" and not 1 < depth_multiplier == ofm_depth:
        return "depthwise"
    elements = height * width
    # double precision in this order, since its rounding decides ties
    part_kernel = (ifm_depth / round_up(ifm_depth, 8)) * (
        elements / round_up(elements, 4 if ifm_bits == 8 else 2)
    )
    depth_first = ifm_depth / round_up(ifm_depth, 32 if ifm_bits == 8 else 16)
    return "part-kernel" if part_kernel >= depth_first or ifm_depth <= 8 else "depth-first"


def split_dilation(
    weights: npt.ArrayLike, dilation: tuple[int, int]
) -> tuple[npt.NDArray[Any], tuple[int, int]]:
    """Weights and dilation that the NPU, which dilates by 1 or 2 only, needs for any dilation.

    An even dilation is halved and an odd one taken away; what is missing is put between the kernel
    elements as zeros, which are coded like weights.

    Args:
        weights: integers, shape [O, H, W, I], zero point subtracted.
        dilation: (height, width), each from 1.

    Returns:
        Weights [O, (H - 1)*d + 1, (W - 1)*d + 1, I], the same array where d is 1, and the
        (height, width) that is left, each 1 or 2.

    Raises:
        ConfigError: `weights` are not such an array, or a dilation is no integer from 1.

    Source: [VELA] regor, which the tests compare on compiled models.

    >>> weights, left = split_dilation(np.ones((1, 3, 1, 1), np.int8), (3, 2))
    >>> weights.ravel().tolist(), left
    ([1, 0, 0, 1, 0, 0, 1], (1, 2))
    """
    array = integer_array("weights", weights)
    o, h, w, i = checked_shape(array.shape)
    if not isinstance(dilation, (tuple, list)) or len(dilation) != 2:
        raise ConfigError(f"dilation must be (height, width), got {dilation!r}")
    factors = [integer("dilation", factor, 1, _DILATION_MAX) for factor in dilation]
    left_y, left_x = (2 if factor % 2 == 0 else 1 for factor in factors)
    y, x = factors[0] // left_y, factors[1] // left_x
    if (y, x) == (1, 1):
        return array, (left_y, left_x)
    spread = np.zeros((o, (h - 1) * y + 1, (w - 1) * x + 1, i), array.dtype)
    spread[:, ::y, ::x] = array
    return spread, (left_y, left_x)
