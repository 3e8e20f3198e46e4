# SPDX-License-Identifier: Apache-2.0
"""Reads the configuration files of Arm's compiler: system configs and memory modes.

    [System_Config.Mine]            [Memory_Mode.Mine]
    core_clock=400e6                const_mem_area=Axi1
    axi0_port=Sram                  arena_mem_area=Axi0
    axi1_port=OffChipFlash          cache_mem_area=Axi0
    Sram_clock_scale=1.0            arena_cache_size=262144
    Sram_burst_length=32
    OffChipFlash_clock_scale=0.125

A section with ``inherit=System_Config.Other`` has the keys of that section which it does not set
itself. Sections of other kinds belong to the compiler alone and are passed over.

Source: [VELA] 5.2.0; what its regor core takes for keys that are missing.
"""

from __future__ import annotations

import configparser
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Final, TypeVar

from npusim._arguments import choice, integer, positive
from npusim.errors import ConfigError, FormatError, UnknownNameError
from npusim.memories import MemoryMode, MemorySpec, SystemConfig

ROLES: Final = {
    "Sram": "sram",
    "Dram": "dram",
    "OnChipFlash": "on_chip_flash",
    "OffChipFlash": "off_chip_flash",
}
"""The compiler's words for a memory, and ours."""
PORTS: Final = {"Axi0": "axi0", "Axi1": "axi1"}
_USES: Final = {
    "const_mem_area": "constants",
    "arena_mem_area": "feature_maps",
    "cache_mem_area": "staging",
}
_INTEGER_MAX: Final = 1 << 40

_Check = Callable[[str, Any], Any]
_Keys = dict[str, str]
_Value = TypeVar("_Value")


def _whole(what: str, text: str, low: int) -> int:
    try:
        number = int(text)
    except ValueError:
        raise ConfigError(f"{what} must be an integer, got {text!r}") from None
    return integer(what, number, low, _INTEGER_MAX)


def _number(what: str, text: str) -> float:
    try:
        number = float(text)
    except ValueError:
        raise ConfigError(f"{what} must be a number, got {text!r}") from None
    return positive(what, number)


_MEMORY_KEYS: Final[dict[str, tuple[str, _Check]]] = {
    "clock_scale": ("clock_scale", _number),
    "ports_used": ("ports_used", partial(_whole, low=1)),
    "burst_length": ("burst_bytes", partial(_whole, low=1)),
    "read_latency": ("read_latency_cycles", partial(_whole, low=0)),
    "write_latency": ("write_latency_cycles", partial(_whole, low=0)),
    "max_reads": ("max_reads", partial(_whole, low=0)),
    "max_writes": ("max_writes", partial(_whole, low=0)),
}
_DEFAULTS: Final = {
    "clock_scale": 1.0,
    "burst_bytes": 64,
    "read_latency_cycles": 1,
    "write_latency_cycles": 1,
}
_SYSTEM_KEYS: Final = (
    "core_clock",
    "axi0_port",
    "axi1_port",
    *(f"{area}_{key}" for area in ROLES for key in _MEMORY_KEYS),
)
_MODE_KEYS: Final = (*_USES, "arena_cache_size")
_KINDS: Final = {"System_Config": _SYSTEM_KEYS, "Memory_Mode": _MODE_KEYS}
_REQUIRED: Final = {
    "System_Config": ("core_clock", "axi0_port", "axi1_port"),
    "Memory_Mode": tuple(_USES),
}


@dataclass(frozen=True, slots=True)
class VelaIni:
    """What is in configuration files of Arm's compiler.

    Attributes:
        system_configs: by name, as after ``System_Config.``.
        memory_modes: by name, as after ``Memory_Mode.``.
    """

    system_configs: Mapping[str, SystemConfig]
    memory_modes: Mapping[str, MemoryMode]


def read_vela_ini(*paths: str | os.PathLike[str], outstanding_limits: bool = False) -> VelaIni:
    """The system configs and memory modes of configuration files, read as one.

    Args:
        paths: files, of which a later one replaces whole sections of an earlier one.
        outstanding_limits: whether ``max_reads`` and ``max_writes`` count. The compiler passes
            over them for Ethos-U55 and U65, so by default they do not; 0, the number of writes of
            a read-only memory, never limits anything.

    A section that others inherit from need not be complete; then it is not listed.

    Raises:
        ConfigError: a file cannot be read.
        FormatError: a file is no such file; names the section and key.
    """
    sections: dict[str, _Keys] = {}
    origin: dict[str, str] = {}
    for path in paths:
        for section, keys in _read_sections(path).items():
            sections[section], origin[section] = keys, str(path)
    parents = {keys["inherit"] for keys in sections.values() if "inherit" in keys}
    found: dict[str, dict[str, Any]] = {kind: {} for kind in _KINDS}
    for section in sections:
        kind, _, name = section.partition(".")
        try:
            keys = _inherited(section, sections)
            missing = [key for key in _REQUIRED[kind] if key not in keys]
            if missing and section in parents:
                continue
            if missing:
                raise ConfigError(f"[{section}] must have the key {missing[0]}, got none")
            if kind == "System_Config":
                found[kind][name] = _system_config(section, keys, outstanding_limits)
            else:
                found[kind][name] = _memory_mode(section, keys)
        except (ConfigError, UnknownNameError) as error:
            raise FormatError(f"{origin[section]}: {error}") from None
    return VelaIni(found["System_Config"], found["Memory_Mode"])


def _read_sections(path: str | os.PathLike[str]) -> dict[str, _Keys]:
    """Sections of the two kinds, each with its own keys as the tables above spell them."""
    try:
        text = Path(path).read_bytes().decode("utf-8-sig")
    except (OSError, ValueError, TypeError) as error:
        if isinstance(error, UnicodeDecodeError):
            raise FormatError(f"{path}: a configuration must be text, got other bytes") from None
        reason = getattr(error, "strerror", None) or error
        raise ConfigError(
            f"configuration must be a readable file, got {str(path)!r} ({reason})"
        ) from None
    parser = configparser.ConfigParser(interpolation=None, default_section="")
    try:
        parser.read_string(text, str(path))
    except configparser.Error as error:
        raise FormatError(_one_line(path, error)) from None
    sections = {}
    for section in parser.sections():
        kind, dot, name = section.partition(".")
        if kind in _KINDS:
            if not dot or not name:
                raise FormatError(f"{path}: [{section}] must have a name after {kind}., got none")
            sections[section] = _spelled(path, section, parser[section], _KINDS[kind])
    return sections


def _spelled(path: object, section: str, keys: Mapping[str, str], known: tuple[str, ...]) -> _Keys:
    spelling = {key.lower(): key for key in (*known, "inherit")}
    spelled = {}
    for key, value in keys.items():  # which are in lower case
        if key not in spelling:
            error = UnknownNameError(f"key of [{section}]", key, spelling.values())
            raise FormatError(f"{path}: {error}")
        spelled[spelling[key]] = value.strip()
    return spelled


def _one_line(path: object, error: configparser.Error) -> str:
    if isinstance(error, configparser.DuplicateSectionError):
        return f"{path}: [{error.section}] must be there once, got it again at line {error.lineno}"
    if isinstance(error, configparser.DuplicateOptionError):
        return (
            f"{path}: key {error.option} of [{error.section}] must be set once, "
            f"got it again at line {error.lineno}"
        )
    if isinstance(error, configparser.MissingSectionHeaderError):
        return f"{path}: line {error.lineno} must be in a section, got {error.line.strip()[:60]!r}"
    if isinstance(error, configparser.ParsingError):
        line, text = error.errors[0]
        return f"{path}: line {line} must be key=value, got {text.strip()[:60]}"
    return f"{path}: {str(error).splitlines()[0]}"


def _inherited(section: str, sections: Mapping[str, _Keys]) -> _Keys:
    chain = [section]
    while "inherit" in (keys := sections[chain[-1]]):
        parent = keys["inherit"]
        what = f"inherit of [{chain[-1]}]"
        kind = section.partition(".")[0]
        choice(what, parent, [name for name in sections if name.startswith(f"{kind}.")])
        if parent in chain:
            raise ConfigError(f"{what} must not lead back to itself, got {parent!r}")
        chain.append(parent)
    merged: _Keys = {}
    for name in reversed(chain):
        merged |= sections[name]
    return merged


def _system_config(section: str, keys: _Keys, outstanding_limits: bool) -> SystemConfig:
    values: dict[str, dict[str, Any]] = {area: {} for area in ROLES}
    for area in ROLES:
        for key, (field, check) in _MEMORY_KEYS.items():
            if (text := keys.get(f"{area}_{key}")) is not None:
                values[area][field] = check(f"{area}_{key} of [{section}]", text)
        for limit in ("max_reads", "max_writes"):
            if not outstanding_limits or values[area].get(limit) == 0:
                values[area].pop(limit, None)
    ports = [
        choice(f"{port}_port of [{section}]", keys[f"{port}_port"], ROLES)
        for port in ("axi0", "axi1")
    ]
    specs = [MemorySpec(ROLES[area], **(_DEFAULTS | values[area])) for area in ports]
    clock_hz = _number(f"core_clock of [{section}]", keys["core_clock"])
    return SystemConfig(section.partition(".")[2], clock_hz, *specs)


def _memory_mode(section: str, keys: _Keys) -> MemoryMode:
    ports = {
        use: PORTS[choice(f"{key} of [{section}]", keys[key], PORTS)] for key, use in _USES.items()
    }
    limit = None
    if (text := keys.get("arena_cache_size")) is not None:
        limit = _whole(f"arena_cache_size of [{section}]", text, low=1)
    return MemoryMode(section.partition(".")[2], **ports, arena_cache_size_bytes=limit)
