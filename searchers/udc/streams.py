# SPDX-License-Identifier: Apache-2.0
"""What a decoded candidate takes in flash, with the weights that the search found for it.

They are not those that are deployed, which are trained afresh, but they are weights: of the right
number formats, with the right zeros, ranked as training ranks them.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from npusim.cost.estimate import estimate
from npusim.hardware import Machine, machine
from searchers.udc.supernet import Supernet
from spaces.base import Candidate, LayerKind, Space
from spaces.concrete import ConcreteLayer, concrete_layers
from spaces.lower import lower
from spaces.nets.quantizers import levels_of

DEPLOYED_BITS = 8
"""Weights of more bits are deployed with so many."""


@dataclass(frozen=True, slots=True)
class Stored:
    """What a candidate takes in flash.

    Attributes:
        stream_bytes: of the weight streams that Arm's compiler would write.
        flash_bytes: with biases, scales, tables and constants.
    """

    stream_bytes: int
    flash_bytes: int


def stored(net: Supernet, candidate: Candidate, npu: str | Machine = "ethos-u55-128") -> Stored:
    """What a candidate of the supernet's space takes in flash.

    Raises:
        UnknownNameError: no such npu.
    """
    space = net.space
    target = npu if isinstance(npu, Machine) else machine(npu)
    values = {
        found.layer.name: _values(space, net, found)
        for found in concrete_layers(space, candidate)
        if found.layer.weighted
    }
    program = lower(space, candidate).program
    ops = []
    for op in program.ops:
        if op.weights is not None and op.source is not None and op.source.name in values:
            ohwi = values[op.source.name]
            # no tensor has these values: by it, layers of one shape would count once
            weights = replace(op.weights, ohwi=lambda ohwi=ohwi: ohwi, tensor=None)
            op = replace(op, weights=weights)
        ops.append(op)
    cost = estimate(replace(program, ops=tuple(ops)), target)
    streams = sum(op.weights_encoded_bytes for op in cost.ops if op.source in values)
    return Stored(streams, cost.flash_bytes)


def _values(space: Space, net: Supernet, found: ConcreteLayer[int]) -> npt.NDArray[np.int16]:
    """A layer's weights as integers [O, H, W, I]: pruned by rank, on the levels of their bits."""
    dense = net.dense(found).detach().cpu().numpy()
    flat = dense.ravel()
    kept = np.argsort(-np.abs(flat), kind="stable")[: found.n_nonzero]
    bits = min(found.bitwidth, DEPLOYED_BITS)
    integers = np.zeros(flat.shape, np.int16)
    if bits == 1:
        integers[kept] = np.where(flat[kept] >= 0, 1, -1)
    else:
        top = levels_of(bits)
        step = np.abs(flat).max() / top or 1.0
        # what is kept is not zero: with Q-hat no level is
        levels = np.maximum(np.rint(np.abs(flat[kept]) / step), 1)
        integers[kept] = np.sign(flat[kept]) * np.minimum(levels, top)
    integers = integers.reshape(dense.shape)
    if integers.ndim == 2:
        return integers[:, None, None]
    ohwi: npt.NDArray[np.int16] = np.ascontiguousarray(integers.transpose(0, 2, 3, 1))
    if found.layer.kind is LayerKind.TRANSPOSE_CONV:
        ohwi = np.ascontiguousarray(ohwi[:, ::-1, ::-1])  # as the NPU reads them
    return ohwi
