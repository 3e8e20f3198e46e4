# SPDX-License-Identifier: Apache-2.0
"""What is in flash, the memory that the NPU only reads: weights, scales, tables and constants.

Every item begins at a multiple of 16 bytes. What has the same content is there once: weight
streams with the biases and scales before them, tables, operands. Weights that are used again with
other scales are not repeated, but a block of biases and scales is added. The commands for the NPU,
and what only the CPU reads, are not counted.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable, Iterator, Sequence
from dataclasses import dataclass
from hashlib import blake2b
from itertools import pairwise
from typing import Final

import numpy as np
import numpy.typing as npt

from npusim._arguments import integer
from npusim._once import once_per_object
from npusim.cost.program import NpuOp, Program, WeightSource
from npusim.errors import ConfigError
from npusim.npu import N_CORES_MAX
from npusim.tensor import Tensor
from npusim.weights.format import STREAM_ALIGN_BYTES
from npusim.weights.scales import scale_bytes

Int64Array = npt.NDArray[np.int64]

FLASH_KINDS: Final = ("weights", "scales", "table", "constant")
"""Weights are counted with the biases and scales before them; "scales" are further ones."""
_BYTES_MAX: Final = (1 << 62) - 1
_COMPARED_FIRST: Final = 64


@dataclass(frozen=True, slots=True)
class EncodedWeights:
    """The weight streams of one operation.

    Attributes:
        n_bytes: of all of them, each padded to 16 bytes; biases and scales not among them.
        depth_slices: ofm channels at which the weights are cut: first 0, last the ofm depth.
        ofm_block_depth: channels that are coded together.

    Raises:
        ConfigError: a number is not an integer, n_bytes is no multiple of 16, or depth_slices do
            not rise from 0.
    """

    n_bytes: int
    depth_slices: tuple[int, ...]
    ofm_block_depth: int

    def __post_init__(self) -> None:
        integer("n_bytes", self.n_bytes, 0, _BYTES_MAX)
        if self.n_bytes % STREAM_ALIGN_BYTES:
            raise ConfigError(f"n_bytes must be a multiple of 16, got {self.n_bytes}")
        integer("ofm_block_depth", self.ofm_block_depth, 1, _BYTES_MAX)
        cuts = [integer("depth_slices", cut, 0, _BYTES_MAX) for cut in self.depth_slices]
        rises = all(low < high for low, high in pairwise(cuts))
        if len(cuts) < 2 or cuts[0] or not rises:
            raise ConfigError(f"depth_slices must rise from 0, got {self.depth_slices}")

    def scale_bytes(self, n_cores: int = 1) -> int:
        """Bytes of the biases and scales: a block for every slice and core.

        >>> EncodedWeights(4096, (0, 16, 64), ofm_block_depth=16).scale_bytes()
        640
        """
        cores = range(integer("n_cores", n_cores, 1, N_CORES_MAX))
        depths = [high - low for low, high in pairwise(self.depth_slices)]
        counts = [len(range(core, depth, n_cores)) for depth in depths for core in cores]
        return sum(scale_bytes(n) for n in counts if n)


@dataclass(frozen=True, slots=True)
class FlashItem:
    """Something in flash.

    Attributes:
        name: of the operation that first uses it, or of a constant.
        kind: one of `FLASH_KINDS`.
        n_bytes: a multiple of 16.
        address: from the first item's.
    """

    name: str
    kind: str
    n_bytes: int
    address: int


def flash_items(
    program: Program, encoded: Sequence[EncodedWeights | None], n_cores: int = 1
) -> tuple[FlashItem, ...]:
    """All that a program has in flash, in the order in which it is first used.

    Args:
        program: what is executed.
        encoded: the weight streams of each operation; None for those without weights.
        n_cores: of the NPU.

    Raises:
        ConfigError: as many streams as operations are needed, and exactly for those with weights.

    Source: [VELA] regor 5.2.0, compared byte by byte in the tests.

    >>> from npusim.cost.program import FeatureMap, View, WeightSource
    >>> maps = FeatureMap("x", (1, 8, 8, 3)), FeatureMap("y", (1, 8, 8, 4))
    >>> views = [View(i, map_.shape) for i, map_ in enumerate(maps)]
    >>> weights = WeightSource((4, 3, 3, 3), ("w",), "part-kernel")
    >>> op = NpuOp("y", "conv", *views, weights=weights, table_bytes=256)
    >>> encoded = EncodedWeights(160, (0, 4), ofm_block_depth=8)
    >>> [(item.kind, item.n_bytes) for item in flash_items(Program("one", maps, (op,)), [encoded])]
    [('weights', 208), ('table', 256)]
    """
    if len(encoded) != len(program.ops):
        raise ConfigError(f"encoded must have {len(program.ops)} rows, got {len(encoded)}")
    sizes: dict[tuple[Hashable, ...], tuple[str, str, int]] = {}
    values, made_from = weight_values(program), _all_scales(program)
    scales: dict[Hashable, Hashable] = {}
    for number, (op, streams) in enumerate(zip(program.ops, encoded, strict=True)):
        if (op.weights is None) != (streams is None):
            has, wanted = ("no streams", "some") if streams is None else ("streams", "none")
            raise ConfigError(f"weights of op {op.name!r} must have {wanted}, got {has}")
        if op.weights is not None and streams is not None:
            key = values[number], streams.depth_slices, streams.ofm_block_depth
            n_bytes = streams.scale_bytes(n_cores)
            if ("weights", key) not in sizes:
                sizes["weights", key] = (op.name, "weights", streams.n_bytes + n_bytes)
                scales[key] = made_from[number]
            elif scales[key] != made_from[number]:
                block = ("scales", key, made_from[number], _bias(op))
                sizes.setdefault(block, (op.name, "scales", n_bytes))
        for content, other in _others(program, number):
            sizes.setdefault(content, other)
    items: list[FlashItem] = []
    end = 0
    for name, kind, n_bytes in sizes.values():
        padded = _padded(n_bytes)
        items.append(FlashItem(name, kind, padded, end))
        end += padded
    return tuple(items)


def _others(
    program: Program, number: int
) -> Iterator[tuple[tuple[Hashable, ...], tuple[str, str, int]]]:
    """Tables and constants of an operation: what tells them from others; name, kind and bytes."""
    op = program.ops[number]
    if op.table_bytes:
        content = number if op.table_content is None else op.table_content
        yield ("table", content), (op.name, "table", op.table_bytes)
    for view in (op.ifm, op.ifm2) if op.on_npu else ():
        if view is not None and program.maps[view.map].is_constant:
            one = program.maps[view.map]
            content = view.map if one.content is None else one.content
            n_bytes = one.n_constant_bytes
            yield ("constant", content, n_bytes), (one.name, "constant", n_bytes)


def _padded(n_bytes: int) -> int:
    return -(-n_bytes // STREAM_ALIGN_BYTES) * STREAM_ALIGN_BYTES


def flash_bytes(items: Sequence[FlashItem]) -> int:
    """Bytes of all items."""
    return sum(item.n_bytes for item in items)


@once_per_object
def weight_values(program: Program) -> list[Hashable]:
    """What tells the weights of each operation from others': the key of the first that has these
    values in this order; None for operations without.

    Values are compared where they are known, those that the compiler makes only where another
    operation has some of the same shape.
    """
    sources = [op.weights for op in program.ops]
    shapes = Counter(source.shape for source in sources if source and source.is_made)
    firsts: dict[Hashable, list[WeightSource]] = {}
    found: list[Hashable] = []
    for source in sources:
        if source is None:
            found.append(None)
        elif source.is_made and shapes[source.shape] > 1 and source.ohwi is not None:
            found.append(_made_values(source))
        elif source.tensor is not None and source.ohwi is not None:
            key = source.shape, source.key[0], _beginning(source.tensor)
            known = firsts.setdefault(key, [])
            first = next((one for one in known if _same_values(one.tensor, source.tensor)), source)
            if first is source:
                known.append(source)
            found.append(first.key)
        else:
            found.append(source.key)
    return found


@once_per_object
def other_bytes(program: Program) -> int:
    """Bytes in flash that no weights take."""
    found = {
        key: n_bytes
        for number in range(len(program.ops))
        for key, (_, _, n_bytes) in _others(program, number)
    }
    return sum(map(_padded, found.values()))


@once_per_object
def last_readers(program: Program) -> list[int]:
    """The last operation of all that read the same weights, for all weights."""
    last = {values: index for index, values in enumerate(weight_values(program))}
    return [index for values, index in last.items() if values is not None]


def weights_bytes(program: Program, sizes: Int64Array, cuts: Int64Array) -> int:
    """What the weights of a program take in flash, further scales included, as `flash_items` says.

    Args:
        program: what is executed.
        sizes: of the streams and of the biases and scales of each operation, int64 [n_ops, 2].
        cuts: equal for operations whose weights are cut and coded in the same blocks, [n_ops, n].
    """
    total = int(sizes.sum())
    first: dict[tuple[int, ...], int] = {}
    blocks: set[tuple[int, ...]] = set()
    for index, values, scales, bias in _repeated(program):
        key = values, *cuts[index].tolist()
        if key not in first:
            first[key] = scales
            continue
        n_stream_bytes, n_scale_bytes = sizes[index].tolist()
        total -= n_stream_bytes
        if scales == first[key] or (*key, scales, bias) in blocks:
            total -= n_scale_bytes
        else:
            blocks.add((*key, scales, bias))
    return total


@once_per_object
def _repeated(program: Program) -> list[tuple[int, int, int, int]]:
    """Operations whose weights others read too, and numbers that stand for these, for what their
    scales are made from, and for their bias."""
    values = weight_values(program)
    n_readers = Counter(values)
    numbers: dict[Hashable, int] = {}

    def number(thing: Hashable) -> int:
        return numbers.setdefault(thing, len(numbers))

    made_from = _all_scales(program)
    return [
        (index, number(values[index]), number(made_from[index]), number(_bias(op)))
        for index, op in enumerate(program.ops)
        if op.weights is not None and n_readers[values[index]] > 1
    ]


def _beginning(tensor: Tensor) -> Hashable:
    """Equal for tensors of equal values."""
    if tensor.data is None:
        return id(tensor)
    return tensor.dtype, tensor.data.reshape(-1)[:_COMPARED_FIRST].tobytes()


def _same_values(first: Tensor | None, second: Tensor | None) -> bool:
    """Whether two tensors of weights are one, or hold the same values less their zero points."""
    if first is second:
        return True
    if first is None or second is None or first.data is None or second.data is None:
        return False
    if first.data.shape != second.data.shape or first.dtype != second.dtype:
        return False
    points = [
        q.zero_points.tolist() if (q := one.quantization) else None for one in (first, second)
    ]
    return points[0] == points[1] and np.array_equal(first.data, second.data)


def _made_values(source: WeightSource) -> Hashable:
    assert source.ohwi is not None
    return source.traversal, source.shape, blake2b(source.ohwi().tobytes()).digest()


def scales_of(op: NpuOp) -> Hashable:
    """What an operation's channels are scaled by; made weights need nothing."""
    source = op.source
    if source is None or (op.weights is not None and op.weights.is_made):
        return None
    tensors = (source.ifm, *source.weight_tensors, source.ofm)
    known = [one.quantization.scales for one in tensors if one is not None and one.quantization]
    dtype = source.ifm and source.ifm.dtype
    if len(known) == len(tensors) == 3:
        ifm, weights, ofm = (scales.astype(np.float64) for scales in known)
        return dtype, tuple((ifm * weights / ofm).tolist())
    return dtype, tuple(tuple(scales.tolist()) for scales in known)


def _all_scales(program: Program) -> list[Hashable]:
    return [None if op.weights is None else scales_of(op) for op in program.ops]


def _bias(op: NpuOp) -> Hashable:
    bias = None if op.source is None else op.source.bias
    return None if bias is None or bias.data is None else bias.data.tobytes()
