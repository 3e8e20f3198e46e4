# SPDX-License-Identifier: Apache-2.0
"""EIE's compressed columns: 4-bit relative indices and weights, or numbers of shared weights."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from npusim.schemes.decoder import Decoder
from npusim.schemes.relative_index import RelativeIndex


@dataclass(frozen=True, slots=True)
class Eie(RelativeIndex):
    """For each column what its entries are, each a relative row and a weight.

    A group is what one processing element holds of a column. EIE's own weights are numbers of 16
    shared ones, which is ``bits=4`` of weights clustered to 16 (`npusim.weights.cluster`); its
    pointers say where columns begin, as many bits as the counts here.

    Source: Han et al., EIE, ISCA 2016, section III.B.

    >>> Eie(group_weights=2).encode([0, 3, 0, 0]).hex()
    '01000100311000'
    """

    name: ClassVar[str] = "eie"

    group_weights: int = 64

    @property
    def decoder(self) -> Decoder:
        """An entry a cycle."""
        return Decoder(
            symbol="entry",
            bits_per_cycle=64,
            weights_per_cycle=1 << self.index_bits,
            area_ge_low=500,
            area_ge_high=2000,
            source="rate: EIE, one entry a cycle and element; area: engineering estimate",
            seek="group",
        )
