# SPDX-License-Identifier: Apache-2.0
"""Search spaces: networks described before any of them is trained.

>>> import spaces
>>> space = spaces.get("digits")
>>> space.count()
3748096000
"""

from __future__ import annotations

import inspect
from typing import Any

from npusim import registry
from npusim.errors import ConfigError
from spaces.base import Candidate as Candidate
from spaces.base import DecisionVariable as DecisionVariable
from spaces.base import Kind as Kind
from spaces.base import Layer as Layer
from spaces.base import LayerKind as LayerKind
from spaces.base import Option as Option
from spaces.base import Space as Space
from spaces.limits import Limit as Limit


def names() -> list[str]:
    """Registered spaces, sorted."""
    return registry.names("npusim.spaces")


def get(name: str, **options: Any) -> Space:
    """The space registered as `name`; `options` go to the function that makes it.

    Raises:
        UnknownNameError: no such space.
        ConfigError: the space has no such option.
    """
    make = registry.get("npusim.spaces", name)
    try:
        inspect.signature(make).bind(**options)
    except TypeError as error:
        raise ConfigError(f"options of space {name!r} must be ones it has, got: {error}") from None
    found = make(**options)
    if not isinstance(found, Space):
        raise ConfigError(f"plug-in {name!r} must make a Space, got {type(found).__name__}")
    return found
