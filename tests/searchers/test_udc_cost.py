# SPDX-License-Identifier: Apache-2.0
"""Costs of relaxed networks against those of the candidates, and the paper's two lemmas."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import ClassVar

import numpy as np
import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st

import spaces
from npusim.errors import ConfigError, UnknownNameError
from searchers.udc.cost import MEASURES, ChangeCost, RelaxedCost, SurrogateCost
from searchers.udc.sampling import Decisions
from spaces.base import Space
from spaces.costs import costs
from spaces.digits import digits
from spaces.estimate import estimate
from spaces.feasible import enumerate_all
from spaces.limits import Limit
from spaces.moves import single_changes
from spaces.npu_limits import NpuLimit, limit_costs, parse_limit

sys.path.insert(0, str(Path(__file__).parents[1] / "spaces"))
from random_spaces import small_spaces

ROUNDING_BITS = 40
"""One more non-zero weight: 32 bits, and what the entropy of the mask gains from it."""
OPTIONS = {
    "imagenet": {"operators": True, "resolutions": (160, 192, 224)},
    "nas_bench_201": {"cells": 2},
}
TINY = digits(widths=(0.25, 0.5, 1.0), bitwidths=(2, 8), sparsities=(0.3,))


def one_hot(space: Space, choices: np.ndarray) -> torch.Tensor:
    return Decisions.of(space).one_hot(torch.from_numpy(choices))


def random_pi(space: Space, seed: int) -> torch.Tensor:
    decisions = Decisions.of(space)
    logits = np.random.default_rng(seed).normal(0, 1.5, tuple(decisions.valid.shape))
    return decisions.log_pi(torch.from_numpy(logits)).exp()


def probabilities(space: Space, pi: torch.Tensor, choices: np.ndarray) -> np.ndarray:
    return np.prod(pi.numpy()[np.arange(len(space.decisions)), choices], axis=1)


class TestRelaxedCost:
    @pytest.mark.parametrize("measure", MEASURES)
    @pytest.mark.parametrize("name", spaces.names())
    def test_of_candidates_is_that_of_the_space(self, name, measure):
        space = spaces.get(name, **OPTIONS.get(name, {}))
        choices = space.sample_many(np.random.default_rng(0), 100)
        relaxed = RelaxedCost(space, measure)(one_hot(space, choices)).numpy()
        slack = ROUNDING_BITS * len(space.layers) if measure == "size_bits" else 1e-6
        difference = np.abs(relaxed - costs(space, choices, measure))
        assert (difference <= slack + 1e-9 * relaxed).all()
        assert relaxed.max() > 2 * relaxed.min()

    @given(space=small_spaces())
    @settings(deadline=None, derandomize=True, max_examples=40)
    def test_of_every_candidate_of_random_spaces(self, space):
        choices = enumerate_all(space)[:2000]
        for measure in MEASURES:
            relaxed = RelaxedCost(space, measure)(one_hot(space, choices)).numpy()
            slack = ROUNDING_BITS * len(space.layers) if measure == "size_bits" else 1e-6
            assert (np.abs(relaxed - costs(space, choices, measure)) <= slack).all()

    @given(space=small_spaces(), seed=st.integers(0, 1000))
    @settings(deadline=None, derandomize=True, max_examples=25)
    def test_expected_is_the_mean_over_all_candidates(self, space, seed):
        assume(space.decisions)
        every = np.indices(tuple(space.n_options)).reshape(len(space.decisions), -1).T
        pi = random_pi(space, seed)
        for measure in MEASURES:
            cost = RelaxedCost(space, measure)
            mean = probabilities(space, pi, every) @ cost(one_hot(space, every)).numpy()
            assert cost.expected(pi).item() == pytest.approx(mean, rel=1e-9)

    def test_eight_bits_without_zeros_are_bytes(self):
        space = digits()
        largest = one_hot(space, np.array([space.largest().choices]))
        by_layer = RelaxedCost(space).by_layer(largest)[0]
        weights = [9 * 16, 9 * 16 * 32, 9 * 32 * 48, 480]
        assert by_layer.tolist() == pytest.approx([8.0 * n for n in weights])

    def test_grows_with_widths_and_bits_but_not_with_every_non_zero(self):
        space = digits(bitwidths=(1, 4, 8))
        cost = RelaxedCost(space)
        start = np.array(space.largest().choices)
        start[space.position("conv2.bitwidth")] = 0
        rows = {}
        for what in ("width", "bitwidth", "sparsity"):
            position = space.position(f"conv2.{what}")
            rows[what] = np.tile(start, (int(space.n_options[position]), 1))
            rows[what][:, position] = np.arange(len(rows[what]))
        found = {what: cost(one_hot(space, choices)).numpy() for what, choices in rows.items()}
        assert (np.diff(found["width"]) > 0).all()
        assert (np.diff(found["bitwidth"]) > 0).all()
        # at 1 bit, s + H2(s) is highest near 2/3: [UDC] eq. (4) is not monotone in s
        sparsities = space.decisions[space.position("conv2.sparsity")].options
        assert sparsities[found["sparsity"].argmax()] == 0.7

    def test_readings_of_the_paper_order_as_their_terms_do(self):
        space = digits()
        z = one_hot(space, space.sample_many(np.random.default_rng(0), 50))
        default = RelaxedCost(space)(z)
        assert (RelaxedCost(space, count_input_width=False)(z) >= default).all()
        assert (RelaxedCost(space, bound="as_printed")(z) >= default).all()
        largest = one_hot(space, np.array([space.largest().choices]))
        for reading in ({"count_input_width": False}, {"bound": "as_printed"}):
            assert RelaxedCost(space, **reading)(largest) == RelaxedCost(space)(largest)

    @pytest.mark.parametrize("measure", MEASURES)
    def test_gradient_is_that_of_the_formula(self, measure):
        cost = RelaxedCost(TINY, measure)
        z = torch.stack([random_pi(TINY, 0), random_pi(TINY, 1)]).requires_grad_()
        assert torch.autograd.gradcheck(cost, (z,))

    def test_gradient_is_finite_for_candidates(self):
        space = spaces.get("imagenet", operators=True)
        z = one_hot(space, space.sample_many(np.random.default_rng(0), 4)).requires_grad_()
        RelaxedCost(space)(z).sum().backward()
        assert torch.isfinite(z.grad).all()
        assert z.grad.abs().max() > 0

    def test_refuses_unknown_names(self):
        with pytest.raises(UnknownNameError, match="measure must be one of macs"):
            RelaxedCost(TINY, "cycles")
        with pytest.raises(UnknownNameError, match="bound must be one of as_printed"):
            RelaxedCost(TINY, bound="exact")


class TestSurrogateCost:
    @pytest.mark.parametrize("measure", ["total_cycles", "sram_peak_bytes"])
    def test_is_exact_where_it_was_corrected_and_in_proportion_elsewhere(self, measure):
        space, limit = digits(), NpuLimit(measure, 1, "ethos-u55-32")
        candidates = [space.sample(np.random.default_rng(i)) for i in range(4)]
        z = one_hot(space, np.array([each.choices for each in candidates]))
        cost = SurrogateCost(space, limit)
        before = cost(z)
        cost.correct(candidates[2])
        exact = getattr(estimate(space, candidates[2], "ethos-u55-32"), measure)
        assert limit.cost(space, candidates[2]) == exact
        assert cost(z)[2].item() == pytest.approx(exact)
        torch.testing.assert_close(cost(z), before * cost.correction)
        assert len(set(before.tolist())) > 1
        assert limit_costs(space, np.array([candidates[2].choices]), limit).tolist() == [exact]

    def test_has_a_gradient_to_widths_alone(self):
        space = digits()
        z = torch.stack([random_pi(space, 0), random_pi(space, 1)]).requires_grad_()
        SurrogateCost(space, NpuLimit("total_cycles", 1))(z).sum().backward()
        widths = [space.position(f"conv{i}.width") for i in (1, 2, 3)]
        assert (z.grad[:, widths, :10].abs().sum(-1) > 0).all()
        others = [i for i in range(len(space.decisions)) if i not in widths]
        assert z.grad[:, others].abs().max() == 0

    @pytest.mark.parametrize(
        ("name", "message"),
        [
            ("super_resolution", "must differ in widths, bitwidths and sparsities alone"),
            ("cifar100", "widths of space 'cifar100' must all be free to be costed on an NPU"),
        ],
    )
    def test_refuses_spaces_that_differ_in_more(self, name, message):
        space = spaces.get(name, **({"multiplier": 1, "depth": 8} if name == "cifar100" else {}))
        with pytest.raises(ConfigError, match=message):
            SurrogateCost(space, NpuLimit("total_cycles", 1))

    def test_limits_are_read_from_text(self):
        assert parse_limit("3 npu_cycles", "ethos-u65-256") == NpuLimit(
            "npu_cycles", 3, "ethos-u65-256"
        )
        assert parse_limit("1.5KB", "ethos-u55-32") == Limit.size("1.5KB")
        with pytest.raises(ConfigError, match="limit on total_cycles must be at least 1, got 0"):
            parse_limit("0 total_cycles", "ethos-u55-32")
        with pytest.raises(UnknownNameError, match="measure must be one of"):
            NpuLimit("joules", 1)
        assert str(NpuLimit("total_cycles", 5)) == "5 total_cycles"


class TestChangeCost:
    SMALL: ClassVar = {
        "super_resolution": {"patch": 16, "features": 8, "shrunk": 4, "layers": 2},
        "digits": {"widths": (0.2, 1.0), "sparsities": (0.1, 0.5, 1.0)},
    }

    @pytest.mark.parametrize("name", sorted(SMALL))
    @pytest.mark.parametrize("measure", ["total_cycles", "sram_peak_bytes", "flash_bytes"])
    def test_is_exact_where_it_was_corrected_and_one_change_away(self, name, measure):
        space = spaces.get(name, **self.SMALL[name])
        limit, cost = NpuLimit(measure, 1), ChangeCost(space, NpuLimit(measure, 1))
        candidate = space.sample(np.random.default_rng(0))
        cost.correct(candidate)
        rows = np.concatenate([[candidate.choices], single_changes(space, candidate.choices)])
        rows = rows[(rows != rows[0]).sum(1) <= 1]  # what a depth brings has choices of its own
        expected = limit_costs(space, rows, limit)
        assert len(set(expected.tolist())) > 2 or measure == "sram_peak_bytes"
        np.testing.assert_allclose(cost(one_hot(space, rows)).numpy(), expected)

    def test_decisions_take_turns(self, monkeypatch):
        monkeypatch.setattr("searchers.udc.cost.CHANGES", 5)
        space, limit = digits(widths=(0.2, 1.0)), NpuLimit("total_cycles", 1)
        cost = ChangeCost(space, limit)
        first, second = (space.sample(np.random.default_rng(i)) for i in (0, 1))
        cost.correct(first)
        asked = []
        kept = NpuLimit.cost

        def counted(self, space, candidate):
            asked.append(candidate)
            return kept(self, space, candidate)

        monkeypatch.setattr(NpuLimit, "cost", counted)
        for _ in range(len(space.decisions)):
            asked.clear()
            cost.correct(second)
            assert len(asked) < 5 + 1 + 2 * max(space.n_options)
            exact = [kept(limit, space, second)]
            assert cost(one_hot(space, np.array([second.choices]))).tolist() == exact
        rows = single_changes(space, second.choices)
        expected = limit_costs(space, rows, limit)
        np.testing.assert_allclose(cost(one_hot(space, rows)).numpy(), expected)

    def test_goes_on_where_it_was(self, monkeypatch):
        monkeypatch.setattr("searchers.udc.cost.CHANGES", 5)
        space, limit = digits(widths=(0.2, 1.0)), NpuLimit("total_cycles", 1)
        whole, after = ChangeCost(space, limit), ChangeCost(space, limit)
        drawn = [space.sample(np.random.default_rng(i)) for i in range(4)]
        for candidate in drawn[:2]:
            whole.correct(candidate)
        after.load_state_dict(whole.state_dict())
        z = random_pi(space, 0)
        for candidate in drawn[2:]:
            whole.correct(candidate)
            after.correct(candidate)
            assert whole.expected(z) == after.expected(z) == whole(z[None])[0]

    def test_has_a_gradient_to_kernels_and_depths(self):
        space = spaces.get("super_resolution", **self.SMALL["super_resolution"])
        cost = ChangeCost(space, NpuLimit("total_cycles", 1))
        cost.correct(space.largest())
        z = random_pi(space, 0)[None].requires_grad_()
        cost(z).sum().backward()
        assert (z.grad.abs().sum(-1) > 0).all()


class TestLemmas:
    """[UDC] Lemmas 4.1 and 4.2, with the expectation of eq. (7) over candidates exactly."""

    every = np.indices(tuple(TINY.n_options)).reshape(len(TINY.decisions), -1).T
    cost = RelaxedCost(TINY)(one_hot(TINY, every)).numpy()

    @given(seed=st.integers(0, 10_000), aim=st.integers(0, 10_000))
    @settings(deadline=None, derandomize=True, max_examples=100)
    def test_the_penalty_bounds_how_far_the_most_likely_candidate_is_off(self, seed, aim):
        """4.1 is the case of no penalty; this holds for any."""
        pi = random_pi(TINY, seed)
        target = self.cost[aim % len(self.cost)]
        weights = probabilities(TINY, pi, self.every)
        penalty = weights @ np.abs(self.cost - target)
        off = np.abs(self.cost - target)[weights.argmax()]
        assert off <= penalty / weights.max() * (1 + 1e-9)
        assert (np.abs(self.cost - target) <= penalty / weights * (1 + 1e-9)).all()

    @given(seed=st.integers(0, 10_000), data=st.data())
    @settings(deadline=None, derandomize=True, max_examples=100)
    def test_undecided_decisions_always_have_a_penalty(self, seed, data):
        """4.2: a decision between options of different cost is one-hot where there is none."""
        gamma = np.random.default_rng(seed).integers(TINY.n_options)
        free = [i for i, n in enumerate(TINY.n_options) if n > 1]
        undecided = data.draw(st.lists(st.sampled_from(free), unique=True, max_size=3))
        pi = one_hot(TINY, gamma[None])[0]
        for position in undecided:
            n = int(TINY.n_options[position])
            pi[position, :n] = 0.5 * pi[position, :n] + 0.5 / n
        weights = probabilities(TINY, pi, self.every)
        target = self.cost[(self.every == gamma).all(1)][0]
        penalty = weights @ np.abs(self.cost - target)
        assert bool(penalty > 0) == bool(undecided)
