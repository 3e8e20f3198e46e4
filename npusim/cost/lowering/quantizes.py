# SPDX-License-Identifier: Apache-2.0
"""QUANTIZE operations that need no operation of their own.

One that keeps the scale joins the step behind it or else the step before it, if that alone reads
or writes what is between them: a step behind if the codes have a zero point of 0, and those before
it too unless it widens them; a step before if the codes that it wrote have a zero point of 0. Of
several in a row that keep the scale one is left. NEG takes any scale.

Source: [VELA] regor 5.2.0, found by comparing with its compiled operations.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Final

import numpy as np

from npusim.cost.lowering.elementwise import slopes_of
from npusim.cost.lowering.graph import Graph, Link, Step
from npusim.tensor import Quantization

_POOLS: Final = ("MAX_POOL_2D", "REDUCE_MAX", "REDUCE_MIN")
_WEIGHTED: Final = ("CONV_2D", "DEPTHWISE_CONV_2D", "FULLY_CONNECTED")
_BEFORE: Final = (
    *(*_WEIGHTED, "MUL", "MINIMUM", "MAXIMUM", "ABS", "NEG", "MEAN", "SUM", "SOFTMAX"),
    *("SQUARED_DIFFERENCE", "PRELU", "QUANTIZE", *_POOLS, "BATCH_MATMUL"),
)
_PAIRS: Final = ("MUL", "MINIMUM", "MAXIMUM")
_WIDENING: Final = (("int8", "int16"), ("uint8", "int8"), ("uint8", "int16"))
"""Types of codes before and behind, of which the ranges of the latter are larger or begin lower."""
_BEHIND: Final = (
    *(*_WEIGHTED, "ABS", "NEG", "MEAN", "SUM", "ARG_MAX", "QUANTIZE", "BATCH_MATMUL", *_POOLS),
)


def fuse_quantize(graph: Graph, step: Step) -> None:
    """Let a step next to a QUANTIZE do its work."""
    del graph
    reader, writer = _reader(step), _writer(step)
    if reader is not None:
        step.remove()
        for index, link in enumerate(reader.inputs):
            if link.value is step.ofm.value:
                seen = replace(step.ifm, shape=link.shape, quantization=link.quantization)
                reader.read_instead(index, seen)
    elif writer is not None:
        step.remove()
        writer.write_instead(0, step.ofm.seen(writer.ofm.shape))


def _reader(step: Step) -> Step | None:
    ifm, ofm = step.ifm, step.ofm
    if ofm.value.is_output or len(ofm.value.readers) != 1 or not _keeps_distances(ifm, ofm):
        return None
    reader = ofm.value.readers[0]
    widens = _dtypes(ifm, ofm) in _WIDENING and reader.kind not in _POOLS
    if ifm.value.dtype != ofm.value.dtype and not (widens or reader.kind == "QUANTIZE"):
        return None
    if reader.kind in _PAIRS:
        links = [link for link in reader.inputs if link.value is ofm.value]
        return reader if len(links) == 1 and ifm.value.dtype == ofm.value.dtype else None
    return reader if reader.kind in _BEHIND and reader.ifm.value is ofm.value else None


def _writer(step: Step) -> Step | None:
    ifm, ofm = step.ifm, step.ofm
    if ifm.value.is_output or len(ifm.value.readers) != 1 or len(ifm.value.writers) != 1:
        return None
    writer = ifm.value.writers[0]
    if writer.kind == "NEG":
        return writer
    if writer.kind in _POOLS and ifm.value.dtype != ofm.value.dtype:
        return None
    if writer.kind == "PRELU" and not _ends_in_maximum(writer):
        return None
    keeps = _same_scales(ifm, ofm) and not _numbers(ifm).zero_points.any()
    return writer if writer.kind in _BEFORE and keeps else None


def _ends_in_maximum(prelu: Step) -> bool:
    assert prelu.op is not None
    alpha = prelu.op.inputs[1]
    if alpha is None or alpha.data is None:
        return False
    slopes = slopes_of(alpha)
    return bool(slopes.min() < slopes.max() <= 1)


def _numbers(link: Link) -> Quantization:
    assert link.quantization is not None
    return link.quantization


def _same_scales(first: Link, second: Link) -> bool:
    return np.array_equal(_numbers(first).scales, _numbers(second).scales)


def _dtypes(first: Link, second: Link) -> tuple[str, str]:
    return first.value.dtype, second.value.dtype


def _keeps_distances(first: Link, second: Link) -> bool:
    is_free = _dtypes(first, second) in _WIDENING or not _numbers(first).zero_points.any()
    return _same_scales(first, second) and is_free and not _numbers(second).zero_points.any()
