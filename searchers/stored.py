# SPDX-License-Identifier: Apache-2.0
"""Runs as they are on the disk, read by themselves: for reports."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from npusim.errors import FormatError
from searchers.base import Trial
from searchers.store import RUN_FORMAT, RUN_VERSION, TRIALS, read_json, rows
from spaces.base import Space
from spaces.definitions import from_definition
from spaces.limits import Limit


@dataclass(frozen=True, slots=True)
class StoredRun:
    """A run, whether it is finished or not.

    Attributes:
        header: its identity, see `searchers.store.run_identity`, the npusim that made it, and the
            space's definition.
        space, limit: that its candidates are of, and within.
        trials: so far, in the order of their index.
        result: of `searchers.study.StudyResult.to_json`; None if it is not finished.
    """

    header: Mapping[str, Any]
    space: Space
    limit: Limit
    trials: tuple[Trial, ...]
    result: Mapping[str, Any] | None


def is_run(directory: Path) -> bool:
    """Whether it is the directory of a run."""
    return (directory / "run.json").is_file()


def read_header(directory: Path) -> tuple[Mapping[str, Any], Space]:
    """What a run is, and its space as it was defined then.

    Raises:
        FormatError: the file is not that of a run.
    """
    path = directory / "run.json"
    header = read_json(path)
    found = (header.get("format"), header.get("version"))
    if found != (RUN_FORMAT, RUN_VERSION):
        raise FormatError(f"{path} must be {RUN_FORMAT} version {RUN_VERSION}, got {found}")
    try:
        return header, from_definition(header["definition"], header["space"]["hash"])
    except (KeyError, TypeError) as error:
        raise FormatError(f"{path} must define a space, got {error!r}") from None


def read_run(directory: Path) -> StoredRun:
    """What a run's directory has; another process may be running it.

    Raises:
        FormatError: the files are not those of a run.
    """
    header, space = read_header(directory)
    try:
        limit = Limit(**header["limit"])
    except (KeyError, TypeError) as error:
        raise FormatError(f"{directory / 'run.json'} must have a limit, got {error!r}") from None
    trials = []
    for row in rows(directory) if (directory / TRIALS).is_file() else ():
        index, choices = row.pop("idx"), row.pop("choices")
        trials.append(Trial(index=index, candidate=space.candidate(choices), **row))
    result = directory / "result.json"
    return StoredRun(
        header, space, limit, tuple(trials), read_json(result) if result.is_file() else None
    )
