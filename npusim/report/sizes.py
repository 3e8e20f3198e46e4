# SPDX-License-Identifier: Apache-2.0
"""Compressed sizes of networks as tables for people and as rows for CSV."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from npusim._arguments import choice
from npusim.compress import BOUNDS, CompressReport, LayerSize
from npusim.report.names import short_name

if TYPE_CHECKING:
    from rich.table import Table

    from npusim.sweep import Sweep

_TEXT_COLUMNS = ("name", "op")


def layer_columns(encoders: Sequence[str]) -> list[str]:
    """Columns that layers can be sorted by: those of `layer_rows` that say something of a layer."""
    return [
        *("name", "op", "weights", "coded_weights", "zero_fraction", "distinct_values"),
        *("bits_per_weight", *dict.fromkeys(encoders), *BOUNDS, "scale_bytes"),
    ]


def row_columns(encoders: Sequence[str]) -> list[str]:
    """Columns of `layer_rows`."""
    return ["model", "npu", *layer_columns(encoders), "same_as"]


def layer_rows(report: CompressReport) -> list[dict[str, Any]]:
    """A flat row for each layer: its JSON values, with bytes by encoder and bound side by side."""
    rows = []
    for layer in report.layers:
        values = layer.to_json(report.encoder)
        values |= {"model": report.model, "npu": report.npu, **values["bytes"]}
        rows.append({name: values[name] for name in row_columns(report.encoders)})
    return rows


def sorted_layers(report: CompressReport, column: str) -> tuple[LayerSize, ...]:
    """Layers by a column of `layer_columns`: text from A, numbers from the largest.

    Raises:
        UnknownNameError: no such column.
    """
    choice("column", column, layer_columns(report.encoders))
    values = [row[column] for row in layer_rows(report)]
    places = sorted(range(len(values)), key=values.__getitem__, reverse=column not in _TEXT_COLUMNS)
    return tuple(report.layers[place] for place in places)


def layer_table(report: CompressReport) -> Table:
    """A row for each layer, the totals below."""
    from rich.table import Table

    table = Table(title=f"{report.model} on {report.npu}{_conditioned(report)}, bytes")
    table.show_footer = True
    table.add_column("layer", "total", overflow="fold", min_width=20)
    table.add_column("op", no_wrap=True)
    coded = sum(layer.n_coded for layer in report.stored)
    totals: dict[str, int | None] = {"weights": report.n_weights, "coded": coded}
    totals |= {"zeros %": None, "distinct": None, "bits/w": None}
    totals |= {**report.n_bytes, "scales": report.scale_bytes}
    for name, total in totals.items():
        footer = "" if total is None else f"{total:,}"
        table.add_column(name, footer, justify="right", no_wrap=True)
    for layer in report.layers:
        table.add_row(
            short_name(layer.name)
            + (f" (= {short_name(layer.same_as)}, not counted)" if layer.same_as else ""),
            layer.op,
            f"{layer.n_weights:,}",
            f"{layer.n_coded:,}",
            f"{100 * layer.n_zeros / layer.n_weights:.1f}",
            str(layer.n_distinct),
            f"{8 * layer.n_bytes[report.encoder] / layer.n_weights:.3f}",
            *(f"{layer.n_bytes[name]:,}" for name in report.n_bytes),
            f"{layer.scale_bytes:,}",
        )
    table.caption = (
        f"flash: {report.flash_bytes:,} bytes ({report.encoder} streams, biases and scales)"
    )
    return table


def _conditioned(report: CompressReport) -> str:
    """What was done to the weights."""
    width = "" if report.bits is None else f", requantized to {report.bits} bits"
    return width + (
        "" if report.nonzeros == 1 else f", pruned to {100 * report.nonzeros:g} % non-zeros"
    )


def model_table(reports: Sequence[CompressReport]) -> Table:
    """A row for each model, all measured with the same encoders, the totals below."""
    from rich.table import Table

    rows = [
        [report.n_weights, *report.n_bytes.values(), report.scale_bytes, report.flash_bytes]
        for report in reports
    ]
    table = Table(title="all models, bytes", show_footer=True)
    table.add_column("model", "total", overflow="fold", min_width=20)
    names = ("weights", *reports[0].n_bytes, "scales", "flash")
    for name, *figures in zip(names, *rows, strict=True):
        table.add_column(name, f"{sum(figures):,}", justify="right", no_wrap=True)
    for report, row in zip(reports, rows, strict=True):
        table.add_row(report.model, *(f"{figure:,}" for figure in row))
    return table


def notes(report: CompressReport) -> list[str]:
    """A line for each operation whose weights are not in the table."""
    lines = []
    if not report.layers:
        lines.append(f"{report.model}: no operation has weights on the NPU")
    for op in report.on_cpu:
        what = f"{op.op} {short_name(op.name)!r} with {op.n_weights:,} weights"
        lines.append(f"{report.model}: {what} is not on the NPU: {op.reason}")
    return lines


SWEEP_COLUMNS = (
    *("model", "npu", "encoder", "bits", "nonzeros", "nonzero_fraction"),
    *("flash_bytes", "baseline_flash_bytes", "reduction"),
)
"""Columns of `sweep_rows`."""


def sweep_rows(sweep: Sweep) -> list[dict[str, Any]]:
    """A flat row for each point: its JSON values beside those of the network as it is."""
    record = sweep.to_json()
    common = {name: record[name] for name in ("model", "npu", "encoder")}
    common["baseline_flash_bytes"] = record["flash_bytes"]
    return [{**common, **point} for point in record["points"]]


def sweep_table(sweep: Sweep) -> Table:
    """Bitwidths downwards, fractions of non-zeros sideways."""
    from rich.table import Table

    base = sweep.baseline
    nonzeros = list(dict.fromkeys(point.nonzeros for point in sweep.points))
    table = Table(
        title=f"{base.model} on {base.npu}: flash in KB and how many times smaller",
        caption=f"as it is: {base.flash_bytes / 1000:,.1f} KB ({base.encoder} streams, biases and "
        "scales); columns: fraction of non-zero weights",
    )
    table.add_column("bits", justify="right")
    for share in nonzeros:
        table.add_column(f"{100 * share:g} %", justify="right", no_wrap=True)
    for width in dict.fromkeys(point.bits for point in sweep.points):
        cells = [point for point in sweep.points if point.bits == width]
        table.add_row(
            str(width), *(f"{p.flash_bytes / 1000:,.0f}  {p.reduction:.1f}x" for p in cells)
        )
    return table
