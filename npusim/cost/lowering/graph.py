# SPDX-License-Identifier: Apache-2.0
"""A network while it is being lowered: steps that read and write values, changed in place.

Unlike a `npusim.Network`, several steps may write parts of one value, a step may see a value in
another shape than it is stored in, and steps come and go. The order in which a value's writers and
a step's inputs were added decides the order of execution.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Iterator
from dataclasses import dataclass, field, replace
from typing import Any

from npusim.cost.program import Pair, WeightSource
from npusim.network import Op
from npusim.tensor import Quantization

Shape = tuple[int, ...]


class Value:
    """A tensor in memory.

    Attributes:
        name: of the network's tensor, or what tells where it comes from.
        shape: as stored; None where the network does not tell.
        dtype: a key of `npusim.tensor.DTYPES`.
        quantization: None if there is none.
        n_constant_bytes: what a constant takes; 0 for other values.
        content: as `program.FeatureMap`; for a constant of the network, its tensor.
        is_input: whether the caller provides it.
        is_output: whether the caller gets it.
        is_variable: whether it keeps its content from one inference to the next.
        home: the value whose memory it is; itself for most.
        writers: steps that write it, each once.
        readers: steps that read it, each once.
    """

    __slots__ = (
        *("name", "shape", "dtype", "quantization", "n_constant_bytes", "is_constant"),
        "content",
        *("is_input", "is_output", "is_variable", "home", "writers", "readers"),
    )

    def __init__(
        self,
        name: str,
        shape: Shape | None,
        dtype: str,
        quantization: Quantization | None = None,
        *,
        n_constant_bytes: int | None = None,
        content: Hashable = None,
    ):
        self.name = name
        self.shape = shape
        self.dtype = dtype
        self.quantization = quantization
        self.n_constant_bytes = n_constant_bytes or 0
        self.is_constant = n_constant_bytes is not None
        self.content = content
        self.is_input = self.is_output = self.is_variable = False
        self.home: Value = self
        self.writers: list[Step] = []
        self.readers: list[Step] = []

    def like(self, suffix: str, shape: Shape | None = None, dtype: str = "") -> Value:
        """A new value of the same shape and type but for what is given, with a longer name."""
        shape = self.shape if shape is None else shape
        return Value(self.name + suffix, shape, dtype or self.dtype, self.quantization)

    def __repr__(self) -> str:
        return f"<Value {self.name!r} {self.dtype}{self.shape}>"


@dataclass(slots=True, eq=False)
class Link:
    """How a step sees a value.

    Attributes:
        value: what it reads or writes.
        shape: of the whole value, as this step counts its axes.
        quantization: as this step understands the codes.
        offset: where the part begins that it reads or writes; None: it takes everything.
        part: shape of that part; None: everything.
        stride: distance of the elements that are taken, for each axis; None: 1.
        bits: of an element as this step reads it; 0: those of the value.
    """

    value: Value
    shape: Shape
    quantization: Quantization | None = None
    offset: Shape | None = None
    part: Shape | None = None
    stride: Shape | None = None
    bits: int = 0

    @property
    def taken(self) -> Shape:
        """Shape of what is read or written, before strides."""
        return self.shape if self.part is None else self.part

    def seen(self, shape: Shape) -> Link:
        """The same in another shape."""
        return replace(self, shape=shape)

    def at(self, offset: Shape, part: Shape) -> Link:
        """A part of the same value."""
        return replace(self, offset=offset, part=part)


def same(first: Shape, second: Shape) -> bool:
    """Whether two shapes are equal but for axes of length 1 in front."""
    rank = max(len(first), len(second))
    return (1,) * (rank - len(first)) + first == (1,) * (rank - len(second)) + second


def whole(value: Value, shape: Shape | None = None) -> Link:
    """A value as it is stored, or in another shape."""
    shape = value.shape if shape is None else shape
    return Link(value, shape or (), value.quantization)


@dataclass(frozen=True, slots=True)
class Window:
    """What a convolution or a pool looks at for one element of its ofm; see `program.NpuOp`."""

    kernel: Pair = (1, 1)
    stride: Pair = (1, 1)
    dilation: Pair = (1, 1)
    padding: tuple[int, int, int, int] = (0, 0, 0, 0)

    @property
    def extent(self) -> Pair:
        """(height, width) that the dilated kernel covers."""
        height, width = (
            (size - 1) * step + 1 for size, step in zip(self.kernel, self.dilation, strict=True)
        )
        return height, width


@dataclass(slots=True, eq=False)
class Step:
    """Something to be executed: an operation of the network, or part of what it becomes.

    Attributes:
        kind: of the network's operation until it is lowered, then a key of `program.UNITS`.
        inputs: what it reads; constants only as operands of element-wise steps.
        outputs: what it writes; one for all steps of the NPU.
        op: the network's operation it stems from.
        suffix: tells the steps of one operation apart.
        window: of convolutions and pools.
        weights: of convolutions and products.
        scaled: whether the output is rescaled.
        table_bytes: of a look-up table.
        axis: along which a reduction, a concatenation or a split runs.
        permutation: of a transpose.
        upscale: as `program.NpuOp`.
        nearest: as `program.NpuOp`.
        reverse: axis, of height and width, that a copy turns round; empty for none.
        clamps: whether an activation is a clamp and no table.
        scratch: shape of what it needs beside its operands.
        obstacle: why it is left to the CPU.
    """

    kind: str
    op: Op | None
    inputs: list[Link] = field(default_factory=list)
    outputs: list[Link] = field(default_factory=list)
    suffix: str = ""
    window: Window = field(default_factory=Window)
    weights: WeightSource | None = None
    has_scales: bool = False
    scaled: bool = True
    table_bytes: int = 0
    axis: int = 0
    permutation: Shape = ()
    upscale: Pair = (1, 1)
    nearest: bool = False
    reverse: str = ""
    scratch: Shape | None = None
    obstacle: str = ""
    attributes: dict[str, Any] = field(default_factory=dict)

    @property
    def ifm(self) -> Link:
        """The first input."""
        return self.inputs[0]

    @property
    def ofm(self) -> Link:
        """The first output."""
        return self.outputs[0]

    @property
    def ifm_bits(self) -> int:
        """Bits of an element of the first input."""
        return {"int16": 16, "int32": 32}.get(self.ifm.value.dtype, 8)

    def read(self, link: Link) -> None:
        """Add an input."""
        self.inputs.append(link)
        _add(link.value.readers, self)

    def write(self, link: Link) -> None:
        """Add an output."""
        self.outputs.append(link)
        _add(link.value.writers, self)

    def read_instead(self, index: int, link: Link) -> None:
        """Exchange an input."""
        old, self.inputs[index] = self.inputs[index].value, link
        if all(other.value is not old for other in self.inputs):
            old.readers.remove(self)
        _add(link.value.readers, self)

    def write_instead(self, index: int, link: Link) -> None:
        """Exchange an output."""
        old, self.outputs[index] = self.outputs[index].value, link
        if all(other.value is not old for other in self.outputs):
            old.writers.remove(self)
        _add(link.value.writers, self)

    def remove(self) -> None:
        """Take it out of the graph; its links stay readable."""
        for link in self.inputs:
            _discard(link.value.readers, self)
        for link in self.outputs:
            _discard(link.value.writers, self)

    @property
    def alive(self) -> bool:
        """Whether it is in the graph."""
        return any(self in link.value.writers for link in self.outputs)


def _add(steps: list[Step], step: Step) -> None:
    if step not in steps:
        steps.append(step)


def _discard(steps: list[Step], step: Step) -> None:
    if step in steps:
        steps.remove(step)


class Graph:
    """Steps that lead to outputs.

    Attributes:
        name: of the network.
        outputs: values that are wanted, in order.
        has_variables: whether values keep their content between inferences; the writers of a
            value are then executed in the order they were added, else in reverse.
    """

    def __init__(self, name: str, outputs: list[Value], has_variables: bool):
        self.name = name
        self.outputs = outputs
        self.has_variables = has_variables

    def add(
        self, kind: str, inputs: Iterable[Link], output: Link, like: Step, **facts: Any
    ) -> Step:
        """Add a step with one output that stems from the same operation as `like`."""
        step = Step(kind, like.op, **facts)
        for link in inputs:
            step.read(link)
        step.write(output)
        return step

    def from_outputs(self, *, as_rewritten: bool = False) -> Iterable[Step]:
        """All steps, each before those it was first reached from: for rewriting.

        Args:
            as_rewritten: whether the way goes on from what each step has become until the next one
                is asked for, new steps included; else all is as it is now.
        """
        steps = self._walk(entering=True, in_order=False)
        return steps if as_rewritten else list(steps)

    def execution_order(self) -> list[Step]:
        """All steps as they are executed, depth first: last outputs and last inputs first."""
        return list(self._walk(entering=False, in_order=self.has_variables))

    def _walk(self, *, entering: bool, in_order: bool) -> Iterator[Step]:
        direction = -1 if in_order else 1
        seen: dict[int, Step] = {}  # kept, lest new steps have numbers of removed ones
        stack = [(step, False) for value in self.outputs for step in value.writers[::direction]]
        while stack:
            step, is_done = stack.pop()
            if is_done:
                yield step
            elif id(step) not in seen:
                seen[id(step)] = step
                if entering:
                    yield step
                else:
                    stack.append((step, True))
                values = [link.value for link in step.inputs]
                if entering:  # and perhaps rewritten
                    read = [v for v in values if any(id(one) in seen for one in v.readers)]
                    values = [*(link.value for link in step.outputs), *read]
                stack += [
                    (writer, False) for value in values for writer in value.writers[::direction]
                ]
