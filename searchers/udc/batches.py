# SPDX-License-Identifier: Apache-2.0
"""The training data of each Monte-Carlo sample."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from npusim.errors import ConfigError
from searchers.training.group import Group
from searchers.training.tasks import Task

_ORDER_STREAM, _AUGMENTATION_STREAM = 11, 13


class _Alone(Group):
    """One process: of several that share samples, each makes whole batches."""

    def __init__(self) -> None:
        self.rank, self.size = 0, 1


class Batches:
    """Training data in batches, numbered on through the epochs, each epoch in an order of its own.

    Args:
        task: what is trained on, and for.
        batch_size: the rest of an epoch that fills no batch is left out.
        seed: decides all orders, together with the number of the epoch, and all augmentation,
            together with the number of the batch.

    Raises:
        ConfigError: there are fewer images than a batch has.
    """

    def __init__(self, task: Task, batch_size: int, seed: int):
        if task.n_samples < batch_size:
            raise ConfigError(
                f"batch_size must be at most the {task.n_samples} images there are, "
                f"got {batch_size}"
            )
        self.task, self.batch_size, self._seed = task, batch_size, seed
        self.n_batches = task.n_samples // batch_size
        self._epoch, self._order = -1, np.zeros(0, np.int64)

    def __getitem__(self, number: int) -> tuple[Tensor, Tensor]:
        """Inputs [N, C, H, W] and targets of a batch."""
        epoch, at = divmod(number, self.n_batches)
        if epoch != self._epoch:
            rng = np.random.default_rng((self._seed, _ORDER_STREAM, epoch))
            self._epoch, self._order = epoch, rng.permutation(self.task.n_samples)
        rows = self._order[at * self.batch_size : (at + 1) * self.batch_size]
        drawn = np.random.SeedSequence((self._seed, _AUGMENTATION_STREAM, number))
        generator = torch.Generator().manual_seed(int(drawn.generate_state(1)[0]))
        return self.task.batch(torch.from_numpy(rows), generator, _Alone())

    def many(self, numbers: range) -> tuple[Tensor, Tensor]:
        """Several batches, inputs [S, N, C, H, W] and targets [S, N, ...]."""
        inputs, targets = zip(*(self[number] for number in numbers), strict=True)
        return torch.stack(inputs), torch.stack(targets)

    def loss(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """The task's, mean over samples [S, N, ...] and their images."""
        return self.task.loss(outputs.flatten(0, 1).float(), targets.flatten(0, 1))
