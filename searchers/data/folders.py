# SPDX-License-Identifier: Apache-2.0
"""Image folders: one folder for each class."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from npusim.errors import FormatError
from searchers.data.splits import DataSet, Split, hold_out, read_image, require

MEAN = (123.7, 116.3, 103.5)
STD = (58.4, 57.1, 57.4)
"""Of ImageNet's training pixels, by channel."""
SUFFIXES = {".png", ".jpg", ".jpeg"}


def tiny_imagenet(directory: Path | None) -> DataSet:
    """Tiny ImageNet, 64x64: one training image in five is to validate, ``val`` is to test.

    Args:
        directory: has ``tiny-imagenet`` (or ``tiny-imagenet-200``, as it is given away) with
            ``train`` and ``val``; in both a folder for each class. As given away, images are in
            ``images`` in it, and the classes of ``val`` in ``val_annotations.txt``.

    Raises:
        ConfigError: it has not.
        FormatError: an image cannot be read or is not 64x64, or classes differ.
    """
    assert directory is not None
    folder = directory / "tiny-imagenet"
    if not folder.exists():
        folder = require(
            directory / "tiny-imagenet-200",
            "tiny_imagenet",
            "download http://cs231n.stanford.edu/tiny-imagenet-200.zip "
            f"and unpack it in {directory}",
        )
    classes = sorted(path.name for path in (folder / "train").iterdir() if path.is_dir())
    train, validation = hold_out(_read(_by_folder(folder / "train"), classes, 64), one_in=5)
    annotations = folder / "val" / "val_annotations.txt"
    test = _annotated(annotations) if annotations.exists() else _by_folder(folder / "val")
    return DataSet(train, validation, _read(test, classes, 64))


def _by_folder(folder: Path) -> list[tuple[Path, str]]:
    """Images below the folders of classes, with the class, in a fixed order."""
    return [
        (path, each.name)
        for each in sorted(folder.iterdir())
        for path in sorted(each.rglob("*"))
        if path.suffix.lower() in SUFFIXES
    ]


def _annotated(annotations: Path) -> list[tuple[Path, str]]:
    lines = [line.split("\t") for line in annotations.read_text().splitlines()]
    return [(annotations.parent / "images" / line[0], line[1]) for line in lines]


def _read(paths: list[tuple[Path, str]], classes: list[str], side: int) -> Split:
    number = {name: i for i, name in enumerate(classes)}
    images = np.empty((len(paths), side, side, 3), dtype=np.uint8)
    labels = np.empty(len(paths), dtype=np.int64)
    for i, (path, name) in enumerate(paths):
        image = read_image(path)
        if image.shape != (side, side, 3):
            raise FormatError(
                f"{path} must be {side}x{side}, got {image.shape[1]}x{image.shape[0]}"
            )
        if name not in number:
            raise FormatError(f"class of {path} must be one of the training data, got {name!r}")
        images[i], labels[i] = image, number[name]
    return Split(images, labels, MEAN, STD)
