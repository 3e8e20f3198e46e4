# SPDX-License-Identifier: Apache-2.0
"""Results that are kept as long as the object they are of."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import TypeVar
from weakref import ref

_Thing = TypeVar("_Thing")
_Found = TypeVar("_Found")


def once_per_object(function: Callable[[_Thing], _Found]) -> Callable[[_Thing], _Found]:
    """Call a function of one argument once for each object, which must not change.

    Objects that are equal are not the same. What the function returns is shared by all who ask, and
    must not be changed either.
    """
    known: dict[int, tuple[ref[_Thing], _Found]] = {}

    @wraps(function)
    def found(thing: _Thing) -> _Found:
        key = id(thing)
        if key not in known:
            result = function(thing)
            known[key] = ref(thing, lambda _: known.pop(key, None)), result
        return known[key][1]

    return found
