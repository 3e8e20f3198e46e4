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
    from npusim.cost.estimate import estimate as estimate
    from npusim.errors import NpusimError as NpusimError
    from npusim.formats import load as load
    from npusim.network import Network as Network
    from npusim.network import Op as Op
    from npusim.network import Tensor as Tensor

__version__ = "0.1.0"

_LAZY = {
    "estimate": "npusim.cost.estimate",
    "load": "npusim.formats",
    "Network": "npusim.network",
    "NpusimError": "npusim.errors",
    "Op": "npusim.network",
    "Tensor": "npusim.network",
}
_LAZY_MODULES = ("errors", "hardware", "schemes", "weights")

__all__ = [
    "Network",
    "NpusimError",
    "Op",
    "Tensor",
    "__version__",
    "errors",
    "estimate",
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
