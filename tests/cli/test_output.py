# SPDX-License-Identifier: Apache-2.0
"""Tables on terminals and elsewhere, progress, and files that are written whole."""

from __future__ import annotations

import sys

import pytest
from rich.table import Table

from npusim._files import write_whole
from npusim.cli.output import progress, table_text
from npusim.errors import ConfigError

NUMBERS = [f"{10**n:,}" for n in range(5, 12)]
SHARE = "82.00 %, ±3"


def wide_table() -> Table:
    table = Table("name", *(f"column {n}" for n in range(len(NUMBERS))), "share")
    for column in table.columns[1:]:
        column.no_wrap = True
    table.add_row("[bold]conv[/bold] :smile:", *NUMBERS, SHARE)
    return table


@pytest.mark.parametrize("terminal", [False, True])
def test_names_and_numbers_come_out_as_they_are(monkeypatch, terminal):
    monkeypatch.setattr(sys.stdout, "isatty", lambda: terminal)
    monkeypatch.setenv("COLUMNS", "40")
    monkeypatch.setenv("TERM", "dumb")
    text = table_text([wide_table(), "a line"])
    assert text.endswith("a line\n")
    assert terminal or "[bold]conv[/bold] :smile:" in text  # a narrow terminal wraps names
    for number in (*NUMBERS, SHARE):
        assert number in text


def test_no_progress_where_stderr_is_no_terminal(capsys):
    with progress("working", 3) as show:
        show(1.5)
    assert capsys.readouterr() == ("", "")


def test_progress_on_a_terminal(capsys, monkeypatch):
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    monkeypatch.setenv("FORCE_COLOR", "1")
    with progress("working", 4) as show:
        show(1)
        show(3)
    out, err = capsys.readouterr()
    assert out == ""
    assert "working" in err
    assert " 75%" in err


def test_a_failed_write_leaves_what_was_there(tmp_path):
    place = tmp_path / "sizes.csv"
    place.write_text("old")

    def fail(part):
        part.write_text("half")
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_whole("output", str(place), fail)
    assert place.read_text() == "old"
    assert list(tmp_path.iterdir()) == [place]


def test_a_write_that_the_system_refuses_names_what_and_why(tmp_path):
    def fail(part):
        raise OSError(28, "No space left on device")

    path = str(tmp_path / "x.csv")
    with pytest.raises(ConfigError, match=r"output must be writable, got .* \(No space left"):
        write_whole("output", path, fail)


def test_devices_are_written_to_as_they_are():
    written = []
    write_whole("output", "/dev/null", lambda place: written.append(place.write_text("x")))
    assert written == [1]
