# SPDX-License-Identifier: Apache-2.0
"""CIFAR-100 from the files its authors give away."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import numpy as np

from npusim.errors import FormatError
from searchers.data.splits import DataSet, Split, hold_out, require

MEAN = (129.30, 124.07, 112.43)
STD = (68.17, 65.39, 70.42)
"""Of the training pixels, by channel."""
N_IMAGES = {"train": 50_000, "test": 10_000}
_ALLOWED = {("numpy", "ndarray"), ("numpy", "dtype"), ("_codecs", "encode")}


class _Arrays(pickle.Unpickler):
    """Reads pickles of plain values and arrays; refuses those that would call anything else."""

    def find_class(self, module: str, name: str) -> Any:
        rebuilds = module.endswith("multiarray") and name in {"_reconstruct", "scalar"}
        rebuilds |= module.endswith("numeric") and name == "_frombuffer"
        if (module, name) in _ALLOWED or (rebuilds and module.startswith("numpy")):
            return super().find_class(module, name)
        raise pickle.UnpicklingError(f"a {module}.{name}")


def cifar100(directory: Path | None) -> DataSet:
    """CIFAR-100: 45,000 images to train, 5,000 of the training images to validate, 10,000 to test.

    Args:
        directory: has ``cifar-100-python`` with ``train`` and ``test``.

    Raises:
        ConfigError: it has not.
        FormatError: a file is corrupted.
    """
    assert directory is not None
    folder = directory / "cifar-100-python"
    train, validation = hold_out(_read(folder, "train"), one_in=10)
    return DataSet(train, validation, _read(folder, "test"))


def _read(folder: Path, part: str) -> Split:
    path = require(
        folder / part,
        "cifar100",
        "download https://www.cs.toronto.edu/~kriz/cifar-100-python.tar.gz "
        f"and unpack it in {folder.parent}",
    )
    try:
        with path.open("rb") as file:
            found = _Arrays(file, encoding="latin1").load()
        images = np.asarray(found["data"], dtype=np.uint8)
        labels = np.asarray(found["fine_labels"], dtype=np.int64)
        n = N_IMAGES[part]
        images = images.reshape(n, 3, 32, 32).transpose(0, 2, 3, 1)  # [N, C, H, W] -> [N, H, W, C]
        if labels.shape != (n,) or labels.min() < 0 or labels.max() > 99:
            raise ValueError(f"{labels.size} labels")
    except Exception as error:  # damaged pickles raise whatever their bytes happen to mean
        raise FormatError(
            f"{path} must be a file of CIFAR-100, got {type(error).__name__}: {error}"
        ) from None
    return Split(np.ascontiguousarray(images), labels, MEAN, STD)
