# SPDX-License-Identifier: Apache-2.0
"""A run directory: what the run is, and its trials, kept as they finish.

``run.json`` names the run and is written once, before anything else; ``trials.jsonl`` has one line
a trial, appended and flushed to disk before the searcher learns of it. A process killed at any
moment loses the trial it was evaluating and nothing else; half a line at the end is cut off by the
next run. The directory itself is what is locked, so no file has to be there for that.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Any

from npusim import __version__
from npusim.errors import ConfigError, FormatError
from searchers.base import Trial
from spaces.base import Space
from spaces.limits import Limit

RUN_FORMAT = "npusim.run"
RUN_VERSION = 1
"""Raised when a file of a run directory changes its meaning."""


def run_identity(
    space: Space,
    limit: Limit,
    searcher: str,
    options: Mapping[str, Any],
    seed: int,
    evaluator: Mapping[str, Any],
) -> dict[str, Any]:
    """What makes a run this run and no other, as JSON values; the budget is not part of it."""
    identity = {
        "space": {"name": space.name, "hash": space.content_hash},
        "limit": {"measure": limit.measure, "most": limit.most},
        "searcher": searcher,
        "options": dict(options),
        "seed": seed,
        "evaluator": dict(evaluator),
    }
    found: dict[str, Any] = json.loads(json.dumps(identity))
    return found


def check_identity(directory: Path, identity: Mapping[str, Any]) -> bool:
    """Whether the directory has a run already, which must then be this one.

    Raises:
        ConfigError: it has another run (each difference is named), or is not a directory.
        FormatError: its files are not those of a run.
    """
    if directory.exists() and not directory.is_dir():
        raise ConfigError(f"run directory must be a directory, got file {directory}")
    header = directory / "run.json"
    if not header.exists():
        if (directory / "trials.jsonl").exists():
            raise FormatError(f"run directory with trials must have a run.json, got {directory}")
        return False
    stored = read_json(header)
    found = (stored.get("format"), stored.get("version"))
    if found != (RUN_FORMAT, RUN_VERSION):
        raise FormatError(f"{header} must be {RUN_FORMAT} version {RUN_VERSION}, got {found}")
    different = [
        f"{what} must be {json.dumps(stored.get(what))}, got {json.dumps(identity[what])}"
        for what in identity
        if stored.get(what) != identity[what]
    ]
    if different:
        raise ConfigError(f"run directory {directory} has another run: {'; '.join(different)}")
    return True


class RunStore:
    """The trials of one run on disk, locked against other processes while it is open.

    Args:
        directory: is created where it is missing.
        space: of the candidates.
        identity: see `run_identity`.

    Raises:
        ConfigError: the directory has another run, or another process is running this one.
        FormatError: its files are not those of a run.
    """

    def __init__(self, directory: Path, space: Space, identity: Mapping[str, Any]):
        check_identity(directory, identity)  # a refusal leaves nothing behind
        directory.mkdir(parents=True, exist_ok=True)
        self.directory = directory
        with ExitStack() as undo:
            lock = _lock(directory)
            if lock is not None:
                undo.callback(os.close, lock)
            if not check_identity(directory, identity):  # again: now nobody else can make it one
                header = {"format": RUN_FORMAT, "version": RUN_VERSION, **identity}
                header |= {"npusim": __version__, "definition": space.definition()}
                write_json(directory / "run.json", header)
            self._file = undo.enter_context((directory / "trials.jsonl").open("ab"))
            if lock is not None:
                os.fsync(lock)  # the names of both files
            self._trials = self._read(space)
            self._close = undo.pop_all()

    def _read(self, space: Space) -> list[Trial]:
        path = self.directory / "trials.jsonl"
        content = path.read_bytes()
        whole = content.rfind(b"\n") + 1
        if whole < len(content):  # a process was killed within a line
            self._file.truncate(whole)
        trials = []
        for number, line in enumerate(content[:whole].splitlines(), start=1):
            try:
                trial = trial_from_json(space, json.loads(line))
            except (ValueError, KeyError, TypeError) as error:
                raise FormatError(
                    f"{path} must have a trial in line {number}, got {error!r}"
                ) from None
            if trial.index != number - 1:
                raise FormatError(
                    f"{path} must have trial {number - 1} in line {number}, got {trial.index}"
                )
            trials.append(trial)
        return trials

    def trials(self) -> Sequence[Trial]:
        """Trials stored so far, in order."""
        return tuple(self._trials)

    def append(self, trial: Trial) -> None:
        """Write a trial and wait until it is on the disk."""
        line = json.dumps(trial_to_json(trial), allow_nan=False) + "\n"
        self._file.write(line.encode())
        self._file.flush()
        os.fsync(self._file.fileno())
        self._trials.append(trial)

    def __enter__(self) -> RunStore:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._close.close()


def trial_to_json(trial: Trial) -> dict[str, Any]:
    """A trial as JSON values; its space is in the run's header."""
    return {
        "index": trial.index,
        "choices": list(trial.candidate.choices),
        "seed": trial.seed,
        "costs": dict(trial.costs),
        "score": trial.score,
        "metrics": dict(trial.metrics),
        "n_images": trial.n_images,
        "violation": trial.violation,
        "wall_s": trial.wall_s,
        "cpu_s": trial.cpu_s,
        "search_images": trial.search_images,
        "search_metrics": dict(trial.search_metrics),
        "search_wall_s": trial.search_wall_s,
        "search_cpu_s": trial.search_cpu_s,
    }


def trial_from_json(space: Space, found: Mapping[str, Any]) -> Trial:
    """Read back what `trial_to_json` made."""
    fields = {key: value for key, value in found.items() if key != "choices"}
    return Trial(candidate=space.candidate(found["choices"]), **fields)


def write_json(path: Path, value: Any) -> None:
    """Write a JSON file that is always either the old one or the whole new one."""
    write_text(path, json.dumps(value, indent=1, allow_nan=False) + "\n")


def write_text(path: Path, text: str) -> None:
    """Write a text file that is always either the old one or the whole new one."""
    part = path.with_name(path.name + ".part")
    with part.open("w") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    part.replace(path)


def read_json(path: Path) -> dict[str, Any]:
    """The object in a JSON file; FormatError, naming the file, where it has none."""
    try:
        found = json.loads(path.read_text())
    except ValueError as error:
        raise FormatError(f"{path} must be JSON, got {error}") from None
    if not isinstance(found, dict):
        raise FormatError(f"{path} must be a JSON object, got {type(found).__name__}")
    return found


def _lock(directory: Path) -> int | None:
    """Descriptor that holds the lock until it is closed; it is released with the process too."""
    try:
        import fcntl
    except ImportError:  # Windows: two processes in one directory are the user's to avoid
        return None
    descriptor = os.open(directory, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(descriptor)
        raise ConfigError(
            f"run directory must not be in use by another process, got {directory}"
        ) from None
    return descriptor
