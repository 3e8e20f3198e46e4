# SPDX-License-Identifier: Apache-2.0
"""Plots of a cost: roofline, memory over time, and where the cycles go."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import accumulate
from typing import Any, Final

from npusim._arguments import choice, positive
from npusim.cost.explain import STAGES, op_waterfall, waterfall
from npusim.cost.result import Cost, OpCost
from npusim.errors import ConfigError
from npusim.npu import NpuConfig, get
from npusim.report.names import short_name
from npusim.report.plots import matplotlib_module, save

BOUND_STYLES: Final[Mapping[str, tuple[str, str]]] = {
    "mac": ("#4477aa", "o"),
    "output": ("#66ccee", "s"),
    "issue": ("#228833", "v"),
    "decode": ("#999933", "p"),
    "weight_dma": ("#aa3377", "P"),
    "sram": ("#ccbb44", "D"),
    "flash": ("#ee6677", "^"),
    "dram": ("#882255", "X"),
    "cpu": ("#bbbbbb", "*"),
    "none": ("#000000", "."),
}
"""Colour and marker of each bound; both tell them apart, for those who see few colours."""
STAGE_STYLES: Final[Mapping[str, tuple[str, str]]] = {
    "ideal": ("#332288", ""),
    "padding": ("#88ccee", "//"),
    "output": ("#44aa99", ""),
    "issue": ("#117733", "\\\\"),
    "fill": ("#999933", ""),
    "decode": ("#aa4499", "xx"),
    "weight_dma": ("#ddcc77", "//"),
    "refetch": ("#cc6677", ""),
    "memory": ("#882255", "\\\\"),
    "cpu": ("#bbbbbb", ""),
}
"""Colour and hatching of each stage of a waterfall."""
_WIDTH_INCHES: Final = 10.5
_NAME_INCHES: Final = 2.8
_LEGEND_INCHES: Final = 1.7
_BAR_INCHES: Final = 0.24
_PANEL_INCHES: Final = 1.0
_MARGIN: Final = 4.0
"""Factor by which a roofline's axis goes beyond the operations on it."""
_LETTER_INCHES: Final = 0.06
"""Width that a letter of a name in a plot of memory takes at most."""


def plot_roofline(
    cost: Cost,
    path: str,
    bytes_per_cycle: Mapping[str, float],
    npu: str | NpuConfig | None = None,
) -> None:
    """Draw MACs per cycle of each operation against its MACs per byte of its slowest memory.

    The roofs are the multipliers' peak and each memory's bandwidth. Operations without MACs or
    traffic are not on it; how many there are is told. The larger the marker, the more cycles.

    Args:
        cost: of the network.
        path: of the file; its ending names the format.
        bytes_per_cycle: bandwidth of the memories, by role as in `OpCost.traffic`.
        npu: the NPU, where it is not the preset that `cost` names.

    Raises:
        ConfigError: `path` cannot be written, or a bandwidth is not more than 0, or is not there.
        MissingExtraError: matplotlib is not installed.
        UnknownNameError: no such npu.
    """
    peak = get(npu or cost.npu).macs_per_cycle
    roles = dict.fromkeys(role for op in cost.ops for role in op.traffic)
    for role in roles:
        if role not in bytes_per_cycle:
            raise ConfigError(f"bytes_per_cycle must have {role!r}, got {sorted(bytes_per_cycle)}")
        positive(f"bytes_per_cycle of {role!r}", bytes_per_cycle[role])
    figure = matplotlib_module().figure.Figure(figsize=(8, 5.5), layout="constrained")
    axes = figure.subplots()
    shown = [op for op in cost.ops if op.macs and op.cycles and _intensity(op)]
    largest = max((op.cycles for op in shown), default=1)
    for bound in dict.fromkeys(op.bound for op in shown):
        color, marker = BOUND_STYLES[_bound(bound)]
        group = [op for op in shown if op.bound == bound]
        axes.scatter(
            [_intensity(op) for op in group],
            [op.macs / op.cycles for op in group],
            s=[20 + 180 * op.cycles / largest for op in group],
            color=color,
            marker=marker,
            edgecolors="black",
            linewidths=0.4,
            label=f"bound by {bound}",
            zorder=3,
        )
    values = [_intensity(op) for op in shown] or [1.0]
    knees = [peak / bytes_per_cycle[role] for role in roles] or [1.0]
    left = min(*values, *knees) / _MARGIN
    right = max(*values, *knees) * _MARGIN
    for role, style in zip(roles, ("--", "-.", ":", "-"), strict=False):
        bandwidth = bytes_per_cycle[role]
        knee = peak / bandwidth
        label = f"{role.replace('_', ' ')}: {bandwidth:g} B/cycle"
        axes.plot(
            [left, knee, right], [left * bandwidth, peak, peak], style, color="black", label=label
        )
    axes.axhline(peak, color="black", linewidth=0.8, label=f"peak: {peak} MACs/cycle")
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.set_xlim(left, right)
    axes.set_xlabel("MACs per byte of the operation's slowest memory")
    axes.set_ylabel("MACs per cycle")
    hidden = len(cost.ops) - len(shown)
    also = f"; not shown: {hidden} without MACs or traffic" if hidden else ""
    axes.set_title(f"{cost.model} on {cost.npu}{also}", fontsize=10)
    axes.legend(fontsize=8)
    save(figure, path)


def _intensity(op: OpCost) -> float:
    """MACs per byte of the memory that takes longest; 0 without traffic."""
    if not op.traffic:
        return 0.0
    moved = max(op.traffic.values(), key=lambda traffic: traffic.cycles)
    n_bytes = sum(moved.read_bytes.values()) + sum(moved.written_bytes.values())
    return op.macs / n_bytes if n_bytes else 0.0


def _bound(bound: str) -> str:
    """The style's name of a bound; flash on the chip and off it are one."""
    return choice("bound", "flash" if bound.endswith("_flash") else bound, BOUND_STYLES)


def plot_memory(cost: Cost, path: str) -> None:
    """Draw the arena over time: a rectangle for each stretch, while it is alive, at its address.

    What is alive when the arena is fullest has another colour and hatching.

    Raises:
        ConfigError: `path` cannot be written, or the cost has no arena.
        MissingExtraError: matplotlib is not installed.
    """
    if not cost.arena:
        raise ConfigError(f"cost of {cost.model} must tell its arena to be drawn, got none")
    module = matplotlib_module()
    import matplotlib.patches

    figure = module.figure.Figure(figsize=(_WIDTH_INCHES, 5.5), layout="constrained")
    axes = figure.subplots()
    times = [
        1000 * c / cost.clock_hz for c in accumulate((op.cycles for op in cost.ops), initial=0)
    ]
    for stretch in cost.arena:
        left, right = times[stretch.first_op], times[stretch.last_op + 1]
        rectangle = matplotlib.patches.Rectangle(
            (left, stretch.address / 1024),
            right - left,
            stretch.n_bytes / 1024,
            facecolor="#ee6677" if stretch.at_peak else "#88ccee",
            hatch="//" if stretch.at_peak else None,
            edgecolor="black",
            linewidth=0.5,
            label=stretch.name,
        )
        axes.add_patch(rectangle)
    for stretch in cost.arena:
        left, right = times[stretch.first_op], times[stretch.last_op + 1]
        name = short_name(stretch.name)
        fits = (right - left) * _WIDTH_INCHES > _LETTER_INCHES * len(name) * times[-1]
        if fits and stretch.n_bytes > cost.sram_peak_bytes / 30:
            middle = (left + right) / 2, (stretch.address + stretch.n_bytes / 2) / 1024
            axes.text(*middle, name, fontsize=6, ha="center", va="center", clip_on=True)
    peak = cost.sram_peak_bytes / 1024
    axes.axhline(peak, color="black", linestyle="--", label=f"peak {peak:,.1f} KiB")
    lines = [axes.lines[-1]]
    if cost.arena_limit_bytes is not None:
        limit = cost.arena_limit_bytes / 1024
        lines.append(axes.axhline(limit, color="#aa3377", label=f"limit {limit:,.1f} KiB"))
    axes.set_xlim(0, times[-1] or 1)
    axes.set_ylim(0, 1.08 * max(line.get_ydata()[0] for line in lines) or 1)
    axes.set_xlabel("time, ms")
    axes.set_ylabel("address in the arena, KiB")
    axes.set_title(f"{cost.model} on {cost.npu}, {cost.memory_mode}: hatched: alive at the peak")
    axes.legend(handles=lines, fontsize=8, loc="upper right")
    save(figure, path)


def plot_op_cycles(costs: Sequence[Cost], path: str, npus: Sequence[str | NpuConfig] = ()) -> None:
    """Draw each operation's cycles as a bar stacked by the stages of its waterfall.

    Args:
        costs: one panel each.
        path: of the file; its ending names the format.
        npus: their NPUs, one for each cost, where they are not the presets that the costs name.

    Raises:
        ConfigError: `path` cannot be written.
        MissingExtraError: matplotlib is not installed.
        UnknownNameError: no such npu.
    """
    heights = [_BAR_INCHES * max(6, len(cost.ops)) for cost in costs]
    total = sum(height + _PANEL_INCHES for height in heights)
    figure = matplotlib_module().figure.Figure(figsize=(_WIDTH_INCHES, total))
    top = total  # placed by hand: matplotlib takes minutes to lay out hundreds of panels
    left, right = _NAME_INCHES / _WIDTH_INCHES, 1 - _LEGEND_INCHES / _WIDTH_INCHES
    given = npus or [cost.npu for cost in costs]
    for cost, npu, height in zip(costs, given, heights, strict=True):
        bottom = top - 0.4 * _PANEL_INCHES - height
        axes = figure.add_axes((left, bottom / total, right - left, height / total))
        _stack(axes, cost, npu)
        top -= height + _PANEL_INCHES
    save(figure, path)


def _stack(axes: Any, cost: Cost, npu: str | NpuConfig) -> None:
    rows = range(len(cost.ops))
    parts = [op_waterfall(op, npu).cycles_by_stage for op in cost.ops]
    starts = [0.0] * len(parts)
    for stage in STAGES:
        widths = [part[stage] / 1000 for part in parts]
        if any(widths):
            color, hatch = STAGE_STYLES[stage]
            style = {"color": color, "hatch": hatch, "edgecolor": "white", "linewidth": 0}
            axes.barh(rows, widths, left=starts, label=stage.replace("_", " "), **style)
        starts = [start + width for start, width in zip(starts, widths, strict=True)]
    axes.set_yticks(rows, [short_name(op.name) for op in cost.ops], fontsize=7)
    axes.set_ylim(max(6, len(parts)) - 0.5, -0.5)
    axes.set_xlabel("thousand cycles")
    axes.set_title(f"{cost.model} on {cost.npu}: {cost.total_cycles:,} cycles")
    if axes.containers:
        axes.legend(fontsize=8, loc="upper left", bbox_to_anchor=(1.0, 1.0))


def plot_waterfall(cost: Cost, path: str, npu: str | NpuConfig | None = None) -> None:
    """Draw how the network's cycles grow stage by stage, from the multipliers' peak to the total.

    Args:
        cost: of the network.
        path: of the file; its ending names the format.
        npu: the NPU, where it is not the preset that `cost` names.

    Raises:
        ConfigError: `path` cannot be written.
        MissingExtraError: matplotlib is not installed.
        UnknownNameError: no such npu.
    """
    found = waterfall(cost, npu)
    stages = [(stage, cycles / 1000) for stage, cycles in found.cycles_by_stage.items() if cycles]
    figure = matplotlib_module().figure.Figure(figsize=(8, 4.5), layout="constrained")
    axes = figure.subplots()
    start = 0.0
    for place, (stage, height) in enumerate(stages):
        color, hatch = STAGE_STYLES[stage]
        axes.bar(place, height, bottom=start, color=color, hatch=hatch, edgecolor="white")
        axes.text(place, start + height, f"{height:,.1f}", ha="center", va="bottom", fontsize=8)
        start += height
    axes.bar(len(stages), start, color="#555555")
    axes.text(len(stages), start, f"{start:,.1f}", ha="center", va="bottom", fontsize=8)
    names = [*(stage.replace("_", " ") for stage, _ in stages), "total"]
    axes.set_xticks(range(len(names)), names)
    axes.set_ylabel("thousand cycles")
    axes.margins(y=0.1)
    axes.set_title(
        f"{cost.model} on {cost.npu}: {100 * found.utilisation:.1f} % of the multipliers' peak"
    )
    save(figure, path)
