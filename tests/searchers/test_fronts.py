# SPDX-License-Identifier: Apache-2.0
"""Fronts against pymoo's, and against what they are by definition."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from npusim.errors import ConfigError
from searchers import fronts

often = settings(deadline=None, derandomize=True, max_examples=50)


def some_points(seed: int, n: int, n_objectives: int = 2) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 6, (n, n_objectives)).astype(float)


@given(seed=st.integers(0, 999), n=st.integers(3, 30), n_objectives=st.integers(1, 3))
@often
def test_ranks_and_crowding_are_pymoos(seed, n, n_objectives):
    sorting = pytest.importorskip("pymoo.util.nds.non_dominated_sorting")
    crowding = pytest.importorskip("pymoo.operators.survival.rank_and_crowding.metrics")
    points = some_points(seed, n, n_objectives)
    found = fronts.ranks(points)
    for rank, front in enumerate(sorting.NonDominatedSorting().do(points)):
        assert sorted(np.flatnonzero(found == rank)) == sorted(front)
    distinct = np.unique(np.random.default_rng(seed).random((n, n_objectives)), axis=0)
    expected = crowding.calc_crowding_distance(distinct, filter_out_duplicates=False)
    ours = fronts.crowding(distinct) / n_objectives  # pymoo takes the mean over objectives
    np.testing.assert_allclose(ours, expected, rtol=1e-12)


@given(seed=st.integers(0, 999), n=st.integers(0, 12))
@often
def test_hypervolume_is_the_area_counted_in_cells(seed, n):
    points = some_points(seed, n)
    cells = np.stack(np.meshgrid(np.arange(5), np.arange(5)), axis=-1).reshape(-1, 2)
    covered = (points[:, None] <= cells[None]).all(axis=2).any(axis=0).sum() if n else 0
    assert fronts.hypervolume(points, np.array([5.0, 5.0])) == covered


def test_less_violation_comes_first():
    points = np.array([[0.0, 0.0], [9.0, 9.0], [5.0, 5.0], [6.0, 6.0]])
    violations = np.array([2.0, 0.0, 1.0, 1.0])
    assert fronts.ranks(points, violations).tolist() == [3, 0, 1, 2]


def test_points_of_three_objectives_have_no_area():
    with pytest.raises(ConfigError, match=r"points must have shape \[n, 2\], got \(1, 3\)"):
        fronts.hypervolume(np.zeros((1, 3)), np.ones(2))
