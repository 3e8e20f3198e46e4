# SPDX-License-Identifier: Apache-2.0
"""Proxies against what they are by definition, and against accuracies."""

from __future__ import annotations

import math

import numpy as np
import pytest

from npusim.errors import ConfigError, UnknownNameError
from spaces.builder import SpaceBuilder
from spaces.digits import digits
from spaces.limits import Limit
from spaces.super_resolution import super_resolution

torch = pytest.importorskip("torch", reason="needs torch")
pytest.importorskip("sklearn", reason="needs sklearn")

from searchers.base import Budget  # noqa: E402
from searchers.study import Study, run_study  # noqa: E402
from searchers.zero_cost import ZeroCostEvaluator, nwot, synflow  # noqa: E402
from spaces.nets import build  # noqa: E402

SPACE = digits()


def plain_space(activation: str = "relu"):
    """Two dense layers of 32 bits on 2x2 images."""
    net = SpaceBuilder("plain", "digits", (2, 2, 1))
    x = net.conv(net.input(), 3, 1, norm=False, bias=False, activation=activation)
    net.dense(net.global_pool(x), 2)
    return net.build()


def made(space, seed: int = 0):
    return build(space, space.largest(), torch.Generator().manual_seed(seed))


def test_nwot_is_the_log_determinant_of_agreements():
    net, images = (
        made(plain_space()),
        torch.randn(3, 1, 2, 2, generator=torch.Generator().manual_seed(0)),
    )
    weights = next(iter(net.weights().values())).theta.detach().reshape(3, 1)
    codes = (images.reshape(3, 1, 4) * weights[None] > 0).reshape(3, 12).numpy()
    agreements = np.array([[(a == b).sum() for b in codes] for a in codes], dtype=float)
    expected = np.linalg.slogdet(agreements)[1]
    assert nwot(net, images) == pytest.approx(expected, abs=1e-6)


def test_equal_images_have_no_determinant():
    assert nwot(made(plain_space()), torch.ones(3, 1, 2, 2)) < -30


def test_synflow_is_the_flow_of_two_layers():
    net = made(plain_space())
    first, second = (w.theta.detach().abs().double() for w in net.weights().values())
    out = float((second.reshape(2, 3) @ first.reshape(3)).sum())  # images of ones, mean of pixels
    assert synflow(net, torch.zeros(1, 1, 2, 2)) == pytest.approx(math.log(2 * out), abs=1e-5)


def test_networks_without_rectifiers_are_refused():
    with pytest.raises(ConfigError, match="network must have rectifiers to count, got none"):
        nwot(made(plain_space("none")), torch.ones(3, 1, 2, 2))


@pytest.mark.parametrize("proxy", ["nwot", "synflow"])
def test_both_prefer_the_largest_network_to_tiny_ones(proxy):
    evaluator, rng = ZeroCostEvaluator(SPACE, proxy), np.random.default_rng(0)
    tiny = [SPACE.sample_feasible(rng, Limit.size("100B")) for _ in range(5)]
    largest = evaluator.evaluate(SPACE.largest(), 0)
    assert all(evaluator.evaluate(each, 0).score < largest.score for each in tiny)
    assert evaluator.evaluate(SPACE.largest(), 0) == largest


def test_a_search_by_proxy_ends_with_a_trained_result(tmp_path):
    from searchers.evaluators import TrainConfig, training

    trained = training(SPACE, TrainConfig(epochs=1, final_epochs=1))
    evaluator = ZeroCostEvaluator(SPACE, "synflow", trained=trained)
    study = Study(SPACE, "random", Limit.size("1KB"), Budget(trials=3), 0)
    result = run_study(study, tmp_path, evaluator)
    assert 0 < result.test.metrics["accuracy"] <= 1
    assert result.best.score == max(trial.score for trial in result.history)


def test_pairs_of_images_are_refused(pictures):
    from searchers.evaluators import TrainConfig, training

    space = super_resolution(patch=8)
    with pytest.raises(ConfigError, match=r"proxy 'nwot' must be of images with cl.*, got Pairs"):
        ZeroCostEvaluator(space, trained=training(space, TrainConfig(), directory=pictures))


def test_other_proxies_and_batches_are_refused():
    with pytest.raises(UnknownNameError, match="proxy must be one of nwot, synflow, got 'x'"):
        ZeroCostEvaluator(SPACE, "x")
    with pytest.raises(ConfigError, match=r"batch_size must be in 2\.\.4096, got 1"):
        ZeroCostEvaluator(SPACE, "nwot", batch_size=1)
