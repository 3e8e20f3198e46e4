# SPDX-License-Identifier: Apache-2.0
"""The images of each Monte-Carlo sample, and what a network loses on them."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from npusim.errors import ConfigError
from searchers.data import Split

_ORDER_STREAM = 11


class Batches:
    """Training data in batches, numbered on through the epochs, each epoch in an order of its own.

    Args:
        data: what to train on; labels are classes (integers), or images of the output's shape.
        batch_size: the rest of an epoch that fills no batch is left out.
        seed: decides all orders, together with the number of the epoch.
        device: where they go.

    Raises:
        ConfigError: there are fewer images than a batch has.
    """

    def __init__(self, data: Split, batch_size: int, seed: int, device: torch.device | str = "cpu"):
        if len(data.images) < batch_size:
            raise ConfigError(
                f"batch_size must be at most the {len(data.images)} images there are, "
                f"got {batch_size}"
            )
        images = torch.from_numpy(data.images).permute(0, 3, 1, 2).contiguous()  # to [N, C, H, W]
        self._images = images.to(device)
        labels = torch.from_numpy(data.labels)
        if self.of_classes(labels):
            self._labels = labels.to(device)
        else:
            self._labels = labels.permute(0, 3, 1, 2).contiguous().to(device)
        self.batch_size, self._seed = batch_size, seed
        self.n_batches = len(data.images) // batch_size
        self._epoch, self._order = -1, np.zeros(0, np.int64)

    @staticmethod
    def of_classes(labels: Tensor) -> bool:
        """Whether labels are classes, not images."""
        return not labels.is_floating_point()

    def __getitem__(self, number: int) -> tuple[Tensor, Tensor]:
        """Images [N, C, H, W] and labels of a batch."""
        epoch, at = divmod(number, self.n_batches)
        if epoch != self._epoch:
            rng = np.random.default_rng((self._seed, _ORDER_STREAM, epoch))
            self._epoch, self._order = epoch, rng.permutation(len(self._images))
        rows = self._order[at * self.batch_size : (at + 1) * self.batch_size]
        chosen = torch.from_numpy(rows).to(self._images.device)
        return self._images[chosen], self._labels[chosen]

    def many(self, numbers: range) -> tuple[Tensor, Tensor]:
        """Several batches, images [S, N, C, H, W] and labels [S, N, ...]."""
        images, labels = zip(*(self[number] for number in numbers), strict=True)
        return torch.stack(images), torch.stack(labels)


def task_loss(outputs: Tensor, labels: Tensor) -> Tensor:
    """Cross entropy in nats for classes, mean absolute error for images.

    Args:
        outputs: [S, N, classes] or [S, N, C, H, W].
        labels: i64 [S, N], or f32 of the outputs' shape.
    """
    if Batches.of_classes(labels):
        return functional.cross_entropy(outputs.flatten(0, 1).float(), labels.flatten())
    return functional.l1_loss(outputs.float(), labels)
