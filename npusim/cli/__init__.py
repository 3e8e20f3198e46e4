# SPDX-License-Identifier: Apache-2.0
"""The ``npusim`` command: finds its subcommands by name, turns users' mistakes into exit code 2.

A command's module imports click and little else at its top: the help of ``npusim`` loads them all.
"""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Sequence
from typing import Any, NoReturn

import click

from npusim import __version__, registry
from npusim.errors import NpusimError, PluginError, UnknownNameError

_GROUP = "npusim.commands"
_INTERRUPTED = 130  # as shells report SIGINT


class PluginGroup(click.Group):
    """A click group whose commands are the entry points of ``npusim.commands``."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return registry.names(_GROUP)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """The command, or one that raises what was raised when that was imported."""
        try:
            command = registry.get(_GROUP, cmd_name)
            if not isinstance(command, click.Command):
                kind = type(command).__name__
                raise PluginError(f"command {cmd_name!r} must be a click command, got a {kind}")
        except UnknownNameError:
            return None
        except Exception as error:  # a broken plug-in must not take the others' help with it
            return _unavailable(cmd_name, error)
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        known = self.list_commands(ctx)
        if args[0] not in known and not args[0].startswith("-"):
            raise click.UsageError(str(UnknownNameError("command", args[0], known)), ctx)
        return super().resolve_command(ctx, args)


def _unavailable(name: str, error: Exception) -> click.Command:
    def fail(args: tuple[str, ...]) -> NoReturn:
        raise error

    return click.Command(
        name,
        callback=fail,
        params=[click.Argument(["args"], nargs=-1, type=click.UNPROCESSED)],
        short_help=f"(not available: {error})",
        context_settings={"ignore_unknown_options": True},
        add_help_option=False,
    )


class _ToStderr(logging.Handler):
    """Prints log records as the command line prints everything that is not a result."""

    def emit(self, record: logging.LogRecord) -> None:
        click.echo(f"npusim: {self.format(record)}", err=True)


_HANDLER = _ToStderr()


@click.group(
    cls=PluginGroup,
    invoke_without_command=True,
    context_settings={"help_option_names": ["-h", "--help"]},
)
@click.version_option(__version__, prog_name="npusim")
@click.option("-v", "--verbose", is_flag=True, help="Say on stderr what takes time, and why.")
@click.option("-q", "--quiet", is_flag=True, help="Print results and errors, nothing else.")
@click.pass_context
def npusim(ctx: click.Context, verbose: bool, quiet: bool) -> None:
    """Simulate, cost and search neural networks for the Arm Ethos-U55 NPU."""
    log = logging.getLogger("npusim")
    log.addHandler(_HANDLER)
    if quiet and verbose:
        raise click.UsageError("--quiet must not go with --verbose, got both")
    level = logging.INFO if sys.stderr.isatty() else logging.WARNING
    log.setLevel(logging.DEBUG if verbose else logging.ERROR if quiet else level)
    if ctx.invoked_subcommand is None:
        click.echo(ctx.get_help())


def main(args: Sequence[str] | None = None) -> NoReturn:
    """Run the command line and exit: 0; 2 for a user's mistake, which ``npusim: <message>`` names.

    Ctrl-C exits with 130, a closed pipe with 1; any other exception is a defect and passes.
    """
    sys.exit(_run(args))


def _run(args: Sequence[str] | None) -> int:
    try:
        code: Any = npusim.main(args=args, prog_name="npusim", standalone_mode=False)
        sys.stdout.flush()
    except click.UsageError as error:
        path = error.ctx.command_path if error.ctx else "npusim"
        return _refuse(f"{_house_style(error.format_message())}\ntry '{path} --help'")
    except click.ClickException as error:
        return _refuse(_house_style(error.format_message()))
    except NpusimError as error:
        return _refuse(str(error))
    except (click.Abort, KeyboardInterrupt):
        click.echo("npusim: interrupted", err=True)
        return _INTERRUPTED
    except BrokenPipeError:
        # what is still buffered has no reader: let the flush at exit write it to nowhere
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except OSError as error:
        if error.filename is None:
            raise
        return _refuse(f"{error.filename}: {(error.strerror or str(error)).lower()}")
    return code if isinstance(code, int) else 0


def _refuse(message: str) -> int:
    click.echo(f"npusim: {message}", err=True)
    return 2


def _house_style(message: str) -> str:
    """A message of click's in lower case and without its full stop."""
    return message[:1].lower() + message[1:].removesuffix(".")
