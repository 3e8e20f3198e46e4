# SPDX-License-Identifier: Apache-2.0
"""What a compression scheme is: integers to bytes and back, and the bytes' exact number.

A scheme is a frozen dataclass with a `name`; its fields are its parameters, each with a default.
It writes three hooks and describes its decoder; arguments are checked here, once.
"""

from __future__ import annotations

import dataclasses
from abc import ABC, abstractmethod
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

from npusim._arguments import integer, integer_array
from npusim.errors import ConfigError, StreamError
from npusim.schemes.decoder import Decoder, Symbols

Values = npt.NDArray[np.int16]
"""Weights for a scheme: int16, contiguous, shape [n_weights], each in its `Scheme.value_range`."""

N_MAX = 1 << 40
"""More weights than any stream holds."""


class Scheme(ABC):
    """A lossless code for weights in the order the hardware reads them.

    Children write `_encode`, `_decode` and `_size`, which may trust their arguments, and `decoder`.
    They may write `_symbols`, and where they cannot code all weights `lossless`, `_refusal` and
    `_conditioned`.

    Attributes:
        name: what the scheme is registered as in ``npusim.schemes``.
    """

    name: ClassVar[str]

    __slots__ = ()

    @property
    @abstractmethod
    def decoder(self) -> Decoder:
        """What decodes the scheme in hardware, with these parameters."""

    @property
    def lossless(self) -> bool:
        """Whether all weights in `value_range` can be coded as they are, whatever their pattern."""
        return True

    @property
    def value_range(self) -> tuple[int, int]:
        """Least and greatest weight the scheme can code with these parameters."""
        return -255, 255

    @property
    def parameters(self) -> dict[str, Any]:
        """The scheme's parameters by name."""
        return {field.name: getattr(self, field.name) for field in _fields(type(self))}

    @property
    def label(self) -> str:
        """The scheme as `npusim.schemes.parse` takes it: parameters are named that are no default.

        >>> from npusim import schemes
        >>> schemes.get("rans", states=8).label
        'rans:states=8'
        """
        given = [
            f"{field.name}={str(value).lower() if isinstance(value, bool) else value}"
            for field in _fields(type(self))
            if (value := getattr(self, field.name)) != field.default
        ]
        return self.name + (":" + ",".join(given) if given else "")

    def fitted(self, bits: int, row_weights: int) -> Scheme:
        """The scheme for a layer, where its parameters depend on that.

        Args:
            bits: width of the layer's weights, the value of a parameter of that name unless it was
                given another than its default.
            row_weights: weights of an output channel, likewise.
        """
        layer = {"bits": bits, "row_weights": row_weights}
        own = {
            field.name: layer[field.name]
            for field in _fields(type(self))
            if field.name in layer and getattr(self, field.name) == field.default
        }
        return dataclasses.replace(self, **own) if own else self  # type: ignore[type-var]

    def encode(self, values: npt.ArrayLike) -> bytes:
        """Compress weights.

        Args:
            values: integers in `value_range`, shape [n_weights]; may be empty.

        Raises:
            ConfigError: values of another type, shape or range; or weights that a scheme that is
                not `lossless` cannot code.
        """
        return self._encode(self._codable(values))

    def size(self, values: npt.ArrayLike) -> int:
        """Exact length in bytes of what `encode` returns for the same values, without writing it.

        Raises:
            ConfigError: as `encode`.
        """
        return self._size(self._codable(values))

    def conditioned(self, values: npt.ArrayLike) -> Values:
        """Weights that the scheme can code, close to `values`; the same if it is `lossless`.

        Raises:
            ConfigError: values of another type, shape or range.
        """
        array = self.checked(values)
        return array if self.lossless else self._conditioned(array)

    def symbols(self, values: npt.ArrayLike) -> Symbols:
        """What the decoder works off to give the weights back, in order.

        Raises:
            ConfigError: as `encode`.
        """
        return self._symbols(self._codable(values))

    def decode(self, stream: bytes | bytearray | memoryview, n: int) -> Values:
        """The `n` weights of a stream that `encode` made.

        Returns:
            int16, shape [n].

        Raises:
            StreamError: the stream breaks the scheme's format or holds another number of weights.
            ConfigError: `stream` is not bytes-like or `n` no integer >= 0.
        """
        if not isinstance(stream, (bytes, bytearray, memoryview)):
            raise ConfigError(f"stream must be bytes, got {type(stream).__name__}")
        data = bytes(stream)
        values = self._decode(data, integer("n", n, 0, N_MAX))
        if values.size != n:
            raise StreamError(f"stream must hold {n} weights, got {values.size}", 8 * len(data))
        return values

    @abstractmethod
    def _encode(self, values: Values) -> bytes:
        """As `encode`, of checked values."""

    @abstractmethod
    def _size(self, values: Values) -> int:
        """As `size`, of checked values."""

    @abstractmethod
    def _decode(self, stream: bytes, n: int) -> Values:
        """As `decode`; another number of weights than `n` may be returned and is refused."""

    def _symbols(self, values: Values) -> Symbols:
        """As `symbols`, of checked values: one a weight, of equal bits, unless a child knows."""
        return Symbols.even(values.size, 8 * self._size(values))

    def _refusal(self, values: Values) -> str | None:
        """Why checked values cannot be coded, after "weights for scheme 'NAME' must"."""
        return None

    def _conditioned(self, values: Values) -> Values:
        """As `conditioned`, of checked values."""
        return values

    def _codable(self, values: npt.ArrayLike) -> Values:
        array = self.checked(values)
        refusal = None if self.lossless else self._refusal(array)
        if refusal is not None:
            raise ConfigError(f"weights for scheme {self.name!r} must {refusal}")
        return array

    def checked(self, values: npt.ArrayLike) -> Values:
        """Weights as the hooks take them.

        Raises:
            ConfigError: values of another type, shape or range.
        """
        if isinstance(values, (list, tuple)) and not values:
            return np.empty(0, np.int16)
        array = integer_array("weights", values)
        if array.ndim != 1:
            raise ConfigError(f"weights must be one-dimensional, got shape {array.shape}")
        if array.size:
            low, high = self.value_range
            least, greatest = int(array.min()), int(array.max())
            if least < low or greatest > high:
                worst = greatest if greatest > high else least
                raise ConfigError(
                    f"weights for scheme {self.name!r} must be in {low}..{high}, got {worst}"
                )
        return np.require(array, np.int16, ("C", "A"))


def _fields(kind: type[Scheme]) -> tuple[dataclasses.Field[Any], ...]:
    return dataclasses.fields(kind) if dataclasses.is_dataclass(kind) else ()


def make(kind: type[Scheme], parameters: dict[str, Any]) -> Scheme:
    """A scheme with these parameters and the defaults of the others.

    Raises:
        ConfigError: the scheme has no such parameter, or its value breaks a rule.
    """
    known = [field.name for field in _fields(kind)]
    for name in parameters:
        if name not in known:
            rule = f"be one of {', '.join(known)}" if known else "not be given: there are none"
            raise ConfigError(f"parameter of scheme {kind.name!r} must {rule}, got {name!r}")
    return kind(**parameters)


def signed_range(bits: int) -> tuple[int, int]:
    """Least and greatest weight in two's complement numbers of `bits` bits, 1..9.

    >>> signed_range(8), signed_range(9)
    ((-128, 127), (-255, 255))
    """
    half = 1 << (bits - 1)
    return max(-half, -255), half - 1
