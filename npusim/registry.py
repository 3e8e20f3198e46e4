# SPDX-License-Identifier: Apache-2.0
"""Plug-ins by name, through entry points; each is imported only when it is asked for.

Built-ins and strangers' plug-ins use the same door: an entry point in one of the groups of
`GROUPS`, declared in the ``pyproject.toml`` of the package that brings the plug-in.
"""

from __future__ import annotations

from functools import cache
from importlib.metadata import EntryPoint, entry_points
from typing import Any

from npusim.errors import ConfigError, NpusimError, PluginError, UnknownNameError

GROUPS = (
    *("npusim.commands", "npusim.schemes", "npusim.searchers", "npusim.spaces"),
    *("npusim.reports", "npusim.workloads"),
)
"""What can be plugged in: commands of the CLI, compression schemes, searchers, search spaces, what
makes sections of a report of an INPUT (see `npusim.report.reader`), and what makes a
`npusim.cost.what_if.Workload` of a MODEL that is no file."""


@cache
def _found(group: str) -> dict[str, EntryPoint]:
    if group not in GROUPS:
        raise UnknownNameError("entry-point group", group, GROUPS)
    found: dict[str, EntryPoint] = {}
    for entry in entry_points(group=group):
        if entry.name in found and found[entry.name].value != entry.value:
            raise ConfigError(
                f"a name in {group} must be registered once, got {entry.name!r} from "
                f"{found[entry.name].value!r} and {entry.value!r}"
            )
        found[entry.name] = entry
    return found


def names(group: str) -> list[str]:
    """Sorted names registered in an entry-point group; imports none of them.

    Raises:
        UnknownNameError: `group` is not one of `GROUPS`.
        ConfigError: two packages register different objects under one name.

    >>> "raw" in names("npusim.schemes")
    True
    """
    return sorted(_found(group))


def get(group: str, name: str) -> Any:
    """Import and return the object registered as `name` in `group`.

    Raises:
        UnknownNameError: no such group, or no such name in it; lists the known ones.
        PluginError: the object's module, or one that it needs, cannot be imported.

    >>> get("npusim.schemes", "raw").__name__
    'Raw'
    """
    found = _found(group)
    kind = group.removeprefix("npusim.").removesuffix("s")
    if name not in found:
        raise UnknownNameError(kind, name, found)
    try:
        return found[name].load()
    except NpusimError:
        raise
    except (ImportError, AttributeError) as error:
        raise PluginError(
            f"{kind} {name!r} must be importable from {found[name].value!r}, got: {error}"
        ) from error
