# SPDX-License-Identifier: Apache-2.0
"""The command ``npusim calibrate``."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from npusim._files import check_writable
from npusim.cli.hardware import hardware_options, only_setup, schedule, schedule_options
from npusim.cli.output import FORMAT, OUTPUT, csv_text, emit, json_text, progress, table_text
from npusim.cli.workloads import load_workloads
from npusim.errors import ConfigError

if TYPE_CHECKING:
    from npusim.cost.calibrate import Point
    from npusim.cost.what_if import Setup


@click.command()
@click.argument("points", metavar="[POINTS]", required=False)
@click.option("--models", "folder", metavar="DIR", help="Where the points' models are.")
@click.option(
    "--model",
    "given",
    multiple=True,
    metavar="NAME=FILE",
    help="The model of a point that is not called like it; may be repeated.",
)
@click.option(
    "--parameter",
    "parameters",
    multiple=True,
    help="Correction to fit, see npusim.cost.calibrate.Corrections; may be repeated. "
    "memory_efficiency and overhead_cycles_per_op if not given.",
)
@hardware_options
@schedule_options
@FORMAT
@OUTPUT
def calibrate(**options: Any) -> None:
    """Fit the cost model to measured cycles, and say how far it can be trusted after.

    POINTS is a .toml file with a table for each network that has the key cycles, or a .csv file
    with the columns name and cycles; without it, what Arm publishes of three networks on its
    virtual platform (ethos-u55-128, Ethos_U55_High_End_Embedded, Shared_Sram). The model of a point
    is the file in --models with the point's name in its own.

    Errors are those of the model as it is, of the fit, and of each network by a fit to the others.
    JSON has the keys of npusim.cost.calibrate.Calibration.to_json, and beats for published points.
    """
    if options["output"] is not None:
        check_writable("--output", options["output"])
    from npusim.cost.calibrate import HEADLINE
    from npusim.cost.calibrate import calibrate as fit
    from npusim.cost.measured_points import read_points
    from npusim.report import calibration as report

    setup = only_setup(options)
    measured = _published(setup) if options["points"] is None else read_points(options["points"])
    points = _points(measured, setup, options)
    left_out = [name for name in measured if name not in {point.name for point in points}]
    found = fit(points, parameters=options["parameters"] or HEADLINE)
    beats = _beats(points) if options["points"] is None else []
    if options["form"] == "json":
        record = found.to_json() | {"not_found": left_out}
        text = json_text(record | ({"beats": beats} if beats else {}))
    elif options["form"] == "csv":
        rows = [{"calibration": report.calibration_text(found), **row} for row in _rows(found)]
        text = csv_text(rows, list(rows[0]))
    else:
        parts = [report.calibration_table(found)]
        parts += [report.beat_table(beats)] if beats else []
        text = table_text([*parts, *(f"no model of point {name!r} was found" for name in left_out)])
    emit(text, options["output"])


def _published(setup: Setup) -> dict[str, float]:
    from npusim.cost.calibrate import published_points
    from npusim.cost.what_if import Setup

    if setup.machine() != Setup().machine():
        raise ConfigError(
            "POINTS must be given for a machine other than that of Arm's published figures, got "
            f"{setup.npu}, {setup.system_config}, {setup.memory_mode}"
        )
    return {point.name: float(point.npu_cycles) for point in published_points()}


def _points(measured: Mapping[str, float], setup: Setup, options: Mapping[str, Any]) -> list[Point]:
    """Points whose model was found, with its cost."""
    from npusim._arguments import choice
    from npusim.cost.calibrate import Point
    from npusim.cost.measured_points import model_of

    files: dict[str, str] = {}
    for text in options["given"]:
        name, equals, path = text.partition("=")
        if not equals or not path:
            raise ConfigError(f"--model must be NAME=FILE, got {text!r}")
        files[choice("name of --model", name, measured)] = path
    folder = options["folder"]
    if folder is not None and not Path(folder).is_dir():
        raise ConfigError(f"--models must be a folder, got {folder!r}")
    if folder is None and not files:
        raise ConfigError("--models or --model must be given, got neither")
    for name in measured:
        if name not in files and folder is not None and (path := model_of(name, folder)):
            files[name] = path
    target, how = setup.machine(), schedule(options)
    points = []
    with progress("estimating", len(files)) as show:
        for name in (name for name in measured if name in files):
            (workload,) = load_workloads([files[name]], options)
            points.append(Point(name, measured[name], workload.cost(target, **how)))
            show(len(points))
    return points


def _beats(points: list[Point]) -> list[dict[str, Any]]:
    from npusim.cost.calibrate import published_points
    from npusim.report.calibration import beat_rows

    published = {point.name: point for point in published_points()}
    return [row for p in points if p.cost for row in beat_rows(p.cost, published[p.name])]


def _rows(found: Any) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = found.to_json()["points"]
    return rows
