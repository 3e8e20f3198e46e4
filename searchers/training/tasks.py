# SPDX-License-Identifier: Apache-2.0
"""What networks are trained for: batches, losses and scores of classification and of images."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from npusim.errors import ConfigError
from searchers.data import DataSet, Pairs, Split, SuperResolutionData, TrainingData, load
from searchers.data.image_files import N_TRIES, N_UNIFORMS, ImageFiles
from searchers.data.quality import psnr, ssim
from searchers.training.group import Group
from searchers.training.recipes import Recipe
from spaces.base import LayerKind, Space

PEAK = 255.0
CALIBRATION_BATCH = 256
N_AHEAD = 2
"""Batches of image files that are read ahead."""
SCORED_PIXELS = 512 * 64 * 64
"""Most that are scored at once: what maps take grows with them."""


class Task(Protocol):
    """Samples that networks are trained on, by number, and the loss.

    Attributes:
        n_samples: how many there are.
        n_ahead: batches to make while others are trained on; for batches that take long.
    """

    n_samples: int
    n_ahead: int

    def batch(
        self, rows: Tensor, generator: torch.Generator, group: Group
    ) -> tuple[Tensor, Tensor]:
        """Inputs and targets of this process's part of a batch.

        Args:
            rows: samples of the whole batch, i64 [N].
            generator: draws what is augmented how, for the whole batch alike in all processes.
            group: says which part.
        """
        ...

    def loss(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Mean over a batch, []."""
        ...

    def inputs(self, n: int) -> Iterator[Tensor]:
        """Batches of training inputs as they are, without augmentation, of `n` samples at most."""
        ...


class Classification:
    """Images with classes, cross entropy.

    Args:
        split: training data.
        recipe: batch size, augmentation and label smoothing.
        device: where batches are made.

    Raises:
        ConfigError: the recipe has random resized crops, and images are not in files.
    """

    def __init__(self, split: Split, recipe: Recipe, device: torch.device):
        self.n_samples = len(split.labels)
        self._recipe, self._device = recipe, device
        self._images: Tensor | ImageFiles  # [N, H, W, C]
        if isinstance(split.images, ImageFiles):
            self._images, self.n_ahead = split.images, N_AHEAD
        else:
            self._images, self.n_ahead = torch.from_numpy(split.images).to(device), 0
            if recipe.crop_area != 1:
                raise ConfigError(
                    f"crop_area must be 1 for images that are not files, got {recipe.crop_area}"
                )
        self._labels = torch.from_numpy(split.labels).to(device)
        self._mean = torch.tensor(split.mean, device=device)
        self._std = torch.tensor(split.std, device=device)

    def batch(
        self, rows: Tensor, generator: torch.Generator, group: Group
    ) -> tuple[Tensor, Tensor]:
        """Inputs f32 [N, C, H, W] and classes i64 [N]."""
        crop = self._recipe.crop
        shift = torch.randint(0, 2 * crop + 1, (2, len(rows)), generator=generator)
        mirrored = torch.rand(len(rows), generator=generator) < 0.5
        mirrored &= self._recipe.flip
        drawn = None
        if self._recipe.crop_area != 1:
            drawn = group.part(torch.rand(len(rows), N_TRIES, N_UNIFORMS, generator=generator))
        rows, mirrored = group.part(rows).to(self._device), group.part(mirrored).to(self._device)
        images = self._pixels(rows, drawn)
        if crop or self._recipe.flip:
            y, x = (group.part(each).to(self._device) for each in shift)
            images = _cropped(images, y, x, mirrored, crop)
        return self._scaled(images), self._labels[rows]

    def loss(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Mean cross entropy in nats."""
        return functional.cross_entropy(
            outputs, targets, label_smoothing=self._recipe.label_smoothing
        )

    def inputs(self, n: int) -> Iterator[Tensor]:
        """Images in an order of their own, always the same: where they lie by class."""
        order = torch.randperm(self.n_samples, generator=torch.Generator().manual_seed(0))
        for rows in order[:n].split(CALIBRATION_BATCH):
            yield self._scaled(self._pixels(rows.to(self._device)))

    def _pixels(self, rows: Tensor, drawn: Tensor | None = None) -> Tensor:
        """Images u8 [N, H, W, C], whole ones or, in files, the crops that `drawn` decides."""
        if isinstance(self._images, Tensor):
            return self._images[rows]
        files = self._images[rows.cpu().numpy()]
        if drawn is None:
            found = np.asarray(files)
        else:
            found = files.crops(drawn.numpy(), self._recipe.crop_area)
        return torch.from_numpy(found).to(self._device)

    def _scaled(self, images: Tensor) -> Tensor:
        inputs = (images.float() - self._mean) / self._std
        inputs = inputs.permute(0, 3, 1, 2)  # [N, H, W, C] -> [N, C, H, W], channels last in memory
        return inputs if self._recipe.channels_last else inputs.contiguous()


def _cropped(images: Tensor, y: Tensor, x: Tensor, mirrored: Tensor, crop: int) -> Tensor:
    """Images [N, H, W, C], padded by `crop` black pixels, from pixel (y, x) on; or mirrored."""
    n, height, width, _ = images.shape
    padded = functional.pad(images, (0, 0, crop, crop, crop, crop))
    rows = y[:, None] + torch.arange(height, device=y.device)  # [N, H]
    columns = x[:, None] + torch.arange(width, device=x.device)  # [N, W]
    columns = torch.where(mirrored[:, None], columns.flip(1), columns)
    each = torch.arange(n, device=y.device)[:, None, None]
    return padded[each, rows[:, :, None], columns[:, None, :]]


@torch.no_grad()
def classification_score(net: nn.Module, split: Split, batch_size: int = 512) -> dict[str, float]:
    """``accuracy`` in 0..1 and ``loss``, mean cross entropy in nats, of a network in evaluation."""
    net.eval()
    device = next(net.parameters()).device
    batch_size = max(1, min(batch_size, SCORED_PIXELS // math.prod(split.images.shape[1:3])))
    n_right, total = 0, 0.0
    for start in range(0, len(split.labels), batch_size):
        part = split[slice(start, start + batch_size)]
        images = torch.from_numpy(part.inputs()).to(device).permute(0, 3, 1, 2)
        labels = torch.from_numpy(part.labels).to(device)
        logits = net(images)
        n_right += int((logits.argmax(1) == labels).sum())
        total += functional.cross_entropy(logits, labels, reduction="sum").item()
    return {"accuracy": n_right / len(split.labels), "loss": total / len(split.labels)}


class SuperResolution:
    """Luminance in low and high resolution, mean absolute error of patches.

    Args:
        pairs: training data.
        scale: high resolution to low.
        recipe: batch size, patches and augmentation.
        device: where batches go.
    """

    n_ahead = 0

    def __init__(self, pairs: Pairs, scale: int, recipe: Recipe, device: torch.device):
        self.n_samples = len(pairs) * recipe.patches
        self._pairs, self._scale, self._recipe, self._device = pairs, scale, recipe, device

    def batch(
        self, rows: Tensor, generator: torch.Generator, group: Group
    ) -> tuple[Tensor, Tensor]:
        """Patches in low and high resolution, f32 [N, 1, H, W], black 0 and white 1."""
        drawn = group.part(torch.rand(len(rows), 2, generator=generator)).numpy()
        ways = group.part(torch.randint(0, 8, (len(rows),), generator=generator)).numpy()
        if not self._recipe.flip:
            ways = np.zeros_like(ways)
        numbers = group.part(rows).numpy() % len(self._pairs)
        patches = [
            self._patch(int(number), at, int(way))
            for number, at, way in zip(numbers, drawn, ways, strict=True)
        ]
        low, high = (
            np.stack(each)[:, None] / np.float32(PEAK) for each in zip(*patches, strict=True)
        )
        return torch.from_numpy(low).to(self._device), torch.from_numpy(high).to(self._device)

    def _patch(self, number: int, at: np.ndarray, way: int) -> tuple[np.ndarray, np.ndarray]:
        """A patch in both resolutions, mirrored and turned in one of 8 ways."""
        low, high = self._pairs.low[number], self._pairs.high[number]
        side, scale = min(self._recipe.patch, *low.shape), self._scale
        y, x = (int(at[i] * (low.shape[i] - side + 1)) for i in range(2))
        low = low[y : y + side, x : x + side]
        y, x, side = y * scale, x * scale, side * scale
        high = high[y : y + side, x : x + side]
        if way >= 4:
            low, high = low[:, ::-1], high[:, ::-1]
        return np.rot90(low, way % 4), np.rot90(high, way % 4)

    def loss(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Mean absolute error, of white."""
        return functional.l1_loss(outputs, targets)

    def inputs(self, n: int) -> Iterator[Tensor]:
        """Whole images in low resolution, `n` at most."""
        for low in self._pairs.low[:n]:
            yield torch.from_numpy(low / np.float32(PEAK))[None, None].to(self._device)


@torch.no_grad()
def super_resolution_score(net: nn.Module, pairs: Pairs, scale: int) -> dict[str, float]:
    """Mean ``psnr`` in dB and ``ssim`` of luminance, `scale` pixels of the borders left out."""
    net.eval()
    device = next(net.parameters()).device
    ratios, likenesses = [], []
    for low, high in zip(pairs.low, pairs.high, strict=True):
        output = net(torch.from_numpy(low / np.float32(PEAK))[None, None].to(device))[0, 0]
        image = np.clip(output.double().cpu().numpy() * PEAK, 0, PEAK)
        ratios.append(psnr(image, high, scale))
        likenesses.append(ssim(image, high, scale))
    return {"psnr": float(np.mean(ratios)), "ssim": float(np.mean(likenesses))}


# -- which of them a space's networks are for


def scale_of(space: Space) -> int:
    """How many times larger than the image the output of the space's networks is."""
    height: int = int(space.maps[space.layers[-1].name][0, 0])
    return height // space.image_shape[0]


def load_for(
    space: Space, data_set: str | None = None, directory: Path | None = None
) -> DataSet | SuperResolutionData:
    """The data set that networks of a space are trained on.

    Args:
        space: of the networks.
        data_set: name; None for the space's own.
        directory: of data sets; None for NPUSIM_DATA.

    Raises:
        ConfigError: it has images where classes are needed, or the reverse, or images of another
            size, or more classes than the networks; see also `searchers.data.load`.
        UnknownNameError: no such data set.
    """
    data_set = data_set or space.data_set
    data = load(data_set, directory)
    pictures = space.layers[-1].kind is not LayerKind.DENSE
    if pictures != isinstance(data, SuperResolutionData):
        raise ConfigError(
            f"data set of space {space.name!r} must be of "
            f"{'images' if pictures else 'images with classes'}, got {data_set!r}"
        )
    if isinstance(data, DataSet):
        parts = (data.train, data.validation, data.test)
        return DataSet(*(_for_space(part, space, data_set) for part in parts))
    return data


def _for_space(split: Split, space: Space, data_set: str) -> Split:
    """With images of the space's size: files are read at any, arrays have one."""
    wanted, images = space.image_shape, split.images
    if isinstance(images, ImageFiles) and wanted == (wanted[0], wanted[0], 3):
        images = images.of_side(wanted[0])
    if images.shape[1:] != wanted:
        raise ConfigError(
            f"images of data set {data_set!r} must be {'x'.join(map(str, wanted))} as in space "
            f"{space.name!r}, got {'x'.join(map(str, images.shape[1:]))}"
        )
    n_classes = space.depths[space.layers[-1].name].full
    found = int(split.labels.max()) + 1
    if found > n_classes:
        raise ConfigError(
            f"data set {data_set!r} must have at most the {n_classes} classes of space "
            f"{space.name!r}, got {found}"
        )
    return dataclasses.replace(split, images=images)


def task_on(data: TrainingData, space: Space, recipe: Recipe, device: torch.device) -> Task:
    """What a space's networks are trained for on that data."""
    if isinstance(data, Split):
        return Classification(data, recipe, device)
    return SuperResolution(data, scale_of(space), recipe, device)


def score_on(net: nn.Module, space: Space, data: TrainingData) -> dict[str, float]:
    """What a network of a space reaches on data; the first figure is what a search maximises."""
    if isinstance(data, Split):
        return classification_score(net, data)
    return super_resolution_score(net, data, scale_of(space))
