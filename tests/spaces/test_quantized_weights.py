# SPDX-License-Identifier: Apache-2.0
"""Weights as they are trained: number formats, their gradients, masks, ranges."""

from __future__ import annotations

import math
from itertools import pairwise

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="needs torch to quantize")

from spaces.nets import CompressedWeight, magnitude_mask, quantize  # noqa: E402


def quantized(theta, r, bitwidth, **more):
    theta = torch.tensor(theta, requires_grad=True)
    r = torch.tensor(r, requires_grad=True)
    more = {name: torch.tensor(value) for name, value in more.items()}
    return theta, r, quantize(theta, r, bitwidth, **more)


def weight_of(shape, bitwidth, n_nonzero, offset=False):
    weight = CompressedWeight(shape, bitwidth, n_nonzero, torch.Generator().manual_seed(0))
    weight.offset = offset
    return weight


class TestQ:
    def test_values_follow_equation_3(self):
        # b = 3: d = 0.6 / 3 = 0.2
        _, _, q = quantized([-1.0, -0.6, -0.31, -0.09, 0.0, 0.11, 0.29, 0.7], 0.6, 3)
        expected = [-0.6, -0.6, -0.4, 0.0, 0.0, 0.2, 0.2, 0.6]
        np.testing.assert_allclose(q.detach(), expected, atol=1e-6)  # float32

    def test_one_bit_is_the_sign_and_never_zero(self):
        _, _, q = quantized([-3.0, -1e-9, 0.0, 0.2], 0.5, 1)
        assert q.tolist() == [-0.5, -0.5, 0.5, 0.5]

    def test_masked_weights_are_exactly_zero(self):
        _, _, q = quantized([1.0, -1.0, 0.5], 1.0, 4, mask=[0.0, 1.0, 0.0])
        assert q.tolist()[::2] == [0.0, 0.0]
        assert q.tolist()[1] == pytest.approx(-1.0)

    def test_gradients_are_straight_through(self):
        theta, r, q = quantized([-1.0, -0.31, 0.11, 0.7], 0.6, 3)
        (q * torch.tensor([1.0, 2.0, 3.0, 4.0])).sum().backward()
        assert theta.grad.tolist() == [0.0, 2.0, 3.0, 0.0]
        # outside: sign(theta); inside: (Q - theta) / r
        by_hand = -1.0 + 2 * (-0.4 + 0.31) / 0.6 + 3 * (0.2 - 0.11) / 0.6 + 4.0
        assert r.grad.item() == pytest.approx(by_hand, abs=1e-5)

    @pytest.mark.parametrize("bitwidth", [1, 3])
    def test_pruned_weights_get_the_gradient_of_the_zero_in_their_place(self, bitwidth):
        theta, r, q = quantized([0.1, 0.4, 9.0], 0.6, bitwidth, mask=[0.0, 1.0, 0.0])
        (q * torch.tensor([1.0, 2.0, 3.0])).sum().backward()
        assert theta.grad.tolist() == [1.0, 2.0, 3.0]
        if bitwidth > 1:  # of the kept one alone, which is a level: 0
            assert r.grad.item() == pytest.approx(0.0, abs=1e-6)


class TestQHat:
    def test_is_q_where_beta_is_zero(self):
        theta = torch.randn(100, generator=torch.Generator().manual_seed(0)).tolist()
        _, _, plain = quantized(theta, 1.5, 4)
        _, _, offset = quantized(theta, 1.5, 4, beta=0.0)
        assert torch.equal(plain, offset)

    def test_levels_start_at_beta(self):
        # b = 3, r = 0.6: steps of 0.2 from beta = 0.5 on, to 1.1
        theta = [0.5, 0.59, 0.61, -0.72, 1.08, -2.0]
        _, _, q = quantized(theta, 0.6, 3, beta=0.5)
        np.testing.assert_allclose(
            q.detach(), [0.5, 0.5, 0.7, -0.7, 1.1, -1.1], atol=1e-6
        )  # float32

    def test_gradients_are_those_of_what_is_beyond_beta(self):
        theta, r, q = quantized([0.61, -0.72, -2.0], 0.6, 3, beta=0.5)
        (q * torch.tensor([1.0, 2.0, 3.0])).sum().backward()
        assert theta.grad.tolist() == [1.0, 2.0, 0.0]
        by_hand = (0.2 - 0.11) / 0.6 + 2 * (-0.2 + 0.22) / 0.6 - 3.0
        assert r.grad.item() == pytest.approx(by_hand, abs=1e-5)

    @pytest.mark.parametrize(("offset", "most"), [(False, 15), (True, 17)])
    def test_kept_weights_use_all_levels_only_with_it(self, offset, most):
        weight = weight_of((64, 64), 4, 1024, offset)
        weight.prune(1.0)
        weight.calibrate()
        levels = weight().detach().unique()
        assert len(levels) <= most
        # three in four weights are pruned: Q has no use for the levels around 0
        assert (len(levels) >= 15) is offset
        assert weight.beta.item() == (
            weight.theta.detach().abs()[weight.mask == 0].max() if offset else 0.0
        )


class TestStochasticQuantization:
    def test_the_rest_is_clipped(self):
        theta = [-1.0, -0.31, 0.11, 0.7]
        rounded = [False, True, False, True]
        _, _, q = quantized(theta, 0.6, 3, rounded=rounded)
        np.testing.assert_allclose(q.detach(), [-0.6, -0.4, 0.11, 0.6], atol=1e-6)
        _, _, q = quantized(theta, 0.6, 3, rounded=rounded, beta=0.1)
        np.testing.assert_allclose(q.detach(), [-0.7, -0.3, 0.11, 0.7], atol=1e-6)
        _, _, q = quantized(theta, 0.6, 1, rounded=rounded)
        np.testing.assert_allclose(q.detach(), [-0.6, -0.6, 0.11, 0.6], atol=1e-6)

    def test_what_is_only_clipped_gives_the_range_no_gradient_inside(self):
        theta, r, q = quantized([0.11, 0.7], 0.6, 3, rounded=[False, False])
        (q * torch.tensor([1.0, 2.0])).sum().backward()
        assert theta.grad.tolist() == [1.0, 0.0]
        assert r.grad.item() == pytest.approx(2.0)

    def test_is_drawn_in_training_alone_and_by_the_generator(self):
        weight = weight_of((50, 50), 4, 2500)
        deployed = weight.eval()().detach()
        weight.train().quantized_fraction = 0.25
        drawn = []
        for seed in (0, 0, 1):
            weight.generator = torch.Generator().manual_seed(seed)
            drawn.append(weight().detach())
        assert torch.equal(drawn[0], drawn[1])
        assert not torch.equal(drawn[0], drawn[2])
        share = (drawn[0] == deployed).double().mean().item()
        assert abs(share - 0.25) < 4 * math.sqrt(0.25 * 0.75 / 2500)  # and hardly any is on a level
        assert torch.equal(weight.eval()().detach(), deployed)


class TestMasks:
    def test_close_to_exactly_the_largest_magnitudes(self):
        weight = weight_of((10, 10), 8, 7)
        kept = []
        for progress in (0.0, 0.25, 0.5, 0.9, 1.0):
            weight.prune(progress)
            kept.append(int(weight.mask.sum()))
            smallest_kept = weight.theta.abs()[weight.mask == 1].min()
            pruned = weight.theta.abs()[weight.mask == 0]
            assert pruned.numel() == 0 or pruned.max() <= smallest_kept
        assert kept[0] == 100
        assert kept[-1] == 7
        assert kept == sorted(kept, reverse=True)

    def test_are_nested_and_exact_even_where_magnitudes_are_equal(self):
        theta = torch.tensor([[2.0, -1.0, 1.0], [1.0, 0.0, -2.0]])
        masks = [magnitude_mask(theta, n) for n in range(1, 7)]
        assert [int(mask.sum()) for mask in masks] == [1, 2, 3, 4, 5, 6]
        assert all(torch.all(fewer <= more) for fewer, more in pairwise(masks))
        assert masks[2].tolist() == [[1.0, 1.0, 0.0], [0.0, 0.0, 1.0]]

    def test_follow_the_memory_format(self):
        theta = torch.randn(8, 4, 3, 3, generator=torch.Generator().manual_seed(0))
        weight = weight_of((8, 4, 3, 3), 8, 20)
        weight.theta.data = theta.clone()
        weight.prune(1.0)
        other = weight_of((8, 4, 3, 3), 8, 20).to(memory_format=torch.channels_last)
        other.theta.data = theta.clone(memory_format=torch.channels_last)
        other.prune(1.0)
        assert torch.equal(weight.mask, other.mask)


@pytest.mark.parametrize(("bitwidth", "most"), [(1, 2), (2, 3), (4, 15), (8, 255)])
def test_weights_have_at_most_the_levels_of_their_bits(bitwidth, most):
    weight = weight_of((64, 64), bitwidth, 64 * 64)
    levels = weight().detach().unique()
    assert 2 <= len(levels) <= most
    step = weight.log_range.exp() / max(2 ** (bitwidth - 1) - 1, 1)
    np.testing.assert_allclose(levels / step.detach(), (levels / step.detach()).round(), atol=1e-4)


def test_32_bits_leave_weights_as_they_are():
    weight = weight_of((5, 5), 32, 10)
    assert torch.equal(weight(), weight.theta)
    weight.prune(1.0)
    assert torch.equal(weight(), weight.theta * weight.mask)
    weight().sum().backward()
    assert torch.all(weight.theta.grad == 1.0)


def test_ranges_follow_the_weights_when_calibrated():
    weight = weight_of((64, 64), 4, 1024, offset=True)
    before = weight.log_range.exp().item()
    weight.theta.data *= 3
    weight.calibrate()
    assert weight.log_range.exp().item() == pytest.approx(3 * before, rel=1e-5)
    weight.theta.data.zero_()
    weight.calibrate()
    assert torch.isfinite(weight()).all()


@pytest.mark.parametrize(("bitwidth", "offset"), [(2, False), (3, True), (4, True), (8, False)])
def test_fitted_ranges_have_the_least_squared_error_of_what_is_kept(bitwidth, offset):
    """No range of a fine grid is closer to the weights by more than rounding them to 255 steps."""
    weight = weight_of((64, 64), bitwidth, 1024, offset)
    weight.theta.data[0, 0] *= 4  # an outlier that no good range covers at few bits
    weight.prune(1.0)

    def error():
        return (weight.mask * (weight() - weight.theta)).square().sum().item()

    weight.fit_range()
    fitted, largest = error(), weight.theta.abs().max().item()
    others = []
    for r in np.linspace(largest / 50, largest, 200):
        weight.log_range.data.fill_(math.log(r))
        others.append(error())
    assert fitted <= 1.03 * min(others)
    assert fitted < 0.9 * max(others)


@pytest.mark.parametrize("bitwidth", [1, 32])
def test_ranges_that_are_no_parameters_are_not_fitted(bitwidth):
    weight = weight_of((8, 8), bitwidth, 32)
    weight.theta.data *= 3
    before = {name: value.clone() for name, value in weight.state_dict().items()}
    weight.fit_range()
    assert all(torch.equal(weight.state_dict()[name], before[name]) for name in before)


def test_weights_that_are_all_alike_keep_their_range():
    weight = weight_of((8, 8), 4, 32)
    before = weight.log_range.item()
    weight.theta.data.zero_()
    weight.fit_range()
    assert weight.log_range.item() == before
