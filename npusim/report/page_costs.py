# SPDX-License-Identifier: Apache-2.0
"""A section of a page about one network: where its cycles, bytes and memory go."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from itertools import accumulate
from typing import Any, Final

import numpy as np

from npusim.cost.explain import STAGES, op_waterfall
from npusim.cost.program import NpuOp, Program
from npusim.cost.result import BOUNDS, Cost, OpCost, memory_role
from npusim.report.costs import notes
from npusim.report.estimates import Estimate
from npusim.report.names import short_name
from npusim.report.page import (
    Figure,
    Filter,
    Heading,
    Section,
    Table,
    columns_of,
    data_names,
    slug,
)
from npusim.report.page_charts import (
    ROW,
    architecture,
    stacked,
    tooltip,
)
from npusim.report.page_matrix import machine_name

_TRAFFIC: Final = tuple(
    f"{role} {side}" for role in ("sram", "dram", "flash") for side in ("read", "written")
)
_MARGIN: Final = 3.0
"""Factor by which a roofline's axis goes beyond the operations on it."""


def cost_section(found: Sequence[Estimate], program: Program) -> Section:
    """One network on one or more machines: layers, roofline, memory, architecture.

    Args:
        found: the network's costs.
        program: what its NPU executes, whose operations are those of the costs.
    """
    names = _unique(op.name for op in program.ops)
    groups = _groups(found[0].cost)
    data: dict[str, list[dict[str, Any]]] = {"stages": [], "traffic": [], "roofs": []}
    data |= {"operations": [], "stretches": []}
    for each in found:
        rows = {
            "stages": _stages(each, groups),
            "traffic": _traffic(each.cost, groups),
            "roofs": _roofs(each),
            "operations": _operations(each, names),
            "stretches": _stretches(each.cost),
        }
        for name, own in rows.items():
            data[name] += [{"machine": machine_name(each), **row} for row in own]
    data["layers"] = _layers(program, groups)
    costs = [each.cost for each in found]
    parts: tuple[Figure | Table, ...] = (
        _cycles_figure(data["stages"]),
        _traffic_figure(data["traffic"]),
        _roofline_figure(costs),
        _memory_figure(),
        architecture(
            "layers",
            "In order of execution. The longer a bar, the more channels are computed; its full "
            "part are weights that are not zero. Lines at the right are connections that skip "
            "operations.",
        ),
        _operation_table(),
    )
    shown = [
        part
        for part in parts
        if isinstance(part, Table) or all(data[name] for name in data_names(part.spec))
    ]
    kept = {name: columns_of(rows) for name, rows in data.items() if rows}
    text = " ".join(dict.fromkeys(f"{note}." for cost in costs for note in notes(cost)))
    choice = (Filter("machine", "machine", "one"),) if len(found) > 1 else ()
    title = costs[0].model if len(found) > 1 else f"{costs[0].model} on {machine_name(found[0])}"
    return Section(slug(title), title, kept, tuple(shown), text, choice)


def _groups(cost: Cost) -> list[str]:
    """For each operation what it is drawn as: all parts of one of the network's together."""
    n_parts = Counter(op.source for op in cost.ops)
    named = dict(zip(n_parts, _unique(n_parts), strict=True))
    return [
        named[op.source] + (f" ({n} parts)" if (n := n_parts[op.source]) > 1 else "")
        for op in cost.ops
    ]


def _unique(names: Iterable[str]) -> list[str]:
    """Short names, numbered where there are several of one."""
    short = [short_name(name) for name in names]
    counts, seen = Counter(short), Counter[str]()
    found = []
    for name in short:
        seen[name] += 1
        found.append(name if counts[name] == 1 else f"{name} #{seen[name]}")
    return found


def _operations(found: Estimate, names: Sequence[str]) -> list[dict[str, Any]]:
    rows = []
    for name, op in zip(names, found.cost.ops, strict=True):
        height, width, depth = op.ofm_shape
        rows.append(
            {
                "operation": name,
                "op": op.op,
                "ofm": f"{height}×{width}×{depth}",
                "cycles": op.cycles,
                "share %": 100 * op.cycles / (found.cost.total_cycles or 1),
                "bound": op.bound,
                "macs": op.macs,
                "utilisation %": 100 * op_waterfall(op, found.target.npu).utilisation,
                "macs_per_byte": _intensity(op),
                "macs_per_cycle": op.macs / op.cycles if op.cycles else None,
                "weight bytes": op.weights_encoded_bytes + op.scale_bytes,
                "SRAM bytes": op.sram_bytes,
                "block": "" if op.block is None else "×".join(map(str, op.block.ofm_block)),
                "obstacle": op.obstacle,
            }
        )
    return rows


def _operation_table() -> Table:
    headings = (
        Heading("operation", "operation"),
        Heading("op", "op"),
        Heading("ofm", "ofm"),
        Heading("cycles", "cycles", 0),
        Heading("share %", "%", 1),
        Heading("bound", "bound by"),
        Heading("macs", "MACs", 0),
        Heading("utilisation %", "util. %", 1, "of the multipliers' peak"),
        Heading("weight bytes", "weight bytes", 0, "weights, biases and scales in flash"),
        Heading("SRAM bytes", "SRAM bytes", 0, "alive in the arena while it runs"),
        Heading("block", "block", None, "of the ofm: height, width, depth"),
        Heading("obstacle", "why the CPU"),
    )
    return Table("operations", "Operations", "operations", headings, n_shown=20)


def _intensity(op: OpCost) -> float | None:
    """MACs per byte of the memory that takes longest; None without traffic or MACs."""
    if not op.traffic or not op.macs:
        return None
    moved = max(op.traffic.values(), key=lambda traffic: traffic.cycles)
    n_bytes = sum(moved.read_bytes.values()) + sum(moved.written_bytes.values())
    return op.macs / n_bytes if n_bytes else None


def _stages(found: Estimate, groups: Sequence[str]) -> list[dict[str, Any]]:
    sums: defaultdict[tuple[str, str], float] = defaultdict(float)
    bounds: defaultdict[str, dict[str, None]] = defaultdict(dict)
    for name, op in zip(groups, found.cost.ops, strict=True):
        bounds[name][op.bound] = None
        for stage, cycles in op_waterfall(op, found.target.npu).cycles_by_stage.items():
            sums[name, stage] += cycles
    return [
        {
            **{"operation": name, "stage": stage.replace("_", " "), "part_place": places[stage]},
            **{"cycles": cycles, "bound": ", ".join(bounds[name]), "what": STAGES[stage]},
        }
        for places in [{stage: place for place, stage in enumerate(STAGES)}]
        for (name, stage), cycles in sums.items()
        if cycles
    ]


def _cycles_figure(rows: Sequence[Mapping[str, Any]]) -> Figure:
    spec = stacked(
        "stages",
        names="operation",
        amount="cycles",
        parts="stage",
        order=[stage.replace("_", " ") for stage in STAGES],
        rows=rows,
        tips=tooltip(operation="", stage="", what="", cycles=",.0f", bound=""),
    )
    return Figure(
        "cycles",
        "Where the cycles go",
        spec,
        "Ideal are the cycles in which all multipliers are busy; each further part is what the "
        "next slower limit of the hardware adds. Point at one to read what it is.",
        ROW,
    )


def _traffic(cost: Cost, groups: Sequence[str]) -> list[dict[str, Any]]:
    sums: defaultdict[tuple[str, str], Counter[str]] = defaultdict(Counter)
    for name, op in zip(groups, cost.ops, strict=True):
        for role, moved in op.traffic.items():
            for side, by_kind in (("read", moved.read_bytes), ("written", moved.written_bytes)):
                sums[name, f"{memory_role(role)} {side}"].update(by_kind)
    return [
        {
            **{"operation": name, "what": what, "bytes": by_kind.total()},
            **{"of them": _kinds(by_kind), "part_place": _TRAFFIC.index(what)},
        }
        for (name, what), by_kind in sums.items()
        if by_kind.total()
    ]


def _kinds(by_kind: Mapping[str, int]) -> str:
    return ", ".join(
        f"{kind.replace('_', ' ')} {n_bytes:,}" for kind, n_bytes in by_kind.items() if n_bytes
    )


def _traffic_figure(rows: Sequence[Mapping[str, Any]]) -> Figure:
    spec = stacked(
        "traffic",
        names="operation",
        amount="bytes",
        parts="what",
        order=_TRAFFIC,
        rows=rows,
        tips=[*tooltip(operation="", what="", bytes=","), *tooltip(**{"of them": ""})],
    )
    text = "What is moved between the NPU and the memories, in bursts."
    return Figure("bytes", "Bytes moved", spec, text, ROW)


def _roofs(found: Estimate) -> list[dict[str, Any]]:
    """Lines from the left to the right of the roofline, a knee in each."""
    target, cost = found.target, found.cost
    peak = target.npu.macs_per_cycle
    known = (target.feature_maps, target.constants, target.staging)
    bandwidths = {memory_role(memory.name): memory.bytes_per_cycle for memory in known}
    roles = dict.fromkeys(memory_role(role) for op in cost.ops for role in op.traffic)
    values = [value for op in cost.ops if (value := _intensity(op))]
    if not values:
        return []
    knees = [peak / bandwidths[role] for role in roles]
    low, high = min(*values, *knees) / _MARGIN, max(*values, *knees) * _MARGIN
    return [
        {
            "roof": f"{role}: {bandwidths[role]:.3g} B/cycle",
            "macs_per_byte": at,
            "macs_per_cycle": min(at * bandwidths[role], peak),
        }
        for role, knee in zip(roles, knees, strict=True)
        for at in (low, knee, high)
    ]


def _roofline_figure(costs: Sequence[Cost]) -> Figure:
    log = {"type": "log"}
    x = {
        **{"field": "macs_per_byte", "type": "quantitative", "scale": log},
        "title": "MACs per byte of the slowest memory",
    }
    y = {
        **{"field": "macs_per_cycle", "type": "quantitative", "scale": log},
        "title": "MACs per cycle",
    }
    tips = [
        *tooltip(operation="", op="", bound="", cycles=","),
        *tooltip(macs_per_byte=",.3~g", macs_per_cycle=",.3~g"),
    ]
    layers = [
        {
            "data": {"name": "roofs"},
            "mark": {"type": "line", "strokeWidth": 1.5, "color": "#8592a6"},
            "encoding": {
                **{"x": x, "y": y},
                "strokeDash": {"field": "roof", "type": "nominal", "title": None},
            },
        },
        {
            "data": {"name": "operations"},
            "transform": [{"filter": "datum.macs_per_byte > 0 && datum.macs_per_cycle > 0"}],
            "mark": {"type": "point", "filled": True, "opacity": 0.85, "stroke": "#00000055"},
            "encoding": {
                **{"x": x, "y": y, "tooltip": tips},
                "color": {
                    **{"field": "bound", "type": "nominal", "title": "bound by"},
                    "scale": {"domain": list(BOUNDS)},
                    "legend": {"values": _bounds(costs)},
                },
                "size": {
                    **{"field": "cycles", "type": "quantitative", "legend": None},
                    "scale": {"range": [30, 500]},
                },
            },
        },
    ]
    hidden = sum(1 for op in costs[0].ops if not _intensity(op) or not op.cycles)
    text = "The larger the dot, the more cycles. An operation below a roof is slowed by another."
    text += f" Not shown: {hidden} without MACs or traffic." if hidden else ""
    return Figure("roofline", "Roofline", {"layer": layers}, text, 380)


def _bounds(costs: Sequence[Cost]) -> list[str]:
    """Those that occur, in their order."""
    found = {op.bound for cost in costs for op in cost.ops if _intensity(op)}
    return [bound for bound in BOUNDS if bound in found]


def _stretches(cost: Cost) -> list[dict[str, Any]]:
    times = [
        1000 * cycles / cost.clock_hz
        for cycles in accumulate((op.cycles for op in cost.ops), initial=0)
    ]
    return [
        {
            "map": short_name(stretch.name),
            "start ms": times[stretch.first_op],
            "end ms": times[stretch.last_op + 1],
            "low KiB": stretch.address / 1024,
            "high KiB": (stretch.address + stretch.n_bytes) / 1024,
            "bytes": stretch.n_bytes,
            "when": "alive at the peak" if stretch.at_peak else "alive at other times",
        }
        for stretch in cost.arena
    ]


def _memory_figure() -> Figure:
    axis = {"type": "quantitative"}
    tips = [*tooltip(map="", bytes=","), *tooltip(**{"start ms": ",.3f", "end ms": ",.3f"})]
    spec = {
        "data": {"name": "stretches"},
        "mark": {"type": "rect", "stroke": "#00000066", "strokeWidth": 0.6},
        "encoding": {
            "x": {**axis, "field": "start ms", "title": "time, ms"},
            "x2": {"field": "end ms"},
            "y": {**axis, "field": "low KiB", "title": "address in the arena, KiB"},
            "y2": {"field": "high KiB"},
            "color": {
                **{"field": "when", "type": "nominal", "title": None},
                "scale": {
                    "domain": ["alive at the peak", "alive at other times"],
                    "range": ["#e15759", "#76b7b2"],
                },
            },
            "tooltip": tips,
        },
    }
    text = (
        "Each feature map and weight buffer while it is alive, where the allocator puts it. Those "
        "alive when the arena is fullest are what to make smaller."
    )
    return Figure("memory", "Memory over time", spec, text, 360)


def _layers(program: Program, groups: Sequence[str]) -> list[dict[str, Any]]:
    """Rows of the architecture's drawing: one for all parts of an operation of the network."""
    places = {name: place for place, name in enumerate(dict.fromkeys(groups))}
    writers: dict[int, int] = {}
    rows: dict[str, dict[str, Any]] = {}
    skips: defaultdict[str, dict[int, None]] = defaultdict(dict)
    for name, op in zip(groups, program.ops, strict=True):
        for view in (op.ifm, op.ifm2):
            distance = 1 if view is None else places[name] - writers.get(view.map, places[name])
            if distance > 1:
                skips[name][distance] = None
        writers[op.ofm.map] = places[name]
        bits, kept = _weights(op)
        height, width, channels = op.ofm.part[1:]
        rows[name] = {
            **{"layer": name, "what": f"{op.kind.replace('_', ' ')} {_kernel(op)}".strip()},
            **{"map": f"{height}×{width}", "channels": channels},
            **{"bits": bits, "kept_fraction": kept, "skips": list(skips[name])},
        }
    return [{"place": place, **row} for place, row in enumerate(rows.values())]


def _kernel(op: NpuOp) -> str:
    if op.kernel == (1, 1) and op.stride == (1, 1):
        return ""
    text = f"{op.kernel[0]}×{op.kernel[1]}"
    return text if op.stride == (1, 1) else f"{text}/{max(op.stride)}"


def _weights(op: NpuOp) -> tuple[int | None, float | None]:
    """Bits of a weight and the fraction that is not zero, where they are known."""
    if op.weights is None:
        return None, None
    if op.weights.ohwi is None:
        return 8, None
    weights = op.weights.ohwi()
    return 8, float(np.count_nonzero(weights) / weights.size) if weights.size else None
