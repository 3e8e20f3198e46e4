# SPDX-License-Identifier: Apache-2.0
"""What the weights of an operation take in flash, whole and in depth slices."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Final, Protocol

import numpy as np
import numpy.typing as npt

from npusim._arguments import real
from npusim._once import once_per_object
from npusim.cost import columns as col
from npusim.cost.program import NpuOp, Program
from npusim.errors import ConfigError, UnknownNameError
from npusim.npu import NpuConfig
from npusim.weights.expected import TRAINED, WeightStatistics, stream_law
from npusim.weights.reorder import TRAVERSALS, WeightSlice, reorder_slices
from npusim.weights.scales import scale_bytes
from npusim.weights.stream import encoded_size

Int64Array = npt.NDArray[np.int64]
Statistics = WeightStatistics | Mapping[str, WeightStatistics]
"""Of all weights, or by the name of an operation of the network; "" stands for the others."""


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
            self._known[key] = self._measure(op, ifm_bits, block_depth, depths)
        return self._known[key]

    def _measure(
        self, op: NpuOp, ifm_bits: int, block_depth: int, depths: Sequence[int]
    ) -> Int64Array:
        starts = list(depths[:-1])
        sizes = np.zeros((len(starts), 2), np.int64)
        for part in weight_streams(op, self.npu, ifm_bits, block_depth, depths):
            sizes[starts.index(part.ofm_offset), 0] += encoded_size(part.values, self.encoder)
        for i, start in enumerate(starts):
            sizes[i, 1] = slice_scale_bytes(depths[i + 1] - start, self.npu.n_cores)
        return sizes


def coding_order(npu: NpuConfig) -> tuple[int, int, int]:
    """What of an NPU decides the order that weights are coded in."""
    return npu.ofm_ublock_depth, npu.ifm_ublock_depth, npu.n_cores


def exact_sizes(program: Program, npu: NpuConfig, encoder: str = "regor") -> ExactSizes:
    """Those of a program, which are measured once for NPUs that read weights in the same order."""
    key = *coding_order(npu), encoder
    return _sizes_by_order(program).setdefault(key, ExactSizes(npu, encoder))


@once_per_object
def _sizes_by_order(program: Program) -> dict[tuple[object, ...], ExactSizes]:
    return {}


def weight_streams(
    op: NpuOp, npu: NpuConfig, ifm_bits: int, block_depth: int, depths: Sequence[int]
) -> list[WeightSlice]:
    """The values of an operation's weight streams, by slice and core.

    Args:
        op, ifm_bits, block_depth, depths: as of `WeightSizes.slices`.
        npu: whose order the weights are coded in.

    Raises:
        ConfigError: only the shape of the operation's weights is known.
    """
    source = op.weights
    assert source is not None
    if source.ohwi is None:
        raise ConfigError(
            f"weights of {op.name!r} must be known for exact sizes, got only shape {source.shape}"
        )
    return reorder_slices(
        source.ohwi(),
        list(depths),
        npu,
        ofm_block_depth=block_depth,
        traversal=source.traversal,
        ifm_bits=ifm_bits,
        dilation=op.dilation,
    )


MADE: Final = (-1.0, 0.0)
"""In the place of entropy and zeros of weights that the compiler makes."""


@dataclass(frozen=True, slots=True)
class ExpectedSizes:
    """The bytes that the streams of weights that are not there yet are expected to take.

    Their order, and with it the zeros that pad them, is that of the NPU; how many bits the values
    take is told by `npusim.weights.expected`.

    Attributes:
        npu: whose order the weights are coded in.
        statistics: what is known of the weights.
        deviations: how many standard deviations larger than expected all streams are taken to be,
            -3..3.

    Raises:
        ConfigError: the deviations are out of range.

    >>> from npusim.cost.program import View, WeightSource
    >>> weights = WeightSource((16, 3, 3, 16), ("w",), "part-kernel")
    >>> op = NpuOp("y", "conv", View(0, (1, 8, 8, 16)), View(1, (1, 8, 8, 16)), kernel=(3, 3),
    ...            weights=weights)
    >>> from npusim.npu import get
    >>> for bits in (8, 4, 2):
    ...     sizes = ExpectedSizes(get("ethos-u55-128"), WeightStatistics(bits))
    ...     print(sizes.slices(op, 8, 16, (0, 16)).tolist())
    [[2576, 160]]
    [[1136, 160]]
    [[224, 160]]
    """

    npu: NpuConfig
    statistics: Statistics = TRAINED
    deviations: float = 0.0

    def __post_init__(self) -> None:
        real("deviations", self.deviations, -3.0, 3.0)

    @property
    def assumption(self) -> str:
        """What weights are taken to be, in words."""
        what = "weights of the statistics given for each operation"
        if isinstance(self.statistics, WeightStatistics):
            what = self.statistics.assumption
        return f"{what}, {self.deviations:+g} deviations" if self.deviations else what

    def slices(
        self, op: NpuOp, ifm_bits: int, block_depth: int, depths: Sequence[int]
    ) -> Int64Array:
        """As `WeightSizes.slices`; the depth of the block makes no difference here.

        Raises:
            UnknownNameError: the statistics are those of other operations.
        """
        from npusim.cost.rows import npu_array
        from npusim.cost.weight_sizes_kernels import slice_bytes

        known = np.array(op_statistics(op, self.statistics), np.float64)
        geometry, npu = weights_row(op, ifm_bits), npu_array(self.npu)
        law = stream_law(self.deviations)
        sizes = [
            slice_bytes(geometry, npu, high - low, known, law) for low, high in pairwise(depths)
        ]
        return np.array(sizes, np.int64).reshape(-1, 2)


def op_statistics(op: NpuOp, statistics: Statistics) -> tuple[float, float]:
    """Entropy in bits, and part of zeros, of the weights of an operation.

    Those that the compiler makes itself, such as a mean's, are known for what they are: `MADE`.

    Raises:
        UnknownNameError: the statistics are those of other operations.
    """
    source = op.weights
    assert source is not None
    if source.is_made:
        return MADE
    known = statistics
    if not isinstance(known, WeightStatistics):
        name = op.name if op.source is None else op.source.name
        if name not in known and "" not in known:
            raise UnknownNameError("operation with weight statistics", name, tuple(known))
        known = known[name] if name in known else known[""]
    n_channels = source.shape[0] if source.shares_scale else 1
    return known.expected(math.prod(source.shape[1:]), n_channels)


def weights_row(op: NpuOp, ifm_bits: int) -> Int64Array:
    """A row of `npusim.cost.rows` in which all that tells the sizes of weights is filled in."""
    assert op.weights is not None
    row = np.zeros(col.ROW_COLUMNS, np.int64)
    row[col.UNIT] = col.DEPTHWISE if op.weights.traversal == "depthwise" else col.CONVOLUTION
    row[col.TRAVERSAL] = TRAVERSALS.index(op.weights.traversal)
    row[col.IFM_DEPTH], row[col.IFM_BITS] = op.weights.shape[3], ifm_bits
    row[[col.KERNEL_HEIGHT, col.KERNEL_WIDTH]] = op.weights.shape[1:3]
    row[[col.DILATION_HEIGHT, col.DILATION_WIDTH]] = op.dilation
    return row
