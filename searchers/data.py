# SPDX-License-Identifier: Apache-2.0
"""Data sets that candidates are trained on, split once and for all, in memory as whole arrays."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache

import numpy as np

from npusim.errors import MissingExtraError, UnknownNameError


@dataclass(frozen=True, slots=True)
class Split:
    """Images f32 [N, H, W, C] in 0..1 and their classes i64 [N]."""

    images: np.ndarray
    labels: np.ndarray

    def __add__(self, other: Split) -> Split:
        return Split(
            np.concatenate((self.images, other.images)),
            np.concatenate((self.labels, other.labels)),
        )


@dataclass(frozen=True, slots=True)
class DataSet:
    """Training data, validation data that a search may look at, and test data that it may not."""

    train: Split
    validation: Split
    test: Split


def digits() -> DataSet:
    """The 1797 8x8 digits that come with scikit-learn: 1077 to train, 360 to validate, 360 to test.

    Every fifth image of each class is for validation, every fifth for test, in an order shuffled
    with a fixed seed.

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

    def split(rows: np.ndarray) -> Split:
        pixels = (images[rows] / 16).astype(np.float32)
        return Split(pixels.reshape(-1, 8, 8, 1), labels[rows].astype(np.int64))

    return DataSet(
        split(by_class[fifth > 1]), split(by_class[fifth == 0]), split(by_class[fifth == 1])
    )


DATA_SETS: dict[str, Callable[[], DataSet]] = {"digits": digits}
"""Data sets by the name that a space gives in `Space.data_set`."""


@cache
def load(name: str) -> DataSet:
    """The data set of that name, read once.

    Raises:
        UnknownNameError: no such data set.
    """
    if name not in DATA_SETS:
        raise UnknownNameError("data set", name, DATA_SETS)
    return DATA_SETS[name]()
