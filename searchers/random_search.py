# SPDX-License-Identifier: Apache-2.0
"""Random search: what every other strategy has to beat."""

from __future__ import annotations

from functools import partial
from typing import Literal

import numpy as np

from npusim._arguments import integer
from searchers.base import Trial
from searchers.distinct import Distinct
from spaces.base import Candidate, Space
from spaces.costs import cost
from spaces.feasible import smallest
from spaces.limits import Limit

BAND_DRAWS = 1000
"""Draws in a row that may be below a band before the band counts as empty."""


BATCH = 64
"""Candidates asked for at once; learning nothing, it proposes the same whatever this is."""


class RandomSearch:
    """Draw uniformly among all candidates within the limit that were not drawn before.

    Args:
        space, limit, rng: see `searchers.base.Searcher`.
        draw: ``uniform``, or ``stratified``: first a band of costs, each equally likely, then
            uniformly within it. Most candidates of large spaces cost nearly as much as the limit
            allows; bands see to it that small ones are drawn too.
        bands: bands of equal width between the least cost there is and the limit.

    Raises:
        ConfigError: `bands` is out of range.
        InfeasibleError: no candidate is within the limit.
        TooEntangledError: bands of a space whose least cost cannot be known.
    """

    batch = BATCH

    def __init__(
        self,
        space: Space,
        limit: Limit,
        rng: np.random.Generator,
        draw: Literal["uniform", "stratified"] = "uniform",
        bands: int = 4,
    ):
        integer("bands", bands, 1, 16)
        self._space, self._rng = space, rng
        self._measure = limit.measure
        self._uniform = Distinct(space, limit)
        self._bands: list[tuple[int, Distinct]] = []
        if draw == "stratified":
            least = cost(space, smallest(space, limit.measure), limit.measure)
            edges = np.linspace(least, limit.most, bands + 1).astype(int).tolist()
            for low, high in zip([least - 1, *edges[1:]], edges[1:], strict=False):
                distinct = self._uniform.within(Limit(limit.measure, high))
                self._bands.append((low, distinct))

    def ask(self) -> Candidate | None:
        """A candidate never proposed before; None when all were."""
        while self._bands:
            which = int(self._rng.integers(len(self._bands)))
            low, distinct = self._bands[which]
            found = distinct.first_new(partial(self._draw_above, low, distinct), BAND_DRAWS)
            if found is not None:
                return found
            del self._bands[which]
        return self._uniform.sample(self._rng)

    def _draw_above(self, low: int, distinct: Distinct) -> Candidate | None:
        found = distinct.draw(self._rng)
        return found if cost(self._space, found, self._measure) > low else None

    def tell(self, trial: Trial) -> None:
        """Random search learns nothing."""
