# SPDX-License-Identifier: Apache-2.0
"""What operators read of an operation: scales, zero points, attributes, clamps."""

from __future__ import annotations

from typing import Any, Final

import numpy as np
import numpy.typing as npt

from npusim.errors import ConfigError
from npusim.integer.requantize import Int64, rounded_away
from npusim.network import Op
from npusim.tensor import Quantization, Tensor

Codes = npt.NDArray[Any]

_CLAMPS: Final = {
    "NONE": (-np.inf, np.inf),
    "RELU": (0, np.inf),
    "RELU6": (0, 6),
    "RELU_N1_TO_1": (-1, 1),
}


def quantization(tensor: Tensor | None) -> Quantization:
    """A feature map's; ConfigError if it has none."""
    if tensor is None or tensor.quantization is None:
        raise ConfigError(f"feature maps must be quantized, got {tensor!s}")
    return tensor.quantization


def scale(tensor: Tensor | None) -> float:
    """A feature map's scale, a float32 as a double."""
    return float(quantization(tensor).scales[0])


def single(tensor: Tensor | None) -> np.float32:
    """A feature map's scale in single precision, for products that runtimes compute in it."""
    return np.float32(quantization(tensor).scales[0])


def zero(tensor: Tensor | None) -> int:
    """A feature map's zero point."""
    return int(quantization(tensor).zero_points[0])


def centred(tensor: Tensor | None, codes: Codes) -> Int64:
    """Codes less their zero point."""
    return codes.astype(np.int64) - zero(tensor)


def attribute(op: Op, name: str) -> int:
    """An integer attribute; 1 for a dilation that the kind does not have."""
    value = op.attributes.get(name, 1)
    assert isinstance(value, int)
    return value


def real_attribute(op: Op, name: str) -> np.float32:
    """An attribute in single precision."""
    value = op.attributes[name]
    assert isinstance(value, float)
    return np.float32(value)


def clamped(tensor: Tensor | None, codes: Int64, activation: str = "NONE") -> Codes:
    """As codes of `tensor`, within what its data type and an activation let pass."""
    assert tensor is not None
    limits, ends = np.iinfo(tensor.dtype), np.array(_CLAMPS[activation], np.float32)
    bound = np.isfinite(ends)
    steps = rounded_away(np.where(bound, ends, 0) / single(tensor)) + zero(tensor)
    low, high = np.where(bound, steps, (limits.min, limits.max))
    return np.clip(codes, max(limits.min, low), min(limits.max, high))


def activated(op: Op, codes: Int64) -> Codes:
    """As codes of the ofm, within what the fused activation lets pass."""
    activation = op.attributes.get("fused_activation", "NONE")
    if activation not in _CLAMPS:
        raise ConfigError(f"activation of {op.name!r} must be a clamp, got {activation}")
    return clamped(op.ofm, codes, str(activation))


def require_same(op: Op, tensor: Tensor | None) -> None:
    """Raise ConfigError if an input is not quantized as the ofm is."""
    assert tensor is not None
    ofm = op.outputs[0]
    if (scale(tensor), zero(tensor)) != (scale(ofm), zero(ofm)):
        raise ConfigError(f"inputs of {op.name!r} must be quantized as its ofm, got {tensor!s}")
