# SPDX-License-Identifier: Apache-2.0
"""What is found of an object is found once, and forgotten with it."""

from __future__ import annotations

import gc
from weakref import ref

import pytest

from npusim._once import once_per_object


class Thing:
    """Equal to all others of its kind."""

    def __init__(self, name: str):
        self.name = name

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Thing)

    __hash__ = None


def test_each_object_has_its_own_result_as_long_as_it_lives():
    asked = []

    @once_per_object
    def letters(thing: Thing) -> list[str]:
        """Of its name."""
        asked.append(thing.name)
        return list(thing.name)

    first, second = Thing("ab"), Thing("c")
    assert letters(first) is letters(first) == ["a", "b"]
    assert letters(second) == ["c"]
    assert asked == ["ab", "c"]
    watched = ref(first)
    del first
    gc.collect()
    assert watched() is None
    assert letters(Thing("d")) == ["d"]
    assert letters.__doc__ == "Of its name."


def test_what_fails_is_tried_again():
    answers = iter([ValueError("no"), 3])

    @once_per_object
    def answer(thing: Thing) -> int:
        found = next(answers)
        if isinstance(found, ValueError):
            raise found
        return found

    thing = Thing("x")
    with pytest.raises(ValueError, match="no"):
        answer(thing)
    assert answer(thing) == answer(thing) == 3
