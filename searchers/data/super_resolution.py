# SPDX-License-Identifier: Apache-2.0
"""Images for super-resolution: luminance in high and low resolution."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np

from npusim.errors import ConfigError, UnknownNameError
from searchers.data.quality import psnr
from searchers.data.resize import bicubic, luminance
from searchers.data.splits import read_image, require

SCALES = (2, 3, 4)
TESTS = ("Set5", "Set14", "BSD100")


@dataclass(frozen=True, slots=True)
class Pairs:
    """Luminance of images in high resolution, and of the same made smaller by bicubic filtering.

    Args:
        high: f32 [scale * H, scale * W] each, 16..235 (0..255 is the range of 8 bits).
        low: f32 [H, W] each.
    """

    high: tuple[np.ndarray, ...]
    low: tuple[np.ndarray, ...]

    def __len__(self) -> int:
        return len(self.high)

    def __add__(self, other: Pairs) -> Pairs:
        return Pairs(self.high + other.high, self.low + other.low)


@dataclass(frozen=True, slots=True)
class SuperResolutionData:
    """Images to train and to validate with, and folders to test with; read when they are asked for.

    Args:
        train_files, validation_files: images in high resolution.
        tests: folders by name.
    """

    train_files: tuple[Path, ...]
    validation_files: tuple[Path, ...]
    tests: dict[str, tuple[Path, ...]]

    def pairs(self, part: str, scale: int) -> Pairs:
        """Images of ``"train"``, ``"validation"`` or a test folder, for that scale.

        Raises:
            ConfigError: no such scale.
            FormatError: an image cannot be read.
        """
        if scale not in SCALES:
            raise ConfigError(f"scale must be one of {SCALES}, got {scale}")
        return _pairs(self._files(part), scale)

    def bicubic_psnr(self, part: str, scale: int) -> float:
        """Mean PSNR in dB of bicubic interpolation, which networks must beat."""
        found = []
        for path in self._files(part):
            image = _cropped(read_image(path), scale)
            guess = bicubic(bicubic(image, 1 / scale), scale)
            found.append(psnr(luminance(guess), luminance(image), scale))
        return float(np.mean(found))

    def _files(self, part: str) -> tuple[Path, ...]:
        known = {"train": self.train_files, "validation": self.validation_files, **self.tests}
        if part not in known:
            raise UnknownNameError("part of the data", part, known)
        return known[part]


def bsds200(directory: Path | None) -> SuperResolutionData:
    """The 200 training images of BSDS500, 20 of them to validate; Set5, Set14, BSD100 to test.

    Args:
        directory: has ``sr`` with a folder of images of each name.

    Raises:
        ConfigError: it has not.
    """
    assert directory is not None
    how = "put the 200 training images of BSDS500 there"
    files = _images(directory / "sr" / "BSDS200", "bsds200", how)
    return _data(files[:180], files[180:], directory, "bsds200")


def div2k(directory: Path | None) -> SuperResolutionData:
    """DIV2K: 800 images to train, 100 to validate; Set5, Set14 and BSD100 to test.

    Args:
        directory: has ``DIV2K_train_HR``, ``DIV2K_valid_HR``, and ``sr`` with the test folders.

    Raises:
        ConfigError: it has not.
    """
    assert directory is not None
    how = (
        f"download DIV2K from https://data.vision.ee.ethz.ch/cvl/DIV2K and unpack it in {directory}"
    )
    train = _images(directory / "DIV2K_train_HR", "div2k", how)
    validation = _images(directory / "DIV2K_valid_HR", "div2k", how)
    return _data(train, validation, directory, "div2k")


def _data(
    train: Sequence[Path], validation: Sequence[Path], directory: Path, name: str
) -> SuperResolutionData:
    tests = {
        test: tuple(_images(directory / "sr" / test, name, f"put the images of {test} there"))
        for test in TESTS
    }
    return SuperResolutionData(tuple(train), tuple(validation), tests)


def _images(folder: Path, data_set: str, how: str) -> list[Path]:
    return sorted(require(folder, data_set, how).glob("*.png"))


def _cropped(image: np.ndarray, scale: int) -> np.ndarray:
    """Less the pixels below and to the right that make no whole one in low resolution."""
    height, width = (size // scale * scale for size in image.shape[:2])
    return image[:height, :width]


@cache
def _pairs(files: tuple[Path, ...], scale: int) -> Pairs:
    images = [_cropped(read_image(path), scale) for path in files]
    return Pairs(
        tuple(luminance(image).astype(np.float32) for image in images),
        tuple(luminance(bicubic(image, 1 / scale)).astype(np.float32) for image in images),
    )
