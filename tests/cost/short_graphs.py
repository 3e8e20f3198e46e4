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

    def kernel(self) -> tuple[int, ...]:
        return self.pick(1, 6), self.pick(1, 6)

    def pool_kernel(self, x: Tensor) -> tuple[int, ...]:
        if self.maybe(0.3):
            return x.shape[1:3]
        return self.pick(1, 10), self.pick(1, 10)

    def groups(self, x: Tensor) -> int:
        return 2 if x.shape[3] % 2 == 0 and self.maybe(0.15) else 1

    def window(
        self, x: Tensor, kernel: tuple[int, ...], *, dilates: bool = False
    ) -> dict[str, Any]:
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


def _transpose_conv(draw: ShortGraph) -> Tensor | None:
    x = draw.take(4)
    if x is None or x.n_elements > 1500:
        return None
    kernel, depth = draw.kernel(), (1, 3, 8, 16)[draw.pick(0, 4)]
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
    "transpose convolution": _transpose_conv,
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
