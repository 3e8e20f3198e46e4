# SPDX-License-Identifier: Apache-2.0
"""What a network costs: the records that `npusim.estimate` returns."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, TypeVar, overload

from npusim.cost.blocks import BlockConfig
from npusim.schemes.decoder import Decoder

BOUNDS: Final = (
    *("mac", "output", "issue", "decode", "weight_dma", "sram", "flash", "dram", "cpu", "none"),
)
"""What an operation's time is bound by: multipliers, output stage, issue of blocks to the
hardware, the weight decoder, transfer of its weights into the buffer, a memory, the CPU; "none" if
it takes no time."""

TRAFFIC: Final = ("feature_maps", "weights", "scales", "tables")
"""What is moved between the NPU and a memory."""


_Item = TypeVar("_Item")


class Lazy(Sequence[_Item]):
    """A tuple whose items are made when one is asked for: who wants totals does not wait for them.

    Args:
        n_items: their number.
        make: makes them all.

    >>> squares = Lazy(3, lambda: (i * i for i in range(3)))
    >>> len(squares), squares[-1], squares == (0, 1, 4)
    (3, 4, True)
    """

    __slots__ = ("_items", "_make", "_n_items")

    def __init__(self, n_items: int, make: Callable[[], Iterable[_Item]]):
        self._n_items = n_items
        self._make: Callable[[], Iterable[_Item]] | None = make
        self._items: tuple[_Item, ...] = ()

    def _made(self) -> tuple[_Item, ...]:
        if self._make is not None:
            self._items, self._make = tuple(self._make()), None
        return self._items

    def __len__(self) -> int:
        return self._n_items

    @overload
    def __getitem__(self, index: int) -> _Item: ...

    @overload
    def __getitem__(self, index: slice) -> tuple[_Item, ...]: ...

    def __getitem__(self, index: int | slice) -> _Item | tuple[_Item, ...]:
        return self._made()[index]

    def __iter__(self) -> Iterator[_Item]:
        return iter(self._made())

    def __eq__(self, other: object) -> bool:
        return isinstance(other, (tuple, Lazy)) and self._made() == tuple(other)

    def __hash__(self) -> int:
        return hash(self._made())

    def __repr__(self) -> str:
        return repr(self._made())

    def __reduce__(self) -> tuple[Any, ...]:
        return tuple, (self._made(),)


def memory_role(name: str) -> str:
    """The role in which costs count a memory: "flash" on the chip and off it, else its name.

    >>> memory_role("off_chip_flash"), memory_role("sram")
    ('flash', 'sram')
    """
    return "flash" if name.endswith("flash") else name


@dataclass(frozen=True, slots=True)
class Traffic:
    """Bytes that one operation moves from and to one memory, in bursts as the memory sees them.

    Attributes:
        read_bytes: by `TRAFFIC`.
        written_bytes: by `TRAFFIC`.
        cycles: that the transfers take, at the NPU's clock.
    """

    read_bytes: Mapping[str, int]
    written_bytes: Mapping[str, int]
    cycles: int


@dataclass(frozen=True, slots=True)
class OpCost:
    """What one operation costs.

    Attributes:
        name: of the operation.
        op: its kind, a key of `npusim.cost.program.UNITS`.
        source: name of the network's operation it comes from.
        source_op: kind of that operation.
        cycles: from its start to the next one's, at the NPU's clock.
        npu_cycles: that the NPU is busy or waits for its weights.
        macs: multiply-accumulates.
        bound: one of `BOUNDS`.
        mac_cycles: of the multipliers, with one block's output.
        output_cycles: of the output stage, with one block's multiplications.
        issue_cycles: least time between blocks of the hardware's command queue, for one block.
        compute_cycles: of all blocks together, before transfers of weights and tables.
        decode_cycles: of the weight decoder; 0 where it is taken to be as fast as the compiler
            assumes.
        block: None for operations without.
        traversal: "depth-first", "part-kernel", "depthwise" or empty.
        traffic: by role of the memory: "sram", "flash", "dram".
        ofm_shape: (height, width, depth).
        weights_encoded_bytes: of its weight streams, biases and scales not among them.
        scale_bytes: of its biases and scales.
        depth_slices: ofm channels at which the weights are cut, first 0, last the ofm depth.
        buffering: "none", "single" or "double".
        pre_buffered: whether the first slice's transfer hides under the operation before.
        weight_buffer_bytes: in SRAM.
        sram_bytes: of all that is alive in the arena while it runs.
        cascade: number of the cascade it is part of; 0: none.
        stripe_height: rows of the ofm that are computed at a time.
        ifm_bits: of an element of its ifm.
        obstacle: why the CPU executes it; empty on the NPU.
    """

    name: str
    op: str
    source: str
    cycles: int
    npu_cycles: int
    macs: int
    bound: str
    mac_cycles: int
    output_cycles: int
    issue_cycles: int
    compute_cycles: int
    block: BlockConfig | None
    traversal: str
    traffic: Mapping[str, Traffic]
    ofm_shape: tuple[int, int, int]
    weights_encoded_bytes: int
    scale_bytes: int
    depth_slices: tuple[int, ...]
    buffering: str
    pre_buffered: bool
    weight_buffer_bytes: int
    sram_bytes: int
    cascade: int
    stripe_height: int
    ifm_bits: int
    obstacle: str = ""
    source_op: str = ""
    decode_cycles: int = 0

    @property
    def on_npu(self) -> bool:
        """Whether the NPU executes it."""
        return not self.obstacle

    def to_json(self) -> dict[str, Any]:
        """JSON values."""
        return {
            "name": self.name,
            "op": self.op,
            "source": self.source,
            "source_op": self.source_op,
            "cycles": self.cycles,
            "npu_cycles": self.npu_cycles,
            "macs": self.macs,
            "bound": self.bound,
            "mac_cycles": self.mac_cycles,
            "output_cycles": self.output_cycles,
            "issue_cycles": self.issue_cycles,
            "compute_cycles": self.compute_cycles,
            "decode_cycles": self.decode_cycles,
            "block": None if self.block is None else list(self.block.ofm_block),
            "traversal": self.traversal,
            "memory_cycles": {role: moved.cycles for role, moved in self.traffic.items()},
            "weights_encoded_bytes": self.weights_encoded_bytes,
            "scale_bytes": self.scale_bytes,
            "depth_slices": list(self.depth_slices),
            "buffering": self.buffering,
            "pre_buffered": self.pre_buffered,
            "sram_bytes": self.sram_bytes,
            "cascade": self.cascade,
            "obstacle": self.obstacle,
        }


@dataclass(frozen=True, slots=True)
class MapMemory:
    """One stretch of a memory: a feature map, or several that take each other's place, or a
    weight buffer.

    Attributes:
        name: of the map, or of the operation whose weights it buffers.
        n_bytes: that it takes.
        first_op: index of the first operation it is alive in.
        last_op: index of the last one.
        address: where the allocator puts it.
        at_peak: whether it is alive when the memory is fullest.
    """

    name: str
    n_bytes: int
    first_op: int
    last_op: int
    address: int
    at_peak: bool


@dataclass(frozen=True, slots=True)
class Cost:
    """What a network costs on one NPU, for one inference.

    Attributes:
        model: name of the network.
        npu, system_config, memory_mode: names of what it runs on.
        clock_hz: of the NPU.
        ops: in order of execution.
        total_cycles: sum of the operations' cycles, the CPU's as far as the user gave them.
        cycles_range: least and most of these where weights that are not known leave open what the
            compiler would do with them, which `notes` then say: total_cycles are the mean.
        npu_cycles: sum of their NPU cycles.
        macs: sum of theirs.
        sram_peak_bytes: what the allocator needs in SRAM: for the arena, or where feature maps
            live in DRAM for those that are staged, and weight buffers; constants if they are there.
        dram_peak_bytes: the same of DRAM: feature maps that are not staged, and constants; 0
            without.
        flash_bytes: weights, biases, scales, tables and constants; not the command stream.
        weights_encoded_bytes: of all weight streams, each counted once.
        arena: what of that is in SRAM, but for constants, and when.
        spilled: what of it is in DRAM.
        arena_limit_bytes: that was asked for; None: no limit.
        n_cpu_ops: operations that the CPU executes.
        decoder: how weights are decoded, one of `npusim.cost.estimate.DECODERS`, or "scheme".
        scheme: the compression scheme that codes the weights if it is not the NPU's own.
        scheme_decoder: what decodes that scheme, lanes of all cores; None where it is taken to be
            as fast as the compiler assumes.
        too_small: memories that do not hold what is kept in them, of those whose size is known.
        notes: what the reader must know, such as operations whose cost is not in the total.
    """

    model: str
    npu: str
    system_config: str
    memory_mode: str
    clock_hz: float
    ops: Sequence[OpCost]
    total_cycles: int
    cycles_range: tuple[int, int]
    npu_cycles: int
    macs: int
    sram_peak_bytes: int
    dram_peak_bytes: int
    flash_bytes: int
    weights_encoded_bytes: int
    arena: Sequence[MapMemory] = ()
    spilled: Sequence[MapMemory] = ()
    arena_limit_bytes: int | None = None
    n_cpu_ops: int = 0
    decoder: str = "compiler"
    scheme: str = ""
    scheme_decoder: Decoder | None = None
    too_small: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()

    @property
    def inference_s(self) -> float:
        """Seconds of one inference."""
        return self.total_cycles / self.clock_hz

    @property
    def fits(self) -> bool:
        """Whether SRAM is within the limit that was asked for, and all within its memory."""
        limit = self.arena_limit_bytes
        return not self.too_small and (limit is None or self.sram_peak_bytes <= limit)

    def to_json(self) -> dict[str, Any]:
        """JSON values of the network and of every operation."""
        return {
            "model": self.model,
            "npu": self.npu,
            "system_config": self.system_config,
            "memory_mode": self.memory_mode,
            "total_cycles": self.total_cycles,
            "cycles_range": list(self.cycles_range),
            "npu_cycles": self.npu_cycles,
            "macs": self.macs,
            "inference_s": self.inference_s,
            "sram_peak_bytes": self.sram_peak_bytes,
            "dram_peak_bytes": self.dram_peak_bytes,
            "flash_bytes": self.flash_bytes,
            "weights_encoded_bytes": self.weights_encoded_bytes,
            "arena_limit_bytes": self.arena_limit_bytes,
            "fits": self.fits,
            "n_cpu_ops": self.n_cpu_ops,
            "decoder": self.decoder,
            "scheme": self.scheme,
            "scheme_decoder": self.scheme_decoder and self.scheme_decoder.to_json(),
            "too_small": list(self.too_small),
            "notes": list(self.notes),
            "ops": [op.to_json() for op in self.ops],
        }
