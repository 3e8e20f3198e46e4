# SPDX-License-Identifier: Apache-2.0
"""Costs of networks as tables for people, rows for CSV and values for JSON."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from npusim._arguments import choice
from npusim.cost.explain import (
    STAGES,
    CostDiff,
    Waterfall,
    bound_shares,
    op_waterfall,
    waterfall,
)
from npusim.cost.result import TRAFFIC, Cost, OpCost
from npusim.npu import NpuConfig
from npusim.report.names import short_name

if TYPE_CHECKING:
    from rich.table import Table

ROLES = ("sram", "dram", "flash")
"""Memories in rows and tables; flash on the chip and off it together."""
_WHERE = ("model", "npu", "system_config", "memory_mode")
_MEASURES = (
    *("total_cycles", "npu_cycles", "macs", "inference_s", "sram_peak_bytes"),
    *("dram_peak_bytes", "flash_bytes", "weights_encoded_bytes", "arena_limit_bytes"),
    *("fits", "n_cpu_ops", "decoder", "scheme"),
)
_TEXT_COLUMNS = ("name", "op", "bound", "traversal", "buffering", "obstacle", "block")
OP_COLUMNS = (
    *("name", "op", "cycles", "npu_cycles", "macs", "utilisation", "bound", "mac_cycles"),
    *("output_cycles", "issue_cycles", "compute_cycles", "decode_cycles", "block", "traversal"),
    *(f"{role}_{side}_bytes" for role in ROLES for side in ("read", "written")),
    *(f"{role}_cycles" for role in ROLES),
    *("weights_encoded_bytes", "scale_bytes", "buffering", "pre_buffered", "n_depth_slices"),
    *("weight_buffer_bytes", "sram_bytes", "cascade", "stripe_height", "obstacle"),
)
"""Columns of `op_rows` that say something of an operation, by which they can be sorted."""
ROW_COLUMNS = (*_WHERE, *OP_COLUMNS)
"""Columns of `op_rows`."""
DIFF_COLUMNS = (
    *("name", "difference_cycles", "before_cycles", "after_cycles"),
    *("before_bound", "after_bound", "before_macs", "after_macs"),
)
"""Columns of `diff_rows`."""
COST_COLUMNS = (*_WHERE, *_MEASURES, "utilisation")
"""Columns of `cost_rows`."""


def op_rows(cost: Cost, npu: str | NpuConfig | None = None) -> list[dict[str, Any]]:
    """A flat row for each operation.

    Args:
        cost: of the network.
        npu: the NPU, where it is not the preset that `cost` names.

    Raises:
        UnknownNameError: no such npu.
    """
    return [_op_row(cost, op, npu or cost.npu) for op in cost.ops]


def _op_row(cost: Cost, op: OpCost, npu: str | NpuConfig) -> dict[str, Any]:
    row: dict[str, Any] = {name: getattr(cost, name) for name in _WHERE}
    for name in OP_COLUMNS:
        if hasattr(op, name):
            row[name] = getattr(op, name)
    row["utilisation"] = op_waterfall(op, npu).utilisation
    row["block"] = "" if op.block is None else "x".join(map(str, op.block.ofm_block))
    row["n_depth_slices"] = max(len(op.depth_slices) - 1, 0)
    for role in ROLES:
        read, written, cycles = _moved(op, role)
        row |= {f"{role}_read_bytes": read, f"{role}_written_bytes": written}
        row[f"{role}_cycles"] = cycles
    return {name: row[name] for name in ROW_COLUMNS}


def _moved(op: OpCost, role: str) -> tuple[int, int, int]:
    """Bytes read and written, and cycles, in memories whose role ends so."""
    moved = [traffic for name, traffic in op.traffic.items() if name.endswith(role)]
    return (
        sum(sum(traffic.read_bytes.get(what, 0) for what in TRAFFIC) for traffic in moved),
        sum(sum(traffic.written_bytes.get(what, 0) for what in TRAFFIC) for traffic in moved),
        sum(traffic.cycles for traffic in moved),
    )


def sorted_ops(cost: Cost, column: str, npu: str | NpuConfig | None = None) -> tuple[OpCost, ...]:
    """Operations by a column of `OP_COLUMNS`: text from A, numbers from the largest.

    Raises:
        UnknownNameError: no such column, or no such npu.
    """
    return tuple(cost.ops[place] for place in op_order(cost, column, npu))


def op_order(cost: Cost, column: str, npu: str | NpuConfig | None = None) -> list[int]:
    """Places of the operations in the order of `sorted_ops`.

    Raises:
        UnknownNameError: no such column, or no such npu.
    """
    choice("column", column, OP_COLUMNS)
    values = [row[column] for row in op_rows(cost, npu)]
    return sorted(range(len(values)), key=values.__getitem__, reverse=column not in _TEXT_COLUMNS)


def cost_rows(costs: Sequence[Cost], npus: Sequence[str | NpuConfig] = ()) -> list[dict[str, Any]]:
    """A flat row for each network and NPU.

    Args:
        costs: of the networks.
        npus: their NPUs, one for each cost, where they are not the presets that the costs name.

    Raises:
        UnknownNameError: no such npu.
    """
    rows = []
    for cost, npu in zip(costs, npus or [cost.npu for cost in costs], strict=True):
        row = {name: getattr(cost, name) for name in (*_WHERE, *_MEASURES)}
        rows.append({**row, "utilisation": waterfall(cost, npu).utilisation})
    return rows


def op_table(cost: Cost, npu: str | NpuConfig | None = None) -> Table:
    """A row for each operation, the totals below.

    Raises:
        UnknownNameError: no such npu.
    """
    from rich.table import Table

    total = waterfall(cost, npu)
    rows = op_rows(cost, npu)
    table = Table(title=_title(cost), caption=_caption(cost), show_footer=True)
    table.add_column("operation", "total", overflow="fold", min_width=20)
    table.add_column("op", no_wrap=True)
    table.add_column("cycles", f"{cost.total_cycles:,}", justify="right", no_wrap=True)
    table.add_column("%", justify="right", no_wrap=True)
    table.add_column("bound", no_wrap=True)
    table.add_column("MACs", f"{cost.macs:,}", justify="right", no_wrap=True)
    table.add_column("util %", _percent(total.utilisation), justify="right", no_wrap=True)
    table.add_column("block", no_wrap=True)
    moved = [f"{role}_{side}_bytes" for role in ROLES for side in ("read", "written")]
    shown = [name for name in moved if any(row[name] for row in rows)]
    for name in shown:
        text = " ".join(name.split("_")[:2])
        n_bytes = sum(row[name] for row in rows)
        table.add_column(f"{text} B", f"{n_bytes:,}", justify="right", no_wrap=True)
    for row in rows:
        table.add_row(
            short_name(row["name"]),
            row["op"],
            f"{row['cycles']:,}",
            _percent(row["cycles"] / cost.total_cycles if cost.total_cycles else 0.0),
            row["bound"],
            f"{row['macs']:,}",
            _percent(row["utilisation"]),
            row["block"],
            *(f"{row[name]:,}" for name in shown),
        )
    return table


def cost_table(costs: Sequence[Cost], npus: Sequence[str | NpuConfig] = ()) -> Table:
    """A row for each network and NPU; arguments and errors as of `cost_rows`."""
    from rich.table import Table

    named = {cost.scheme for cost in costs if cost.scheme}
    what_if = f", what if weights were in scheme {', '.join(sorted(named))}" if named else ""
    table = Table(title=f"costs of an inference{what_if}")
    table.add_column("model", overflow="fold", min_width=12)
    for name in ("npu", "system config", "memory mode"):
        table.add_column(name, no_wrap=True)
    for name in ("cycles", "ms", "util %", "SRAM KiB", "flash KiB", "CPU ops"):
        table.add_column(name, justify="right", no_wrap=True)
    for row in cost_rows(costs, npus):
        table.add_row(
            *(row[name] for name in _WHERE),
            f"{row['total_cycles']:,}",
            f"{1000 * row['inference_s']:,.3f}",
            _percent(row["utilisation"]),
            f"{row['sram_peak_bytes'] / 1024:,.1f}" + ("" if row["fits"] else " (too large)"),
            f"{row['flash_bytes'] / 1024:,.1f}",
            str(row["n_cpu_ops"]),
        )
    return table


def bound_table(cost: Cost) -> Table:
    """What bounds the network's operations, the most cycles first."""
    from rich.table import Table

    table = Table(title=f"{cost.model} on {cost.npu}: what operations are bound by")
    table.add_column("bound")
    for name in ("operations", "cycles", "%"):
        table.add_column(name, justify="right")
    for part in bound_shares(cost):
        cycles = f"{part.cycles:,}"
        table.add_row(part.bound, str(part.n_ops), cycles, _percent(part.share))
    return table


def waterfall_table(found: Waterfall) -> Table:
    """From the multipliers' peak to the cycles a network or an operation takes, stage by stage."""
    from rich.table import Table

    table = Table(title=f"{found.name}: where {found.cycles:,.0f} cycles go")
    table.add_column("stage")
    table.add_column("")
    for name in ("cycles", "%", "until here"):
        table.add_column(name, justify="right", no_wrap=True)
    until = 0.0
    for stage, cycles in found.cycles_by_stage.items():
        until += cycles
        share = cycles / found.cycles if found.cycles else 0.0
        cells = (f"{cycles:,.0f}", _percent(share), f"{until:,.0f}")
        table.add_row(stage, STAGES[stage], *cells)
    return table


def diff_table(diff: CostDiff) -> Table:
    """A row for each operation that two costs differ in, the totals below."""
    from rich.table import Table

    names = (f"{cost.model} on {cost.npu}" for cost in (diff.before, diff.after))
    before, after = diff.totals["total_cycles"]
    table = Table(title=" → ".join(names), caption=_diff_caption(diff), show_footer=True)
    table.add_column("operation", "total", overflow="fold", min_width=20)
    table.add_column("cycles before", f"{before:,}", justify="right", no_wrap=True)
    table.add_column("after", f"{after:,}", justify="right", no_wrap=True)
    table.add_column("difference", f"{after - before:+,}", justify="right", no_wrap=True)
    table.add_column("bound", no_wrap=True)
    for op in diff.ops:
        if op.before and op.after and not op.cycles and op.before.bound == op.after.bound:
            continue
        bounds = [side.bound if side else "none" for side in (op.before, op.after)]
        table.add_row(
            short_name(op.name),
            *(f"{side.cycles:,}" if side else "" for side in (op.before, op.after)),
            f"{op.cycles:+,}",
            " → ".join(dict.fromkeys(bounds)),
        )
    return table


def diff_rows(diff: CostDiff) -> list[dict[str, Any]]:
    """A flat row for each operation of two costs, those that do not differ included."""
    rows = []
    for op in diff.ops:
        row: dict[str, Any] = {"name": op.name, "difference_cycles": op.cycles}
        for when, side in (("before", op.before), ("after", op.after)):
            row[f"{when}_cycles"] = side.cycles if side else None
            row[f"{when}_bound"] = side.bound if side else None
            row[f"{when}_macs"] = side.macs if side else None
        rows.append(row)
    return rows


def notes(cost: Cost) -> list[str]:
    """A line for each thing that the reader must know."""
    lines = [f"{cost.model}: {note}" for note in cost.notes]
    limit = cost.arena_limit_bytes
    if limit is not None and cost.sram_peak_bytes > limit:
        lines.append(
            f"{cost.model}: the arena takes {cost.sram_peak_bytes:,} bytes, {limit:,} are allowed"
        )
    for op in cost.ops:
        if not op.on_npu:
            lines.append(
                f"{cost.model}: {op.source_op or op.op} {short_name(op.name)!r} is on the CPU: "
                f"{op.obstacle}"
            )
    return lines


def _title(cost: Cost) -> str:
    where = ", ".join((cost.npu, cost.system_config, cost.memory_mode))
    what_if = f", what if weights were in scheme {cost.scheme}" if cost.scheme else ""
    return f"{cost.model} on {where}{what_if}"


def _caption(cost: Cost) -> str:
    text = f"{1000 * cost.inference_s:,.3f} ms at {cost.clock_hz / 1e6:,.0f} MHz; "
    if cost.dram_peak_bytes:
        text += f"SRAM {cost.sram_peak_bytes:,} B; DRAM {cost.dram_peak_bytes:,} B"
    else:
        text += f"arena {cost.sram_peak_bytes:,} B"
    return f"{text}; flash {cost.flash_bytes:,} B"


def _diff_caption(diff: CostDiff) -> str:
    parts = [f"{1000 * s.inference_s:,.3f} ms" for s in (diff.before, diff.after)]
    lines = [" → ".join(parts)]
    labels = {"macs": "MACs", "sram_peak_bytes": "arena bytes", "flash_bytes": "flash bytes"}
    for name, label in labels.items():
        before, after = diff.totals[name]
        lines.append(f"{label} {before:,} → {after:,}")
    return "; ".join(lines)


def _percent(share: float) -> str:
    return f"{100 * share:.1f}"
