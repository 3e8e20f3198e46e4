# SPDX-License-Identifier: Apache-2.0
"""Images with classes, as they are stored and as networks see them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from npusim.errors import ConfigError, FormatError, MissingExtraError

if TYPE_CHECKING:
    from PIL.Image import Image

    from searchers.data.image_files import ImageFiles


@dataclass(frozen=True, slots=True)
class Split:
    """Images [N, H, W, C], their classes i64 [N], and the scale that networks see them in.

    Args:
        images: pixels, u8 or f32, or files that are read when they are asked for.
        labels: classes from 0.
        mean, std: by channel, or one for all: a network's input is ``(pixel - mean) / std``.
    """

    images: np.ndarray | ImageFiles
    labels: np.ndarray
    mean: tuple[float, ...] = (0.0,)
    std: tuple[float, ...] = (1.0,)

    def __add__(self, other: Split) -> Split:
        labels = np.concatenate((self.labels, other.labels))
        if isinstance(self.images, np.ndarray):
            images = np.concatenate((self.images, np.asarray(other.images)))
            return Split(images, labels, self.mean, self.std)
        assert not isinstance(other.images, np.ndarray)
        return Split(self.images + other.images, labels, self.mean, self.std)

    def __getitem__(self, rows: np.ndarray | slice) -> Split:
        return Split(self.images[rows], self.labels[rows], self.mean, self.std)

    def inputs(self) -> np.ndarray:
        """Images as networks see them, f32 [N, H, W, C]."""
        pixels = np.asarray(self.images).astype(np.float32)
        return (pixels - np.float32(self.mean)) / np.float32(self.std)


@dataclass(frozen=True, slots=True)
class DataSet:
    """Training data, validation data that a search may look at, and test data that it may not."""

    train: Split
    validation: Split
    test: Split


def hold_out(split: Split, one_in: int) -> tuple[Split, Split]:
    """Split off one image in `one_in` of each class, in an order shuffled with a fixed seed.

    Returns:
        What stays, and what is held out.
    """
    shuffled = np.random.default_rng(0).permutation(len(split.labels))
    by_class = shuffled[np.argsort(split.labels[shuffled], kind="stable")]
    held_out = np.arange(len(by_class)) % one_in == 0
    return split[np.sort(by_class[~held_out])], split[np.sort(by_class[held_out])]


def require(path: Path, data_set: str, how: str) -> Path:
    """`path` if it is there; else ConfigError that says what to get.

    Args:
        path: a file or folder of the data set.
        data_set: its name.
        how: what to download and where to put it.
    """
    if not path.exists():
        raise ConfigError(f"data set {data_set!r} must have {path}, got nothing there: {how}")
    return path


def read_image(path: Path) -> np.ndarray:
    """An image file as u8 [H, W, 3]; raises as `open_image`."""
    return np.asarray(open_image(path))


def open_image(path: Path) -> Image:
    """An image file, decoded, in red, green and blue.

    Raises:
        FormatError: it cannot be read.
        MissingExtraError: Pillow is not installed.
    """
    try:
        from PIL import Image
    except ImportError as error:
        raise MissingExtraError("image files", "search", error) from error
    try:
        with Image.open(path) as image:
            return image.convert("RGB")
    except (OSError, SyntaxError) as error:  # Pillow raises the latter for broken PNGs
        raise FormatError(f"{path} must be an image, got {error}") from None
