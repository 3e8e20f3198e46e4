# SPDX-License-Identifier: Apache-2.0
"""SCNN's weights: a 4-bit zero run before each non-zero, in groups of filters."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from npusim.schemes.decoder import Decoder
from npusim.schemes.relative_index import RelativeIndex


@dataclass(frozen=True, slots=True)
class Scnn(RelativeIndex):
    """A vector of weights with the zeros between them, for each group of output channels.

    Source: Parashar et al., SCNN, ISCA 2017, section 3: 4-bit runs with zeros as placeholders, and
    a count of the weights; there weights have 16 bits.

    >>> Scnn().encode([0, 0, 7]).hex()
    '01007200'
    """

    name: ClassVar[str] = "scnn"

    @property
    def decoder(self) -> Decoder:
        """Four weights a cycle, as many as a multiplier array takes."""
        return Decoder(
            symbol="entry",
            steps_per_cycle=4.0,
            bits_per_cycle=64,
            weights_per_cycle=64,
            area_ge_low=1000,
            area_ge_high=3000,
            source="rate: SCNN's 4x4 multipliers; area: engineering estimate",
            seek="group",
        )
