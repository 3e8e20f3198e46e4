# SPDX-License-Identifier: Apache-2.0
"""The order in which the NPU reads a layer's weights, with the zeros it reads as padding.

Loops, outermost first:

1. **ofm blocks** of `ofm_block_depth` channels;
2. **ifm blocks** of 32 channels, 16 in part-kernel order or with a 16-bit ifm (depthwise: none);
3. **sub-kernels** of at most 8 x 8 elements, fewer when dilated;
4. part-kernel order only: **ifm ublocks** of the ifm block;
5. **ofm ublocks** of the ofm block;
6. **kernel elements** of the sub-kernel row by row, their number padded to a multiple of 4
   (part-kernel with 8-bit ifm, depthwise) or 2 (part-kernel with 16-bit ifm);
7. depth-first order only: **ifm ublocks** of the whole ifm block, also those past the last channel;
8. output channels of the ofm ublock;
9. input channels of the ifm ublock (depthwise: one).

Positions outside the tensor are zeros, and they are coded like weights. Source: [VELA]
mlw_codec.reorder_encode, which the tests compare position by position.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from npusim._arguments import choice, integer, integer_array
from npusim.errors import ConfigError
from npusim.npu import NpuConfig, get
from npusim.weights.format import WEIGHT_MAX

TRAVERSALS: Final = ("depth-first", "part-kernel", "depthwise")
"""The orders a layer's weights can be read in."""
OFM_BLOCK_DEPTH_MAX: Final = 128
"""Deepest ofm block of the hardware, in channels of all cores."""
SLICE_DEPTH_STEP: Final = 16
"""Depth slices start at multiples of this many output channels."""
SUB_KERNEL_MAX: Final = 8
"""Height and width of the largest sub-kernel, in rows and columns of the dilated kernel."""
_DIM_MAX: Final = 1 << 31
_CODED_MAX: Final = 1 << 40
_DEPTHWISE_AXES: Final = (3, 1, 2, 0)

Int16Array = npt.NDArray[np.int16]
Shape = Sequence[int]


@dataclass(frozen=True, slots=True)
class WeightSlice:
    """The weights one core reads for one depth slice of a layer: they form a stream of their own.

    Attributes:
        ofm_offset: first output channel of the depth slice.
        ofm_depth: output channels of the depth slice, all cores.
        core: which core reads them.
        values: weights in stream order, int16, shape [n_coded].
    """

    ofm_offset: int
    ofm_depth: int
    core: int
    values: Int16Array


@dataclass(frozen=True, slots=True)
class _Order:
    """The loops of one core's order over its weights of `shape` [O, H, W, I].

    A depthwise layer is walked as [1, H, W, O], which is read part-kernel first: its output
    channels are the input lanes of a single kernel.
    """

    shape: tuple[int, int, int, int]
    ofm_block_depth: int
    ofm_ublock_depth: int
    ifm_block_depth: int
    ifm_ublock_depth: int
    sub_kernel: tuple[int, int]
    element_step: int
    part_kernel: bool

    def coded(self) -> int:
        """Values in the stream, padding included."""
        ofm_depth, height, width, ifm_depth = self.shape
        ifm_step = self.ifm_ublock_depth if self.part_kernel else self.ifm_block_depth
        elements = 0
        for n_rows, rows in _parts(height, self.sub_kernel[0]):
            for n_columns, columns in _parts(width, self.sub_kernel[1]):
                elements += n_rows * n_columns * round_up(rows * columns, self.element_step)
        return round_up(ofm_depth, self.ofm_ublock_depth) * elements * round_up(ifm_depth, ifm_step)


def reorder(
    weights: npt.ArrayLike,
    npu: str | NpuConfig = "ethos-u55-128",
    *,
    ofm_block_depth: int = 32,
    traversal: str = "depth-first",
    ifm_bits: int = 8,
    dilation: tuple[int, int] = (1, 1),
    core: int = 0,
    zero_point: int = 0,
) -> Int16Array:
    """Weights of one layer (or depth slice) in the order in which one core reads them.

    Args:
        weights: integers, shape [O, H, W, I]; depthwise [O, H, W, 1], one kernel a channel. For a
            transpose convolution the caller flips H and W first.
        npu: preset name or record.
        ofm_block_depth: output channels of a block, all cores, 1..128: a multiple of the ofm ublock
            depth of all cores, unless one block holds all output channels.
        traversal: one of `TRAVERSALS`; Arm's compiler takes that of `traversal.choose_traversal`.
        ifm_bits: 8 or 16, width of the input feature map.
        dilation: (height, width), each 1 or 2; for more see `traversal.split_dilation`.
        core: 0, or 1 on an NPU of two cores: core c reads channels c, c+2, c+4, ...
        zero_point: subtracted from every weight; the differences must be in -255..255.

    Returns:
        int16, shape [`coded_weights` of the same arguments].

    Raises:
        ConfigError: an argument is of another type, shape or range.
        UnknownNameError: no such npu or traversal.

    Source: [VELA] mlw_codec.reorder_encode.

    >>> reorder(np.array([5, -3]).reshape(2, 1, 1, 1), traversal="depthwise")[:10].tolist()
    [5, -3, 0, 0, 0, 0, 0, 0, 0, 0]
    """
    array = integer_array("weights", weights)
    order = _order(array.shape, npu, ofm_block_depth, traversal, ifm_bits, dilation, core)
    array = _corrected(array, zero_point)
    n_cores = get(npu).n_cores
    own = array[core::n_cores]
    walked = own.transpose(_DEPTHWISE_AXES) if traversal == "depthwise" else own
    source = np.require(walked, np.int16, ("C", "W"))
    values = np.empty(order.coded(), np.int16)
    _walk(source, values, order, restoring=False)
    return values


def reorder_slices(
    weights: npt.ArrayLike,
    offsets: Sequence[int] | None = None,
    npu: str | NpuConfig = "ethos-u55-128",
    **options: Any,
) -> list[WeightSlice]:
    """Every stream of a layer: for each depth slice, the weights of each core.

    Args:
        weights: as in `reorder`.
        offsets: as in `depth_slices`; None for one slice.
        npu: preset name or record.
        **options: the other arguments of `reorder`, but for `core`.

    Returns:
        Slices by offset, then core; a slice of one channel has no weights for the second core.

    Raises:
        ConfigError, UnknownNameError: as `reorder` and `depth_slices`.
    """
    array = integer_array("weights", weights)
    if array.ndim != 4:
        raise ConfigError(f"weights must have 4 axes [O, H, W, I], got shape {array.shape}")
    config = get(npu)
    offsets = None if offsets is None else list(offsets)
    starts = [0] if offsets is None else offsets[:-1]
    parts = [array] if offsets is None else depth_slices(array, offsets)
    return [
        WeightSlice(start, len(part), core, reorder(part, config, core=core, **options))
        for start, part in zip(starts, parts, strict=True)
        for core in range(max(1, min(config.n_cores, len(part))))
    ]


def restore(
    values: npt.ArrayLike,
    shape: Shape,
    npu: str | NpuConfig = "ethos-u55-128",
    *,
    ofm_block_depth: int = 32,
    traversal: str = "depth-first",
    ifm_bits: int = 8,
    dilation: tuple[int, int] = (1, 1),
    core: int = 0,
) -> Int16Array:
    """The weights that `reorder` with the same arguments turns into `values`.

    Args:
        values: integers in -255..255 in stream order, shape [n_coded].
        shape: (O, H, W, I) of the weights that were reordered.
        npu, ofm_block_depth, traversal, ifm_bits, dilation, core: as in `reorder`.

    Returns:
        int16 [O, H, W, I]; on two cores only the channels of `core`, [ceil((O - core)/2), H, W, I].

    Raises:
        ConfigError: an argument is of another type, shape or range, there are not as many values
            as `coded_weights` of the same arguments, or one is not zero where padding belongs.
        UnknownNameError: no such npu or traversal.

    >>> weights = np.arange(-9, 9).reshape(2, 3, 3, 1)
    >>> bool((restore(reorder(weights), weights.shape) == weights).all())
    True
    """
    array = integer_array("values", values)
    order = _order(shape, npu, ofm_block_depth, traversal, ifm_bits, dilation, core)
    if array.shape != (order.coded(),):
        raise ConfigError(f"values must have shape ({order.coded()},), got {array.shape}")
    _check_range("values", array, 0)
    source = np.require(array, np.int16, ("C", "W"))
    weights = np.empty(order.shape, np.int16)
    at = _walk(weights, source, order, restoring=True)
    if at >= 0:
        raise ConfigError(f"values must be 0 in padding, got {source[at]} at position {at}")
    return weights.transpose(_DEPTHWISE_AXES).copy() if traversal == "depthwise" else weights


def coded_weights(
    shape: Shape,
    npu: str | NpuConfig = "ethos-u55-128",
    *,
    ofm_block_depth: int = 32,
    traversal: str = "depth-first",
    ifm_bits: int = 8,
    dilation: tuple[int, int] = (1, 1),
    core: int = 0,
) -> int:
    """Values that one core's stream codes for weights of `shape`, padding included.

    Args:
        shape: (O, H, W, I) of the weights; the rest as in `reorder`.

    Raises:
        ConfigError, UnknownNameError: as `reorder`.

    >>> coded_weights((64, 1, 1, 64)), coded_weights((1, 1, 1, 1))
    (4096, 256)
    """
    return _order(shape, npu, ofm_block_depth, traversal, ifm_bits, dilation, core).coded()


def padding_runs(
    shape: Shape, npu: str | NpuConfig = "ethos-u55-128", **options: Any
) -> npt.NDArray[np.int64]:
    """Runs of zeros that reordering adds to weights of `shape`; for estimates of sizes.

    Args:
        shape: (O, H, W, I) of the weights.
        npu: preset name or record.
        **options: the other arguments of `reorder`, but for `zero_point`.

    Returns:
        int64 [n_kinds, 2]: each length that occurs, in rising order, and how many runs have it.

    Raises:
        ConfigError, UnknownNameError: as `reorder`.

    >>> padding_runs((64, 1, 1, 60)).tolist()
    [[4, 64]]
    """
    coded = reorder(np.ones(checked_shape(shape), np.int8), npu, **options)
    weights = np.flatnonzero(coded)
    gaps = np.diff(weights, prepend=-1, append=coded.size) - 1
    lengths, numbers = np.unique(gaps[gaps > 0], return_counts=True)
    return np.stack((lengths, numbers), axis=1).astype(np.int64)


def depth_slices(weights: npt.NDArray[Any], offsets: Sequence[int]) -> list[npt.NDArray[Any]]:
    """Views of the depth slices of a layer, each to be reordered and coded apart.

    Args:
        weights: shape [O, ...].
        offsets: first channel of each slice, then O: rising, from 0, and multiples of 16 but for
            the last. Arm's compiler cuts nowhere else.

    Raises:
        ConfigError: `offsets` break these rules.

    >>> [part.shape[0] for part in depth_slices(np.zeros((40, 1, 1, 8), np.int8), [0, 16, 40])]
    [16, 24]
    """
    ofm_depth = len(weights)
    cuts = [integer("a slice offset", offset, 0, ofm_depth) for offset in offsets]
    if len(cuts) < 2 or cuts[0] != 0 or cuts[-1] != ofm_depth:
        raise ConfigError(f"slice offsets must run from 0 to the ofm depth {ofm_depth}, got {cuts}")
    if any(low >= high for low, high in pairwise(cuts)):
        raise ConfigError(f"slice offsets must rise strictly, got {cuts}")
    if any(cut % SLICE_DEPTH_STEP for cut in cuts[:-1]):
        raise ConfigError(f"slice offsets must be multiples of {SLICE_DEPTH_STEP}, got {cuts}")
    return [weights[low:high] for low, high in pairwise(cuts)]


def _order(
    shape: Shape,
    npu: str | NpuConfig,
    ofm_block_depth: int,
    traversal: str,
    ifm_bits: int,
    dilation: tuple[int, int],
    core: int,
) -> _Order:
    """Check the arguments that all functions share, and work out one core's loops."""
    config = get(npu)
    ofm_depth, height, width, ifm_depth = checked_shape(shape)
    choice("traversal", traversal, TRAVERSALS)
    check_ifm_bits(ifm_bits)
    if not isinstance(dilation, (tuple, list)) or len(dilation) != 2:
        raise ConfigError(f"dilation must be (height, width), got {dilation!r}")
    steps = [integer(f"dilation {d}", v, 1, 2) for d, v in zip("hw", dilation, strict=True)]
    integer("core", core, 0, min(config.n_cores, ofm_depth) - 1)
    depthwise = traversal == "depthwise"
    if depthwise and ifm_depth != 1:
        raise ConfigError(f"depthwise weights must have shape [O, H, W, 1], got {tuple(shape)}")
    sub_kernel = (SUB_KERNEL_MAX // steps[0], SUB_KERNEL_MAX // steps[1])
    core_depth = -(-(ofm_depth - core) // config.n_cores)
    block_depth = _core_block_depth(config, ofm_block_depth, ofm_depth, core)
    part_kernel = traversal == "part-kernel"
    if depthwise:
        shape, part_kernel = (1, height, width, core_depth), True
        depths = (1, 1, block_depth, config.ofm_ublock_depth)
    else:
        shape = (core_depth, height, width, ifm_depth)
        ifm_block_depth = 16 if part_kernel or ifm_bits == 16 else 32
        depths = (block_depth, config.ofm_ublock_depth, ifm_block_depth, config.ifm_ublock_depth)
    element_step = 4 if depthwise or ifm_bits == 8 else 2
    order = _Order(shape, *depths, sub_kernel, element_step if part_kernel else 1, part_kernel)
    if order.coded() > _CODED_MAX:
        raise ConfigError(
            f"weights must take at most {_CODED_MAX} values with padding, got {order.coded()}"
        )
    return order


def _core_block_depth(config: NpuConfig, ofm_block_depth: int, ofm_depth: int, core: int) -> int:
    integer("ofm_block_depth", ofm_block_depth, 1, OFM_BLOCK_DEPTH_MAX)
    step = config.ofm_ublock_depth * config.n_cores
    if ofm_block_depth % step and ofm_block_depth < ofm_depth:
        raise ConfigError(
            f"ofm_block_depth must be a multiple of {step} on {config.name} when it is less than "
            f"the ofm depth {ofm_depth}, got {ofm_block_depth}"
        )
    return -(-(ofm_block_depth - core) // config.n_cores)


def checked_shape(shape: Shape) -> tuple[int, int, int, int]:
    """(O, H, W, I), each an integer from 1."""
    if not isinstance(shape, (tuple, list)) or len(shape) != 4:
        raise ConfigError(f"weights must have 4 axes [O, H, W, I], got shape {shape!r}")
    o, h, w, i = (
        integer(f"weight axis {a}", n, 1, _DIM_MAX) for a, n in zip("OHWI", shape, strict=True)
    )
    return o, h, w, i


def check_ifm_bits(ifm_bits: int) -> None:
    """Refuse all widths of an ifm but 8 and 16."""
    if integer("ifm_bits", ifm_bits, 8, 16) not in (8, 16):
        raise ConfigError(f"ifm_bits must be 8 or 16, got {ifm_bits}")


def _corrected(weights: npt.NDArray[Any], zero_point: int) -> npt.NDArray[Any]:
    """Weights less the zero point; 8-bit ones always fit once the zero point does."""
    if weights.dtype.itemsize == 1:
        low = -128 if weights.dtype.kind == "i" else 0
        integer("zero_point of 8-bit weights", zero_point, low, low + 255)
        return np.subtract(weights, zero_point, dtype=np.int16) if zero_point else weights
    integer("zero_point", zero_point, -_DIM_MAX, _DIM_MAX)
    _check_range("weights", weights, zero_point)
    return (weights.astype(np.int64) - zero_point).astype(np.int16) if zero_point else weights


def _check_range(what: str, values: npt.NDArray[Any], zero_point: int) -> None:
    for extreme in (int(values.min()), int(values.max())):
        if abs(extreme - zero_point) > WEIGHT_MAX:
            less = f" less the zero point {zero_point}" if zero_point else ""
            raise ConfigError(
                f"{what}{less} must be in -{WEIGHT_MAX}..{WEIGHT_MAX}, got {extreme - zero_point}"
            )


def _walk(weights: Int16Array, values: Int16Array, order: _Order, restoring: bool) -> int:
    from npusim.weights.reorder_kernels import walk

    elements, starts = _elements(*order.shape[1:3], *order.sub_kernel, order.element_step)
    depths = np.array(
        [
            order.ofm_block_depth,
            order.ofm_ublock_depth,
            order.ifm_block_depth,
            order.ifm_ublock_depth if order.part_kernel else order.ifm_block_depth,
            order.ifm_ublock_depth,
        ],
        np.int64,
    )
    ofm_depth, _, _, ifm_depth = order.shape
    kernels = weights.reshape(ofm_depth, -1, ifm_depth)
    return int(walk(kernels, values, elements, starts, depths, restoring))


@lru_cache(maxsize=256)
def _elements(
    height: int, width: int, rows: int, columns: int, step: int
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Kernel elements in order, -1 for padding, and where each sub-kernel starts in them."""
    index = np.arange(height * width).reshape(height, width)
    order: list[int] = []
    starts = [0]
    for y in range(0, height, rows):
        for x in range(0, width, columns):
            order.extend(index[y : y + rows, x : x + columns].ravel().tolist())
            order.extend([-1] * (-len(order) % step))
            starts.append(len(order))
    return np.array(order, np.int64), np.array(starts, np.int64)


def _parts(length: int, most: int) -> list[tuple[int, int]]:
    """(how many, how long) of the pieces of at most `most` that `length` is cut into."""
    return [(length // most, most), (1, length % most)]


def round_up(number: int, step: int) -> int:
    """The least multiple of `step` that is not less than `number`."""
    return -(-number // step) * step
