# SPDX-License-Identifier: Apache-2.0
"""A space made of a network that is there already: its layers stay, their weights are searched."""

from __future__ import annotations

import math
from collections.abc import Sequence

from npusim.errors import ConfigError
from npusim.network import Network, Op
from npusim.tensor import Tensor
from spaces.base import Space
from spaces.builder import SpaceBuilder
from spaces.layers import Given
from spaces.options import DEPLOYABLE_BITWIDTHS, SPARSITIES


def from_network(
    network: Network,
    bitwidths: Sequence[int] = DEPLOYABLE_BITWIDTHS,
    sparsities: Sequence[float] = SPARSITIES,
) -> Space:
    """The space of bitwidths and sparsities of a network's layers, its architecture kept.

    Every operation is a layer; one with weights has a bitwidth and a sparsity of its own. Weights
    that several operations read count for the first of them.

    Args:
        network: such as `npusim.load` reads.
        bitwidths: bits of a non-zero weight.
        sparsities: fractions of weights that are not zero.

    Raises:
        ConfigError: the network has no input, no weights, or comes from a compiler.
    """
    where = f"network {network.name!r}"
    if not network.inputs:
        raise ConfigError(f"{where} must have an input to be a space, got none")
    if any(op.kind == "ETHOS_U" for op in network.ops):
        raise ConfigError(f"{where} must not be compiled yet, got one with an ETHOS_U operation")
    if not network.n_weights:
        raise ConfigError(f"{where} must have weights to be a space, got none")
    net = SpaceBuilder(
        network.name, "", _hwc(network.inputs[0]), bitwidths=bitwidths, sparsities=sparsities
    )
    image = net.input(name=_free_name("image", network))
    counted: set[int] = set()
    read: set[str] = set()
    for op in network.ops:
        sources = _sources(network, op) or [image]
        new = {
            each.index: each.n_elements for each in op.weight_tensors if each.index not in counted
        }
        counted |= new.keys()
        read.update(sources)
        net.given(sources, _sizes(op, sum(new.values())), op.name)
    ends = [op.name for op in network.ops if op.name not in read]
    if image not in read or len(ends) > 1:
        unread = [*ends, *([] if image in read else [image])]
        shape = _hwc(network.outputs[0])
        net.given(unread, Given("OUTPUTS", shape, shape[2]), _free_name("outputs", network))
    return net.build()


def _sources(network: Network, op: Op) -> list[str]:
    producers = [network.producer(tensor) for tensor in op.inputs if tensor is not None]
    return list(dict.fromkeys(each.name for each in producers if each is not None))


def _sizes(op: Op, n_weights: int) -> Given:
    ofm = (1, 1, 1) if op.ofm is None else _hwc(op.ofm)
    ifm_depth = 0 if op.ifm is None else _hwc(op.ifm)[2]
    return Given(op.kind, ofm, ifm_depth, n_weights, op.macs)


def _hwc(tensor: Tensor) -> tuple[int, int, int]:
    """Height, width, depth; axes that are missing are 1, further ones count as height."""
    shape = (1, 1, 1, *tensor.shape[1:])
    return math.prod(shape[:-2]), shape[-2], shape[-1]


def _free_name(wanted: str, network: Network) -> str:
    taken = {op.name for op in network.ops}
    while wanted in taken:
        wanted += "#"
    return wanted
