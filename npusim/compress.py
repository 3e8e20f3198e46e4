# SPDX-License-Identifier: Apache-2.0
"""What a network's weights take in flash, layer by layer and encoder by encoder.

import npusim
from npusim.compress import compress
report = compress(npusim.load("model.tflite"), npu="ethos-u55-128")
print(report.flash_bytes, [(layer.name, layer.n_bytes["regor"]) for layer in report.layers])
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Any, Final, Protocol, TypeVar

import numpy as np
import numpy.typing as npt

from npusim._arguments import integer, real
from npusim.cost.layers import WeightLayer, weight_layers
from npusim.cost.placement import npu_obstacle
from npusim.errors import ConfigError
from npusim.formats.vela_stream import is_compiled
from npusim.network import Network, Op
from npusim.npu import NpuConfig, get
from npusim.weights.conditioning import BITS_MAX, least_error_clip, prune, requantize
from npusim.weights.format import WEIGHT_MAX
from npusim.weights.measures import mask_aware_bits, weights_entropy_bits
from npusim.weights.reorder import reorder_slices
from npusim.weights.scales import scale_bytes
from npusim.weights.stream import ENCODERS, encoded_sizes

DEFAULT_ENCODER: Final = "regor"
"""Whose streams count for flash: Vela 5's, Arm's compiler of today."""
BOUNDS: Final = ("entropy", "eq4", "raw")
"""What is listed beside the encoders: order-0 entropy of the coded values, padding included;
[UDC] eq. (4), mask-aware, with the layer's own fraction of non-zeros and the bits that its range of
values needs, without padding; and one byte a weight."""

Int16Array = npt.NDArray[np.int16]
_Result = TypeVar("_Result")


class _Shaped(Protocol):
    """A layer, by its weights."""

    @property
    def shape(self) -> tuple[int, int, int, int]:
        """(O, H, W, I) of them."""


_Layer = TypeVar("_Layer", bound=_Shaped)


@dataclass(frozen=True, slots=True)
class LayerSize:
    """One layer's weights and what they take.

    Attributes:
        name: of the layer.
        op: kind of its operation.
        shape: (O, H, W, I) of its weights; I is 1 if depthwise.
        traversal: the order they are read in.
        ofm_block_depth: output channels of a block, all cores.
        n_weights: weights without the padding that the order adds.
        n_coded: values in its streams, padding included.
        n_zeros: zeros among the weights.
        n_distinct: different values among the weights.
        n_bytes: of its streams by encoder, and by each of `BOUNDS`.
        scale_bytes: of its biases and scales.
        same_as: name of an earlier layer whose streams it shares, else empty; not counted twice.
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
    n_bytes: Mapping[str, int]
    scale_bytes: int
    same_as: str

    def to_json(self, encoder: str) -> dict[str, Any]:
        """JSON values; ``bits_per_weight`` is that of `encoder`, padding not among the weights."""
        return {
            "name": self.name,
            "op": self.op,
            "shape": list(self.shape),
            "traversal": self.traversal,
            "ofm_block_depth": self.ofm_block_depth,
            **_figures([self], encoder),
            "distinct_values": self.n_distinct,
            "same_as": self.same_as,
        }


@dataclass(frozen=True, slots=True)
class OpOnCpu:
    """An operation with weights that are not in the NPU's streams.

    Attributes:
        name, op: of the operation; its kind.
        n_weights: elements of its weight tensors; 0 if npusim does not know the kind.
        reason: why not.
    """

    name: str
    op: str
    n_weights: int
    reason: str


@dataclass(frozen=True)
class CompressReport:
    """A network's layers with weights on the NPU, in order of execution.

    Attributes:
        model: name of the network.
        npu: name of the NPU.
        encoder: whose streams count for flash.
        encoders: those measured, in order.
        bits: what the weights were requantized to first; None: not.
        nonzeros: the fraction they were pruned to first; 1: not.
        layers: with their sizes.
        on_cpu: operations with weights that are not in the NPU's streams.
    """

    model: str
    npu: str
    encoder: str
    encoders: tuple[str, ...]
    bits: int | None
    nonzeros: float
    layers: tuple[LayerSize, ...]
    on_cpu: tuple[OpOnCpu, ...]

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
    def nonzero_fraction(self) -> float:
        """Non-zeros among the weights of all stored layers; 0 without weights."""
        n_zeros = sum(layer.n_zeros for layer in self.stored)
        return 1 - n_zeros / self.n_weights if self.n_weights else 0.0

    @property
    def scale_bytes(self) -> int:
        """Bytes of the biases and scales of all stored layers."""
        return sum(layer.scale_bytes for layer in self.stored)

    @property
    def flash_bytes(self) -> int:
        """Streams of `encoder` with biases and scales; without command stream and constants."""
        return self.n_bytes[self.encoder] + self.scale_bytes

    def to_json(self) -> dict[str, Any]:
        """JSON values, the output of ``npusim compress --format json``.

        Keys: ``model``, ``npu``, ``encoder``, ``bits``, ``nonzeros``: as the attributes.
        ``layers``: a list of ``name``, ``op``, ``shape``, ``traversal``, ``ofm_block_depth``,
        ``weights``, ``coded_weights``, ``zero_fraction``, ``bits_per_weight``, ``bytes`` (by
        encoder and bound), ``scale_bytes``, ``distinct_values``, ``same_as``. ``total``: the
        figures among these, summed over the layers that share no other's streams; fractions are
        null without weights. ``flash_bytes``. ``not_on_npu``: a list of ``name``, ``op``,
        ``weights``, ``reason``. Keys may be added in later versions, none is renamed.
        """
        return {
            "model": self.model,
            "npu": self.npu,
            "encoder": self.encoder,
            "bits": self.bits,
            "nonzeros": self.nonzeros,
            "layers": [layer.to_json(self.encoder) for layer in self.layers],
            "total": {**_figures(self.stored, self.encoder), "bytes": self.n_bytes},
            "flash_bytes": self.flash_bytes,
            "not_on_npu": [
                {"name": op.name, "op": op.op, "weights": op.n_weights, "reason": op.reason}
                for op in self.on_cpu
            ],
        }


def _figures(layers: Sequence[LayerSize], encoder: str) -> dict[str, Any]:
    """What can be summed over layers, with fractions of the sums."""
    n_weights = sum(layer.n_weights for layer in layers)
    n_zeros = sum(layer.n_zeros for layer in layers)
    names = layers[0].n_bytes if layers else ()
    n_bytes = {name: sum(layer.n_bytes[name] for layer in layers) for name in names}
    return {
        "weights": n_weights,
        "coded_weights": sum(layer.n_coded for layer in layers),
        "zero_fraction": round(n_zeros / n_weights, 6) if n_weights else None,
        "bits_per_weight": round(8 * n_bytes[encoder] / n_weights, 4) if n_weights else None,
        "bytes": n_bytes,
        "scale_bytes": sum(layer.scale_bytes for layer in layers),
    }


def compress(
    network: Network,
    npu: str | NpuConfig = "ethos-u55-128",
    *,
    encoders: Sequence[str] = ENCODERS,
    encoder: str = DEFAULT_ENCODER,
    bits: int | None = None,
    nonzeros: float = 1.0,
    effort: int | None = None,
    done: Callable[[float], None] | None = None,
) -> CompressReport:
    """Exact sizes of every layer's weight streams.

    Layers are read as Arm's compiler has the NPU read them, each in one depth slice; the compiler
    cuts some into more, to buffer them, which changes sizes by some bytes.

    Args:
        network: as `npusim.load` reads it, not yet compiled.
        npu: preset name or record.
        encoders: which of `npusim.weights.ENCODERS` to measure.
        encoder: whose streams count for flash; measured too.
        bits: requantize the weights of each tensor to this bitwidth first, 1..8, in the range of
            `npusim.weights.least_error_clip`; None leaves them.
        nonzeros: prune each tensor by magnitude to this fraction of non-zeros first, 0..1.
        effort: of encoder "tight", 0..9; None for its default.
        done: called with the fraction of layers that are done.

    Raises:
        ConfigError: an argument is out of range, `effort` is given without "tight", or the network
            is compiled already.
        UnknownNameError: no such NPU or encoder.

    Source: [UDC] section 3 for `bits` and `nonzeros`; [VELA] for the layers.
    """
    config = get(npu)
    if bits is not None:
        integer("bits", bits, 1, BITS_MAX)
    share = real("nonzeros", nonzeros, 0.0, 1.0)
    wanted = tuple(dict.fromkeys((*encoders, encoder)))
    options = {} if effort is None else {"effort": effort}
    encoded_sizes((), wanted, **options)  # refuses wrong names and options before any work
    layers = layers_of(network, config)
    measure = partial(
        _measure, npu=config, encoders=wanted, options=options, bits=bits, nonzeros=share
    )
    sizes = tuple(of_each(layers, measure, done))
    on_cpu = tuple(_on_cpu(network))
    return CompressReport(network.name, config.name, encoder, wanted, bits, share, sizes, on_cpu)


def layers_of(network: Network, npu: NpuConfig) -> list[WeightLayer]:
    """Layers of a network that is not compiled yet (errors: see `compress`)."""
    if is_compiled(network):
        raise ConfigError(
            f"model {network.name!r} must not be compiled yet, got one that Vela compiled; "
            "its streams: npusim stream"
        )
    return weight_layers(network, npu)


def of_each(
    layers: Sequence[_Layer],
    work: Callable[[_Layer], _Result],
    done: Callable[[float], None] | None,
) -> list[_Result]:
    """What `work` makes of each layer, in order; in threads, since kernels release the GIL.

    `done` is told, in the caller's thread, which fraction of the layers is done.
    """
    largest_first = sorted(range(len(layers)), key=lambda i: -math.prod(layers[i].shape))
    pool = ThreadPoolExecutor(os.cpu_count())
    try:
        futures = {i: pool.submit(work, layers[i]) for i in largest_first}
        for n_done, future in enumerate(as_completed(futures.values()), 1):
            future.result()
            if done is not None:
                done(n_done / len(layers))
        return [futures[i].result() for i in range(len(layers))]
    finally:
        pool.shutdown(cancel_futures=True)


def _measure(
    layer: WeightLayer,
    npu: NpuConfig,
    encoders: Sequence[str],
    options: Mapping[str, int],
    bits: int | None,
    nonzeros: float,
) -> LayerSize:
    weights = layer.weights_ohwi()
    if not layer.op.weight_tensors:  # such as the ones of a mean
        bits, nonzeros = None, 1.0
    weights = prune(weights, nonzeros) if nonzeros < 1 else weights
    weights = weights if bits is None else requantized(weights, weights, bits)
    streams = reorder_slices(weights, None, npu, **layer.reorder_options)
    sizes = [encoded_sizes(part.values, encoders, **options) for part in streams]
    n_bytes = {name: sum(size[name] for size in sizes) for name in encoders}
    values = np.concatenate([part.values for part in streams])
    n_nonzeros = int(np.count_nonzero(weights))
    width = bits or max(1, int(weights.max() - weights.min()).bit_length())
    n_bytes["entropy"] = _n_bytes(weights_entropy_bits(values) * values.size)
    eq4_bits = mask_aware_bits(width, n_nonzeros / weights.size)  # [UDC] eq. (4)
    n_bytes["eq4"] = _n_bytes(float(eq4_bits) * weights.size)
    n_bytes["raw"] = weights.size
    return LayerSize(
        name=layer.name,
        op=layer.op.kind,
        shape=layer.shape,
        traversal=layer.traversal,
        ofm_block_depth=layer.block.ofm_block_depth,
        n_weights=weights.size,
        n_coded=values.size,
        n_zeros=weights.size - n_nonzeros,
        n_distinct=int(np.count_nonzero(np.bincount(weights.ravel() + WEIGHT_MAX))),
        n_bytes=n_bytes,
        scale_bytes=_scale_bytes(layer, npu),
        same_as=layer.same_as,
    )


def _n_bytes(n_bits: float) -> int:
    return math.ceil(n_bits / 8)


def _scale_bytes(layer: WeightLayer, npu: NpuConfig) -> int:
    """Each core has a block for its channels."""
    cores = range(min(npu.n_cores, layer.n_channels))
    return sum(scale_bytes(len(range(core, layer.n_channels, npu.n_cores))) for core in cores)


def requantized(weights: Int16Array, values: Int16Array, bits: int) -> Int16Array:
    """`values`, of a tensor in any order, on the grid of `bits` bits that suits `weights` best."""
    clip = least_error_clip(weights, bits)
    codes = requantize(np.arange(-WEIGHT_MAX, WEIGHT_MAX + 1), bits, clip).astype(np.int16)
    return codes[values + WEIGHT_MAX]


def _on_cpu(network: Network) -> Iterator[OpOnCpu]:
    for op in network.ops:
        reason = _reason(op)
        if reason is not None:
            yield OpOnCpu(op.name, op.kind, op.n_weights, reason)
    for number, subgraph in enumerate(network.subgraphs, 1):
        for op in subgraph.ops:
            if op.weight_tensors or not op.known:
                reason = f"ops must be in the main graph, got subgraph {number}"
                yield OpOnCpu(op.name, op.kind, op.n_weights, reason)


def _reason(op: Op) -> str | None:
    if not op.known:
        return "kind must be known to npusim, got another"
    return npu_obstacle(op) if op.weight_tensors else None
