# SPDX-License-Identifier: Apache-2.0
"""Random networks of many operations: branches that meet again, and every kind there is."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from random_graph_ops import KINDS

from npusim.formats import tflite_schema
from npusim.network import Network, Op
from npusim.network_builder import NetworkBuilder
from npusim.tensor import Tensor

SCALES = (0.05, 0.05, 0.05, 0.1)


class SeveralOutputs(NetworkBuilder):
    """A builder of operations with several outputs, too."""

    def split(self, kind: str, inputs: Sequence[Any], shapes: Sequence[Any], **given: Any):
        """An operation whose outputs have the quantization of its ifm."""
        tensors = [self.constant(item) if isinstance(item, np.ndarray) else item for item in inputs]
        ifm = next(tensor for tensor in tensors if tensor.data is None)
        fields = [field for field in tflite_schema.fields(kind) if field.name]
        values = {field.name: given.get(field.name, field.initial) for field in fields}
        names = [f"{kind.lower()}_{number}" for number in range(len(shapes))]
        outputs = [
            self._add(name, tuple(shape), ifm.dtype, ifm.quantization)
            for name, shape in zip(names, shapes, strict=True)
        ]
        op = Op(len(self._ops), kind, outputs[0].name, tuple(tensors), tuple(outputs), values)
        self._ops.append(op)
        return outputs


class RandomGraph:
    """One network of up to `n_ops` operations drawn from KINDS.

    Args:
        rng: source of all choices.
        kinds: names of `KINDS` to draw from, as often as they occur.
        n_ops: how many to draw.
        dtype: of the feature maps.
        batch: of the inputs.
    """

    kinds_known = KINDS

    def __init__(
        self,
        rng: np.random.Generator,
        kinds: Sequence[str],
        n_ops: int,
        dtype: str = "int8",
        batch: int = 1,
    ):
        self.rng, self.dtype, self.batch = rng, dtype, batch
        self.net = SeveralOutputs("graph")
        self.live: list[Tensor] = []
        self.used: set[int] = set()
        self.kinds: list[str] = []
        for _ in range(self.pick(1, 3)):
            self.live.append(self.image())
        for _ in range(n_ops):
            kind = str(rng.choice(list(kinds)))
            made = self.kinds_known[kind](self)
            made = [] if made is None else made
            self.live += made if isinstance(made, list) else [made]
            self.kinds += [kind] * bool(made)

    def build(self) -> Network | None:
        """The network; None if no operation fitted."""
        outputs = [
            tensor
            for tensor in self.live
            if self.net_producer(tensor) and (tensor.index not in self.used or self.maybe(0.05))
        ]
        return self.net.build(*outputs) if outputs else None

    def net_producer(self, tensor: Tensor) -> bool:
        return all(tensor is not given for given in self.net._inputs)

    def pick(self, low: int, high: int) -> int:
        return int(self.rng.integers(low, high))

    def maybe(self, probability: float) -> bool:
        return bool(self.rng.random() < probability)

    def scale(self) -> float:
        return SCALES[self.pick(0, len(SCALES))]

    def image(self) -> Tensor:
        height, width = self.pick(1, 13), self.pick(1, 13)
        depth = (1, 3, 4, 8, 16, 17, 32)[self.pick(0, 7)]
        shape = (self.batch, height, width, depth)
        return self.net.input(shape, self.dtype, scale=self.scale())

    def take(self, rank: int = 0, dtypes: Sequence[str] = ("int8", "int16")) -> Tensor | None:
        """A tensor to read, recent ones more often; None if there is none of that kind."""
        found = [
            tensor
            for tensor in self.live
            if (not rank or len(tensor.shape) == rank)
            and tensor.dtype in dtypes
            and tensor.quantization is not None
            and tensor.n_elements <= 4096
        ]
        if not found:
            return None
        tensor = found[-1 - min(self.pick(0, 4) if self.maybe(0.4) else 0, len(found) - 1)]
        self.used.add(tensor.index)
        return tensor

    def partner(self, x: Tensor, same: Callable[[Tensor], bool]) -> Tensor | None:
        """Another tensor that fulfils a condition."""
        found = [
            t for t in self.live if t is not x and t.dtype == x.dtype and t.quantization and same(t)
        ]
        if not found:
            return None
        tensor = found[self.pick(0, len(found))]
        self.used.add(tensor.index)
        return tensor

    def constant(self, x: Tensor, shape: tuple[int, ...], like: bool = False) -> Tensor:
        codes = self.rng.integers(-100, 100, shape).astype(x.dtype)
        scale = x.quantization.scales if like else 0.02
        return self.net.constant(codes, scales=scale)

    def op(self, kind: str, *inputs: Any, **given: Any) -> Tensor:
        return self.net.op(kind, *inputs, **given)

    def weights(self, shape: tuple[int, ...], axis: int) -> Tensor:
        codes = self.rng.integers(-127, 128, shape).astype(np.int8)
        return self.net.constant(codes, scales=np.full(shape[axis], 0.01), axis=axis)

    def bias(self, x: Tensor, weights: Tensor, n: int) -> Tensor:
        dtype = "int64" if x.dtype == "int16" else "int32"
        return self.net.bias(self.rng.integers(-100, 100, n), x, weights, dtype=dtype)

    def kernel(self) -> tuple[int, ...]:
        return self.pick(1, 4), self.pick(1, 4)

    def pool_kernel(self, x: Tensor) -> tuple[int, ...]:
        return self.kernel()

    def groups(self, x: Tensor) -> int:
        """Groups of a convolution of an even number of kernels."""
        return 1

    def window(
        self, x: Tensor, kernel: tuple[int, ...], *, dilates: bool = False
    ) -> dict[str, Any]:
        """Strides and padding of a convolution or a pool; dilates: whether it can be dilated."""
        strides = [self.pick(1, 4) for _ in "hw"] if self.maybe(0.3) else [1, 1]
        fits = all(length >= size for length, size in zip(x.shape[1:3], kernel, strict=True))
        return {
            "stride_h": strides[0],
            "stride_w": strides[1],
            "padding": "VALID" if fits and self.maybe(0.3) else "SAME",
        }

    def activation(self) -> str:
        return ("NONE", "NONE", "RELU", "RELU6", "TANH", "RELU_N1_TO_1")[self.pick(0, 6)]
