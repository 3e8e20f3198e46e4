# SPDX-License-Identifier: Apache-2.0
"""The command ``npusim compress``."""

from __future__ import annotations

import glob
import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from click.core import ParameterSource

from npusim._arguments import choice
from npusim.cli.output import (
    FORMAT,
    OUTPUT,
    check_writable,
    csv_text,
    emit,
    json_text,
    progress,
    table_text,
)
from npusim.errors import ConfigError

if TYPE_CHECKING:
    from rich.table import Table

    from npusim.compress import CompressReport, LayerSize, Sweep
    from npusim.network import Network


def _shares(text: str | None) -> list[float]:
    """Comma-separated numbers in 0..1; ``10%`` is 0.1."""
    shares = []
    for item in [] if text is None else text.split(","):
        plain = item.strip().removesuffix("%")
        try:
            share = float(plain) / (100 if plain != item.strip() else 1)
        except ValueError:
            share = math.nan
        if not 0 <= share <= 1:
            raise ConfigError(f"--sparsity must be in 0..1 or 0%..100%, got {item!r}")
        shares.append(share)
    return shares


def _bits(text: str | None) -> list[int]:
    widths = []
    for item in [] if text is None else text.split(","):
        if item.strip() not in tuple("12345678"):
            raise ConfigError(f"--bits must be integers in 1..8, got {item!r}")
        widths.append(int(item))
    return widths


def _paths(patterns: Sequence[str]) -> list[str]:
    """Files of the patterns, each pattern's sorted; a name without wildcards stands for itself.

    By `glob`, since `Path.glob` takes no absolute pattern.
    """
    paths: list[str] = []
    for pattern in patterns:
        found = [pattern]
        if glob.has_magic(pattern) and not Path(pattern).exists():
            found = sorted(glob.glob(pattern, recursive=True))  # noqa: PTH207
        if not found:
            raise ConfigError(f"MODEL must match a file, got {pattern!r}")
        paths += found
    return paths


@click.command()
@click.argument("models", metavar="MODEL...", nargs=-1, required=True)
@click.option("--npu", default="ethos-u55-128", show_default=True, help="NPU preset.")
@click.option(
    "--encoder",
    "encoders",
    multiple=True,
    default=("regor", "legacy", "tight"),
    show_default=True,
    help="Encoder to measure; may be repeated. The first one's streams count for flash.",
)
@click.option("--effort", type=int, help="Effort of encoder tight, 0..9.  [default: 2]")
@click.option("--bits", help="Requantize the weights to 1..8 bits first; a list with --sweep.")
@click.option(
    "--sparsity",
    "--nonzeros",
    help="Prune to this share of NON-zero weights first, as the paper counts it: 0.1 or 10% keeps "
    "the largest tenth; a list with --sweep.",
)
@click.option(
    "--sweep", "sweeping", is_flag=True, help="Flash against bitwidth and share of non-zeros."
)
@click.option("--sort", help="Sort layers by a column of the table; numbers from the largest.")
@click.option("--plot", type=click.Path(dir_okay=False), help="Draw a plot (.png, .svg, .pdf ...).")
@FORMAT
@OUTPUT
@click.pass_context
def compress(
    context: click.Context,
    models: tuple[str, ...],
    npu: str,
    encoders: tuple[str, ...],
    effort: int | None,
    bits: str | None,
    sparsity: str | None,
    sweeping: bool,
    sort: str | None,
    plot: str | None,
    form: str,
    output: str | None,
) -> None:
    """What a model's weights take on the NPU, layer by layer.

    MODEL is a quantized .tflite file or a quoted pattern of files. Bytes are exact: regor and
    legacy are the encoders of Arm's compiler Vela (5.x and up to 4.x), tight is npusim's own.
    """
    import npusim
    from npusim import compress as library

    if plot is not None:
        from npusim.report.plots import check_plot

        check_plot(plot)
        check_writable("--plot", plot)
    if output is not None:
        check_writable("--output", output)
    widths, shares = _bits(bits), _shares(sparsity)
    if not sweeping and max(len(widths), len(shares)) > 1:
        raise ConfigError("--bits and --sparsity must be one value each without --sweep, got more")
    if sweeping:
        _refuse_with_sweep(context)
    if sort is not None:
        choice("--sort", sort, _columns(encoders))
    networks = [npusim.load(path) for path in _paths(models)]
    if sweeping:
        _sweep(networks, npu, encoders[0], widths, shares, plot, form, output)
        return
    reports = []
    n_tensors = sum(len(op.weight_tensors) for network in networks for op in network.ops)
    with progress("compressing", n_tensors) as advance:
        for network in networks:
            reports.append(
                library.compress(
                    network,
                    npu,
                    encoders=encoders,
                    encoder=encoders[0],
                    bits=widths[0] if widths else None,
                    nonzeros=shares[0] if shares else 1.0,
                    effort=effort,
                    done=advance,
                )
            )
    if plot is not None:
        from npusim.report.plots import plot_layers

        plot_layers(reports, plot)
    if form == "json":
        records = [_record(report, sort) for report in reports]
        emit(json_text(records[0] if len(records) == 1 else records), output)
    elif form == "csv":
        rows = [_row(report, layer) for report in reports for layer in _sorted(report, sort)]
        emit(csv_text(rows, _csv_columns(encoders)), output)
    else:
        tables = [_table(report, sort) for report in reports]
        if len(reports) > 1:
            tables.append(_summary(reports))
        emit(table_text(*tables, *_notes(reports)), output)


def _refuse_with_sweep(context: click.Context) -> None:
    """Refuse options that would have no effect on a sweep."""
    for name in ("sort", "effort"):
        if context.params[name] is not None:
            raise ConfigError(f"--{name} must not go with --sweep, got {context.params[name]}")
    encoders = context.params["encoders"]
    chosen = context.get_parameter_source("encoders") is ParameterSource.COMMANDLINE
    if chosen and len(encoders) > 1:
        raise ConfigError(f"--encoder must be one with --sweep, got {', '.join(encoders)}")


def _csv_columns(encoders: Sequence[str]) -> list[str]:
    return ["model", "npu", *_columns(encoders), "same_as"]


def _columns(encoders: Sequence[str]) -> list[str]:
    from npusim.compress import BOUNDS

    plain = ["name", "op", "weights", "coded_weights", "zero_fraction", "distinct_values"]
    return [*plain, "bits_per_weight", *dict.fromkeys(encoders), *BOUNDS, "scale_bytes"]


def _row(report: CompressReport, layer: LayerSize) -> dict[str, Any]:
    """A layer as one flat row."""
    return {
        "model": report.model,
        "npu": report.npu,
        "name": layer.name,
        "op": layer.op,
        "weights": layer.n_weights,
        "coded_weights": layer.n_coded,
        "zero_fraction": round(layer.zero_fraction, 6),
        "distinct_values": layer.n_distinct,
        "bits_per_weight": round(layer.bits_per_weight(report.encoder), 4),
        **layer.n_bytes,
        "scale_bytes": layer.scale_bytes,
        "same_as": layer.same_as,
    }


def _sorted(report: CompressReport, sort: str | None) -> list[LayerSize]:
    if sort is None:
        return list(report.layers)

    def key(layer: LayerSize) -> Any:
        value = _row(report, layer)[sort]
        return value if isinstance(value, str) else -value

    return sorted(report.layers, key=key)


def _record(report: CompressReport, sort: str | None) -> dict[str, Any]:
    """A report as JSON; the keys are part of the public interface."""
    layers = []
    for layer in _sorted(report, sort):
        row = _row(report, layer)
        del row["model"], row["npu"]
        for name in layer.n_bytes:
            del row[name]
        row["shape"] = list(layer.shape)
        row["traversal"] = layer.traversal
        row["ofm_block_depth"] = layer.ofm_block_depth
        row["bytes"] = layer.n_bytes
        layers.append(row)
    n_weights = report.n_weights
    zeros = sum(layer.n_zeros for layer in report.stored)
    total = {
        "weights": n_weights,
        "coded_weights": sum(layer.n_coded for layer in report.stored),
        "zero_fraction": round(zeros / n_weights, 6) if n_weights else None,
        "bits_per_weight": (
            round(8 * report.n_bytes[report.encoder] / n_weights, 4) if n_weights else None
        ),
        "bytes": report.n_bytes,
        "scale_bytes": report.scale_bytes,
    }
    return {
        "model": report.model,
        "npu": report.npu,
        "encoder": report.encoder,
        "bits": report.bits,
        "nonzeros": report.nonzeros,
        "layers": layers,
        "total": total,
        "flash_bytes": report.flash_bytes,
        "not_on_npu": [
            {"name": name, "op": op, "reason": reason} for name, op, reason in report.on_cpu
        ],
    }


def _table(report: CompressReport, sort: str | None) -> Table:
    from rich.table import Table

    table = Table(title=f"{report.model}{_conditioned(report)}, bytes", show_footer=True)
    totals = report.n_bytes
    table.add_column("layer", "total", overflow="fold", min_width=20)
    table.add_column("op", no_wrap=True)
    coded = sum(layer.n_coded for layer in report.stored)
    sums = {
        "weights": report.n_weights,
        "coded": coded,
        "zeros %": "",
        "distinct": "",
        "bits/w": "",
    }
    for name, total in {**sums, **totals, "scales": report.scale_bytes}.items():
        footer = total if isinstance(total, str) else f"{total:,}"
        table.add_column(name, footer, justify="right", no_wrap=True)
    for layer in _sorted(report, sort):
        table.add_row(
            _short(layer.name)
            + (f" (= {_short(layer.same_as)}, not counted)" if layer.same_as else ""),
            layer.op,
            f"{layer.n_weights:,}",
            f"{layer.n_coded:,}",
            f"{100 * layer.zero_fraction:.1f}",
            str(layer.n_distinct),
            f"{layer.bits_per_weight(report.encoder):.3f}",
            *(f"{layer.n_bytes[name]:,}" for name in totals),
            f"{layer.scale_bytes:,}",
        )
    table.caption = (
        f"flash: {report.flash_bytes:,} bytes ({report.encoder} streams, biases and scales)"
    )
    return table


def _conditioned(report: CompressReport) -> str:
    """The NPU, and what was done to the weights."""
    width = "" if report.bits is None else f", requantized to {report.bits} bits"
    share = "" if report.nonzeros == 1 else f", pruned to {100 * report.nonzeros:g} % non-zeros"
    return f" on {report.npu}{width}{share}"


def _short(name: str) -> str:
    """The last part of a name of several tensors, at most 40 characters of it."""
    last = name.rsplit(";", 1)[-1]
    return last if len(last) <= 40 else "…" + last[-39:]


def _summary(reports: Sequence[CompressReport]) -> Table:
    from rich.table import Table

    table = Table(title="all models, bytes")
    names = list(reports[0].n_bytes)
    for name in ("model", "weights", *names, "scales", "flash"):
        table.add_column(name, justify="left" if name == "model" else "right", no_wrap=True)
    for report in reports:
        figures = [report.n_weights, *report.n_bytes.values()]
        figures += [report.scale_bytes, report.flash_bytes]
        table.add_row(report.model, *(f"{figure:,}" for figure in figures))
    return table


def _notes(reports: Sequence[CompressReport]) -> list[str]:
    notes = []
    for report in reports:
        if not report.layers:
            notes.append(f"{report.model}: no operation has weights on the NPU")
        for name, op, reason in report.on_cpu:
            notes.append(f"{report.model}: {op} {name!r} is not on the NPU: {reason}")
    return notes


def _sweep(
    networks: Sequence[Network],
    npu: str,
    encoder: str,
    widths: list[int],
    shares: list[float],
    plot: str | None,
    form: str,
    output: str | None,
) -> None:
    from npusim import compress as library

    bits = widths or list(library.SWEEP_BITS)
    nonzeros = shares or list(library.SWEEP_NONZEROS)
    with progress("sweeping", len(networks) * len(bits) * len(nonzeros)) as advance:
        sweeps = [
            library.sweep(network, npu, bits=bits, nonzeros=nonzeros, encoder=encoder, done=advance)
            for network in networks
        ]
    if plot is not None:
        from npusim.report.plots import plot_sweeps

        plot_sweeps(sweeps, plot)
    rows = [row for sweep in sweeps for row in _sweep_rows(sweep)]
    if form == "json":
        emit(json_text(rows), output)
    elif form == "csv":
        emit(csv_text(rows, list(rows[0])), output)
    else:
        emit(table_text(*(_sweep_table(sweep) for sweep in sweeps)), output)


def _sweep_rows(sweep: Sweep) -> list[dict[str, Any]]:
    base = sweep.baseline
    return [
        {
            "model": base.model,
            "npu": base.npu,
            "encoder": base.encoder,
            "bits": point.bits,
            "nonzeros": point.nonzeros,
            "flash_bytes": point.flash_bytes,
            "baseline_flash_bytes": base.flash_bytes,
            "reduction": round(point.reduction, 4),
        }
        for point in sweep.points
    ]


def _sweep_table(sweep: Sweep) -> Table:
    from rich.table import Table

    base = sweep.baseline
    nonzeros = list(dict.fromkeys(point.nonzeros for point in sweep.points))
    table = Table(
        title=f"{base.model} on {base.npu}: flash in KB and how many times smaller",
        caption=f"as it is: {base.flash_bytes / 1000:,.1f} KB ({base.encoder} streams, biases and "
        "scales); columns: share of non-zero weights",
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
