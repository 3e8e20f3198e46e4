# SPDX-License-Identifier: Apache-2.0
"""The operations that random networks are made of: each draws one and what it reads."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np

from npusim.tensor import Tensor

if TYPE_CHECKING:
    from random_graphs import RandomGraph


def ints(*values: Any) -> np.ndarray:
    return np.array(values, np.int32)


def _conv(draw: RandomGraph) -> Tensor | None:
    x = draw.take(4)
    if x is None:
        return None
    kernel = draw.kernel()
    depth = (4, 8, 16, 24, 32)[draw.pick(0, 5)]
    weights = draw.weights((depth, *kernel, x.shape[3] // draw.groups(x)), 0)
    window = draw.window(x, kernel, dilates=True)
    return draw.op(
        *("CONV_2D", x, weights, draw.bias(x, weights, depth)),
        scale=draw.scale(),
        fused_activation=draw.activation(),
        **window,
    )


def _depthwise(draw: RandomGraph) -> Tensor | None:
    x = draw.take(4)
    if x is None:
        return None
    kernel, multiplier = draw.kernel(), draw.pick(1, 3)
    depth = x.shape[3] * multiplier
    weights = draw.weights((1, *kernel, depth), 3)
    return draw.op(
        *("DEPTHWISE_CONV_2D", x, weights, draw.bias(x, weights, depth)),
        scale=draw.scale(),
        fused_activation=draw.activation(),
        depth_multiplier=multiplier,
        **draw.window(x, kernel, dilates=True),
    )


def _pool(draw: RandomGraph) -> Tensor | None:
    x = draw.take(4)
    if x is None:
        return None
    kind = ("MAX_POOL_2D", "AVERAGE_POOL_2D")[draw.pick(0, 2)]
    kernel = draw.pool_kernel(x)
    window = draw.window(x, kernel)
    activation = "RELU" if draw.maybe(0.2) else "NONE"
    return draw.op(
        kind, x, filter_h=kernel[0], filter_w=kernel[1], fused_activation=activation, **window
    )


def _fully_connected(draw: RandomGraph) -> Tensor | None:
    x = draw.take()
    if x is None:
        return None
    weights = draw.weights((draw.pick(1, 40), x.shape[-1]), 0)
    bias = draw.bias(x, weights, weights.shape[0])
    keep = draw.maybe(0.5)
    return draw.op(
        *("FULLY_CONNECTED", x, weights, bias),
        scale=draw.scale(),
        keep_num_dims=keep,
        fused_activation=draw.activation(),
    )


def _binary(draw: RandomGraph) -> Tensor | None:
    x = draw.take()
    if x is None:
        return None
    kind = ("ADD", "SUB", "MUL")[draw.pick(0, 3)]
    choice = draw.pick(0, 6)
    if choice == 0:
        other = draw.constant(x, (1,))
    elif choice == 1:
        other = draw.constant(x, (1,) * (len(x.shape) - 1) + x.shape[-1:])
    elif choice == 2:
        other = draw.constant(x, x.shape)
    else:
        other = draw.partner(x, lambda t: _broadcasts(x.shape, t.shape)) or x
    operands = (other, x) if draw.maybe(0.3) else (x, other)
    shape = np.broadcast_shapes(x.shape, other.shape)
    activation = "NONE" if x.dtype == "int16" else draw.activation()
    attributes = {"fused_activation": activation}
    return draw.op(kind, *operands, scale=draw.scale(), shape=shape, **attributes)


def _broadcasts(first: tuple[int, ...], second: tuple[int, ...]) -> bool:
    if len(first) != len(second):
        return False
    return all(a == b or 1 in (a, b) for a, b in zip(first, second, strict=True))


def _extreme(draw: RandomGraph) -> Tensor | None:
    x = draw.take()
    if x is None:
        return None
    kind = ("MINIMUM", "MAXIMUM")[draw.pick(0, 2)]
    other = draw.partner(x, lambda t: t.shape == x.shape) or draw.constant(x, (1,), like=True)
    return draw.op(kind, x, other, shape=x.shape)


def _unary(draw: RandomGraph) -> Tensor | None:
    x = draw.take()
    if x is None:
        return None
    kinds = ["RELU", "RELU6", "RELU_N1_TO_1", "LOGISTIC", "TANH", "LEAKY_RELU", "ABS", "QUANTIZE"]
    kinds += ["EXP", "RSQRT", "LOG", "NEG"]
    kinds += ["HARD_SWISH", "ELU", "GELU", "RELU_0_TO_1"] if x.dtype == "int8" else []
    kind = kinds[draw.pick(0, len(kinds))]
    given: dict[str, Any] = {"shape": x.shape}
    if kind == "LEAKY_RELU":
        given["alpha"] = (0.0, 0.1, 0.5, 1.5, -0.5, -1.0)[draw.pick(0, 6)]
    if kind in ("LOGISTIC", "TANH"):
        given["scale"] = 1 / 256 if x.dtype == "int8" else 1 / 32768
    elif kind == "NEG":
        return draw.op(kind, x, shape=x.shape)
    elif draw.maybe(0.5):
        given["scale"] = draw.scale()
    return draw.op(kind, x, **given)


def _prelu(draw: RandomGraph) -> Tensor | None:
    x = draw.take(4)
    if x is None:
        return None
    low, high = ((-20, 50), (30, 31), (-20, 120), (120, 121))[draw.pick(0, 4)]
    codes = draw.rng.integers(low, high, (1, 1, x.shape[3])).astype(x.dtype)
    alpha = draw.net.constant(codes, scales=0.01)
    scale = draw.scale() if draw.maybe(0.5) else None
    return draw.op("PRELU", x, alpha, shape=x.shape, scale=scale)


def _squared_difference(draw: RandomGraph) -> Tensor | None:
    x = draw.take()
    if x is None:
        return None
    other = draw.partner(x, lambda t: t.shape == x.shape) or x
    return draw.op("SQUARED_DIFFERENCE", x, other, shape=x.shape, scale=0.2)


def _concatenation(draw: RandomGraph) -> Tensor | None:
    x = draw.take()
    if x is None:
        return None
    axis = draw.pick(0, len(x.shape)) if draw.maybe(0.3) else len(x.shape) - 1
    if axis == 0 and len(x.shape) == 4:
        axis = 3

    def fits(tensor: Tensor) -> bool:
        return len(tensor.shape) == len(x.shape) and all(
            a == b or n == axis for n, (a, b) in enumerate(zip(x.shape, tensor.shape, strict=True))
        )

    parts = [x]
    for _ in range(draw.pick(1, 4)):
        other = draw.partner(x, fits)
        parts += [] if other is None else [other]
    if draw.maybe(0.1):
        parts.append(draw.constant(x, x.shape, like=True))
    shape = (*x.shape[:axis], sum(part.shape[axis] for part in parts), *x.shape[axis + 1 :])
    given: dict[str, Any] = {"scale": draw.scale()} if draw.maybe(0.2) else {}
    axis = axis - len(shape) if draw.maybe(0.3) else axis
    return draw.op("CONCATENATION", *parts, axis=axis, shape=shape, **given)


def _split(draw: RandomGraph) -> list[Tensor] | None:
    x = draw.take()
    if x is None:
        return None
    axis = draw.pick(0, len(x.shape))
    length = x.shape[axis]
    counts = [n for n in (1, 2, 3, 4) if length % n == 0]
    n_parts = counts[draw.pick(0, len(counts))]

    def part(size: int) -> tuple[int, ...]:
        return (*x.shape[:axis], size, *x.shape[axis + 1 :])

    written = axis - len(x.shape) if draw.maybe(0.3) else axis
    if draw.maybe(0.5) or length < 2:
        shapes = [part(length // n_parts)] * n_parts
        return draw.net.split("SPLIT", [ints(written), x], shapes, num_splits=n_parts)
    cut = draw.pick(1, length)
    sizes = [cut, length - cut]
    shapes = [part(size) for size in sizes]
    return draw.net.split("SPLIT_V", [x, ints(*sizes), ints(written)], shapes, num_splits=2)


def _slice(draw: RandomGraph) -> Tensor | None:
    x = draw.take()
    if x is None:
        return None
    begin = [draw.pick(0, length) if draw.maybe(0.4) else 0 for length in x.shape]
    size = [
        draw.pick(1, length - start + 1) if draw.maybe(0.5) else length - start
        for start, length in zip(begin, x.shape, strict=True)
    ]
    if draw.maybe(0.5):
        return draw.op("SLICE", x, ints(*begin), ints(*size), shape=size)
    step = [draw.pick(1, 4) if draw.maybe(0.3) and 0 < n < 3 else 1 for n in range(len(size))]
    end = [start + length for start, length in zip(begin, size, strict=True)]
    shape = [-(-length // jump) for length, jump in zip(size, step, strict=True)]
    return draw.op("STRIDED_SLICE", x, ints(*begin), ints(*end), ints(*step), shape=shape)


def _pad(draw: RandomGraph) -> Tensor | None:
    x = draw.take()
    if x is None:
        return None
    margins = draw.rng.integers(0, 3, (len(x.shape), 2)).astype(np.int32)
    margins[draw.rng.random(len(x.shape)) < 0.4] = 0
    if len(x.shape) == 4:
        margins[0] = 0
    shape = [n + int(sides.sum()) for n, sides in zip(x.shape, margins, strict=True)]
    if len(x.shape) == 4 and draw.maybe(0.2):
        margins[3] = 0
        for axis in (1, 2):
            margins[axis] = np.minimum(margins[axis], x.shape[axis] - 1)
        shape = [n + int(sides.sum()) for n, sides in zip(x.shape, margins, strict=True)]
        mode = ("REFLECT", "SYMMETRIC")[draw.pick(0, 2)]
        return draw.op("MIRROR_PAD", x, margins, shape=shape, mode=mode)
    if draw.maybe(0.3):
        value = draw.net.constant(np.array([3], x.dtype), scales=x.quantization.scales)
        return draw.op("PADV2", x, margins, value, shape=shape)
    return draw.op("PAD", x, margins, shape=shape)


def _reshape(draw: RandomGraph) -> Tensor | None:
    x = draw.take()
    if x is None:
        return None
    size = x.n_elements
    rank = draw.pick(1, 5)
    shape = [1] * rank
    for factor in _factors(size):
        shape[draw.pick(0, rank)] *= factor
    if rank == 4 and draw.batch == 1:
        shape = [1, shape[0] * shape[1], *shape[2:]]
    return draw.op("RESHAPE", x, ints(*shape), shape=shape)


def _factors(number: int) -> list[int]:
    found, factor = [], 2
    while number > 1:
        while number % factor == 0:
            found.append(factor)
            number //= factor
        factor += 1
    return found


def _transpose(draw: RandomGraph) -> Tensor | None:
    x = draw.take()
    if x is None:
        return None
    order = draw.rng.permutation(len(x.shape))
    if len(x.shape) == 4 and draw.maybe(0.7):
        order = np.array([0, *(1 + draw.rng.permutation(3))])
    shape = [x.shape[axis] for axis in order]
    return draw.op("TRANSPOSE", x, order.astype(np.int32), shape=shape)


def _softmax(draw: RandomGraph) -> Tensor | None:
    x = draw.take()
    if x is None:
        return None
    scale = 1 / 256 if x.dtype == "int8" else 1 / 32768
    zero_point = -128 if x.dtype == "int8" else 0
    return draw.op("SOFTMAX", x, scale=scale, zero_point=zero_point, beta=1.0)


def _reduction(draw: RandomGraph) -> Tensor | None:
    kind = ("MEAN", "SUM", "REDUCE_MAX", "REDUCE_MIN")[draw.pick(0, 4)]
    x = draw.take()
    if x is None:
        return None
    rank = len(x.shape)
    axes = sorted({draw.pick(0, rank) for _ in range(draw.pick(1, 3))})
    if kind == "MEAN" and rank == 4 and draw.maybe(0.7):
        axes = [1, 2]
    if kind == "SUM":
        axes = axes[:1]
    shape = [1 if axis in axes else n for axis, n in enumerate(x.shape)]
    keep = draw.maybe(0.6)
    if not keep:
        shape = [n for axis, n in enumerate(x.shape) if axis not in axes]
        if not shape:
            return None
    scale = draw.scale() if kind in ("MEAN", "SUM") else None
    return draw.op(kind, x, ints(*axes), shape=shape, keep_dims=keep, scale=scale)


def _arg_max(draw: RandomGraph) -> Tensor | None:
    x = draw.take(dtypes=("int8",))
    if x is None or len(x.shape) < 2:
        return None
    axis = ints(len(x.shape) - 1)
    return draw.op("ARG_MAX", x, axis, shape=x.shape[:-1], dtype="int32", output_type="int32")


def _matmul(draw: RandomGraph) -> Tensor | None:
    x = draw.take(4)
    if x is None:
        return None
    adj_x, adj_y = draw.maybe(0.2), draw.maybe(0.4)
    rows, reduced = x.shape[-2:] if not adj_x else x.shape[:-3:-1]
    columns = draw.pick(1, 20)
    shape = (columns, reduced) if adj_y else (reduced, columns)
    other = draw.net.input((*x.shape[:2], *shape), x.dtype, scale=0.05)
    ofm = (*x.shape[:2], rows, columns)
    return draw.op("BATCH_MATMUL", x, other, shape=ofm, scale=0.5, adj_x=adj_x, adj_y=adj_y)


def _resize(draw: RandomGraph) -> Tensor | None:
    x = draw.take(4)
    if x is None or x.n_elements > 600:
        return None
    kind = ("RESIZE_BILINEAR", "RESIZE_NEAREST_NEIGHBOR")[draw.pick(0, 2)]
    corners, half = ((0, 0), (0, 1), (1, 0))[draw.pick(0, 3)]
    scale = (2, 2, 4, 8, 3, 1)[draw.pick(0, 6)]
    size = [(length - corners) * scale + corners for length in x.shape[1:3]]
    given = {"align_corners": bool(corners), "half_pixel_centers": bool(half)}
    return draw.op(kind, x, ints(*size), shape=(x.shape[0], *size, x.shape[3]), **given)


def _tile(draw: RandomGraph) -> Tensor | None:
    x = draw.take()
    if x is None or x.n_elements > 600:
        return None
    counts = [draw.pick(1, 4) if draw.maybe(0.4) else 1 for _ in x.shape]
    shape = [n * count for n, count in zip(x.shape, counts, strict=True)]
    return draw.op("TILE", x, ints(*counts), shape=shape)


def _pack(draw: RandomGraph) -> Tensor | None:
    x = draw.take()
    if x is None or len(x.shape) > 3:
        return None
    parts = [x]
    for _ in range(draw.pick(0, 3)):
        parts.append(draw.partner(x, lambda t: t.shape == x.shape) or x)
    axis = draw.pick(0, len(x.shape) + 1)
    shape = (*x.shape[:axis], len(parts), *x.shape[axis:])
    return draw.op("PACK", *parts, axis=axis, values_count=len(parts), shape=shape)


def _unpack(draw: RandomGraph) -> list[Tensor] | None:
    x = draw.take()
    if x is None or len(x.shape) < 2:
        return None
    axis = draw.pick(0, len(x.shape))
    if x.shape[axis] > 4:
        return None
    shape = (*x.shape[:axis], *x.shape[axis + 1 :])
    n_parts = x.shape[axis]
    return draw.net.split("UNPACK", [x], [shape] * n_parts, axis=axis, num=n_parts)


def _cpu(draw: RandomGraph) -> Tensor | None:
    x = draw.take()
    if x is None:
        return None
    kind = ("SQRT", "SIN", "LOG_SOFTMAX", "ROUND")[draw.pick(0, 4)]
    return draw.op(kind, x, shape=x.shape)


def _extra_axes(draw: RandomGraph) -> Tensor | None:
    x = draw.take()
    if x is None:
        return None
    if draw.maybe(0.5) and len(x.shape) < 4:
        axis = draw.pick(0, len(x.shape) + 1)
        shape = (*x.shape[:axis], 1, *x.shape[axis:])
        return draw.op("EXPAND_DIMS", x, ints(axis), shape=shape)
    axes = [axis for axis, n in enumerate(x.shape) if n == 1]
    if not axes or len(x.shape) == 1:
        return None
    axis = axes[draw.pick(0, len(axes))]
    shape = (*x.shape[:axis], *x.shape[axis + 1 :])
    return draw.op("SQUEEZE", x, squeeze_dims=(axis,), shape=shape)


KINDS: dict[str, Callable[[RandomGraph], Any]] = {
    "convolution": _conv,
    "depthwise": _depthwise,
    "pool": _pool,
    "fully connected": _fully_connected,
    "binary": _binary,
    "extreme": _extreme,
    "unary": _unary,
    "prelu": _prelu,
    "squared difference": _squared_difference,
    "concatenation": _concatenation,
    "split": _split,
    "slice": _slice,
    "pad": _pad,
    "reshape": _reshape,
    "extra axes": _extra_axes,
    "transpose": _transpose,
    "softmax": _softmax,
    "reduction": _reduction,
    "arg max": _arg_max,
    "matmul": _matmul,
    "resize": _resize,
    "tile": _tile,
    "pack": _pack,
    "unpack": _unpack,
    "cpu": _cpu,
}
