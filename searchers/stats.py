# SPDX-License-Identifier: Apache-2.0
"""Statistics over repetitions with different seeds."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from npusim.errors import ConfigError

RESAMPLES = 10_000


@dataclass(frozen=True, slots=True)
class Interval:
    """A mean and a confidence interval around it."""

    mean: float
    low: float
    high: float


def bootstrap_mean(values: Sequence[float] | np.ndarray, level: float = 0.95) -> Interval:
    """Mean of a sample and its percentile bootstrap interval.

    The same values always give the same interval. A single value has no interval: its bounds are
    the value itself. With very few values intervals are too narrow.

    Args:
        values: finite numbers, shape [n], n at least 1.
        level: probability that the interval should cover, in (0, 1).

    Raises:
        ConfigError: no values, or a level out of range.

    >>> bootstrap_mean([1.0, 1.0, 1.0])
    Interval(mean=1.0, low=1.0, high=1.0)
    """
    sample = np.asarray(values, dtype=np.float64)
    if sample.ndim != 1 or sample.size == 0:
        raise ConfigError(f"values must have shape [n], n at least 1, got {sample.shape}")
    if not 0 < level < 1:
        raise ConfigError(f"level must be in (0, 1), got {level}")
    rng = np.random.default_rng(0)
    means = sample[rng.integers(sample.size, size=(RESAMPLES, sample.size))].mean(axis=1)
    low, high = np.quantile(means, [(1 - level) / 2, (1 + level) / 2])
    return Interval(float(sample.mean()), float(low), float(high))


def relative_improvement(accuracy: float, random_accuracy: float) -> float:
    """Percent by which an accuracy is above that of the average random candidate.

    Source: "NAS evaluation is frustratingly hard" (Yang et al., 2020).

    >>> round(relative_improvement(0.99, 0.90), 3)
    10.0
    """
    if random_accuracy <= 0:
        raise ConfigError(f"random_accuracy must be more than 0, got {random_accuracy}")
    return 100 * (accuracy - random_accuracy) / random_accuracy
