# SPDX-License-Identifier: Apache-2.0
"""The ``npusim`` command: finds its subcommands by name, turns users' mistakes into exit code 2."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Any

import click

from npusim import __version__, registry
from npusim.errors import NpusimError


class PluginGroup(click.Group):
    """A click group whose commands are the entry points of ``npusim.commands``."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return registry.names("npusim.commands")

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in registry.names("npusim.commands"):
            return None
        command: click.Command = registry.get("npusim.commands", cmd_name)
        return command


@click.group(cls=PluginGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="npusim")
def npusim() -> None:
    """Simulate, cost and search neural networks for the Arm Ethos-U55 NPU."""


def main(args: Sequence[str] | None = None) -> Any:
    """Run the command line; a user's mistake prints ``npusim: <message>`` and exits with 2."""
    try:
        code = npusim.main(args=args, prog_name="npusim", standalone_mode=False)
    except click.exceptions.NoArgsIsHelpError as error:
        click.echo(error.ctx.get_help() if error.ctx else error.format_message())
        code = 2
    except click.ClickException as error:
        click.echo(f"npusim: {error.format_message()}", err=True)
        code = 2
    except click.Abort:
        click.echo("npusim: interrupted", err=True)
        code = 130
    except NpusimError as error:
        click.echo(f"npusim: {error}", err=True)
        code = 2
    except BrokenPipeError:
        sys.stderr.close()
        code = 1
    sys.exit(code if isinstance(code, int) else 0)
