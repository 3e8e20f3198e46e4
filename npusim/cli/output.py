# SPDX-License-Identifier: Apache-2.0
"""What commands share: options, tables, CSV and JSON on stdout or in a file, progress on stderr."""

from __future__ import annotations

import csv
import io
import json
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import click

from npusim._files import write_whole

if TYPE_CHECKING:
    from rich.console import RenderableType

FORMAT = click.option(
    "--format",
    "form",
    type=click.Choice(["table", "json", "csv"]),
    default="table",
    show_default=True,
    help="How to print.",
)
OUTPUT = click.option("--output", metavar="FILE", help="Write there instead of printing.")
_WIDE = 400


def emit(text: str, output: str | None) -> None:
    """Print `text`, or write it to the file `output`, whole or not at all."""
    if output is None:
        click.echo(text, nl=not text.endswith("\n"))
    else:
        write_whole("--output", output, lambda path: path.write_text(text, encoding="utf-8"))


def json_text(value: Any) -> str:
    """`value` as indented JSON."""
    return json.dumps(value, indent=2)


def csv_text(rows: Sequence[Mapping[str, Any]], header: Sequence[str]) -> str:
    """Rows as CSV below their header, which is there without rows too."""
    out = io.StringIO()
    writer = csv.DictWriter(out, header, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return out.getvalue()


def table_text(parts: Sequence[RenderableType]) -> str:
    """Tables and lines as text, as wide as the terminal; as wide as they are where there is none.

    A terminal too narrow for columns that must not wrap gets longer lines, not shorter numbers.
    """
    from rich.cells import cell_len
    from rich.console import Console
    from rich.table import Table

    terminal = sys.stdout.isatty()
    out = io.StringIO()
    console = Console(
        file=out,
        force_terminal=terminal,
        width=None if terminal else _WIDE,
        color_system="auto" if terminal else None,
        markup=False,  # names of layers may look like it
        emoji=False,
        highlight=False,
    )
    for part in parts if terminal else ():
        for column in part.columns if isinstance(part, Table) else ():
            if column.no_wrap:
                column.min_width = max(map(cell_len, map(str, (column.header, *column.cells))))
        least = console.measure(part, options=console.options.update(width=_WIDE)).minimum
        console.size = (max(console.width, least), console.height)
    for part in parts:
        console.print(part)
    return "\n".join(line.rstrip() for line in out.getvalue().splitlines()) + "\n"


def shows_progress() -> bool:
    """Whether progress is shown: on a terminal's stderr, unless ``npusim --quiet`` was said."""
    context = click.get_current_context(silent=True)
    quiet = context is not None and bool(context.find_root().params.get("quiet"))
    return sys.stderr.isatty() and not quiet


@contextmanager
def progress(what: str, n_steps: int) -> Iterator[Callable[[float], None]]:
    """A progress bar with time left, where `shows_progress`.

    Yields:
        What tells how many of the `n_steps` are done; fractions count.
    """
    if not shows_progress():
        yield lambda done: None
        return
    from rich.console import Console
    from rich.progress import Progress

    with Progress(console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task(what, total=n_steps)
        yield lambda done: bar.update(task, completed=done)
