# SPDX-License-Identifier: Apache-2.0
"""The weight stream of Arm Ethos-U NPUs as a scheme; the work is done in `npusim.weights`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from npusim import weights
from npusim.schemes.base import Scheme, Values
from npusim.schemes.decoder import Decoder, Symbols
from npusim.weights.chunks import planned_trace


@dataclass(frozen=True, slots=True)
class EthosUMlw(Scheme):
    """Palettes and Golomb-Rice codes of weight indices and zero runs.

    Attributes:
        encoder: whose choices to take: one of `npusim.weights.ENCODERS`.
        effort, direct_offset: of encoder "tight" only, see `npusim.weights.tight`; None: its own.

    Source: [VELA]; see `npusim.weights.format`.

    >>> EthosUMlw().size([0, 0, 0, 7])
    16
    """

    name: ClassVar[str] = "ethos-u-mlw"

    encoder: str = "regor"
    effort: int | None = None
    direct_offset: str | None = None

    def __post_init__(self) -> None:
        weights.encoded_size([], encoder=self.encoder, **self._options)  # refuses what does not fit

    @property
    def decoder(self) -> Decoder:
        """One chunk iteration a cycle, at most 32 weights out: the rate Arm publishes of U85."""
        return Decoder(
            symbol="chunk iteration",
            bits_per_cycle=128,
            weights_per_cycle=32,
            table_bits=32 * 9,
            area_ge_low=6000,
            area_ge_high=20000,
            source="rate: Arm's Ethos-U85 (8 to 32 weights a cycle) and the format's chunks; area: "
            "engineering estimate",
        )

    def _symbols(self, values: Values) -> Symbols:
        trace = planned_trace(values, encoder=self.encoder, **self._options)
        return Symbols.of(trace[:, 0], trace[:, 1])

    @property
    def _options(self) -> dict[str, Any]:
        options = {"effort": self.effort, "direct_offset": self.direct_offset}
        return {name: value for name, value in options.items() if value is not None}

    def _size(self, values: Values) -> int:
        return weights.encoded_size(values, encoder=self.encoder, **self._options)

    def _encode(self, values: Values) -> bytes:
        return weights.encode(values, encoder=self.encoder, **self._options)

    def _decode(self, stream: bytes, n: int) -> Values:
        return weights.decode(stream, max_weights=n)
