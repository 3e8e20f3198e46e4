# SPDX-License-Identifier: Apache-2.0
"""Which trials share a device: by the memory that each takes, and so that all are as busy.

A small network leaves most of a GPU idle, so several are trained on one. Trials are placed as water
fills a vessel: each on the device whose level is the lowest among those that it still fits on.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Final

import numpy as np

from npusim.errors import ConfigError
from searchers.base import Job
from searchers.training.recipes import Recipe
from spaces.base import Candidate, LayerKind, Space
from spaces.concrete import concrete_layers
from spaces.layers import ACTIVATED, NORMED

FLOAT_BYTES: Final = 4
OPTIMIZER_STATES: Final = {"sgd": 1, "adamw": 2}
"""Values that an optimizer keeps of each weight."""
WEIGHT_COPIES: Final = 4
"""Values of each weight that a step of training has at once, beside its gradient and the
optimizer's: quantized, pruned, mask, and what their gradients need."""
MAPS_MARGIN: Final = 1.3
"""Of maps: what is there for a moment beside those that gradients need."""
ALWAYS_BYTES: Final = 48_000_000
"""Taken by libraries for any training. With these three, estimates are 1.02 to 1.32 times the real
peak on the CPU for wide ResNets of depth 20, and 2.1 times for one of depth 8 (measured)."""


@dataclass(frozen=True, slots=True)
class Device:
    """What trials are trained on.

    Args:
        name: as torch has it, such as ``cuda:0``.
        memory_bytes: that trials may take of it together.

    Raises:
        ConfigError: it has no memory.
    """

    name: str
    memory_bytes: int

    def __post_init__(self) -> None:
        if self.memory_bytes < 1:
            raise ConfigError(
                f"memory of device {self.name!r} must be at least 1 byte, got {self.memory_bytes}"
            )


@dataclass
class Packing:
    """Trials on devices, as they come and go.

    The level of a device is the part of its memory that is taken; of equal ones the first is taken.

    Args:
        devices: one or more.

    Raises:
        ConfigError: there is none, or two have one name.

    Source: Yu et al., 2021, "Fluid: Resource-aware Hyperparameter Tuning Engine": water-filling,
    within and between devices.
    Differs: memory alone is counted, and a trial never takes more than one device.

    >>> packing = Packing([Device("cuda:0", 100), Device("cuda:1", 60)])
    >>> [packing.place(trial, 30) for trial in range(6)]
    ['cuda:0', 'cuda:1', 'cuda:0', 'cuda:1', 'cuda:0', None]
    >>> packing.release(1)
    >>> packing.place(6, 30)
    'cuda:1'
    """

    devices: Sequence[Device]
    _placed: dict[int, tuple[int, int]] = field(default_factory=dict, init=False)

    def __post_init__(self) -> None:
        names = [device.name for device in self.devices]
        if not names or len(set(names)) < len(names):
            raise ConfigError(
                f"devices must be one or more, each once, got {', '.join(names) or 'none'}"
            )
        self._taken = np.zeros(len(names), np.int64)
        self._memory = np.array([device.memory_bytes for device in self.devices], np.int64)

    @property
    def taken_bytes(self) -> list[int]:
        """Memory of each device that its trials take."""
        return [int(each) for each in self._taken]

    def place(self, trial: int, memory_bytes: int) -> str | None:
        """Name of the device that a trial is to be trained on; None while none has room.

        Args:
            trial: its number, until `release`.
            memory_bytes: that it takes.

        Raises:
            ConfigError: no device could ever take it, or the trial is placed already.
        """
        if trial in self._placed:
            raise ConfigError(f"trial must be placed once, got {trial} again")
        if memory_bytes > self._memory.max():
            raise ConfigError(
                f"memory of trial {trial} must be at most the {self._memory.max()} bytes of the "
                f"largest device, got {memory_bytes}"
            )
        fits = np.flatnonzero(self._taken + memory_bytes <= self._memory)
        if not len(fits):
            return None
        at = int(fits[(self._taken[fits] / self._memory[fits]).argmin()])
        self._taken[at] += memory_bytes
        self._placed[trial] = at, memory_bytes
        return self.devices[at].name

    def release(self, trial: int) -> None:
        """Give back what a placed trial took."""
        at, memory_bytes = self._placed.pop(trial)
        self._taken[at] -= memory_bytes


@dataclass(frozen=True, slots=True)
class Placement:
    """Places jobs by what their candidates take.

    Args:
        packing: of the devices.
        memory_bytes: that the evaluation of a candidate takes, such as `training_bytes`.
    """

    packing: Packing
    memory_bytes: Callable[[Candidate], int]

    def place(self, job: Job) -> str | None:
        """See `Packing.place`."""
        return self.packing.place(job.index, self.memory_bytes(job.candidate))


def training_bytes(space: Space, candidate: Candidate, recipe: Recipe) -> int:
    """Memory that training a candidate takes, beside its data, estimated from above.

    Weights with gradients, the optimizer's values and quantized copies; maps of a batch that
    gradients need: one for each of a layer's product, its batch norm and its activation.

    Args:
        space, candidate: what is trained.
        recipe: its batch size and optimizer.
    """
    n_weights, n_values = 0, 0
    pixels = int(np.prod(space.image_shape[:2]))
    per_image = recipe.patch**2 / pixels if _makes_images(space) else 1.0
    for found in concrete_layers(space, candidate):
        layer = found.layer
        n_maps = 1 + (layer.norm and layer.kind in NORMED)
        n_maps += layer.activation != "none" and layer.kind in ACTIVATED
        n_weights += found.n_weights
        n_values += n_maps * found.ofm_depth * found.ofm_height * found.ofm_width
    copies = 2 + OPTIMIZER_STATES[recipe.optimizer] + WEIGHT_COPIES + (recipe.ema > 0)
    values = copies * n_weights + MAPS_MARGIN * recipe.batch_size * per_image * n_values
    return ALWAYS_BYTES + int(FLOAT_BYTES * values)


def _makes_images(space: Space) -> bool:
    return space.layers[-1].kind is not LayerKind.DENSE
