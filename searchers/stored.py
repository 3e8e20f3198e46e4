# SPDX-License-Identifier: Apache-2.0
"""Runs as they are on the disk, read by themselves: for reports."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import spaces
from npusim.errors import ConfigError, FormatError
from searchers.base import Trial
from searchers.store import RUN_FORMAT, RUN_VERSION, TRIALS, read_json, rows
from spaces.base import Space
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


def read_run(directory: Path) -> StoredRun:
    """What a run's directory has; another process may be running it.

    Raises:
        ConfigError: the space is not what is registered under its name.
        FormatError: the files are not those of a run.
        UnknownNameError: no such space.
    """
    path = directory / "run.json"
    header = read_json(path)
    found = (header.get("format"), header.get("version"))
    if found != (RUN_FORMAT, RUN_VERSION):
        raise FormatError(f"{path} must be {RUN_FORMAT} version {RUN_VERSION}, got {found}")
    try:
        space = spaces.get(header["space"]["name"])
        limit = Limit(**header["limit"])
        same = space.content_hash == header["space"]["hash"]
    except (KeyError, TypeError) as error:
        raise FormatError(f"{path} must name a space and a limit, got {error!r}") from None
    if not same:
        raise ConfigError(
            f"space {space.name!r} of run {directory} must be the registered one "
            f"({space.content_hash}), got {header['space']['hash']}"
        )
    trials = []
    for row in rows(directory) if (directory / TRIALS).is_file() else ():
        index, choices = row.pop("idx"), row.pop("choices")
        trials.append(Trial(index=index, candidate=space.candidate(choices), **row))
    result = directory / "result.json"
    return StoredRun(
        header, space, limit, tuple(trials), read_json(result) if result.is_file() else None
    )
