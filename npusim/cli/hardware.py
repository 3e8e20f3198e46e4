# SPDX-License-Identifier: Apache-2.0
"""What commands that cost networks share: options for the hardware and the schedule."""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final, TypeVar

import click

from npusim.errors import ConfigError

if TYPE_CHECKING:
    from npusim.cost.what_if import Setup

_Command = TypeVar("_Command", bound=Callable[..., Any])
_ALL: Final = "all"
_UNITS: Final = {"": 1, "b": 1, "kib": 1024, "mib": 1024**2, "kb": 1000, "mb": 1000**2}


def _npus(start: str) -> list[str]:
    """Presets whose name begins so, for the shell's completion."""
    from npusim import npu

    return [name for name in npu.names() if name.startswith(start)]


_HARDWARE = (
    click.option(
        "--npu",
        "npus",
        multiple=True,
        default=("ethos-u55-128",),
        show_default=True,
        shell_complete=lambda context, parameter, text: _npus(text),
        help="NPU presets, between commas or repeated; or all.",
    ),
    click.option(
        "--system",
        "systems",
        multiple=True,
        default=("Ethos_U55_High_End_Embedded",),
        show_default=True,
        help="System configs, likewise: Arm's, vendors', or of a --config file.",
    ),
    click.option(
        "--memory-mode",
        "modes",
        multiple=True,
        default=("Shared_Sram",),
        show_default=True,
        help="Memory modes, likewise.",
    ),
    click.option(
        "--config",
        "configs",
        multiple=True,
        metavar="FILE.ini",
        help="Configuration of Arm's compiler; may be repeated.",
    ),
    click.option(
        "--set",
        "settings",
        multiple=True,
        metavar="FIELD=VALUE",
        help="Another value of one field of the hardware, such as sram_bytes_per_cycle=4; may be "
        "repeated.",
    ),
    click.option(
        "--vela-axi",
        is_flag=True,
        help="AXI ports as wide as Arm's compiler takes them to be, by the system config's name.",
    ),
    click.option(
        "--outstanding",
        is_flag=True,
        help="Let the numbers of transfers under way that system configs state limit bandwidth.",
    ),
)
_SCHEDULE = (
    click.option(
        "--optimise",
        type=click.Choice(["performance", "size"]),
        default="performance",
        show_default=True,
        help="Whether SRAM serves speed or is to be as small as the compiler can make it.",
    ),
    click.option(
        "--arena-limit",
        metavar="BYTES",
        help="Most SRAM for feature maps and buffers, such as 65536 or 64KiB.",
    ),
    click.option("--encoder", help="Of the weights, regor if not given: see compress."),
    click.option(
        "--weights",
        metavar="STATISTICS",
        help="What weights are taken to be instead of what they are: of bits, nonzeros, entropy "
        "and clusters those that are known, such as bits=4,nonzeros=50%.",
    ),
    click.option(
        "--decoder",
        type=click.Choice(["compiler", "stream"]),
        help="Weights decode at a fixed rate, as Arm's compiler assumes and as is taken if nothing "
        "is given, or as fast as their streams let them: one chunk iteration a cycle.",
    ),
    click.option(
        "--scheme",
        metavar="NAME[:PARAM=VALUE,...]",
        help="What if the weights were coded by this compression scheme: its bytes and, unless "
        "--decoder compiler is given, its decoder.",
    ),
    click.option("--lanes", type=int, help="Lanes of the scheme's decoder, if not its own."),
    click.option(
        "--cpu-cycles",
        multiple=True,
        metavar="KIND=CYCLES",
        help="NPU cycles that each operation of this kind takes on the CPU; may be repeated.",
    ),
)


def hardware_options(command: _Command) -> _Command:
    """Adds the options that `setups` reads."""
    return _decorated(command, _HARDWARE)


def schedule_options(command: _Command) -> _Command:
    """Adds the options that `schedule` reads."""
    return _decorated(command, _SCHEDULE)


def _decorated(command: _Command, options: Sequence[Callable[[_Command], _Command]]) -> _Command:
    for option in reversed(options):
        command = option(command)
    return command


def names(texts: Sequence[str], known: Sequence[str] = ()) -> list[str]:
    """Names of options that take several between commas or repeated, each once; all of `known`."""
    found = [name.strip() for text in texts for name in text.split(",")]
    if known and _ALL in found:
        found = list(known)
    return list(dict.fromkeys(found))


def setups(options: Mapping[str, Any]) -> list[Setup]:
    """All combinations of what `hardware_options` took; checked, so that they make machines.

    Raises:
        ConfigError, FormatError, UnknownNameError: as `npusim.hardware.machine`.
    """
    from npusim import npu
    from npusim.cost.what_if import Setup
    from npusim.hardware import parse_settings

    found = [
        Setup(
            *combination,
            config_files=tuple(options["configs"]),
            overrides=parse_settings(options["settings"]),
            outstanding_limits=options["outstanding"],
            vela_axi_quirk=options["vela_axi"],
        )
        for combination in itertools.product(
            names(options["npus"], npu.names()), names(options["systems"]), names(options["modes"])
        )
    ]
    for setup in found:
        setup.machine()
    return found


def only_setup(options: Mapping[str, Any]) -> Setup:
    """The one combination of a command that takes no more.

    Raises:
        ConfigError: there are several, or as `setups`.
    """
    for option in ("npus", "systems", "modes"):
        given = names(options[option])
        if len(given) > 1 or _ALL in given:
            flag = {"npus": "--npu", "systems": "--system", "modes": "--memory-mode"}[option]
            raise ConfigError(f"{flag} must be one, got {', '.join(given)}")
    return setups(options)[0]


def schedule(options: Mapping[str, Any]) -> dict[str, Any]:
    """Arguments of `npusim.estimate` of what `schedule_options` took, but for the weights.

    Raises:
        ConfigError: a number of cycles or bytes is none, or options exclude one another.
    """
    if options["scheme"] is not None:
        for other in ("encoder", "weights"):
            if options[other] is not None:
                raise ConfigError(f"--scheme must not go with --{other}, got {options['scheme']}")
    elif options["lanes"] is not None:
        raise ConfigError(f"--lanes must go with --scheme, got {options['lanes']}")
    if options["lanes"] is not None and options["decoder"] is not None:
        raise ConfigError(f"--lanes must not go with --decoder, got {options['decoder']}")
    limit = options["arena_limit"]
    return {
        "optimise": options["optimise"],
        "arena_limit_bytes": None if limit is None else n_bytes("--arena-limit", limit),
        "decoder": options["decoder"],
        "cpu_cycles": cpu_cycles(options["cpu_cycles"]) or None,
    }


def n_bytes(what: str, text: str) -> int:
    """Bytes of a text such as ``65536``, ``64KiB`` (1024 bytes) or ``64kB`` (1000 bytes).

    Raises:
        ConfigError: it is none of these, or 0.
    """
    found = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([a-zA-Z]*)\s*", text)
    factor = _UNITS.get(found[2].lower()) if found else None
    if not found or factor is None or float(found[1]) * factor < 1:
        raise ConfigError(f"{what} must be bytes, such as 65536 or 64KiB, got {text!r}")
    return int(float(found[1]) * factor)


def cpu_cycles(texts: Sequence[str]) -> dict[str, int]:
    """Cycles by kind of operation.

    Raises:
        ConfigError: a text is no ``KIND=CYCLES``, or a kind is there twice.
    """
    found: dict[str, int] = {}
    for text in texts:
        kind, _, value = (part.strip() for part in text.partition("="))
        if not kind or not value.isdecimal():
            raise ConfigError(f"--cpu-cycles must be KIND=CYCLES, got {text!r}")
        if kind in found:
            raise ConfigError(f"--cpu-cycles must give each kind once, got {text!r} too")
        found[kind] = int(value)
    return found
