# SPDX-License-Identifier: Apache-2.0
"""Evaluators by name of what they need, without importing it before it is asked for."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from npusim.errors import ConfigError, MissingExtraError
from spaces.base import Space

if TYPE_CHECKING:
    from searchers.train import TrainEvaluator


@dataclass(frozen=True, slots=True)
class TrainConfig:
    """How a candidate is trained.

    Args:
        epochs: passes over the training data in a trial.
        final_epochs: passes over training and validation data before the final test.
        batch_size: images a step; the rest of an epoch that fills no batch is left out.
        learning_rate: of AdamW at the start; falls to 0 along a cosine.
        weight_decay: of AdamW.
        prune_until: fraction of the steps after which masks have their final sparsity.
        mask_interval: steps between refreshes of the masks.

    Source: [UDC] Algorithm 2 for the interval of 16 steps. The rest was chosen for 8x8 digits.
    """

    epochs: int = 8
    final_epochs: int = 20
    batch_size: int = 64
    learning_rate: float = 0.01
    weight_decay: float = 1e-3
    prune_until: float = 0.5
    mask_interval: int = 16

    def __post_init__(self) -> None:
        for what in ("epochs", "final_epochs", "batch_size", "mask_interval"):
            if getattr(self, what) < 1:
                raise ConfigError(f"{what} must be at least 1, got {getattr(self, what)}")
        if not self.learning_rate > 0 or not self.weight_decay >= 0:
            raise ConfigError(
                "learning_rate must be more than 0 and weight_decay at least 0, "
                f"got {self.learning_rate} and {self.weight_decay}"
            )
        if not 0 < self.prune_until <= 1:
            raise ConfigError(f"prune_until must be in (0, 1], got {self.prune_until}")


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
    from searchers.train import TrainEvaluator

    return TrainEvaluator(space, config)
