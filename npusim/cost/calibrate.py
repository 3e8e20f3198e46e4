# SPDX-License-Identifier: Apache-2.0
"""Fitting the cost model to cycles that were measured on a board or a virtual platform.

Two corrections explain most of what a compiler's estimate leaves out: memories that are faster or
slower than they are said to be, and time that every operation takes beside its own, which
is negative where the hardware starts an operation before the one before it has ended. They are
fitted to the measured networks by least squares of relative errors, so that small networks count as
much as large ones. With as few points as there usually are the fit itself says little: what tells
something is the error of each network when the corrections are fitted to the others.
"""

from __future__ import annotations

import tomllib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from functools import cache
from importlib import resources
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from npusim._arguments import choice, positive, real
from npusim.cost.result import Cost, OpCost
from npusim.errors import ConfigError

HEADLINE: Final = ("memory_efficiency", "overhead_cycles_per_op")
"""The two corrections that are fitted unless others are asked for."""

_EFFICIENCY_RANGE: Final = (1 / 64, 64.0)
_OVERHEAD_MAX: Final = 1e9
_STEPS_MAX: Final = 200
_DAMPING: Final = (1e-3, 1e9)
_NO_EFFECT: Final = 1e-12


@dataclass(frozen=True, slots=True)
class Corrections:
    """What the cost model is corrected by.

    Attributes:
        memory_efficiency: bandwidth of all memories, as a multiple of what it is said to be.
        sram_efficiency: of SRAM, on top of that.
        flash_efficiency: of flash, on top of that.
        dram_efficiency: of DRAM, on top of that.
        overhead_cycles_per_op: cycles an operation takes beside its own; may be negative.
        overhead_cycles: cycles an inference takes beside its operations'; may be negative.

    Raises:
        ConfigError: an efficiency is not in 1/64..64, or an overhead not finite.
    """

    memory_efficiency: float = 1.0
    sram_efficiency: float = 1.0
    flash_efficiency: float = 1.0
    dram_efficiency: float = 1.0
    overhead_cycles_per_op: float = 0.0
    overhead_cycles: float = 0.0

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            if field.name in _EFFICIENCIES:
                real(field.name, value, *_EFFICIENCY_RANGE)
            else:
                real(field.name, value, -_OVERHEAD_MAX, _OVERHEAD_MAX)

    def efficiency(self, role: str) -> float:
        """Of the memory in a role, such as "sram" or "off_chip_flash"."""
        return self.memory_efficiency * (
            self.sram_efficiency
            if role == "sram"
            else self.dram_efficiency
            if role == "dram"
            else self.flash_efficiency
        )


_EFFICIENCIES: Final = tuple(f.name for f in fields(Corrections) if f.name.endswith("_efficiency"))


@dataclass(frozen=True, slots=True)
class Point:
    """A network whose cycles were measured.

    Attributes:
        name: of the network.
        cycles: of the NPU, measured.
        cost: what the model says; None where only a function predicts it.

    Raises:
        ConfigError: `cycles` is not finite and more than 0.
    """

    name: str
    cycles: float
    cost: Cost | None = None

    def __post_init__(self) -> None:
        positive(f"measured cycles of {self.name}", self.cycles)


Predict = Callable[[Corrections], Sequence[float]]
"""Reruns the cost model with corrections: cycles of each point, in their order."""


@dataclass(frozen=True, slots=True)
class Calibration:
    """Corrections that were fitted, and how far they can be trusted.

    Attributes:
        corrections: fitted to all points.
        parameters: names of those that were fitted; the others are as they were.
        names: of the points.
        measured: their cycles.
        before: predicted without corrections.
        after: predicted with them.
        left_out: predicted for each point with corrections fitted to the others.
        ranges: of each parameter, (lowest, highest) of all these fits.
        without_effect: parameters that change no point, so that nothing is known of them.
    """

    corrections: Corrections
    parameters: tuple[str, ...]
    names: tuple[str, ...]
    measured: tuple[float, ...]
    before: tuple[float, ...]
    after: tuple[float, ...]
    left_out: tuple[float, ...]
    ranges: Mapping[str, tuple[float, float]]
    without_effect: tuple[str, ...]

    @property
    def degrees_of_freedom(self) -> int:
        """Points beyond those that any fit passes through."""
        return len(self.measured) - len(self.parameters)

    def errors(self, what: str) -> tuple[float, ...]:
        """Relative errors of the points: 0.01 is 1 % too high.

        Args:
            what: "before", "after" or "left_out".

        Raises:
            UnknownNameError: `what` is none of them.
        """
        choice("errors", what, ("before", "after", "left_out"))
        predicted = getattr(self, what)
        return tuple(p / m - 1 for p, m in zip(predicted, self.measured, strict=True))

    @property
    def band(self) -> float:
        """Largest relative error of a point that was left out: what to expect of a new network.

        The largest of a few, not a confidence interval.
        """
        return max(map(abs, self.errors("left_out")))

    def apply(self, cost: Cost) -> tuple[float, float, float]:
        """Cycles of a network with these corrections: (low, value, high), `band` apart."""
        value = corrected_cycles(cost, self.corrections)
        return value * (1 - self.band), value, value * (1 + self.band)

    def to_json(self) -> dict[str, Any]:
        """JSON values; errors are relative."""
        return {
            "corrections": asdict(self.corrections),
            "parameters": list(self.parameters),
            "ranges": {name: list(ends) for name, ends in self.ranges.items()},
            "without_effect": list(self.without_effect),
            "degrees_of_freedom": self.degrees_of_freedom,
            "band": self.band,
            "points": [
                {
                    "name": name,
                    "measured_cycles": measured,
                    **{
                        f"{what}_error": self.errors(what)[i]
                        for what in ("before", "after", "left_out")
                    },
                }
                for i, (name, measured) in enumerate(zip(self.names, self.measured, strict=True))
            ],
        }


def corrected_cycles(cost: Cost, corrections: Corrections) -> float:
    """Cycles of an inference with corrections, without running the model again.

    Transfers take longer by ``1 / efficiency``, and an operation as long as the NPU or the slowest
    memory; of the NPU's own cycles only the wait for weights depends on a memory. What else follows
    from a memory's speed (the order of transfers, the choice of buffers) stays as it is; a
    `Predict` that runs the model again knows it too. Operations of the CPU stay as they are.
    """
    return corrections.overhead_cycles + sum(_op_cycles(op, corrections) for op in cost.ops)


def _op_cycles(op: OpCost, corrections: Corrections) -> float:
    if not op.on_npu:
        return op.cycles
    slowest = max((moved.cycles for moved in op.traffic.values()), default=0)
    corrected = max(
        (moved.cycles / corrections.efficiency(role) for role, moved in op.traffic.items()),
        default=0.0,
    )
    # weights come from the memory that is read for them and not written
    sources = [role for role, moved in op.traffic.items() if moved.read_bytes.get("weights")]
    source = next((role for role in sources if role != "sram"), "sram")
    wait = max(op.npu_cycles - op.compute_cycles, 0)
    npu = op.npu_cycles - wait + wait / corrections.efficiency(source)
    change = max(npu, corrected) - max(op.npu_cycles, slowest)
    return op.cycles + change + corrections.overhead_cycles_per_op


def calibrate(
    points: Sequence[Point],
    predict: Predict | None = None,
    *,
    parameters: Sequence[str] = HEADLINE,
) -> Calibration:
    """Corrections with the least sum of squared relative errors on measured networks.

    Args:
        points: at least one more than `parameters`, so that each can be left out once.
        predict: the model, run again for each trial; None: `corrected_cycles` of the points' costs.
        parameters: fields of `Corrections` to fit.

    Raises:
        ConfigError: too few points, a parameter twice or none, a point without a cost where
            `predict` is None, or a prediction that is not one finite number a point.
        UnknownNameError: no such parameter.
    """
    names = _check(points, predict, parameters)
    run = _checked(predict or _from_costs(points), len(points))
    measured = np.array([point.cycles for point in points], np.float64)
    everything = np.ones(len(points), bool)
    start = _values(Corrections(), names)
    fitted, jacobian = _fit(run, measured, everything, names)
    others = []
    left_out = []
    for i in range(len(points)):
        values, _ = _fit(run, measured, everything & (np.arange(len(points)) != i), names)
        others.append(values)
        left_out.append(float(run(_corrections(names, values))[i]))
    found = _corrections(names, fitted)
    fits = [_corrections(names, values) for values in [fitted, *others]]
    return Calibration(
        corrections=found,
        parameters=names,
        names=tuple(point.name for point in points),
        measured=tuple(measured.tolist()),
        before=tuple(run(_corrections(names, start)).tolist()),
        after=tuple(run(found).tolist()),
        left_out=tuple(left_out),
        ranges={
            name: (min(values), max(values))
            for name in names
            for values in [[getattr(fit, name) for fit in fits]]
        },
        without_effect=tuple(
            name
            for name, column in zip(names, jacobian.T, strict=True)
            if np.abs(column).max() < _NO_EFFECT
        ),
    )


def _check(
    points: Sequence[Point], predict: Predict | None, parameters: Sequence[str]
) -> tuple[str, ...]:
    known = [field.name for field in fields(Corrections)]
    for name in parameters:
        choice("parameter", name, known)
    if not parameters or len(set(parameters)) < len(parameters):
        raise ConfigError(f"parameters must be some, each once, got {', '.join(parameters)}")
    if len(points) <= len(parameters):
        raise ConfigError(
            f"points must be at least {len(parameters) + 1} to fit {len(parameters)} parameters "
            f"and test the fit, got {len(points)}"
        )
    for point in points:
        if predict is None and point.cost is None:
            raise ConfigError(f"point {point.name!r} must have a cost without predict, got none")
    return tuple(parameters)


def _from_costs(points: Sequence[Point]) -> Predict:
    costs = [point.cost for point in points if point.cost is not None]
    return lambda corrections: [corrected_cycles(cost, corrections) for cost in costs]


def _checked(predict: Predict, n_points: int) -> Callable[[Corrections], npt.NDArray[np.float64]]:
    def run(corrections: Corrections) -> npt.NDArray[np.float64]:
        cycles = np.asarray(predict(corrections), np.float64)
        if cycles.shape != (n_points,) or not np.isfinite(cycles).all():
            raise ConfigError(
                f"predict must return {n_points} finite numbers, got {cycles.tolist()}"
            )
        return cycles

    return run


def _values(corrections: Corrections, names: Sequence[str]) -> npt.NDArray[np.float64]:
    """Parameters as the optimiser sees them: efficiencies by their logarithm, so always above 0."""
    values = [getattr(corrections, name) for name in names]
    return np.array(
        [
            np.log(value) if name in _EFFICIENCIES else value
            for name, value in zip(names, values, strict=True)
        ]
    )


def _corrections(names: Sequence[str], values: npt.NDArray[np.float64]) -> Corrections:
    low, high = np.log(_EFFICIENCY_RANGE)
    return replace(
        Corrections(),
        **{
            name: float(np.exp(np.clip(value, low, high)))
            if name in _EFFICIENCIES
            else float(np.clip(value, -_OVERHEAD_MAX, _OVERHEAD_MAX))
            for name, value in zip(names, values, strict=True)
        },
    )


def _fit(
    run: Callable[[Corrections], npt.NDArray[np.float64]],
    measured: npt.NDArray[np.float64],
    used: npt.NDArray[np.bool_],
    names: Sequence[str],
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """Levenberg and Marquardt's method on the points `used`: parameters and Jacobian, f64."""

    def residuals(values: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        return (run(_corrections(names, values)) / measured - 1)[used]

    values = _values(Corrections(), names)
    # wide enough to see past the rounding of a model that counts whole cycles
    steps = np.array([1e-3 if name in _EFFICIENCIES else 1.0 for name in names])
    found, damping = residuals(values), _DAMPING[0]
    jacobian = _jacobian(residuals, values, steps)
    for _ in range(_STEPS_MAX):
        lengths = np.linalg.norm(jacobian, axis=0)
        scaled = jacobian / np.where(lengths < _NO_EFFECT, 1.0, lengths)
        damped = scaled.T @ scaled + damping * np.eye(len(names))
        step = np.linalg.solve(damped, -scaled.T @ found) / np.maximum(lengths, _NO_EFFECT)
        step[lengths < _NO_EFFECT] = 0.0
        trial = residuals(values + step)
        if trial @ trial < found @ found:
            values, found, damping = values + step, trial, damping / 10
            jacobian = _jacobian(residuals, values, steps)
        else:
            damping *= 10
        if damping > _DAMPING[1]:
            break
    return values, jacobian


def _jacobian(
    residuals: Callable[[npt.NDArray[np.float64]], npt.NDArray[np.float64]],
    values: npt.NDArray[np.float64],
    steps: npt.NDArray[np.float64],
) -> npt.NDArray[np.float64]:
    """Central differences, f64 [n_points, n_parameters]."""
    columns = [
        (residuals(values + offset) - residuals(values - offset)) / (2 * step)
        for step, offset in zip(steps, np.diag(steps), strict=True)
    ]
    return np.array(columns).T


@dataclass(frozen=True, slots=True)
class PublishedPoint:
    """What Arm publishes of a network on its fixed virtual platform.

    Attributes:
        name: of the network.
        npu_cycles: during which the NPU was active.
        axi0_read_beats: at the port of SRAM.
        axi0_written_beats: there.
        axi1_read_beats: at the port of flash.
        source: where it is printed.
    """

    name: str
    npu_cycles: int
    axi0_read_beats: int
    axi0_written_beats: int
    axi1_read_beats: int
    source: str


@cache
def published_points() -> tuple[PublishedPoint, ...]:
    """Arm's figures for ethos-u55-128, Ethos_U55_High_End_Embedded, Shared_Sram.

    >>> [point.npu_cycles for point in published_points()]
    [413814, 2050339, 7345741]
    """
    file = resources.files("npusim.cost").joinpath("published_points.toml")
    tables = tomllib.loads(file.read_text(encoding="utf-8"))
    return tuple(PublishedPoint(name=name, **values) for name, values in tables.items())
