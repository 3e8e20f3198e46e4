# SPDX-License-Identifier: Apache-2.0
"""Options of searchers: what the signature of each declares, read from text or given in Python."""

from __future__ import annotations

import inspect
import math
import types
import typing
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from npusim.errors import ConfigError, PluginError, UnknownNameError

GIVEN = ("space", "limit", "rng", "context")
"""Arguments that every searcher is given by the loop; all others are options."""
KINDS = (bool, int, float, str)

Value = bool | int | float | str | None


def declared(searcher: str, make: Callable[..., Any]) -> dict[str, tuple[Any, Value]]:
    """Type and default of each option of a searcher, by name, in the order of the signature.

    Args:
        searcher: its registered name, for messages.
        make: the class or function. Options are annotated with `bool`, `int`, `float`, `str`, a
            `Literal` of texts, or one of these and None; without annotation the default says it.
            ``**name: Unpack[T]`` has the keys of the TypedDict T as options; their default is None.

    Raises:
        PluginError: an option has another type, or no default.
    """
    hints = typing.get_type_hints(make.__init__ if inspect.isclass(make) else make)
    found: dict[str, tuple[Any, Value]] = {}
    for name, parameter in inspect.signature(make).parameters.items():
        if name in GIVEN:
            continue
        kind = hints.get(name, type(parameter.default))
        options: Mapping[str, tuple[Any, Any]] = {name: (kind, parameter.default)}
        if typing.get_origin(kind) is typing.Unpack:
            (keys,) = typing.get_args(kind)
            options = {key: (each, None) for key, each in typing.get_type_hints(keys).items()}
        for option, (kind, default) in options.items():
            if default is parameter.empty or not set(_plain(kind)) <= {*KINDS}:
                raise PluginError(
                    f"option {option!r} of searcher {searcher!r} must have a default and one of "
                    f"the types bool, int, float, str, got {parameter}"
                )
        found |= options
    return found


def resolve(searcher: str, make: Callable[..., Any], given: Mapping[str, Any]) -> dict[str, Value]:
    """The value of every option of a searcher: as given, else its default.

    Args:
        searcher: its registered name, for messages.
        make: the class or function.
        given: values by name; text is read as the option's type, such as ``"0.5"`` or ``"none"``.

    Raises:
        UnknownNameError: the searcher has no such option.
        ConfigError: a value of another type.
    """
    known = declared(searcher, make)
    for name in given:
        if not known:
            raise ConfigError(f"searcher {searcher!r} must get no options, got {name!r}")
        if name not in known:
            raise UnknownNameError(f"option of searcher {searcher!r}", name, known)
    return {
        name: _checked(f"option {name!r} of searcher {searcher!r}", kind, given[name])
        if name in given
        else default
        for name, (kind, default) in known.items()
    }


def parse(texts: Iterable[str]) -> dict[str, str]:
    """Options written ``name=value``, by name.

    Raises:
        ConfigError: one is not written so, or has the name of another.

    >>> parse(["population=20", "tournament=5"])
    {'population': '20', 'tournament': '5'}
    """
    found: dict[str, str] = {}
    for text in texts:
        name, equals, value = (part.strip() for part in text.partition("="))
        if not (name and equals and value):
            raise ConfigError(f"an option must be written name=value, got {text!r}")
        if name in found:
            raise ConfigError(f"an option must be given once, got {name!r} again")
        found[name] = value
    return found


def parse_label(text: str) -> tuple[str, dict[str, str]]:
    """A searcher with options as a benchmark names it: its name and ``:name=value`` for each.

    Raises:
        ConfigError: an option is not written so, or given twice.

    >>> parse_label("evolution:population=20:tournament=5")
    ('evolution', {'population': '20', 'tournament': '5'})
    """
    name, *options = text.split(":")
    return name, parse(options)


def _plain(kind: Any) -> list[Any]:
    """The types that a hint is made of, those of `Literal` being the values'; None left out."""
    if typing.get_origin(kind) is typing.Literal:
        return [type(value) for value in typing.get_args(kind)]
    if isinstance(kind, types.UnionType) or typing.get_origin(kind) is typing.Union:
        parts = [part for part in typing.get_args(kind) if part is not type(None)]
        return [each for part in parts for each in _plain(part)]
    return [kind]


def _checked(what: str, kind: Any, value: Any) -> Value:
    literal = typing.get_origin(kind) is typing.Literal
    if literal:
        if value not in typing.get_args(kind):
            raise UnknownNameError(what, value, typing.get_args(kind))
        return typing.cast(str, value)
    may_be_none = type(None) in typing.get_args(kind)
    (plain,) = _plain(kind)
    if may_be_none and (value is None or str(value).lower() == "none"):
        return None
    found = _read(plain, value) if isinstance(value, str) else value
    if plain is float and type(found) is int:
        found = float(found)
    if type(found) is not plain or (plain is float and not math.isfinite(found)):
        names = plain.__name__ + (" or none" if may_be_none else "")
        raise ConfigError(f"{what} must be of type {names}, got {value!r}")
    return typing.cast(Value, found)


def _read(kind: Any, text: str) -> Any:
    """`text` as a value of `kind`; None where it is none."""
    if kind is bool:
        return {"true": True, "false": False}.get(text.lower())
    try:
        return kind(text)
    except ValueError:
        return None
