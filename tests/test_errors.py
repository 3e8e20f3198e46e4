# SPDX-License-Identifier: Apache-2.0
"""Errors: what they are, what they say, and that they survive the way home from a worker."""

from __future__ import annotations

import copy
import pickle
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context

import pytest

from npusim import errors
from npusim.errors import (
    ConfigError,
    FormatError,
    InfeasibleError,
    MissingExtraError,
    NpusimError,
    PluginError,
    StreamError,
    UnknownNameError,
)

EXAMPLES = [
    (ConfigError("zdiv must be in 0..3, got 9"), ValueError, "zdiv must be in 0..3, got 9"),
    (
        StreamError("zdiv must be 0..3, 6 or 7, got 5", 118),
        ValueError,
        "zdiv must be 0..3, 6 or 7, got 5 (at bit 118)",
    ),
    (FormatError("a file must be a model"), ValueError, "a file must be a model"),
    (InfeasibleError("limit must be at least 12, got 3", 12), ValueError, "limit must be at"),
    (
        UnknownNameError("searcher", "randon", ["random", "evolution"]),
        LookupError,
        "searcher must be one of evolution, random, got 'randon'; did you mean 'random'?",
    ),
    (
        MissingExtraError("plotting", "plot", ImportError("No module named 'matplotlib'")),
        ImportError,
        "plotting must have the extra [plot] installed (pip install 'npusim[plot]'), "
        "got: No module named 'matplotlib'",
    ),
    (PluginError("a plug-in must be importable"), ImportError, "a plug-in must be importable"),
]


def raise_stream_error(bit_offset: int) -> None:
    raise StreamError("reserved zdiv", bit_offset)


def test_every_error_has_an_example():
    kinds = {kind for kind in vars(errors).values() if isinstance(kind, type)}
    children = {kind for kind in kinds if issubclass(kind, NpusimError)} - {NpusimError}
    assert {type(error) for error, _, _ in EXAMPLES} == children


@pytest.mark.parametrize(
    ("error", "builtin", "text"), EXAMPLES, ids=[type(error).__name__ for error, _, _ in EXAMPLES]
)
class TestEveryError:
    def test_is_caught_as_ours_and_as_the_builtin(self, error, builtin, text):
        for kind in (NpusimError, builtin):
            with pytest.raises(kind) as caught:
                raise error
            assert caught.value is error

    def test_says(self, error, builtin, text):
        assert str(error).startswith(text)
        assert not str(error).endswith(".")

    def test_copies_are_equal(self, error, builtin, text):
        for made in (pickle.loads(pickle.dumps(error)), copy.copy(error), copy.deepcopy(error)):
            assert type(made) is type(error)
            assert str(made) == str(error)
            assert made.args == error.args
            assert vars(made) == vars(error)


class TestAttributes:
    def test_bit_offset(self):
        assert StreamError("x", 118).bit_offset == 118

    def test_least(self):
        assert InfeasibleError("x", 12).least == 12

    def test_no_guess_where_nothing_is_close(self):
        message = str(UnknownNameError("searcher", "xyz", ["random"]))
        assert message == "searcher must be one of random, got 'xyz'"

    def test_any_value_can_be_a_wrong_name(self):
        assert str(UnknownNameError("encoder", 3, ["tight"])) == (
            "encoder must be one of tight, got 3"
        )


def test_an_error_comes_home_from_a_worker_process():
    with (
        ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool,
        pytest.raises(StreamError, match=r"reserved zdiv \(at bit 7\)") as caught,
    ):
        pool.submit(raise_stream_error, 7).result()
    assert caught.value.bit_offset == 7
