# SPDX-License-Identifier: Apache-2.0
"""How long the weights of an operation take to decode."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np

from npusim.cost.program import NpuOp
from npusim.cost.weight_sizes import weight_streams
from npusim.npu import NpuConfig
from npusim.weights.chunks import planned_iterations


class WeightDecoder(Protocol):
    """Tells how long weights take to decode."""

    @property
    def name(self) -> str:
        """One of `npusim.cost.estimate.DECODERS`."""

    def cycles(self, op: NpuOp, ifm_bits: int, block_depth: int, depths: Sequence[int]) -> int:
        """Cycles to decode all weights of an operation once; cores work side by side.

        Args:
            op, ifm_bits, block_depth, depths: as of `WeightSizes.slices`.

        Raises:
            ConfigError: only the shape of the operation's weights is known.
        """


@dataclass(frozen=True, slots=True)
class ChunkDecoder:
    """The weight decoder that works off one chunk iteration of a stream a cycle.

    Differs: Arm's compiler takes any weights to be decoded at the same rate. Arm publishes nothing
    of the Ethos-U55's decoder; the format is written so that one iteration a cycle can be.

    Attributes:
        npu: whose order the weights are coded in.
        encoder: of `npusim.weights.ENCODERS`.
    """

    npu: NpuConfig
    encoder: str = "regor"
    _known: dict[tuple[object, ...], int] = field(
        default_factory=dict, init=False, repr=False, compare=False
    )

    @property
    def name(self) -> str:
        """How schedules name this way of decoding."""
        return "stream"

    def cycles(self, op: NpuOp, ifm_bits: int, block_depth: int, depths: Sequence[int]) -> int:
        """As `WeightDecoder.cycles`."""
        assert op.weights is not None
        key = (op.weights.key, op.depth_offset, ifm_bits, block_depth, *depths)
        if key not in self._known:
            of_core = np.zeros(self.npu.n_cores, np.int64)
            for part in weight_streams(op, self.npu, ifm_bits, block_depth, depths):
                of_core[part.core] += planned_iterations(part.values, self.encoder).sum()
            self._known[key] = int(of_core.max())
        return self._known[key]
