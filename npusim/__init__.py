# SPDX-License-Identifier: Apache-2.0
"""npusim: what a neural network costs on the Arm Ethos-U55 NPU.

    import npusim
    network = npusim.load("model.tflite")
    values = npusim.weights.reorder(network.ops[0].weights_ohwi(), npu="ethos-u55-128")
    stream = npusim.weights.encode(values, encoder="tight")

Names are imported when they are first used, so that ``import npusim`` costs next to nothing.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from npusim import errors as errors
    from npusim import hardware as hardware
    from npusim import schemes as schemes
    from npusim import weights as weights
    from npusim.cost.batch import Batch as Batch
    from npusim.cost.batch import BatchEstimator as BatchEstimator
    from npusim.cost.batch import estimate_batch as estimate_batch
    from npusim.cost.estimate import estimate as estimate
    from npusim.cost.family import Family as Family
    from npusim.errors import NpusimError as NpusimError
    from npusim.formats import load as load
    from npusim.network import Network as Network
    from npusim.network import Op as Op
    from npusim.network import Tensor as Tensor

__version__ = "0.1.0"

_LAZY = {
    "Batch": "npusim.cost.batch",
    "BatchEstimator": "npusim.cost.batch",
    "Family": "npusim.cost.family",
    "estimate": "npusim.cost.estimate",
    "estimate_batch": "npusim.cost.batch",
    "load": "npusim.formats",
    "Network": "npusim.network",
    "NpusimError": "npusim.errors",
    "Op": "npusim.network",
    "Tensor": "npusim.network",
}
_LAZY_MODULES = ("errors", "hardware", "schemes", "weights")

__all__ = [
    "Batch",
    "BatchEstimator",
    "Family",
    "Network",
    "NpusimError",
    "Op",
    "Tensor",
    "__version__",
    "errors",
    "estimate",
    "estimate_batch",
    "hardware",
    "load",
    "schemes",
    "weights",
]


def __getattr__(name: str) -> Any:
    if name in _LAZY:
        return getattr(importlib.import_module(_LAZY[name]), name)
    if name in _LAZY_MODULES:
        return importlib.import_module(f"npusim.{name}")
    raise AttributeError(f"module 'npusim' has no attribute {name!r}")


def __dir__() -> list[str]:
    return __all__
