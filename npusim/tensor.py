# SPDX-License-Identifier: Apache-2.0
"""Tensors of a network: shape, data type, quantization and, for constants, the values."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any, Final, NamedTuple

import numpy as np
import numpy.typing as npt

from npusim.errors import ConfigError, UnknownNameError

RANK_MAX: Final = 32
"""Most axes of a tensor: what every supported NumPy can represent."""


class DataType(NamedTuple):
    """How elements of one data type are stored.

    Attributes:
        bits: bits of an element in memory; 0 where a shape does not fix the size.
        storage: NumPy dtype of `Tensor.data`; empty for types that have no constants.
    """

    bits: int
    storage: str


DTYPES: Final[dict[str, DataType]] = {
    "float32": DataType(32, "float32"),
    "float16": DataType(16, "float16"),
    "int32": DataType(32, "int32"),
    "uint8": DataType(8, "uint8"),
    "int64": DataType(64, "int64"),
    "string": DataType(0, "object"),
    "bool": DataType(8, "bool"),
    "int16": DataType(16, "int16"),
    "complex64": DataType(64, "complex64"),
    "int8": DataType(8, "int8"),
    "float64": DataType(64, "float64"),
    "complex128": DataType(128, "complex128"),
    "uint64": DataType(64, "uint64"),
    "resource": DataType(0, ""),
    "variant": DataType(0, ""),
    "uint32": DataType(32, "uint32"),
    "uint16": DataType(16, "uint16"),
    "int4": DataType(4, "int8"),
    "bfloat16": DataType(16, "uint16"),
    "int2": DataType(2, "int8"),
    "uint4": DataType(4, "uint8"),
    "float8_e4m3fn": DataType(8, "uint8"),
    "float8_e5m2": DataType(8, "uint8"),
}
"""Data types of tensors.

Constants of 2 and 4-bit integers are held one value a byte; of bfloat16 and float8, which NumPy
lacks, as their bit patterns; of strings as `bytes` objects.
"""

_FLOAT32 = np.dtype(np.float32)
_INT64 = np.dtype(np.int64)
_STORAGE = {name: np.dtype(kind.storage) for name, kind in DTYPES.items() if kind.storage}


def shortened(name: str) -> str:
    """At most 80 characters of a name: converters join the names of all they fuse.

    >>> len(shortened("conv;" * 1000))
    80
    """
    return name if len(name) <= 80 else f"{name[:38]}...{name[-39:]}"


def same_array(a: npt.NDArray[Any] | None, b: npt.NDArray[Any] | None) -> bool:
    """Whether two arrays agree in shape, dtype and every bit, so that NaN equals itself."""
    if a is None or b is None:
        return a is b
    if a.shape != b.shape or a.dtype != b.dtype:
        return False
    if a.dtype == object:
        return bool(np.array_equal(a, b))
    return a.tobytes() == b.tobytes()


def check_shape(shape: tuple[int, ...]) -> None:
    """Raise ConfigError for a shape of too many axes or an axis of negative length."""
    if len(shape) > RANK_MAX:
        raise ConfigError(f"a shape must have at most {RANK_MAX} axes, got {len(shape)}")
    if shape and min(shape) < 0:
        raise ConfigError(f"lengths of axes must be at least 0, got {shape}")


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class Quantization:
    """Affine quantization: ``real = scale * (code - zero_point)``, per tensor or per channel.

    Attributes:
        scales: float32, shape [n], finite and at least 0; n is 1 or the length of `axis`.
        zero_points: int64, shape [n], in the range of int32.
        axis: the axis whose indices have their own scale; without effect if n is 1.

    Raises:
        ConfigError: an array has another dtype, length or range.
    """

    scales: npt.NDArray[np.float32]
    zero_points: npt.NDArray[np.int64]
    axis: int = 0

    def __post_init__(self) -> None:
        scales = _read_only(self.scales, _FLOAT32, "scales")
        zero_points = _read_only(self.zero_points, _INT64, "zero_points")
        if scales.ndim != 1 or scales.size == 0 or zero_points.shape != scales.shape:
            raise ConfigError(
                "scales and zero_points must be two vectors of one length, got shapes "
                f"{scales.shape} and {zero_points.shape}"
            )
        low, high = _extremes(scales)
        if not (low >= 0 and high < math.inf):
            raise ConfigError(f"scales must be finite and at least 0, got {low}..{high}")
        low, high = _extremes(zero_points)
        if low < -(2**31) or high >= 2**31:
            raise ConfigError(f"zero_points must fit int32, got {low}..{high}")
        if self.axis < 0:
            raise ConfigError(f"axis must be at least 0, got {self.axis}")
        object.__setattr__(self, "scales", scales)
        object.__setattr__(self, "zero_points", zero_points)

    @classmethod
    def of(
        cls, scales: npt.ArrayLike, zero_points: npt.ArrayLike = 0, axis: int = 0
    ) -> Quantization:
        """From numbers or sequences; one zero point serves all scales.

        Raises:
            ConfigError: a zero point is not an integer, or as for the constructor.

        >>> Quantization.of([0.5, 0.25]).zero_points
        array([0, 0])
        """
        scale_array = np.atleast_1d(np.array(scales, np.float32))
        points = np.asarray(zero_points)
        if points.dtype.kind not in "iu":
            raise ConfigError(f"zero_points must be integers, got dtype {points.dtype}")
        if points.size == 1:
            points = np.full(scale_array.shape, points.reshape(()))
        return cls(scale_array, points.astype(np.int64), axis)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Quantization):
            return NotImplemented
        return (
            self.axis == other.axis
            and same_array(self.scales, other.scales)
            and same_array(self.zero_points, other.zero_points)
        )

    def __hash__(self) -> int:
        return hash((self.axis, self.scales.tobytes()))

    def __repr__(self) -> str:
        return (
            f"<Quantization: {self.scales.size} scales from {self.scales[0]}, zero points from "
            f"{self.zero_points[0]}, axis {self.axis}>"
        )


@dataclass(frozen=True, slots=True, eq=False)
class Tensor:
    """A value that operations read or write; a constant if it holds `data`.

    Attributes:
        index: position in `Network.tensors`.
        name: as in the model file; may be empty or repeated.
        shape: length of each axis; ``()`` is a scalar.
        dtype: a key of `DTYPES`, such as "int8".
        quantization: None if not quantized.
        data: constant values of `shape`, read-only, in the storage type of `DTYPES`; else None.
            Without elements there is nothing to hold: an empty array becomes None.
        is_variable: state that one inference leaves to the next.
        shape_signature: `shape` with -1 for axes whose length is set at run time, if stated.

    Raises:
        UnknownNameError: `dtype` is not one of `DTYPES`.
        ConfigError: shape, quantization and data do not fit each other.
    """

    index: int
    name: str
    shape: tuple[int, ...]
    dtype: str
    quantization: Quantization | None = None
    data: npt.NDArray[Any] | None = field(default=None, repr=False)
    is_variable: bool = False
    shape_signature: tuple[int, ...] | None = None

    def __post_init__(self) -> None:
        if self.dtype not in DTYPES:
            raise UnknownNameError("dtype", self.dtype, DTYPES)
        check_shape(self.shape)
        if self.quantization is not None:
            self._check_quantization(self.quantization)
        if self.data is not None:
            self._check_data(self.data)

    def _check_quantization(self, quantization: Quantization) -> None:
        n_scales, axis = quantization.scales.size, quantization.axis
        if n_scales > 1 and (axis >= len(self.shape) or self.shape[axis] != n_scales):
            raise ConfigError(
                f"scales of {self!s} must be one or as many as axis {axis} is long, got {n_scales}"
            )

    def _check_data(self, data: npt.NDArray[Any]) -> None:
        storage = _STORAGE.get(self.dtype)
        if storage is None:
            raise ConfigError(f"{self!s} must have no data, got {data.size} values")
        data = _read_only(data, storage, f"data of {self!s}")
        if data.shape != self.shape:
            raise ConfigError(f"data of {self!s} must have its shape, got {data.shape}")
        object.__setattr__(self, "data", data if data.size else None)

    @property
    def n_elements(self) -> int:
        """Number of elements; 1 for a scalar."""
        return math.prod(self.shape)

    @property
    def n_bytes(self) -> int:
        """Bytes the values take in memory, int4 packed by two; 0 where a shape does not say it.

        >>> Tensor(0, "x", (3,), "int4").n_bytes
        2
        """
        return (self.n_elements * DTYPES[self.dtype].bits + 7) // 8

    def __str__(self) -> str:
        shape = ", ".join(str(length) for length in self.shape)
        return f"{self.dtype}[{shape}] {shortened(self.name)!r}"

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Tensor):
            return NotImplemented
        return self is other or (
            self._fields() == other._fields()
            and self.quantization == other.quantization
            and same_array(self.data, other.data)
        )

    def __hash__(self) -> int:
        return hash(self._fields())

    def _fields(self) -> tuple[object, ...]:
        return (
            self.index,
            self.name,
            self.shape,
            self.dtype,
            self.is_variable,
            self.shape_signature,
        )


def _read_only(array: npt.NDArray[Any], dtype: np.dtype[Any], what: str) -> npt.NDArray[Any]:
    """A read-only view of `array`, or of its copy in C order."""
    if not isinstance(array, np.ndarray) or array.dtype != dtype:
        got = array.dtype if isinstance(array, np.ndarray) else type(array).__name__
        raise ConfigError(f"{what} must be an array of {dtype}, got {got}")
    if not array.flags.c_contiguous:
        array = array.copy()
    if array.flags.writeable:
        array = array.view()
        array.flags.writeable = False
    return array


def _extremes(array: npt.NDArray[Any]) -> tuple[Any, Any]:
    """Least and largest element; NaN if there is one. Most arrays here have one element."""
    if array.size == 1:
        value = array.item()
        return value, value
    return np.minimum.reduce(array), np.maximum.reduce(array)
