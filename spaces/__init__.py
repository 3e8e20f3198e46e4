# SPDX-License-Identifier: Apache-2.0
"""Search spaces: networks described before any of them is trained.

>>> import spaces
>>> space = spaces.get("digits")
>>> space.count()
3748096000
"""

from __future__ import annotations

import inspect
from functools import partial
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
from spaces.builder import SpaceBuilder as SpaceBuilder
from spaces.concrete import describe as describe
from spaces.limits import Limit as Limit


def names() -> list[str]:
    """Registered spaces, sorted."""
    return registry.names("npusim.spaces")


def get(name: str, **options: Any) -> Space:
    """The space registered as `name`; `options` go to the function that makes it.

    A name that ends in ``.tflite`` is a model file: see `spaces.given.from_network`.

    Raises:
        UnknownNameError: no such space.
        ConfigError: the space has no such option.
        FormatError: the model file cannot be read.
    """
    if name.endswith(".tflite"):
        import npusim
        from spaces.given import from_network

        make = partial(from_network, npusim.load(name))
    else:
        make = registry.get("npusim.spaces", name)
    signature = inspect.signature(make)
    try:
        signature.bind(**options)
    except TypeError as error:  # its text begins with "got an unexpected" or "missing a"
        known = ", ".join(signature.parameters)
        raise ConfigError(
            f"options of space {name!r} must be ones it has ({known}), {error}"
        ) from None
    found = make(**options)
    if not isinstance(found, Space):
        raise ConfigError(f"plug-in {name!r} must make a Space, got {type(found).__name__}")
    return found
