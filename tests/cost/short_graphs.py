# SPDX-License-Identifier: Apache-2.0
"""Short random networks with wider parameters than those of `random_graphs`.

Windows of any stride and dilation, groups, transpose convolutions, pools as large as their maps,
operands that are repeated along any axis, changes of type, batches.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from random_graph_ops import KINDS as NARROW_KINDS
from random_graph_ops import ints
from random_graphs import RandomGraph

from npusim.network import Network
from npusim.tensor import Tensor


class ShortGraph(RandomGraph):
    """One network of up to `n_ops` operations of small maps."""

    def image(self) -> Tensor:
        depth = (1, 2, 3, 4, 8, 16, 17, 32)[self.pick(0, 8)]
        shape = (self.batch, self.pick(1, 9), self.pick(1, 9), depth)
        return self.net.input(shape, self.dtype, scale=self.scale())

    def wide_window(self, x: Tensor, kernel: tuple[int, ...], dilates: bool) -> dict[str, Any]:
        """Strides up to 6 or dilations up to 4."""
        largest = 6 if self.maybe(0.15) else 3
        strides = [self.pick(1, largest + 1) for _ in "hw"] if self.maybe(0.5) else [1, 1]
        dilations = [1, 1]
        if dilates and strides == [1, 1] and self.maybe(0.4):
            dilations = [self.pick(1, 5), self.pick(1, 5)]
        extents = [(size - 1) * gap + 1 for size, gap in zip(kernel, dilations, strict=True)]
        fits = all(n >= extent for n, extent in zip(x.shape[1:3], extents, strict=True))
        given = {"stride_h": strides[0], "stride_w": strides[1]}
        if dilates:
            given |= {"dilation_h": dilations[0], "dilation_w": dilations[1]}
        return given | {"padding": "VALID" if fits and self.maybe(0.5) else "SAME"}


def _kernel(draw: ShortGraph, most: int = 5) -> tuple[int, int]:
    return draw.pick(1, most + 1), draw.pick(1, most + 1)


def _conv(draw: ShortGraph) -> Tensor | None:
    x = draw.take(4)
    if x is None:
        return None
    kernel, depth = _kernel(draw), (1, 3, 8, 16, 24)[draw.pick(0, 5)]
    grouped = draw.maybe(0.15) and x.shape[3] % 2 == 0 and depth % 2 == 0
    weights = draw.weights((depth, *kernel, x.shape[3] // (2 if grouped else 1)), 0)
    return draw.op(
        *("CONV_2D", x, weights, draw.bias(x, weights, depth)),
        scale=draw.scale(),
        fused_activation=draw.activation(),
        **draw.wide_window(x, kernel, True),
    )


def _depthwise(draw: ShortGraph) -> Tensor | None:
    x = draw.take(4)
    if x is None:
        return None
    kernel, multiplier = _kernel(draw), (1, 1, 2, 3)[draw.pick(0, 4)]
    depth = x.shape[3] * multiplier
    weights = draw.weights((1, *kernel, depth), 3)
    return draw.op(
        *("DEPTHWISE_CONV_2D", x, weights, draw.bias(x, weights, depth)),
        scale=draw.scale(),
        fused_activation=draw.activation(),
        depth_multiplier=multiplier,
        **draw.wide_window(x, kernel, True),
    )


def _transpose_conv(draw: ShortGraph) -> Tensor | None:
    x = draw.take(4)
    if x is None or x.n_elements > 1500:
        return None
    kernel, depth = _kernel(draw, 4), (1, 3, 8, 16)[draw.pick(0, 4)]
    strides = ((2, 2), (2, 2), (1, 1), (1, 2), (2, 1))[draw.pick(0, 5)]
    is_same = draw.maybe(0.5)
    size = [
        n * stride + (0 if is_same else max(length - stride, 0))
        for n, stride, length in zip(x.shape[1:3], strides, kernel, strict=True)
    ]
    if draw.maybe(0.1):  # left to the CPU
        size[0] = max(size[0] - 1, 1)
    weights = draw.weights((depth, *kernel, x.shape[3]), 0)
    shape = (x.shape[0], *size, depth)
    bias = [draw.bias(x, weights, depth)] if draw.maybe(0.7) else []
    return draw.op(
        *("TRANSPOSE_CONV", ints(*shape), weights, x, *bias),
        scale=draw.scale(),
        stride_h=strides[0],
        stride_w=strides[1],
        padding="SAME" if is_same else "VALID",
        shape=shape,
    )


def _pool(draw: ShortGraph) -> Tensor | None:
    x = draw.take(4)
    if x is None:
        return None
    kind = ("MAX_POOL_2D", "AVERAGE_POOL_2D")[draw.pick(0, 2)]
    kernel = x.shape[1:3] if draw.maybe(0.3) else _kernel(draw, 9)
    return draw.op(
        *(kind, x),
        filter_h=kernel[0],
        filter_w=kernel[1],
        fused_activation="RELU" if draw.maybe(0.2) else "NONE",
        **draw.wide_window(x, kernel, False),
    )


def _fully_connected(draw: ShortGraph) -> Tensor | None:
    x = draw.take()
    if x is None:
        return None
    flat = draw.maybe(0.3) and x.n_elements < 600
    depth = x.n_elements if flat else x.shape[-1]
    weights = draw.weights((draw.pick(1, 40), depth), 0)
    bias = [draw.bias(x, weights, weights.shape[0])] if draw.maybe(0.8) else []
    keep = draw.maybe(0.5) and not flat
    shape = {} if keep else {"shape": (x.n_elements // depth, weights.shape[0])}
    return draw.op(
        *("FULLY_CONNECTED", x, weights, *bias),
        scale=draw.scale(),
        keep_num_dims=keep,
        fused_activation=draw.activation(),
        **shape,
    )


def _to_type(draw: ShortGraph) -> Tensor | None:
    x = draw.take()
    if x is None:
        return None
    dtype = ("int8", "int16")[draw.pick(0, 2)]
    point = 0 if dtype == "int16" else draw.pick(-10, 10)
    return draw.op("QUANTIZE", x, shape=x.shape, dtype=dtype, scale=draw.scale(), zero_point=point)


def _repeated(draw: ShortGraph) -> Tensor | None:
    x = draw.take()
    if x is None:
        return None
    kinds = ("ADD", "SUB", "MUL", "MINIMUM", "MAXIMUM", "SQUARED_DIFFERENCE")
    kind = kinds[draw.pick(0, 6)]
    shape = [n if draw.maybe(0.5) else 1 for n in x.shape]
    for axis, n in enumerate(x.shape):
        if n == 1 and draw.maybe(0.4) and x.n_elements < 500:
            shape[axis] = draw.pick(1, 6)
    while len(shape) > 1 and shape[0] == 1 and draw.maybe(0.5):
        shape = shape[1:]
    is_extreme = kind.endswith("IMUM")
    if draw.maybe(0.5):
        scale = x.quantization.scales[0] if is_extreme else draw.scale()
        other = draw.net.input(tuple(shape), x.dtype, scale=scale)
    else:
        other = draw.constant(x, tuple(shape), like=is_extreme)
    given: dict[str, Any] = {} if is_extreme else {"scale": draw.scale()}
    if kind in ("ADD", "SUB", "MUL") and x.dtype != "int16":
        given["fused_activation"] = draw.activation()
    operands = (other, x) if draw.maybe(0.4) else (x, other)
    return draw.op(kind, *operands, shape=np.broadcast_shapes(x.shape, tuple(shape)), **given)


KINDS: dict[str, Callable[[Any], Any]] = {
    **{kind: make for kind, make in NARROW_KINDS.items() if kind != "cpu"},
    "convolution": _conv,
    "depthwise": _depthwise,
    "transpose convolution": _transpose_conv,
    "pool": _pool,
    "fully connected": _fully_connected,
    "to type": _to_type,
    "repeated": _repeated,
}
ShortGraph.kinds_known = KINDS
_THIRD = ("convolution", "pool", "unary", "reshape")


def short_graph(seed: int) -> Network | None:
    """A network of one to four operations of three kinds; None if none of them fits."""
    rng = np.random.default_rng((4711, seed))
    kinds = [*rng.choice(list(KINDS), 2), rng.choice(_THIRD)]
    n_ops, dtype = int(rng.integers(1, 5)), ("int8", "int8", "int8", "int16")[rng.integers(0, 4)]
    batch = (1, 1, 1, 2, 3)[rng.integers(0, 5)]
    return ShortGraph(rng, [str(kind) for kind in kinds], n_ops, dtype, batch).build()
