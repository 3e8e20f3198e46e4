# SPDX-License-Identifier: Apache-2.0
"""Options of searchers: declared by a signature, read from text, refused when unknown."""

from __future__ import annotations

from typing import Literal, TypedDict, Unpack

import pytest
from planted import Planted

import searchers
from npusim.errors import ConfigError, NpusimError, PluginError, UnknownNameError
from searchers.base import Budget
from searchers.options import declared, parse, resolve
from searchers.study import Study
from spaces.digits import digits
from spaces.limits import Limit


class Tunable:
    def __init__(
        self,
        space,
        limit,
        rng,
        n: int = 3,
        rate: float = 0.5,
        soft: bool = False,
        most: int | None = None,
        how: Literal["uniform", "stratified"] = "uniform",
        label="x",
    ):
        pass


def test_defaults_are_what_the_signature_says():
    expected = {"n": 3, "rate": 0.5, "soft": False, "most": None, "how": "uniform", "label": "x"}
    assert resolve("tunable", Tunable, {}) == expected


@pytest.mark.parametrize(
    ("name", "given", "value"),
    [
        ("n", "7", 7),
        ("rate", "1", 1.0),
        ("rate", 2, 2.0),
        ("soft", "True", True),
        ("most", "4", 4),
        ("most", "none", None),
        ("most", None, None),
        ("how", "stratified", "stratified"),
        ("label", "3", "3"),
    ],
)
def test_text_and_values_are_read_as_the_declared_type(name, given, value):
    found = resolve("tunable", Tunable, {name: given})[name]
    assert (found, type(found)) == (value, type(value))


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"m": "1"}, r"option of searcher 'tunable' must be one of .*, got 'm'"),
        ({"n": "x"}, r"option 'n' of searcher 'tunable' must be of type int, got 'x'"),
        ({"n": True}, r"must be of type int, got True"),
        ({"rate": "nan"}, r"must be of type float, got 'nan'"),
        ({"soft": "maybe"}, r"must be of type bool, got 'maybe'"),
        ({"most": "x"}, r"must be of type int or none, got 'x'"),
        ({"how": "evenly"}, r"must be one of stratified, uniform, got 'evenly'"),
    ],
)
def test_other_values_are_refused(given, message):
    with pytest.raises(NpusimError, match=message):
        resolve("tunable", Tunable, given)


def test_a_searcher_without_options_takes_none():
    def plain(space, limit, rng):
        return None

    assert declared("plain", plain) == {}
    with pytest.raises(ConfigError, match=r"searcher 'plain' must get no options, got 'n'"):
        resolve("plain", plain, {"n": 1})


class Keys(TypedDict, total=False):
    rate: float | None
    n: int | None


class Unreadable(TypedDict, total=False):
    rates: list[float] | None


def test_keys_of_a_typed_dict_are_options_whose_default_is_none():
    def make(space, limit, rng, how: str = "x", **changes: Unpack[Keys]):
        return None

    assert list(declared("mine", make)) == ["how", "rate", "n"]
    assert resolve("mine", make, {"n": "3"}) == {"how": "x", "rate": None, "n": 3}
    with pytest.raises(ConfigError, match=r"option 'n' of .* must be of type int or none, got 'x'"):
        resolve("mine", make, {"n": "x"})


def test_options_without_default_or_of_other_types_are_the_plug_ins_mistake():
    def without(space, limit, rng, n: int):
        return None

    def other(space, limit, rng, n: list = ()):
        return None

    def keys(space, limit, rng, **changes: Unpack[Unreadable]):
        return None

    def any_keys(space, limit, rng, **changes):
        return None

    for make in (without, other, keys, any_keys):
        with pytest.raises(PluginError, match="must have a default and one of the types bool"):
            declared("mine", make)


def test_text_is_split_at_the_first_equals_sign():
    assert parse(["a=1", " b = x=y "]) == {"a": "1", "b": "x=y"}
    for text in ("a", "=1", "a="):
        with pytest.raises(ConfigError, match="an option must be written name=value, got"):
            parse([text])
    with pytest.raises(ConfigError, match="an option must be given once, got 'a' again"):
        parse(["a=1", "a=2"])


def test_options_are_part_of_a_runs_identity():
    fields = (digits(), "evolution", Limit.size("1KB"), Budget(trials=3), 0)
    evaluator = Planted(digits()).identity()
    plain, text, value = (
        Study(*fields, options).identity(evaluator)
        for options in ({}, {"population": "4"}, {"population": 4})
    )
    assert plain != text == value
    assert text["options"]["population"] == 4
    with pytest.raises(UnknownNameError, match="did you mean 'population'"):
        Study(*fields, {"popluation": "4"}).identity(evaluator)


@pytest.mark.parametrize("name", searchers.names())
def test_every_searcher_declares_what_can_be_read(name):
    make = searchers.get(name)
    defaults = resolve(name, make, {})
    assert resolve(name, make, {key: str(value) for key, value in defaults.items()}) == defaults
    with pytest.raises(NpusimError, match="got 'nonsense'"):
        resolve(name, make, {"nonsense": 1})
