# SPDX-License-Identifier: Apache-2.0
"""The cell space of NAS-Bench-201, as a definition: its results come with its own tables."""

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
