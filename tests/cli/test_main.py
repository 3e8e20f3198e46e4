# SPDX-License-Identifier: Apache-2.0
"""The frame of the command line: what it prints and how it exits, whatever the command."""

from __future__ import annotations

import logging
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import click
import pytest

import npusim
from npusim import cli, registry
from npusim.errors import ConfigError, MissingExtraError, UnknownNameError

ROOT = Path(__file__).parent.parent.parent


@click.command()
@click.option("--size", type=int, required=True, help="Some size.")
@click.argument("model")
def measure(size: int, model: str) -> None:
    """Measure something."""
    click.echo(f"{model} {size}")


@click.command()
@click.argument("kind")
def fail(kind: str) -> None:
    """Raise an error of some kind."""
    logging.getLogger("npusim").info("about to fail")
    raise {
        "config": ConfigError("zdiv must be in 0..3, got 9"),
        "click": click.ClickException("Nothing to do."),
        "file": FileNotFoundError(2, "No such file or directory", "missing.tflite"),
        "system": OSError("no file is to blame"),
        "defect": ZeroDivisionError("a defect of ours"),
        "interrupt": KeyboardInterrupt(),
        "abort": click.Abort(),
    }[kind]


@click.command()
@click.pass_context
def leave(ctx: click.Context) -> None:
    """Exit with 3."""
    ctx.exit(3)


@pytest.fixture
def commands(monkeypatch) -> Iterator[dict[str, Any]]:
    """The registered commands, replaced by those above; an exception stands for a failed import."""
    found: dict[str, Any] = {"measure": measure, "fail": fail, "leave": leave}

    def get(group: str, name: str) -> Any:
        if name not in found:
            raise UnknownNameError("command", name, found)
        if isinstance(found[name], Exception):
            raise found[name]
        return found[name]

    monkeypatch.setattr(registry, "names", lambda group: sorted(found))
    monkeypatch.setattr(registry, "get", get)
    yield found
    logging.getLogger("npusim").removeHandler(cli._HANDLER)
    logging.getLogger("npusim").setLevel(logging.NOTSET)


@pytest.fixture
def run(commands, capsys) -> Callable[..., tuple[int, str, str]]:
    def run(*args: str) -> tuple[int, str, str]:
        with pytest.raises(SystemExit) as exit_:
            cli.main(args)
        out, err = capsys.readouterr()
        return exit_.value.code, out, err

    return run


class TestExitCodes:
    def test_success(self, run):
        assert run("measure", "--size", "3", "a.tflite") == (0, "a.tflite 3\n", "")

    def test_a_command_s_own_code(self, run):
        assert run("leave") == (3, "", "")

    def test_no_command_prints_help(self, run):
        code, out, err = run()
        assert (code, err) == (0, "")
        assert out.startswith("Usage: npusim [OPTIONS]")
        assert "  measure  Measure something." in out

    def test_version(self, run):
        assert run("--version") == (0, f"npusim, version {npusim.__version__}\n", "")

    @pytest.mark.parametrize(
        ("args", "message"),
        [
            (("measure", "x"), "missing option '--size'\ntry 'npusim measure --help'"),
            (("measure", "--size", "2"), "missing argument 'MODEL'\ntry 'npusim measure --help'"),
            (
                ("measure", "--size", "big", "x"),
                "invalid value for '--size': 'big' is not a valid integer\n"
                "try 'npusim measure --help'",
            ),
            (
                ("mesure", "x"),
                "command must be one of fail, leave, measure, got 'mesure'; "
                "did you mean 'measure'?\ntry 'npusim --help'",
            ),
            (("fail", "config"), "zdiv must be in 0..3, got 9"),
            (("fail", "click"), "nothing to do"),
            (("fail", "file"), "missing.tflite: no such file or directory"),
        ],
    )
    def test_a_user_s_mistake(self, run, args, message):
        assert run(*args) == (2, "", f"npusim: {message}\n")

    def test_unknown_option(self, run):
        code, out, err = run("measure", "--sise", "2", "x")
        assert (code, out) == (2, "")
        assert err.startswith("npusim: no such option")
        assert "--size" in err
        assert err.endswith("\ntry 'npusim measure --help'\n")

    @pytest.mark.parametrize("kind", ["interrupt", "abort"])
    def test_interrupt(self, run, kind):
        code, out, err = run("fail", kind)
        assert (code, out, err.strip()) == (130, "", "npusim: interrupted")

    @pytest.mark.parametrize(
        ("kind", "error"), [("defect", ZeroDivisionError), ("system", OSError)]
    )
    def test_a_defect_passes(self, commands, kind, error):
        with pytest.raises(error):
            cli.main(["fail", kind])


class TestBrokenPlugin:
    @pytest.mark.parametrize(
        "broken",
        [
            MissingExtraError("command 'aside'", "search", ImportError("no module named 'torch'")),
            ZeroDivisionError("at import"),
            "no command at all",
        ],
        ids=["extra", "defect", "type"],
    )
    def test_help_still_lists_all(self, run, commands, broken):
        commands["aside"] = broken
        code, out, err = run("--help")
        assert (code, err) == (0, "")
        assert "  measure  Measure something." in out
        assert "  aside    (not available: " in out
        assert run("measure", "--size", "3", "m") == (0, "m 3\n", "")

    def test_its_user_reads_why(self, run, commands):
        commands["aside"] = MissingExtraError("command 'aside'", "plot", ImportError("no pyplot"))
        for args in (("aside",), ("aside", "--some", "option"), ("aside", "--help")):
            assert run(*args) == (
                2,
                "",
                "npusim: command 'aside' must have the extra [plot] installed "
                "(pip install 'npusim[plot]'), got: no pyplot\n",
            )

    def test_its_author_sees_the_traceback(self, commands):
        commands["aside"] = ZeroDivisionError("at import")
        with pytest.raises(ZeroDivisionError, match="at import"):
            cli.main(["aside"])

    def test_something_else_than_a_command(self, run, commands):
        commands["aside"] = "text"
        assert run("aside") == (
            2,
            "",
            "npusim: command 'aside' must be a click command, got a str\n",
        )


class TestLog:
    def test_silent_where_stderr_is_no_terminal(self, run):
        assert run("fail", "config")[2] == "npusim: zdiv must be in 0..3, got 9\n"

    def test_verbose(self, run):
        assert run("-v", "fail", "config")[2].startswith("npusim: about to fail\nnpusim: zdiv")

    def test_on_a_terminal(self, run, monkeypatch):
        monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
        assert run("fail", "config")[2].startswith("npusim: about to fail\nnpusim: zdiv")


SCRIPT = """
import signal, sys, time, click
from npusim import cli, registry

signal.signal(signal.SIGINT, signal.default_int_handler)  # background jobs of a shell ignore it

@click.command()
@click.argument("n", type=int)
def lines(n):
    for i in range(n):
        click.echo(click.style(f"line {i}", fg="red"))

@click.command()
def wait():
    click.echo("waiting")
    time.sleep(60)

@click.command()
def defect():
    1 / 0

found = {"lines": lines, "wait": wait, "defect": defect}
registry.names = lambda group: sorted(found)
registry.get = lambda group, name: found[name]
cli.main()
"""


class TestProcess:
    """What only a real process shows."""

    def start(self, *args: str) -> subprocess.Popen[str]:
        pipe = subprocess.PIPE
        return subprocess.Popen(
            [sys.executable, "-c", SCRIPT, *args], stdout=pipe, stderr=pipe, text=True, cwd=ROOT
        )

    @pytest.mark.parametrize("n", [1, 100_000])
    def test_a_closed_pipe_is_quiet(self, n):
        with self.start("lines", str(n)) as process:
            assert process.stdout is not None
            assert process.stderr is not None
            if n > 1:
                assert process.stdout.readline() == "line 0\n"
            process.stdout.close()
            assert process.stderr.read() == ""
        assert process.returncode == 1

    def test_no_colours_in_a_pipe(self):
        out, err = self.start("lines", "1").communicate()
        assert (out, err) == ("line 0\n", "")

    def test_ctrl_c(self):
        with self.start("wait") as process:
            assert process.stdout is not None
            assert process.stdout.readline() == "waiting\n"
            process.send_signal(signal.SIGINT)
            assert process.communicate()[1].strip() == "npusim: interrupted"
        assert process.returncode == 130

    def test_a_defect_keeps_its_traceback(self):
        process = self.start("defect")
        _, err = process.communicate()
        assert err.startswith("Traceback (most recent call last)")
        assert "ZeroDivisionError" in err
        assert process.returncode == 1

    def test_python_m_npusim(self):
        command = [sys.executable, "-m", "npusim", "--version"]
        done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, env=os.environ)
        assert done.stdout == f"npusim, version {npusim.__version__}\n"
