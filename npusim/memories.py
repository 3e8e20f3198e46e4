# SPDX-License-Identifier: Apache-2.0
"""The memories around the NPU, and which of them holds what.

A `SystemConfig` says which memory is on which AXI port of the NPU and how fast it is, as Arm's
system configurations do; a `MemoryMode` says on which port constants, feature maps and staged
weights are kept. `resolve` puts both together for one NPU.

Bandwidth is stated in bytes per NPU cycle. Arm's files give it as the fraction of one AXI port's:

    bytes per cycle = clock_scale x ports used x AXI width in bytes

so that on the 8 bytes wide ports of an Ethos-U55, ``clock_scale=0.125`` is 1 byte per cycle.

Source: [VELA] configuration files of 5.2.0, and what regor 5.2.0 makes of them.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any, Final

from npusim._arguments import choice, integer, positive
from npusim.errors import ConfigError
from npusim.npu import NpuConfig

ROLES: Final = ("sram", "dram", "on_chip_flash", "off_chip_flash")
"""What a memory can be; a system has at most one of each."""
PORTS: Final = ("axi0", "axi1")
BANDWIDTHS: Final = ("clock_scale", "bytes_per_cycle", "bytes_per_s")
"""The fields of a `MemorySpec` of which exactly one is given."""
_INTEGER_MAX: Final = 1 << 40
_LIMITS: Final = ("size_bytes", "max_reads", "max_writes")
_LEAST: Final = {
    "read_latency_cycles": 0,
    "write_latency_cycles": 0,
    "burst_bytes": 1,
    **dict.fromkeys(_LIMITS, 1),
}
"""Integers of a memory and the least each can be; those of `_LIMITS` can be None."""
_CONSTANTS: Final = ("dram", "on_chip_flash", "off_chip_flash")
_FEATURE_MAPS: Final = ("sram", "dram")


@dataclass(frozen=True, slots=True)
class MemorySpec:
    """A memory as a data sheet or a file describes it: its bandwidth may depend on the NPU.

    Attributes:
        role: "sram", "dram", "on_chip_flash" or "off_chip_flash".
        clock_scale: bandwidth as the fraction of one AXI port's, or None.
        bytes_per_cycle: bandwidth in bytes per NPU cycle, taken as it is, or None.
        bytes_per_s: bandwidth in bytes per second, whatever the NPU's clock, or None. Exactly one
            of these three is given.
        ports_used: AXI ports that share the memory's traffic, each with `clock_scale`.
        read_latency_cycles: NPU cycles until the first byte of a read arrives.
        write_latency_cycles: NPU cycles until a write is done.
        burst_bytes: bytes of the shortest efficient burst; a shorter one takes as long.
        size_bytes: bytes it holds, None where unlimited.
        max_reads: reads that can be under way at the same time, None where that limits nothing.
        max_writes: the same for writes.

    Raises:
        ConfigError: a number is not in its range, or not exactly one bandwidth is given.
        UnknownNameError: no such role.
    """

    role: str
    clock_scale: float | None = None
    bytes_per_cycle: float | None = None
    bytes_per_s: float | None = None
    ports_used: int = 1
    read_latency_cycles: int = 0
    write_latency_cycles: int = 0
    burst_bytes: int = 1
    size_bytes: int | None = None
    max_reads: int | None = None
    max_writes: int | None = None

    def __post_init__(self) -> None:
        choice("memory", self.role, ROLES)
        given = [name for name in BANDWIDTHS if getattr(self, name) is not None]
        if len(given) != 1:
            raise ConfigError(
                f"bandwidth of memory {self.role!r} must be given as one of "
                f"{', '.join(BANDWIDTHS)}, got {' and '.join(given) or 'none'}"
            )
        _check(self, self.role, (given[0],), positive)
        _check(self, self.role, ("ports_used",), _positive_integer)
        _check_transfers(self, self.role)
        if self.clock_scale is None and self.ports_used != 1:
            raise ConfigError(
                f"{self.role}_ports_used must be 1 where {self.role}_{given[0]} is the bandwidth "
                f"of all ports, got {self.ports_used}"
            )

    def at(self, npu: NpuConfig, clock_hz: float) -> Memory:
        """This memory beside an NPU with that clock."""
        if self.bytes_per_cycle is not None:
            bytes_per_cycle = self.bytes_per_cycle
        elif self.bytes_per_s is not None:
            bytes_per_cycle = self.bytes_per_s / clock_hz
        else:
            assert self.clock_scale is not None
            bytes_per_cycle = self.clock_scale * self.ports_used * npu.axi_width_bytes
        return Memory(
            self.role,
            bytes_per_cycle,
            self.read_latency_cycles,
            self.write_latency_cycles,
            self.burst_bytes,
            self.size_bytes,
            self.max_reads,
            self.max_writes,
        )

    def to_json(self) -> dict[str, Any]:
        """JSON values by attribute, without those that are None."""
        return _without_none(self)


@dataclass(frozen=True, slots=True)
class Memory:
    """A memory as the cost model sees it, beside a certain NPU.

    Attributes:
        name: its role: "sram", "dram", "on_chip_flash" or "off_chip_flash"; memories of one
            machine with the same name are the same memory.
        bytes_per_cycle: peak bandwidth in bytes per NPU cycle.
        read_latency_cycles: NPU cycles until the first byte of a read arrives.
        write_latency_cycles: NPU cycles until a write is done.
        burst_bytes: bytes of the shortest efficient burst; a shorter one takes as long.
        size_bytes: bytes it holds, None where unlimited.
        max_reads: reads that can be under way at the same time, None where that limits nothing.
        max_writes: the same for writes.

    Raises:
        ConfigError: a number is not in its range.
        UnknownNameError: no such role.
    """

    name: str
    bytes_per_cycle: float
    read_latency_cycles: int
    write_latency_cycles: int
    burst_bytes: int
    size_bytes: int | None = None
    max_reads: int | None = None
    max_writes: int | None = None

    def __post_init__(self) -> None:
        choice("memory", self.name, ROLES)
        _check(self, self.name, ("bytes_per_cycle",), positive)
        _check_transfers(self, self.name)

    @property
    def read_bytes_per_cycle(self) -> float:
        """Bandwidth of reads: the peak, or what the reads under way can bring at the latency.

        By Little's law `max_reads` bursts arrive in every `read_latency_cycles`. Differs: Arm's
        compiler knows the limit of no Ethos-U55 or U65; where `max_reads` is None, as in all
        presets, this is the peak.
        """
        return self._sustained(self.max_reads, self.read_latency_cycles)

    @property
    def write_bytes_per_cycle(self) -> float:
        """Bandwidth of writes, likewise."""
        return self._sustained(self.max_writes, self.write_latency_cycles)

    def _sustained(self, outstanding: int | None, latency_cycles: int) -> float:
        if outstanding is None or latency_cycles == 0:
            return self.bytes_per_cycle
        return min(self.bytes_per_cycle, outstanding * self.burst_bytes / latency_cycles)

    def to_json(self) -> dict[str, Any]:
        """JSON values: attributes that are not None, and both sustained bandwidths."""
        return _without_none(self) | {
            "read_bytes_per_cycle": self.read_bytes_per_cycle,
            "write_bytes_per_cycle": self.write_bytes_per_cycle,
        }


@dataclass(frozen=True, slots=True)
class SystemConfig:
    """The clock of the NPU and the memories at its AXI ports.

    Attributes:
        name: the preset's name, or one's own.
        clock_hz: clock of the NPU.
        axi0: the memory at the first port, which reads and writes.
        axi1: the memory at the second port; the same one as `axi0` if it has the same role.

    Raises:
        ConfigError: the name is empty, the clock is not positive, or two memories share a role.
    """

    name: str
    clock_hz: float
    axi0: MemorySpec
    axi1: MemorySpec

    def __post_init__(self) -> None:
        if not isinstance(self.name, str) or not self.name:
            raise ConfigError(f"system config name must be text, got {self.name!r}")
        what = f"clock_hz of system config {self.name!r}"
        object.__setattr__(self, "clock_hz", positive(what, self.clock_hz))
        for port in PORTS:
            if not isinstance(getattr(self, port), MemorySpec):
                raise ConfigError(
                    f"{port} of system config {self.name!r} must be a MemorySpec, "
                    f"got {getattr(self, port)!r}"
                )
        if self.axi0.role == self.axi1.role and self.axi0 != self.axi1:
            raise ConfigError(
                f"memories at the ports of system config {self.name!r} must differ in role or be "
                f"one, got two different {self.axi0.role}"
            )

    def to_json(self) -> dict[str, Any]:
        """JSON values by attribute; memories as in `MemorySpec.to_json`."""
        ports = {port: getattr(self, port).to_json() for port in PORTS}
        return {"name": self.name, "clock_hz": self.clock_hz, **ports}


@dataclass(frozen=True, slots=True)
class MemoryMode:
    """Which port's memory holds what.

    Attributes:
        name: the preset's name, or one's own.
        constants: port of weights, scales and biases: "axi0" or "axi1".
        feature_maps: port of the arena of feature maps.
        staging: port of the memory that weights, and feature maps that fit, are copied to before
            they are used; where it holds the constants too, nothing is copied.
        arena_cache_size_bytes: limit of the arena, or of the staging memory where that is another
            than the feature maps'; None where unlimited.

    Raises:
        ConfigError: the name is empty or the limit is not a positive integer.
        UnknownNameError: no such port.
    """

    name: str
    constants: str
    feature_maps: str
    staging: str
    arena_cache_size_bytes: int | None = None

    def __post_init__(self) -> None:
        if not isinstance(self.name, str) or not self.name:
            raise ConfigError(f"memory mode name must be text, got {self.name!r}")
        for use in ("constants", "feature_maps", "staging"):
            choice(f"{use} of memory mode {self.name!r}", getattr(self, use), PORTS)
        if self.arena_cache_size_bytes is not None:
            size = _positive_integer("arena_cache_size_bytes", self.arena_cache_size_bytes)
            object.__setattr__(self, "arena_cache_size_bytes", size)

    def to_json(self) -> dict[str, Any]:
        """JSON values by attribute, without a limit of None."""
        return _without_none(self)


@dataclass(frozen=True, slots=True)
class Memories:
    """What is kept where.

    Attributes:
        feature_maps: memory of the arena.
        constants: memory of weights, scales and biases.
        staging: memory they are copied to before they are used.
    """

    feature_maps: Memory
    constants: Memory
    staging: Memory


def resolve(npu: NpuConfig, system: SystemConfig, mode: MemoryMode) -> Memories:
    """The memories of a mode, beside an NPU; refused where Arm's compiler refuses them.

    Constants are read-only and cannot be in SRAM, unless everything is; feature maps are in SRAM or
    DRAM, and weights are staged in SRAM.

    Raises:
        ConfigError: a memory cannot hold what the mode keeps there, or the NPU lacks its port.

    Source: [VELA] checks of 5.2.0.
    """
    ports = {"constants": mode.constants, "feature_maps": mode.feature_maps}
    ports["staging"] = mode.staging
    if npu.n_axi_ports == 1 and "axi1" in ports.values():
        raise ConfigError(
            f"memory mode {mode.name!r} must use axi0 alone, got axi1 "
            f"and npu {npu.name!r} with one port"
        )
    one_for_all = len(set(ports.values())) == 1
    allowed = {
        "constants": (*_CONSTANTS, "sram") if one_for_all else _CONSTANTS,
        "feature_maps": _FEATURE_MAPS,
        "staging": ("sram",),
    }
    for use, port in ports.items():
        role = getattr(system, port).role
        if role not in allowed[use]:
            raise ConfigError(
                f"memory mode {mode.name!r} must keep {use.replace('_', ' ')} in "
                f"{' or '.join(allowed[use])}, got {role} "
                f"({port} of system config {system.name!r})"
            )
    at = {port: getattr(system, port).at(npu, system.clock_hz) for port in PORTS}
    return Memories(at[mode.feature_maps], at[mode.constants], at[mode.staging])


def _check(record: Any, prefix: str, names: tuple[str, ...], check: Any) -> None:
    """Replace attributes by what `check` makes of them: a plain int or float, not numpy's."""
    for name in names:
        value = getattr(record, name)
        checked = check(f"{prefix}_{name}", value)
        if checked is not value:
            object.__setattr__(record, name, checked)


def _check_transfers(record: MemorySpec | Memory, role: str) -> None:
    for name, least in _LEAST.items():
        value = getattr(record, name)
        if type(value) is int and least <= value <= _INTEGER_MAX:
            continue  # as nearly always, where what-ifs make memories by the ten thousand
        if value is not None or name not in _LIMITS:
            checked = integer(f"{role}_{name}", value, least, _INTEGER_MAX)
            object.__setattr__(record, name, checked)


def _positive_integer(what: str, value: Any) -> int:
    return integer(what, value, 1, _INTEGER_MAX)


def _without_none(record: Any) -> dict[str, Any]:
    values = {field.name: getattr(record, field.name) for field in fields(record)}
    return {key: value for key, value in values.items() if value is not None}
