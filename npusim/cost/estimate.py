# SPDX-License-Identifier: Apache-2.0
"""What a network costs on an NPU: cycles, memory and traffic of every operation.

    import npusim
    cost = npusim.estimate(npusim.load("model.tflite"), npu="ethos-u55-128")
    cost.total_cycles, cost.sram_peak_bytes, [(op.name, op.cycles, op.bound) for op in cost.ops]

Schedule and cycles are those of Arm's compiler (Vela 5.2.0, its default core "regor"): what the
compiler prints, which is an estimate itself.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Final

import numpy as np

from npusim import schemes
from npusim._arguments import choice, integer
from npusim._once import once_per_object
from npusim.cost import columns as col
from npusim.cost.arena import Arena
from npusim.cost.blocks import BlockConfig
from npusim.cost.decoder import ChunkDecoder, WeightDecoder
from npusim.cost.flash import EncodedWeights, flash_bytes, flash_items, last_readers
from npusim.cost.liveness import LiveRanges
from npusim.cost.lowering import program as lower
from npusim.cost.plan_columns import HALF0, HALF1, PRE_BUFFERED, SCALE_BYTES, WEIGHT_BYTES
from npusim.cost.program import NpuOp, Program
from npusim.cost.result import Cost, Lazy, MapMemory, OpCost, Traffic, memory_role
from npusim.cost.schedule import Schedule, Scheduler, plan_depths
from npusim.cost.scheme_weights import SchemeWeights
from npusim.cost.weight_sizes import WeightSizes, exact_sizes
from npusim.errors import ConfigError
from npusim.formats.vela_stream import is_compiled
from npusim.hardware import (
    DEFAULT_MEMORY_MODE,
    DEFAULT_NPU,
    DEFAULT_SYSTEM_CONFIG,
    Machine,
    machine,
)
from npusim.network import Network
from npusim.npu import NpuConfig
from npusim.schemes.base import Scheme
from npusim.schemes.decoder import Decoder
from npusim.schemes.ethos_u_mlw import EthosUMlw

CpuCycles = Mapping[str, int] | Callable[[NpuOp], int]
"""Cycles, at the NPU's clock, of operations left to the CPU: by kind of the network's operation,
or told by a function."""

OPTIMISATIONS: Final = ("performance", "size")
"""What a schedule can be optimised for."""

DECODERS: Final = ("compiler", "stream")
"""How fast weights are decoded: as Arm's compiler assumes, or as their streams let them be. By the
decoder of a scheme is a third way, called "scheme" in a `Cost`."""

BUFFERINGS: Final = ("none", "single", "double")
"""How many buffers weights are copied to, in turn."""

_CYCLES_MAX: Final = 1 << 62


def estimate(
    network: Network | Program,
    npu: str | Machine = DEFAULT_NPU,
    system_config: str = DEFAULT_SYSTEM_CONFIG,
    memory_mode: str = DEFAULT_MEMORY_MODE,
    *,
    weights: WeightSizes | None = None,
    optimise: str = "performance",
    arena_limit_bytes: int | None = None,
    cpu_cycles: CpuCycles | None = None,
    decoder: str | Decoder | None = None,
    scheme: str | Scheme | None = None,
) -> Cost:
    """What one inference costs.

    Args:
        network: as `npusim.load` reads it, not yet compiled; or a program of one's own.
        npu: preset name, or a `npusim.hardware.Machine`, which then says all about the hardware.
        system_config: preset name of the memories.
        memory_mode: preset name of what is kept in which memory.
        weights: tells what weights take in flash; None: exactly what Arm's compiler encodes.
        optimise: "performance" or "size": whether an arena without limit may be as large as is
            best for speed, or is to be as small as the compiler can make it.
        arena_limit_bytes: most that the arena should take, or the staging memory where feature
            maps live elsewhere; like the compiler, the schedule may need more, which `Cost.fits`
            then says. None: that of the memory mode, if it has one.
        cpu_cycles: of operations that the NPU cannot execute; None: they are not in the total,
            which `Cost.notes` then says.
        decoder: "compiler": weights are decoded at the NPU's `weight_decoder_weights_per_cycle`,
            whatever they are; "stream": at one chunk iteration of their streams a cycle instead,
            so that compression changes cycles. The schedule is the compiler's in both. None:
            "compiler", or with a scheme that scheme's own; a record is taken instead of the latter.
        scheme: a compression scheme, or its name, that codes the weights in the place of the NPU's
            own: bytes in flash and of transfers, and cycles to decode, are the scheme's, and the
            schedule is what the compiler would choose for these bytes. No Ethos-U reads them: what
            if it did.

    Raises:
        ConfigError: the network is compiled already, no block of an operation fits the NPU, a
            number of cycles is not an integer from 0 on, or arguments exclude one another.
        UnknownNameError: no such npu, system config, memory mode, optimisation, decoder or scheme.

    Source: [VELA] regor 5.2.0, which the tests compare with on real and random networks.
    """
    if isinstance(network, Network) and is_compiled(network):
        raise ConfigError(
            f"model {network.name!r} must not be compiled yet, got one that Vela compiled"
        )
    target = npu if isinstance(npu, Machine) else machine(npu, system_config, memory_mode)
    program = network if isinstance(network, Program) else lower(network)
    choice("optimise", optimise, OPTIMISATIONS)
    sizes, decoding = _coding(program, target.npu, weights, decoder, scheme)
    if arena_limit_bytes is not None:
        integer("arena_limit_bytes", arena_limit_bytes, 1, _CYCLES_MAX)
    else:
        arena_limit_bytes = target.mode.arena_cache_size_bytes
    schedule = Scheduler(program, target, sizes, decoding).run(optimise, arena_limit_bytes)
    cost = cost_of(schedule, cpu_cycles, arena_limit_bytes)
    return _in_scheme(cost, sizes) if isinstance(sizes, SchemeWeights) else cost


def _coding(
    program: Program,
    npu: NpuConfig,
    weights: WeightSizes | None,
    decoder: str | Decoder | None,
    scheme: str | Scheme | None,
) -> tuple[WeightSizes, WeightDecoder | None]:
    """What tells bytes of weights, and cycles to decode them: None for the compiler's rate."""
    if isinstance(decoder, str):
        choice("decoder", decoder, DECODERS)
    own = decoder if isinstance(decoder, Decoder) else None
    if scheme is not None:
        if weights is not None:
            raise ConfigError(f"scheme must not go with weights, got {type(weights).__name__}")
        found = scheme if isinstance(scheme, Scheme) else schemes.get(scheme)
        weights = SchemeWeights(npu, found, own)
    elif own is not None:
        raise ConfigError("decoder must be that of a scheme to be a record, got no scheme")
    if isinstance(weights, SchemeWeights):
        if decoder == "stream":
            raise ConfigError(f"decoder 'stream' must not go with scheme {weights.scheme.name!r}")
        return weights, None if decoder == "compiler" else weights
    sizes = exact_sizes(program, npu) if weights is None else weights
    if decoder != "stream":
        return sizes, None
    encoder = getattr(sizes, "encoder", None)
    if encoder is None:
        raise ConfigError(
            f"decoder 'stream' must have weights that are known, got {type(sizes).__name__}"
        )
    return sizes, ChunkDecoder(npu, encoder)


def _in_scheme(cost: Cost, weights: SchemeWeights) -> Cost:
    """A cost labelled as that of another scheme than the NPU's own."""
    name = weights.scheme.label
    notes = [f"what if: weights are coded by scheme {name!r}, which no Ethos-U reads"]
    if isinstance(weights.scheme, EthosUMlw):
        notes = [f"what if: weights decode at the rates of scheme {name!r}, unlike in the compiler"]
    if not weights.scheme.lossless:
        notes.append(f"scheme {name!r} changes weights that it cannot code")
    rates = weights.rates
    all_cores = replace(rates, lanes=rates.lanes * weights.npu.n_cores)
    decoder = all_cores if cost.decoder == "scheme" else None
    return replace(cost, scheme=name, scheme_decoder=decoder, notes=(*notes, *cost.notes))


def cost_of(
    schedule: Schedule,
    cpu_cycles: CpuCycles | None = None,
    arena_limit_bytes: int | None = None,
) -> Cost:
    """The cost of a program whose schedule is known; the other arguments as in `estimate`."""
    program, target = schedule.program, schedule.target
    on_cpu = {
        index: _cpu_cost(op, cpu_cycles) for index, op in enumerate(program.ops) if not op.on_npu
    }
    flash = _flash_bytes(schedule)
    held = _held_bytes(schedule, flash)
    plans = schedule.form.plans
    overflows = _overflows(schedule, held)
    return Cost(
        model=program.name,
        npu=target.npu.name,
        system_config=target.system.name,
        memory_mode=target.mode.name,
        clock_hz=target.clock_hz,
        ops=Lazy(len(program.ops), partial(_op_costs, schedule, on_cpu)),
        total_cycles=int(schedule.total_cycles.sum()) + sum(on_cpu.values()),
        npu_cycles=int(np.delete(schedule.npu_cycles, list(on_cpu)).sum()),
        macs=_macs(program),
        sram_peak_bytes=held["sram"],
        dram_peak_bytes=held.get("dram", 0),
        flash_bytes=flash,
        weights_encoded_bytes=int(plans[last_readers(program), WEIGHT_BYTES].sum()),
        arena=_stretches(program, schedule.ranges, schedule.arena),
        spilled=_stretches(program, schedule.spilled_ranges, schedule.spilled_arena),
        arena_limit_bytes=arena_limit_bytes,
        n_cpu_ops=len(on_cpu),
        decoder=schedule.decoder,
        too_small=tuple(overflows),
        notes=(*_notes(schedule, len(on_cpu), cpu_cycles), *overflows.values()),
    )


def _bytes_in_use(schedule: Schedule) -> list[int]:
    """What is in the arena while each operation runs."""
    usage, times = schedule.ranges.usage_bytes, schedule.ranges.op_time
    in_use: list[int] = (usage[times] if usage.size else np.zeros_like(times)).tolist()
    return in_use


@once_per_object
def _macs(program: Program) -> int:
    return sum(op.macs for op in program.ops)


def _op_costs(schedule: Schedule, on_cpu: Mapping[int, int]) -> Iterator[OpCost]:
    """Operation by operation; on_cpu: cycles of those that the CPU executes, by index."""
    for index, n_bytes in enumerate(_bytes_in_use(schedule)):
        yield _op_cost(schedule, index, on_cpu.get(index, 0), n_bytes)


def _op_cost(schedule: Schedule, index: int, cpu_cycles: int, sram_bytes: int) -> OpCost:
    op, plan = schedule.program.ops[index], schedule.form.plans[index]
    cycles, block = schedule.cycles.cycles[index], schedule.form.blocks[index, : col.BLOCK_COLUMNS]
    return OpCost(
        name=op.name,
        op=op.kind,
        source=op.name if op.source is None else op.source.name,
        cycles=int(schedule.total_cycles[index]) if op.on_npu else cpu_cycles,
        npu_cycles=int(schedule.npu_cycles[index]) if op.on_npu else 0,
        macs=op.macs,
        bound=_bound(schedule, index),
        mac_cycles=int(cycles[col.MAC_CYCLES]),
        output_cycles=int(cycles[col.OUTPUT_CYCLES]),
        issue_cycles=int(cycles[col.ISSUE_CYCLES]),
        compute_cycles=int(cycles[col.OP_CYCLES]),
        decode_cycles=schedule.decode_cycles(index),
        block=BlockConfig(*block.tolist()) if block.all() else None,
        traversal="" if op.weights is None else op.weights.traversal,
        traffic=_traffic(schedule, index) if op.on_npu else {},
        ofm_shape=op.ofm.part[1:],
        ifm_bits=schedule.program.maps[op.ifm.map].bits,
        weights_encoded_bytes=int(plan[WEIGHT_BYTES]),
        scale_bytes=int(plan[SCALE_BYTES]),
        depth_slices=plan_depths(plan, schedule.rows[index]),
        buffering=BUFFERINGS[int(plan[HALF0] > 0) + int(plan[HALF1] > 0)],
        pre_buffered=bool(plan[PRE_BUFFERED]),
        weight_buffer_bytes=int(plan[HALF0] + plan[HALF1]),
        sram_bytes=sram_bytes,
        cascade=int(schedule.form.cascade[index]),
        stripe_height=int(schedule.form.stripes[index]),
        obstacle=op.obstacle,
        source_op=_source_kind(op),
    )


def _cpu_cost(op: NpuOp, cpu_cycles: CpuCycles | None) -> int:
    """What the user says an operation of the CPU takes; 0 where nothing is said."""
    if cpu_cycles is None:
        return 0
    kind = _source_kind(op)
    told = cpu_cycles.get(kind, 0) if isinstance(cpu_cycles, Mapping) else cpu_cycles(op)
    return integer(f"cpu_cycles of {op.name!r}", told, 0, _CYCLES_MAX)


def _source_kind(op: NpuOp) -> str:
    return op.kind if op.source is None else op.source.kind


def _bound(schedule: Schedule, index: int) -> str:
    """What an operation waits for, one of `npusim.cost.result.BOUNDS`."""
    op, cycles = schedule.program.ops[index], schedule.cycles.cycles[index]
    if not op.on_npu:
        return "cpu"
    memory_cycles = schedule.cycles.memory_cycles[index, :, col.MEMORY_CYCLES]
    total, npu = int(schedule.total_cycles[index]), int(schedule.npu_cycles[index])
    if total == 0:
        return "none"
    if npu < total:
        return memory_role(schedule.roles.memories[int(memory_cycles.argmax())].name)
    if npu > 2 * int(cycles[col.OP_CYCLES]):
        return "weight_dma"
    if schedule.decode_cycles(index) >= cycles[col.OP_CYCLES]:
        return "decode"
    if op.unit == "elementwise":
        return "issue" if cycles[col.ISSUE_CYCLES] > cycles[col.OUTPUT_CYCLES] else "output"
    extents, block = op.ofm.part[1:], schedule.form.blocks[index, : col.IFM_BLOCK_HEIGHT]
    n_blocks = float(np.prod([max(e / b, 1.0) for e, b in zip(extents, block, strict=True)]))
    paces = {
        "mac": float(cycles[col.MAC_CYCLES]),
        "output": float(cycles[col.OUTPUT_CYCLES]),
        "issue": float(cycles[col.ISSUE_CYCLES]) * n_blocks,
    }
    return max(paces, key=lambda name: paces[name])


def _traffic(schedule: Schedule, index: int) -> dict[str, Traffic]:
    """Bytes moved from and to each memory."""
    op, plan, roles = schedule.program.ops[index], schedule.form.plans[index], schedule.roles
    moved = schedule.cycles.moved_bytes[index]
    n = len(roles.memories)
    read: list[dict[str, int]] = [{} for _ in range(n)]
    written: list[dict[str, int]] = [{} for _ in range(n)]

    def add(to: list[dict[str, int]], memory: int, what: str, n_bytes: int) -> None:
        if n_bytes:
            to[memory][what] = to[memory].get(what, 0) + n_bytes

    for to, place, column in (
        (read, col.IFM_PLACE, col.IFM_READ),
        (read, col.IFM2_PLACE, col.IFM2_READ),
        (written, col.OFM_PLACE, col.OFM_WRITTEN),
        (read, col.SCRATCH_PLACE, col.SCRATCH_READ),
        (written, col.SCRATCH_PLACE, col.SCRATCH_WRITTEN),
    ):
        add(to, int(schedule.places[index, place]), "feature_maps", int(moved[column]))
    source = roles.constants
    if plan[HALF0]:
        source = roles.staging
        copied = int(plan[WEIGHT_BYTES] + plan[SCALE_BYTES])
        add(read, roles.constants, "weights", copied)
        add(written, roles.staging, "weights", copied)
    add(read, source, "weights", int(moved[col.WEIGHTS_READ]))
    add(read, source, "scales", int(moved[col.SCALES_READ]))
    add(read, roles.constants, "tables", op.table_bytes)
    memory_cycles = schedule.cycles.memory_cycles[index, :, col.MEMORY_CYCLES].tolist()
    return {
        memory_role(memory.name): Traffic(read[i], written[i], memory_cycles[i])
        for i, memory in enumerate(roles.memories)
    }


def _flash_bytes(schedule: Schedule) -> int:
    plans, depths = schedule.form.plans, schedule.form.blocks[:, col.OFM_BLOCK_DEPTH].tolist()
    encoded = [
        None
        if op.weights is None
        else EncodedWeights(int(plan[WEIGHT_BYTES]), plan_depths(plan, row), depth)
        for op, plan, row, depth in zip(
            schedule.program.ops, plans, schedule.rows, depths, strict=True
        )
    ]
    return flash_bytes(flash_items(schedule.program, encoded, schedule.target.npu.n_cores))


def _stretches(program: Program, ranges: LiveRanges, arena: Arena) -> Sequence[MapMemory]:
    """What is in a memory, in the order of its ranges."""
    return Lazy(len(ranges.start), lambda: _all_stretches(program, ranges, arena))


def _all_stretches(program: Program, ranges: LiveRanges, arena: Arena) -> tuple[MapMemory, ...]:
    names: dict[int, str] = {}
    for index, one in enumerate(ranges.of_map.tolist()):
        if one >= 0:
            name = program.maps[index].name
            names[one] = f"{names[one]}, {name}" if one in names else name
    for index, buffers in enumerate(ranges.of_buffer.tolist()):
        for one in buffers:
            if one >= 0:
                names.setdefault(one, f"weights of {program.ops[index].name}")
    steps = ranges.op_time
    first = np.searchsorted(steps, ranges.start, side="right") - 1
    last = np.searchsorted(steps, ranges.end, side="right") - 1
    at_peak = ranges.at_peak
    return tuple(
        MapMemory(
            name=names[i],
            n_bytes=int(ranges.n_bytes[i]),
            first_op=max(int(first[i]), 0),
            last_op=int(last[i]),
            address=int(arena.address[i]),
            at_peak=bool(at_peak[i]),
        )
        for i in sorted(names)
    )


def _held_bytes(schedule: Schedule, flash_bytes: int) -> dict[str, int]:
    """What each memory has to hold at once, by its name."""
    roles = schedule.roles
    held = dict.fromkeys((memory.name for memory in roles.memories), 0)
    held[roles.memories[roles.staging].name] += schedule.arena.n_bytes
    held[roles.memories[roles.feature_maps].name] += schedule.spilled_arena.n_bytes
    held[roles.memories[roles.constants].name] += flash_bytes
    return held


def _overflows(schedule: Schedule, held: dict[str, int]) -> dict[str, str]:
    """By name of a memory that is too small: what it would have to hold."""
    return {
        memory.name: f"{memory.name} must hold {held[memory.name]:,} bytes, its size is "
        f"{memory.size_bytes:,}"
        for memory in schedule.roles.memories
        if memory.size_bytes is not None and held[memory.name] > memory.size_bytes
    }


def _notes(schedule: Schedule, n_cpu_ops: int, cpu_cycles: CpuCycles | None) -> tuple[str, ...]:
    notes = []
    if n_cpu_ops and cpu_cycles is None:
        notes.append(f"{n_cpu_ops} operations of the CPU are not in the total cycles")
    if schedule.decoder == "stream":
        notes.append("weights are decoded at one chunk iteration a cycle, unlike in Arm's compiler")
    return tuple(notes)
