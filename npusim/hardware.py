# SPDX-License-Identifier: Apache-2.0
"""A machine: the NPU with its clock and memories, from presets, files and overrides.

from npusim.hardware import machine
machine("ethos-u55-256", "RTSS_HP_SRAM_MRAM")                      # a vendor's memories
machine("ethos-u55-128", "Mine", "Mine", config_files=["vela.ini"])  # one's own
machine("ethos-u55-128", overrides={"sram_bytes_per_cycle": 4})    # what if?
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence, Set
from dataclasses import MISSING, dataclass, field, fields, replace
from functools import cache
from hashlib import blake2b
from importlib import resources
from os import PathLike
from typing import Any, Final, TypeVar

from npusim._arguments import choice
from npusim.errors import ConfigError, UnknownNameError
from npusim.memories import (
    BANDWIDTHS,
    PORTS,
    Memories,
    Memory,
    MemoryMode,
    MemorySpec,
    SystemConfig,
    resolve,
)
from npusim.npu import NpuConfig, get
from npusim.vela_ini import VelaIni, read_vela_ini

DEFAULT_NPU: Final = "ethos-u55-128"
DEFAULT_SYSTEM_CONFIG: Final = "Ethos_U55_High_End_Embedded"
DEFAULT_MEMORY_MODE: Final = "Shared_Sram"
INTERNAL_DEFAULT: Final = "internal-default"

_NPU_FIELDS: Final = tuple(item.name for item in fields(NpuConfig) if item.name != "name")
_MEMORY_FIELDS: Final = tuple(item.name for item in fields(MemorySpec) if item.name != "role")
_Record = TypeVar("_Record", NpuConfig, MemorySpec, MemoryMode)
_U55_PREFIX: Final = "Ethos_U55"
_U55_AXI_BYTES: Final = 8
_OTHER_AXI_BYTES: Final = 16


@dataclass(frozen=True, slots=True)
class Machine:
    """An NPU beside its memories: all that the cost of a network depends on.

    Attributes:
        npu: the NPU.
        system: its clock and the memories at its ports.
        mode: what is kept in which of them.
        memories: those, resolved.

    Raises:
        ConfigError: Arm's compiler refuses that memory mode on that system.
    """

    npu: NpuConfig
    system: SystemConfig
    mode: MemoryMode
    memories: Memories = field(init=False, compare=False, repr=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "memories", resolve(self.npu, self.system, self.mode))

    @property
    def feature_maps(self) -> Memory:
        """Memory of the arena of feature maps."""
        return self.memories.feature_maps

    @property
    def constants(self) -> Memory:
        """Memory of weights, scales and biases."""
        return self.memories.constants

    @property
    def staging(self) -> Memory:
        """Memory that weights, and feature maps if `spills`, are copied to before use."""
        return self.memories.staging

    @property
    def weights_are_staged(self) -> bool:
        """Whether weights can be copied to another memory before they are used."""
        return self.constants.name != self.staging.name

    @property
    def spills(self) -> bool:
        """Whether feature maps live outside the staging memory, and those that fit move into it."""
        return self.staging.name != self.feature_maps.name

    @property
    def clock_hz(self) -> float:
        """Clock of the NPU."""
        return self.system.clock_hz

    @property
    def content_key(self) -> str:
        """A hash of all that cycles and bytes depend on: equal for machines that differ in names.

        The same in every process and on every computer; 32 hexadecimal digits.
        """
        content = self.to_json()
        used = {
            "npu": {key: v for key, v in content["npu"].items() if key != "name"},
            "clock_hz": self.clock_hz,
            "arena_cache_size_bytes": self.mode.arena_cache_size_bytes,
            "memories": content["memories"],
        }
        text = json.dumps(used, sort_keys=True, allow_nan=False)
        return blake2b(text.encode(), digest_size=16).hexdigest()

    def field_values(self) -> dict[str, Any]:
        """What `override` can change, by name, with the present values."""
        return {name: _value(self, *at) for name, at in _field_names(*self._roles).items()}

    @property
    def _roles(self) -> tuple[str, ...]:
        return tuple(getattr(self.system, port).role for port in PORTS)

    def override(self, values: Mapping[str, Any]) -> Machine:
        """This machine with other values of the fields named.

        A bandwidth, whether given as a memory's clock_scale, bytes_per_cycle or bytes_per_s, takes
        the place of the one there was. ``None`` lifts a limit that may be absent.

        Args:
            values: new values by the names of `field_values`: the fields of `NpuConfig`,
                ``clock_hz``, ``arena_cache_size_bytes``, and those of `MemorySpec` after the
                memory's role, such as ``sram_bytes_per_cycle``.

        Raises:
            ConfigError: a value is out of its range, two bandwidths are given for one memory, or
                the machine no longer works.
            UnknownNameError: the machine has no such field; lists them and guesses.

        >>> slow = machine().override({"sram_bytes_per_cycle": 4, "shram_banks": 48})
        >>> slow.feature_maps.bytes_per_cycle
        4.0
        """
        known = _field_names(*self._roles)
        changes: dict[str, dict[str, Any]] = {}
        for name, value in values.items():
            if name not in known:
                raise UnknownNameError("field of the hardware", name, known)
            record, attribute = known[name]
            changes.setdefault(record, {})[attribute] = value
        npu, system, mode = (changes.get(record, {}) for record in ("npu", "system", "mode"))
        for port in PORTS:
            spec = getattr(self.system, port)
            if spec.role in changes:
                system[port] = _changed(spec, changes[spec.role])
        return Machine(
            replace(self.npu, **npu) if npu else self.npu,
            replace(self.system, **system) if system else self.system,
            replace(self.mode, **mode) if mode else self.mode,
        )

    def to_json(self) -> dict[str, Any]:
        """JSON values.

        Keys: ``npu``, ``system_config`` and ``memory_mode``, the records given, of which
        `from_json` makes the same machine; and ``memories``: ``feature_maps``, ``constants`` and
        ``staging`` as resolved.
        """
        return {
            "npu": self.npu.to_json(),
            "system_config": self.system.to_json(),
            "memory_mode": self.mode.to_json(),
            "memories": {
                item.name: getattr(self.memories, item.name).to_json() for item in fields(Memories)
            },
        }

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Machine:
        """The machine of `to_json`; its ``memories`` follow from the rest.

        Raises:
            ConfigError: a record lacks a field, or a value is out of its range.
            UnknownNameError: a record has a field too many, or one that names nothing.
        """
        known = {"npu", "system_config", "memory_mode", "memories"}
        _check_keys("a machine", values, known - {"memories"}, known)
        return cls(
            _record(NpuConfig, "npu", values["npu"]),
            _system("system_config", values["system_config"]),
            _record(MemoryMode, "memory_mode", values["memory_mode"]),
        )


def machine(
    npu: str | NpuConfig = DEFAULT_NPU,
    system_config: str | SystemConfig = DEFAULT_SYSTEM_CONFIG,
    memory_mode: str | MemoryMode = DEFAULT_MEMORY_MODE,
    *,
    config_files: Sequence[str | PathLike[str]] = (),
    overrides: Mapping[str, Any] | None = None,
    outstanding_limits: bool = False,
    vela_axi_quirk: bool = False,
) -> Machine:
    """The machine of these names.

    Args:
        npu: preset name or record.
        system_config: name in `config_files` or among `system_config_names`, or a record; or
            "internal-default", which Arm's compiler takes where none is given, by kind of NPU.
        memory_mode: name in `config_files` or among `memory_mode_names`, or a record; or
            "internal-default".
        config_files: configuration files of Arm's compiler; their names come before the presets'.
        overrides: new values of single fields, see `Machine.override`.
        outstanding_limits: whether the presets' and files' numbers of reads and writes under way
            limit the bandwidth, see `npusim.memories.Memory.read_bytes_per_cycle`.
        vela_axi_quirk: whether AXI ports are as wide as regor 5.2.0 takes them to be: 8 bytes if
            the system config's *name* starts with Ethos_U55, else 16, whatever the NPU. By default
            they are as wide as the NPU's, so that Arm's compiler seems too fast with a vendor's
            system config on an Ethos-U55.

    Raises:
        ConfigError: a value is out of range, or the memory mode does not suit the system.
        FormatError: a configuration file is bad.
        UnknownNameError: no such name; lists those there are and guesses.

    >>> machine().constants.bytes_per_cycle
    1.0
    """
    given = (npu, system_config, memory_mode)
    is_preset = not config_files and all(isinstance(one, str) for one in given)
    make = _preset_machine if is_preset else _machine
    found = make(*given, tuple(config_files), bool(outstanding_limits), bool(vela_axi_quirk))
    return found.override(overrides) if overrides else found


def _machine(
    npu: str | NpuConfig,
    system_config: str | SystemConfig,
    memory_mode: str | MemoryMode,
    config_files: tuple[str | PathLike[str], ...],
    outstanding_limits: bool,
    vela_axi_quirk: bool,
) -> Machine:
    """As `machine`, which says what the arguments are."""
    config = get(npu)
    ini = read_vela_ini(*config_files, outstanding_limits=outstanding_limits)
    built_in = _presets(outstanding_limits)
    systems = {**built_in.system_configs, **ini.system_configs}
    modes = {**built_in.memory_modes, **ini.memory_modes}
    if system_config == INTERNAL_DEFAULT:
        system_config = _compiler_default(config, "system_config")
    if memory_mode == INTERNAL_DEFAULT:
        memory_mode = _compiler_default(config, "memory_mode")
    if not isinstance(system_config, SystemConfig):
        system_config = systems[choice("system config", system_config, systems)]
    if not isinstance(memory_mode, MemoryMode):
        memory_mode = modes[choice("memory mode", memory_mode, modes)]
    if vela_axi_quirk:
        is_u55 = system_config.name.startswith(_U55_PREFIX)
        config = config.replace(axi_width_bytes=_U55_AXI_BYTES if is_u55 else _OTHER_AXI_BYTES)
    return Machine(config, system_config, memory_mode)


_preset_machine = cache(_machine)
"""For names of presets alone, which always stand for the same."""


def system_config_names() -> list[str]:
    """Sorted names of the built-in system configs: Arm's, and those that vendors published."""
    return sorted(_presets(False).system_configs)


def memory_mode_names() -> list[str]:
    """Sorted names of the built-in memory modes."""
    return sorted(_presets(False).memory_modes)


def parse_settings(texts: Iterable[str]) -> dict[str, Any]:
    """Values by name, for `Machine.override`, of texts ``name=value`` that an option took.

    A value is a number, several of them between commas, or ``none``.

    Raises:
        ConfigError: there is no ``=``, the value is none of these, or a name is there twice.

    >>> parse_settings(["clock_hz=250e6", "sram_max_reads=none"])
    {'clock_hz': 250000000, 'sram_max_reads': None}
    """
    values: dict[str, Any] = {}
    for text in texts:
        name, equals, value = (part.strip() for part in text.partition("="))
        if not equals or not name:
            raise ConfigError(f"a setting must be name=value, got {text!r}")
        if name in values:
            raise ConfigError(f"setting {name!r} must be given once, got it again: {text!r}")
        if value.lower() == "none":
            values[name] = None
        else:
            numbers = tuple(_number(text, part) for part in value.split(","))
            values[name] = numbers if len(numbers) > 1 else numbers[0]
    return values


def _number(text: str, part: str) -> int | float:
    """The number of `part`; a whole one, however written, as an int."""
    try:
        number = float(part)
    except ValueError:
        raise ConfigError(f"value of a setting must be a number, got {text!r}") from None
    return int(number) if number.is_integer() else number


@cache
def _field_names(*roles: str) -> dict[str, tuple[str, str]]:
    """What can be overridden where memories have these roles, in a fixed order: by name, the record
    ("npu", "system", "mode" or a role) and its attribute."""
    names = {name: ("npu", name) for name in _NPU_FIELDS}
    names |= {"clock_hz": ("system", "clock_hz")}
    names |= {"arena_cache_size_bytes": ("mode", "arena_cache_size_bytes")}
    return names | {f"{role}_{name}": (role, name) for role in roles for name in _MEMORY_FIELDS}


def _value(machine: Machine, record: str, attribute: str) -> Any:
    if record in ("npu", "system", "mode"):
        return getattr(getattr(machine, record), attribute)
    specs = (machine.system.axi0, machine.system.axi1)
    return getattr(next(spec for spec in specs if spec.role == record), attribute)


def _changed(spec: MemorySpec, values: dict[str, Any]) -> MemorySpec:
    if any(values.get(name) is not None for name in BANDWIDTHS):
        values = dict.fromkeys(BANDWIDTHS) | values
        if values["clock_scale"] is None:
            values = {"ports_used": 1} | values  # the new bandwidth is that of all ports
    return replace(spec, **values)


def _check_keys(what: str, values: Any, required: Set[str], known: Set[str]) -> None:
    if not isinstance(values, Mapping):
        raise ConfigError(f"{what} must have keys and values, got {type(values).__name__}")
    for key in values:
        choice(f"key of {what}", key, known)
    for key in sorted(required):
        if key not in values:
            raise ConfigError(f"{what} must have the key {key!r}, got none")


def _record(kind: type[_Record], what: str, values: Any) -> _Record:
    """The dataclass of JSON values by attribute."""
    names = {item.name for item in fields(kind)}
    required = {item.name for item in fields(kind) if item.default is MISSING}
    _check_keys(what, values, required, names)
    return kind(**values)


def _system(what: str, values: Any) -> SystemConfig:
    _check_keys(what, values, {"name", "clock_hz", *PORTS}, {"name", "clock_hz", *PORTS})
    specs = {port: _record(MemorySpec, f"{port} of {what}", values[port]) for port in PORTS}
    return SystemConfig(values["name"], values["clock_hz"], **specs)


@cache
def _presets(outstanding_limits: bool) -> VelaIni:
    systems: dict[str, SystemConfig] = {}
    modes: dict[str, MemoryMode] = {}
    for group in _preset_file()["groups"]:
        for name, values in group["system_configs"].items():
            if not outstanding_limits:
                for port in PORTS:
                    values[port] |= {"max_reads": None, "max_writes": None}
            systems[name] = _system(f"system config {name}", {"name": name, **values})
        for name, values in group["memory_modes"].items():
            modes[name] = MemoryMode(name, **values)
    return VelaIni(systems, modes)


def _compiler_default(npu: NpuConfig, what: str) -> str:
    """The name that Arm's compiler takes where none is given."""
    defaults: dict[str, dict[str, str]] = _preset_file()["internal_defaults"]
    for family, names in defaults.items():
        if npu.name.startswith(family):
            return names[what]
    raise ConfigError(
        f"{what} {INTERNAL_DEFAULT!r} must be asked for an npu whose name begins with "
        f"{' or '.join(defaults)}, got {npu.name!r}"
    )


def _preset_file() -> dict[str, Any]:
    text = resources.files("npusim").joinpath("memory_presets.json").read_text(encoding="utf-8")
    values: dict[str, Any] = json.loads(text)
    return values
