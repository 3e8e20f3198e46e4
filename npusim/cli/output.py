# SPDX-License-Identifier: Apache-2.0
"""What commands share: options, tables, CSV and JSON on stdout or in a file, progress on stderr."""

from __future__ import annotations

import csv
import io
import json
import os
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from npusim.errors import ConfigError

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
OUTPUT = click.option(
    "--output", type=click.Path(dir_okay=False), help="Write there instead of printing."
)


def emit(text: str, output: str | None) -> None:
    """Print `text`, or write it to the file `output`, whole or not at all."""
    if output is None:
        click.echo(text, nl=not text.endswith("\n"))
        return
    write_whole(Path(output), lambda path: path.write_text(text, encoding="utf-8"))


def write_whole(path: Path, write: Callable[[Path], Any]) -> None:
    """Have `write` fill a file beside `path`, then put it in the place of `path`.

    A device or pipe, such as /dev/stdout, is written to instead; a link stays a link.

    Raises:
        ConfigError: `path` cannot be written.
    """
    try:
        if path.exists() and not path.is_file():
            write(path)
            return
        _replace(path.resolve(), write)
    except OSError as error:
        raise ConfigError(f"output must be writable, got {path} ({error.strerror})") from None


def _replace(path: Path, write: Callable[[Path], Any]) -> None:
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=".npusim-", suffix=path.suffix)
    os.close(handle)
    try:
        write(Path(name))
        Path(name).chmod(0o644)
        Path(name).replace(path)
    finally:
        Path(name).unlink(missing_ok=True)


def check_writable(what: str, path: str) -> None:
    """Refuse, before any work, a path nothing can be written to.

    Raises:
        ConfigError: it is empty, or its folder does not exist or cannot be written.
    """
    if not path:
        raise ConfigError(f"{what} must name a file, got {path!r}")
    folder = Path(path).parent
    if not folder.is_dir() or not os.access(folder, os.W_OK):
        raise ConfigError(f"{what} must be in a folder that can be written, got {path}")


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


def table_text(*parts: RenderableType) -> str:
    """Tables as text, as wide as the terminal; as wide as they are where there is none.

    A terminal too narrow for the numbers gets longer lines, not shorter numbers.
    """
    from rich.console import Console

    terminal = sys.stdout.isatty()
    console = Console(
        file=io.StringIO(),
        force_terminal=terminal,
        width=None if terminal else 400,
        color_system="auto" if terminal else None,
    )
    for part in parts:
        roomy = console.options.update(width=400)
        console.width = max(console.width, console.measure(part, options=roomy).minimum)
    for part in parts:
        console.print(part)
    text = console.file.getvalue()  # type: ignore[attr-defined]
    return "\n".join(line.rstrip() for line in text.splitlines()) + "\n"


@contextmanager
def progress(what: str, total: int) -> Iterator[Callable[[], None]]:
    """A progress bar with time left on stderr, if that is a terminal; yields what advances it."""
    if not sys.stderr.isatty() or total < 2:
        yield lambda: None
        return
    from rich.console import Console
    from rich.progress import Progress

    with Progress(console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task(what, total=total)
        yield lambda: bar.advance(task)
