# SPDX-License-Identifier: Apache-2.0
"""The commands ``npusim train`` and ``npusim finetune``."""

from __future__ import annotations

import json
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from npusim.errors import ConfigError, MissingExtraError

if TYPE_CHECKING:
    from searchers.training.recipes import Recipe
    from searchers.training.runs import Run
    from spaces.base import Candidate, Space

PATH = click.Path(path_type=Path)
OPTIONS = (
    click.option("--recipe", metavar="NAME", help="Recipe or .toml file; else the data set's."),
    click.option(
        "--set",
        "settings",
        multiple=True,
        metavar="NAME=VALUE",
        help="Setting of the recipe, such as number_format=q; may be repeated.",
    ),
    click.option("--epochs", type=int, help="Passes over the training data; else the recipe's."),
    click.option("--float", "dense", is_flag=True, help="Neither quantize nor prune."),
    click.option("--start", type=PATH, help="Trained net.pt to start from; else fresh weights."),
    click.option("--data-set", help="Data set; else that of the search, or the space's."),
    click.option("--data", type=PATH, help="Directory of data sets; else NPUSIM_DATA."),
    click.option("--seed", default=0, show_default=True, help="Decides everything that is drawn."),
    click.option("--device", default="cpu", show_default=True, help='"cpu" or "cuda".'),
    click.option("--threads", type=int, help="Threads of one process; else torch's choice."),
    click.option("--processes", default=1, show_default=True, help="Each takes part of a batch."),
    click.option(
        "--checkpoint-interval",
        default=60.0,
        show_default=True,
        help="Seconds between checkpoints.",
    ),
    click.option("--tensorboard", is_flag=True, help="Write event files too."),
    click.option("--json", "as_json", is_flag=True, help="Print JSON instead of a table."),
)


def _options(command: Callable[..., None]) -> Callable[..., None]:
    for option in reversed(OPTIONS):
        command = option(command)
    return command


@click.command()
@click.option("--space", "name", default="digits", show_default=True, help="Search space.")
@click.option(
    "--space-option",
    "--option",
    "-o",
    "options",
    multiple=True,
    metavar="KEY=VALUE",
    help="Option of the space, such as multiplier=2 or bitwidths=[4,8]; may be repeated.",
)
@click.option("--candidate", type=PATH, help="JSON file of the candidate to train.")
@click.option("--full", is_flag=True, help="Train the space's largest candidate.")
@click.option(
    "--out", required=True, type=PATH, help="Directory; a training that is there is resumed."
)
@_options
def train(
    name: str,
    options: tuple[str, ...],
    candidate: Path | None,
    full: bool,
    out: Path,
    **common: Any,
) -> None:
    """Train one candidate of a space, in the paper's three stages or in floating point, and test.

    After Ctrl-C, or anything worse, the same command goes on where it stopped, bit for bit.
    """
    import spaces
    from spaces.cli import parse_option

    space = spaces.get(name, **dict(parse_option(text) for text in options))
    if (candidate is None) == (not full):
        raise ConfigError(
            "--candidate or --full must be given, and not both, got "
            f"{'neither' if candidate is None else 'both'}"
        )
    chosen = space.largest() if candidate is None else _candidate(space, candidate)
    _train(space, chosen, out, **common)


@click.command()
@click.argument("run", type=PATH)
@click.option("--out", type=PATH, help="Directory of the training; else finetune in RUN.")
@_options
def finetune(run: Path, out: Path | None, **common: Any) -> None:
    """Train the best candidate of a search for good: RUN is the directory "npusim search" wrote.

    After Ctrl-C, or anything worse, the same command goes on where it stopped, bit for bit.
    """
    from searchers.stored import read_header

    for name in ("run.json", "best.json"):
        if not (run / name).exists():
            raise ConfigError(
                f"RUN must be the directory of a finished search, got no {run / name}"
            )
    header, space = read_header(run)
    if common["data_set"] is None:
        evaluator = header["evaluator"]
        common["data_set"] = evaluator.get("trained", evaluator).get("data_set")
    best = _candidate(space, run / "best.json")
    _train(space, best, run / "finetune" if out is None else out, **common)


def _candidate(space: Space, path: Path) -> Candidate:
    try:
        return space.from_json(path.read_text("utf-8"))
    except OSError as error:
        raise ConfigError(f"candidate file must be readable, got {error}") from None


def _recipe(
    data_set: str, name: str | None, settings: tuple[str, ...], epochs: int | None
) -> Recipe:
    from searchers.options import parse
    from searchers.training import recipes

    found = recipes.get(data_set if name is None else name)
    changes = {key: _value(text) for key, text in parse(settings).items()}
    if epochs is not None:
        changes["epochs"] = epochs
    return found.but(**changes)


def _value(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return text


def _train(
    space: Space,
    candidate: Candidate,
    out: Path,
    recipe: str | None,
    settings: tuple[str, ...],
    epochs: int | None,
    dense: bool,
    start: Path | None,
    data_set: str | None,
    data: Path | None,
    seed: int,
    device: str,
    threads: int | None,
    processes: int,
    checkpoint_interval: float,
    tensorboard: bool,
    as_json: bool,
) -> None:
    try:
        import torch
    except ImportError as error:
        raise MissingExtraError("training", "search", error) from error
    from searchers.training import runs
    from searchers.training.group import run_in_processes

    _check_machine(device, threads, processes, checkpoint_interval)
    found = _recipe(data_set or space.data_set, recipe, settings, epochs)
    run = runs.Run(space, candidate, found, seed, not dense, data_set, data, start)
    runs.check(run, out)
    if threads is not None:
        torch.set_num_threads(threads)
    if processes > 1:
        run_in_processes(
            processes, _in_process, run, out, checkpoint_interval, tensorboard, device=device
        )
    results = _in_process(run, out, checkpoint_interval, tensorboard, device)
    if as_json:
        click.echo(json.dumps(results))
        return
    for maps, scores in results["scores"].items():
        for what, value in scores.items():
            click.echo(f"{what} with {maps.replace('_', ' ')}: {value:.4f}")
    click.echo(
        f"{results['n_nonzero']} of {results['n_weights']} weights kept; "
        f"{results['wall_s']:.1f} s ({results['cpu_s']:.1f} s of CPU time). Results in {out}"
    )


def _check_machine(device: str, threads: int | None, processes: int, interval: float) -> None:
    if device not in ("cpu", "cuda"):
        raise ConfigError(f"--device must be cpu or cuda, got {device!r}")
    import torch

    if device == "cuda" and not torch.cuda.is_available():
        raise ConfigError("--device cuda must have a CUDA device, got none")
    if threads is not None and threads < 1:
        raise ConfigError(f"--threads must be at least 1, got {threads}")
    if processes < 1:
        raise ConfigError(f"--processes must be at least 1, got {processes}")
    if not interval > 0:
        raise ConfigError(f"--checkpoint-interval must be more than 0, got {interval}")


def _in_process(
    run: Run, out: Path, checkpoint_interval: float, tensorboard: bool, device: str
) -> dict[str, Any]:
    """Train in this process, alone or one of several; the progress bar is the first one's."""
    from npusim.cli.output import progress
    from searchers.training import runs
    from searchers.training.group import Group

    first = Group().rank == 0
    bar = progress(f"training {run.space.name}", 1) if first else nullcontext(lambda done: None)
    with bar as show:
        return runs.train(
            run,
            out,
            device,
            checkpoint_interval,
            lambda step, n_steps, loss: show(step / n_steps),
            tensorboard,
        )
