# SPDX-License-Identifier: Apache-2.0
"""When a search must stop."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from npusim.errors import ConfigError

if TYPE_CHECKING:
    from searchers.base import History


@dataclass(frozen=True, slots=True)
class Budget:
    """When a search must stop: at the first of its limits that is reached; None is no limit.

    Args:
        trials: number of evaluations.
        images: images trained on, by all trials and by the searcher itself.
        seconds: wall time of proposals and evaluations. Results then depend on the machine's speed.

    Raises:
        ConfigError: no limit at all, or one that is not positive and finite.
    """

    trials: int | None = None
    images: int | None = None
    seconds: float | None = None

    def __post_init__(self) -> None:
        limits = {"trials": self.trials, "images": self.images, "seconds": self.seconds}
        if all(most is None for most in limits.values()):
            raise ConfigError(f"budget must limit one of {', '.join(limits)}, got none")
        for what, most in limits.items():
            if most is not None and not 0 < most < math.inf:
                raise ConfigError(f"budget in {what} must be more than 0 and finite, got {most}")

    def allows_another(self, history: History) -> bool:
        """Whether another trial may be started."""
        spent = (
            (self.trials, len(history)),
            (self.images, history.n_images),
            (self.seconds, history.wall_s),
        )
        return all(most is None or so_far < most for most, so_far in spent)
