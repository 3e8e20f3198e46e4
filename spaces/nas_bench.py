# SPDX-License-Identifier: Apache-2.0
"""The spaces of NAS-Bench-201 and NAS-Bench-Macro; `searchers.tabular` has their results."""

from __future__ import annotations

from npusim._arguments import integer
from spaces.base import Space
from spaces.builder import SpaceBuilder
from spaces.layers import DecisionVariable, Kind

OPERATORS = ("none", "skip_connect", "nor_conv_1x1", "nor_conv_3x3", "avg_pool_3x3")
N_NODES = 4


def nas_bench_201(classes: int = 10, cells: int = 5, ofm_depth: int = 16) -> Space:
    """Three stages of equal cells: four nodes, an operator on each of the six edges between them.

    Args:
        classes: 10, 100, or 120 for ImageNet16-120.
        cells: in each stage.
        ofm_depth: channels of the first stage, twice and four times as many in the others.

    Raises:
        ConfigError: a number is out of range.

    Source: Dong and Yang 2020, figure 1 and section 2. Multiply-accumulates and parameters are
    those of its tables.

    >>> nas_bench_201().count()
    15625
    """
    integer("classes of nas_bench_201", classes, 2, 1000)
    integer("cells of nas_bench_201", cells, 1, 20)
    integer("ofm_depth of nas_bench_201", ofm_depth, 1, 256)
    net = SpaceBuilder("nas_bench_201", "cifar10", (32, 32, 3))
    edges = {
        (to, source): DecisionVariable(f"edge{source}{to}.operator", Kind.OPERATOR, OPERATORS)
        for to in range(1, N_NODES)
        for source in range(to)
    }
    x = net.conv(net.input(), ofm_depth, activation="none", name="stem")
    for stage in (1, 2, 3):
        if stage > 1:
            x = _reduction(net, x, ofm_depth << (stage - 1), f"reduction{stage}")
        for cell in range(1, cells + 1):
            x = _cell(net, x, ofm_depth << (stage - 1), edges, f"stage{stage}.cell{cell}")
    x = net.activation(x, norm=True)
    net.dense(net.global_pool(x), classes, name="classifier")
    return net.build()


def _cell(
    net: SpaceBuilder,
    x: str,
    ofm_depth: int,
    edges: dict[tuple[int, int], DecisionVariable],
    name: str,
) -> str:
    nodes = [x]
    active: dict[str, str] = {}
    for to in range(1, N_NODES):
        sums = []
        for source, node in enumerate(nodes):
            edge = f"{name}.edge{source}{to}"
            if node not in active:
                active[node] = net.activation(node)
            options = [
                net.zero(node),
                node,
                net.conv(active[node], ofm_depth, 1, activation="none", name=f"{edge}.conv1x1"),
                net.conv(active[node], ofm_depth, 3, activation="none", name=f"{edge}.conv3x3"),
                net.average_pool(node, 3),
            ]
            sums.append(net.choice(options, edges[to, source], name=edge))
        nodes.append(net.add(*sums, name=f"{name}.node{to}") if len(sums) > 1 else sums[0])
    return nodes[-1]


def _reduction(net: SpaceBuilder, x: str, ofm_depth: int, name: str) -> str:
    """A basic block of ResNet that halves the map, its shortcut an average pool and a 1x1."""
    y = net.conv(net.activation(x), ofm_depth, stride=2, activation="none", name=f"{name}.conv1")
    y = net.conv(net.activation(y), ofm_depth, activation="none", name=f"{name}.conv2")
    pooled = net.average_pool(x, 2, 2)
    shortcut = net.conv(
        pooled, ofm_depth, 1, norm=False, bias=False, activation="none", name=f"{name}.shortcut"
    )
    return net.add(shortcut, y, name=name)


MACRO_STAGES = ((64, 2), (128, 3), (256, 3))
"""Channels and blocks of each stage of NAS-Bench-Macro; the first block of each has stride 2."""
MACRO_BLOCKS = ("identity", "expand3_kernel3", "expand6_kernel5")


def nas_bench_macro() -> Space:
    """Eight blocks for CIFAR-10: each left out, or an inverted bottleneck of one of two kinds.

    A block that halves the map is replaced by a 1x1 convolution where it is left out.

    Source: Su et al., 2021, "Prioritized architecture sampling with Monto-Carlo tree search",
    NAS-Bench-Macro. Multiply-accumulates and parameters are those of its table.

    >>> nas_bench_macro().count()
    6561
    """
    limits = ["0.6M n_parameters", "1M n_parameters"]
    net = SpaceBuilder("nas_bench_macro", "cifar10", (32, 32, 3), limits=limits)
    x, depth, number = net.conv(net.input(), 32, name="stem"), 32, 0
    for channels, n_blocks in MACRO_STAGES:
        for block in range(n_blocks):
            number += 1
            stride = 2 if block == 0 else 1
            name = f"block{number}"
            left_out = x
            if stride == 2:
                left_out = net.conv(x, channels, 1, 2, name=f"{name}.identity")
            options = [left_out]
            for expansion, kernel in ((3, 3), (6, 5)):
                inside = expansion * depth
                y = net.conv(x, inside, 1, name=f"{name}.expand{expansion}")
                y = net.depthwise(y, kernel, stride, name=f"{name}.depthwise{kernel}")
                y = net.conv(y, channels, 1, activation="none", name=f"{name}.project{expansion}")
                options.append(net.add(x, y) if stride == 1 else y)
            x = net.choose(dict(zip(MACRO_BLOCKS, options, strict=True)), name)
            depth = channels
    x = net.conv(x, 1280, 1, name="head")
    net.dense(net.global_pool(x), 10, name="classifier")
    return net.build()
