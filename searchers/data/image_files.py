# SPDX-License-Identifier: Apache-2.0
"""Images of more pixels than memory holds: files that are read when they are asked for."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import numpy.typing as npt

from searchers.data.splits import open_image

N_TRIES = 10
"""Crops that are drawn of an image until one fits in it."""
N_UNIFORMS = 4
"""That a try is drawn by: area, ratio, height and width of its corner."""
RATIO_MAX = 4 / 3
"""Of width to height of crops, and of height to width."""
MIDDLE = 224 / 256
"""How much of an image's shorter side its middle has."""
Box = tuple[int, int, int, int]
"""Left, top, right and bottom: columns and rows, the last two not in it."""


class ImageFiles:
    """Images as `Split.images` has them, u8 [N, side, side, 3], in files.

    Indexing gives fewer of the files; ``numpy.asarray`` reads them, resized so that the shorter
    side is ``side / MIDDLE``, and takes the middle. Pillow decodes in threads, one for each core.

    Args:
        paths: of the files.
        side: height and width of the images that are made of them.
    """

    def __init__(self, paths: Sequence[Path], side: int):
        self.paths, self.side = np.array(paths, dtype=object), side

    @property
    def shape(self) -> tuple[int, int, int, int]:
        """N, height, width, depth."""
        return len(self.paths), self.side, self.side, 3

    def __getitem__(self, rows: npt.NDArray[np.int64] | slice) -> ImageFiles:
        return ImageFiles(self.paths[rows], self.side)

    def __add__(self, other: ImageFiles) -> ImageFiles:
        return ImageFiles(np.concatenate((self.paths, other.paths)), self.side)

    def of_side(self, side: int) -> ImageFiles:
        """The same files as images of another height and width."""
        return ImageFiles(self.paths, side)

    def __array__(self, dtype: npt.DTypeLike = None, copy: bool | None = None) -> np.ndarray:
        """Middles of the images.

        Raises:
            FormatError: a file cannot be read.
        """
        return self._each(lambda i: self._middle(self.paths[i])).astype(dtype or np.uint8)

    def crops(self, uniforms: np.ndarray, least_area: float) -> np.ndarray:
        """Parts of the images, of any size and ratio, resized: random resized crops.

        Args:
            uniforms: f32 [N, N_TRIES, N_UNIFORMS] in [0, 1), which decide the parts.
            least_area: of a part, as a fraction of the image's; in (0, 1].

        Returns:
            u8 [N, side, side, 3].

        Raises:
            FormatError: a file cannot be read.
        """
        return self._each(lambda i: self._crop(self.paths[i], uniforms[i], least_area))

    def _each(self, read: Callable[[int], np.ndarray]) -> np.ndarray:
        """``read(i)`` for each file, stacked."""
        found = np.empty(self.shape, np.uint8)
        with ThreadPoolExecutor(os.cpu_count()) as pool:
            for i, image in enumerate(pool.map(read, range(len(self.paths)))):
                found[i] = image
        return found

    def _middle(self, path: Path) -> np.ndarray:
        from PIL import Image

        image, short = open_image(path), round(self.side / MIDDLE)
        shorter = min(image.size)
        width, height = (max(short, int(short * each / shorter)) for each in image.size)
        image = image.resize((width, height), Image.Resampling.BILINEAR)
        left, top = round((width - self.side) / 2), round((height - self.side) / 2)
        return np.asarray(image.crop((left, top, left + self.side, top + self.side)))

    def _crop(self, path: Path, uniforms: np.ndarray, least_area: float) -> np.ndarray:
        from PIL import Image

        image = open_image(path)
        box = crop_box(image.height, image.width, uniforms, least_area)
        return np.asarray(image.resize((self.side, self.side), Image.Resampling.BILINEAR, box))


def crop_box(height: int, width: int, uniforms: np.ndarray, least_area: float) -> Box:
    """The first try that fits in an image of `height` rows and `width` columns.

    If none does, the largest middle of an allowed ratio. Areas are uniform from `least_area`, a
    fraction, to all, and logarithms of ratios are uniform; `uniforms` f32 [N_TRIES, N_UNIFORMS].

    Source: Szegedy et al. 2015, section 6, as usually done.

    >>> crop_box(100, 200, np.full((10, 4), 0.5), least_area=0.5)
    (33, 0, 166, 100)
    """
    for area, ratio, y, x in uniforms.tolist():
        wanted = height * width * (least_area + (1 - least_area) * area)
        narrow = RATIO_MAX ** (2 * ratio - 1)
        columns, rows = round(math.sqrt(wanted * narrow)), round(math.sqrt(wanted / narrow))
        if 0 < columns <= width and 0 < rows <= height:
            left, top = int(x * (width - columns + 1)), int(y * (height - rows + 1))
            return left, top, left + columns, top + rows
    columns = min(width, round(height * RATIO_MAX))
    rows = min(height, round(width * RATIO_MAX))
    left, top = (width - columns) // 2, (height - rows) // 2
    return left, top, left + columns, top + rows
