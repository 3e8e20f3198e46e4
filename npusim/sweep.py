# SPDX-License-Identifier: Apache-2.0
"""Flash of a network against the bitwidth and the fraction of non-zeros of its weights.

import npusim
from npusim.sweep import sweep
for point in sweep(npusim.load("model.tflite"), bits=[8, 4], nonzeros=[1.0, 0.1]).points:
    print(point.bits, point.nonzeros, point.flash_bytes, point.reduction)
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from npusim._arguments import choice, integer, real
from npusim.compress import (
    DEFAULT_ENCODER,
    CompressReport,
    compress,
    layers_of,
    of_each,
    requantized,
)
from npusim.cost.layers import WeightLayer
from npusim.errors import ConfigError
from npusim.network import Network
from npusim.npu import NpuConfig, get
from npusim.weights.conditioning import BITS_MAX, prune
from npusim.weights.reorder import reorder_slices
from npusim.weights.stream import ENCODERS, encoded_size

SWEEP_BITS: Final = (8, 7, 6, 5, 4, 3, 2, 1)
SWEEP_NONZEROS: Final = (1.0, 0.9, 0.8, 0.7, 0.6, 0.5, 0.4, 0.3, 0.2, 0.1, 0.05, 0.01)


@dataclass(frozen=True, slots=True)
class SweepPoint:
    """A network pruned and requantized.

    Attributes:
        bits, nonzeros: what was asked for, as in `compress`.
        nonzero_fraction: non-zeros among the weights of all layers; fewer than `nonzeros` where
            weights are zero by themselves or round to it.
        flash_bytes: as in `CompressReport`.
        reduction: flash bytes of the network as it is for each of these.
    """

    bits: int
    nonzeros: float
    nonzero_fraction: float
    flash_bytes: int
    reduction: float


@dataclass(frozen=True)
class Sweep:
    """Flash of a network against bitwidth and non-zeros.

    Attributes:
        baseline: the network as it is.
        points: bitwidth by bitwidth, and in each the fractions of non-zeros, as given.
    """

    baseline: CompressReport
    points: tuple[SweepPoint, ...]

    def to_json(self) -> dict[str, Any]:
        """JSON values, the output of ``npusim compress --sweep --format json``.

        Keys: ``model``, ``npu``, ``encoder``; ``flash_bytes`` and ``nonzero_fraction`` of the
        network as it is; ``points``: a list of the attributes of `SweepPoint`.
        """
        base = self.baseline
        return {
            "model": base.model,
            "npu": base.npu,
            "encoder": base.encoder,
            "nonzero_fraction": round(base.nonzero_fraction, 6),
            "flash_bytes": base.flash_bytes,
            "points": [
                {
                    "bits": point.bits,
                    "nonzeros": point.nonzeros,
                    "nonzero_fraction": round(point.nonzero_fraction, 6),
                    "flash_bytes": point.flash_bytes,
                    "reduction": round(point.reduction, 4),
                }
                for point in self.points
            ],
        }


def sweep(
    network: Network,
    npu: str | NpuConfig = "ethos-u55-128",
    *,
    bits: Sequence[int] = SWEEP_BITS,
    nonzeros: Sequence[float] = SWEEP_NONZEROS,
    encoder: str = DEFAULT_ENCODER,
    done: Callable[[float], None] | None = None,
) -> Sweep:
    """Flash bytes of a network requantized and pruned, for each bitwidth and share of non-zeros.

    Args:
        network, npu, encoder, done: as in `compress`.
        bits: bitwidths, each 1..8, each once.
        nonzeros: fractions of non-zero weights, each 0..1, each once.

    Raises:
        ConfigError: as `compress`, or the network has no weights on the NPU.
        UnknownNameError: as `compress`.

    Source: [UDC] Fig. 1, left.
    """
    config = get(npu)
    widths = tuple(integer("bits", width, 1, BITS_MAX) for width in bits)
    shares = tuple(real("nonzeros", share, 0.0, 1.0) for share in nonzeros)
    for what, values in (("bits", widths), ("nonzeros", shares)):
        if not values or len(set(values)) < len(values):
            raise ConfigError(f"{what} of a sweep must be some that differ, got {list(values)}")
    choice("encoder", encoder, ENCODERS)
    stored = [layer for layer in layers_of(network, config) if not layer.same_as]
    if not stored:
        raise ConfigError(f"model {network.name!r} must have weights on the NPU, got none")
    baseline = compress(network, config, encoders=(encoder,), encoder=encoder)
    vary = partial(_vary, npu=config, encoder=encoder, bits=widths, nonzeros=shares)
    n_bytes, n_nonzeros = np.sum(of_each(stored, vary, done), axis=0)
    points = []
    for i, width in enumerate(widths):
        for j, share in enumerate(shares):
            flash = int(n_bytes[i, j]) + baseline.scale_bytes
            kept = int(n_nonzeros[i, j]) / baseline.n_weights
            points.append(SweepPoint(width, share, kept, flash, baseline.flash_bytes / flash))
    return Sweep(baseline, tuple(points))


def _vary(
    layer: WeightLayer,
    npu: NpuConfig,
    encoder: str,
    bits: Sequence[int],
    nonzeros: Sequence[float],
) -> npt.NDArray[np.int64]:
    """Bytes and non-zeros of a layer, shape [2, bits, nonzeros].

    Pruning and requantizing work on each weight by itself, so that the order may come in between.
    """
    found = np.empty((2, len(bits), len(nonzeros)), np.int64)
    weights = layer.weights_ohwi()
    conditioned = bool(layer.op.weight_tensors)
    for j, share in enumerate(nonzeros):
        pruned = prune(weights, share) if conditioned else weights
        streams = reorder_slices(pruned, None, npu, **layer.reorder_options)
        for i, width in enumerate(bits):
            parts = [part.values for part in streams]
            if conditioned:
                parts = [requantized(pruned, values, width) for values in parts]
            found[0, i, j] = sum(encoded_size(values, encoder) for values in parts)
            found[1, i, j] = sum(np.count_nonzero(values) for values in parts)
    return found
