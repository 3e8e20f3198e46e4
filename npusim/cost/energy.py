# SPDX-License-Identifier: Apache-2.0
"""What an inference takes in energy, as bands: nobody has published the Ethos-U55's figures.

Every operation is a count of events (multiplications, bits moved, cycles), and its energy their sum
at the constants of `npusim.cost.energy_constants`. A constant that is too low is so in
all operations alike, and what makes one too low (voltage, process, layout) does so to the others,
so errors do not cancel: the band of a sum is the sum of lows and the sum of highs. Two networks on
the same machine share their constants too; `energy_ratio` compares them far closer than their
bands.

Differs: the weight decoder is charged by encoded bit, not by weight: its work follows the bits, and
they are what is read again for every block. That of a compression scheme (`Cost.scheme`) is charged
by its gates, the mean of low and high without tables that stand still, and the cycles it decodes.
"""

from __future__ import annotations

import math
import os
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import reduce
from typing import Any, Final

from npusim._arguments import choice, real
from npusim.cost.energy_constants import NODE_RULE, Band, EnergyConstants, energy_constants
from npusim.cost.result import Cost, OpCost
from npusim.errors import ConfigError

COMPONENTS: Final = ("compute", "shram", "sram", "flash", "dram", "decode", "leakage", "cpu")
"""What energy is spent on: multipliers and output stage, the NPU's own memory, the memories around
it, decoding weights, time alone (leakage and clocks), and the CPU's operations."""
TECHNOLOGIES: Final[Mapping[str, tuple[str, ...]]] = {
    "sram": ("sram_64kib", "sram_256kib", "sram_1mib", "sram_4mib"),
    "flash": ("nor_flash", "mram", "embedded_flash"),
    "off_chip_flash": ("nor_flash",),
    "on_chip_flash": ("mram", "embedded_flash"),
    "dram": ("lpddr4", "hyperram"),
}
"""What a memory can be made of, by its role; the first is assumed, for SRAM that of its size."""
NODE_NM: Final = 22.0
"""Process node that is assumed: that of the first chips with an Ethos-U55."""

_KIB: Final = 1024
_SRAM_SIZES: Final = (64 * _KIB, 256 * _KIB, 1024 * _KIB)
_COMPONENT: Final[Mapping[str, str]] = {
    "mac_int8_pj": "compute",
    "mac_int16_pj": "compute",
    "output_element_pj": "compute",
    "mac_operands_pj": "shram",
    "shram_pj_per_bit": "shram",
    "decoded_pj_per_bit": "decode",
    "decoder_pj_per_kge_cycle": "decode",
    "idle_pj_per_cycle": "leakage",
    "leakage_mw": "leakage",
    "cpu_pj_per_cycle": "cpu",
    **{
        f"{technology}_pj_per_bit": "flash" if "flash" in role else role
        for role, technologies in TECHNOLOGIES.items()
        for technology in technologies
    },
}
_PJ_PER_MW_S: Final = 1e9
_NONE: Final = Band(0.0, 0.0, 0.0)
_SEARCH_STEPS: Final = 100


@dataclass(frozen=True, slots=True)
class OpEnergy:
    """Energy of one operation.

    Attributes:
        name: of the operation.
        op: its kind.
        by_component: picojoules by `COMPONENTS`.
    """

    name: str
    op: str
    by_component: Mapping[str, Band]

    @property
    def total_pj(self) -> Band:
        """Picojoules of all components."""
        return _sum(self.by_component.values())

    def to_json(self) -> dict[str, Any]:
        """JSON values, in microjoules."""
        return {"name": self.name, "op": self.op, **_json(self.total_pj, self.by_component)}


@dataclass(frozen=True, slots=True)
class Energy:
    """Energy of one inference.

    Attributes:
        model, npu, system_config, memory_mode: as in `Cost`.
        inference_s: seconds of one inference.
        ops: in order of execution.
        node_nm: process node that is assumed.
        technologies: what each memory is assumed to be made of, by role.
        calibration: what was measured to obtain the constants; empty: nothing.
        total_error: relative error of totals found in calibrating, or None.
        events: how often each constant counts, by name; leakage in nanoseconds.
        prices: the constants at this node.
        notes: those of the `Cost`.
    """

    model: str
    npu: str
    system_config: str
    memory_mode: str
    inference_s: float
    ops: tuple[OpEnergy, ...]
    node_nm: float
    technologies: Mapping[str, str]
    calibration: str
    total_error: float | None
    events: Mapping[str, float]
    prices: Mapping[str, Band]
    notes: tuple[str, ...]

    @property
    def calibrated(self) -> bool:
        """Whether somebody has measured, and said so."""
        return bool(self.calibration)

    @property
    def label(self) -> str:
        """What to print beside every figure."""
        return f"calibrated: {self.calibration}" if self.calibrated else "uncalibrated"

    @property
    def by_component(self) -> dict[str, Band]:
        """Picojoules by `COMPONENTS`."""
        return {name: _sum(op.by_component[name] for op in self.ops) for name in COMPONENTS}

    @property
    def total_pj(self) -> Band:
        """Picojoules of an inference; calibrated totals are known closer than their parts."""
        total = _sum(op.total_pj for op in self.ops)
        if self.total_error is None:
            return total
        spread = total.value * self.total_error
        return Band(max(total.value - spread, 0.0), total.value, total.value + spread)

    @property
    def average_mw(self) -> Band:
        """Average power in milliwatts while an inference runs; 0 if it takes no time."""
        seconds = self.inference_s
        return self.total_pj.times(1 / (seconds * _PJ_PER_MW_S) if seconds else 0.0)

    def to_json(self) -> dict[str, Any]:
        """JSON values, energies in microjoules."""
        return {
            "model": self.model,
            "npu": self.npu,
            "system_config": self.system_config,
            "memory_mode": self.memory_mode,
            "inference_s": self.inference_s,
            "calibrated": self.calibrated,
            "calibration": self.calibration,
            "total_error": self.total_error,
            "node_nm": self.node_nm,
            "node_rule": NODE_RULE,
            "technologies": dict(self.technologies),
            **_json(self.total_pj, self.by_component),
            "average_mw": self.average_mw.to_json(),
            "notes": list(self.notes),
            "ops": [op.to_json() for op in self.ops],
        }


def energy(
    cost: Cost,
    constants: str | os.PathLike[str] | Mapping[str, Any] | EnergyConstants | None = None,
    *,
    node_nm: float = NODE_NM,
    memories: Mapping[str, str] | None = None,
) -> Energy:
    """Energy of one inference, by operation and component, as bands.

    Args:
        cost: of the network on its NPU.
        constants: see `npusim.cost.energy_constants.energy_constants`.
        node_nm: process node of the chip, 3..180 nanometres. Constants that scale do so from their
            own node by a power law, see `EnergyConstants.price`: a rule of thumb.
        memories: what memories are made of where it is not the first of `TECHNOLOGIES`, by role.

    Raises:
        ConfigError: a constant, the file or `node_nm` breaks a rule.
        UnknownNameError: no such constant, role of a memory or technology.
    """
    known = energy_constants(constants)
    node = real("node_nm", node_nm, 3, 180)
    technologies = _technologies(cost, memories or {})
    events = [_events(op, cost, technologies) for op in cost.ops]
    prices = {name: known.price(name, node) for name in _COMPONENT}
    totals: defaultdict[str, float] = defaultdict(float)
    for counts in events:
        for name, count in counts.items():
            totals[name] += count
    return Energy(
        model=cost.model,
        npu=cost.npu,
        system_config=cost.system_config,
        memory_mode=cost.memory_mode,
        inference_s=cost.inference_s,
        ops=tuple(
            OpEnergy(op.name, op.op, _by_component(counts, prices))
            for op, counts in zip(cost.ops, events, strict=True)
        ),
        node_nm=node,
        technologies=technologies,
        calibration=known.calibration,
        total_error=known.total_error,
        events=dict(totals),
        prices=prices,
        notes=cost.notes,
    )


def _technologies(cost: Cost, given: Mapping[str, str]) -> dict[str, str]:
    for role, technology in given.items():
        choice("role of a memory", role, TECHNOLOGIES)
        choice(f"technology of {role}", technology, TECHNOLOGIES[role])
    found = {}
    for role in dict.fromkeys(role for op in cost.ops for role in op.traffic):
        choice("role of a memory", role, TECHNOLOGIES)
        n_smaller = sum(size < cost.sram_peak_bytes for size in _SRAM_SIZES)
        place = n_smaller if role == "sram" else 0
        found[role] = given.get(role, TECHNOLOGIES[role][place])
    return found


def _events(op: OpCost, cost: Cost, technologies: Mapping[str, str]) -> dict[str, float]:
    """How often an operation makes each constant count."""
    counts: defaultdict[str, float] = defaultdict(float)
    counts["leakage_mw"] = _PJ_PER_MW_S * op.cycles / cost.clock_hz
    for role, moved in op.traffic.items():
        n_bytes = sum(moved.read_bytes.values()) + sum(moved.written_bytes.values())
        counts[f"{technologies[role]}_pj_per_bit"] += 8 * n_bytes
    if not op.on_npu:
        counts["cpu_pj_per_cycle"] = op.cycles
        return counts
    counts["idle_pj_per_cycle"] = op.cycles
    counts["mac_int16_pj" if op.ifm_bits == 16 else "mac_int8_pj"] = op.macs
    counts["mac_operands_pj"] = op.macs
    counts["output_element_pj"] = math.prod(op.ofm_shape)
    # feature maps are written into SHRAM and read from it; what multipliers read is in the operands
    counts["shram_pj_per_bit"] = (
        8 * 2 * sum(_moved(op, "feature_maps", read=read) for read in (True, False))
    )
    if cost.scheme_decoder is not None:
        counts["decoder_pj_per_kge_cycle"] = cost.scheme_decoder.logic_kge * op.decode_cycles
        return counts
    # weights that are staged come by twice, but are decoded on their way out of the buffer only
    staged = _moved(op, "weights", read=False)
    counts["decoded_pj_per_bit"] = 8 * max(_moved(op, "weights", read=True) - staged, 0)
    return counts


def _moved(op: OpCost, what: str, *, read: bool) -> int:
    sides = [moved.read_bytes if read else moved.written_bytes for moved in op.traffic.values()]
    return sum(side.get(what, 0) for side in sides)


def _by_component(counts: Mapping[str, float], prices: Mapping[str, Band]) -> dict[str, Band]:
    found = dict.fromkeys(COMPONENTS, _NONE)
    for name, count in counts.items():
        found[_COMPONENT[name]] += prices[name].times(count)
    return found


def energy_ratio(first: Energy, second: Energy) -> Band:
    """What one inference takes as a multiple of another, whatever the constants are in their bands.

    Both run with the same constants, so that what they have in common cancels: the extremes are
    those of ``sum(n * x) / sum(m * x)`` with the same `x` above and below the line.

    Raises:
        ConfigError: the energies were computed with other constants or at other nodes, or the
            second may be zero.
    """
    if first.prices != second.prices:
        raise ConfigError(
            "energies must be computed with the same constants to be compared, got "
            f"{first.model} ({first.node_nm:g} nm) and {second.model} ({second.node_nm:g} nm)"
        )
    names = sorted({*first.events, *second.events})
    prices = [first.prices[name] for name in names]
    above, below = ([e.events.get(name, 0.0) for name in names] for e in (first, second))

    def ratio(x: Sequence[float]) -> float:
        divisor = _dot(below, x)
        if divisor <= 0:
            raise ConfigError(f"energy of {second.model} must be more than 0, got {divisor:g}")
        return _dot(above, x) / divisor

    middle = ratio([price.value for price in prices])
    ends = []
    for upper in (False, True):
        found = middle
        for _ in range(_SEARCH_STEPS):  # Dinkelbach: at a ratio, each constant's better end
            gains = [n - found * m for n, m in zip(above, below, strict=True)]
            better = ratio(
                [
                    price.high if (gain > 0) == upper else price.low
                    for gain, price in zip(gains, prices, strict=True)
                ]
            )
            if math.isclose(better, found, rel_tol=1e-12):
                break
            found = better
        ends.append(found)
    return Band(min(ends[0], middle), middle, max(ends[1], middle))


def calibrate_energy(
    measured: Sequence[tuple[Cost, float]],
    what: str,
    constants: str | os.PathLike[str] | Mapping[str, Any] | EnergyConstants | None = None,
    *,
    node_nm: float = NODE_NM,
    memories: Mapping[str, str] | None = None,
) -> EnergyConstants:
    """Constants times the one factor that brings totals closest to measured ones.

    The factor has the least sum of squared relative errors. The new band of a total is the largest
    error of a network that the factor was fitted without; those of components stay as wide as they
    were, since totals say nothing of them.

    Args:
        measured: costs of at least two networks, each with microjoules measured for an inference.
        what: what was measured, in a few words; printed beside every energy.
        constants, node_nm, memories: as for `energy`.

    Raises:
        ConfigError: fewer than two networks, a measurement that is not more than 0, or no text.
    """
    if not isinstance(what, str) or not what:
        raise ConfigError(f"what was measured must be a text, got {what!r}")
    if len(measured) < 2:
        raise ConfigError(f"measured must hold at least 2 networks, got {len(measured)}")
    known = energy_constants(constants)
    ratios = []
    for cost, microjoules in measured:
        number = real(f"microjoules of {cost.model}", microjoules, 1e-9, 1e12)
        found = energy(cost, known, node_nm=node_nm, memories=memories)
        ratios.append(found.total_pj.value / 1e6 / number)
    left_out = [
        abs(_factor([*ratios[:i], *ratios[i + 1 :]]) * ratio - 1) for i, ratio in enumerate(ratios)
    ]
    return known.scaled(_factor(ratios), what, max(left_out))


def _factor(ratios: Sequence[float]) -> float:
    """The `s` for which the sum of ``(s * ratio - 1) ** 2`` is least."""
    squares = _dot(ratios, ratios)
    if squares <= 0:
        raise ConfigError("energy of a measured network must be more than 0, got 0")
    return sum(ratios) / squares


def _dot(a: Sequence[float], b: Sequence[float]) -> float:
    return sum(x * y for x, y in zip(a, b, strict=True))


def _sum(bands: Iterable[Band]) -> Band:
    return reduce(Band.__add__, bands, _NONE)


def _json(total: Band, by_component: Mapping[str, Band]) -> dict[str, Any]:
    return {
        "energy_uj": total.times(1e-6).to_json(),
        "energy_uj_by_component": {
            name: band.times(1e-6).to_json() for name, band in by_component.items()
        },
    }
