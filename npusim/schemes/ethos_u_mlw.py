# SPDX-License-Identifier: Apache-2.0
"""The weight stream of Arm Ethos-U NPUs as a scheme; the work is done in `npusim.weights`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from npusim import weights
from npusim._arguments import choice
from npusim.schemes.base import Scheme, Values


@dataclass(frozen=True, slots=True)
class EthosUMlw(Scheme):
    """Palettes and Golomb-Rice codes of weight indices and zero runs.

    Attributes:
        encoder: whose choices to take: one of `npusim.weights.ENCODERS`.

    Source: [VELA]; see `npusim.weights.format`.

    >>> EthosUMlw().size([0, 0, 0, 7])
    16
    """

    name: ClassVar[str] = "ethos-u-mlw"

    encoder: str = "regor"

    def __post_init__(self) -> None:
        choice("encoder", self.encoder, weights.ENCODERS)

    def _size(self, values: Values) -> int:
        return weights.encoded_size(values, encoder=self.encoder)

    def _encode(self, values: Values) -> bytes:
        return weights.encode(values, encoder=self.encoder)

    def _decode(self, stream: bytes, n: int) -> Values:
        return weights.decode(stream, max_weights=n)
