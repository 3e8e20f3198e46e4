# SPDX-License-Identifier: Apache-2.0
"""A network as the NPU executes it: operations of the hardware on feature maps, in order.

`npusim.cost.lowering` makes a `Program` from a `npusim.Network`; search tools that have shapes
but no network build one themselves. Nothing here depends on which NPU it is.

An operation sees a feature map through a `View`: a reshaped tensor is one map seen in two shapes,
a concatenation one map that several operations write parts of.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping
from dataclasses import dataclass, field
from typing import Final

import numpy as np
import numpy.typing as npt

from npusim.network import Op
from npusim.tensor import DTYPES, Tensor

Shape4 = tuple[int, int, int, int]
"""(batch, height, width, depth)."""
Pair = tuple[int, int]
"""(height, width)."""

UNITS: Final[Mapping[str, str]] = {
    **dict.fromkeys(("conv", "transpose_conv"), "convolution"),
    "fully_connected": "product",
    "depthwise": "depthwise",
    **dict.fromkeys(
        ("max_pool", "average_pool", "reduce_max", "copy", "quantize", "reverse", "activation"),
        "pooling",
    ),
    "reduce_sum": "reduce_sum",
    **dict.fromkeys(
        (
            *("add", "sub", "mul", "minimum", "maximum", "abs", "leaky_relu", "clz"),
            *("shift_left", "shift_right"),
        ),
        "elementwise",
    ),
    **dict.fromkeys(("transpose", "matmul"), "compound"),
    "tile": "dma",
    "cpu": "cpu",
}
"""Which unit of the hardware executes each kind of operation. "pooling" also moves data through
the multipliers unchanged, as a pool of one element; "compound" is a sequence of simpler ones."""

ACTIVATIONS: Final = ("none", "relu", "table")
"""What the output stage does after an operation: nothing, clamping, a look-up table."""


@dataclass(frozen=True, slots=True)
class FeatureMap:
    """A tensor in memory that operations read and write.

    Attributes:
        name: of the tensor.
        shape: as stored.
        dtype: "int8", "uint8", "int16", "int32"; others of `npusim.tensor.DTYPES` occur only
            between CPU operations.
        is_input: whether the caller provides it.
        is_output: whether the caller gets it.
        is_constant: whether it is in flash, with the weights.
        is_variable: whether it keeps its content from one inference to the next.
        n_constant_bytes: what it takes in flash if it is constant.
        content: equal for constants with the same bytes, which are in flash once; None: its own.
    """

    name: str
    shape: Shape4
    dtype: str = "int8"
    is_input: bool = False
    is_output: bool = False
    is_constant: bool = False
    is_variable: bool = False
    n_constant_bytes: int = 0
    content: Hashable = None

    @property
    def bits(self) -> int:
        """Bits of an element; 0 where the type does not fix them."""
        return DTYPES[self.dtype].bits

    @property
    def n_elements(self) -> int:
        """Product of the shape."""
        batch, height, width, depth = self.shape
        return batch * height * width * depth


@dataclass(frozen=True, slots=True)
class View:
    """How an operation sees a feature map.

    Attributes:
        map: index into `Program.maps`.
        shape: of the whole map, as this operation counts its axes.
        offset: where the part begins that it reads or writes; None: it takes the whole map.
        part_shape: shape of that part; None: the whole map.
        step: distance (height, width) between rows and columns that are read.
        bits: of an element as this operation reads it; 0: those of the map.
    """

    map: int
    shape: Shape4
    offset: Shape4 | None = None
    part_shape: Shape4 | None = None
    step: Pair = (1, 1)
    bits: int = 0

    @property
    def part(self) -> Shape4:
        """Shape of what is read or written."""
        return self.shape if self.part_shape is None else self.part_shape


@dataclass(frozen=True, slots=True, eq=False)
class WeightSource:
    """The weights of an operation.

    Attributes:
        shape: (O, H, W, I); I is 1 if depthwise.
        key: equal for operations that read the same weights in the same order.
        traversal: "depth-first", "part-kernel" or "depthwise".
        ohwi: makes them, int16 less their zero points, or None where only sizes are known.
        tensor: of the network, whose values they are in the order that ``key[0]`` stands for.
        is_made: whether they are the compiler's own, such as those of a mean.
    """

    shape: Shape4
    key: tuple[object, ...]
    traversal: str
    ohwi: Callable[[], npt.NDArray[np.int16]] | None = field(default=None, repr=False)
    is_made: bool = False
    tensor: Tensor | None = field(default=None, repr=False)

    @property
    def shares_scale(self) -> bool:
        """Whether all output channels have one scale, as far as is known."""
        known = None if self.tensor is None else self.tensor.quantization
        return known is not None and known.scales.size == 1


@dataclass(frozen=True, slots=True, eq=False)
class NpuOp:
    """One operation as the hardware, or for kind "cpu" the processor, executes it.

    Attributes:
        name: of the network's operation, with what tells its parts apart if there are several.
        kind: a key of `UNITS`.
        ifm: what it reads; for "cpu" the first of what it reads.
        ofm: what it writes; for "cpu" the first.
        ifm2: a second operand.
        source: the network's operation; None in programs made from shapes alone.
        kernel: (height, width), not dilated.
        stride: (height, width).
        dilation: (height, width).
        padding: (top, left, bottom, right).
        upscale: (height, width): 2 where rows and columns are doubled on reading.
        nearest: whether upscaling repeats elements instead of inserting zeros.
        weights: None for operations without.
        has_scales: whether every output channel has a bias and a scale of its own.
        activation: one of `ACTIVATIONS`.
        table_bytes: of the look-up table in flash; 0 without.
        table_content: equal for tables with the same bytes, which are in flash once; None: its own.
        scaled: whether the output is rescaled: 16-bit convolutions then accumulate in 40 bits.
        transposed: whether the ofm is written with its axes exchanged.
        depth_offset: first output channel among those of the weights' tensor.
        keeps_accumulator: whether it continues the sums of the operation before it.
        scratch: index of a map that it only works in, or None.
        others: further maps that a "cpu" operation reads or writes.
        obstacle: for "cpu": why the NPU cannot.
    """

    name: str
    kind: str
    ifm: View
    ofm: View
    ifm2: View | None = None
    source: Op | None = field(default=None, repr=False)
    kernel: Pair = (1, 1)
    stride: Pair = (1, 1)
    dilation: Pair = (1, 1)
    padding: tuple[int, int, int, int] = (0, 0, 0, 0)
    upscale: Pair = (1, 1)
    nearest: bool = False
    weights: WeightSource | None = None
    has_scales: bool = False
    activation: str = "none"
    table_bytes: int = 0
    table_content: Hashable = None
    scaled: bool = True
    transposed: bool = False
    depth_offset: int = 0
    keeps_accumulator: bool = False
    scratch: int | None = None
    others: tuple[View, ...] = ()
    obstacle: str = ""

    @property
    def unit(self) -> str:
        """The part of the hardware that executes it."""
        return UNITS[self.kind]

    @property
    def on_npu(self) -> bool:
        """Whether the NPU executes it."""
        return self.kind != "cpu"

    @property
    def macs(self) -> int:
        """Multiply-accumulates, padding counted like other input."""
        if self.unit not in ("convolution", "product", "depthwise", "pooling", "reduce_sum"):
            return 0
        batch, height, width, depth = self.ofm.part
        n_sums = batch * height * width * depth * self.kernel[0] * self.kernel[1]
        return n_sums * (1 if self.unit in ("depthwise", "pooling") else self.ifm.part[3])


@dataclass(frozen=True, slots=True, eq=False, weakref_slot=True)
class Program:
    """What the NPU and the CPU execute for one inference.

    Attributes:
        name: of the network.
        maps: all feature maps.
        ops: in order of execution.
        n_cpu_constant_bytes: what the CPU's operations keep in flash.
    """

    name: str
    maps: tuple[FeatureMap, ...]
    ops: tuple[NpuOp, ...]
    n_cpu_constant_bytes: int = 0
