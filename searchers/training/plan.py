# SPDX-License-Identifier: Apache-2.0
"""What a recipe means at each step: learning rate, pruning, stochastic quantization."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from searchers.training.recipes import Recipe


@dataclass(frozen=True, slots=True)
class Plan:
    """A recipe over a number of steps.

    Args:
        recipe: the settings.
        n_steps: of the whole training.

    Source: [UDC] section 5.
    """

    recipe: Recipe
    n_steps: int

    @property
    def pruning_from(self) -> int:
        """First step of stage 2."""
        return round(self.recipe.quantize_stage * self.n_steps)

    @property
    def pruned_from(self) -> int:
        """First step of stage 3."""
        return round((self.recipe.quantize_stage + self.recipe.prune_stage) * self.n_steps)

    def stage(self, step: int) -> int:
        """1, 2 or 3."""
        return 1 + (step >= self.pruning_from) + (step >= self.pruned_from)

    def learning_rate(self, step: int) -> float:
        """Linear warm-up, then half a cosine, over all stages."""
        rising = self.recipe.warm_up * self.n_steps
        if step < rising:
            return self.recipe.learning_rate * (step + 1) / (rising + 1)
        done = (step - rising) / (self.n_steps - rising)
        return self.recipe.learning_rate * 0.5 * (1 + math.cos(math.pi * done))

    def pruning(self, step: int) -> float:
        """How far pruning is, 0 in stage 1 to 1 in stage 3; the cubic is in `spaces.nets.masks`."""
        if self.stage(step) == 2:
            return (step - self.pruning_from) / (self.pruned_from - self.pruning_from)
        return float(self.stage(step) == 3)

    def quantized_fraction(self, step: int) -> float:
        """Alpha: constant in stages 1 and 2, rising to 1 in stage 3."""
        alpha = self.recipe.quantized_fraction
        if self.stage(step) < 3:
            return alpha
        last = max(self.n_steps - 1 - self.pruned_from, 1)
        return alpha + (1 - alpha) * (step - self.pruned_from) / last


def seed_of(seed: int, stream: int, index: int) -> int:
    """Seed of what is drawn in step or epoch `index` of a training: a function of these alone.

    So nothing that was drawn before has to be known to go on with a training in the middle.

    >>> seed_of(0, 1, 2) == seed_of(0, 1, 2), seed_of(0, 1, 2) == seed_of(0, 2, 1)
    (True, False)
    """
    return int(np.random.SeedSequence((seed, stream, index)).generate_state(1, np.uint64)[0] >> 1)
