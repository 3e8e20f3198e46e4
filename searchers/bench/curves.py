# SPDX-License-Identifier: Apache-2.0
"""Anytime curves: how good the best was after so many trials, images or seconds, over seeds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from searchers.bench.protocol import REFERENCE
from searchers.bench.results import is_of
from searchers.stats import bootstrap_mean

AXES = {"trials": "trials", "images": "images", "wall_s": "seconds"}
"""What curves are drawn against, and how that is called; seconds are wall time."""
N_POINTS = 40
"""Of a curve at most: pages and pictures stay small."""


def curves(results: Mapping[str, Any], axis: str) -> list[dict[str, Any]]:
    """Rows of points with bands, where all seeds of a strategy have a value.

    Where the score without noise is known, it is that of the best so far, and its name "expected":
    it may fall, since the best was chosen by scores with noise.

    Args:
        results: of `searchers.bench.results.collect`.
        axis: a name in `AXES`.

    Returns:
        ``problem``, ``searcher``, ``spent``, ``mean``, ``low``, ``high`` (in the scores' own unit),
        ``seeds``.
    """
    rows = []
    for problem in results["problems"]:
        own = [cell for cell in results["cells"] if is_of(cell, problem["task"], problem["limit"])]
        for name in dict.fromkeys(cell["searcher"] for cell in own):
            found = [c["curve"] for c in own if c["searcher"] == name and c["curve"]["trials"]]
            if name == REFERENCE or not found or not any(each[axis][-1] for each in found):
                continue
            for spent, scores in _points(found, axis):
                band = bootstrap_mean(scores)
                rows.append(
                    {
                        **{"problem": problem["name"], "searcher": name, "spent": spent},
                        **{"mean": band.mean, "low": band.low, "high": band.high},
                        "seeds": len(found),
                    }
                )
    return rows


def _points(found: Sequence[Mapping[str, Any]], axis: str) -> list[tuple[float, np.ndarray]]:
    """Scores of all seeds, shape [n_seeds], at some places between where all have started and one
    has ended."""
    start = max(each[axis][0] for each in found)
    end = max(start, min(each[axis][-1] for each in found))
    every = sorted({value for each in found for value in each[axis] if start <= value <= end})
    places = np.unique(np.array([start, *every, end], dtype=np.float64))
    if len(places) > N_POINTS:
        places = places[np.unique(np.linspace(0, len(places) - 1, N_POINTS).astype(int))]
    points = []
    for place in places.tolist():
        scores = []
        for each in found:
            at = int(np.searchsorted(each[axis], place, side="right")) - 1
            scores.append(each.get("expected", each["score"])[at])
        points.append((place, np.array(scores, dtype=np.float64)))
    return points
