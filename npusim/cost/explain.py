# SPDX-License-Identifier: Apache-2.0
"""Why a network takes the cycles it takes: where utilisation is lost, and what would change it."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from typing import Any, Final

from npusim._arguments import integer, real
from npusim.cost.result import BOUNDS, Cost, OpCost
from npusim.errors import ConfigError
from npusim.npu import NpuConfig, get

STAGES: Final[Mapping[str, str]] = {
    "ideal": "all multipliers busy",
    "padding": "multipliers idle: blocks, channels and kernels that do not fill them",
    "output": "output stage slower than the multipliers",
    "issue": "blocks too small to be issued in time",
    "fill": "first ifm block read and last ofm block written",
    "decode": "weight decoder slower than all else within the NPU",
    "weight_dma": "waiting for weights to arrive in their buffer",
    "refetch": "a memory busy with weights that are read again for every block",
    "memory": "a memory busy with all else",
    "cpu": "on the CPU",
}
"""Where cycles go, in the order in which they are accounted for."""


@dataclass(frozen=True, slots=True)
class Waterfall:
    """Cycles of an operation or a network by `STAGES`.

    Attributes:
        name: of the operation or the network.
        cycles_by_stage: they add up to the cycles it takes.
    """

    name: str
    cycles_by_stage: Mapping[str, float]

    @property
    def cycles(self) -> float:
        """All of them."""
        return sum(self.cycles_by_stage.values())

    @property
    def utilisation(self) -> float:
        """Share of the multipliers' peak that is used, 0..1."""
        return self.cycles_by_stage["ideal"] / self.cycles if self.cycles else 0.0

    def to_json(self) -> dict[str, Any]:
        """JSON values."""
        return {
            "name": self.name,
            "utilisation": self.utilisation,
            "cycles_by_stage": dict(self.cycles_by_stage),
        }


def op_waterfall(op: OpCost, npu: str | NpuConfig) -> Waterfall:
    """Cycles of one operation by stage.

    Each stage is what the next slower limit adds: multipliers at their 8-bit peak, multipliers with
    padding, output stage, all blocks with issue and fill, the wait for weights, memories. Issue,
    fill and decoder are one figure of the model; it goes to "decode" where that is the pace, to
    "issue" where that is what bounds the operation. Reading weights again is taken as their share
    of the bytes of the slowest memory; ifm that is read again is in "memory".

    Args:
        op: the operation.
        npu: preset name or record of the NPU it runs on.

    Raises:
        UnknownNameError: no such npu.
    """
    found = dict.fromkeys(STAGES, 0.0)
    if not op.on_npu:
        found["cpu"] = float(op.cycles)
        return Waterfall(op.name, found)
    inside = "issue" if op.bound == "issue" else "fill"
    if 0 < op.compute_cycles <= op.decode_cycles:
        inside = "decode"
    steps = (
        ("ideal", op.macs / get(npu).macs_per_cycle),
        ("padding", op.mac_cycles),
        ("output", op.output_cycles),
        (inside, op.compute_cycles),
        ("weight_dma", op.npu_cycles),
        ("memory", op.cycles),
    )
    level = 0.0
    for stage, cycles in steps:
        reached = min(max(level, float(cycles)), float(op.cycles))
        found[stage] = reached - level
        level = reached
    found["memory"] += op.cycles - level
    again = found["memory"] * _refetched_share(op)
    found["refetch"], found["memory"] = again, found["memory"] - again
    return Waterfall(op.name, found)


def _refetched_share(op: OpCost) -> float:
    """Weights read beyond the first time, as a share of the bytes of the slowest memory."""
    if not op.traffic:
        return 0.0
    moved = max(op.traffic.values(), key=lambda traffic: traffic.cycles)
    n_bytes = sum(moved.read_bytes.values()) + sum(moved.written_bytes.values())
    again = max(moved.read_bytes.get("weights", 0) - op.weights_encoded_bytes, 0)
    return again / n_bytes if n_bytes else 0.0


def waterfall(cost: Cost, npu: str | NpuConfig | None = None) -> Waterfall:
    """Cycles of a network by stage: the sums of its operations'.

    Args:
        cost: of the network.
        npu: the NPU, where it is not the preset that `cost` names.

    Raises:
        UnknownNameError: no such npu.
    """
    found = dict.fromkeys(STAGES, 0.0)
    for op in cost.ops:
        for stage, cycles in op_waterfall(op, npu or cost.npu).cycles_by_stage.items():
            found[stage] += cycles
    return Waterfall(cost.model, found)


@dataclass(frozen=True, slots=True)
class BoundShare:
    """Operations of a network that are bound by the same thing.

    Attributes:
        bound: what; see `npusim.cost.result.BOUNDS`.
        n_ops: operations.
        cycles: of them together.
        share: of the network's cycles, 0..1.
    """

    bound: str
    n_ops: int
    cycles: int
    share: float


def bound_shares(cost: Cost) -> tuple[BoundShare, ...]:
    """What bounds the network's operations, the most cycles first."""
    n_ops: defaultdict[str, int] = defaultdict(int)
    cycles: defaultdict[str, int] = defaultdict(int)
    for op in cost.ops:
        n_ops[op.bound] += 1
        cycles[op.bound] += op.cycles
    total = sum(cycles.values())
    shares = [
        BoundShare(bound, n_ops[bound], cycles[bound], cycles[bound] / total if total else 0.0)
        for bound in n_ops
    ]
    order = {bound: place for place, bound in enumerate(BOUNDS)}
    return tuple(sorted(shares, key=lambda s: (-s.cycles, order.get(s.bound, len(order)))))


@dataclass(frozen=True, slots=True)
class OpDiff:
    """An operation of two costs, or of one of them only.

    Attributes:
        before: in the first cost, or None.
        after: in the second, or None.
    """

    before: OpCost | None
    after: OpCost | None

    @property
    def name(self) -> str:
        """Of the operation, in the second cost if it is in both."""
        op = self.after or self.before
        assert op is not None
        return op.name

    @property
    def cycles(self) -> int:
        """How many more the second takes; fewer are negative."""
        return (self.after.cycles if self.after else 0) - (self.before.cycles if self.before else 0)


@dataclass(frozen=True, slots=True)
class CostDiff:
    """How two costs differ: two networks on one NPU, or one network on two.

    Attributes:
        before: the first cost.
        after: the second.
        ops: their operations in the second's order, those of the first alone at their place.
    """

    before: Cost
    after: Cost
    ops: tuple[OpDiff, ...]

    @property
    def totals(self) -> dict[str, tuple[float, float]]:
        """Totals (before, after) by attribute of `Cost`."""
        names = (
            *("total_cycles", "npu_cycles", "macs", "inference_s"),
            *("sram_peak_bytes", "flash_bytes", "weights_encoded_bytes"),
        )
        return {name: (getattr(self.before, name), getattr(self.after, name)) for name in names}

    def to_json(self) -> dict[str, Any]:
        """JSON values."""
        return {
            "before": _title(self.before),
            "after": _title(self.after),
            "totals": {name: list(pair) for name, pair in self.totals.items()},
            "ops": [
                {
                    "name": diff.name,
                    "cycles": diff.cycles,
                    "before": diff.before and _brief(diff.before),
                    "after": diff.after and _brief(diff.after),
                }
                for diff in self.ops
            ],
        }


def diff_costs(before: Cost, after: Cost) -> CostDiff:
    """Two costs operation by operation.

    Operations of the same name are the same, the first with the first where a name occurs more than
    once. Of the rest, those at the same position are.
    """
    pairs = _same_names(before, after)
    partners = set(pairs.values())
    for place in range(min(len(before.ops), len(after.ops))):
        if place not in pairs and place not in partners:
            pairs[place] = place
    partners = set(pairs.values())
    alone = [place for place in range(len(before.ops)) if place not in partners]
    diffs = []
    for place, op in enumerate(after.ops):
        while alone and alone[0] <= place:
            diffs.append(OpDiff(before.ops[alone.pop(0)], None))
        partner = pairs.get(place)
        diffs.append(OpDiff(None if partner is None else before.ops[partner], op))
    diffs += [OpDiff(before.ops[place], None) for place in alone]
    return CostDiff(before, after, tuple(diffs))


def _same_names(before: Cost, after: Cost) -> dict[int, int]:
    """Places in `before` of the operations of `after` that have a namesake there."""
    places = defaultdict(list)
    for place, op in enumerate(before.ops):
        places[op.name].append(place)
    return {
        place: places[op.name].pop(0) for place, op in enumerate(after.ops) if places.get(op.name)
    }


def _title(cost: Cost) -> dict[str, str]:
    return {name: getattr(cost, name) for name in ("model", "npu", "system_config", "memory_mode")}


def _brief(op: OpCost) -> dict[str, Any]:
    return {"cycles": op.cycles, "bound": op.bound, "macs": op.macs, "on_npu": op.on_npu}


@dataclass(frozen=True, slots=True)
class WidthSteps:
    """The nearest widths where a layer's cost takes a step.

    Attributes:
        width: of the layer, in channels.
        cost: of the network with it.
        narrower: widest width that costs less by the saving asked for, or None.
        narrower_cost: its cost, or None.
        widest_free: widest width that costs no more; `width` itself if there is none.
        widest_free_cost: its cost.
    """

    width: int
    cost: float
    narrower: int | None
    narrower_cost: float | None
    widest_free: int
    widest_free_cost: float

    def to_json(self) -> dict[str, Any]:
        """JSON values."""
        return asdict(self)


def width_steps(
    cost: Callable[[int], float],
    width: int,
    *,
    least: int = 1,
    most: int | None = None,
    saving: float = 0.05,
) -> WidthSteps:
    """Cheaper and free widths around a layer's: cycles go in steps as channels fill hardware units.

    Args:
        cost: of the network (cycles, bytes ...) if the layer has that many channels; it is called
            once a width.
        width: channels of the layer.
        least: narrowest width to try, 1..width.
        most: widest width to try; None: `width` rounded up to a multiple of 32, the most channels
            that the hardware works on together.
        saving: fraction of the cost that a narrower width must save, 0..1.

    Raises:
        ConfigError: a number is not in its range, or a cost is not finite.

    >>> steps = width_steps(lambda channels: -(-channels // 16) * 1000, 17)
    >>> steps.narrower, steps.narrower_cost, steps.widest_free
    (16, 1000.0, 32)
    """
    channels = integer("width", width, 1, 1 << 16)
    low = integer("least", least, 1, channels)
    high = integer("most", -(-channels // 32) * 32 if most is None else most, channels, 1 << 16)
    share = real("saving", saving, 0, 1)

    def at(trial: int) -> float:
        value = float(cost(trial))
        if not abs(value) < float("inf"):
            raise ConfigError(f"cost of width {trial} must be a finite number, got {value}")
        return value

    here = at(channels)
    limit = here * (1 - share)
    narrower = narrower_cost = None
    for trial in range(channels - 1, low - 1, -1):
        value = at(trial)
        if value < here and value <= limit:
            narrower, narrower_cost = trial, value
            break
    free, free_cost = channels, here
    for trial in range(high, channels, -1):
        value = at(trial)
        if value <= here:
            free, free_cost = trial, value
            break
    return WidthSteps(channels, here, narrower, narrower_cost, free, free_cost)
