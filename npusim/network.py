# SPDX-License-Identifier: Apache-2.0
"""A quantized network: a typed DAG of operations on tensors, independent of any file format.

Operation kinds, the order of their inputs and the layout of their weights are those of TFLite;
the attributes of each kind are listed in `npusim.formats.tflite_schema`. Maps are
``[N, H, W, C]``. Weights as stored:

=================  ================  ======================================================
kind               layout            quantization axis; remarks
=================  ================  ======================================================
CONV_2D            ``[O, H, W, I]``  0; I is the ifm depth divided by the number of groups
DEPTHWISE_CONV_2D  ``[1, H, W, O]``  3; O is the ifm depth times the depth multiplier
FULLY_CONNECTED    ``[O, I]``        0; the ifm is flattened to ``[N, I]``
TRANSPOSE_CONV     ``[O, H, W, I]``  0; input 0 is the shape of the ofm
=================  ================  ======================================================
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, TypeAlias

import numpy as np
import numpy.typing as npt

from npusim.errors import ConfigError
from npusim.tensor import Quantization as Quantization
from npusim.tensor import Tensor as Tensor
from npusim.tensor import shortened

if TYPE_CHECKING:
    import networkx

Attribute: TypeAlias = int | float | str | tuple[int | float, ...]
"""Value of an attribute; a bool is an int here."""

_CONV = ("ifm", "weights", "bias")
_TRANSPOSE_CONV = ("ofm_shape", "weights", "ifm", "bias")
_RNN = ("ifm", "weights", "weights_recurrent", "bias", "state")
_GATES = ("input", "forget", "cell", "output")
_LSTM = (
    "ifm",
    *(f"weights_{gate}" for gate in _GATES),
    *(f"weights_recurrent_{gate}" for gate in _GATES),
    *(f"peephole_{gate}" for gate in ("input", "forget", "output")),
    *(f"bias_{gate}" for gate in _GATES),
    "weights_projection",
    "bias_projection",
    "state",
    "cell_state",
    *(f"layer_norm_{gate}" for gate in _GATES),
)
INPUT_ROLES: Final[Mapping[str, tuple[str, ...]]] = {
    "CONV_2D": _CONV,
    "DEPTHWISE_CONV_2D": _CONV,
    "FULLY_CONNECTED": _CONV,
    "TRANSPOSE_CONV": _TRANSPOSE_CONV,
    "CONV_3D": _CONV,
    "CONV_3D_TRANSPOSE": _TRANSPOSE_CONV,
    "RNN": _RNN,
    "UNIDIRECTIONAL_SEQUENCE_RNN": _RNN,
    "SVDF": ("ifm", "weights_feature", "weights_time", "bias", "state"),
    "LSTM": _LSTM,
    "UNIDIRECTIONAL_SEQUENCE_LSTM": _LSTM,
    "SPLIT": ("axis", "ifm"),
    "ETHOS_U": ("command_stream", "flash", "scratch", "scratch_fast", "ifm"),
}
"""What the inputs of a kind are, in order; for `Op.input`. Of other kinds only the ifm is named."""

_RANKS: Final[Mapping[str, tuple[int | None, int, int | None]]] = {
    "CONV_2D": (4, 4, 4),
    "DEPTHWISE_CONV_2D": (4, 4, 4),
    "TRANSPOSE_CONV": (4, 4, 4),
    "FULLY_CONNECTED": (None, 2, None),
}
"""Axes of ifm, weights and ofm of the kinds that have OHWI weights; None: any number."""

_OFM_DEPTH_AXIS: Final[Mapping[str, int]] = {"DEPTHWISE_CONV_2D": 3, "CONV_3D": 4}
"""Axis of the weights along which ofm channels run; 0 for other kinds."""

_WEIGHT_DTYPES: Final = ("int2", "int4", "uint4", "int8", "uint8", "int16")
_CORRECTED_MAX: Final = 255


@dataclass(frozen=True, slots=True)
class Op:
    """One operation of a network.

    Attributes:
        index: position in `Network.ops`, which is the order of execution.
        kind: "CONV_2D" and so on; "ETHOS_U" for what a compiler gave to the NPU, "CUSTOM:name"
            for other custom operations, "BUILTIN_212" for a code without a known name.
        name: of the first output that has one, else the kind in lower case; made unique by "#2"
            and so on.
        inputs: in the order of the kind; None for an optional input that is left out.
        outputs: tensors this operation writes.
        attributes: every attribute of the kind, defaults included; not to be changed.
        known: whether npusim represents all that the operation says.
        version: of the kind's definition, as in the model file.
        intermediates: tensors inside the operation that carry only quantization.
        custom_code: name of a custom operation, else empty.
        custom_options: what a custom operation stores in its own format.

    Raises:
        ConfigError: a convolution or fully connected operation without ifm, weights or ofm, or
            with a number of axes its kind does not have.
    """

    index: int
    kind: str
    name: str
    inputs: tuple[Tensor | None, ...] = field(repr=False)
    outputs: tuple[Tensor, ...] = field(repr=False)
    attributes: Mapping[str, Attribute] = field(default_factory=dict)
    known: bool = True
    version: int = 1
    intermediates: tuple[Tensor | None, ...] = field(default=(), repr=False)
    custom_code: str = ""
    custom_options: bytes = b""

    def __post_init__(self) -> None:
        if self.kind not in _RANKS:
            return
        roles = zip(("ifm", "weights", "ofm"), (self.ifm, self.weights, self.ofm), strict=True)
        for (role, tensor), rank in zip(roles, _RANKS[self.kind], strict=True):
            if tensor is None:
                raise ConfigError(f"{self!s} must have {role}, got none")
            if rank is not None and len(tensor.shape) != rank:
                raise ConfigError(
                    f"{role} of {self!s} must have {rank} axes, got shape {tensor.shape}"
                )

    def input(self, role: str) -> Tensor | None:
        """The input in a role of `INPUT_ROLES`, such as "flash" of "ETHOS_U"; None if left out.

        Raises:
            ConfigError: the kind has no such role.
        """
        roles = INPUT_ROLES.get(self.kind, ())
        if role not in roles:
            known = ", ".join(roles) or "none"
            raise ConfigError(f"role of an input of {self!s} must be one of {known}, got {role!r}")
        position = roles.index(role)
        return self.inputs[position] if position < len(self.inputs) else None

    @property
    def ifm(self) -> Tensor | None:
        """The (first) input feature map; see `find_ifm`."""
        return find_ifm(self.kind, self.inputs)

    @property
    def ofm(self) -> Tensor | None:
        """The (first) output feature map; None if there is none."""
        return self.outputs[0] if self.outputs else None

    @property
    def weights(self) -> Tensor | None:
        """The weights of a kind that has a single weight tensor; constant or not."""
        return self.input("weights") if len(self._weight_roles()) == 1 else None

    @property
    def weight_tensors(self) -> tuple[Tensor, ...]:
        """All weight tensors that are present: several for recurrent kinds, none for most."""
        tensors = (self.input(role) for role in self._weight_roles())
        return tuple(tensor for tensor in tensors if tensor is not None)

    @property
    def bias(self) -> Tensor | None:
        """The bias of a kind that has a single one; None if left out."""
        return self.input("bias") if "bias" in INPUT_ROLES.get(self.kind, ()) else None

    def _weight_roles(self) -> tuple[str, ...]:
        roles = INPUT_ROLES.get(self.kind, ())
        return tuple(role for role in roles if role.startswith("weights"))

    @property
    def n_weights(self) -> int:
        """Number of elements of all weight tensors."""
        return sum(tensor.n_elements for tensor in self.weight_tensors)

    @property
    def macs(self) -> int:
        """MACs of the weights for one inference; 0 for kinds without weights.

        Every weight is used once per position: of the ofm, for a transpose convolution of the
        ifm, for recurrent kinds per step and batch. Padding counts like other input.
        """
        ifm, ofm, tensors = self.ifm, self.ofm, self.weight_tensors
        if ifm is None or ofm is None or not tensors:
            return 0
        if self.kind in ("TRANSPOSE_CONV", "CONV_3D_TRANSPOSE"):
            positions = _positions(ifm)
        elif self.kind in _RANKS or self.kind == "CONV_3D":
            axis = _OFM_DEPTH_AXIS.get(self.kind, 0)
            shape = tensors[0].shape
            depth = shape[axis] if axis < len(shape) else 0
            positions = ofm.n_elements // depth if depth else 0
        else:
            positions = _positions(ifm)
        return positions * self.n_weights

    def weights_ohwi(self) -> npt.NDArray[np.int16]:
        """Weights less their zero points, in the layout the NPU's weight stream is made from.

        Returns:
            int16, shape [O, H, W, I], values in -255..255, a new array: CONV_2D as stored;
            DEPTHWISE_CONV_2D as [O, H, W, 1]; FULLY_CONNECTED as [O, 1, 1, I]; TRANSPOSE_CONV
            with the kernel turned by 180 degrees in H and W.

        Raises:
            ConfigError: another kind, weights that are not constant integers of at most 16 bits,
                or a corrected value outside -255..255.
        """
        tensor = self.weights if self.kind in _RANKS else None
        if tensor is None:
            kinds = ", ".join(_RANKS)
            raise ConfigError(f"op with OHWI weights must be one of {kinds}, got {self!s}")
        if tensor.data is None or tensor.dtype not in _WEIGHT_DTYPES:
            state = "not constant" if tensor.data is None else "constant"
            raise ConfigError(
                f"weights of {self!s} must be constant and of {', '.join(_WEIGHT_DTYPES)}, "
                f"got {tensor!s}, {state}"
            )
        order = self.attributes.get("weights_format", "DEFAULT")
        if order != "DEFAULT":
            raise ConfigError(f"weights_format of {self!s} must be DEFAULT, got {order}")
        values = corrected(tensor, str(self))
        if self.kind == "DEPTHWISE_CONV_2D":
            if values.shape[0] != 1:
                raise ConfigError(
                    f"weights of {self!s} must have shape [1, H, W, O], got {tensor.shape}"
                )
            values = values.transpose(3, 1, 2, 0)
        elif self.kind == "FULLY_CONNECTED":
            values = values[:, None, None, :]
        elif self.kind == "TRANSPOSE_CONV":
            values = values[:, ::-1, ::-1, :]
        return np.ascontiguousarray(values)

    def __str__(self) -> str:
        return f"{shortened(self.kind)} {shortened(self.name)!r}"

    def __hash__(self) -> int:
        return hash((self.index, self.kind, self.name))


def find_ifm(kind: str, inputs: Sequence[Tensor | None]) -> Tensor | None:
    """The input with the role "ifm", or if none has it, the first that is not constant."""
    roles = INPUT_ROLES.get(kind, ())
    if "ifm" in roles:
        position = roles.index("ifm")
        return inputs[position] if position < len(inputs) else None
    return next((tensor for tensor in inputs if tensor is not None and tensor.data is None), None)


def _positions(tensor: Tensor) -> int:
    depth = tensor.shape[-1] if tensor.shape else 1
    return tensor.n_elements // depth if depth else 0


def corrected(tensor: Tensor, owner: str) -> npt.NDArray[np.int16]:
    """Constant values of a weight tensor less their zero points as int16 of the same shape.

    Args:
        tensor: a constant of integers.
        owner: what has these weights, for the error.

    Raises:
        ConfigError: a value outside -255..255.
    """
    assert tensor.data is not None
    quantization = tensor.quantization
    points = np.zeros(1, np.int64) if quantization is None else quantization.zero_points
    if tensor.data.itemsize == 1 and not points.any():
        return tensor.data.astype(np.int16)
    shape = [1] * tensor.data.ndim
    if quantization is not None and points.size > 1:
        shape[quantization.axis] = points.size
    values = tensor.data - points.reshape(shape)  # int64: no overflow, zero points fit int32
    low, high = int(values.min()), int(values.max())
    if low < -_CORRECTED_MAX or high > _CORRECTED_MAX:
        raise ConfigError(
            f"weights of {owner} less their zero points must be in "
            f"-{_CORRECTED_MAX}..{_CORRECTED_MAX}, got {low}..{high}"
        )
    return values.astype(np.int16)


@dataclass(frozen=True, slots=True, repr=False, weakref_slot=True)
class Network:
    """Operations in order of execution and the tensors between them: a directed acyclic graph.

    Attributes:
        name: for people; by default the file's name without its ending.
        tensors: all of them; `Tensor.index` is the position here.
        ops: each reads only tensors that earlier ones, or none, write.
        inputs: what a caller provides.
        outputs: what a caller gets.
        description: as in the model file.
        metadata: (name, content) in the order of the file; names may repeat.
        subgraphs: further graphs that operations such as CALL_ONCE refer to, from number 1 on.

    Raises:
        ConfigError: numbering, names or order break a rule above, or a tensor is written twice.
    """

    name: str
    tensors: tuple[Tensor, ...]
    ops: tuple[Op, ...]
    inputs: tuple[Tensor, ...]
    outputs: tuple[Tensor, ...]
    description: str = ""
    metadata: tuple[tuple[str, bytes], ...] = ()
    subgraphs: tuple[Network, ...] = ()
    _producers: dict[int, Op] = field(init=False, compare=False)
    _consumers: dict[int, list[Op]] = field(init=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "_producers", {})
        object.__setattr__(self, "_consumers", {})
        for position, tensor in enumerate(self.tensors):
            if tensor.index != position:
                raise ConfigError(f"index of {tensor!s} must be {position}, got {tensor.index}")
        for tensor in (*self.inputs, *self.outputs):
            self._check_member(tensor, "network")
        names: set[str] = set()
        for position, op in enumerate(self.ops):
            if op.index != position:
                raise ConfigError(f"index of {op!s} must be {position}, got {op.index}")
            if op.name in names:
                raise ConfigError(f"names of ops must differ, got {op.name!r} twice")
            names.add(op.name)
            self._connect(op)

    def _connect(self, op: Op) -> None:
        present = [tensor for tensor in (*op.inputs, *op.intermediates) if tensor is not None]
        for tensor in (*present, *op.outputs):
            self._check_member(tensor, str(op))
        for index in dict.fromkeys(t.index for t in op.inputs if t is not None):
            self._consumers.setdefault(index, []).append(op)
        for tensor in op.outputs:
            writer = self._producers.get(tensor.index)
            if writer is not None:
                raise ConfigError(f"{tensor!s} must be written once, got {writer!s} and {op!s}")
            if tensor.data is not None:
                raise ConfigError(f"output of {op!s} must not be constant, got {tensor!s}")
            if tensor.index in self._consumers:
                reader = self._consumers[tensor.index][0]
                raise ConfigError(
                    f"{tensor!s} must be written before it is read, got {reader!s} before {op!s}"
                )
            self._producers[tensor.index] = op

    def _check_member(self, tensor: Tensor, owner: str) -> None:
        if not (0 <= tensor.index < len(self.tensors) and self.tensors[tensor.index] is tensor):
            raise ConfigError(f"tensors of {owner} must be in the network's list, got {tensor!s}")

    def producer(self, tensor: Tensor) -> Op | None:
        """The operation that writes `tensor`; None for constants and the network's inputs.

        Raises:
            ConfigError: `tensor` is not of this network.
        """
        self._check_member(tensor, f"network {self.name!r}")
        return self._producers.get(tensor.index)

    def consumers(self, tensor: Tensor) -> tuple[Op, ...]:
        """The operations that read `tensor`, each once, in order.

        Raises:
            ConfigError: `tensor` is not of this network.
        """
        self._check_member(tensor, f"network {self.name!r}")
        return tuple(self._consumers.get(tensor.index, ()))

    def subgraph(self, number: int) -> Network:
        """Graph `number` as attributes such as `init_subgraph_index` count: 0 is this network.

        Raises:
            ConfigError: there is no such graph.
        """
        if not 0 <= number <= len(self.subgraphs):
            raise ConfigError(
                f"subgraph of {self.name!r} must be in 0..{len(self.subgraphs)}, got {number}"
            )
        return self.subgraphs[number - 1] if number else self

    def graph(self) -> networkx.MultiDiGraph:
        """A networkx view, made anew: nodes are `Op.index` with the attribute ``op``.

        An edge stands for one input of one op, with the attribute ``tensor``: an op that reads a
        tensor twice has two edges from its producer. Network inputs and constants have no node.
        """
        import networkx

        graph = networkx.MultiDiGraph(name=self.name)
        for op in self.ops:
            graph.add_node(op.index, op=op)
            for tensor in op.inputs:
                if tensor is not None and tensor.index in self._producers:
                    graph.add_edge(self._producers[tensor.index].index, op.index, tensor=tensor)
        return graph

    @property
    def macs(self) -> int:
        """MACs of all operations for one inference; see `Op.macs`."""
        return sum(op.macs for op in self.ops)

    @property
    def n_weights(self) -> int:
        """Number of weights; a tensor that several operations read counts once."""
        weights = {t.index: t for op in self.ops for t in op.weight_tensors}
        return sum(tensor.n_elements for tensor in weights.values())

    def __str__(self) -> str:
        def shapes(tensors: tuple[Tensor, ...]) -> str:
            return ", ".join(f"{t.dtype}{list(t.shape)}" for t in tensors) or "nothing"

        return (
            f"{self.name}: {len(self.ops)} ops, {self.n_weights:,} weights, {self.macs:,} MACs, "
            f"{shapes(self.inputs)} -> {shapes(self.outputs)}"
        )

    def __repr__(self) -> str:
        return f"<Network {self!s}>"


class UniqueNames:
    """Makes names unique: the second "x" becomes "x#2" and so on.

    >>> unique = UniqueNames()
    >>> [unique(name) for name in ("add", "add", "add#2")]
    ['add', 'add#2', 'add#2#2']
    """

    def __init__(self) -> None:
        self._used: set[str] = set()
        self._counts: dict[str, int] = {}

    def __call__(self, name: str) -> str:
        candidate = name
        while candidate in self._used:
            self._counts[name] = self._counts.get(name, 1) + 1
            candidate = f"{name}#{self._counts[name]}"
        self._used.add(candidate)
        return candidate
