# SPDX-License-Identifier: Apache-2.0
"""Int8 networks, operation by operation, in NumPy."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Final

from npusim._arguments import choice
from npusim.errors import ConfigError
from npusim.integer import elementwise, movement, tables, windows
from npusim.integer.operands import Codes
from npusim.integer.requantize import PROFILES
from npusim.network import Network, Op
from npusim.tensor import DTYPES, Tensor

OPERATORS: Final[dict[str, Callable[[Op, list[Any], str], Codes | list[Codes]]]] = {
    **elementwise.OPERATORS,
    **movement.OPERATORS,
    **tables.OPERATORS,
    **windows.OPERATORS,
}
"""How each kind of operation computes the codes of its outputs."""

_VARIABLES: Final = ("ASSIGN_VARIABLE", "CALL_ONCE", "READ_VARIABLE", "VAR_HANDLE")
KINDS: Final = tuple(sorted((*OPERATORS, *_VARIABLES)))
"""What can run, by kind of operation."""

_DTYPES: Final = {
    "QUANTIZE": (("int8", "uint8", "float32"), ("int8", "uint8")),
    "DEQUANTIZE": (("int8", "uint8"), ("float32",)),
}
"""What ifm and ofm may be where not int8 alone."""


def run(network: Network, inputs: Sequence[Codes], profile: str = "litert_ref") -> dict[int, Codes]:
    """Codes of every tensor of one inference, by `Tensor.index`.

    Variables, which some networks keep from one inference to the next, are as at the first.

    Args:
        network: of int8 feature maps; inputs and outputs may be quantized and dequantized in it.
        inputs: codes of `network.inputs`, in their shapes and dtypes.
        profile: one of `PROFILES`.

    Raises:
        ConfigError: an operation is not among `KINDS`, a feature map is not int8, or inputs do
            not fit the network.
        UnknownNameError: no such profile.

    >>> import numpy as np
    >>> from npusim.network_builder import NetworkBuilder
    >>> net = NetworkBuilder("sum")
    >>> a, b = (net.input((1, 2), scale=0.5) for _ in range(2))
    >>> total = net.op("ADD", a, b, scale=1.0)
    >>> codes = [np.array([[1, 7]], np.int8), np.array([[3, -2]], np.int8)]
    >>> run(net.build(total), codes)[total.index].tolist()
    [[2, 3]]
    """
    choice("profile", profile, PROFILES)
    for op in network.ops:
        _check(op)
    if len(inputs) != len(network.inputs):
        raise ConfigError(f"inputs must be {len(network.inputs)} arrays, got {len(inputs)}")
    for tensor, codes in zip(network.inputs, inputs, strict=True):
        if codes.shape != tensor.shape or str(codes.dtype) != tensor.dtype:
            raise ConfigError(f"input must fit {tensor!s}, got {codes.dtype}{list(codes.shape)}")
    return _Inference(network, profile).run(network, inputs)


def _check(op: Op) -> None:
    if op.kind not in KINDS:
        known = ", ".join(KINDS)
        raise ConfigError(
            f"kind of {op.name!r} must be an integer operator ({known}), got {op.kind}"
        )
    if op.kind in _VARIABLES:
        return
    for tensor, allowed in zip(
        (op.ifm, op.ofm), _DTYPES.get(op.kind, (("int8",), ("int8",))), strict=True
    ):
        bare = tensor is None or (tensor.quantization is None and tensor.dtype != "float32")
        if tensor is None or bare or tensor.dtype not in allowed:
            kinds = " or ".join(allowed)
            raise ConfigError(
                f"feature maps of {op.name!r} must be quantized {kinds}, got {tensor!s}"
            )


class _Inference:
    """One inference: the values of variables, by the name that their handles share."""

    def __init__(self, network: Network, profile: str):
        self.network, self.profile = network, profile
        self.variables: dict[str, Codes] = {}

    def run(self, graph: Network, inputs: Sequence[Codes]) -> dict[int, Codes]:
        """Values of all tensors of a graph."""
        values = {t.index: t.data for t in graph.tensors if t.data is not None}
        values |= {t.index: codes for t, codes in zip(graph.inputs, inputs, strict=True)}
        handles: dict[int, str] = {}
        for op in graph.ops:
            if op.kind == "VAR_HANDLE":
                handles[op.outputs[0].index] = str(op.attributes["shared_name"])
            elif op.kind == "CALL_ONCE":
                self.run(self.network.subgraph(int(op.attributes["init_subgraph_index"])), ())  # type: ignore[arg-type]
            elif op.kind == "ASSIGN_VARIABLE":
                handle, given = (t.index for t in op.inputs if t is not None)
                self.variables[handles[handle]] = values[given]
            elif op.kind == "READ_VARIABLE":
                assert op.inputs[0] is not None
                values[op.outputs[0].index] = self.variables[handles[op.inputs[0].index]]
            else:
                arrays = [None if t is None else values[t.index] for t in op.inputs]
                found = OPERATORS[op.kind](op, arrays, self.profile)
                found = found if isinstance(found, list) else [found]
                for tensor, codes in zip(op.outputs, found, strict=True):
                    values[tensor.index] = _as(tensor, codes)
        return values


def _as(tensor: Tensor, codes: Codes) -> Codes:
    return codes.reshape(tensor.shape).astype(DTYPES[tensor.dtype].storage)
