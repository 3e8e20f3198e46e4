# SPDX-License-Identifier: Apache-2.0
"""Tensors and quantizations refuse what does not fit, and compare by value."""

from __future__ import annotations

import pickle
from typing import Any

import numpy as np
import pytest

from npusim.errors import ConfigError, UnknownNameError
from npusim.tensor import DTYPES, Quantization, Tensor


def test_quantization_of_broadcasts_one_zero_point() -> None:
    quantization = Quantization.of([0.5, 0.25, 2], 7, axis=3)
    assert quantization.zero_points.tolist() == [7, 7, 7]
    assert quantization.scales.dtype == np.float32
    assert quantization.axis == 3


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (([0.5, -1.0],), r"scales must be finite and at least 0, got -1.0..0.5"),
        (([np.nan, 1.0],), r"scales must be finite and at least 0, got nan..nan"),
        (([np.inf],), r"scales must be finite and at least 0, got inf..inf"),
        (([],), r"must be two vectors of one length, got shapes \(0,\) and \(0,\)"),
        (([1.0, 2.0], [0, 0, 0]), r"must be two vectors of one length, got shapes"),
        (([1.0], 2**31), r"zero_points must fit int32, got 2147483648..2147483648"),
        (([1.0], 0.5), r"zero_points must be integers, got dtype float64"),
        (([1.0], 0, -1), r"axis must be at least 0, got -1"),
    ],
)
def test_quantization_refuses(arguments: tuple[Any, ...], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        Quantization.of(*arguments)


def test_quantization_refuses_other_dtypes_than_its_own() -> None:
    with pytest.raises(ConfigError, match=r"scales must be an array of float32, got float64"):
        Quantization(np.ones(1), np.zeros(1, np.int64))  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match=r"zero_points must be an array of int64, got list"):
        Quantization(np.ones(1, np.float32), [0])  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"shape": (2, -1)}, r"lengths of axes must be at least 0, got \(2, -1\)"),
        ({"shape": (1,) * 33}, r"must have at most 32 axes, got 33"),
        ({"data": np.zeros((2, 2), np.int8)}, r"must have its shape, got \(2, 2\)"),
        ({"data": np.zeros((2, 3), np.int16)}, r"must be an array of int8, got int16"),
        ({"dtype": "resource", "data": np.zeros(6)}, r"must have no data, got 6 values"),
        ({"quantization": Quantization.of([1, 1])}, None),
        ({"quantization": Quantization.of([1, 1, 1])}, r"as many as axis 0 is long, got 3"),
        ({"quantization": Quantization.of([1, 1], axis=2)}, r"as many as axis 2 is long, got 2"),
    ],
)
def test_tensor_refuses(fields: dict[str, Any], message: str | None) -> None:
    arguments = {"index": 0, "name": "x", "shape": (2, 3), "dtype": "int8", **fields}
    if message is None:
        assert Tensor(**arguments).shape == (2, 3)
        return
    with pytest.raises(ConfigError, match=message):
        Tensor(**arguments)


def test_unknown_dtype_lists_the_known_ones() -> None:
    with pytest.raises(UnknownNameError, match=r"dtype must be one of .*; did you mean 'int8'"):
        Tensor(0, "x", (1,), "Int8")


def test_data_is_read_only_and_in_c_order() -> None:
    values = np.arange(6, dtype=np.int8).reshape(3, 2)
    tensor = Tensor(0, "x", (2, 3), "int8", data=values.T)
    assert tensor.data is not None
    assert tensor.data.flags.c_contiguous
    assert not tensor.data.flags.writeable
    assert values.flags.writeable
    assert tensor.data.tolist() == [[0, 2, 4], [1, 3, 5]]


def test_scalar_constant_keeps_its_shape() -> None:
    tensor = Tensor(0, "x", (), "int32", data=np.array(5, np.int32))
    assert tensor.data is not None
    assert tensor.data.shape == ()
    assert (tensor.n_elements, tensor.n_bytes) == (1, 4)


def test_empty_data_is_none() -> None:
    assert Tensor(0, "x", (0, 2), "int8", data=np.zeros((0, 2), np.int8)).data is None


@pytest.mark.parametrize(
    ("dtype", "n_bytes"),
    [("int8", 7), ("int4", 4), ("int2", 2), ("float32", 28), ("complex128", 112), ("string", 0)],
)
def test_n_bytes_counts_packed_values(dtype: str, n_bytes: int) -> None:
    assert Tensor(0, "x", (7,), dtype).n_bytes == n_bytes


def test_every_dtype_says_how_it_is_stored() -> None:
    for name, (bits, storage) in DTYPES.items():
        if storage and storage != "object":
            assert bits <= 8 * np.dtype(storage).itemsize, name


def test_equality_is_by_value_and_sees_every_field() -> None:
    def make(**changes: Any) -> Tensor:
        fields: dict[str, Any] = {
            "index": 1,
            "name": "x",
            "shape": (2,),
            "dtype": "float32",
            "quantization": Quantization.of([0.5, 0.25], [1, 2]),
            "data": np.array([np.nan, 1], np.float32),
            "is_variable": False,
            "shape_signature": (-1,),
        }
        return Tensor(**{**fields, **changes})

    assert make() == make()
    assert hash(make()) == hash(make())
    changes: list[dict[str, Any]] = [
        {"index": 2},
        {"name": "y"},
        {"data": None},
        {"data": np.array([np.nan, 2], np.float32)},
        {"quantization": None},
        {"quantization": Quantization.of([0.5, 0.25], [1, 3])},
        {"quantization": Quantization.of([0.5, 0.125], [1, 2])},
        {"is_variable": True},
        {"shape_signature": None},
    ]
    for change in changes:
        assert make() != make(**change), change
    assert make() != "x"
    assert Quantization.of([1]) != 1


def test_tensors_survive_pickling() -> None:
    tensor = Tensor(
        0, "x", (2,), "int8", Quantization.of([1, 2]), np.array([3, 4], np.int8), True, (-1,)
    )
    assert pickle.loads(pickle.dumps(tensor)) == tensor


def test_repr_is_short_for_many_channels() -> None:
    tensor = Tensor(0, "x", (9999,), "int8", Quantization.of(np.ones(9999)))
    assert len(repr(tensor)) < 250
    assert str(tensor) == "int8[9999] 'x'"
