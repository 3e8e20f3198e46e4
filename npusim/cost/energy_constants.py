# SPDX-License-Identifier: Apache-2.0
"""What one event costs in energy: constants with bands, read from a file, overridden by name."""

from __future__ import annotations

import os
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cache
from importlib import resources
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final

from npusim._arguments import choice, real
from npusim.errors import ConfigError

TAGS: Final = (
    *("measured", "read in source"),
    *("literature figure to verify", "engineering estimate"),
)
"""Where a constant is from, the most trustworthy first."""
NODE_EXPONENT: Final = "node_exponent"
NODE_RULE: Final = "energy at own node times (node / own node) ** node_exponent: a rule of thumb"
"""How constants scale that have a node of their own."""
_MAX: Final = 1e9
_FIELDS: Final = ("value", "low", "high", "unit", "node_nm", "tag", "source")


@dataclass(frozen=True, slots=True)
class Band:
    """A quantity that is only known to lie between two others.

    Attributes:
        low: the least it can be.
        value: the best guess.
        high: the most it can be.
    """

    low: float
    value: float
    high: float

    def __add__(self, other: Band) -> Band:
        """Both, their errors in the same direction: lows are added, and highs."""
        return Band(self.low + other.low, self.value + other.value, self.high + other.high)

    def times(self, factor: float) -> Band:
        """`factor` times as much, which must not be negative."""
        return Band(self.low * factor, self.value * factor, self.high * factor)

    def to_json(self) -> dict[str, float]:
        """JSON values by attribute."""
        return {"low": self.low, "value": self.value, "high": self.high}


@dataclass(frozen=True, slots=True)
class Constant:
    """What one event costs.

    Attributes:
        name: ends in the unit.
        value: best guess, in `unit`.
        low: the least it can be.
        high: the most.
        unit: in words.
        node_nm: process node it holds for, where it scales with that; None: it does not.
        tag: one of `TAGS`.
        source: where it is from.

    Raises:
        ConfigError: a number is not real, negative, or they do not rise from low to high.
        UnknownNameError: no such tag.
    """

    name: str
    value: float
    low: float
    high: float
    unit: str
    node_nm: float | None
    tag: str
    source: str

    def __post_init__(self) -> None:
        for field in ("value", "low", "high"):
            real(f"{field} of {self.name}", getattr(self, field), 0, _MAX)
        if not self.low <= self.value <= self.high:
            raise ConfigError(
                f"{self.name} must rise from low over value to high, "
                f"got {self.low:g}, {self.value:g}, {self.high:g}"
            )
        if self.node_nm is not None:
            real(f"node_nm of {self.name}", self.node_nm, 1, 1000)
        choice(f"tag of {self.name}", self.tag, TAGS)


@dataclass(frozen=True, slots=True)
class EnergyConstants:
    """All constants, and whether somebody has measured.

    Attributes:
        by_name: the constants.
        calibration: what was measured to obtain them; empty: nothing, they are uncalibrated.
        total_error: relative error of totals found in calibrating (0.1: 10 %), or None.
    """

    by_name: Mapping[str, Constant]
    calibration: str = ""
    total_error: float | None = None

    def price(self, name: str, node_nm: float) -> Band:
        """One constant at a process node.

        Energies scale with ``(node / own node) ** node_exponent``. The exponent is a constant with
        a band of its own; both extremes widen the band of what is scaled.
        """
        constant = self.by_name[name]
        band = Band(constant.low, constant.value, constant.high)
        if constant.node_nm is None:
            return band
        exponent = self.by_name[NODE_EXPONENT]
        ratio = node_nm / constant.node_nm
        factors = sorted((ratio**exponent.low, ratio**exponent.high))
        return Band(
            band.low * factors[0], band.value * ratio**exponent.value, band.high * factors[1]
        )

    def scaled(self, factor: float, calibration: str, total_error: float) -> EnergyConstants:
        """Every energy and power times `factor`, for totals that were measured."""
        constants = {
            name: constant
            if name == NODE_EXPONENT
            else replace(
                constant,
                value=constant.value * factor,
                low=constant.low * factor,
                high=constant.high * factor,
            )
            for name, constant in self.by_name.items()
        }
        return EnergyConstants(MappingProxyType(constants), calibration, total_error)


def energy_constants(
    constants: str | os.PathLike[str] | Mapping[str, Any] | EnergyConstants | None = None,
) -> EnergyConstants:
    """The constants npusim comes with, some of them replaced.

    Args:
        constants: a .toml file, or a mapping of the same form: by name a number, which is taken as
            known exactly and as it is at any node, or a table of some of the constant's
            fields (those of `Constant`); ``calibration`` is a text that says what was measured.

    Raises:
        ConfigError: the file cannot be read or is no TOML, or a constant breaks a rule.
        UnknownNameError: no such constant or field; lists them and guesses.

    >>> energy_constants({"mac_int8_pj": 0.3}).by_name["mac_int8_pj"].high
    0.3
    """
    if isinstance(constants, EnergyConstants):
        return constants
    known = _shipped()
    if constants is None:
        return known
    given = constants if isinstance(constants, Mapping) else _read(constants)
    by_name = dict(known.by_name)
    calibration = given.get("calibration", "")
    if not isinstance(calibration, str):
        raise ConfigError(f"calibration must be a text, got {calibration!r}")
    for name, value in given.items():
        if name != "calibration":
            choice("energy constant", name, by_name)
            by_name[name] = _replaced(by_name[name], value)
    return EnergyConstants(MappingProxyType(by_name), calibration)


def _replaced(constant: Constant, given: Any) -> Constant:
    if isinstance(given, Mapping):
        for field in given:
            choice(f"field of energy constant {constant.name}", field, _FIELDS)
        return replace(constant, **given)
    number = real(constant.name, given, 0, _MAX)
    return replace(constant, value=number, low=number, high=number, node_nm=None, source="the user")


@cache
def _shipped() -> EnergyConstants:
    file = resources.files("npusim.cost").joinpath("energy_constants.toml")
    tables = tomllib.loads(file.read_text(encoding="utf-8"))
    return EnergyConstants(
        MappingProxyType(
            {
                name: Constant(name=name, **{"node_nm": None, **fields})
                for name, fields in tables.items()
            }
        )
    )


def _read(path: str | os.PathLike[str]) -> dict[str, Any]:
    file = os.fspath(path)
    try:
        return tomllib.loads(Path(file).read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(
            f"energy constants must be in a readable file, got {file!r} ({error.strerror})"
        ) from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"energy constants must be TOML, got {file!r} ({error})") from None
