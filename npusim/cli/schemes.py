# SPDX-License-Identifier: Apache-2.0
"""The command ``npusim schemes``."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from npusim._files import check_writable, write_whole
from npusim.cli.compress import load_models, one_or_list
from npusim.cli.output import FORMAT, OUTPUT, csv_text, emit, json_text, progress, table_text
from npusim.errors import ConfigError

if TYPE_CHECKING:
    from npusim.hardware import Machine
    from npusim.network import Network
    from npusim.schemes import Scheme
    from npusim.schemes.accuracy import TestData
    from npusim.schemes.condition import Condition
    from npusim.schemes.lab import Comparison


@click.group()
def schemes() -> None:
    """Compression schemes for weights: what there is, what they take, vectors for hardware."""


@schemes.command("list")
@FORMAT
@OUTPUT
def list_schemes(form: str, output: str | None) -> None:
    """All schemes, each with the decoder that its defaults take."""
    from npusim.report import schemes as report

    if form == "json":
        text = json_text(report.scheme_rows())
    elif form == "csv":
        text = csv_text(report.scheme_rows(), report.LIST_COLUMNS)
    else:
        text = table_text([report.scheme_table()])
    emit(text, output)


@schemes.command()
@click.argument("name")
@click.option("--param", "params", multiple=True, metavar="NAME=VALUE", help="Of the scheme.")
@OUTPUT
def show(name: str, params: tuple[str, ...], output: str | None) -> None:
    """One scheme: its format, parameters, decoder and sources."""
    import inspect

    scheme = _scheme(name, params)
    lines = [f"{scheme.name}", "", inspect.getdoc(type(scheme)) or ""]
    lines += ["", "parameters: " + (_pairs(scheme.parameters) or "none")]
    lines += ["decoder: " + (inspect.getdoc(type(scheme).decoder) or "")]
    record = scheme.decoder.to_json()
    record["area_ge"] = "{:,} to {:,}, tables and lanes included".format(*record["area_ge"])
    lines += [f"  {key}: {value}" for key, value in record.items()]
    low, high = scheme.value_range
    lines += [f"weights: {low}..{high}{'' if scheme.lossless else ', not of every pattern'}"]
    emit("\n".join(lines) + "\n", output)


@schemes.command()
@click.argument("models", metavar="MODEL...", nargs=-1, type=click.Path(), required=True)
@click.option(
    "--scheme",
    "names",
    multiple=True,
    default=("all",),
    show_default=True,
    metavar="NAME[:PARAM=VALUE,...]",
    help="May be repeated.",
)
@click.option(
    "--npu",
    default="ethos-u55-128",
    show_default=True,
    help="Which orders the weights and executes the network.",
)
@click.option("--system", help="System config, if not that of npusim estimate.")
@click.option("--memory-mode", help="Memory mode, likewise.")
@click.option("--prune", help="Fractions of weights to set to ZERO first: 0.5,0.9 or 50%,90%.")
@click.option("--bits", help="Widths to requantize to first: 8,4.")
@click.option("--cluster", "clusters", help="Numbers of values to cluster to first: 32,16.")
@click.option("--n-of-m", "patterns", help="Patterns to prune to last: 2:4,1:4.")
@click.option("--lanes", type=int, help="Lanes of the decoders, if not their default.")
@click.option("--fifo", type=int, help="Bits of a lane's FIFO, if not the default.")
@click.option("--dma", type=float, help="Bytes a cycle from memory, if not as many as wanted.")
@click.option("--sizes-only", is_flag=True, help="Neither simulate decoders nor cost inferences.")
@click.option(
    "--data",
    metavar="FILE.npz",
    help="Run the models on it: inputs (or images), and labels or targets if they are known.",
)
@click.option(
    "--inputs",
    "n_inputs",
    type=int,
    help="How many of the data's inputs to take, or without --data how many random ones.",
)
@click.option("--write", "folder", metavar="DIR", help="Write the conditioned models there too.")
@click.option("--plot", metavar="FILE", help="Draw a plot too (.png, .svg, .pdf ...).")
@FORMAT
@OUTPUT
def compare(**options: Any) -> None:
    """Every scheme on a model's weights: bytes, the decoder's cycles and area, an inference.

    MODEL is a quantized .tflite file, an .onnx file or a quoted pattern of files. Sizes are exact;
    with lists of conditions all combinations are measured. Cycles and energy of an inference are
    those of npusim estimate --scheme: what if the NPU read these streams. With --data or --inputs
    models are run in LiteRT, conditioned and as they are.

    JSON is one object for one model and a list for several; its keys are those of
    npusim.schemes.lab.Comparison.to_json.
    """
    if options["output"] is not None:
        check_writable("--output", options["output"])
    if options["sizes_only"]:
        for name in ("plot", "system", "memory_mode"):
            if options[name] is not None:
                flag = f"--{name.replace('_', '-')}"
                raise ConfigError(f"{flag} must not go with --sizes-only, got both")
    if options["plot"] is not None:
        from npusim.report.plots import check_plot

        check_plot(options["plot"])
        check_writable("--plot", options["plot"])
    comparisons = _compare(options)
    from npusim.report import schemes as report

    if options["plot"] is not None:
        report.plot_comparisons(comparisons, options["plot"])
    if options["form"] == "json":
        text = json_text(one_or_list([found.to_json() for found in comparisons]))
    elif options["form"] == "csv":
        rows = [row for found in comparisons for row in report.comparison_rows(found)]
        text = csv_text(rows, report.ROW_COLUMNS)
    else:
        tables = [
            report.comparison_table(found, point) for found in comparisons for point in found.points
        ]
        text = table_text([*tables, *comparisons[0].left_out.values()])
    emit(text, options["output"])


def _compare(options: dict[str, Any]) -> list[Comparison]:
    from npusim.hardware import DEFAULT_MEMORY_MODE, DEFAULT_SYSTEM_CONFIG, machine
    from npusim.schemes.condition import conditions
    from npusim.schemes.decoder_simulation import FIFO_BITS
    from npusim.schemes.lab import compare as measure

    npu, names = options["npu"], options["names"]
    if not options["sizes_only"]:
        system = options["system"] or DEFAULT_SYSTEM_CONFIG
        npu = machine(npu, system, options["memory_mode"] or DEFAULT_MEMORY_MODE)
    points = conditions(
        nonzeros=[round(1 - share, 12) for share in fractions(options["prune"])] or [1.0],
        bits=_numbers("--bits", options["bits"]) or [None],
        clusters=_numbers("--cluster", options["clusters"]) or [None],
        patterns=_patterns(options["patterns"]) or [None],
    )
    networks = load_models(options["models"])
    data = [_data(network, options) for network in networks]
    if options["folder"] is not None:
        _write_conditioned(networks, points, npu, options["folder"])
    found: list[Comparison] = []
    with progress("comparing", len(networks)) as tell:
        for network, inputs in zip(networks, data, strict=True):
            found.append(
                measure(
                    network,
                    npu,
                    names=None if "all" in names else names,
                    conditions=points,
                    simulate=not options["sizes_only"],
                    lanes=options["lanes"],
                    fifo=FIFO_BITS if options["fifo"] is None else options["fifo"],
                    dma_bytes_per_cycle=math.inf if options["dma"] is None else options["dma"],
                    data=inputs,
                    done=lambda fraction: tell(len(found) + fraction),
                )
            )
    return found


def _data(network: Network, options: dict[str, Any]) -> TestData | None:
    """What to run a model on, if it is to be run."""
    from npusim.schemes.accuracy import load_test_data, random_test_data

    path, n = options["data"], options["n_inputs"]
    if path is None:
        return None if n is None else random_test_data(network, n)
    data = load_test_data(path, network)
    return data if n is None else data.first(n)


def _write_conditioned(
    networks: Sequence[Network], points: Sequence[Condition], npu: str | Machine, folder: str
) -> None:
    """Every model under every condition as MODEL-CONDITION.tflite."""
    from npusim.formats.tflite_write import write
    from npusim.npu import get
    from npusim.schemes.condition import conditioned

    if not Path(folder).is_dir():
        raise ConfigError(f"--write must be a folder, got {folder!r}")
    config = get(npu) if isinstance(npu, str) else npu.npu
    for network in networks:
        for point in points:
            made = conditioned(network, point, config)
            path = str(Path(folder) / f"{network.name}-{point.file_name}.tflite")
            write_whole("--write", path, partial(write, made))


@schemes.command()
@click.argument("name")
@click.option("--out", "folder", required=True, metavar="DIR", help="Where to; made if need be.")
@click.option("--param", "params", multiple=True, metavar="NAME=VALUE", help="Of the scheme.")
def vectors(name: str, folder: str, params: tuple[str, ...]) -> None:
    """Write golden vectors of a scheme: JSON, and hex files for $readmemh.

    For each case NAME.json, NAME.stream.hex (a byte a line) and NAME.weights.hex (16 bits a line).
    """
    from npusim.schemes.vectors import write_vectors

    for path in write_vectors(_scheme(name, params), folder):
        click.echo(path)


def _scheme(name: str, params: tuple[str, ...]) -> Scheme:
    from npusim import schemes as registered

    return registered.get(name, **dict(map(registered.parse_parameter, params)))


def _pairs(values: dict[str, Any]) -> str:
    return ", ".join(f"{name}={value}" for name, value in values.items())


def fractions(text: str | None) -> list[float]:
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
                f"--prune must be fractions of weights to set to zero, 0..1, got {item!r}"
            )
        fractions.append(fraction)
    return fractions


def _numbers(option: str, text: str | None) -> list[int]:
    numbers = []
    for item in [] if text is None else text.split(","):
        if not item.strip().isascii() or not item.strip().isdecimal():
            raise ConfigError(f"{option} must be integers, got {item!r}")
        numbers.append(int(item))
    return numbers


def _patterns(text: str | None) -> list[tuple[int, int]]:
    found = []
    for item in [] if text is None else text.split(","):
        n, colon, m = item.strip().partition(":")
        if not (colon and n.isascii() and m.isascii() and n.isdecimal() and m.isdecimal()):
            raise ConfigError(f"--n-of-m must be patterns such as 2:4, got {item!r}")
        found.append((int(n), int(m)))
    return found
