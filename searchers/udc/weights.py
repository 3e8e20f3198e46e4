# SPDX-License-Identifier: Apache-2.0
"""The training of a supernet's weights on samples, which all searches on shared weights have."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from searchers.training.tasks import Task
from searchers.udc.batches import Batches
from searchers.udc.config import WeightsConfig
from searchers.udc.processes import GradientSum, Processes
from searchers.udc.supernet import Supernet
from spaces.base import Space


class SharedWeights:
    """A supernet on its way through its training.

    A step takes some samples, each with training images of its own: `gradients`, then `update`.

    Args:
        space: whose candidates share the weights.
        task: what is trained on, and for.
        config: how.
        seed: decides the initial weights and the order of the images.
        device: where to train; the task's batches are there.
        images_most: that may be trained on; None for all epochs.

    Attributes:
        t: steps done, of `n_steps`.

    Raises:
        ConfigError: the space cannot be one network, or there are too few images.
    """

    def __init__(
        self,
        space: Space,
        task: Task,
        config: WeightsConfig,
        seed: int,
        device: torch.device,
        images_most: int | None = None,
    ):
        self.config, self.device = config, device
        self.processes = Processes.started(device)
        self.batches = Batches(task, config.batch_size, seed)
        self.net = Supernet(
            space,
            torch.Generator().manual_seed(seed),
            offset=config.offset,
            rematerialize=config.rematerialize,
        ).to(device)
        self._sum = GradientSum(self.net.parameters())
        self._optimizer = _optimizer(self.net, config)
        self.n_steps = max(1, config.epochs * self.batches.n_batches // config.n_mc)
        if images_most is not None:
            self.n_steps = max(1, min(self.n_steps, images_most // self._images_a_step))
        self.t = 0

    @property
    def progress(self) -> float:
        """Part of the steps that is done, 0..1."""
        return self.t / self.n_steps

    @property
    def n_images(self) -> int:
        """Images trained on so far, by all processes."""
        return self.t * self._images_a_step

    @property
    def _images_a_step(self) -> int:
        return self.config.n_mc * self.config.batch_size

    @property
    def masks_are_due(self) -> bool:
        """Whether `Supernet.refresh_masks` is to be called in this step."""
        return self.t % self.config.mask_interval == 0

    def gradients(self, z: Tensor) -> tuple[float, Tensor]:
        """Task loss of samples [S, D, K], its gradient to z; that to the weights is kept.

        A few samples at a time, so that memory does not grow with their number.
        """
        config, own = self.config, self.own_parts()
        seen = z.clone().requires_grad_()
        total = torch.zeros((), dtype=torch.float64, device=self.device)
        self._sum.clear()
        for part in own:
            numbers = range(self.t * config.n_mc + part.start, self.t * config.n_mc + part.stop)
            images, labels = self.batches.many(numbers)
            with self.autocast():
                outputs = self.net(images, seen[part])
            loss = self.batches.loss(outputs, labels) * (config.n_together / config.n_mc)
            loss.backward()  # type: ignore[no-untyped-call]
            total += loss.detach()
            self._sum.take()
        self._sum.give(self.processes)
        assert seen.grad is not None
        self.processes.sum(seen.grad)
        self.processes.sum(total)
        return total.item(), seen.grad

    def own_parts(self) -> list[slice]:
        """Samples of this process that go through the network together, all such."""
        together = self.config.n_together
        own = self.processes.own(self.config.n_mc, together)
        return [slice(start, start + together) for start in range(own.start, own.stop, together)]

    def autocast(self) -> torch.autocast:
        """The precision that the network runs in."""
        half = self.config.precision == "bfloat16"
        return torch.autocast(self.device.type, torch.bfloat16, enabled=half)

    def update(self) -> None:
        """One step of theta, the ranges and all else, by the gradients kept; ends the step."""
        falling = 0.5 * (1 + math.cos(math.pi * self.progress))
        for group in self._optimizer.param_groups:
            group["lr"] = group["rate"] * falling
        self._optimizer.step()
        self.t += 1

    def state_dict(self) -> dict[str, Any]:
        """All that the training needs to go on bit for bit."""
        return {
            "t": self.t,
            "net": self.net.state_dict(),
            "weights_optimizer": self._optimizer.state_dict(),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from what `state_dict` gave."""
        self.t = state["t"]
        self.net.load_state_dict(state["net"])
        self._optimizer.load_state_dict(state["weights_optimizer"])


def _optimizer(net: Supernet, config: WeightsConfig) -> torch.optim.Optimizer:
    others = [p for p in net.parameters() if p is not net.theta and p is not net.log_r]
    groups = [
        {"params": [net.theta], "rate": config.learning_rate, "weight_decay": config.weight_decay},
        {"params": [net.log_r], "rate": config.range_rate * config.learning_rate},
        {"params": others, "rate": config.learning_rate},
    ]
    if config.optimizer == "sgd":
        return torch.optim.SGD(groups, config.learning_rate, momentum=0.9, nesterov=True)
    for group in groups:
        group.setdefault("weight_decay", 0.0)
    return torch.optim.AdamW(groups, config.learning_rate, fused=True)
