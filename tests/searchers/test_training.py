# SPDX-License-Identifier: Apache-2.0
"""Real training on the digits: repeatable, on the right data, accurate, and missing parts named."""

from __future__ import annotations

import sys

import numpy as np
import pytest

from npusim.errors import ConfigError, MissingExtraError, UnknownNameError
from searchers import data
from searchers.evaluators import TrainConfig, training
from searchers.training import recipes
from spaces.digits import digits
from spaces.super_resolution import super_resolution

SPACE = digits()


def options(width: float, bitwidth: int, sparsity: float) -> dict[str, float]:
    by_kind = {"width": width, "bitwidth": bitwidth, "sparsity": sparsity}
    return {decision.name: by_kind[decision.kind] for decision in SPACE.decisions}


@pytest.fixture(scope="module")
def torch():
    pytest.importorskip("sklearn", reason="needs scikit-learn for the digits")
    return pytest.importorskip("torch", reason="needs torch to train")


def test_splits_are_disjoint_and_stratified(torch):
    found = data.load("digits")
    splits = (found.train, found.validation, found.test)
    assert [len(split.labels) for split in splits] == [1077, 360, 360]
    images = np.concatenate([split.images for split in splits])
    assert images.shape == (1797, 8, 8, 1)
    assert (images.min(), images.max()) == (0.0, 1.0)
    assert len(np.unique(images.reshape(1797, -1), axis=0)) == 1797
    for split in splits:
        counts = np.bincount(split.labels) / len(split.labels)
        assert np.all(np.abs(counts - 0.1) < 0.01)


def test_unknown_data_is_refused():
    with pytest.raises(UnknownNameError, match=r"data set must be one of .*digits.*, got 'mnist'"):
        data.load("mnist")


def test_same_seed_same_result_other_seed_another(torch):
    evaluator = training(SPACE, TrainConfig(epochs=1, final_epochs=1))
    candidate = SPACE.from_options(options(0.5, 4, 0.5))
    first = evaluator.evaluate(candidate, 7)
    torch.manual_seed(123)  # nothing depends on torch's own generator
    assert evaluator.evaluate(candidate, 7) == first
    assert evaluator.evaluate(candidate, 8).metrics["loss"] != first.metrics["loss"]
    assert first.n_images == 1077 // 64 * 64
    assert evaluator.test(candidate, 7).n_images == (1077 + 360) // 64 * 64
    assert evaluator.test(candidate, 7).metrics != first.metrics


def test_training_leaves_torch_threads_as_they_were(torch):
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    training(SPACE, TrainConfig(epochs=1)).evaluate(SPACE.from_options(options(0.1, 1, 0.1)), 0)
    assert torch.get_num_threads() == 2
    torch.set_num_threads(before)


def test_every_setting_changes_the_training(torch):
    candidate = SPACE.from_options(options(0.3, 4, 0.4))
    few = recipes.get("digits").but(int8_activations=True)
    more = TrainConfig(epochs=2, recipe=few), TrainConfig(final_epochs=2, recipe=few)
    once = TrainConfig(epochs=1, final_epochs=1, recipe=few)
    losses = [
        training(SPACE, config).evaluate(candidate, 0).metrics["loss"] for config in (once, more[0])
    ]
    assert losses[0] != losses[1]
    finals = [
        training(SPACE, config).test(candidate, 0).metrics["loss"] for config in (once, more[1])
    ]
    assert finals[0] != finals[1]


def test_dense_8_bit_digits_reach_97_percent(torch):
    evaluator = training(SPACE, TrainConfig())
    assert evaluator.test(SPACE.from_options(options(1.0, 8, 1.0)), 0).score >= 0.97


@pytest.mark.parametrize("what", ["epochs", "final_epochs"])
def test_settings_out_of_range_are_refused(what):
    with pytest.raises(ConfigError, match=f"{what} must be at least 1, got 0"):
        TrainConfig(**{what: 0})


def test_super_resolution_is_trained_and_scored_by_psnr(pictures):
    space = super_resolution(scale=2, patch=8, features=8, shrunk=4, layers=1)
    recipe = recipes.get("div2k").but(patch=8, patches=8)
    config = TrainConfig(epochs=2, final_epochs=1, recipe=recipe)
    evaluator = training(space, config, directory=pictures)
    train, validation = evaluator.search_data()
    assert (len(train), len(validation)) == (2, 2)
    found = evaluator.evaluate(space.largest(), 0)
    assert found == evaluator.evaluate(space.largest(), 0)
    assert found.score == found.metrics["psnr"] > 5
    assert found.n_images == 2 * 2 * 8
    tested = evaluator.test(space.largest(), 0)
    assert tested.n_images == (2 + 2) * 8
    assert tested.score != found.score


def test_data_sets_of_another_kind_are_refused(pictures):
    with pytest.raises(ConfigError, match="'digits' must be of images with classes, got 'div2k'"):
        training(SPACE, TrainConfig(), "div2k", pictures)
    with pytest.raises(ConfigError, match="'super_resolution' must be of images, got 'digits'"):
        training(super_resolution(), TrainConfig(), "digits")


def test_without_torch_the_extra_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "torch", None)
    with pytest.raises(MissingExtraError, match=r"training must have the extra \[search\]"):
        training(SPACE, TrainConfig())


def test_without_scikit_learn_the_extra_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "sklearn.datasets", None)
    with pytest.raises(MissingExtraError, match=r"the digits data must have the extra \[search\]"):
        data.digits()
