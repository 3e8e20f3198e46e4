# SPDX-License-Identifier: Apache-2.0
"""Fronts of several objectives, all to be minimised: ranks, crowding, hypervolume."""

from __future__ import annotations

import numpy as np

from npusim.errors import ConfigError


def ranks(points: np.ndarray, violations: np.ndarray | None = None) -> np.ndarray:
    """Number of the front that each point is in, from 0, i64 [n].

    A point dominates another if it is at least as good in every objective and better in one. With
    violations, those that violate less dominate the others whatever the objectives.

    Args:
        points: f64 [n, n_objectives].
        violations: at least 0, f64 [n].

    Source: Deb et al., 2002, NSGA-II: non-dominated sorting, constrained domination.

    >>> ranks(np.array([[0.0, 1.0], [1.0, 0.0], [1.0, 1.0]])).tolist()
    [0, 0, 1]
    """
    no_worse = np.all(points[:, None] <= points[None], axis=2)
    dominates = no_worse & ~no_worse.T
    if violations is not None:
        less = violations[:, None] < violations[None]
        dominates = less | (dominates & ~less.T)
    found = np.full(len(points), -1, dtype=np.int64)
    front = 0
    while (left := found < 0).any():
        free = left & ~dominates[left].any(axis=0)
        found[free] = front
        front += 1
    return found


def crowding(points: np.ndarray) -> np.ndarray:
    """How far apart the neighbours of each point of a front are, f64 [n]; infinite at its ends.

    Args:
        points: f64 [n, n_objectives], of one front.

    Source: Deb et al., 2002, NSGA-II: crowding distance.
    """
    found = np.zeros(len(points))
    for values in points.T:
        order = np.argsort(values, kind="stable")
        span = values[order[-1]] - values[order[0]] if len(order) else 0.0
        found[order[[0, -1]]] = np.inf
        if span > 0:
            found[order[1:-1]] += (values[order[2:]] - values[order[:-2]]) / span
    return found


def hypervolume(points: np.ndarray, reference: np.ndarray) -> float:
    """Area that points of two objectives dominate, up to a reference point.

    Args:
        points: f64 [n, 2].
        reference: f64 [2]; points that are not better in both count nothing.

    Raises:
        ConfigError: another number of objectives.

    >>> hypervolume(np.array([[0.0, 1.0], [1.0, 0.0]]), np.array([2.0, 2.0]))
    3.0
    """
    if points.ndim != 2 or points.shape[1] != 2 or reference.shape != (2,):
        raise ConfigError(f"points must have shape [n, 2], got {points.shape}")
    inside = points[(points < reference).all(axis=1)]
    area, lowest = 0.0, float(reference[1])
    for first, second in inside[np.lexsort((inside[:, 1], inside[:, 0]))].tolist():
        if second < lowest:
            area += (float(reference[0]) - first) * (lowest - second)
            lowest = second
    return area
