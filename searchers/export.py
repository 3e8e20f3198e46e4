# SPDX-License-Identifier: Apache-2.0
"""The command ``npusim trials``: the trials of a run for other tools."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import click

from npusim.errors import ConfigError, FormatError, MissingExtraError
from searchers.store import RUN_FORMAT, RUN_VERSION, read_json, rows

CHUNK = 100
"""Trials that are written at once."""
JOURNAL = ".log"
"""End of the name of a journal file."""
ATTRIBUTES = ("searcher", "options", "seed", "limit", "space", "npusim")
"""Of a run, that are attributes of the study."""


@click.group()
def trials() -> None:
    """Trials of a run directory."""


@trials.command()
@click.argument("run", type=click.Path(path_type=Path))
@click.option(
    "--optuna",
    "url",
    required=True,
    metavar="URL|FILE.log",
    help="Optuna storage, such as sqlite:///study.db, or a new journal file, such as study.log, "
    "far faster; its dashboard then shows the run.",
)
@click.option("--name", help="Name of the study there; by default that of the run directory.")
def export(run: Path, url: str, name: str | None) -> None:
    """Copy the trials of the run directory RUN into a new study of an Optuna storage.

    Parameters are the options of each decision; costs, metrics, seeds and times are attributes.
    Trials without a valid score are there as failed.
    """
    n_trials = to_optuna(run, url, name or run.resolve().name)
    click.echo(f"{n_trials} trials of {run} in study {name or run.resolve().name!r} of {url}")


def to_optuna(directory: Path, url: str, name: str) -> int:
    """Copy a run's trials into a new study; returns their number.

    Args:
        directory: of the run.
        url: of the storage, or the name of a journal file, which ends in `JOURNAL`.
        name: of the study; there must be none of that name, nor such a file.

    Raises:
        MissingExtraError: Optuna is not installed.
        ConfigError: the storage has such a study already, or cannot be opened.
        FormatError: the directory has no run, or a damaged one.
    """
    try:
        import optuna
        from sqlalchemy.exc import SQLAlchemyError
    except ImportError as error:
        raise MissingExtraError("the export", "searchers", error) from error
    header_path = directory / "run.json"
    if not header_path.exists():
        raise FormatError(f"run directory must have a run.json, got {directory}")
    header = read_json(header_path)
    found = (header.get("format"), header.get("version"))
    if found != (RUN_FORMAT, RUN_VERSION):
        raise FormatError(f"{header_path} must be {RUN_FORMAT} version {RUN_VERSION}, got {found}")
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    attributes = {key: header[key] for key in ATTRIBUTES}
    chunks = _chunks(header["definition"]["decisions"], rows(directory))
    if url.endswith(JOURNAL):
        from searchers.journal import write_journal

        if Path(url).exists():
            raise ConfigError(f"journal must be a new file, got {url!r}")
        return write_journal(Path(url), name, attributes, chunks)
    try:
        study = optuna.create_study(storage=url, study_name=name, direction="maximize")
    except optuna.exceptions.DuplicatedStudyError:
        raise ConfigError(f"study must be a new one in {url}, got {name!r}") from None
    except (SQLAlchemyError, ImportError, ValueError) as error:
        raise ConfigError(f"storage must be one that Optuna opens, got {url!r}: {error}") from None
    for key, value in attributes.items():
        study.set_user_attr(key, value)
    n_trials = 0
    for chunk in chunks:
        study.add_trials(chunk)
        n_trials += len(chunk)
    return n_trials


def _chunks(
    decisions: list[dict[str, Any]], found: Iterable[dict[str, Any]]
) -> Iterator[list[Any]]:
    """Optuna's trials, `CHUNK` at a time."""
    frozen = (_frozen(decisions, row) for row in found)
    while chunk := list(islice(frozen, CHUNK)):
        yield chunk


def _frozen(decisions: list[dict[str, Any]], row: dict[str, Any]) -> Any:
    from optuna.distributions import CategoricalDistribution
    from optuna.trial import TrialState, create_trial

    options = {each["name"]: each["options"] for each in decisions}
    choices = dict(zip(options, row["choices"], strict=True))
    valid = row["score"] is not None and row["violation"] <= 0
    attributes = {key: row[key] for key in row if key not in ("idx", "choices", "score")}
    return create_trial(
        state=TrialState.COMPLETE if valid else TrialState.FAIL,
        value=row["score"] if valid else None,
        params={name: options[name][choice] for name, choice in choices.items()},
        distributions={name: CategoricalDistribution(each) for name, each in options.items()},
        user_attrs={"index": row["idx"], **attributes},
    )
