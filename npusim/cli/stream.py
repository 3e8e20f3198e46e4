# SPDX-License-Identifier: Apache-2.0
"""The command ``npusim stream``."""

from __future__ import annotations

import click

from npusim._files import check_writable
from npusim.cli.output import FORMAT, OUTPUT, csv_text, emit, json_text, table_text


@click.command()
@click.argument("file", metavar="FILE", type=click.Path())
@click.option("--stream", "number", type=int, help="Only this stream of a compiled model, from 0.")
@FORMAT
@OUTPUT
def stream(file: str, number: int | None, form: str, output: str | None) -> None:
    """What is inside a weight stream: sections, palettes, divisors, bits by field, waste.

    FILE is a raw stream, or a .tflite model that Arm's Vela has compiled.

    JSON is a list of streams; their keys are those of npusim.report.streams.StreamReport.to_json.
    """
    if output is not None:
        check_writable("--output", output)
    from npusim.report import streams

    reports = streams.read_streams(file, number)
    if form == "json":
        text = json_text([report.to_json() for report in reports])
    elif form == "csv":
        rows = [row for report in reports for row in streams.slice_rows(report)]
        text = csv_text(rows, streams.ROW_COLUMNS)
    else:
        tables = [streams.slice_table(report) for report in reports]
        text = table_text([*tables, *([streams.stream_table(reports)] if len(tables) > 1 else [])])
    emit(text, output)
