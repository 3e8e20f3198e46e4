# SPDX-License-Identifier: Apache-2.0
"""Compression schemes behind one interface: built-in ones, and any registered by a package.

A package adds one with an entry point in the group ``npusim.schemes``.

>>> get("raw", bits=4).size([1, -1, 7])
2
"""

from __future__ import annotations

from typing import Any

from npusim import registry
from npusim.errors import ConfigError, PluginError
from npusim.schemes.base import Scheme, make

__all__ = ["Scheme", "get", "names", "parse"]

_GROUP = "npusim.schemes"


def names() -> list[str]:
    """Sorted names of the registered schemes."""
    return registry.names(_GROUP)


def get(name: str, **parameters: Any) -> Scheme:
    """The scheme registered as `name`, with its default parameters except for those given.

    Raises:
        UnknownNameError: no such scheme; lists the known ones.
        ConfigError: no such parameter, or its value breaks a rule.
        PluginError: the scheme cannot be imported, or is no `Scheme` of that name.
    """
    kind = registry.get(_GROUP, name)
    if not (isinstance(kind, type) and issubclass(kind, Scheme)) or kind.name != name:
        raise PluginError(f"scheme {name!r} must be a Scheme of that name, got {kind!r}")
    return make(kind, parameters)


def parse(text: str) -> Scheme:
    """The scheme of a text such as ``rans`` or ``rans:states=8,precision=10``.

    Values are integers, true, false, none or text.

    Raises:
        ConfigError, UnknownNameError, PluginError: as `get`, or the text is not of that form.

    >>> parse("raw:bits=4").parameters
    {'bits': 4}
    """
    name, colon, rest = text.partition(":")
    return get(name, **dict(map(parse_parameter, rest.split(",") if colon else ())))


def parse_parameter(text: str) -> tuple[str, Any]:
    """Name and value of a parameter such as ``bits=4``.

    Raises:
        ConfigError: it is not of that form.
    """
    name, equals, value = text.partition("=")
    if not equals or not name:
        raise ConfigError(f"parameter of a scheme must be NAME=VALUE, got {text!r}")
    known = {"true": True, "false": False, "none": None}
    if value.lower() in known:
        return name, known[value.lower()]
    try:
        return name, int(value)
    except ValueError:
        return name, value
