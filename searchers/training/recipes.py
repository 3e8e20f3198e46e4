# SPDX-License-Identifier: Apache-2.0
"""Recipes: all settings of a training but the network, the data and the seed, as data."""

from __future__ import annotations

import dataclasses
import tomllib
from dataclasses import dataclass
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Any

from npusim.errors import ConfigError, FormatError, UnknownNameError

OPTIMIZERS = ("adamw", "sgd")
NUMBER_FORMATS = ("q", "q-hat")


@dataclass(frozen=True, slots=True)
class Recipe:
    """How networks are trained.

    Args:
        epochs: passes over the training data.
        batch_size: samples a step, of all processes together; what fills no batch is left out.
        optimizer: "adamw", or "sgd" with Nesterov's momentum of 0.9.
        learning_rate: at its highest; rises linearly from 0, then falls to 0 along a cosine.
        warm_up: fraction of the steps in which it rises.
        weight_decay: of weights; scales, shifts, biases and ranges have none.
        range_learning_rate: of ranges of quantizers, as a multiple of the learning rate.
        clip_norm: most the gradient's norm may be, or 0 for no limit.
        label_smoothing: of cross entropy, 0..1.
        ema: of each step's weights, how much the average keeps of what it was, 0..1; the average
            is what is deployed; 0 for the last weights.
        bfloat16: products in bfloat16, which some processors are faster in.
        channels_last: maps in memory by pixel rather than by channel.
        crop: pixels that images are padded by at each side before a crop of their size.
        crop_area: least part of an image's area that random resized crops have; 1 for its middle;
            for images in files alone.
        flip: mirror half of the images; for super-resolution also turn them.
        patch: height and width of patches in low resolution; for super-resolution alone.
        patches: patches of each image in an epoch; for super-resolution alone.
        quantize_stage, prune_stage: fractions of the steps of stage 1, with quantization alone, and
            of stage 2, in which pruning goes from nothing to its target. The rest is stage 3.
        quantized_fraction: alpha in stages 1 and 2; it rises linearly to 1 in stage 3.
        fit_ranges: ranges of weights are set by least squared error when stage 3 begins and the
            masks are final, else they are learned alone.
        mask_interval: steps between refreshes of the masks.
        regrow: pruned weights get the gradient of the zeros in their place and may grow back.
        number_format: of quantized weights: "q", or "q-hat" with its levels beyond what is pruned.
        int8_activations: feature maps are rounded to int8 in stage 3.
        learn_activation_ranges: their ranges are trained, else they are moving averages.

    Raises:
        ConfigError: a setting is out of its range.

    Source: [UDC] section 5 for the three stages, stochastic quantization and the number format,
    Algorithm 2 for the interval of 16 steps. Fractions and the rest are ours; the paper's are not
    known.
    """

    epochs: int
    batch_size: int
    optimizer: str
    learning_rate: float
    warm_up: float = 0.0
    weight_decay: float = 0.0
    range_learning_rate: float = 0.1
    clip_norm: float = 0.0
    label_smoothing: float = 0.0
    ema: float = 0.0
    bfloat16: bool = False
    channels_last: bool = False
    crop: int = 0
    crop_area: float = 1.0
    flip: bool = False
    patch: int = 32
    patches: int = 32
    quantize_stage: float = 0.3
    prune_stage: float = 0.4
    quantized_fraction: float = 0.5
    fit_ranges: bool = True
    mask_interval: int = 16
    regrow: bool = True
    number_format: str = "q-hat"
    int8_activations: bool = False
    learn_activation_ranges: bool = False

    def __post_init__(self) -> None:
        for field in dataclasses.fields(self):
            _check_type(field.name, str(field.type), getattr(self, field.name))
        for what in ("epochs", "batch_size", "mask_interval", "patch", "patches"):
            if getattr(self, what) < 1:
                raise ConfigError(f"{what} must be at least 1, got {getattr(self, what)}")
        for what in ("weight_decay", "range_learning_rate", "clip_norm", "crop"):
            if getattr(self, what) < 0:
                raise ConfigError(f"{what} must be at least 0, got {getattr(self, what)}")
        for what in ("warm_up", "label_smoothing", "ema"):
            if not 0 <= getattr(self, what) < 1:
                raise ConfigError(f"{what} must be in [0, 1), got {getattr(self, what)}")
        if not self.learning_rate > 0:
            raise ConfigError(f"learning_rate must be more than 0, got {self.learning_rate}")
        for what in ("quantized_fraction", "crop_area"):
            if not 0 < getattr(self, what) <= 1:
                raise ConfigError(f"{what} must be in (0, 1], got {getattr(self, what)}")
        stages = (self.quantize_stage, self.prune_stage)
        if min(stages) < 0 or sum(stages) > 1:
            raise ConfigError(
                f"quantize_stage and prune_stage must be at least 0 and at most 1 together, "
                f"got {stages[0]} and {stages[1]}"
            )
        if self.optimizer not in OPTIMIZERS:
            raise UnknownNameError("optimizer", self.optimizer, OPTIMIZERS)
        if self.number_format not in NUMBER_FORMATS:
            raise UnknownNameError("number_format", self.number_format, NUMBER_FORMATS)

    def but(self, **changes: Any) -> Recipe:
        """This recipe with other settings.

        Raises:
            ConfigError: there is no such setting, or a value is out of its range.
        """
        return from_mapping({**dataclasses.asdict(self), **changes})


def _check_type(name: str, kind: str, value: object) -> None:
    allowed: dict[str, tuple[type, ...]] = {"int": (int,), "float": (int, float), "str": (str,)}
    fits = isinstance(value, allowed.get(kind, (bool,)))
    if not fits or (isinstance(value, bool) and kind != "bool") or value != value:
        raise ConfigError(f"{name} must be of type {kind}, got {value!r}")


def from_mapping(settings: dict[str, Any]) -> Recipe:
    """The recipe with these settings, by name.

    Raises:
        ConfigError: a setting is unknown, missing or out of its range.
    """
    known = {field.name: field for field in dataclasses.fields(Recipe)}
    for name in settings:
        if name not in known:
            raise UnknownNameError("setting of a recipe", name, known)
    for name, field in known.items():
        if field.default is dataclasses.MISSING and name not in settings:
            raise ConfigError(f"recipe must have setting {name!r}, got none")
    return Recipe(**settings)


@cache
def recipes() -> dict[str, Recipe]:
    """The recipes that come with npusim, by name: those of ``recipes.toml``."""
    text = resources.files("searchers.training").joinpath("recipes.toml").read_text("utf-8")
    return {name: from_mapping(settings) for name, settings in tomllib.loads(text).items()}


BY_DATA_SET = {"bsds200": "super_resolution", "div2k": "super_resolution"}
"""Recipes of data sets that do not have one of their own name."""


def get(name: str) -> Recipe:
    """The recipe of that name or data set, or in that .toml file of settings.

    Raises:
        UnknownNameError: no such recipe.
        ConfigError: a setting of the file is wrong, or there is no such file.
        FormatError: the file is not TOML.
    """
    if not name.endswith(".toml"):
        name = BY_DATA_SET.get(name, name)
        if name not in recipes():
            raise UnknownNameError("recipe", name, recipes())
        return recipes()[name]
    try:
        return from_mapping(tomllib.loads(Path(name).read_text("utf-8")))
    except OSError as error:
        raise ConfigError(f"recipe file must be readable, got {error}") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise FormatError(f"{name} must be TOML, got {error}") from None
