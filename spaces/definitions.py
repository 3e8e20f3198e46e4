# SPDX-License-Identifier: Apache-2.0
"""Spaces from their definitions, so that a stored run or network says by itself what it is of."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from npusim.errors import ConfigError, FormatError
from spaces.base import Space
from spaces.layers import DecisionVariable, Given, Kind, Layer, LayerKind


def from_definition(definition: Mapping[str, Any], content_hash: str) -> Space:
    """The space that `Space.definition` was of; without limits to search within by default.

    Args:
        definition: JSON values.
        content_hash: the space's.

    Raises:
        FormatError: the definition is not one, or of a space of another hash.

    >>> import spaces
    >>> space = spaces.get("digits", widths=(0.5, 1.0))
    >>> from_definition(space.definition(), space.content_hash) == space
    True
    """
    try:
        found = Space(
            name=definition["name"],
            data_set=definition["data_set"],
            image_shape=tuple(definition["image_shape"]),
            decisions=tuple(_decision(**each) for each in definition["decisions"]),
            layers=tuple(_layer(**each) for each in definition["layers"]),
        )
    except (ConfigError, KeyError, TypeError, ValueError) as error:
        raise FormatError(f"definition must be of a space, got {error!r}") from None
    if found.content_hash != content_hash:
        raise FormatError(
            f"definition of space {found.name!r} must be of hash {content_hash}, "
            f"got one of hash {found.content_hash}"
        )
    return found


def _decision(name: str, kind: str, options: list[Any]) -> DecisionVariable:
    return DecisionVariable(name, Kind(kind), tuple(options))


def _layer(kind: str, inputs: list[str] | None = None, **rest: Any) -> Layer:
    given = rest.pop("given", None)
    if given is not None:
        given = Given(**{**given, "ofm_shape": tuple(given["ofm_shape"])})
    return Layer(kind=LayerKind(kind), inputs=tuple(inputs or ()), given=given, **rest)
