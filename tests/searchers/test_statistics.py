# SPDX-License-Identifier: Apache-2.0
"""Statistics against scipy, published examples and simulated data of which the truth is known."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from scipy import stats

from npusim.errors import ConfigError
from searchers.rank_tests import ALPHA, friedman, groups, holm, least_p, ranks, signed_rank
from searchers.stats import bootstrap_mean, relative_improvement, superiority


class TestIntervals:
    @pytest.mark.parametrize(("n", "least"), [(5, 0.86), (10, 0.91), (20, 0.92)])
    def test_cover_the_mean_as_often_as_they_say(self, n, least):
        """300 normal samples: at 95 % the standard error of the rate is 1.3 %."""
        rng = np.random.default_rng(n)
        found = [bootstrap_mean(rng.normal(3.0, 1.0, size=n)) for _ in range(300)]
        covered = np.mean([each.low <= 3.0 <= each.high for each in found])
        assert least <= covered <= 0.98

    def test_are_wider_than_plain_percentiles_and_close_to_them_in_large_samples(self):
        for n, ratio in ((6, 1.2), (400, 1.0)):
            values = np.random.default_rng(n).normal(size=n)
            plain = stats.bootstrap(
                (values,), np.mean, method="percentile", rng=np.random.default_rng(0)
            ).confidence_interval
            ours = bootstrap_mean(values)
            assert (ours.high - ours.low) / (plain.high - plain.low) >= ratio - 0.05
            if n == 400:
                assert [ours.low, ours.high] == pytest.approx([plain.low, plain.high], abs=0.01)

    def test_are_the_same_every_time_and_wider_for_higher_levels(self):
        assert bootstrap_mean([1.0, 2.0, 4.0]) == bootstrap_mean([1.0, 2.0, 4.0])
        assert bootstrap_mean([0.0, 1, 2], level=0.5).low > bootstrap_mean([0.0, 1, 2]).low
        one = bootstrap_mean([0.7])
        assert one.low == one.mean == one.high == 0.7

    @pytest.mark.parametrize(
        ("call", "message"),
        [
            (lambda: bootstrap_mean([]), r"values must have shape \[n\], n at least 1, got \(0,\)"),
            (lambda: bootstrap_mean([1.0, math.nan]), "values must be finite, got nan"),
            (lambda: bootstrap_mean([1.0], level=1), r"level must be in \(0, 1\), got 1"),
            (lambda: relative_improvement([1.0], [0.5, 0.0]), "random_values must be more than 0"),
            (lambda: superiority([1.0], []), r"others must have shape \[n\]"),
        ],
    )
    def test_of_what_is_no_sample_are_refused(self, call, message):
        with pytest.raises(ConfigError, match=message):
            call()


class TestRelativeImprovement:
    def test_is_the_paper_s(self):
        found = relative_improvement([0.97, 0.95], [0.8, 0.7])
        assert found.mean == pytest.approx(100 * (0.96 - 0.75) / 0.75)
        assert found.low < found.mean < found.high

    def test_covers_the_truth(self):
        rng = np.random.default_rng(0)
        hits = 0
        for _ in range(200):
            own = relative_improvement(rng.normal(0.9, 0.05, 10), rng.normal(0.6, 0.1, 10))
            hits += own.low <= 50 <= own.high
        assert 0.9 <= hits / 200 <= 0.995


class TestSuperiority:
    def test_is_mann_and_whitney_s_u(self):
        rng = np.random.default_rng(1)
        first, second = rng.integers(0, 9, 12), rng.integers(1, 9, 7)
        u = stats.mannwhitneyu(first, second).statistic
        assert superiority(first, second) == pytest.approx(u / (12 * 7))
        assert superiority(first, second) + superiority(second, first) == pytest.approx(1)

    def test_of_normal_values_is_known(self):
        rng = np.random.default_rng(2)
        found = superiority(rng.normal(1, 1, 3000), rng.normal(0, 1, 3000))  # error 0.007
        assert found == pytest.approx(stats.norm.cdf(1 / math.sqrt(2)), abs=0.02)


class TestFriedman:
    def test_is_friedman_s_corrected(self):
        rng = np.random.default_rng(8)
        scores = np.round(rng.normal([0.9, 0.92, 0.9, 0.92], 0.02, (14, 4)), 2)
        chi2 = stats.friedmanchisquare(*scores.T).statistic
        found = friedman(scores)
        assert found.statistic == pytest.approx(13 * chi2 / (14 * 3 - chi2))
        assert found.p == pytest.approx(stats.f.sf(found.statistic, 3, 3 * 13))
        # Demšar 2006, section 3.2.2, from chi2 to F: 9.28 of 14 data sets and 4 methods is 3.69
        example = 13 * 9.28 / (14 * 3 - 9.28)
        assert example == pytest.approx(3.69, abs=5e-3)

    def test_is_near_the_permutation_test(self):
        """Scores shuffled within their blocks: what p stands for."""
        rng = np.random.default_rng(9)
        scores = rng.normal([0, 0, 0.5, 0.9], size=(10, 4))
        found = friedman(scores)
        shuffled = [friedman(rng.permuted(scores, axis=1)).statistic for _ in range(500)]
        assert found.p == pytest.approx(np.mean(np.array(shuffled) >= found.statistic), abs=0.03)

    def test_extremes(self):
        assert friedman(np.ones((4, 3))).p == 1
        found = friedman(np.tile([3.0, 2.0, 1.0], (6, 1)))
        assert (found.statistic, found.p) == (math.inf, pytest.approx(6.0**-5))
        with pytest.raises(ConfigError, match="2 blocks and 3 strategies or more, got 1 and 3"):
            friedman(np.ones((1, 3)))
        with pytest.raises(ConfigError, match=r"scores must be finite, of shape \[n_blocks, n\]"):
            ranks(np.array([[math.nan, 1.0]]))

    @pytest.mark.parametrize("block", [[3.0, 2.0, 1.0], [2.0, 2.0, 1.0]], ids=["no ties", "a tie"])
    def test_of_few_blocks_that_agree_is_the_exact_one(self, block):
        """Over all orders within three blocks: how many agree in all of them."""
        orders = list(itertools.permutations(block))
        tables = list(itertools.product(orders, repeat=3))
        exact = np.mean([first == second == third for first, second, third in tables])
        assert friedman(np.array([block] * 3)).p == pytest.approx(exact)

    def test_is_never_less_than_few_blocks_can_give(self):
        """Over all orders of two blocks, one with a tie."""
        first, second = [4.0, 3.0, 2.0, 1.0], [4.0, 3.0, 1.0, 1.0]
        found = [friedman(np.array([first, order])) for order in itertools.permutations(second)]
        for each in found:
            exact = np.mean([other.statistic >= each.statistic - 1e-9 for other in found])
            assert each.p >= 1 / 12 - 1e-9
            assert exact >= 1 / 12 - 1e-9

    def test_is_wrong_as_seldom_as_it_says(self):
        """400 times nothing but noise, in blocks that are easy or hard for all."""
        rng = np.random.default_rng(3)
        wrong = 0
        for _ in range(400):
            blocks = rng.normal(size=(10, 1))
            wrong += friedman(blocks + rng.exponential(size=(10, 5))).p < ALPHA
        assert 0.02 <= wrong / 400 <= 0.08


class TestPairs:
    def test_are_scipy_s_and_exact_with_ties(self):
        rng = np.random.default_rng(4)
        first, second = rng.normal(size=(2, 12))
        assert signed_rank(first, second) == pytest.approx(stats.wilcoxon(first, second).pvalue)
        near = stats.wilcoxon(np.arange(-45.0, 55.0), method="asymptotic").pvalue  # ties, a zero
        assert signed_rank(np.arange(-45.0, 55.0), np.zeros(100)) == pytest.approx(near, rel=0.05)
        tied = np.array([1.0, 1.0, 1.0, 1.0, -1.0, 2.0])
        # by hand, over all 64 signs: ranks 3 3 3 3 3 6, sum of the positive ones 18 of 21
        sums = [
            sum(r for r, bit in zip((3, 3, 3, 3, 3, 6), f"{i:06b}", strict=True) if bit == "1")
            for i in range(64)
        ]
        exact = 2 * np.mean(np.array(sums) >= 18)
        assert signed_rank(tied, np.zeros(6)) == pytest.approx(exact)

    def test_of_equal_scores_say_nothing(self):
        assert signed_rank(np.ones(8), np.ones(8)) == 1
        some = np.array([1.0, 2, 3, 0, 0])
        assert signed_rank(some, np.zeros(5)) == least_p(3) == 0.25
        assert signed_rank(np.ones(9), np.zeros(9)) == least_p(9)
        with pytest.raises(ConfigError, match=r"must be paired, got shapes \(2,\) and \(3,\)"):
            signed_rank(np.ones(2), np.ones(3))

    def test_corrected_are_wrong_as_seldom_as_they_say(self):
        """Five strategies that are the same, 10 seeds, rounded as accuracies are: in at most 5 %
        of comparisons of all pairs is any called different, give or take."""
        rng = np.random.default_rng(5)
        wrong = 0
        for _ in range(200):
            scores = np.round(rng.normal(0.95, 0.01, (10, 5)) + rng.normal(0, 0.01, (10, 1)), 3)
            p = [signed_rank(scores[:, i], scores[:, j]) for i in range(5) for j in range(i)]
            wrong += min(holm(p)) <= ALPHA
        assert wrong / 200 <= 0.08

    def test_find_a_difference_that_is_there(self):
        rng = np.random.default_rng(6)
        found = 0
        for _ in range(50):
            scores = rng.normal(0.95, 0.01, (10, 5))
            scores[:, 0] += 0.03
            p = [signed_rank(scores[:, i], scores[:, j]) for i in range(5) for j in range(i)]
            found += holm(p)[0] <= ALPHA
        assert found >= 45


class TestHolm:
    def test_is_the_procedure(self):
        """Step down: compare the smallest with 5 % / m, the next with 5 % / (m - 1), stop."""
        rng = np.random.default_rng(7)
        for _ in range(50):
            p = rng.random(6) ** 4
            rejected, m = np.zeros(6, bool), 6
            for place in np.argsort(p):
                if p[place] > ALPHA / m:
                    break
                rejected[place], m = True, m - 1
            assert (np.array(holm(p.tolist())) <= ALPHA).tolist() == rejected.tolist()

    def test_published_example(self):
        """Demšar 2006, section 3.2.2: p of 0.016, 0.019, 0.607 against 0.017, 0.025, 0.05."""
        found = holm([0.016, 0.019, 0.607])
        assert found == pytest.approx([0.048, 0.048, 0.607])
        assert holm([]) == []
        assert holm([0.5, 0.6]) == [1.0, 1.0]


class TestGroups:
    def test_are_the_longest_runs(self):
        differ = np.zeros((4, 4), dtype=bool)
        assert groups([2.0, 1.0, 4.0, 3.0], differ) == [[1, 0, 3, 2]]
        differ[1, 2] = differ[2, 1] = True
        assert groups([2.0, 1.0, 4.0, 3.0], differ) == [[1, 0, 3], [0, 3, 2]]
        differ[:] = ~np.eye(4, dtype=bool)
        assert groups([2.0, 1.0, 4.0, 3.0], differ) == []
