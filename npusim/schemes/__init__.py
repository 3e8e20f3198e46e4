# SPDX-License-Identifier: Apache-2.0
"""Compression schemes behind one interface: built-in ones, and any registered by a package.

A package adds one with an entry point in the group ``npusim.schemes``.

>>> get("raw", bits=4).size([1, -1, 7])
2
"""

from __future__ import annotations

from typing import Any

from npusim import registry
from npusim.errors import PluginError
from npusim.schemes.base import Scheme, make

__all__ = ["Scheme", "get", "names"]

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
