# SPDX-License-Identifier: Apache-2.0
"""The Ethos-U weight stream: real weights to bytes and back, sizes without bytes, estimates.

From a layer's weights to its bytes: `reorder` puts them in the order the NPU reads them, `encode`
compresses them, `encoded_size` says how long that would be, `decode` and `restore` lead back.
"""

from __future__ import annotations

from npusim.weights.chunks import (
    chunk_iterations,
    estimate_iterations_from_counts,
    planned_iterations,
)
from npusim.weights.conditioning import (
    cluster,
    condition,
    least_error_clip,
    magnitude_mask,
    n_of_m,
    prune,
    requantize,
    weight_error,
)
from npusim.weights.estimate import estimate_size, estimate_size_from_counts, value_counts
from npusim.weights.measures import (
    MEASURES,
    as_printed_bits,
    binary_entropy_bits,
    compressed_bytes,
    entropy_bits,
    mask_aware_bits,
    weights_entropy_bits,
)
from npusim.weights.reorder import (
    WeightSlice,
    coded_weights,
    depth_slices,
    padding_runs,
    reorder,
    reorder_slices,
    restore,
)
from npusim.weights.scales import ChannelScales, pack_scales, scale_bytes, unpack_scales
from npusim.weights.stream import ENCODERS, StreamSlice, decode, encode, encoded_size, slices
from npusim.weights.traversal import choose_traversal, split_dilation

__all__ = [
    "ENCODERS",
    "MEASURES",
    "ChannelScales",
    "StreamSlice",
    "WeightSlice",
    "as_printed_bits",
    "binary_entropy_bits",
    "choose_traversal",
    "chunk_iterations",
    "cluster",
    "coded_weights",
    "compressed_bytes",
    "condition",
    "decode",
    "depth_slices",
    "encode",
    "encoded_size",
    "entropy_bits",
    "estimate_iterations_from_counts",
    "estimate_size",
    "estimate_size_from_counts",
    "least_error_clip",
    "magnitude_mask",
    "mask_aware_bits",
    "n_of_m",
    "pack_scales",
    "padding_runs",
    "planned_iterations",
    "prune",
    "reorder",
    "reorder_slices",
    "requantize",
    "restore",
    "scale_bytes",
    "slices",
    "split_dilation",
    "unpack_scales",
    "value_counts",
    "weight_error",
    "weights_entropy_bits",
]
