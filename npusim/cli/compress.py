# SPDX-License-Identifier: Apache-2.0
"""The command ``npusim compress``."""

from __future__ import annotations

import dataclasses
import glob
import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from click.core import ParameterSource

from npusim._arguments import choice
from npusim._files import check_writable
from npusim.cli.output import FORMAT, OUTPUT, csv_text, emit, json_text, progress, table_text
from npusim.errors import ConfigError

if TYPE_CHECKING:
    from npusim.network import Network

_DEFAULT_ENCODERS = ("regor", "legacy", "tight")


@click.command()
@click.argument("models", metavar="MODEL...", nargs=-1, type=click.Path(), required=True)
@click.option("--npu", default="ethos-u55-128", show_default=True, help="NPU preset.")
@click.option(
    "--encoder",
    "encoders",
    multiple=True,
    default=_DEFAULT_ENCODERS,
    show_default=True,
    help="Encoder to measure, or all; may be repeated. The first one's streams count for flash.",
)
@click.option("--effort", type=int, help="Effort of encoder tight, 0..9, if not its default.")
@click.option("--bits", help="Requantize the weights to 1..8 bits first; a list with --sweep.")
@click.option(
    "--sparsity",
    "--nonzeros",
    help="Prune to this fraction of NON-zero weights first, as the paper counts it: 0.1 or 10% "
    "keeps the largest tenth of each tensor; a list with --sweep.",
)
@click.option(
    "--sweep", "sweeping", is_flag=True, help="Flash against bitwidth and fraction of non-zeros."
)
@click.option("--sort", metavar="COLUMN", help="Sort layers; numbers from the largest.")
@click.option("--plot", metavar="FILE", help="Draw a plot too (.png, .svg, .pdf ...).")
@FORMAT
@OUTPUT
@click.pass_context
def compress(context: click.Context, /, **options: Any) -> None:
    """What a model's weights take on the NPU, layer by layer.

    MODEL is a quantized .tflite file, an .onnx file or a quoted pattern of files. Bytes are exact:
    regor and legacy are the encoders of Arm's compiler Vela (5.x and up to 4.x), tight is npusim's
    own; entropy, eq4 and raw are the order-0 entropy of the coded values, eq. (4) of the UDC paper
    and one byte a weight.

    JSON is one object for one model and a list for several; its keys are those of
    npusim.compress.CompressReport.to_json, with --sweep of npusim.sweep.Sweep.to_json.
    """
    if options["output"] is not None:
        check_writable("--output", options["output"])
    if options["plot"] is not None:
        from npusim.report.plots import check_plot

        check_plot(options["plot"])
        check_writable("--plot", options["plot"])
    if options["sweeping"]:
        _sweep(context)
    else:
        _sizes(context)


def _sizes(context: click.Context) -> None:
    from npusim.compress import CompressReport
    from npusim.compress import compress as measure
    from npusim.report import sizes

    options = context.params
    encoders, sort = _encoders(options["encoders"]), options["sort"]
    bits, nonzeros = _bits(options["bits"]), _fractions(options["sparsity"])
    for name, values in (("--bits", bits), ("--sparsity", nonzeros)):
        if len(values) > 1:
            raise ConfigError(f"{name} must be one value without --sweep, got {len(values)}")
    if sort is not None:
        choice("--sort", sort, sizes.layer_columns(encoders))
    networks = load_models(options["models"])
    reports: list[CompressReport] = []
    with progress("compressing", len(networks)) as show:
        for network in networks:
            report = measure(
                network,
                options["npu"],
                encoders=encoders,
                encoder=encoders[0],
                bits=bits[0] if bits else None,
                nonzeros=nonzeros[0] if nonzeros else 1.0,
                effort=options["effort"],
                done=lambda fraction: show(len(reports) + fraction),
            )
            if sort is not None:
                report = dataclasses.replace(report, layers=sizes.sorted_layers(report, sort))
            reports.append(report)
    if options["plot"] is not None:
        from npusim.report.plots import plot_layers

        plot_layers(reports, options["plot"])
    if options["form"] == "json":
        text = json_text(one_or_list([report.to_json() for report in reports]))
    elif options["form"] == "csv":
        rows = [row for report in reports for row in sizes.layer_rows(report)]
        text = csv_text(rows, sizes.row_columns(encoders))
    else:
        tables = [sizes.layer_table(report) for report in reports]
        tables += [sizes.model_table(reports)] if len(reports) > 1 else []
        text = table_text([*tables, *(line for report in reports for line in sizes.notes(report))])
    emit(text, options["output"])


def _sweep(context: click.Context) -> None:
    from npusim.report import sizes
    from npusim.sweep import SWEEP_BITS, SWEEP_NONZEROS, Sweep, sweep

    options = context.params
    for name in ("sort", "effort"):
        if options[name] is not None:
            raise ConfigError(f"--{name} must not go with --sweep, got {options[name]}")
    encoders = _encoders(options["encoders"])
    given = context.get_parameter_source("encoders") is ParameterSource.COMMANDLINE
    if given and len(encoders) > 1:
        raise ConfigError(f"--encoder must be one with --sweep, got {', '.join(encoders)}")
    bits = _bits(options["bits"]) or SWEEP_BITS
    nonzeros = _fractions(options["sparsity"]) or SWEEP_NONZEROS
    networks = load_models(options["models"])
    sweeps: list[Sweep] = []
    with progress("sweeping", len(networks)) as show:
        for network in networks:
            found = sweep(
                network,
                options["npu"],
                bits=bits,
                nonzeros=nonzeros,
                encoder=encoders[0],
                done=lambda fraction: show(len(sweeps) + fraction),
            )
            sweeps.append(found)
    if options["plot"] is not None:
        from npusim.report.plots import plot_sweeps

        plot_sweeps(sweeps, options["plot"])
    if options["form"] == "json":
        text = json_text(one_or_list([found.to_json() for found in sweeps]))
    elif options["form"] == "csv":
        rows = [row for found in sweeps for row in sizes.sweep_rows(found)]
        text = csv_text(rows, sizes.SWEEP_COLUMNS)
    else:
        text = table_text([sizes.sweep_table(found) for found in sweeps])
    emit(text, options["output"])


def one_or_list(records: list[Any]) -> Any:
    """The only record, or all."""
    return records[0] if len(records) == 1 else records


def _encoders(names: Sequence[str]) -> list[str]:
    """Encoders in the order given, each once."""
    found = [name for item in names for name in (_DEFAULT_ENCODERS if item == "all" else (item,))]
    return list(dict.fromkeys(found))


def _fractions(text: str | None) -> list[float]:
    """Comma-separated numbers in 0..1; ``10%`` is 0.1."""
    fractions = []
    for item in [] if text is None else text.split(","):
        number = item.strip().removesuffix("%")
        try:
            fraction = float(number) / (100 if number != item.strip() else 1)
        except ValueError:
            fraction = math.nan
        if not 0 <= fraction <= 1:
            raise ConfigError(
                f"--sparsity must be a fraction of non-zero weights, 0..1 or 0%..100%, got {item!r}"
            )
        fractions.append(fraction)
    return fractions


def _bits(text: str | None) -> list[int]:
    """Comma-separated integers in 1..8."""
    items = [] if text is None else [item.strip() for item in text.split(",")]
    for item in items:
        if item not in tuple("12345678"):
            raise ConfigError(f"--bits must be integers in 1..8, got {item!r}")
    return [int(item) for item in items]


def load_models(patterns: Sequence[str]) -> list[Network]:
    """Networks of the files that match, pattern by pattern, each file once."""
    import npusim

    return [npusim.load(path) for path in model_paths(patterns)]


def model_paths(patterns: Sequence[str]) -> list[str]:
    """Files that match, pattern by pattern, each once."""
    paths: list[str] = []
    for pattern in patterns:
        found = [pattern]  # a name without wildcards stands for itself, so does one of a file
        if glob.has_magic(pattern) and not Path(pattern).exists():
            found = sorted(glob.glob(pattern, recursive=True))  # noqa: PTH207 (Path.glob takes no absolute one)
        if not found:
            raise ConfigError(f"MODEL must match a file, got {pattern!r}")
        paths += found
    return list(dict.fromkeys(paths))
