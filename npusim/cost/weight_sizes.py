# SPDX-License-Identifier: Apache-2.0
"""What the weights of an operation take in flash, whole and in depth slices."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
import numpy.typing as npt

from npusim.cost.program import NpuOp
from npusim.errors import ConfigError
from npusim.npu import NpuConfig
from npusim.weights.reorder import reorder_slices
from npusim.weights.scales import scale_bytes
from npusim.weights.stream import encoded_size

Int64Array = npt.NDArray[np.int64]


class WeightSizes(Protocol):
    """Tells the bytes of an operation's weights."""

    def slices(
        self, op: NpuOp, ifm_bits: int, block_depth: int, depths: Sequence[int]
    ) -> Int64Array:
        """Bytes of weight streams and of biases with scales, for every depth slice.

        Args:
            op: an operation with weights.
            ifm_bits: of an element of its ifm.
            block_depth: channels of its ofm block.
            depths: where slices begin, first 0, and the ofm depth at the end.

        Returns:
            int64, shape [n_slices, 2]; each a multiple of 16.
        """


def slice_scale_bytes(n_channels: int, n_cores: int) -> int:
    """Bytes of biases and scales of one slice; each core has a block for its channels."""
    cores = range(min(n_cores, n_channels))
    return sum(scale_bytes(len(range(core, n_channels, n_cores))) for core in cores)


@dataclass(frozen=True, slots=True)
class ExactSizes:
    """The bytes of the streams that Arm's compiler would write.

    Attributes:
        npu: whose order the weights are coded in.
        encoder: of `npusim.weights.ENCODERS`.
    """

    npu: NpuConfig
    encoder: str = "regor"
    _known: dict[tuple[object, ...], Int64Array] = field(
        default_factory=dict, init=False, repr=False, compare=False
    )

    def slices(
        self, op: NpuOp, ifm_bits: int, block_depth: int, depths: Sequence[int]
    ) -> Int64Array:
        """As `WeightSizes.slices`.

        Raises:
            ConfigError: only the shape of the operation's weights is known.
        """
        source = op.weights
        assert source is not None
        key = (source.key, op.depth_offset, ifm_bits, block_depth, *depths)
        if key not in self._known:
            if source.ohwi is None:
                raise ConfigError(
                    f"weights of {op.name!r} must be known for exact sizes, got only shape "
                    f"{source.shape}"
                )
            self._known[key] = self._measure(op, ifm_bits, block_depth, depths)
        return self._known[key]

    def _measure(
        self, op: NpuOp, ifm_bits: int, block_depth: int, depths: Sequence[int]
    ) -> Int64Array:
        assert op.weights is not None
        assert op.weights.ohwi is not None
        parts = reorder_slices(
            op.weights.ohwi(),
            list(depths),
            self.npu,
            ofm_block_depth=block_depth,
            traversal=op.weights.traversal,
            ifm_bits=ifm_bits,
            dilation=op.dilation,
        )
        starts = list(depths[:-1])
        sizes = np.zeros((len(starts), 2), np.int64)
        for part in parts:
            sizes[starts.index(part.ofm_offset), 0] += encoded_size(part.values, self.encoder)
        for i, start in enumerate(starts):
            sizes[i, 1] = slice_scale_bytes(depths[i + 1] - start, self.npu.n_cores)
        return sizes
