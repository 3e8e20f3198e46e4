# SPDX-License-Identifier: Apache-2.0
"""Image folders: one folder for each class. ImageNet, and Tiny ImageNet."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from npusim.errors import ConfigError, FormatError, MissingExtraError
from searchers.data.image_files import ImageFiles
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


IMAGENET_SIDE = 224
DEVKIT = "ILSVRC2012_devkit_t12"
GET_IMAGENET = (
    "sign up at https://image-net.org, download ILSVRC2012_img_train.tar, ILSVRC2012_img_val.tar "
    f"and {DEVKIT}.tar.gz, and unpack them so that {{folder}} has train with a folder for each "
    f"class, val with the images, in folders of the classes or not, and, if not, {DEVKIT}"
)


def imagenet(directory: Path | None) -> DataSet:
    """ImageNet of the challenge of 2012, read image by image when asked for.

    One training image in 50 is to validate, ``val`` is to test. Classes are numbered in the order
    of their folders' names.

    Args:
        directory: has ``imagenet`` with ``train``, a folder for each class, and ``val``, in folders
            of the classes, or with all images side by side as given away; then the development kit
            has to be there, too, which says the classes.

    Raises:
        ConfigError: it has not.
        FormatError: a file of the development kit does not fit the images.
        MissingExtraError: what reads the development kit is not installed.
    """
    assert directory is not None
    folder = directory / "imagenet"
    how = GET_IMAGENET.format(folder=folder)
    train = _by_folder(require(folder / "train", "imagenet", how))
    test = _by_folder(require(folder / "val", "imagenet", how))
    if not test:
        test = _of_devkit(folder / "val", require(folder / DEVKIT, "imagenet", how) / "data")
    for part, found in (("train", train), ("val", test)):
        if not found:
            raise ConfigError(f"data set 'imagenet' must have images in {folder / part}, got none")
    classes = sorted({name for _, name in train})
    splits = [
        Split(
            ImageFiles([path for path, _ in found], IMAGENET_SIDE),
            _labels(found, classes),
            MEAN,
            STD,
        )
        for found in (train, test)
    ]
    return DataSet(*hold_out(splits[0], one_in=50), splits[1])


def _of_devkit(folder: Path, devkit: Path) -> list[tuple[Path, str]]:
    """Images side by side, with the class that the development kit has for each, in order."""
    try:
        from scipy.io import loadmat
    except ImportError as error:
        raise MissingExtraError("ImageNet's development kit", "search", error) from error
    paths = sorted(path for path in folder.iterdir() if path.suffix.lower() in SUFFIXES)
    truth = devkit / "ILSVRC2012_validation_ground_truth.txt"
    try:
        synsets = loadmat(str(devkit / "meta.mat"), squeeze_me=True)["synsets"]
        names = {int(each["ILSVRC2012_ID"]): str(each["WNID"]) for each in synsets}
        found = [names[int(line)] for line in truth.read_text().split()]
    except Exception as error:  # damaged files raise whatever their bytes happen to mean
        raise FormatError(
            f"{devkit} must have meta.mat and {truth.name}, got {type(error).__name__}: {error}"
        ) from None
    if len(found) != len(paths):
        raise FormatError(f"{truth} must be of the {len(paths)} images, got {len(found)} lines")
    return list(zip(paths, found, strict=True))


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
    images = np.empty((len(paths), side, side, 3), dtype=np.uint8)
    for i, (path, _) in enumerate(paths):
        image = read_image(path)
        if image.shape != (side, side, 3):
            raise FormatError(
                f"{path} must be {side}x{side}, got {image.shape[1]}x{image.shape[0]}"
            )
        images[i] = image
    return Split(images, _labels(paths, classes), MEAN, STD)


def _labels(paths: list[tuple[Path, str]], classes: list[str]) -> np.ndarray:
    """Numbers of the classes, i64 [N]."""
    number = {name: i for i, name in enumerate(classes)}
    for path, name in paths:
        if name not in number:
            raise FormatError(f"class of {path} must be one of the training data, got {name!r}")
    return np.array([number[name] for _, name in paths], dtype=np.int64)
