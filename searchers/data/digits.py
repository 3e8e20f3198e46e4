# SPDX-License-Identifier: Apache-2.0
"""The handwritten digits that come with scikit-learn."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from npusim.errors import MissingExtraError
from searchers.data.splits import DataSet, Split


def digits(directory: Path | None = None) -> DataSet:
    """The 1797 8x8 digits that come with scikit-learn: 1077 to train, 360 to validate, 360 to test.

    Pixels are f32 in 0..1, black 0. Every fifth image of each class is for validation, every fifth
    for test, in an order shuffled with a fixed seed.

    Args:
        directory: not needed: scikit-learn has them.

    Raises:
        MissingExtraError: scikit-learn is not installed.
    """
    try:
        from sklearn.datasets import load_digits  # type: ignore[import-untyped]
    except ImportError as error:
        raise MissingExtraError("the digits data", "search", error) from error
    images, labels = load_digits(return_X_y=True)
    shuffled = np.random.default_rng(0).permutation(len(labels))
    by_class = shuffled[np.argsort(labels[shuffled], kind="stable")]
    fifth = np.arange(len(labels)) % 5
    pixels = (images / 16).astype(np.float32)
    whole = Split(pixels.reshape(-1, 8, 8, 1), labels.astype(np.int64))
    return DataSet(
        whole[by_class[fifth > 1]], whole[by_class[fifth == 0]], whole[by_class[fifth == 1]]
    )
