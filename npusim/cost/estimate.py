# SPDX-License-Identifier: Apache-2.0
"""What a network costs on an NPU: cycles, memory and traffic of every operation.

    import npusim
    cost = npusim.estimate(npusim.load("model.tflite"), npu="ethos-u55-128")
    cost.total_cycles, cost.sram_peak_bytes, [(op.name, op.cycles, op.bound) for op in cost.ops]

Schedule and cycles are those of Arm's compiler (Vela 5.2.0, its default core "regor"): what the
compiler prints, which is an estimate itself.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Final

import numpy as np

from npusim import schemes
from npusim._arguments import choice, integer
from npusim._once import once_per_object
from npusim.cost import columns as col
from npusim.cost.arena import Arena
from npusim.cost.decoder import ChunkDecoder, WeightDecoder
from npusim.cost.flash import last_readers, other_bytes, weights_bytes
from npusim.cost.liveness import LiveRanges
from npusim.cost.lowering import program as lower
from npusim.cost.op_costs import op_costs, source_kind
from npusim.cost.plan_columns import FIRST_DEPTH, NEXT_DEPTH, SCALE_BYTES, WEIGHT_BYTES
from npusim.cost.program import NpuOp, Program
from npusim.cost.result import Cost, Lazy, MapMemory
from npusim.cost.schedule import Schedule, Scheduler
from npusim.cost.scheme_weights import SchemeWeights
from npusim.cost.weight_sizes import ExpectedSizes, WeightSizes, exact_sizes
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
        weights: tells what weights take in flash; None: exactly what Arm's compiler encodes. If
            that is what is expected of them, `Cost.notes` says what they are taken to be.
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
    if isinstance(sizes, ExpectedSizes):
        note = f"weights are not known: their bytes are those expected of {sizes.assumption}"
        return replace(cost, notes=(note, *cost.notes))
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
    cpu_total = sum(on_cpu.values())
    low, high = (cycles + cpu_total for cycles in schedule.cycles_range)
    return Cost(
        model=program.name,
        npu=target.npu.name,
        system_config=target.system.name,
        memory_mode=target.mode.name,
        clock_hz=target.clock_hz,
        ops=Lazy(len(program.ops), partial(op_costs, schedule, on_cpu)),
        total_cycles=int(schedule.total_cycles.sum()) + cpu_total,
        cycles_range=(low, high),
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


@once_per_object
def _macs(program: Program) -> int:
    return sum(op.macs for op in program.ops)


def _cpu_cost(op: NpuOp, cpu_cycles: CpuCycles | None) -> int:
    """What the user says an operation of the CPU takes; 0 where nothing is said."""
    if cpu_cycles is None:
        return 0
    kind = source_kind(op)
    told = cpu_cycles.get(kind, 0) if isinstance(cpu_cycles, Mapping) else cpu_cycles(op)
    return integer(f"cpu_cycles of {op.name!r}", told, 0, _CYCLES_MAX)


def _flash_bytes(schedule: Schedule) -> int:
    program, plans = schedule.program, schedule.form.plans
    sizes = plans[:, [WEIGHT_BYTES, SCALE_BYTES]]
    depths = schedule.form.blocks[:, [col.OFM_BLOCK_DEPTH]]
    cuts = np.concatenate([plans[:, [FIRST_DEPTH, NEXT_DEPTH]], depths], axis=1)
    return other_bytes(program) + weights_bytes(program, sizes, cuts)


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
    low, high = schedule.cycles_range
    if low < high:
        notes.append(
            f"a few bytes of the first weights decide whether these have a buffer, and the total "
            f"cycles, between {low:,} and {high:,}, of which the mean is taken"
        )
    if n_cpu_ops and cpu_cycles is None:
        notes.append(f"{n_cpu_ops} operations of the CPU are not in the total cycles")
    if schedule.decoder == "stream":
        notes.append("weights are decoded at one chunk iteration a cycle, unlike in Arm's compiler")
    return tuple(notes)
