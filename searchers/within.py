# SPDX-License-Identifier: Apache-2.0
"""Further limits for searchers that know of one: on cycles, memory, or a second measure.

They take longer to check than the first limit, some hundredths of a second a candidate, but not
nearly as long as training: so a proposal beyond them is not evaluated. The searcher is told that it
violates them, and by how much, and is asked again.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from npusim.errors import InfeasibleError
from searchers.base import Searcher, Trial
from spaces.base import Candidate, Space
from spaces.costs import MEASURES, cost
from spaces.limits import Limit
from spaces.npu_limits import AnyLimit, excess, limit_costs

REFUSED_MAX = 2000
"""Proposals in a row that may be beyond further limits before the search ends."""


class Within:
    """A searcher whose proposals are within all limits.

    The searcher inside hears of all its proposals in the order in which it made them, and is never
    asked for more than its ``batch`` before it heard of them. Those that were refused have the
    lowest score there was so far.

    Args:
        make: the searcher inside: a registered one, and not one-shot.
        limits: further ones.
        space, limit, rng: see `searchers.base.Searcher`.
        options: of the searcher inside.
    """

    def __init__(
        self,
        make: Callable[..., Searcher],
        limits: Sequence[AnyLimit],
        space: Space,
        limit: Limit,
        rng: np.random.Generator,
        **options: Any,
    ):
        self._inside = make(space, limit, rng, **options)
        self._space, self._limits = space, tuple(limits)
        self.batch = getattr(self._inside, "batch", 1)
        self._waiting: deque[Trial | None] = deque()  # None: proposed, and not heard of yet
        self._n_asked, self._n_refused = 0, 0
        self._accepted = False
        self._nearest: tuple[float, Candidate] | None = None
        self._lowest = 0.0

    def ask(self) -> Candidate | None:
        """The next proposal within all limits; None at the end, or where a batch is cut short.

        Raises:
            InfeasibleError: `REFUSED_MAX` proposals were beyond a limit, and none within; names
                what the nearest costs.
        """
        while self._n_asked < self.batch:
            found = self._inside.ask()
            if found is None:
                return None
            self._n_asked += 1
            over = excess(self._space, found, self._limits)
            if over == 0:
                self._waiting.append(None)
                self._n_refused, self._accepted = 0, True
                return found
            self._refuse(found, over)
            if self._n_refused == REFUSED_MAX:
                return self._give_up()
        return None

    def tell(self, trial: Trial) -> None:
        """Hear of the first proposal that was not heard of yet."""
        if trial.score is not None:
            self._lowest = min(self._lowest, trial.score)
        self._waiting.popleft()
        self._inside.tell(trial)
        self._tell_refused()

    def _refuse(self, candidate: Candidate, over: float) -> None:
        self._n_refused += 1
        if self._nearest is None or over < self._nearest[0]:
            self._nearest = over, candidate
        costs = {measure: cost(self._space, candidate, measure) for measure in MEASURES}
        self._waiting.append(
            Trial(-1, candidate, 0, costs, self._lowest, {}, 0, over, wall_s=0.0, cpu_s=0.0)
        )
        self._tell_refused()

    def _tell_refused(self) -> None:
        """Tell of the refused proposals before the first that is being evaluated."""
        while self._waiting and (refused := self._waiting[0]) is not None:
            self._waiting.popleft()
            self._inside.tell(refused)
        if not self._waiting:
            self._n_asked = 0

    def _give_up(self) -> None:
        if self._accepted or self._nearest is None:
            return
        row = np.array([self._nearest[1].choices])
        costs = [int(limit_costs(self._space, row, limit)[0]) for limit in self._limits]
        found = ", ".join(
            f"{n} {limit.measure}" for n, limit in zip(costs, self._limits, strict=True)
        )
        raise InfeasibleError(
            f"limits must be ones that a candidate is within, got {REFUSED_MAX} proposals that "
            f"were not within {', '.join(map(str, self._limits))}; the nearest has {found}",
            costs[0],
        )
