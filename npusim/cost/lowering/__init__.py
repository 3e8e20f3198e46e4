# SPDX-License-Identifier: Apache-2.0
"""What Arm's compiler makes of a network: the operations of an Ethos-U55 or U65, in order."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final

from npusim._once import once_per_object
from npusim.cost.lowering import (
    assembly,
    convolutions,
    copies,
    elementwise,
    lstm,
    quantizes,
    reductions,
    resizes,
    softmax,
    transposes,
)
from npusim.cost.lowering.cuts import cut
from npusim.cost.lowering.graph import Graph, Step
from npusim.cost.lowering.read import read
from npusim.cost.lowering.reshapes import find_reshape, remove_reshapes
from npusim.cost.program import Program
from npusim.network import Network

_Rule = Callable[[Graph, Step], None]

_EARLY: Final[Mapping[str, _Rule]] = {
    "CONV_2D": convolutions.split_groups,
    "SLICE": copies.lower_slice,
    "STRIDED_SLICE": copies.lower_strided_slice,
    **dict.fromkeys(("SPLIT", "SPLIT_V", "UNPACK"), copies.lower_split),
    "PACK": copies.lower_pack,
    "MIRROR_PAD": copies.lower_mirror_pad,
    "TRANSPOSE": find_reshape,
    "BATCH_MATMUL": reductions.turn_operands,
    "UNIDIRECTIONAL_SEQUENCE_LSTM": lstm.lower_lstm,
}
"""What happens before reshapes are removed."""

_RULES: Final[Mapping[str, _Rule]] = {
    "CONV_2D": convolutions.lower_convolution,
    "DEPTHWISE_CONV_2D": convolutions.lower_depthwise,
    "TRANSPOSE_CONV": convolutions.lower_transpose_convolution,
    "FULLY_CONNECTED": convolutions.lower_fully_connected,
    **dict.fromkeys(("MAX_POOL_2D", "AVERAGE_POOL_2D"), convolutions.lower_pool),
    **dict.fromkeys(elementwise.KINDS, elementwise.lower_elementwise),
    **dict.fromkeys(elementwise.CLAMPS, elementwise.lower_clamp),
    **dict.fromkeys(elementwise.TABLES, elementwise.lower_table),
    "NEG": elementwise.lower_negation,
    "LEAKY_RELU": elementwise.lower_leaky_relu,
    "PRELU": elementwise.lower_prelu,
    "SQUARED_DIFFERENCE": elementwise.lower_squared_difference,
    "SOFTMAX": softmax.lower_softmax,
    "MEAN": reductions.lower_mean,
    "SUM": reductions.lower_sum,
    **dict.fromkeys(("REDUCE_MAX", "REDUCE_MIN"), reductions.lower_reduce_max),
    "BATCH_MATMUL": reductions.lower_matmul,
    "ARG_MAX": reductions.lower_arg_max,
    "TRANSPOSE": transposes.lower_transpose,
    **dict.fromkeys(("RESIZE_BILINEAR", "RESIZE_NEAREST_NEIGHBOR"), resizes.lower_resize),
    "TILE": copies.lower_tile,
    "PAD": convolutions.pass_pad,
}

_LATE: Final[Mapping[str, _Rule]] = {
    "CONCATENATION": copies.lower_concatenation,
    **dict.fromkeys(("PAD", "PADV2"), copies.lower_pad),
    "transpose": transposes.merge_transposes,
    **dict.fromkeys(("add", "sub", "mul", "minimum", "maximum"), elementwise.repeat_operand),
}
"""What happens after convolutions had a chance to take over pads."""


@once_per_object
def program(network: Network) -> Program:
    """The operations that Arm's compiler schedules for a network, and those it leaves to the CPU.

    Args:
        network: as `npusim.load` reads it, not yet compiled.

    Source: [VELA] regor 5.2.0, which the tests compare operation by operation.

    >>> import numpy as np
    >>> from npusim.network_builder import NetworkBuilder
    >>> net = NetworkBuilder("tiny")
    >>> image = net.input((1, 8, 8, 3), scale=0.02)
    >>> weights = net.constant(np.ones((8, 3, 3, 3), np.int8), scales=0.01)
    >>> bias = net.bias([0] * 8, image, weights)
    >>> features = net.op("CONV_2D", image, weights, bias, scale=0.1, fused_activation="RELU")
    >>> classes = net.op("MEAN", features, np.array([1, 2], np.int32), keep_dims=True)
    >>> [(op.name, op.kind, op.activation) for op in program(net.build(classes)).ops]
    [('conv_2d', 'conv', 'relu'), ('mean (from row 0)', 'depthwise', 'none'), \
('mean (scale)', 'mul', 'none')]
    """
    graph = read(network)
    _rewrite(graph, _EARLY)
    remove_reshapes(graph)
    _rewrite(graph, {"QUANTIZE": quantizes.fuse_quantize})
    _rewrite(graph, _RULES, as_rewritten=True)
    _rewrite(graph, _LATE)
    copies.read_parts_in_place(graph)
    copies.write_parts_in_place(graph)
    steps = [part for step in graph.execution_order() for part in cut(graph, step)]
    steps = assembly.fuse_activations(steps)
    return assembly.assemble(graph, assembly.gather_cpu_steps(steps))


def _rewrite(graph: Graph, rules: Mapping[str, _Rule], *, as_rewritten: bool = False) -> None:
    for step in graph.from_outputs(as_rewritten=as_rewritten):
        rule = rules.get(step.kind)
        if rule is not None:
            rule(graph, step)
