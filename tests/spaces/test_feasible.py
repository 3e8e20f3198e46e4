# SPDX-License-Identifier: Apache-2.0
"""The feasible set against brute force, its draws against the uniform distribution."""

from __future__ import annotations

import numpy as np
import pytest

from npusim.errors import ConfigError, InfeasibleError
from spaces import feasible
from spaces.base import DecisionVariable, Kind, Layer, LayerKind, Space
from spaces.costs import cost, costs
from spaces.digits import digits
from spaces.feasible import FeasibleSet, enumerate_all, feasible_set, smallest
from spaces.limits import Limit

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


@pytest.fixture(params=["chain", "tied"])
def space(request) -> Space:
    return SMALL if request.param == "chain" else tied_space()


@pytest.mark.parametrize("measure", ["size_bits", "macs"])
def test_counts_equal_brute_force(space, measure):
    every = enumerate_all(space)
    assert len(every) == space.count() == len(np.unique(every, axis=0))
    all_costs = costs(space, every, measure)
    for most in np.unique(np.quantile(all_costs, (0, 0.001, 0.1, 0.5, 0.9, 1)).astype(int)):
        found = FeasibleSet(space, Limit(measure, int(most)))
        if found.exact:
            assert found.count() == (all_costs <= most).sum()
        else:
            assert found.count() >= (all_costs <= most).sum()


@pytest.mark.parametrize("measure", ["size_bits", "macs"])
def test_smallest_equals_brute_force(space, measure):
    least = costs(space, enumerate_all(space), measure).min()
    assert cost(space, smallest(space, measure), measure) == least


def test_a_limit_far_above_everything_allows_everything():
    found = feasible_set(SMALL, Limit.size("1MB"))
    assert found.count() == SMALL.count() == 2**11
    assert not found.exact  # bins are wider than a bit, so it would not say if one were too large


def test_at_the_least_cost_only_the_smallest_is_left():
    least = smallest(SMALL, "size_bits")
    limit = Limit("size_bits", cost(SMALL, least, "size_bits"))
    rng = np.random.default_rng(0)
    assert {SMALL.sample_feasible(rng, limit) for _ in range(20)} == {least}


def test_below_the_least_cost_the_error_names_it():
    least = cost(SMALL, smallest(SMALL, "size_bits"), "size_bits")
    with pytest.raises(
        InfeasibleError,
        match=rf"limit on size_bits must be at least {least} \(.* B\), the least in space 'digits'",
    ) as caught:
        SMALL.sample_feasible(np.random.default_rng(0), Limit("size_bits", least - 1))
    assert caught.value.least == least


def chi_square(space: Space, found: FeasibleSet, n_draws: int) -> tuple[float, int]:
    """Statistic of uniformity over all feasible candidates, and its degrees of freedom."""
    every = enumerate_all(space)
    allowed = costs(space, every, found.limit.measure) <= found.limit.most
    index = {tuple(row): i for i, row in enumerate(every[allowed].tolist())}
    rng = np.random.default_rng(1)
    drawn = [index[found.sample(rng).choices] for _ in range(n_draws)]  # KeyError if infeasible
    counts = np.bincount(drawn, minlength=len(index))
    expected = n_draws / len(index)
    return float(((counts - expected) ** 2 / expected).sum()), len(index) - 1


@pytest.mark.parametrize("bins_max", [1 << 16, 50], ids=["exact bins", "wide bins"])
def test_draws_are_uniform(space, bins_max, monkeypatch):
    monkeypatch.setattr(feasible, "BINS_MAX", bins_max)
    half = int(np.quantile(costs(space, enumerate_all(space), "size_bits"), 0.05))
    found = FeasibleSet(space, Limit("size_bits", half))
    assert found.exact == (bins_max > 50)
    statistic, freedom = chi_square(space, found, n_draws=2500)
    # mean and standard deviation of a chi-square variable are k and sqrt(2k); 5 of them
    assert abs(statistic - freedom) < 5 * np.sqrt(2 * freedom)


def test_draws_on_the_full_space_are_within_tight_limits():
    space, rng = digits(), np.random.default_rng(0)
    for text in ("0.1KB", "1KB", "100KB"):
        limit = Limit.size(text)
        assert all(limit.allows(space, space.sample_feasible(rng, limit)) for _ in range(50))


def test_same_generator_same_draws():
    limit = Limit.size("1KB")
    first, second = (
        [digits().sample_feasible(np.random.default_rng(seed), limit) for _ in range(3)]
        for seed in (5, 5)
    )
    assert first == second
    assert digits().sample_feasible(np.random.default_rng(6), limit) != first[0]


def test_entangled_spaces_are_refused(monkeypatch):
    monkeypatch.setattr(feasible, "JOINT_MAX", 100)
    space = digits(
        widths=(0.1, 0.9), bitwidths=(3, 4, 5), sparsities=tuple(i / 30 for i in range(1, 30))
    )
    with pytest.raises(ConfigError, match="must have at most 100 combinations, got"):
        feasible.steps.__wrapped__(space, "size_bits")
    with pytest.raises(ConfigError, match="candidates to enumerate must be at most 100"):
        enumerate_all(space)
