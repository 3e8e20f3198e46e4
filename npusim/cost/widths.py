# SPDX-License-Identifier: Apache-2.0
"""A layer with fewer or more channels: the program it makes of a network, and what that costs.

Channels hang together: those of an addition's operands are the same, a depthwise convolution has as
many as its ifm. Changing one layer changes all that are tied to it, and the ifm depth of the
convolutions that read them.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from npusim.cost.explain import WidthSteps, width_steps
from npusim.cost.program import FeatureMap, NpuOp, Program, Shape4, View
from npusim.cost.weight_sizes import WeightSizes
from npusim.cost.what_if import Workload
from npusim.errors import ConfigError, UnknownNameError
from npusim.hardware import Machine

_MAKE_CHANNELS: Final = ("convolution", "product")
_KEEP_CHANNELS: Final = ("depthwise", "pooling", "elementwise")
_ALIGN: Final = 16


@dataclass(frozen=True, slots=True)
class _Ties:
    """What changes with a layer's width.

    Attributes:
        width: of the layer.
        maps: feature maps with its channels.
        makers: operations that make them, whose weights have as many output channels.
        readers: operations whose weights have as many input channels, or a multiple.
        keepers: operations that hand channels on.
    """

    width: int
    maps: frozenset[int]
    makers: frozenset[int]
    readers: frozenset[int]
    keepers: frozenset[int]


def tied_layers(program: Program, layer: str) -> tuple[str, ...]:
    """Names of the operations that have as many output channels as a layer, itself included.

    Raises:
        ConfigError: the width of the layer cannot be changed by itself; says why.
        UnknownNameError: no operation with weights has that name.
    """
    ties = _ties(program, layer)
    return tuple(program.ops[index].name for index in sorted(ties.makers))


def with_width(program: Program, layer: str, channels: int) -> Program:
    """The program with another number of channels in a layer, and in all that are tied to it.

    Weights of the operations that change are known by their shapes alone.

    Args:
        program: what is executed.
        layer: name of one of its convolutions or fully connected layers.
        channels: of its ofm.

    Raises:
        ConfigError, UnknownNameError: as `tied_layers`.
    """
    ties = _ties(program, layer)
    if channels == ties.width:
        return program
    change = _Change(program, ties, channels)
    maps = tuple(change.map(index) for index in range(len(program.maps)))
    ops = tuple(change.op(index) for index in range(len(program.ops)))
    return replace(program, maps=maps, ops=ops)


def layer_widths(
    workload: Workload, target: Machine, layer: str, *, saving: float = 0.01, **options: Any
) -> WidthSteps:
    """The next narrower width of a layer that saves cycles, and the widest that costs none.

    Weights that change are taken to compress as those of the operation do now.

    Args:
        workload: the network.
        target: the machine.
        layer: name of a convolution or fully connected layer.
        saving: fraction of the network's cycles that a narrower layer must save, 0..1; none below
            half the width is tried.
        options: of `npusim.estimate`; the decoder must be the compiler's.

    Raises:
        ConfigError, UnknownNameError: as `tied_layers`, or as `width_steps`.
    """
    program = workload.program
    width = _ties(program, layer).width
    before = {op.name: op for op in program.ops if op.weights is not None}

    def cycles(channels: int) -> float:
        changed = Workload(
            with_width(program, layer, channels),
            lambda npu: _ScaledSizes(before, workload.sizes(npu)),
        )
        return float(changed.cost(target, **options).total_cycles)

    return width_steps(cycles, width, least=-(-width // 2), saving=saving)


@dataclass(frozen=True, slots=True)
class _ScaledSizes:
    """Bytes of weights that changed their shape: as many per weight as before."""

    before: Mapping[str, NpuOp]
    exact: WeightSizes

    def slices(
        self, op: NpuOp, ifm_bits: int, block_depth: int, depths: Sequence[int]
    ) -> npt.NDArray[np.int64]:
        """As `WeightSizes.slices`."""
        assert op.weights is not None
        if op.weights.ohwi is not None:
            return self.exact.slices(op, ifm_bits, block_depth, depths)
        old = self.before[op.name]
        assert old.weights is not None
        whole = self.exact.slices(old, ifm_bits, block_depth, (0, old.weights.shape[0])).sum(axis=0)
        per_weight = whole[0] / math.prod(old.weights.shape)
        channels = np.diff(depths)
        n_weights = channels * math.prod(op.weights.shape[1:])
        n_bytes = np.stack([n_weights * per_weight, channels * whole[1] / old.weights.shape[0]], 1)
        rounded: npt.NDArray[np.int64] = _ALIGN * np.ceil(n_bytes / _ALIGN).astype(np.int64)
        return rounded


def find_layer(program: Program, text: str) -> str:
    """The name of the one convolution or fully connected layer with `text` in its name.

    Raises:
        ConfigError: there are several, and none is called just that.
        UnknownNameError: there is none.
    """
    found = [op.name for op in program.ops if op.unit in _MAKE_CHANNELS]
    if text in found:
        return text
    containing = [name for name in found if text in name]
    if not text or not containing:
        raise UnknownNameError("layer", text, found)
    if len(containing) > 1:
        names = ", ".join(containing)
        raise ConfigError(f"layer must be in one name only, got {text!r}, which is in {names}")
    return containing[0]


def _ties(program: Program, layer: str) -> _Ties:
    found = {op.name: i for i, op in enumerate(program.ops) if op.unit in _MAKE_CHANNELS}
    if layer not in found:
        raise UnknownNameError("layer", layer, found)
    first = program.ops[found[layer]]
    width = first.ofm.shape[3]
    maps: set[int] = set()
    makers: set[int] = set()
    readers: set[int] = set()
    keepers: set[int] = set()
    waiting = [first.ofm.map]
    while waiting:
        one = waiting.pop()
        if one in maps:
            continue
        maps.add(one)
        map_ = program.maps[one]
        if map_.is_input or map_.is_output or map_.is_variable:
            kind = "input" if map_.is_input else "output" if map_.is_output else "state"
            raise _refusal(layer, f"{kind} {map_.name!r} of the network has its channels")
        for index, op in enumerate(program.ops):
            views = [v for v in (op.ifm, op.ifm2, op.ofm, *op.others) if v and v.map == one]
            if not views:
                continue
            if op.unit in _MAKE_CHANNELS and op.ofm.map != one and _is_flat(views[0], width):
                readers.add(index)
            elif map_.shape[3] % width or any(not _is_whole(view, width) for view in views):
                raise _refusal(layer, f"{op.name!r} takes a part of its channels")
            elif op.unit in _MAKE_CHANNELS and op.ofm.map == one and not _is_part(op, width):
                makers.add(index)
            elif op.unit in _KEEP_CHANNELS and not op.transposed and op.ofm.shape[3] == width:
                keepers.add(index)
                operands = [view for view in (op.ifm, op.ifm2) if view and view.shape[3] == width]
                waiting += [op.ofm.map, *(view.map for view in operands)]
            else:
                raise _refusal(layer, f"{op.name!r} ({op.kind}) depends on them")
    return _Ties(
        *(width, frozenset(maps), frozenset(makers), frozenset(readers), frozenset(keepers))
    )


def _refusal(layer: str, reason: str) -> ConfigError:
    return ConfigError(f"layer {layer!r} must have channels that can be changed, got: {reason}")


def _is_whole(view: View, width: int) -> bool:
    """Whether a view has channels as its depth, and all of them."""
    return view.part[3] == view.shape[3] == width


def _is_flat(view: View, width: int) -> bool:
    """Whether a view has all channels, of one position or of several as one long depth."""
    return view.part[3] == view.shape[3] and view.shape[3] % width == 0


def _is_part(op: NpuOp, width: int) -> bool:
    return op.weights is None or op.depth_offset > 0 or op.weights.shape[0] != width


@dataclass(frozen=True, slots=True)
class _Change:
    """Makes the parts of a program with another number of channels."""

    program: Program
    ties: _Ties
    channels: int

    def map(self, index: int) -> FeatureMap:
        map_ = self.program.maps[index]
        if index not in self.ties.maps:
            return map_
        constant = map_.n_constant_bytes * self.channels // self.ties.width
        return replace(map_, shape=self._deep(map_.shape), n_constant_bytes=constant, content=None)

    def op(self, index: int) -> NpuOp:
        op, ties = self.program.ops[index], self.ties
        if index not in ties.makers | ties.readers | ties.keepers:
            return op
        weights = op.weights
        if weights is not None:
            outputs, height, width, inputs = weights.shape
            if index in ties.makers or index in ties.keepers:
                outputs = self.channels
            if index in ties.readers:
                inputs = inputs // ties.width * self.channels
            shape = (outputs, height, width, inputs)
            weights = replace(weights, shape=shape, key=(weights.key, shape), ohwi=None)
        return replace(
            op,
            ifm=self._view(op.ifm),
            ifm2=None if op.ifm2 is None else self._view(op.ifm2),
            ofm=self._view(op.ofm),
            weights=weights,
        )

    def _view(self, view: View) -> View:
        if view.map not in self.ties.maps:
            return view
        part = None if view.part_shape is None else self._deep(view.part_shape)
        return replace(view, shape=self._deep(view.shape), part_shape=part)

    def _deep(self, shape: Shape4) -> Shape4:
        return (*shape[:3], shape[3] // self.ties.width * self.channels)
