# SPDX-License-Identifier: Apache-2.0
"""What if the hardware were another: one network on many machines, and which of them are worth it.

workload = Workload.of(npusim.load("model.tflite"))
axes = [parse_axis("sram_bytes_per_cycle=2,4,8"), parse_axis("npu=ethos-u55-64,ethos-u55-128")]
found = sweep(workload, Setup(), axes)
[point for point in found.points if point.is_best]
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Final

import numpy as np

from npusim._arguments import choice
from npusim.cost.estimate import estimate
from npusim.cost.lowering import program as lower
from npusim.cost.program import Program
from npusim.cost.result import Cost
from npusim.cost.scheme_weights import SchemeWeights
from npusim.cost.weight_sizes import ExpectedSizes, Statistics, WeightSizes, exact_sizes
from npusim.errors import ConfigError
from npusim.formats.vela_stream import is_compiled
from npusim.hardware import (
    DEFAULT_MEMORY_MODE,
    DEFAULT_NPU,
    DEFAULT_SYSTEM_CONFIG,
    Machine,
    machine,
    parse_settings,
)
from npusim.network import Network
from npusim.npu import NpuConfig
from npusim.schemes.base import Scheme
from npusim.schemes.decoder import Decoder

NAMED: Final = ("npu", "system_config", "memory_mode")
"""What is varied by name; all else is a field of the hardware or `LIMIT`."""
LIMIT: Final = "arena_limit_bytes"
MEASURES: Final = (
    *("total_cycles", "npu_cycles", "inference_s", "sram_peak_bytes", "flash_bytes"),
)
"""Attributes of a `Cost` that a sweep lists, and that can be minimised."""
_RESOURCES: Final = ("bytes_per_cycle", "bytes_per_s", "clock_scale", "shram_banks", "clock_hz")
_POINTS_MAX: Final = 1_000_000


@dataclass(frozen=True, slots=True, eq=False)
class Workload:
    """A program that is costed on one machine after the other, what they share computed once.

    Attributes:
        program: what is executed.
        make_sizes: tells the bytes of its weights on an NPU.
    """

    program: Program
    make_sizes: Callable[[NpuConfig], WeightSizes]
    _sizes: dict[tuple[int, ...], WeightSizes] = field(default_factory=dict, init=False, repr=False)

    @classmethod
    def of(
        cls, network: Network, encoder: str = "regor", statistics: Statistics | None = None
    ) -> Workload:
        """That of a network.

        Args:
            network: not yet compiled.
            encoder: of the weight streams, of `npusim.weights.ENCODERS`.
            statistics: what weights are taken to be instead of what they are; None: they are known,
                and take exactly what the encoder makes of them.

        Raises:
            ConfigError: the network is compiled already.
            UnknownNameError: no such encoder.
        """
        from npusim.weights import ENCODERS

        choice("encoder", encoder, ENCODERS)
        if is_compiled(network):
            raise ConfigError(
                f"model {network.name!r} must not be compiled yet, got one that Vela compiled"
            )
        lowered = lower(network)
        found = cls(lowered, lambda npu: exact_sizes(lowered, npu, encoder))
        return found if statistics is None else found.expecting(statistics)

    def expecting(self, statistics: Statistics) -> Workload:
        """The same with weights of which only that is known."""
        return Workload(self.program, lambda npu: ExpectedSizes(npu, statistics))

    def in_scheme(self, scheme: Scheme, decoder: Decoder | None = None) -> Workload:
        """The same with weights in a compression scheme's streams, see `npusim.estimate`.

        Args:
            scheme: that codes them.
            decoder: rates to take instead of the scheme's own.
        """
        return Workload(self.program, lambda npu: SchemeWeights(npu, scheme, decoder))

    def cost(self, target: Machine, **options: Any) -> Cost:
        """What one inference costs on a machine; options as those of `npusim.estimate`."""
        return estimate(self.program, target, weights=self.sizes(target.npu), **options)

    def sizes(self, npu: NpuConfig) -> WeightSizes:
        """What tells the bytes of its weights; one for NPUs that read them in the same order."""
        order = (npu.ofm_ublock_depth, npu.ifm_ublock_depth, npu.n_cores)
        if order not in self._sizes:
            self._sizes[order] = self.make_sizes(npu)
        return self._sizes[order]


@dataclass(frozen=True, slots=True)
class Setup:
    """Arguments of `npusim.hardware.machine`, to be varied."""

    npu: str = DEFAULT_NPU
    system_config: str = DEFAULT_SYSTEM_CONFIG
    memory_mode: str = DEFAULT_MEMORY_MODE
    config_files: tuple[str, ...] = ()
    overrides: Mapping[str, Any] = field(default_factory=dict)
    outstanding_limits: bool = False
    vela_axi_quirk: bool = False

    def machine(self, changes: Mapping[str, Any] | None = None) -> Machine:
        """The machine with other names, or values of fields.

        Raises:
            ConfigError, FormatError, UnknownNameError: as `npusim.hardware.machine`.
        """
        given = dict(changes or {})
        names = {name: given.pop(name) for name in NAMED if name in given}
        values = {item.name: getattr(self, item.name) for item in _setup_fields()} | names
        return machine(**{**values, "overrides": {**self.overrides, **given}})


def _setup_fields() -> tuple[Any, ...]:
    return tuple(Setup.__dataclass_fields__.values())


@dataclass(frozen=True, slots=True)
class Axis:
    """One thing that a sweep varies.

    Attributes:
        name: one of `NAMED`, `LIMIT`, or a field of the hardware.
        values: that it takes, in order.

    Raises:
        ConfigError: there is no value, or one twice.
    """

    name: str
    values: tuple[Any, ...]

    def __post_init__(self) -> None:
        if not self.values or len(set(self.values)) < len(self.values):
            raise ConfigError(f"values of {self.name} must be some that differ, got {self.values}")


def parse_axis(text: str) -> Axis:
    """An axis as an option gives it: ``name=value,value`` or ``name=first:last:step``.

    Raises:
        ConfigError: it is neither, or a value is no number where one must be.

    >>> parse_axis("shram_banks=16:48:16").values, parse_axis("npu=ethos-u55-64").values
    ((16, 32, 48), ('ethos-u55-64',))
    """
    name, equals, value = (part.strip() for part in text.partition("="))
    if not equals or not name or not value:
        raise ConfigError(f"what is varied must be name=value,value, got {text!r}")
    if name in NAMED:
        return Axis(name, tuple(part.strip() for part in value.split(",")))
    if ":" in value:
        return Axis(name, _range(text, value))
    numbers = parse_settings([text])[name]
    return Axis(name, numbers if isinstance(numbers, tuple) else (numbers,))


def _range(text: str, value: str) -> tuple[int | float, ...]:
    """Numbers of ``first:last:step``, the last one included if it is reached."""
    parts = [parse_settings([f"value={part}"])["value"] for part in value.split(":")]
    if len(parts) not in (2, 3) or not all(isinstance(part, (int, float)) for part in parts):
        raise ConfigError(f"a range must be first:last:step, got {text!r}")
    first, last, step = parts if len(parts) == 3 else (*parts, 1)
    if not (step > 0 and last >= first and math.isfinite(last) and math.isfinite(first)):
        raise ConfigError(f"a range must go up from first to last, got {text!r}")
    n = math.floor((last - first) / step + 1e-9) + 1
    if n > _POINTS_MAX:
        raise ConfigError(f"a range must have at most {_POINTS_MAX} values, got {n}")
    return tuple(first + i * step for i in range(n))


@dataclass(frozen=True, slots=True, eq=False)
class SweepPoint:
    """A machine of a sweep, and what the network costs on it.

    Attributes:
        values: of the axes, by name.
        target: the machine.
        cost: None where the network cannot run on it.
        obstacle: why; empty where it can.
        is_best: whether no other machine is better in one objective and as good in all others.
    """

    values: Mapping[str, Any]
    target: Machine
    cost: Cost | None
    obstacle: str = ""
    is_best: bool = False

    def objective(self, name: str) -> float:
        """What is minimised: of the cost if that has it, else of the hardware."""
        if name in MEASURES:
            return math.inf if self.cost is None else float(getattr(self.cost, name))
        if name in self.values:
            return float(self.values[name])
        return float(self.target.field_values()[name])

    def to_json(self) -> dict[str, Any]:
        """JSON values; measures are None where the network cannot run."""
        return {
            **self.values,
            **{name: getattr(self.cost, name, None) for name in MEASURES},
            "fits": self.cost is not None and self.cost.fits,
            "pareto": self.is_best,
            "obstacle": self.obstacle,
        }


@dataclass(frozen=True, slots=True, eq=False)
class HardwareSweep:
    """One network on all machines that some axes span.

    Attributes:
        model: name of the network.
        axes: what is varied.
        objectives: what is minimised.
        points: the last axis varies fastest.
    """

    model: str
    axes: tuple[Axis, ...]
    objectives: tuple[str, ...]
    points: tuple[SweepPoint, ...]

    def to_json(self) -> dict[str, Any]:
        """JSON values."""
        return {
            "model": self.model,
            "axes": {axis.name: list(axis.values) for axis in self.axes},
            "objectives": list(self.objectives),
            "points": [point.to_json() for point in self.points],
        }

    def only_best(self) -> HardwareSweep:
        """The same without the machines that another one beats."""
        return replace(self, points=tuple(point for point in self.points if point.is_best))


def sweep(
    workload: Workload,
    setup: Setup,
    axes: Sequence[Axis],
    objectives: Sequence[str] = (),
    done: Callable[[int], object] = lambda n_points: None,
    **options: Any,
) -> HardwareSweep:
    """The cost of a network on every machine that axes span, and which machines are best.

    Args:
        workload: the network.
        setup: the machine, where no axis says otherwise.
        axes: what is varied.
        objectives: what is minimised: names of `MEASURES`, of axes with numbers, or of fields of
            the hardware; by default time, SRAM, and what is varied of bandwidths, clock,
            multipliers and SHRAM, since less of them costs less.
        done: is told how many machines are done.
        options: of `npusim.estimate`.

    Raises:
        ConfigError: two axes have one name, there are too many machines, or a machine does not
            work; not where an operation finds no block on it, which its point then says.
        UnknownNameError: no such field, name or objective.
    """
    if len({axis.name for axis in axes}) < len(axes) or not axes:
        names = ", ".join(axis.name for axis in axes)
        raise ConfigError(f"what is varied must be something, each once, got {names or 'nothing'}")
    n_points = math.prod(len(axis.values) for axis in axes)
    if n_points > _POINTS_MAX:
        raise ConfigError(f"machines of a sweep must be at most {_POINTS_MAX}, got {n_points}")
    combinations = [
        dict(zip((axis.name for axis in axes), values, strict=True))
        for values in itertools.product(*(axis.values for axis in axes))
    ]
    targets = [
        setup.machine({name: value for name, value in values.items() if name != LIMIT})
        for values in combinations
    ]
    goals = tuple(objectives) or _default_objectives(axes)
    known = {*MEASURES, *targets[0].field_values(), *(axis.name for axis in axes)} - {*NAMED}
    for name in goals:
        choice("objective", name, known)
    points = []
    for values, target, found in zip(
        combinations, targets, _costs(workload, combinations, targets, options), strict=True
    ):
        cost, obstacle = found
        points.append(SweepPoint(values, target, cost, obstacle))
        done(len(points))
    best = pareto([[point.objective(name) for name in goals] for point in points])
    marked = [
        replace(point, is_best=bool(mark) and point.cost is not None)
        for point, mark in zip(points, best, strict=True)
    ]
    return HardwareSweep(workload.program.name, tuple(axes), goals, tuple(marked))


def _costs(
    workload: Workload,
    combinations: Sequence[Mapping[str, Any]],
    targets: Sequence[Machine],
    options: Mapping[str, Any],
) -> Iterator[tuple[Cost | None, str]]:
    """One machine after the other: cost, or why there is none."""
    for values, target in zip(combinations, targets, strict=True):
        limit = {LIMIT: values[LIMIT]} if LIMIT in values else {}
        try:
            yield workload.cost(target, **{**options, **limit}), ""
        except ConfigError as error:
            yield None, str(error)


def _default_objectives(axes: Sequence[Axis]) -> tuple[str, ...]:
    found = ["inference_s", "sram_peak_bytes"]
    for axis in axes:
        if axis.name == "npu":
            found.append("macs_per_cycle")
        elif axis.name.endswith(_RESOURCES):
            found.append(axis.name)
    return tuple(found)


def pareto(points: Iterable[Sequence[float]]) -> list[bool]:
    """Which points no other one beats: is lower in one number and not higher in any.

    >>> pareto([(1, 5), (2, 2), (3, 3), (2, 2)])
    [True, True, False, True]
    """
    values = np.array(list(points), np.float64)
    found = []
    for value in values:
        as_good, better = (values <= value).all(axis=1), (values < value).any(axis=1)
        found.append(not (as_good & better).any())
    return found
