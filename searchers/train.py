# SPDX-License-Identifier: Apache-2.0
"""Train candidates for real: quantized, gradually pruned, on one CPU thread, repeatably."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from searchers.base import Evaluation
from searchers.data import Split, load
from searchers.evaluators import TrainConfig
from spaces.base import Candidate, Space
from spaces.nets import CandidateNet, build


class TrainEvaluator:
    """Scores a candidate of a space by training it: accuracy on the validation data.

    Raises:
        UnknownNameError: the space's data set is not known.
        MissingExtraError: it needs a package that is not installed.
    """

    def __init__(self, space: Space, config: TrainConfig):
        self._space, self._config = space, config
        self._data = load(space.data_set)

    def identity(self) -> Mapping[str, Any]:
        """The data set and all settings of the training."""
        return {"evaluator": "train", "data_set": self._space.data_set, **asdict(self._config)}

    def search_data(self) -> tuple[Split, Split]:
        """The training and the validation data."""
        return self._data.train, self._data.validation

    def evaluate(self, candidate: Candidate, seed: int) -> Evaluation:
        """Train on the training data for `epochs`, score on the validation data."""
        return self._fit_and_score(
            candidate, seed, self._data.train, self._data.validation, self._config.epochs
        )

    def test(self, candidate: Candidate, seed: int) -> Evaluation:
        """Train on training and validation data for `final_epochs`, score on the test data.

        For the result of a search only: nothing may be chosen by what comes out.
        """
        both = self._data.train + self._data.validation
        return self._fit_and_score(
            candidate, seed, both, self._data.test, self._config.final_epochs
        )

    def _fit_and_score(
        self, candidate: Candidate, seed: int, fit: Split, held_out: Split, epochs: int
    ) -> Evaluation:
        with one_thread():
            generator = torch.Generator().manual_seed(seed)
            net = build(self._space, candidate, generator)
            n_images = train(net, fit, epochs, self._config, generator)
            accuracy, loss = score(net, held_out)
        return Evaluation(accuracy, {"accuracy": accuracy, "loss": loss}, n_images)


def train(
    net: CandidateNet, fit: Split, epochs: int, config: TrainConfig, generator: torch.Generator
) -> int:
    """Train `net` in place: cosine schedule, masks closing along a cubic; returns images seen."""
    images, labels = _tensors(fit)
    batches = max(len(labels) // config.batch_size, 1)
    n_steps = epochs * batches
    optimizer = torch.optim.AdamW(
        net.parameters(), lr=config.learning_rate, weight_decay=config.weight_decay, fused=True
    )
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda step: 0.5 * (1 + math.cos(math.pi * step / n_steps))
    )
    net.train()
    for step in range(n_steps):
        if step % batches == 0:
            order = torch.randperm(len(labels), generator=generator)
        if step % config.mask_interval == 0:
            net.prune(min(1.0, step / (config.prune_until * n_steps)))
        at = step % batches * config.batch_size
        batch = order[at : at + config.batch_size]
        optimizer.zero_grad()
        loss = functional.cross_entropy(net(images[batch]), labels[batch])
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        schedule.step()
    net.prune(1.0)
    return n_steps * min(config.batch_size, len(labels))


@torch.no_grad()
def score(net: CandidateNet, held_out: Split) -> tuple[float, float]:
    """Accuracy in 0..1 and mean cross entropy in nats of `net` on held-out data."""
    images, labels = _tensors(held_out)
    net.eval()
    logits = net(images)
    accuracy = (logits.argmax(1) == labels).double().mean().item()
    return accuracy, functional.cross_entropy(logits, labels).item()


@contextmanager
def one_thread() -> Iterator[None]:
    """Torch on one thread inside: small nets are faster, and sums always have the same order."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _tensors(split: Split) -> tuple[Tensor, Tensor]:
    images = torch.from_numpy(split.images).permute(0, 3, 1, 2)  # [N, H, W, C] -> [N, C, H, W]
    return images.contiguous(), torch.from_numpy(split.labels)
