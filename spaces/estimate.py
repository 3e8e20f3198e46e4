# SPDX-License-Identifier: Apache-2.0
"""What a candidate costs on an NPU before it has weights: cycles, memory, flash."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from npusim.cost.estimate import estimate as estimate_program
from npusim.cost.program import NpuOp
from npusim.cost.weight_sizes import ExactSizes, slice_scale_bytes
from npusim.hardware import Machine, machine
from spaces.base import Candidate, Space
from spaces.lower import lower

if TYPE_CHECKING:
    from npusim.cost.result import Cost

SLICE_BYTES = 16
"""Streams and scales of a slice take a multiple of this."""


@dataclass(frozen=True, slots=True)
class BoundedSizes:
    """Bytes of weights that are not there yet, from the bound on their entropy.

    A depth slice takes its channels' share of the layer's compressed size, in whole 16 bytes.
    Weights that are known, such as those a mean is made of, take what Arm's compiler encodes.

    Attributes:
        weight_bits: compressed size of layers, by the name of the network's operation.
        exact: of weights that are known.
    """

    weight_bits: Mapping[str, int]
    exact: ExactSizes

    def slices(
        self, op: NpuOp, ifm_bits: int, block_depth: int, depths: Sequence[int]
    ) -> np.ndarray:
        """As `npusim.cost.weight_sizes.WeightSizes.slices`."""
        assert op.weights is not None
        if op.weights.ohwi is not None:
            return self.exact.slices(op, ifm_bits, block_depth, depths)
        assert op.source is not None  # `spaces.lower` keeps values where there is none
        n_channels = np.diff(depths)
        share = self.weight_bits[op.source.name] * n_channels / op.weights.shape[0]
        sizes = np.zeros((len(n_channels), 2), dtype=np.int64)
        sizes[:, 0] = SLICE_BYTES * np.ceil(share / (8 * SLICE_BYTES))
        sizes[:, 1] = [slice_scale_bytes(int(n), self.exact.npu.n_cores) for n in n_channels]
        return sizes


def estimate(space: Space, candidate: Candidate, npu: str | Machine = "ethos-u55-128") -> Cost:
    """Cycles, memory and flash of a candidate, from its shapes and `spaces.costs.size_bits`.

    Some hundredths of a second a candidate.

    Args:
        space: what the candidate is of.
        candidate: any, but not of a space made from a network.
        npu: preset name, with the default memories, or a `npusim.hardware.Machine`.

    Raises:
        ConfigError: the candidate is of another space, or of one made from a network.
        UnknownNameError: no such npu.

    Source: as `npusim.cost.estimate.estimate`.
    Differs: weights take the bound of [UDC] eq. (4) instead of what would be encoded.

    >>> import spaces
    >>> space = spaces.get("digits")
    >>> cost = estimate(space, space.largest(), "ethos-u55-32")
    >>> cost.total_cycles > 131808 / 32, cost.flash_bytes >= 19056  # MACs, bytes of weights
    (True, True)
    """
    target = npu if isinstance(npu, Machine) else machine(npu)
    lowered = lower(space, candidate)
    sizes = BoundedSizes(lowered.weight_bits, ExactSizes(target.npu))
    return estimate_program(lowered.program, target, weights=sizes)
