# SPDX-License-Identifier: Apache-2.0
"""The training loop: one step after the other, the same again wherever it goes on."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from npusim.errors import ConfigError
from searchers.training.ahead import Ahead
from searchers.training.group import Group
from searchers.training.plan import Plan, seed_of
from searchers.training.recipes import Recipe
from searchers.training.tasks import Task
from spaces.nets.activations import Mode
from spaces.nets.candidate_net import CandidateNet, observe_activations, recalibrate

ORDER, DRAWS = 0, 1
"""Streams of `seed_of`: the order of an epoch's samples; what a step draws."""
N_CALIBRATION = 12_800
"""Samples that batch norm is recalibrated with at the end: 100 batches of 128."""
N_OBSERVED = 1024
"""Samples that int8 grids are first set by."""


@dataclass
class Progress:
    """How far a training is: what has to be known to go on with it, but for the tensors.

    Attributes:
        step: steps done.
        loss: sum of the losses of the epoch's steps so far.
        epochs: a row for each epoch done: what is logged.
        wall_s, cpu_s: seconds spent, interruptions left out.
    """

    step: int = 0
    loss: float = 0.0
    epochs: list[dict[str, float]] = field(default_factory=list)
    wall_s: float = 0.0
    cpu_s: float = 0.0


class Training:
    """A network in training by a recipe.

    Args:
        net: is trained in place.
        task: what for.
        recipe: the settings.
        seed: decides order, augmentation and stochastic quantization.
        quantized: train in the three stages; else dense weights in floating point.
        group: the processes.

    Raises:
        ConfigError: there is less than one batch of samples, or batches do not split evenly.
    """

    def __init__(
        self,
        net: CandidateNet,
        task: Task,
        recipe: Recipe,
        seed: int,
        quantized: bool = True,
        group: Group | None = None,
    ):
        self.net, self.task, self.recipe, self.seed = net, task, recipe, seed
        self.quantized = quantized
        self.group = Group() if group is None else group
        self.group.require_parts(recipe.batch_size)
        self.batches = task.n_samples // recipe.batch_size
        if not self.batches:
            raise ConfigError(
                f"batch_size must be at most the {task.n_samples} samples, got {recipe.batch_size}"
            )
        self.plan = Plan(recipe, recipe.epochs * self.batches)
        self.progress = Progress()
        self.device = next(net.parameters()).device
        self._epoch_order: tuple[int, Tensor] = (-1, torch.empty(0))
        self._weights = list(net.weights().values())
        noise = torch.Generator(self.device)
        for weight in self._weights:
            weight.generator, weight.regrows = noise, recipe.regrow
            weight.quantizes = weight.quantizes and quantized
        if recipe.learn_activation_ranges and recipe.int8_activations and quantized:
            for quantizer in net.quantizers().values():
                quantizer.learn()
        self._noise = noise
        if recipe.channels_last:
            net.to(memory_format=torch.channels_last)
        self.optimizer = _optimizer(net, recipe)
        self._parameters = list(net.parameters())
        self._average = [p.detach().clone() for p in self._parameters] if recipe.ema else []

    def run(
        self,
        on_step: Callable[[Progress], None] = lambda progress: None,
        on_epoch: Callable[[Progress], None] = lambda progress: None,
    ) -> None:
        """All steps that are left, then `_finish`: the network is as deployed, in evaluation.

        Args:
            on_step, on_epoch: called after each; may save `state`.
        """
        progress = self.progress
        wall, cpu = time.perf_counter(), time.process_time()
        with Ahead(self._batch, self.plan.n_steps, self.task.n_ahead) as batches:
            while progress.step < self.plan.n_steps:
                epoch, batch = divmod(progress.step, self.batches)
                progress.loss += self._step(*batches[progress.step])
                progress.step += 1
                now = time.perf_counter(), time.process_time()
                progress.wall_s += now[0] - wall
                progress.cpu_s += now[1] - cpu
                wall, cpu = now
                if batch + 1 == self.batches:
                    self._end_epoch(epoch)
                    on_epoch(progress)
                on_step(progress)
        self._finish()

    def _batch(self, step: int) -> tuple[Tensor, Tensor]:
        """Inputs and targets of a step."""
        epoch, batch = divmod(step, self.batches)
        if self._epoch_order[0] != epoch:
            self._epoch_order = epoch, self._order(epoch)
        size = self.recipe.batch_size
        rows = self._epoch_order[1][batch * size : (batch + 1) * size]
        draws = torch.Generator().manual_seed(seed_of(self.seed, DRAWS, step))
        return self.task.batch(rows, draws, self.group)

    def _step(self, inputs: Tensor, targets: Tensor) -> float:
        """One step of the optimizer; returns the loss."""
        step, recipe = self.progress.step, self.recipe
        self._noise.manual_seed(seed_of(self.seed, DRAWS, step))
        self._prepare(step)
        with torch.autocast(self.device.type, torch.bfloat16, enabled=recipe.bfloat16):
            outputs = self.net(inputs)
        loss = self.task.loss(outputs.float(), targets)
        self.optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        self.group.average(p.grad for p in self._parameters if p.grad is not None)
        if recipe.clip_norm:
            nn.utils.clip_grad_norm_(self._parameters, recipe.clip_norm)
        self.optimizer.step()
        self._follow(step)
        return loss.item()

    @torch.no_grad()
    def _follow(self, step: int) -> None:
        """Move the averaged weights towards those of this step, in the first steps by more."""
        keep = min(self.recipe.ema, (1 + step) / (10 + step))
        for average, parameter in zip(self._average, self._parameters, strict=bool(self._average)):
            average.lerp_(parameter, 1 - keep)

    def _prepare(self, step: int) -> None:
        """What the plan has for this step: learning rate, masks, quantization."""
        for settings in self.optimizer.param_groups:
            settings["lr"] = self.plan.learning_rate(step) * settings["scale"]
        if not self.net.training:
            self.net.train()
        if not self.quantized:
            return
        fraction = self.plan.quantized_fraction(step)
        if fraction != self._weights[0].quantized_fraction:
            for weight in self._weights:
                weight.quantized_fraction = fraction
        if step >= self.plan.pruning_from and step % self.recipe.mask_interval == 0:
            self.net.prune(self.plan.pruning(step))
        if self.recipe.fit_ranges and step == self.plan.pruned_from:
            self._fit_ranges()
        if self.recipe.int8_activations and step >= self.plan.pruned_from:
            self._quantize_activations()

    def _fit_ranges(self) -> None:
        """Set the ranges by the weights that are left, as they are now."""
        self.net.prune(1.0)
        for weight in self._weights:
            weight.fit_range()

    def _quantize_activations(self) -> None:
        if self.net.input_quantizer.mode is Mode.ON:
            return
        if not self.net.input_quantizer.calibrated:
            observe_activations(self.net, self.task.inputs(N_OBSERVED))
        self.net.quantize_activations()
        self.net.train()

    def _end_epoch(self, epoch: int) -> None:
        progress = self.progress
        loss = torch.tensor([progress.loss / self.batches])
        self.group.average([loss, *self._statistics()])
        kept = sum(float(weight.mask.sum()) for weight in self._weights)
        row = {
            "epoch": epoch + 1,
            "stage": self.plan.stage(progress.step - 1) if self.quantized else 0,
            "loss": loss.item(),
            "learning_rate": self.plan.learning_rate(progress.step - 1),
            "kept_fraction": kept / sum(weight.mask.numel() for weight in self._weights),
            "wall_s": progress.wall_s,
            "cpu_s": progress.cpu_s,
        }
        progress.epochs.append(row)
        progress.loss = 0.0

    def _statistics(self) -> list[Tensor]:
        """Buffers that each process measures for itself: batch norm's, and ranges."""
        names = ("running_mean", "running_var", "low", "high")
        buffers = self.net.named_buffers()
        return [buffer for name, buffer in buffers if name.rpartition(".")[2] in names]

    @torch.no_grad()
    def _finish(self) -> None:
        """Take the averaged weights, close the masks, measure batch norm's statistics."""
        for average, parameter in zip(self._average, self._parameters, strict=bool(self._average)):
            parameter.copy_(average)
        if self.quantized:
            self.net.prune(1.0)
        if any(isinstance(each, nn.BatchNorm2d) for each in self.net.modules()):
            recalibrate(self.net, self.task.inputs(N_CALIBRATION))
        self.net.eval()

    def _order(self, epoch: int) -> Tensor:
        generator = torch.Generator().manual_seed(seed_of(self.seed, ORDER, epoch))
        return torch.randperm(self.task.n_samples, generator=generator)

    def state(self) -> dict[str, Any]:
        """All that a training with the same arguments needs to go on, bit for bit."""
        return {
            "net": self.net.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "average": self._average,
            "progress": {name: getattr(self.progress, name) for name in Progress.__annotations__},
        }

    def load(self, state: dict[str, Any]) -> None:
        """Go on where `state` was taken."""
        self.net.load_state_dict(state["net"])
        self.optimizer.load_state_dict(state["optimizer"])
        for average, stored in zip(self._average, state["average"], strict=True):
            average.copy_(stored)
        self.progress = Progress(**state["progress"])


def _optimizer(net: CandidateNet, recipe: Recipe) -> torch.optim.Optimizer:
    """Weights decay; scales, shifts, biases do not; ranges have a learning rate of their own."""
    kinds = {"theta": "weight", "log_range": "range", "low": "range", "high": "range"}
    settings = {
        "weight": (1.0, recipe.weight_decay),
        "range": (recipe.range_learning_rate, 0.0),
        "other": (1.0, 0.0),
    }
    alike: dict[tuple[float, float], list[nn.Parameter]] = {}  # fewer groups take less time
    for name, parameter in net.named_parameters():
        kind = kinds.get(name.rpartition(".")[2], "other")
        alike.setdefault(settings[kind], []).append(parameter)
    groups = [
        {"params": parameters, "scale": scale, "weight_decay": decay}
        for (scale, decay), parameters in alike.items()
    ]
    if recipe.optimizer == "sgd":
        return torch.optim.SGD(groups, recipe.learning_rate, momentum=0.9, nesterov=True)
    return torch.optim.AdamW(groups, recipe.learning_rate, fused=True)
