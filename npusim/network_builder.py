# SPDX-License-Identifier: Apache-2.0
"""Building networks from plain arrays, one operation after the other."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from npusim._arguments import choice, integer_array
from npusim.errors import ConfigError
from npusim.formats import tflite_schema
from npusim.network import Attribute, Network, Op, UniqueNames, find_ifm
from npusim.ofm_shape import ofm_shape
from npusim.tensor import Quantization, Tensor

Input: TypeAlias = Tensor | npt.NDArray[Any] | None
"""An input of an operation; an array becomes a constant without quantization."""


class NetworkBuilder:
    """Collects tensors and operations; `build` makes the network.

    >>> net = NetworkBuilder("tiny")
    >>> image = net.input((1, 8, 8, 3), scale=0.02)
    >>> weights = net.constant(np.ones((4, 3, 3, 3), np.int8), scales=0.01)
    >>> bias = net.bias([0, 0, 0, 0], image, weights)
    >>> features = net.op("CONV_2D", image, weights, bias, stride_h=2, stride_w=2, scale=0.1)
    >>> print(net.build(features))
    tiny: 1 ops, 108 weights, 1,728 MACs, int8[1, 8, 8, 3] -> int8[1, 4, 4, 4]

    Args:
        name: of the network.
    """

    def __init__(self, name: str):
        self._name = name
        self._tensors: list[Tensor] = []
        self._ops: list[Op] = []
        self._inputs: list[Tensor] = []
        self._names = UniqueNames()

    def input(
        self,
        shape: Sequence[int],
        dtype: str = "int8",
        *,
        scale: float | None = None,
        zero_point: int = 0,
        name: str = "input",
    ) -> Tensor:
        """A tensor that the network's caller provides; without `scale` it is not quantized."""
        quantization = None if scale is None else Quantization.of(scale, zero_point)
        tensor = self._add(name, tuple(shape), dtype, quantization)
        self._inputs.append(tensor)
        return tensor

    def constant(
        self,
        data: npt.NDArray[Any],
        *,
        scales: npt.ArrayLike | None = None,
        zero_points: npt.ArrayLike = 0,
        axis: int = 0,
        dtype: str | None = None,
        name: str = "constant",
    ) -> Tensor:
        """A constant; without `scales` it is not quantized.

        Args:
            data: values, not to be changed afterwards.
            scales: one, or one for each index of `axis`.
            zero_points: one, or as many as scales.
            axis: 0 for CONV_2D, FULLY_CONNECTED and TRANSPOSE_CONV, 3 for DEPTHWISE_CONV_2D.
            dtype: where the array's own does not say it, such as "int4".
            name: need not be unique.
        """
        quantization = None if scales is None else Quantization.of(scales, zero_points, axis)
        return self._add(name, data.shape, dtype or str(data.dtype), quantization, data)

    def bias(
        self,
        values: npt.ArrayLike,
        ifm: Tensor,
        weights: Tensor,
        *,
        dtype: str = "int32",
        name: str = "bias",
    ) -> Tensor:
        """A constant bias, whose scale is the ifm's times the weights', with zero point 0.

        Args:
            values: codes, shape [ofm_depth].
            ifm: of the operation the bias is for; quantized.
            weights: of that operation; quantized.
            dtype: "int32", or "int64" for an int16 ifm.
            name: need not be unique.

        Raises:
            ConfigError: `ifm` or `weights` are not quantized, or values are no integers of `dtype`.
        """
        if ifm.quantization is None or weights.quantization is None:
            raise ConfigError(
                f"ifm and weights of a bias must be quantized, got {ifm!s} and {weights!s}"
            )
        codes = integer_array("bias", values)
        choice("dtype of a bias", dtype, ("int32", "int64"))
        limits = np.iinfo(dtype)
        if codes.size and not limits.min <= codes.min() <= codes.max() <= limits.max:
            raise ConfigError(f"bias must fit {dtype}, got {codes.min()}..{codes.max()}")
        scales = ifm.quantization.scales * weights.quantization.scales
        return self.constant(codes.astype(dtype), scales=scales, name=name)

    def op(
        self,
        kind: str,
        *inputs: Input,
        scale: float | None = None,
        zero_point: int = 0,
        dtype: str | None = None,
        shape: Sequence[int] | None = None,
        name: str = "",
        **attributes: Any,
    ) -> Tensor:
        """Add an operation with one output; return its output.

        Args:
            kind: such as "CONV_2D"; one that `npusim.formats.tflite_schema` lists.
            inputs: in the order of the kind; None for an optional one left out.
            scale: of the ofm; None for the ifm's quantization, or none if `dtype` is float32.
            zero_point: of the ofm, if `scale` is given.
            dtype: of the ofm; None for the ifm's.
            shape: of the ofm; None to have it found by `npusim.ofm_shape`.
            name: of the ofm and so of the operation; by default the kind in lower case.
            attributes: those not given are as in a file that does not say, or 1 if they must be.

        Raises:
            UnknownNameError: `kind` is not known, or its shape must be given.
            ConfigError: attributes or inputs that the kind does not have.
        """
        choice("kind", kind, tflite_schema.CODES)
        values = _attributes(kind, attributes)
        tensors = [self.constant(item) if isinstance(item, np.ndarray) else item for item in inputs]
        ifm = find_ifm(kind, tensors)
        if ifm is None:
            raise ConfigError(f"{kind} must have an ifm, got {len(tensors)} inputs without one")
        ofm = self._add(
            name or kind.lower(),
            ofm_shape(kind, tensors, values) if shape is None else tuple(shape),
            dtype or ifm.dtype,
            _quantization(ifm, dtype) if scale is None else Quantization.of(scale, zero_point),
        )
        op = Op(
            index=len(self._ops),
            kind=kind,
            name=ofm.name,
            inputs=tuple(tensors),
            outputs=(ofm,),
            attributes=values,
            version=tflite_schema.VERSIONS.get(kind, 1),
        )
        self._ops.append(op)
        return ofm

    def build(self, *outputs: Tensor) -> Network:
        """The network of all that was added, which may go on being added to.

        Raises:
            ConfigError: no output, or one of another network.
        """
        if not outputs:
            raise ConfigError(f"network {self._name!r} must have an output, got none")
        return Network(
            name=self._name,
            tensors=tuple(self._tensors),
            ops=tuple(self._ops),
            inputs=tuple(self._inputs),
            outputs=outputs,
        )

    def _add(
        self,
        name: str,
        shape: tuple[int, ...],
        dtype: str,
        quantization: Quantization | None,
        data: npt.NDArray[Any] | None = None,
    ) -> Tensor:
        index, unique = len(self._tensors), self._names(name)
        tensor = Tensor(index, unique, shape, dtype, quantization, data)
        self._tensors.append(tensor)
        return tensor


def _quantization(ifm: Tensor, dtype: str | None) -> Quantization | None:
    return None if dtype == "float32" else ifm.quantization


def _attributes(kind: str, given: dict[str, Any]) -> dict[str, Attribute]:
    """All attributes of `kind`: those given, checked, and defaults that can be executed."""
    fields = [field for field in tflite_schema.fields(kind) if field.name]
    for name in given:
        if name not in [field.name for field in fields]:
            known = ", ".join(field.name for field in fields) or "none"
            raise ConfigError(f"attributes of {kind} must be among {known}, got {name!r}")
    values: dict[str, Attribute] = {}
    for field in fields:
        fallback = field.initial if field.minimum is None else max(field.minimum, field.default)
        value = given.get(field.name, fallback)
        values[field.name] = tflite_schema.checked(field, f"{field.name} of {kind}", value)
    return values
