# SPDX-License-Identifier: Apache-2.0
"""Fronts of searches and their hypervolumes, by hand."""

from __future__ import annotations

import numpy as np
import pytest

from searchers.base import History, Trial
from searchers.bench.fronts import CYCLES, fronts, joined, reference_point, shares
from spaces.digits import digits
from spaces.estimate import estimate
from spaces.limits import Limit

SPACE = digits()


def trial(index: int, score: float | None, size: int, choices=None) -> Trial:
    candidate = SPACE.largest() if choices is None else SPACE.candidate(choices)
    return Trial(index, candidate, 0, {"size_bits": size}, score, {}, 1, 0.0, 0.1, 0.1)


class TestFronts:
    def test_are_what_none_beats(self):
        scored = [(0.5, 30), (0.6, 30), (0.4, 10), (0.4, 20), (None, 5), (0.9, 40)]
        history = History(trial(i, *pair) for i, pair in enumerate(scored))
        found = fronts(SPACE, history, ["size_bits"], None)["size_bits"]
        assert (found["cost"], found["score"]) == ([10, 30, 40], [0.4, 0.6, 0.9])
        assert found["trial"] == [2, 1, 5]
        assert (found["worst_cost"], found["worst_score"]) == (40, 0.4)

    def test_cycles_are_the_estimate_s(self):
        rng = np.random.default_rng(0)
        some = [SPACE.sample_feasible(rng, Limit.size("1KB")) for _ in range(3)]
        history = History(trial(i, 0.1 * (i + 1), 8, c.choices) for i, c in enumerate(some))
        found = fronts(SPACE, history, [], "ethos-u55-64")[CYCLES]
        expected = [estimate(SPACE, c, "ethos-u55-64").total_cycles for c in some]
        assert found["worst_cost"] == max(expected)
        assert [expected[i] for i in found["trial"]] == found["cost"]

    def test_shares_of_the_joint_hypervolume(self):
        one = {"cost": [1.0, 2.0], "score": [0.5, 1.0], "worst_cost": 4.0, "worst_score": 0.0}
        two = {"cost": [2.0], "score": [0.5], "worst_cost": 3.0, "worst_score": 0.25}
        none = {"cost": [], "score": [], "worst_cost": None, "worst_score": None}
        assert reference_point([one, two, none]) == (4.0, 0.0)
        # up to (4, 0): one 0.5 * 1 + 1 * 2, two 0.5 * 2; together what one alone is
        assert shares([one, two, none]) == [1.0, pytest.approx(0.4), None]
        assert shares([none]) == [None]
        flat = {"cost": [4.0], "score": [1.0], "worst_cost": 4.0, "worst_score": 1.0}
        assert shares([flat]) == [0.0]

    def test_joined_are_what_no_front_beats(self):
        one = {"cost": [1, 5], "score": [0.2, 0.9]}
        two = {"cost": [2, 4, 6], "score": [0.1, 0.5, 0.9]}
        assert joined([one, two]) == {"cost": [1, 4, 5], "score": [0.2, 0.5, 0.9]}
