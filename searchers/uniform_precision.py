# SPDX-License-Identifier: Apache-2.0
"""The plainest way to fit a network: all layers alike."""

from __future__ import annotations

from itertools import product

import numpy as np

from npusim.errors import InfeasibleError
from searchers.base import Trial
from spaces.base import Candidate, Space
from spaces.costs import costs
from spaces.feasible import require_feasible
from spaces.limits import Limit


class UniformPrecision:
    """Try the networks whose layers all have the same bitwidth, sparsity, width and so on.

    There is one such network for each choice of an option for each *kind* of decision; a decision
    with fewer options than others of its kind takes the one at the same place between its first and
    last. Operators, which have no order, are the last ones. Those within the limit are proposed in
    random order.

    Args:
        space, limit, rng: see `searchers.base.Searcher`.

    Raises:
        InfeasibleError: none of these networks is within the limit.
    """

    batch = 64  # it learns nothing

    def __init__(self, space: Space, limit: Limit, rng: np.random.Generator):
        require_feasible(space, limit)
        rows = _uniform_choices(space)
        cost = costs(space, rows, limit.measure)
        if cost.min() > limit.most:
            least = int(cost.min())
            raise InfeasibleError(
                f"limit on {limit.measure} must be at least {least} "
                f"({Limit(limit.measure, least)}), the least of networks of space {space.name!r} "
                f"with layers all alike, got {limit.most} ({limit})",
                least,
            )
        found = np.unique(space.canonical(rows[cost <= limit.most]), axis=0)
        self._left = [space.candidate(row) for row in rng.permutation(found).tolist()]

    def ask(self) -> Candidate | None:
        """One not proposed before; None when all were."""
        return self._left.pop() if self._left else None

    def tell(self, trial: Trial) -> None:
        """Nothing is learnt."""


def _uniform_choices(space: Space) -> np.ndarray:
    """Option indices of all networks with one option for each kind, i64 [n, n_decisions]."""
    most: dict[str, int] = {}
    for decision in space.decisions:
        if decision.ordered:
            most[decision.kind] = max(most.get(decision.kind, 0), len(decision.options) - 1)
    rows = []
    for levels in product(*(range(last + 1) for last in most.values())):
        level = dict(zip(most, levels, strict=True))
        row = []
        for decision in space.decisions:
            last = len(decision.options) - 1
            if not decision.ordered or not most[decision.kind]:
                row.append(last)
            else:
                row.append(round(level[decision.kind] * last / most[decision.kind]))
        rows.append(row)
    return np.array(rows, dtype=np.int64).reshape(len(rows), len(space.decisions))
