# SPDX-License-Identifier: Apache-2.0
"""The feasible set against brute force, its draws against the uniform distribution."""

from __future__ import annotations

import math
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from random_spaces import add_block, small_spaces

import spaces
from npusim.errors import ConfigError, InfeasibleError
from spaces import feasible, tables
from spaces.base import DecisionVariable, Kind, Layer, LayerKind, Space
from spaces.builder import SpaceBuilder
from spaces.costs import MEASURES, cost, costs
from spaces.digits import digits
from spaces.feasible import FeasibleSet, enumerate_all, feasible_set, smallest
from spaces.limits import Limit
from spaces.programme import cost_range

SMALL = digits(widths=(0.3, 1.0), bitwidths=(1, 4), sparsities=(0.2, 1.0))


def tied_space() -> Space:
    """Width and bits of the first layer come back in the last: two decisions to remember."""
    width = DecisionVariable("w", Kind.WIDTH, (0.25, 0.5, 1.0))
    inner = DecisionVariable("v", Kind.WIDTH, (0.5, 1.0))
    bits = DecisionVariable("b", Kind.BITWIDTH, (1, 2, 8))
    sparsity = DecisionVariable("s", Kind.SPARSITY, (0.1, 0.6, 1.0))
    layers = (
        Layer("image", LayerKind.INPUT),
        Layer("a", LayerKind.CONV, ("image",), 8, kernel=3, width="w", bitwidth="b"),
        Layer("b", LayerKind.CONV, ("a",), 8, kernel=1, width="v", sparsity="s"),
        Layer("c", LayerKind.CONV, ("b",), 4, kernel=3),
        Layer("d", LayerKind.CONV, ("c",), 8, kernel=3, width="w", bitwidth="b"),
    )
    return Space("tied", "digits", (4, 4, 3), (width, inner, bits, sparsity), layers)


def branching_space() -> Space:
    """A residual block, an operator with a block that may be left out, a depth, a resolution."""
    net = SpaceBuilder("branching", "digits", (4, 4, 2), widths=(0.5, 1.0), bitwidths=(1, 8))
    x = net.conv(net.input(resolutions=(4, 6)), 6, name="stem")
    x = add_block(net, x, "operator", "operator")
    net.repeat([x, net.conv(x, 6, (1, 3), name="more")], "depth")
    return net.build()


@pytest.fixture(params=["chain", "tied", "branching"])
def space(request) -> Space:
    return {"chain": SMALL, "tied": tied_space(), "branching": branching_space()}[request.param]


class TestAgainstBruteForce:
    @pytest.mark.parametrize("measure", MEASURES)
    def test_counts(self, space, measure):
        every = enumerate_all(space)
        assert len(every) == space.count() == len(np.unique(every, axis=0))
        all_costs = costs(space, every, measure)
        for most in np.unique(np.quantile(all_costs, (0, 0.001, 0.1, 0.5, 0.9, 1)).astype(int)):
            found = FeasibleSet(space, Limit(measure, int(most)))
            if found.exact:
                assert found.count() == (all_costs <= most).sum()
            else:
                assert found.count() >= (all_costs <= most).sum()

    @pytest.mark.parametrize("measure", MEASURES)
    def test_least_and_most(self, space, measure):
        every = costs(space, enumerate_all(space), measure)
        assert cost(space, smallest(space, measure), measure) == every.min()
        assert cost_range(space, measure) == (every.min(), every.max())

    @given(
        space=small_spaces(), share=st.floats(0, 1), seed=st.integers(0, 99), weigh=st.booleans()
    )
    @settings(max_examples=40, deadline=None, derandomize=True)
    def test_marginals(self, space, share, seed, weigh):
        every = enumerate_all(space)
        all_costs = costs(space, every, "size_bits")
        limit = Limit("size_bits", max(1, int(np.quantile(all_costs, share))))
        rng = np.random.default_rng(seed)
        log_weights = [rng.normal(size=n) * weigh for n in space.n_options]
        made = FeasibleSet(space, limit, log_weights if weigh else None)
        found = made.marginals()
        within = every[all_costs <= limit.most]
        effects = np.ones(within.shape, dtype=bool)
        for position, condition in space.conditions.items():
            effects[:, position] = condition.at(lambda other: within[:, other])
        logs = [each[within[:, i]] * effects[:, i] for i, each in enumerate(log_weights)]
        weights = np.exp(sum(logs, np.zeros(len(within))))
        weights /= weights.sum()
        assert made.exact
        for i, n in enumerate(space.n_options):
            expected = np.bincount(within[:, i], weights * effects[:, i], minlength=n)
            np.testing.assert_allclose(found[i], expected, atol=1e-12)

    @given(data=st.data(), space=small_spaces())
    @settings(max_examples=60, deadline=None, derandomize=True)
    def test_random_spaces(self, data, space):
        every = enumerate_all(space)
        assert space.count() == len(every)
        measure = data.draw(st.sampled_from(sorted(MEASURES)))
        all_costs = costs(space, every, measure)
        most = data.draw(st.sampled_from(np.unique(all_costs).tolist()))
        n_within = int((all_costs <= most).sum())
        found = FeasibleSet(space, Limit(measure, most))
        assert found.count() == n_within if found.exact else found.count() >= n_within
        drawn = found.sample_many(np.random.default_rng(0), 50)
        assert (space.canonical(drawn) == drawn).all()
        assert costs(space, drawn, measure).max() <= most
        low, high = found.log10_bounds()
        assert low - 1e-9 <= math.log10(n_within) <= high + 1e-9
        if all_costs.min() > 1:
            with pytest.raises(InfeasibleError) as caught:
                FeasibleSet(space, Limit(measure, int(all_costs.min()) - 1))
            assert caught.value.least == all_costs.min()


@given(space=small_spaces(), share=st.floats(0.05, 1))
@settings(max_examples=30, deadline=None, derandomize=True)
def test_wide_bins_enclose_the_count_and_draw_within(space, share):
    every = enumerate_all(space)
    all_costs = costs(space, every, "size_bits")
    most = int(np.quantile(all_costs, share))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(feasible, "BINS_MAX", 20)
        found = FeasibleSet(space, Limit("size_bits", most))
        drawn = found.sample_many(np.random.default_rng(0), 100)
    n_within = int((all_costs <= most).sum())
    low, high = found.log10_bounds()
    assert low - 1e-9 <= math.log10(n_within) <= high + 1e-9
    assert found.count() >= n_within
    assert costs(space, drawn, "size_bits").max() <= most


def test_networks_differ_between_candidates():
    """Decisions without effect have one option: no network is counted twice."""
    space = branching_space()
    described = {spaces.describe(space, candidate) for candidate in space.enumerate()}
    assert len(described) == space.count() < math.prod(int(n) for n in space.n_options)


def test_a_limit_far_above_everything_allows_everything():
    for text in ("1MB", "500MB"):
        found = feasible_set(SMALL, Limit.size(text))
        assert found.count() == SMALL.count() == 2**11


def test_at_the_least_cost_only_the_smallest_is_left():
    least = smallest(SMALL, "size_bits")
    limit = Limit("size_bits", cost(SMALL, least, "size_bits"))
    rng = np.random.default_rng(0)
    assert {SMALL.sample_feasible(rng, limit) for _ in range(20)} == {least}
    assert feasible_set(SMALL, limit).exact


def test_below_the_least_cost_the_error_names_it():
    least = cost(SMALL, smallest(SMALL, "size_bits"), "size_bits")
    with pytest.raises(
        InfeasibleError,
        match=rf"limit on size_bits must be at least {least} \(.* B\), the least in space 'digits'",
    ) as caught:
        SMALL.sample_feasible(np.random.default_rng(0), Limit("size_bits", least - 1))
    assert caught.value.least == least


def assert_uniform(drawn: np.ndarray, allowed: np.ndarray) -> None:
    """Chi-square test: draws [n, n_decisions] are among those allowed, each equally often."""
    index = {tuple(row): i for i, row in enumerate(allowed.tolist())}
    rows = [index[tuple(row)] for row in drawn.tolist()]  # KeyError if it is not allowed
    counts, expected = np.bincount(rows, minlength=len(index)), len(rows) / len(index)
    statistic, freedom = float(((counts - expected) ** 2 / expected).sum()), len(index) - 1
    # mean and standard deviation of a chi-square variable are k and sqrt(2k); 5 of them
    assert abs(statistic - freedom) < 5 * math.sqrt(2 * freedom)


class TestDraws:
    @pytest.mark.parametrize("bins_max", [1 << 16, 50], ids=["exact bins", "wide bins"])
    def test_are_uniform(self, space, bins_max, monkeypatch):
        monkeypatch.setattr(feasible, "BINS_MAX", bins_max)
        every = enumerate_all(space)
        all_costs = costs(space, every, "size_bits")
        most = int(np.quantile(all_costs, 0.05 if space is SMALL else 0.3))
        found = FeasibleSet(space, Limit("size_bits", most))
        assert found.exact == (bins_max > 50)
        drawn = found.sample_many(np.random.default_rng(1), 20_000)
        assert len(drawn) == 20_000
        assert_uniform(drawn, every[all_costs <= most])

    def test_without_a_limit_are_uniform(self):
        space = branching_space()
        drawn = space.sample_many(np.random.default_rng(0), 40_000)
        assert_uniform(drawn, enumerate_all(space))

    def test_one_by_one_are_those_of_many(self, space):
        found = FeasibleSet(space, Limit.size("1KB"))
        assert found.exact
        one = found.sample(np.random.default_rng(3)).choices
        assert one == tuple(found.sample_many(np.random.default_rng(3), 1)[0].tolist())

    def test_keep_tight_limits_of_large_spaces(self):
        space, rng = spaces.get("cifar100"), np.random.default_rng(0)
        limit = Limit.size("0.05MB")  # where a uniform draw fits with probability 1e-12
        found = feasible_set(space, limit)
        drawn = found.sample_many(rng, 200)
        assert costs(space, drawn, "size_bits").max() <= limit.most
        assert len(np.unique(drawn, axis=0)) == 200

    def test_same_generator_same_draws(self):
        limit = Limit.size("1KB")
        first, second = (
            [digits().sample_feasible(np.random.default_rng(seed), limit) for _ in range(3)]
            for seed in (5, 5)
        )
        assert first == second
        assert digits().sample_feasible(np.random.default_rng(6), limit) != first[0]

    def test_follow_weights(self):
        space = branching_space()
        rng = np.random.default_rng(0)
        weights = [np.log(rng.dirichlet(np.ones(n))) for n in space.n_options]
        every = enumerate_all(space)
        all_costs = costs(space, every, "macs")
        most = int(np.median(all_costs))
        found = FeasibleSet(space, Limit("macs", most), log_weights=weights)
        allowed = every[all_costs <= most]
        shares = np.array([weight_of(space, row, weights) for row in allowed])
        assert 10**found.log10_count == pytest.approx(shares.sum())  # sums in another order
        shares /= shares.sum()
        index = {tuple(row): i for i, row in enumerate(allowed.tolist())}
        drawn = found.sample_many(rng, 20_000).tolist()
        counts = np.bincount([index[tuple(row)] for row in drawn], minlength=len(shares))
        often = shares > 20 / 20_000
        z = (counts - 20_000 * shares)[often] / np.sqrt(20_000 * shares[often])
        assert np.abs(z).max() < 5
        assert (z**2).mean() == pytest.approx(1, abs=0.5)


def weight_of(space: Space, row: np.ndarray, weights: list[np.ndarray]) -> float:
    """Product of the weights of the decisions that have an effect."""
    total = 0.0
    for position, choice in enumerate(row):
        condition = space.conditions.get(position)
        if condition is None or condition.at(lambda other: row[other]):
            total += weights[position][choice]
    return math.exp(total)


TENTHS = tuple(i / 10 for i in range(1, 11))


@pytest.mark.parametrize(
    ("name", "limit", "low", "high"),
    [
        ("cifar100", "0.55MB", -3.54, -3.41),
        ("cifar100", "0.05MB", -16.0, -15.5),
        ("imagenet", "0.5MB", -0.81, -0.79),  # drawn: 0.158, 400,000 draws
        ("imagenet", "0.05MB", -9.4, -9.3),
    ],
)
def test_shares_of_the_paper_s_spaces(name, limit, low, high):
    """Bounds found by another programme, rounding costs up and down to 400 bins; see its draws."""
    space = spaces.get(name, sparsities=TENTHS)
    share = feasible_set(space, Limit.size(limit)).log10_count - math.log10(space.count())
    assert low < share < high


def test_counts_need_no_weights():
    weights = [np.zeros(n) for n in SMALL.n_options]
    found = FeasibleSet(SMALL, Limit.size("1KB"), weights)
    with pytest.raises(ConfigError, match="count must be without weights, got log_weights"):
        found.count()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda w: w[:-1], "scores must be of 11 decisions, got 10"),
        (lambda w: [*w[:-1], np.zeros(5)], r"of decision 'classifier.sparsity' must have shape"),
        (lambda w: [np.full(2, np.nan), *w[1:]], "of decision 'conv1.width' must be finite"),
    ],
)
def test_weights_are_checked(change, message):
    weights = [np.zeros(n) for n in SMALL.n_options]
    with pytest.raises(ConfigError, match=message):
        FeasibleSet(SMALL, Limit.size("1KB"), change(weights))


def test_counts_of_deep_spaces_overflow_nothing():
    space = spaces.get("cifar100", multiplier=1, depth=302)
    found = feasible_set(space, Limit("size_bits", cost_range(space, "size_bits")[1]))
    assert abs(Fraction(found.count(), space.count()) - 1) < 1e-9  # sums of floats, to 10^662
    assert found.log10_count == pytest.approx(math.log10(space.count()))


def test_only_small_spaces_are_enumerated(monkeypatch):
    monkeypatch.setattr(feasible, "JOINT_MAX", 100)
    with pytest.raises(ConfigError, match="candidates to enumerate must be at most 100, got 2048"):
        enumerate_all(SMALL)


def test_entangled_programmes_are_refused(monkeypatch):
    monkeypatch.setattr(tables, "JOINT_MAX", 100)
    space = digits(
        widths=(0.1, 0.9), bitwidths=(3, 4, 5), sparsities=tuple(i / 30 for i in range(1, 30))
    )
    with pytest.raises(tables.TooEntangledError, match="must have at most 100 combinations, got"):
        FeasibleSet(space, Limit.size("1KB"))
