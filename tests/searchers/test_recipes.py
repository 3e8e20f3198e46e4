# SPDX-License-Identifier: Apache-2.0
"""Recipes and plans: settings in their ranges, and what they mean at each step."""

from __future__ import annotations

import re

import pytest

from npusim.errors import ConfigError, FormatError, UnknownNameError
from searchers.training.plan import Plan
from searchers.training.recipes import Recipe, from_mapping, get, recipes

RECIPE = Recipe(epochs=1, batch_size=10, optimizer="sgd", learning_rate=0.1)


def test_those_that_come_with_npusim_are_whole():
    assert {"cifar100", "digits", "imagenet", "super_resolution", "tiny_imagenet"} <= set(recipes())
    assert get("cifar100").crop == 4


def test_files_of_settings_are_read(tmp_path):
    path = tmp_path / "mine.toml"
    path.write_text('epochs = 3\nbatch_size = 8\noptimizer = "adamw"\nlearning_rate = 1\n')
    assert get(str(path)) == Recipe(3, 8, "adamw", 1)
    path.write_text("epochs = ")
    with pytest.raises(FormatError, match=r"mine.toml must be TOML, got"):
        get(str(path))
    with pytest.raises(ConfigError, match="recipe file must be readable, got"):
        get(str(tmp_path / "none.toml"))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"epochs": 0}, "epochs must be at least 1, got 0"),
        ({"epochs": 1.5}, "epochs must be of type int, got 1.5"),
        ({"epochs": True}, "epochs must be of type int, got True"),
        ({"flip": 1}, "flip must be of type bool, got 1"),
        ({"learning_rate": float("nan")}, "learning_rate must be of type float, got nan"),
        ({"batch_size": 0}, "batch_size must be at least 1, got 0"),
        ({"mask_interval": 0}, "mask_interval must be at least 1, got 0"),
        ({"weight_decay": -1.0}, "weight_decay must be at least 0, got -1.0"),
        ({"crop": -1}, "crop must be at least 0, got -1"),
        ({"ema": 1.0}, r"ema must be in \[0, 1\), got 1.0"),
        ({"warm_up": -0.1}, r"warm_up must be in \[0, 1\), got -0.1"),
        ({"learning_rate": 0.0}, "learning_rate must be more than 0, got 0.0"),
        ({"quantized_fraction": 0.0}, r"quantized_fraction must be in \(0, 1\], got 0.0"),
        ({"crop_area": 1.1}, r"crop_area must be in \(0, 1\], got 1.1"),
        ({"quantize_stage": 0.8}, "at most 1 together, got 0.8 and 0.4"),
        ({"optimizer": "adam"}, "optimizer must be one of adamw, sgd, got 'adam'"),
        ({"number_format": "p"}, "number_format must be one of q, q-hat, got 'p'"),
        ({"epoch": 1}, "setting of a recipe must be one of .* did you mean 'epochs'"),
    ],
)
def test_settings_out_of_range_are_refused(change, message):
    with pytest.raises(ConfigError if "must be one of" not in message else UnknownNameError) as e:
        RECIPE.but(**change)
    assert re.search(message, str(e.value))


def test_settings_without_default_must_be_given():
    with pytest.raises(ConfigError, match="recipe must have setting 'optimizer', got none"):
        from_mapping({"epochs": 1, "batch_size": 1, "learning_rate": 1.0})


def test_unknown_recipes_are_refused():
    with pytest.raises(UnknownNameError, match=r"recipe must be one of .*, got 'digit'"):
        get("digit")


class TestPlan:
    plan = Plan(RECIPE.but(warm_up=0.1, quantized_fraction=0.4), 100)

    def test_has_three_stages(self):
        stages = [self.plan.stage(step) for step in range(100)]
        assert stages == [1] * 30 + [2] * 40 + [3] * 30

    def test_prunes_in_the_second(self):
        pruning = [self.plan.pruning(step) for step in range(100)]
        assert set(pruning[:31]) == {0.0}
        assert pruning[50] == 0.5
        assert set(pruning[70:]) == {1.0}
        assert pruning == sorted(pruning)

    def test_quantizes_more_and_more_in_the_third(self):
        fractions = [self.plan.quantized_fraction(step) for step in range(100)]
        assert set(fractions[:71]) == {0.4}
        assert fractions[-1] == 1.0
        assert fractions == sorted(fractions)

    def test_warms_up_and_cools_down(self):
        rates = [self.plan.learning_rate(step) for step in range(101)]
        assert rates[:10] == sorted(rates[:10])
        assert rates[10] == max(rates) == 0.1
        assert rates[55] == pytest.approx(0.05)  # half of the cosine
        assert rates[100] == pytest.approx(0.0)

    def test_stages_may_be_empty(self):
        plan = Plan(RECIPE.but(quantize_stage=0.0, prune_stage=0.0), 10)
        assert [plan.pruning(step) for step in range(10)] == [1.0] * 10
        plan = Plan(RECIPE.but(quantize_stage=1.0, prune_stage=0.0), 10)
        assert [plan.stage(step) for step in range(10)] == [1] * 10
