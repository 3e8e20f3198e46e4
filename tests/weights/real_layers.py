# SPDX-License-Identifier: Apache-2.0
"""The weights of real models as their streams code them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from npusim.cost.layers import weight_layers
from npusim.formats import load
from npusim.weights import reorder_slices


def model_files(models_dir: Path) -> list[Path]:
    return sorted(models_dir.glob("**/*.tflite"))


def layer_values(path: Path, npu: str = "ethos-u55-128") -> Iterator[tuple[str, np.ndarray]]:
    """(layer, values in stream order) of each weight stream of a model, repeated ones left out."""
    for layer in weight_layers(load(path), npu):
        if not layer.same_as:
            weights = layer.weights_ohwi()
            for part in reorder_slices(weights, None, npu, **layer.reorder_options):
                yield layer.name, part.values
