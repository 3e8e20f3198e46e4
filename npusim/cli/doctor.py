# SPDX-License-Identifier: Apache-2.0
"""The commands ``npusim doctor`` and ``npusim completion``."""

from __future__ import annotations

import click

from npusim.cli.output import json_text, table_text

_SHELLS = ("bash", "zsh", "fish")


@click.command()
@click.option("--json", "as_json", is_flag=True, help="Print JSON instead of a table.")
def doctor(as_json: bool) -> None:
    """What is installed and found: versions, optional parts, plug-ins, caches, data, GPU, tools.

    What is missing is told with the pip extra that brings it. JSON has the keys of
    npusim.environment.Environment.to_json.
    """
    from npusim.environment import examine
    from npusim.report.environments import environment_table

    found = examine()
    text = json_text(found.to_json()) if as_json else table_text([environment_table(found)])
    click.echo(text.rstrip("\n"))


@click.command()
@click.argument("shell", type=click.Choice(_SHELLS))
@click.pass_context
def completion(context: click.Context, shell: str) -> None:
    """Print what makes a shell complete npusim's commands, options and files.

    \b
    bash:  echo 'eval "$(npusim completion bash)"' >> ~/.bashrc
    zsh:   echo 'eval "$(npusim completion zsh)"' >> ~/.zshrc
    fish:  npusim completion fish > ~/.config/fish/completions/npusim.fish
    """
    from click.shell_completion import get_completion_class

    kind = get_completion_class(shell)
    assert kind is not None  # click has all of them
    click.echo(kind(context.find_root().command, {}, "npusim", "_NPUSIM_COMPLETE").source())
