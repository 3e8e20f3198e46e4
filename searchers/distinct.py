# SPDX-License-Identifier: Apache-2.0
"""Feasible candidates without repetition: what searchers propose from."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from spaces.base import Candidate, Space
from spaces.feasible import feasible_set
from spaces.limits import Limit

REPEATS_MAX = 10_000
"""Repeated draws in a row after which a feasible set of inexact size counts as exhausted."""


class Distinct:
    """Hands out each candidate within a limit at most once.

    Raises:
        InfeasibleError: no candidate is within the limit.
    """

    def __init__(self, space: Space, limit: Limit):
        self.space, self.limit = space, limit
        self._feasible = feasible_set(space, limit)
        self._count = self._feasible.count()
        self._seen: set[Candidate] = set()

    def within(self, limit: Limit) -> Distinct:
        """The same with a limit of less; neither hands out what the other did."""
        found = Distinct(self.space, limit)
        found._seen = self._seen
        return found

    def draw(self, rng: np.random.Generator) -> Candidate:
        """One within the limit, each equally likely, handed out before or not."""
        return self._feasible.sample(rng)

    def sample(self, rng: np.random.Generator) -> Candidate | None:
        """One not handed out before, each equally likely; None when all were."""
        return self.first_new(lambda: self._feasible.sample(rng))

    def is_new(self, candidate: Candidate) -> bool:
        """Whether it is within the limit and was not handed out before."""
        return candidate not in self._seen and self.limit.allows(self.space, candidate)

    def take(self, candidate: Candidate) -> Candidate:
        """Hand out a candidate that is new."""
        self._seen.add(candidate)
        return candidate

    def first_new(
        self, draw: Callable[[], Candidate | None], draws_max: int | None = None
    ) -> Candidate | None:
        """The first draw that was not handed out before.

        Args:
            draw: gives a candidate within the limit, or None for a draw in vain.
            draws_max: draws before giving up; None to go on while there are new ones.

        Returns:
            None if all candidates were handed out, or `draws_max` draws were not new.
        """
        if draws_max is None and not self._feasible.exact:
            draws_max = REPEATS_MAX
        n_draws = 0
        while len(self._seen) < self._count:
            found = draw()
            if found is not None and found not in self._seen:
                return self.take(found)
            n_draws += 1
            if n_draws == draws_max:
                break
        return None
