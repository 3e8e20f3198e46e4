# SPDX-License-Identifier: Apache-2.0
"""Tests of whether strategies differ, by their ranks, and corrections for many of them.

Accuracies are rarely normal, and a seed that is hard for one strategy is often hard for all. So
strategies are ranked within each block, such as a seed, and differences are paired by it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from npusim.errors import ConfigError

ALPHA = 0.05
"""A difference is called significant below."""
LEAST_BLOCKS = 2


@dataclass(frozen=True, slots=True)
class Friedman:
    """Whether any of several strategies differs from the others.

    Attributes:
        statistic: Iman and Davenport's F; infinite if all blocks rank alike.
        p: probability of so large a one if all strategies were the same: of the F distribution,
            but no less than so few blocks can give.
    """

    statistic: float
    p: float


def ranks(scores: np.ndarray) -> np.ndarray:
    """Rank of each strategy within its block, 1 the best; equal scores share the mean of theirs.

    Args:
        scores: higher is better, f64 [n_blocks, n_strategies].

    >>> ranks(np.array([[0.9, 0.7, 0.9]])).tolist()
    [[1.5, 3.0, 1.5]]
    """
    from scipy.stats import rankdata

    found: np.ndarray = rankdata(-_table(scores), axis=1)
    return found


def friedman(scores: np.ndarray) -> Friedman:
    """Friedman's test with the correction of Iman and Davenport, ties taken into account.

    Args:
        scores: f64 [n_blocks, n_strategies].

    Raises:
        ConfigError: fewer than 2 blocks or 3 strategies: for two there is `signed_rank`.

    Source: Iman and Davenport, 1980, as recommended by Demšar, 2006, "Statistical comparisons of
    classifiers over multiple data sets", section 3.2.2.
    """
    from scipy.stats import f, friedmanchisquare

    table = _table(scores)
    n, k = table.shape
    if n < LEAST_BLOCKS or k < 3:
        raise ConfigError(f"scores must be of 2 blocks and 3 strategies or more, got {n} and {k}")
    if (table == table[:, :1]).all():
        return Friedman(0.0, 1.0)  # nothing but ties
    chi2 = float(friedmanchisquare(*table.T).statistic)
    left = n * (k - 1) - chi2
    statistic = (n - 1) * chi2 / left if left > 1e-9 else math.inf
    p = float(f.sf(statistic, k - 1, (k - 1) * (n - 1)))
    return Friedman(statistic, max(p, _least_friedman_p(table)))


def _least_friedman_p(table: np.ndarray) -> float:
    """Of all orders within the blocks, how many surely have the statistic that `table` has.

    Those in which the strategies have changed their names: as many as there are orders of the
    block with the fewest ties. Exact where all blocks rank alike.
    """
    orders = []
    for block in table:
        ties = np.unique(block, return_counts=True)[1].tolist()
        orders.append(math.factorial(len(block)) // math.prod(map(math.factorial, ties)))
    return max(orders) / math.prod(orders)


def signed_rank(scores: np.ndarray, others: np.ndarray) -> float:
    """p of Wilcoxon's signed-rank test, two-sided and exact, of scores that are paired by block.

    Exact with ties too, which accuracies of small test sets often have. Blocks of equal scores say
    nothing and are left out.

    Args:
        scores, others: f64 [n_blocks].

    Raises:
        ConfigError: shapes differ.

    Source: Wilcoxon, 1945; the distribution given the ranks, over all signs, as of a permutation
    test.

    >>> signed_rank(np.array([1.0, 2, 3, 4, 5]), np.zeros(5))
    0.0625
    """
    from scipy.stats import rankdata

    first, second = np.asarray(scores, np.float64), np.asarray(others, np.float64)
    if first.shape != second.shape or first.ndim != 1 or not first.size:
        raise ConfigError(f"scores must be paired, got shapes {first.shape} and {second.shape}")
    apart = first - second
    # 0.98 - 0.97 and 0.97 - 0.96 are the same difference, but not in floating point
    apart = np.round(apart[apart != 0], 12)
    doubled = (2 * rankdata(np.abs(apart))).astype(np.int64)  # whole numbers: ties share means
    chance = np.ones(1)  # of each sum of the positive ranks
    for rank in doubled.tolist():
        longer = np.zeros(chance.size + rank)
        longer[: chance.size] += chance / 2
        longer[rank:] += chance / 2
        chance = longer
    positive = int(doubled[apart > 0].sum())
    rest = min(positive, int(doubled.sum()) - positive)
    return float(min(1.0, 2 * chance[: rest + 1].sum()))


def least_p(n_blocks: int) -> float:
    """The smallest p that `signed_rank` can give, whatever the scores.

    >>> least_p(5), least_p(10)
    (0.0625, 0.001953125)
    """
    return float(2.0 ** (1 - n_blocks))


def holm(p: Sequence[float]) -> list[float]:
    """p values of several tests, corrected for being several.

    Called significant where they are at most 5 %, any of the tests is wrong with at most 5 %.

    Source: Holm, 1979, "A simple sequentially rejective multiple test procedure".

    >>> holm([0.01, 0.04, 0.03])
    [0.03, 0.06, 0.06]
    """
    found, largest = [0.0] * len(p), 0.0
    for done, place in enumerate(np.argsort(p, kind="stable").tolist()):
        largest = max(largest, min(1.0, (len(p) - done) * p[place]))
        found[place] = largest
    return found


def groups(mean_ranks: Sequence[float], differ: np.ndarray) -> list[list[int]]:
    """Longest runs of neighbours in the ranking within which no two differ significantly.

    Args:
        mean_ranks: of each strategy.
        differ: which pairs do, bool [n, n], symmetric.

    Returns:
        Groups of two or more, the best first: the bars of a critical-difference diagram.

    Source: Demšar, 2006, figure 1, with pairwise tests as Benavoli et al., 2016, recommend.

    >>> groups([1.0, 2.0, 3.0], np.array([[0, 0, 1], [0, 0, 0], [1, 0, 0]], dtype=bool))
    [[0, 1], [1, 2]]
    """
    order = np.argsort(mean_ranks, kind="stable").tolist()
    found: list[list[int]] = []
    end = 0
    for start in range(len(order)):
        stop = start + 1
        while stop < len(order) and not differ[order[stop], order[start:stop]].any():
            stop += 1
        if stop > end and stop - start > 1:
            found.append(order[start:stop])
        end = max(end, stop)
    return found


def _table(scores: np.ndarray) -> np.ndarray:
    table = np.asarray(scores, dtype=np.float64)
    if table.ndim != 2 or not np.isfinite(table).all():
        raise ConfigError(f"scores must be finite, of shape [n_blocks, n], got {table.shape}")
    return table
