# SPDX-License-Identifier: Apache-2.0
"""Statistics over repetitions with different seeds: means, intervals, sizes of effects.

Tests of whether strategies differ at all are in `searchers.rank_tests`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from npusim.errors import ConfigError

RESAMPLES = 10_000
Values = Sequence[float] | np.ndarray


@dataclass(frozen=True, slots=True)
class Interval:
    """A mean, or another figure of a sample, and a confidence interval around it."""

    mean: float
    low: float
    high: float


def bootstrap_mean(values: Values, level: float = 0.95) -> Interval:
    """Mean of a sample and its expanded percentile bootstrap interval.

    The same values always give the same interval. A single value has no interval: its bounds are
    the value itself. With a handful of values it still covers the mean too seldom: of normal
    samples of 5, 93 % of the intervals at 95 % do, of 10 and more 95 %.

    Args:
        values: finite numbers, shape [n], n at least 1.
        level: probability that the interval should cover, in (0, 1).

    Raises:
        ConfigError: no values, values that are not finite, or a level out of range.

    Source: Hesterberg, 2015, "What teachers should know about the bootstrap", expanded percentile
    interval: plain percentiles of small samples are narrow by sqrt((n - 1) / n), and by a normal
    quantile in the place of Student's.

    >>> bootstrap_mean([1.0, 1.0, 1.0])
    Interval(mean=1.0, low=1.0, high=1.0)
    """
    sample = _sample("values", values)
    tail = _tail(sample.size, level)
    rng = np.random.default_rng(0)
    means = sample[rng.integers(sample.size, size=(RESAMPLES, sample.size))].mean(axis=1)
    low, high = np.quantile(means, [tail, 1 - tail])
    return Interval(float(sample.mean()), float(low), float(high))


def relative_improvement(values: Values, random_values: Values, level: float = 0.95) -> Interval:
    """Percent by which a mean is above that of random candidates, with its bootstrap interval.

    Both samples are drawn again and again, each by itself.

    Args:
        values: accuracies, shape [n].
        random_values: accuracies of random candidates, shape [m].
        level: see `bootstrap_mean`.

    Raises:
        ConfigError: a sample is empty or not finite, or random candidates are not above 0.

    Source: Yang et al., 2020, "NAS evaluation is frustratingly hard", section 3: RI = 100
    (Acc_m - Acc_r) / Acc_r.

    >>> round(relative_improvement([0.99, 0.99], [0.90, 0.90]).mean, 3)
    10.0
    """
    sample, reference = _sample("values", values), _sample("random_values", random_values)
    if reference.min() <= 0:
        raise ConfigError(f"random_values must be more than 0, got {reference.min()}")
    tail = _tail(min(sample.size, reference.size), level)
    rng = np.random.default_rng(0)
    means, references = (
        each[rng.integers(each.size, size=(RESAMPLES, each.size))].mean(axis=1)
        for each in (sample, reference)
    )
    low, high = np.quantile(100 * (means - references) / references, [tail, 1 - tail])
    mean = 100 * (sample.mean() - reference.mean()) / reference.mean()
    return Interval(float(mean), float(low), float(high))


def superiority(values: Values, others: Values) -> float:
    """Probability that a value of the first sample is above one of the second, ties counting half.

    0.5 says that neither is better; 1 that every value is above every other.

    Args:
        values, others: finite numbers, shapes [n] and [m].

    Raises:
        ConfigError: a sample is empty or not finite.

    Source: Vargha and Delaney, 2000, A12, which is Mann and Whitney's U / (n m); Agarwal et al.,
    2021, call it probability of improvement.

    >>> superiority([2.0, 3.0], [1.0, 3.0])
    0.625
    """
    first, second = _sample("values", values), _sample("others", others)
    above = np.sign(first[:, None] - second[None])
    return float((above.mean() + 1) / 2)


def _sample(what: str, values: Values) -> np.ndarray:
    sample = np.asarray(values, dtype=np.float64)
    if sample.ndim != 1 or sample.size == 0:
        raise ConfigError(f"{what} must have shape [n], n at least 1, got {sample.shape}")
    if not np.isfinite(sample).all():
        raise ConfigError(f"{what} must be finite, got {sample[~np.isfinite(sample)][0]}")
    return sample


def _tail(n: int, level: float) -> float:
    """What an interval leaves out at each end, for samples of n values."""
    from scipy.special import ndtr, stdtrit

    if not 0 < level < 1:
        raise ConfigError(f"level must be in (0, 1), got {level}")
    if n == 1:
        return (1 - level) / 2
    student = stdtrit(n - 1, (1 + level) / 2)
    return float(ndtr(-student * math.sqrt(n / (n - 1))))
