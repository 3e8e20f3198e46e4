# SPDX-License-Identifier: Apache-2.0
"""Random search: what every other strategy has to beat."""

from __future__ import annotations

import numpy as np

from searchers.base import Trial
from searchers.distinct import Distinct
from spaces.base import Candidate, Space
from spaces.limits import Limit


class RandomSearch:
    """Draw uniformly among all candidates within the limit that were not drawn before."""

    def __init__(self, space: Space, limit: Limit, rng: np.random.Generator):
        self._distinct = Distinct(space, limit)
        self._rng = rng

    def ask(self) -> Candidate | None:
        """A candidate never proposed before; None when all were."""
        return self._distinct.sample(self._rng)

    def tell(self, trial: Trial) -> None:
        """Random search learns nothing."""
