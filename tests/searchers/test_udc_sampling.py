# SPDX-License-Identifier: Apache-2.0
"""Relaxed samples of decisions, and the projection of their probabilities."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import spaces
from npusim.errors import UnknownNameError
from searchers.udc.config import XI
from searchers.udc.projection import project, xi
from searchers.udc.sampling import (
    PADDING,
    Decisions,
    Noise,
    accepted,
    accepted_by_rejection,
    draw,
    gumbel_softmax,
)

DECISIONS = Decisions.of(spaces.get("digits"))
SHAPE = tuple(DECISIONS.valid.shape)
LOGITS = st.lists(st.floats(-20, 20, width=32), min_size=2, max_size=12)


def random_log_pi(seed: int = 0, spread: float = 1.5) -> torch.Tensor:
    logits = torch.from_numpy(np.random.default_rng(seed).normal(0, spread, SHAPE))
    return DECISIONS.log_pi(logits)


def noise(n_mc: int, n_draws: int = 1, seed: int = 0) -> Noise:
    return Noise.draw(np.random.default_rng(seed), n_mc, SHAPE, n_draws)


class TestDecisions:
    def test_padding_has_no_weight(self):
        pi = random_log_pi().exp()
        assert pi.sum(1).tolist() == pytest.approx([1.0] * SHAPE[0])
        assert (pi[~DECISIONS.valid] == 0).all()
        assert DECISIONS.n_options.tolist() == spaces.get("digits").n_options.tolist()

    def test_entropy_of_no_preference_is_that_of_the_options(self):
        log_pi = DECISIONS.log_pi(torch.zeros(SHAPE, dtype=torch.float64))
        expected = np.log2(spaces.get("digits").n_options)
        np.testing.assert_allclose(DECISIONS.entropy_bits(log_pi).numpy(), expected)


class TestSamples:
    @pytest.mark.parametrize("theta", [0.0, 0.5, 1.0])
    @pytest.mark.parametrize("rejection", [False, True])
    @pytest.mark.parametrize("kappa", [0.0, 0.5, 1.0])
    def test_are_weights_of_the_options(self, theta, rejection, kappa):
        z = draw(
            random_log_pi(),
            noise(50, 4),
            temperature=0.66,
            theta=theta,
            rejection=rejection,
            kappa=kappa,
        )
        np.testing.assert_allclose(z.sum(-1).numpy(), 1.0, rtol=1e-12)
        assert (z[:, ~DECISIONS.valid] == 0).all()
        assert (z >= 0).all()
        if kappa == 1:
            assert set(z.unique().round(decimals=12).tolist()) == {0.0, 1.0}

    def test_the_largest_option_is_drawn_with_its_probability(self):
        log_pi = random_log_pi()
        z = draw(log_pi, noise(40_000), temperature=0.66, theta=0.0)
        shares = torch.nn.functional.one_hot(z.argmax(-1), SHAPE[1]).double().mean(0)
        assert (shares - log_pi.exp()).abs().max() < 0.01  # four standard deviations

    def test_accepted_samples_choose_the_most_likely_option(self):
        log_pi = random_log_pi()
        for make in (accepted, accepted_by_rejection):
            assert (make(log_pi, noise(500, 8), 0.66).argmax(-1) == log_pi.argmax(1)).all()

    def test_conditional_samples_have_the_law_of_those_that_rejection_accepts(self):
        stats = pytest.importorskip("scipy.stats")
        log_pi = random_log_pi(1)[:3]
        rng = np.random.default_rng(2)
        drawn = Noise.draw(rng, 20_000, tuple(log_pi.shape))
        ours = accepted(log_pi, drawn, 0.66)
        z = gumbel_softmax(log_pi, torch.from_numpy(rng.gumbel(size=(60_000, *log_pi.shape))), 0.66)
        for decision, most_likely in enumerate(log_pi.argmax(1).tolist()):
            kept = z[z[:, decision].argmax(-1) == most_likely, decision]
            assert len(kept) > 3000
            for option in range(int(DECISIONS.n_options[decision])):
                found = stats.ks_2samp(kept[:, option].numpy(), ours[:, decision, option].numpy())
                assert found.pvalue > 1e-4

    def test_both_have_the_same_mean_and_the_same_gradient(self):
        weights = torch.from_numpy(np.random.default_rng(3).random(SHAPE))
        means, gradients = [], []
        for make in (accepted, accepted_by_rejection):
            log_pi = random_log_pi(4, 1.0).requires_grad_()
            z = make(log_pi, noise(6_000, 8, 5), 0.66)
            (z * weights).sum((1, 2)).mean().backward()
            means.append(z.detach().mean(0))
            gradients.append(log_pi.grad)
        assert (means[0] - means[1]).abs().max() < 0.025
        assert (gradients[0] - gradients[1]).abs().max() < 0.025
        assert gradients[0].abs().max() > 0.1

    def test_rejection_without_an_accepted_draw_takes_a_conditional_one(self):
        log_pi = random_log_pi()
        drawn = noise(400)
        z = accepted_by_rejection(log_pi, drawn, 0.66)
        free = gumbel_softmax(log_pi, torch.from_numpy(drawn.free[0]), 0.66)
        kept = free.argmax(-1) == log_pi.argmax(1)
        torch.testing.assert_close(z[kept], free[kept])
        torch.testing.assert_close(z[~kept], accepted(log_pi, drawn, 0.66)[~kept])
        assert 0 < kept.double().mean() < 1

    def test_theta_is_the_share_of_accepted_samples(self):
        log_pi = random_log_pi(6, 0.3)
        drawn = noise(4000)
        z = draw(log_pi, drawn, temperature=0.66, theta=0.3)
        took = (z == accepted(log_pi, drawn, 0.66)).all(-1)
        assert took.double().mean().item() == pytest.approx(0.3, abs=0.02)

    def test_gradients_are_finite_when_nearly_decided(self):
        logits = torch.zeros(SHAPE, dtype=torch.float64)
        logits[:, 0] = 500.0
        logits.requires_grad_()
        z = draw(DECISIONS.log_pi(logits), noise(50), temperature=0.1, theta=0.5, kappa=0.5)
        (z**2).sum().backward()
        assert torch.isfinite(logits.grad).all()


class TestProjection:
    @staticmethod
    def projected(logits: list[float], most: float) -> tuple[torch.Tensor, torch.Tensor]:
        log_pi = torch.log_softmax(torch.tensor([logits, *[logits]], dtype=torch.float64), 1)
        return log_pi[0], project(log_pi, torch.full((2,), most, dtype=torch.float64))[0]

    @given(logits=LOGITS, slack=st.floats(0, 1))
    @settings(deadline=None, derandomize=True, max_examples=150)
    def test_keeps_the_order_below_the_bound_and_stays(self, logits, slack):
        most = min(1.0, 1 / len(logits) + slack)
        before, after = self.projected(logits, most)
        assert after.exp().max() <= most + 1e-6
        assert after.exp().sum().item() == pytest.approx(1.0)
        order = before.argsort(stable=True)
        assert (after[order].diff() >= -1e-12).all()
        again = project(after[None], torch.tensor([most], dtype=torch.float64))[0]
        torch.testing.assert_close(again, after, rtol=0, atol=1e-9)
        if before.exp().max() <= most:
            assert torch.equal(after, before)

    @given(logits=LOGITS, slack=st.floats(0.001, 0.5))
    @settings(deadline=None, derandomize=True, max_examples=60)
    def test_takes_the_smallest_temperature_there_is(self, logits, slack):
        most = min(1.0, 1 / len(logits) + slack)
        before, after = self.projected(logits, most)
        low, high = 0.0, 1.0  # bisection on 1/T
        for _ in range(100):
            middle = (low + high) / 2
            fits = torch.softmax(before * middle, 0).max() <= most
            low, high = (middle, high) if fits else (low, middle)
        expected = torch.softmax(before * (1.0 if before.exp().max() <= most else low), 0)
        torch.testing.assert_close(after.exp(), expected, rtol=0, atol=1e-6)

    def test_pads_keep_no_weight_and_rows_have_their_own_bound(self):
        log_pi = random_log_pi(7, 6.0)
        most = 1 / DECISIONS.n_options.double() + xi("constant", 0, 1, DECISIONS.n_options, 0.2)
        after = project(log_pi, most)
        assert (after.exp().max(1).values <= most + 1e-6).all()
        assert (after.exp().max(1).values >= most - 1e-6)[log_pi.exp().max(1).values > most].all()
        assert (after[~DECISIONS.valid] <= PADDING / 2).all()

    def test_nothing_allowed_is_uniform(self):
        n = DECISIONS.n_options.double()
        after = project(random_log_pi(), 1 / n).exp()
        expected = DECISIONS.valid / n[:, None]
        torch.testing.assert_close(after, expected, rtol=0, atol=1e-9)

    @pytest.mark.parametrize("schedule", XI)
    def test_schedules_rise_to_all_that_is_allowed(self, schedule):
        n = torch.tensor([2, 10])
        at = [xi(schedule, p, 0.6, n, 0.5) for p in (0.0, 0.3, 0.6, 1.0)]
        assert all((a <= b).all() for a, b in itertools.pairwise(at))
        if schedule == "none":
            assert torch.equal(at[0], 1 - 1 / n.double())
        elif schedule == "constant":
            assert at[0].tolist() == at[3].tolist() == [0.5, 0.5]
        else:
            assert at[0].tolist() == [0.0, 0.0]
            torch.testing.assert_close(at[1], 0.5 * (1 - 1 / n.double()))
            torch.testing.assert_close(at[2], 1 - 1 / n.double())

    def test_refuses_an_unknown_schedule(self):
        with pytest.raises(UnknownNameError, match="xi schedule must be one of constant"):
            xi("quadratic", 0, 1, torch.tensor([2]), 0.5)
