# SPDX-License-Identifier: Apache-2.0
"""What can be done to a network's weights before they are compressed: lossy, without training.

The result is a network like any other, to be costed, run or written to a file.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from itertools import product
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from npusim._arguments import integer, real
from npusim.compress import layers_of
from npusim.network import Network, Op, corrected
from npusim.npu import NpuConfig
from npusim.tensor import Quantization, Tensor
from npusim.weights.conditioning import (
    BITS_MAX,
    cluster,
    least_error_clip,
    n_of_m,
    prune,
    requantize,
)

Int16Array = npt.NDArray[np.int16]

RESCALED: Final = ("CONV_2D", "DEPTHWISE_CONV_2D", "FULLY_CONNECTED", "TRANSPOSE_CONV")
"""Kinds whose weights can be requantized: only their bias depends on the weights' scale."""
_ZEROS: Final = {"uint8": 128, "uint4": 8}
"""Zero points of requantized weights; 0 for signed ones."""


@dataclass(frozen=True, slots=True)
class Condition:
    """What is done to weights before they are compressed, in this order.

    Attributes:
        nonzeros: prune each tensor by magnitude to this fraction of non-zeros, 0..1.
        bits: requantize to this width, 1..8; None leaves the weights' own grid.
        clusters: cluster to so many values, 2..511; None: not.
        n_of_m: of every M weights in a row keep N; None: not. Rows are those of the ifm's channels,
            or of the channels of depthwise layers: the NPU reads them so, in groups of 8 or 4.
    """

    nonzeros: float = 1.0
    bits: int | None = None
    clusters: int | None = None
    n_of_m: tuple[int, int] | None = None

    def __post_init__(self) -> None:
        real("nonzeros", self.nonzeros, 0.0, 1.0)
        if self.bits is not None:
            integer("bits", self.bits, 1, BITS_MAX)
        if self.clusters is not None:
            integer("clusters", self.clusters, 2, 511)
        if self.n_of_m is not None:
            n, m = self.n_of_m
            integer("n of n_of_m", n, 0, integer("m of n_of_m", m, 1, 256))

    def __str__(self) -> str:
        """In words, such as "25 % non-zeros, 4 bits"; "as it is" if nothing is done."""
        words = [f"{100 * self.nonzeros:g} % non-zeros"] if self.nonzeros < 1 else []
        words += [] if self.bits is None else [f"{self.bits} bits"]
        words += [] if self.clusters is None else [f"{self.clusters} values"]
        words += [] if self.n_of_m is None else ["{}:{}".format(*self.n_of_m)]
        return ", ".join(words) or "as it is"

    @property
    def file_name(self) -> str:
        """The same as part of a file's name.

        >>> Condition(nonzeros=0.25, bits=4, n_of_m=(2, 4)).file_name
        'nonzeros25-bits4-2of4'
        """
        words = [f"nonzeros{100 * self.nonzeros:g}"] if self.nonzeros < 1 else []
        words += [] if self.bits is None else [f"bits{self.bits}"]
        words += [] if self.clusters is None else [f"values{self.clusters}"]
        words += [] if self.n_of_m is None else ["{}of{}".format(*self.n_of_m)]
        return "-".join(words) or "as-it-is"

    def to_json(self) -> dict[str, Any]:
        """JSON values: the attributes by name."""
        return {
            "nonzeros": self.nonzeros,
            "bits": self.bits,
            "clusters": self.clusters,
            "n_of_m": None if self.n_of_m is None else list(self.n_of_m),
        }


def conditions(
    nonzeros: Sequence[float] = (1.0,),
    bits: Sequence[int | None] = (None,),
    clusters: Sequence[int | None] = (None,),
    patterns: Sequence[tuple[int, int] | None] = (None,),
) -> list[Condition]:
    """All combinations, the last argument's fastest.

    >>> [str(condition) for condition in conditions([1, 0.5], [8, 4])]
    ['8 bits', '4 bits', '50 % non-zeros, 8 bits', '50 % non-zeros, 4 bits']
    """
    return [Condition(*one) for one in product(nonzeros, bits, clusters, patterns)]


def conditioned(network: Network, condition: Condition, npu: NpuConfig) -> Network:
    """The network with the weights that the NPU reads conditioned, tensor by tensor.

    Requantized weights have a larger scale, and biases are rounded to theirs; weights of other
    kinds than `RESCALED`, such as recurrent ones, keep their grid. All else is as it was.

    Args:
        network: not yet compiled.
        condition: what to do.
        npu: tells which operations it executes.

    Raises:
        ConfigError: the network is compiled already.
    """
    if condition == Condition():
        return network
    changes = _Changes(network, condition)
    for op in dict.fromkeys(layer.op for layer in layers_of(network, npu)):
        for tensor in op.weight_tensors:
            changes.change(op, tensor)
    return changes.network()


@dataclass(slots=True)
class _Changes:
    """Tensors that take others' place.

    Attributes:
        before, condition: what to change, and how.
        tensors: of the changed network.
        steps: what a step of changed weights, by index, is in steps of before.
        biases: for each bias by index and each step of the weights beside it, what stands for it.
    """

    before: Network
    condition: Condition
    tensors: list[Tensor] = field(init=False)
    steps: dict[int, float] = field(default_factory=dict)
    biases: dict[tuple[int, float], Tensor] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.tensors = list(self.before.tensors)

    def change(self, op: Op, tensor: Tensor) -> None:
        """Condition a weight tensor, unless that is done, and the bias of the operation."""
        if tensor.index not in self.steps:
            bits = self.condition.bits if op.kind in RESCALED else None
            values, step = _conditioned(corrected(tensor, str(op)), self.condition, bits)
            self.tensors[tensor.index] = _stored(tensor, values, step)
            self.steps[tensor.index] = step
        step, bias = self.steps[tensor.index], op.bias
        if step == 1.0 or bias is None or bias.data is None or (bias.index, step) in self.biases:
            return
        index = bias.index
        if any(index == other for other, _ in self.biases):  # of other weights too
            index = len(self.tensors)
            self.tensors.append(bias)
        self.tensors[index] = replace(_rescaled(bias, step), index=index)
        self.biases[bias.index, step] = self.tensors[index]

    def network(self) -> Network:
        """The changed network."""
        ops = tuple(map(self._op, self.before.ops))
        return replace(self.before, tensors=tuple(self.tensors), ops=ops)

    def _op(self, op: Op) -> Op:
        weights, bias = op.weights, op.bias
        step = 1.0 if weights is None else self.steps.get(weights.index, 1.0)
        inputs = [
            self.biases[tensor.index, step]
            if tensor is not None and tensor is bias and (tensor.index, step) in self.biases
            else tensor and self.tensors[tensor.index]
            for tensor in op.inputs
        ]
        return replace(op, inputs=tuple(inputs))


def _conditioned(
    weights: Int16Array, condition: Condition, bits: int | None
) -> tuple[Int16Array, float]:
    """Conditioned weights, and a step of theirs in steps of before."""
    step = 1.0
    if condition.nonzeros < 1:
        weights = prune(weights, condition.nonzeros)
    if bits is not None:
        clip = least_error_clip(weights, bits)
        codes = requantize(weights, bits, clip).astype(np.int16)
        step = clip / ((1 << (bits - 1)) - 1) if bits > 1 else _mean_magnitude(weights)
        weights = codes
    if condition.clusters is not None:
        weights = cluster(weights, condition.clusters)
    if condition.n_of_m is not None:
        weights = _patterned(weights, *condition.n_of_m)
    return weights, step


def _mean_magnitude(weights: Int16Array) -> float:
    """Of the non-zeros; 1 without any."""
    magnitudes = np.abs(weights[weights != 0])
    return float(magnitudes.mean()) if magnitudes.size else 1.0


def _patterned(weights: Int16Array, n: int, m: int) -> Int16Array:
    """N of every M weights along the last axis, which is that of the ifm's channels."""
    depth = weights.shape[-1]
    rows = np.zeros((weights.size // max(1, depth), -(-depth // m) * m), np.int16)
    rows[:, :depth] = weights.reshape(-1, depth)
    kept: Int16Array = n_of_m(rows.ravel(), n, m).reshape(rows.shape)
    return kept[:, :depth].reshape(weights.shape)


def _stored(tensor: Tensor, values: Int16Array, step: float) -> Tensor:
    """The tensor with other weights, less their zero points, on a grid of larger steps."""
    assert tensor.data is not None
    quantization, points = tensor.quantization, np.zeros(1, np.int64)
    if quantization is not None:
        points = quantization.zero_points
        if step != 1.0:
            points = np.full_like(points, _ZEROS.get(tensor.dtype, 0))
            quantization = Quantization(_scaled(quantization, step), points, quantization.axis)
    shape = [1] * values.ndim
    if quantization is not None and points.size > 1:
        shape[quantization.axis] = points.size
    codes = values + points.reshape(shape)
    data = codes.astype(tensor.data.dtype)
    assert np.array_equal(data, codes), str(tensor)
    return replace(tensor, data=data, quantization=quantization)


def _rescaled(bias: Tensor, step: float) -> Tensor:
    """The bias of weights whose step is so many times what it was."""
    assert bias.data is not None
    data = np.rint(bias.data / step).astype(bias.data.dtype)
    quantization = bias.quantization
    if quantization is not None:
        scales = _scaled(quantization, step)
        quantization = Quantization(scales, quantization.zero_points, quantization.axis)
    return replace(bias, data=data, quantization=quantization)


def _scaled(quantization: Quantization, step: float) -> npt.NDArray[np.float32]:
    return (quantization.scales * np.float64(step)).astype(np.float32)
