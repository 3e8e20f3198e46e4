# SPDX-License-Identifier: Apache-2.0
"""What a network's weights take in flash, layer by layer and encoder by encoder.

import npusim
from npusim.compress import compress
report = compress(npusim.load("model.tflite"), npu="ethos-u55-128")
print(report.flash_bytes, [(layer.name, layer.n_bytes["regor"]) for layer in report.layers])
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property
from itertools import product

import numpy as np

from npusim._arguments import choice, integer, real
from npusim.cost.layers import WeightLayer, weight_layers
from npusim.cost.placement import npu_obstacle
from npusim.errors import ConfigError
from npusim.network import Network
from npusim.npu import NpuConfig, get
from npusim.weights import ENCODERS, condition, mask_aware_bits, scale_bytes
from npusim.weights.measures import weights_entropy_bits
from npusim.weights.reorder import reorder_slices
from npusim.weights.stream import encoded_sizes

DEFAULT_ENCODER = "regor"
"""Whose streams count for flash: Vela 5's, Arm's compiler of today."""
BOUNDS = ("entropy", "eq4", "raw")
"""Beside the encoders: order-0 entropy of the coded values, [UDC] eq. (4) mask-aware at the layer's
own non-zeros and bitwidth, and one byte a weight."""


@dataclass(frozen=True, slots=True)
class LayerSize:
    """One layer's weights and what they take.

    Attributes:
        name, op: of the layer; operator kind.
        shape: (O, H, W, I) of its weights; I is 1 if depthwise.
        traversal, ofm_block_depth: the order they are read in.
        n_weights: without the padding that reordering adds; n_coded: with it.
        n_zeros, n_distinct: zeros, and different values, among the weights.
        n_bytes: bytes by encoder and by the bounds of `BOUNDS`.
        scale_bytes: biases and scales.
        same_as: name of an earlier layer whose stream it shares, else empty; not counted twice.
    """

    name: str
    op: str
    shape: tuple[int, int, int, int]
    traversal: str
    ofm_block_depth: int
    n_weights: int
    n_coded: int
    n_zeros: int
    n_distinct: int
    n_bytes: dict[str, int]
    scale_bytes: int
    same_as: str

    @property
    def zero_fraction(self) -> float:
        """Zeros a weight."""
        return self.n_zeros / self.n_weights

    def bits_per_weight(self, encoder: str) -> float:
        """Stream bits a weight; the padding is not among the weights."""
        return 8 * self.n_bytes[encoder] / self.n_weights


@dataclass(frozen=True)
class CompressReport:
    """A network's layers with weights on the NPU, in order of execution.

    Attributes:
        model, npu: names.
        encoder: whose streams count for flash.
        encoders: measured, in order.
        bits, nonzeros: what the weights were requantized and pruned to first; None and 1 for not.
        layers: their sizes.
        on_cpu: (name, operator kind, reason) of operations with weights that stay on the CPU.
    """

    model: str
    npu: str
    encoder: str
    encoders: tuple[str, ...]
    bits: int | None
    nonzeros: float
    layers: tuple[LayerSize, ...]
    on_cpu: tuple[tuple[str, str, str], ...]

    @cached_property
    def stored(self) -> tuple[LayerSize, ...]:
        """Layers with streams of their own."""
        return tuple(layer for layer in self.layers if not layer.same_as)

    @cached_property
    def n_bytes(self) -> dict[str, int]:
        """Bytes of all stored layers, by encoder and bound."""
        names = (*self.encoders, *BOUNDS)
        return {name: sum(layer.n_bytes[name] for layer in self.stored) for name in names}

    @property
    def n_weights(self) -> int:
        """Weights of all stored layers."""
        return sum(layer.n_weights for layer in self.stored)

    @property
    def scale_bytes(self) -> int:
        """Biases and scales of all stored layers."""
        return sum(layer.scale_bytes for layer in self.stored)

    @property
    def flash_bytes(self) -> int:
        """Streams of `encoder` with biases and scales; not the command stream, not constants."""
        return self.n_bytes[self.encoder] + self.scale_bytes


def compress(
    network: Network,
    npu: str | NpuConfig = "ethos-u55-128",
    *,
    encoders: Sequence[str] = ENCODERS,
    encoder: str = DEFAULT_ENCODER,
    bits: int | None = None,
    nonzeros: float = 1.0,
    effort: int | None = None,
    done: Callable[[], None] | None = None,
) -> CompressReport:
    """Exact sizes of every layer's weight stream.

    Layers are read as Arm's compiler has the NPU read them, each in one depth slice; the compiler
    cuts some into more, to buffer them, which changes sizes by some bytes.

    Args:
        network: as `npusim.load` reads it, not yet compiled.
        npu: preset name or record.
        encoders: of `npusim.weights.ENCODERS`, which to measure.
        encoder: whose streams count for flash; measured too.
        bits: requantize weights to this bitwidth first, 1..8; None leaves them.
        nonzeros: prune weights to this fraction of non-zeros by magnitude first, 0..1.
        effort: of encoder "tight", 0..9; None for its default.
        done: called after each layer, from any thread.

    Raises:
        ConfigError: an argument is out of range, `effort` is given without "tight", or the network
            is compiled already.
        UnknownNameError: no such NPU or encoder.

    Source: [UDC] section 3 for `bits` and `nonzeros`; [VELA] for the layers.
    """
    config = get(npu)
    for name in (*encoders, encoder):
        choice("encoder", name, ENCODERS)
    if bits is not None:
        integer("bits", bits, 1, 8)
    real("nonzeros", nonzeros, 0.0, 1.0)
    wanted = tuple(dict.fromkeys((*encoders, encoder)))
    options = {} if effort is None else {"effort": effort}
    encoded_sizes((), wanted, **options)  # refuses a wrong effort before any work
    if any(op.kind == "ETHOS_U" for op in network.ops):
        raise ConfigError(
            f"model {network.name!r} must not be compiled yet, got one that Vela compiled; "
            "its streams: npusim stream"
        )
    layers = weight_layers(network, config)

    def measure(layer: WeightLayer) -> LayerSize:
        size = _measure(layer, config, wanted, options, bits, nonzeros)
        if done is not None:
            done()
        return size

    with ThreadPoolExecutor(os.cpu_count()) as pool:  # kernels release the GIL
        sizes = tuple(pool.map(measure, layers))
    on_cpu = tuple(_on_cpu(network))
    return CompressReport(
        network.name, config.name, encoder, wanted, bits, float(nonzeros), sizes, on_cpu
    )


def _measure(
    layer: WeightLayer,
    npu: NpuConfig,
    encoders: Sequence[str],
    options: Mapping[str, int],
    bits: int | None,
    nonzeros: float,
) -> LayerSize:
    weights = layer.weights_ohwi()
    if layer.op.weight_tensors and (bits is not None or nonzeros < 1):
        weights = condition(weights, bits=bits, nonzero_fraction=nonzeros).astype(np.int16)
    streams = reorder_slices(weights, None, npu, **layer.reorder_options)
    sizes = [encoded_sizes(part.values, encoders, **options) for part in streams]
    n_bytes = {name: sum(size[name] for size in sizes) for name in encoders}
    n_zeros = int(weights.size - np.count_nonzero(weights))
    values = np.concatenate([part.values for part in streams])
    n_bytes["entropy"] = _bytes(weights_entropy_bits(values) * values.size)
    width = bits or max(1, int(np.ptp(weights.astype(np.int64))).bit_length())
    share = 1 - n_zeros / weights.size
    n_bytes["eq4"] = _bytes(float(mask_aware_bits(width, share)) * weights.size)
    n_bytes["raw"] = weights.size
    return LayerSize(
        name=layer.name,
        op=layer.op.kind,
        shape=layer.shape,
        traversal=layer.traversal,
        ofm_block_depth=layer.block.ofm_block_depth,
        n_weights=weights.size,
        n_coded=values.size,
        n_zeros=n_zeros,
        n_distinct=int(np.count_nonzero(np.bincount(weights.ravel().astype(np.int64) + 255))),
        n_bytes=n_bytes,
        scale_bytes=sum(
            scale_bytes(len(range(part.core, part.ofm_depth, npu.n_cores))) for part in streams
        ),
        same_as=layer.same_as,
    )


def _bytes(bits: float) -> int:
    return int(np.ceil(bits / 8))


def _on_cpu(network: Network) -> Iterator[tuple[str, str, str]]:
    for op in network.ops:
        if not op.known:
            yield op.name, op.kind, "npusim does not know the operator"
        elif op.weight_tensors:
            reason = npu_obstacle(op)
            if reason is not None:
                yield op.name, op.kind, reason


@dataclass(frozen=True, slots=True)
class SweepPoint:
    """Flash of a network pruned and requantized; `reduction` is against the network as it is."""

    bits: int
    nonzeros: float
    flash_bytes: int
    reduction: float


@dataclass(frozen=True)
class Sweep:
    """Flash of a network against bitwidth and non-zeros.

    Attributes:
        baseline: the network as it is.
        points: bitwidth by bitwidth, and in each from most to least non-zeros as given.
    """

    baseline: CompressReport
    points: tuple[SweepPoint, ...]


SWEEP_BITS = (8, 7, 6, 5, 4, 3, 2, 1)
SWEEP_NONZEROS = (1.0, 0.9, 0.8, 0.7, 0.6, 0.5, 0.4, 0.3, 0.2, 0.1, 0.01)


def sweep(
    network: Network,
    npu: str | NpuConfig = "ethos-u55-128",
    *,
    bits: Sequence[int] = SWEEP_BITS,
    nonzeros: Sequence[float] = SWEEP_NONZEROS,
    encoder: str = DEFAULT_ENCODER,
    done: Callable[[], None] | None = None,
) -> Sweep:
    """Flash bytes of a network requantized and pruned, for each bitwidth and share of non-zeros.

    Args:
        network, npu, encoder: as in `compress`.
        bits: bitwidths, each 1..8.
        nonzeros: fractions of non-zero weights, each 0..1.
        done: called after each point.

    Raises:
        ConfigError: as `compress`, or the network has no weights on the NPU.
        UnknownNameError: as `compress`.

    Source: [UDC] Fig. 1, left.
    """
    for width in bits:
        integer("bits", width, 1, 8)
    for share in nonzeros:
        real("nonzeros", share, 0.0, 1.0)
    baseline = compress(network, npu, encoders=(encoder,), encoder=encoder)
    if not baseline.layers:
        raise ConfigError(f"model {network.name!r} must have weights on the NPU, got none")
    points = []
    for width, share in product(bits, nonzeros):
        report = compress(
            network, npu, encoders=(encoder,), encoder=encoder, bits=width, nonzeros=share
        )
        flash = report.flash_bytes
        points.append(SweepPoint(width, share, flash, baseline.flash_bytes / flash))
        if done is not None:
            done()
    return Sweep(baseline, tuple(points))
