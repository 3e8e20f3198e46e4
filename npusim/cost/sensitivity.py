# SPDX-License-Identifier: Apache-2.0
"""How much a network's time depends on each thing of the hardware, by running the model again."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from npusim import npu as npus
from npusim._arguments import real
from npusim.cost.result import Cost
from npusim.cost.what_if import LIMIT, Workload
from npusim.errors import ConfigError
from npusim.hardware import Machine
from npusim.npu import NpuConfig


@dataclass(frozen=True, slots=True)
class Sensitivity:
    """What a network's time does if one thing of the hardware is changed.

    Attributes:
        name: of what is changed.
        value: what it is.
        low, high: less and more of it; None where there is none, or it changes nothing.
        total_cycles, low_cycles, high_cycles: of an inference with each.
        inference_s, low_s, high_s: seconds of an inference with each.
    """

    name: str
    value: float
    low: float | None
    high: float | None
    total_cycles: int
    low_cycles: int | None
    high_cycles: int | None
    inference_s: float
    low_s: float | None
    high_s: float | None

    @property
    def slope(self) -> float | None:
        """Cycles per unit of it: the difference between both ends; None if only one is known."""
        ends = self._ends(self.low_cycles, self.total_cycles, self.high_cycles)
        return None if ends is None else (ends[3] - ends[2]) / (ends[1] - ends[0])

    @property
    def elasticity(self) -> float | None:
        """Per cent of time for each per cent of it; -1: twice as much halves the time."""
        ends = self._ends(self.low_s, self.inference_s, self.high_s)
        if ends is None or min(ends) <= 0:
            return None
        return math.log(ends[3] / ends[2]) / math.log(ends[1] / ends[0])

    def _ends(
        self, low: float | None, middle: float, high: float | None
    ) -> tuple[float, float, float, float] | None:
        """The values furthest apart and what belongs to them."""
        first = (self.value, middle) if self.low is None or low is None else (self.low, low)
        last = (self.value, middle) if self.high is None or high is None else (self.high, high)
        return None if first[0] == last[0] else (first[0], last[0], first[1], last[1])

    def to_json(self) -> dict[str, Any]:
        """JSON values."""
        return {**asdict(self), "slope": self.slope, "elasticity": self.elasticity}


def sensitivities(
    workload: Workload, target: Machine, change: float = 0.1, **options: Any
) -> tuple[Sensitivity, ...]:
    """What more or less of each memory's speed, of SRAM, SHRAM, clock and multipliers would do.

    Args:
        workload: the network.
        target: the machine, which is run again with each field lower and higher.
        change: by which fraction, 0.001..0.5; whole numbers change by 1 at least. Multipliers come
            as Arm sells them: the next smaller and larger NPU. SRAM is changed as a limit of the
            arena, or of the staging memory, of which less is tried only.
        options: of `npusim.estimate`.

    Returns:
        The most influential first.

    Raises:
        ConfigError: `change` is not in its range.
    """
    step = real("change", change, 1e-3, 0.5)
    base = workload.cost(target, **options)
    found = [
        _sensitivity(workload, target, base, name, value, step, options)
        for name, value in _continuous(target).items()
    ]
    less = int(base.sram_peak_bytes * (1 - step))
    if less > 0:
        cost = workload.cost(target, **{**options, LIMIT: less})
        found.append(
            _of_ends(LIMIT, base.sram_peak_bytes, base, (cost.sram_peak_bytes, cost), None)
        )
    ends = [
        (npu.macs_per_cycle, workload.cost(Machine(npu, target.system, target.mode), **options))
        if npu
        else None
        for npu in _neighbours(target.npu)
    ]
    found.append(_of_ends("macs_per_cycle", target.npu.macs_per_cycle, base, *ends))
    return tuple(sorted(found, key=lambda each: -abs(each.elasticity or 0.0)))


def _neighbours(npu: NpuConfig) -> tuple[NpuConfig | None, NpuConfig | None]:
    """The next smaller and larger preset of its family, if there are."""
    family = npu.name.rpartition("-")[0]
    sold = [npus.get(name) for name in npus.names() if name.rpartition("-")[0] == family]
    sold.sort(key=lambda one: one.macs_per_cycle)
    smaller = [one for one in sold if one.macs_per_cycle < npu.macs_per_cycle]
    larger = [one for one in sold if one.macs_per_cycle > npu.macs_per_cycle]
    return smaller[-1] if smaller else None, larger[0] if larger else None


def _continuous(target: Machine) -> dict[str, float]:
    """Fields that are changed by a fraction, with their values."""
    found: dict[str, float] = {"clock_hz": target.clock_hz, "shram_banks": target.npu.shram_banks}
    parts = (target.feature_maps, target.constants, target.staging)
    for memory in {part.name: part for part in parts}.values():
        for name in ("bytes_per_cycle", "read_latency_cycles", "write_latency_cycles"):
            found[f"{memory.name}_{name}"] = getattr(memory, name)
        found[f"{memory.name}_burst_bytes"] = memory.burst_bytes
    return found


def _sensitivity(
    workload: Workload,
    target: Machine,
    base: Cost,
    name: str,
    value: float,
    step: float,
    options: Mapping[str, Any],
) -> Sensitivity:
    low, high = value * (1 - step), value * (1 + step)
    if isinstance(value, int):
        low, high = math.floor(low), math.ceil(high)
    ends: list[tuple[float, Cost] | None] = []
    for end in (low, high):
        try:
            ends.append((end, workload.cost(target.override({name: end}), **options)))
        except ConfigError:  # no block fits, or nothing is left of it
            ends.append(None)
    return _of_ends(name, value, base, *ends)


def _of_ends(
    name: str,
    value: float,
    base: Cost,
    low: tuple[float, Cost] | None,
    high: tuple[float, Cost] | None,
) -> Sensitivity:
    below, above = low and low[1], high and high[1]
    return Sensitivity(
        name=name,
        value=value,
        low=low and low[0],
        high=high and high[0],
        total_cycles=base.total_cycles,
        low_cycles=None if below is None else below.total_cycles,
        high_cycles=None if above is None else above.total_cycles,
        inference_s=base.inference_s,
        low_s=None if below is None else below.inference_s,
        high_s=None if above is None else above.inference_s,
    )
