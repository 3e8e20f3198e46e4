# SPDX-License-Identifier: Apache-2.0
"""The command ``npusim space``."""

from __future__ import annotations

import json
from typing import Any

import click

from npusim._files import check_writable
from npusim.cli.output import FORMAT, OUTPUT, csv_text, emit, json_text, table_text
from npusim.errors import ConfigError


@click.group()
def space() -> None:
    """Search spaces: what there are, and what is in them."""


@space.command("list")
@FORMAT
@OUTPUT
def list_spaces(form: str, output: str | None) -> None:
    """List the search spaces, as they are without options."""
    import spaces
    from spaces import overview

    found = [spaces.get(name) for name in spaces.names()]
    rows = [overview.space_row(each) for each in found]
    if form == "json":
        text = json_text(rows)
    elif form == "csv":
        text = csv_text(rows, overview.SPACE_COLUMNS)
    else:
        text = table_text([overview.space_table(found)])
    emit(text, output)


@space.command()
@click.argument("name")
@click.option(
    "--space-option",
    "--option",
    "-o",
    "options",
    multiple=True,
    metavar="KEY=VALUE",
    help="Option of the space, such as multiplier=2 or bitwidths=[4,8]; may be repeated.",
)
@click.option(
    "--limit", metavar="LIMIT", help="Count what is within it: such as 0.55MB or '50M macs'."
)
@click.option("--plot", metavar="FILE", help="Draw the graph, such as graph.svg.")
@FORMAT
@OUTPUT
def show(
    name: str,
    options: tuple[str, ...],
    limit: str | None,
    plot: str | None,
    form: str,
    output: str | None,
) -> None:
    """Show a search space: its layers, decisions, costs, and how many candidates a limit leaves.

    NAME is one of "npusim space list", or a .tflite file, whose layers' bitwidths and sparsities
    are then the space.
    """
    import spaces
    from spaces import overview

    if output is not None:
        check_writable("--output", output)
    if plot is not None:
        from npusim.report.plots import check_plot

        check_plot(plot)
        check_writable("--plot", plot)
    found = spaces.get(name, **dict(parse_option(text) for text in options))
    within = None if limit is None else spaces.Limit.parse(limit)
    if plot is not None:
        overview.plot_graph(found, plot)
    if form == "json":
        text = json_text({**overview.summary(found, within), "definition": found.definition()})
    elif form == "csv":
        text = csv_text(overview.layer_rows(found), overview.LAYER_COLUMNS)
    else:
        text = table_text([overview.layer_table(found), *overview.notes(found, within)])
    emit(text, output)


def parse_option(text: str) -> tuple[str, Any]:
    """Key and value of an option; the value is JSON, or else text."""
    key, equals, value = text.partition("=")
    if not equals or not key.isidentifier():
        raise ConfigError(f"option of a space must be KEY=VALUE, got {text!r}")
    try:
        return key, json.loads(value)
    except ValueError:
        return key, value
