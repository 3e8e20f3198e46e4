# SPDX-License-Identifier: Apache-2.0
"""The command ``npusim validate``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from npusim._files import check_writable
from npusim.cli.compress import model_paths
from npusim.cli.hardware import hardware_options, n_bytes, setups
from npusim.cli.output import FORMAT, OUTPUT, csv_text, emit, json_text, progress, table_text
from npusim.errors import ConfigError

if TYPE_CHECKING:
    from npusim.validate import Comparison


@click.command()
@click.argument("models", metavar="[MODEL...]", nargs=-1, type=click.Path())
@click.option("--models", "folder", metavar="DIR", help="All .tflite files below this folder too.")
@hardware_options
@click.option(
    "--optimise",
    type=click.Choice(["performance", "size"]),
    default="performance",
    show_default=True,
    help="As for npusim estimate.",
)
@click.option("--arena-limit", metavar="BYTES", help="As for npusim estimate.")
@FORMAT
@OUTPUT
def validate(**options: Any) -> None:
    """Our costs beside those of Arm's compiler, on your own models.

    Needs Vela (the extra [deploy]); it runs in a process of its own, model by model. Compared are
    cycles, SRAM, DRAM and flash; operations of the CPU are in neither. A model that one side
    refuses is told so. Ctrl-C prints what there is until then.

    JSON has the keys comparisons, those of npusim.validate.Comparison.to_json, and summary.
    """
    if options["output"] is not None:
        check_writable("--output", options["output"])
    from npusim import validate as library

    patterns = list(options["models"])
    if options["folder"] is not None:
        patterns.append(f"{options['folder']}/**/*.tflite")
    if not patterns:
        raise ConfigError("MODEL or --models must be given, got neither")
    paths = model_paths(patterns)
    machines = [setup.machine() for setup in setups(options)]
    limit = options["arena_limit"]
    found: list[Comparison] = []
    try:
        with progress("compiling", len(paths) * len(machines)) as show:

            def tell(comparison: Comparison) -> None:
                found.append(comparison)
                show(len(found))

            library.validate(
                *(paths, machines, tell),
                optimise=options["optimise"],
                arena_limit_bytes=None if limit is None else n_bytes("--arena-limit", limit),
            )
    except KeyboardInterrupt:
        if found:
            emit(_text(found, options["form"]), options["output"])
        raise
    emit(_text(found, options["form"]), options["output"])


def _text(found: list[Comparison], form: str) -> str:
    from npusim.report import validation as report

    if form == "json":
        return json_text(report.to_json(found))
    if form == "csv":
        return csv_text([comparison.to_json() for comparison in found], report.COLUMNS)
    tables = [report.comparison_table(found), report.summary_table(found)]
    return table_text([*tables, *report.notes(found)])
