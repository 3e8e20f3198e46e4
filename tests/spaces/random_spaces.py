# SPDX-License-Identifier: Apache-2.0
"""Small spaces of every make, for tests against brute force."""

from __future__ import annotations

import math

from hypothesis import assume
from hypothesis import strategies as st

from spaces.base import Space
from spaces.builder import SpaceBuilder

N_COMBINATIONS_MAX = 20_000
BLOCKS = ("conv", "kernel", "residual", "operator", "depth", "depthwise", "pool", "match")


@st.composite
def small_spaces(draw: st.DrawFn) -> Space:
    """A space of a few layers: chains, residual blocks, operators, depths, ties, resolutions."""
    net = SpaceBuilder(
        "random",
        "digits",
        (6, 6, draw(st.integers(1, 3))),
        widths=draw(st.sampled_from([None, (0.5, 1.0), (0.3, 0.6, 1.0)])),
        bitwidths=draw(st.sampled_from([None, (1, 4), (2, 8)])),
        sparsities=draw(st.sampled_from([None, (0.1, 0.7)])),
    )
    x = net.input(draw(st.sampled_from([None, None, (4, 6)])))
    x = net.conv(x, draw(st.integers(2, 6)), name="stem")
    for i, block in enumerate(draw(st.lists(st.sampled_from(BLOCKS), max_size=3))):
        x = add_block(net, x, block, f"block{i}")
    if draw(st.booleans()):
        net.dense(net.global_pool(x), 3)
    space = net.build()
    assume(math.prod(int(n) for n in space.n_options) <= N_COMBINATIONS_MAX)
    return space


def add_block(net: SpaceBuilder, x: str, block: str, name: str) -> str:
    """A block of one of `BLOCKS` behind `x`."""
    if block == "conv":
        return net.conv(x, 5, 3, stride=2)
    if block == "kernel":
        return net.conv(x, 4, (1, 3))
    if block == "depthwise":
        return net.depthwise(x, 3)
    if block == "pool":
        return net.max_pool(x, 2, 2)
    same = net.conv(net.conv(x, 4, name=f"{name}.wide"), 6, name=f"{name}.a")
    if block == "match":
        return net.add(net.match_depth(x, like=same), same)
    if block == "residual":
        return net.add(same, net.conv(same, 6, 1), activation="relu")
    if block == "operator":
        options = {
            "none": same,
            "conv": net.conv(same, 6, 3),
            "two": net.add(same, net.conv(same, 6, 1)),
        }
        return net.choose(options, name)
    second = net.conv(same, 6, 1)
    return net.repeat([same, second, net.conv(second, 6, 3)], name)
