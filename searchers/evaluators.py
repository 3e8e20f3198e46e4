# SPDX-License-Identifier: Apache-2.0
"""Evaluators by name of what they need, without importing it before it is asked for."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from npusim.errors import ConfigError, MissingExtraError
from searchers.training.recipes import Recipe
from spaces.base import Space

if TYPE_CHECKING:
    from searchers.training.evaluator import TrainEvaluator


@dataclass(frozen=True, slots=True)
class TrainConfig:
    """How a candidate is trained in a search.

    Args:
        epochs: passes over the training data in a trial.
        final_epochs: passes over training and validation data before the final test.
        recipe: all else; None for the recipe of the data set.

    Raises:
        ConfigError: there is less than one epoch.
    """

    epochs: int = 8
    final_epochs: int = 20
    recipe: Recipe | None = None

    def __post_init__(self) -> None:
        for what in ("epochs", "final_epochs"):
            if getattr(self, what) < 1:
                raise ConfigError(f"{what} must be at least 1, got {getattr(self, what)}")


def training(space: Space, config: TrainConfig) -> TrainEvaluator:
    """The evaluator that trains the space's candidates on its data set.

    Raises:
        MissingExtraError: torch or what the data set needs is not installed.
        UnknownNameError: the space's data set is not known.
    """
    try:
        import torch  # noqa: F401
    except ImportError as error:
        raise MissingExtraError("training", "search", error) from error
    from searchers.training.evaluator import TrainEvaluator

    return TrainEvaluator(space, config)
