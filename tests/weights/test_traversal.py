# SPDX-License-Identifier: Apache-2.0
"""Traversal and dilation by hand; test_vela_stream.py compares them with Arm's compiler."""

from __future__ import annotations

import numpy as np
import pytest

from npusim.errors import ConfigError, UnknownNameError
from npusim.weights.traversal import choose_traversal, split_dilation


@pytest.mark.parametrize(
    ("shape", "ifm_bits", "expected"),
    [
        ((8, 3, 3, 3), 8, "part-kernel"),
        ((8, 1, 1, 8), 8, "part-kernel"),
        ((8, 1, 1, 9), 8, "depth-first"),
        ((8, 3, 3, 16), 8, "part-kernel"),
        ((8, 3, 3, 24), 8, "part-kernel"),  # both use three quarters of the multipliers
        ((8, 3, 3, 32), 8, "depth-first"),
        ((8, 3, 3, 16), 16, "depth-first"),
        ((8, 3, 3, 24), 16, "part-kernel"),
    ],
)
def test_traversal_wastes_fewer_multipliers(shape, ifm_bits, expected):
    for kind in ("CONV_2D", "TRANSPOSE_CONV", "FULLY_CONNECTED"):
        assert choose_traversal(shape, kind, ifm_bits) == expected


def test_rounding_of_double_precision_decides_ties():
    assert choose_traversal((8, 1, 3, 70), "CONV_2D") == "part-kernel"  # 0.546875 both
    assert choose_traversal((8, 1, 6, 68), "CONV_2D") == "depth-first"  # 0.53125, one rounded down


@pytest.mark.parametrize(
    ("ofm_depth", "depth_multiplier", "expected"),
    [(8, 1, "depthwise"), (1, 1, "depthwise"), (8, 2, "depthwise"), (8, 8, "part-kernel")],
)
def test_depthwise_of_one_input_channel_is_a_convolution(ofm_depth, depth_multiplier, expected):
    shape = (ofm_depth, 3, 3, 1)
    traversal = choose_traversal(shape, "DEPTHWISE_CONV_2D", depth_multiplier=depth_multiplier)
    assert traversal == expected


@pytest.mark.parametrize(
    ("dilation", "rows", "left"),
    [
        (1, [1, 2], 1),
        (2, [1, 2], 2),
        (3, [1, 0, 0, 2], 1),
        (4, [1, 0, 2], 2),
        (6, [1, 0, 0, 2], 2),
    ],
)
def test_dilation_is_split(dilation, rows, left):
    weights = np.array([1, 2], np.int8).reshape(1, 2, 1, 1)
    spread, rest = split_dilation(weights, (dilation, 1))
    assert (spread.ravel().tolist(), rest, spread.dtype) == (rows, (left, 1), np.int8)
    spread, rest = split_dilation(weights.reshape(1, 1, 2, 1), (1, dilation))
    assert (spread.ravel().tolist(), rest) == (rows, (1, left))
    assert spread.shape == (1, 1, len(rows), 1)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: choose_traversal((8, 3, 3), "CONV_2D"), r"weights must have 4 axes"),
        (lambda: choose_traversal((8, 3, 0, 8), "CONV_2D"), r"weight axis W must be in .* got 0"),
        (lambda: choose_traversal((8, 3, 3, 8.0), "CONV_2D"), r"weight axis I must be an integer"),
        (lambda: choose_traversal((8, 3, 3, 8), "CONV_2D", 12), r"ifm_bits must be 8 or 16"),
        (
            lambda: choose_traversal((8, 3, 3, 1), "DEPTHWISE_CONV_2D", depth_multiplier=9),
            r"depth_multiplier must be in 1..8, got 9",
        ),
        (lambda: split_dilation(np.ones((1, 1, 1, 1), int), (0, 1)), r"dilation must be in .* 0"),
        (
            lambda: split_dilation(np.ones((1, 1, 1, 1), int), 2),
            r"must be \(height, width\), got 2",
        ),
        (lambda: split_dilation(np.ones((1, 1, 1, 1)), (1, 1)), "weights must hold integers"),
        (lambda: split_dilation([[[[2]], [[True]]]], (1, 1)), "integers, got a bool among them"),
        (lambda: split_dilation(np.ones((3, 3), int), (1, 1)), "weights must have 4 axes"),
        (lambda: split_dilation(np.ones((1, 0, 1, 1), int), (3, 1)), "weight axis H must be in"),
    ],
)
def test_bad_arguments_are_refused(call, message):
    with pytest.raises(ConfigError, match=message):
        call()


def test_unknown_kinds_are_refused_with_a_guess():
    with pytest.raises(UnknownNameError, match="did you mean 'CONV_2D'"):
        choose_traversal((1, 1, 1, 1), "CONV2D")
