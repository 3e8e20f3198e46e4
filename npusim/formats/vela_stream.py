# SPDX-License-Identifier: Apache-2.0
"""The weight streams inside a network that Arm's Vela has compiled.

Weights, biases and scales lie in one read-only tensor; where, only the NPU's commands say. An
operation reads them there or, faster, from a buffer that commands had them copied to; such reads
are followed back to the read-only tensor.

Source: [VELA] register interface of Ethos-U55 and U65.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Final

from npusim.errors import FormatError
from npusim.formats import command_stream as cs

if TYPE_CHECKING:
    from npusim.network import Network, Op

COMPILED_KIND: Final = "ETHOS_U"
READ_ONLY_REGION: Final = 0
"""Region n is what the custom operation's input n + 1 holds."""
_KINDS: Final = {cs.OP_CONV: "conv", cs.OP_DEPTHWISE: "depthwise"}
_NPU_OPS: Final = (*_KINDS, cs.OP_POOL, cs.OP_ELEMENTWISE)
_PRECISION_IFM_BITS: Final = {0: 8, 1: 16, 2: 32}
_CORES: Final = (
    (cs.WEIGHT_BASE, cs.WEIGHT_LENGTH, cs.SCALE_BASE, cs.SCALE_LENGTH),
    (cs.WEIGHT1_BASE, cs.WEIGHT1_LENGTH, cs.SCALE1_BASE, cs.SCALE1_LENGTH),
)


@dataclass(frozen=True, slots=True)
class CompiledStream:
    """One weight stream of a compiled network and the operation that reads it.

    Attributes:
        op_index: the custom operation's position in the network.
        npu_op: position of the first NPU operation that reads the stream, among those that compute.
        n_reads: NPU operations that read it, more than one when a layer is cut in stripes or layers
            share weights; what follows is said of the first.
        kind: "conv" or "depthwise"; fully connected layers are convolutions.
        core: which core reads it.
        offset: first byte in the read-only tensor.
        scale_offset: first byte of its bias and scale block there.
        ofm_depth: output channels of the NPU operation, all cores: a layer's, or a depth slice's.
        ofm_block_depth: output channels of a block, all cores.
        ifm_depth: input channels.
        kernel: (height, width), not dilated.
        dilation: (height, width), 1 or 2.
        ifm_bits: 8, 16 or 32.
        traversal: as in `npusim.weights.reorder`.
        data: the stream, a view of the read-only tensor.
        scales: the bias and scale block, likewise.
    """

    op_index: int
    npu_op: int
    n_reads: int
    kind: str
    core: int
    offset: int
    scale_offset: int
    ofm_depth: int
    ofm_block_depth: int
    ifm_depth: int
    kernel: tuple[int, int]
    dilation: tuple[int, int]
    ifm_bits: int
    traversal: str
    data: memoryview = field(repr=False)
    scales: memoryview = field(repr=False)

    @property
    def shape(self) -> tuple[int, int, int, int]:
        """(O, H, W, I) of the weights of all cores, as `npusim.weights.restore` wants it."""
        return (self.ofm_depth, *self.kernel, 1 if self.kind == "depthwise" else self.ifm_depth)


def is_compiled(network: Network) -> bool:
    """Whether any part of `network` has been compiled for an Ethos-U."""
    return any(op.kind == COMPILED_KIND for op in network.ops)


def compiled_streams(network: Network) -> list[CompiledStream]:
    """Every weight stream of a compiled network, in the order in which they are first read.

    Args:
        network: as `npusim.load` reads it from a file that Vela wrote.

    Returns:
        Streams of all custom operations; each appears once however often it is read. Empty when
        nothing is compiled, or nothing that is has weights.

    Raises:
        FormatError: the commands are damaged, for another NPU, or read weights that are not in the
            read-only tensor.
    """
    streams: list[CompiledStream] = []
    for op in network.ops:
        if op.kind == COMPILED_KIND:
            try:
                payload = bytes(_content(op, "command_stream"))
                streams.extend(_streams(payload, _content(op, "flash"), op.index))
            except FormatError as error:
                raise FormatError(f"{op!s}: {error}") from None
    return streams


def _content(op: Op, role: str) -> memoryview:
    """Bytes of a constant input; none if it is left out or empty."""
    tensor = op.input(role)
    if tensor is None or tensor.data is None:
        return memoryview(b"")
    if tensor.dtype != "uint8":
        raise FormatError(f"{role} must be of uint8, got {tensor.dtype}")
    return tensor.data.reshape(-1).data


def _streams(payload: bytes, flash: memoryview, op_index: int) -> Iterable[CompiledStream]:
    _, commands = cs.read_commands(payload)
    registers: dict[int, int] = {}
    copies = _Copies(len(flash))
    found: dict[tuple[int, ...], CompiledStream] = {}
    npu_op = -1
    for command in commands:
        if command.opcode == cs.OP_DMA_START:
            copies.copy(registers)
        if command.opcode not in _NPU_OPS:
            registers[command.opcode] = command.value
            continue
        npu_op += 1
        for core in range(len(_CORES)) if command.opcode in _KINDS else ():
            where = _where(registers, copies, core)
            if where is None:
                continue
            key = where[:2]
            if key in found:
                found[key] = replace(found[key], n_reads=found[key].n_reads + 1)
                continue
            found[key] = _stream(
                registers, flash, where, op_index, npu_op, _KINDS[command.opcode], core
            )
    return found.values()


def _where(
    registers: dict[int, int], copies: _Copies, core: int
) -> tuple[int, int, int, int] | None:
    """Offset and length of a core's weights and of its scales; None if the core has none."""
    weight_base, weight_length, scale_base, scale_length = _CORES[core]
    if core and not registers.get(weight_length):
        return None
    n_bytes, n_scale_bytes = _get(registers, weight_length), _get(registers, scale_length)
    return (
        copies.source(_get(registers, cs.WEIGHT_REGION), _get(registers, weight_base), n_bytes),
        n_bytes,
        copies.source(_get(registers, cs.SCALE_REGION), _get(registers, scale_base), n_scale_bytes),
        n_scale_bytes,
    )


def _stream(
    registers: dict[int, int],
    flash: memoryview,
    where: tuple[int, int, int, int],
    op_index: int,
    npu_op: int,
    kind: str,
    core: int,
) -> CompiledStream:
    stride = _get(registers, cs.KERNEL_STRIDE)
    precision = _get(registers, cs.IFM_PRECISION)
    dilation = (1 + (stride >> cs.DILATION_Y_BIT & 1), 1 + (stride >> cs.DILATION_X_BIT & 1))
    convolution = "part-kernel" if stride >> cs.PART_KERNEL_BIT & 1 else "depth-first"
    ifm_bits = _PRECISION_IFM_BITS.get(precision >> 2 & 3)
    if ifm_bits is None:
        raise FormatError(f"ifm precision must be of 8, 16 or 32 bits, got {precision:#06x}")
    offset, n_bytes, scale_offset, n_scale_bytes = where
    return CompiledStream(
        op_index=op_index,
        npu_op=npu_op,
        n_reads=1,
        kind=kind,
        core=core,
        offset=offset,
        scale_offset=scale_offset,
        ofm_depth=_get(registers, cs.OFM_DEPTH_M1) + 1,
        ofm_block_depth=_get(registers, cs.OFM_BLK_DEPTH_M1) + 1,
        ifm_depth=_get(registers, cs.IFM_DEPTH_M1) + 1,
        kernel=(
            _get(registers, cs.KERNEL_HEIGHT_M1) // dilation[0] + 1,
            _get(registers, cs.KERNEL_WIDTH_M1) // dilation[1] + 1,
        ),
        dilation=dilation,
        ifm_bits=ifm_bits,
        traversal="depthwise" if kind == "depthwise" else convolution,
        data=flash[offset : offset + n_bytes],
        scales=flash[scale_offset : scale_offset + n_scale_bytes],
    )


def _get(registers: dict[int, int], register: int) -> int:
    if register not in registers:
        raise FormatError(f"register {register:#05x} must be set before it is used, got no command")
    return registers[register]


class _Copies:
    """Which bytes of the read-only tensor lie where in the other regions.

    Per region, disjoint intervals sorted by start: (start, end, source of start, None if unknown).
    """

    def __init__(self, n_read_only_bytes: int):
        self.n_read_only_bytes = n_read_only_bytes
        self.regions: dict[int, list[tuple[int, int, int | None]]] = {}

    def copy(self, registers: dict[int, int]) -> None:
        """Note the copy that the DMA registers ask for."""
        length = _get(registers, cs.DMA0_LEN)
        start = _get(registers, cs.DMA0_DST)
        target = _get(registers, cs.DMA0_DST_REGION) & 7
        source_region = _get(registers, cs.DMA0_SRC_REGION) & 7
        source = _get(registers, cs.DMA0_SRC) if source_region == READ_ONLY_REGION else None
        if target == READ_ONLY_REGION:
            raise FormatError(f"a copy must not go to the read-only region, got {length} bytes")
        if length == 0:
            return
        end = start + length
        intervals = self.regions.setdefault(target, [])
        first = bisect_right(intervals, start, key=lambda interval: interval[1])
        last = bisect_left(intervals, end, key=lambda interval: interval[0])
        kept = [
            (low, high, None if of is None else of + low - old)
            for old, stop, of in (intervals[i] for i in (first, last - 1) if first <= i < last)
            for low, high in ((old, min(stop, start)), (max(old, end), stop))
            if low < high
        ]
        intervals[first:last] = sorted({*kept, (start, end, source)}, key=lambda part: part[0])

    def source(self, region: int, start: int, length: int) -> int:
        """Offset in the read-only tensor of `length` bytes read at `start` of `region`."""
        offset: int | None = start
        if region & 7 != READ_ONLY_REGION:
            intervals = self.regions.get(region & 7, [])
            at = bisect_right(intervals, start, key=lambda interval: interval[0]) - 1
            offset = None
            if at >= 0 and start + length <= intervals[at][1]:
                low, _, source = intervals[at]
                offset = None if source is None else source + start - low
        if offset is None or length == 0 or offset + length > self.n_read_only_bytes:
            raise FormatError(
                f"weights and scales must lie in the read-only tensor of {self.n_read_only_bytes} "
                f"bytes, got {length} bytes at {start:#x} of region {region}"
            )
        return offset
