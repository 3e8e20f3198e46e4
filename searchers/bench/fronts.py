# SPDX-License-Identifier: Apache-2.0
"""Fronts of score against cost: what each search found besides its best, and their hypervolumes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from searchers.base import History, Trial
from searchers.fronts import hypervolume
from spaces.base import Space
from spaces.npu_limits import NpuLimit

CYCLES = "total_cycles"


def fronts(
    space: Space, history: History, measures: Sequence[str], npu: str | None
) -> dict[str, Any]:
    """The fronts of a search, by measure, with its worst values.

    Args:
        space: what the trials are of.
        history: of the search.
        measures: of `spaces.costs.MEASURES`.
        npu: preset on which cycles are another measure, `CYCLES`; None for none.

    Returns:
        By measure: ``cost`` and ``score`` of the valid trials that no other beats in both, the
        cheapest first, their ``trial``; and of all valid ones ``worst_cost`` and ``worst_score``.
    """
    valid = [trial for trial in history if trial.valid]
    found = {}
    for measure in (*dict.fromkeys(measures), *([CYCLES] if npu is not None else [])):
        costs = _costs(space, valid, measure, npu)
        order = sorted(range(len(valid)), key=lambda i: (costs[i], -valid[i].merit))
        kept: list[int] = []
        for i in order:
            if not kept or valid[i].merit > valid[kept[-1]].merit:
                kept.append(i)
        found[measure] = {
            "cost": [costs[i] for i in kept],
            "score": [valid[i].score for i in kept],
            "trial": [valid[i].index for i in kept],
            "worst_cost": max(costs, default=None),
            "worst_score": min((trial.merit for trial in valid), default=None),
        }
    return found


def _costs(space: Space, trials: Sequence[Trial], measure: str, npu: str | None) -> list[int]:
    if measure != CYCLES:
        return [trial.costs[measure] for trial in trials]
    assert npu is not None
    return [NpuLimit(CYCLES, 1, npu).cost(space, trial.candidate) for trial in trials]


def joined(found: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """The front of several fronts of one measure.

    Args:
        found: each as of `fronts`, with ``cost`` and ``score``.
    """
    points = sorted(
        (cost, -score)
        for front in found
        for cost, score in zip(front["cost"], front["score"], strict=True)
    )
    kept: list[tuple[int, float]] = []
    for cost, negative in points:
        if not kept or negative < kept[-1][1]:
            kept.append((cost, negative))
    return {"cost": [cost for cost, _ in kept], "score": [-negative for _, negative in kept]}


def reference_point(found: Sequence[Mapping[str, Any]]) -> tuple[float, float]:
    """The worst cost and the worst score of all valid trials of all searches of a problem.

    Args:
        found: fronts of one measure, of which one or more are not empty.
    """
    return (
        max(front["worst_cost"] for front in found if front["cost"]),
        min(front["worst_score"] for front in found if front["cost"]),
    )


def shares(found: Sequence[Mapping[str, Any]]) -> list[float | None]:
    """Hypervolume of each front as a fraction of that of all of them together.

    Costs are minimised, scores maximised, up to `reference_point`; None where a front is empty, 0
    for all where together they dominate nothing.
    """
    if not any(front["cost"] for front in found):
        return [None for _ in found]
    worst_cost, worst_score = reference_point(found)
    reference = np.array([worst_cost, -worst_score], np.float64)

    def area(front: Mapping[str, Any]) -> float:
        points = np.array([front["cost"], [-score for score in front["score"]]], np.float64).T
        return hypervolume(points.reshape(-1, 2), reference)

    whole = area(joined(found))
    return [(area(front) / whole if whole else 0.0) if front["cost"] else None for front in found]
