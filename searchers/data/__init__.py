# SPDX-License-Identifier: Apache-2.0
"""Data sets that candidates are trained on, split once and for all: arrays, or files to read."""

from __future__ import annotations

import os
from functools import cache
from pathlib import Path

from npusim.errors import ConfigError, UnknownNameError
from searchers.data.cifar import cifar100
from searchers.data.digits import digits
from searchers.data.folders import imagenet, tiny_imagenet
from searchers.data.splits import DataSet as DataSet
from searchers.data.splits import Split as Split
from searchers.data.super_resolution import Pairs as Pairs
from searchers.data.super_resolution import SuperResolutionData as SuperResolutionData
from searchers.data.super_resolution import bsds200, div2k

TrainingData = Split | Pairs
"""What networks learn from: images with classes, or pairs of images."""

DATA_SETS = {
    "bsds200": bsds200,
    "cifar100": cifar100,
    "digits": digits,
    "div2k": div2k,
    "imagenet": imagenet,
    "tiny_imagenet": tiny_imagenet,
}
"""Data sets by the name that a space gives in `Space.data_set`."""


def load(name: str, directory: Path | None = None) -> DataSet | SuperResolutionData:
    """The data set of that name, read once.

    Args:
        name: of `DATA_SETS`.
        directory: where the folders of data sets are; None for the environment's NPUSIM_DATA. The
            digits need none.

    Raises:
        UnknownNameError: no such data set.
        ConfigError: it is not there; says what to get and where to put it.
        FormatError: a file of it is corrupted.
        MissingExtraError: what reads it is not installed.
    """
    if name not in DATA_SETS:
        raise UnknownNameError("data set", name, DATA_SETS)
    if name != "digits" and directory is None:
        if not os.environ.get("NPUSIM_DATA"):
            raise ConfigError(
                f"data set {name!r} must be read from a directory (--data or NPUSIM_DATA), got none"
            )
        directory = Path(os.environ["NPUSIM_DATA"])
    return _load(name, None if name == "digits" else directory)


@cache
def _load(name: str, directory: Path | None) -> DataSet | SuperResolutionData:
    return DATA_SETS[name](directory)
