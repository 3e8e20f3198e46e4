# SPDX-License-Identifier: Apache-2.0
"""The differentiable surrogate: exact on the grid, continuous, with the gradients it says."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest
from test_family import Net

from npusim.cost.batch import estimate_batch
from npusim.cost.family import Family
from npusim.errors import ConfigError, UnknownNameError
from npusim.hardware import machine

torch = pytest.importorskip("torch", reason="needs torch: pip install 'npusim[search]'")
from spaces.surrogate import MEASURES, Surrogate  # noqa: E402

WIDTHS = [16, 24, 8, 32, 48]
OPTIONS = ([8, 16, 24], [16, 24, 40], [8], [16, 32], [10, 48, 64])


@pytest.fixture(scope="module")
def family() -> Family:
    return Family(Net().build(WIDTHS))


def surrogate(family: Family, **given: Any) -> Surrogate:
    return Surrogate(family, dict(zip(family.widths, OPTIONS, strict=True)), **given)


def inside(n: int, seed: int = 0) -> Any:
    """Points between the smallest and the largest options."""
    low, high = np.array([(options[0], options[-1]) for options in OPTIONS]).T
    drawn = np.random.default_rng(seed).uniform(low, high, (n, len(OPTIONS)))
    return torch.tensor(drawn, dtype=torch.float64)


@pytest.mark.parametrize("measure", MEASURES)
def test_exact_on_the_grid(family: Family, measure: str) -> None:
    grid = np.array(list(itertools.product(*OPTIONS)))
    cost = estimate_batch(family.batch(grid))
    wanted = cost.macs if measure == "macs" else getattr(cost, measure)[:, 0]
    for straight_through in (False, True):
        model = surrogate(family, measure=measure, straight_through=straight_through)
        found = model(torch.tensor(grid, dtype=torch.float64))
        np.testing.assert_array_equal(found.numpy(), wanted)


def test_gradients_are_those_of_the_values(family: Family) -> None:
    model = surrogate(family)
    assert torch.autograd.gradcheck(model, inside(5).requires_grad_(), eps=1e-4, atol=1e-2)


def test_values_are_continuous_and_between_their_neighbours(family: Family) -> None:
    model, points = surrogate(family), inside(200, seed=1)
    moved = model(points + 1e-6)
    assert (moved - model(points)).abs().max() < 1.0
    grid = np.array(list(itertools.product(*OPTIONS)))
    costs = estimate_batch(family.batch(grid)).total_cycles
    assert costs.min() <= float(model(points).min())
    assert float(model(points).max()) <= costs.max()


def test_straight_through_has_the_values_of_allowed_widths(family: Family) -> None:
    points = inside(20, seed=2)
    smooth, straight = points.clone().requires_grad_(), points.clone().requires_grad_()
    surrogate(family)(smooth).sum().backward()
    values = surrogate(family, straight_through=True)(straight)
    values.sum().backward()
    torch.testing.assert_close(straight.grad, smooth.grad)
    costs = estimate_batch(family.batch(list(itertools.product(*OPTIONS)))).total_cycles
    assert set(values.tolist()) <= set(costs[:, 0].tolist())


def test_beyond_the_options_nothing_changes(family: Family) -> None:
    model = surrogate(family)
    far = torch.tensor([[1.0, 1000.0, 8.0, 16.0, 10.0]], requires_grad=True)
    value = model(far)
    value.backward()
    assert value.item() == model(torch.tensor([[8.0, 40.0, 8.0, 16.0, 10.0]])).item()
    assert far.grad[0, :2].tolist() == [0.0, 0.0]


def test_errors(family: Family) -> None:
    options = dict(zip(family.widths, OPTIONS, strict=True))
    first = next(iter(options))
    with pytest.raises(UnknownNameError, match="width"):
        Surrogate(family, options | {"other": [8]})
    with pytest.raises(UnknownNameError, match="measure"):
        Surrogate(family, options, measure="joules")
    with pytest.raises(ConfigError, match="must rise"):
        Surrogate(family, options | {first: [16, 8]})
    with pytest.raises(ConfigError, match="must rise, one at least"):
        Surrogate(family, {first: [16]})
    with pytest.raises(ConfigError, match="options of"):
        Surrogate(family, options | {first: [0, 8]})
    small = surrogate(family, npu=machine("ethos-u55-128", overrides={"shram_banks": 8}))
    with pytest.raises(ConfigError, match="networks must fit the NPU's SHRAM"):
        small(inside(1))
    model = surrogate(family)
    with pytest.raises(ConfigError, match="widths must be a float tensor"):
        model(torch.ones((1, 5), dtype=torch.int64))
    with pytest.raises(ConfigError, match="widths must be finite"):
        model(torch.full((1, 5), float("nan")))
