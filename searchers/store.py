# SPDX-License-Identifier: Apache-2.0
"""A run directory: what the run is, and its trials, kept as they finish.

``run.json`` names the run and is written once, before anything else; ``trials.sqlite`` has one row
a trial, committed to disk before the searcher learns of it. A process killed at any moment loses
the trials it was evaluating and nothing else. Trials may finish in another order than they were
proposed. The directory itself is what is locked, so no file has to be there for that.
"""

from __future__ import annotations

import json
import os
import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, closing, contextmanager
from dataclasses import asdict
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

import numpy as np

from npusim import __version__
from npusim.errors import ConfigError, FormatError
from searchers.base import Trial
from spaces.base import Space
from spaces.limits import Limit

if TYPE_CHECKING:
    from searchers.halving import Halving
    from spaces.npu_limits import AnyLimit

RUN_FORMAT = "npusim.run"
RUN_VERSION = 2
"""Raised when a file of a run directory changes its meaning; 1 had its trials in lines of JSON."""
TRIALS = "trials.sqlite"
_BEFORE: Mapping[str, Any] = {"further": []}
"""What is true of runs from before it was written down."""
SCHEMA_VERSION = 1
"""Raised when the table of trials changes; the database has it as its ``user_version``."""
_SCHEMA = """
create table if not exists trials (
    idx integer primary key,
    choices blob not null,  -- option indices, unsigned, two bytes each, little-endian
    seed integer not null,
    score real,
    violation real not null,
    costs text not null,  -- this and what is text below: JSON objects
    metrics text not null,
    n_images integer not null,
    wall_s real not null,
    cpu_s real not null,
    search_images integer not null,
    search_metrics text not null,
    search_wall_s real not null,
    search_cpu_s real not null
) strict
"""
_PLACES = ", ".join("?" * 14)


def run_identity(
    space: Space,
    limit: Limit,
    searcher: str,
    options: Mapping[str, Any],
    seed: int,
    evaluator: Mapping[str, Any],
    further: Sequence[AnyLimit] = (),
    halving: Halving | None = None,
) -> dict[str, Any]:
    """What makes a run this run and no other, as JSON values; the budget is not part of it."""
    identity = {
        "space": {"name": space.name, "hash": space.content_hash},
        "limit": {"measure": limit.measure, "most": limit.most},
        "searcher": searcher,
        "options": dict(options),
        "seed": seed,
        "evaluator": dict(evaluator),
        "further": [asdict(each) for each in further],
        "halving": None if halving is None else asdict(halving),
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
        if (directory / TRIALS).exists():
            raise FormatError(f"run directory with trials must have a run.json, got {directory}")
        return False
    stored = read_json(header)
    found = (stored.get("format"), stored.get("version"))
    if found != (RUN_FORMAT, RUN_VERSION):
        raise FormatError(f"{header} must be {RUN_FORMAT} version {RUN_VERSION}, got {found}")
    different = [
        f"{what} must be {json.dumps(stored.get(what))}, got {json.dumps(identity[what])}"
        for what in identity
        if stored.get(what, _BEFORE.get(what)) != identity[what]
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
            self._path = directory / TRIALS
            with _damage(self._path):
                self._database = undo.enter_context(closing(_open(self._path)))
            if lock is not None:
                os.fsync(lock)  # the names of both files
            self._space = space
            self._close = undo.pop_all()

    def __len__(self) -> int:
        """Number of trials stored so far."""
        with _damage(self._path):
            return int(self._database.execute("select count(*) from trials").fetchone()[0])

    def get(self, index: int) -> Trial | None:
        """The stored trial of that index, if it is there.

        Raises:
            FormatError: the database is damaged, or the trial is of another space.
        """
        with _damage(self._path):
            select = "select * from trials where idx = ?"
            row = self._database.execute(select, (index,)).fetchone()
            return None if row is None else _trial(self._space, row)

    def append(self, trial: Trial) -> None:
        """Write a trial and wait until it is on the disk."""
        with _damage(self._path), self._database:
            self._database.execute(f"insert into trials values ({_PLACES})", _row(trial))

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


def count_trials(directory: Path) -> int:
    """Number of trials in a run directory, while it is written to or not; 0 if there is none."""
    path = directory / TRIALS
    if not path.exists():
        return 0
    with (
        _damage(path),
        closing(sqlite3.connect(f"{path.resolve().as_uri()}?mode=ro", uri=True)) as found,
    ):
        try:
            return int(found.execute("select count(*) from trials").fetchone()[0])
        except sqlite3.OperationalError:  # it is being made right now
            return 0


def rows(directory: Path) -> Iterator[dict[str, Any]]:
    """The trials of a run directory as JSON values, in the order of their index.

    Raises:
        FormatError: there is no run, or its database is damaged.
    """
    path = directory / TRIALS
    if not path.exists():
        raise FormatError(f"run directory must have a {TRIALS}, got {directory}")
    with _damage(path), closing(_open(path)) as found:
        found.row_factory = sqlite3.Row
        for row in found.execute("select * from trials order by idx"):
            values = dict(row)
            values["choices"] = np.frombuffer(values["choices"], "<u2").tolist()
            for name in ("costs", "metrics", "search_metrics"):
                values[name] = json.loads(values[name])
            yield values


def _open(path: Path) -> sqlite3.Connection:
    """A connection to a database of trials, which is made where it is missing."""
    found = sqlite3.connect(path, timeout=30)
    try:
        found.execute("pragma journal_mode = wal")
        found.execute("pragma synchronous = full")  # also a power cut loses no trial
        version = int(found.execute("pragma user_version").fetchone()[0])
        if version not in (0, SCHEMA_VERSION):
            raise FormatError(f"{path} must have schema version {SCHEMA_VERSION}, got {version}")
        with found:
            found.execute(_SCHEMA)
            found.execute(f"pragma user_version = {SCHEMA_VERSION}")
    except BaseException:
        found.close()
        raise
    return found


@contextmanager
def _damage(path: Path) -> Iterator[None]:
    """Errors of a database that is none as FormatError, naming the file."""
    try:
        yield
    except (sqlite3.DatabaseError, ValueError, KeyError, TypeError) as error:
        if isinstance(error, FormatError):
            raise
        raise FormatError(f"{path} must be a database of trials, got {error!r}") from None


def _row(trial: Trial) -> tuple[Any, ...]:
    return (
        trial.index,
        np.array(trial.candidate.choices, "<u2").tobytes(),
        trial.seed,
        trial.score,
        trial.violation,
        json.dumps(dict(trial.costs)),
        json.dumps(dict(trial.metrics), allow_nan=False),
        trial.n_images,
        trial.wall_s,
        trial.cpu_s,
        trial.search_images,
        json.dumps(dict(trial.search_metrics), allow_nan=False),
        trial.search_wall_s,
        trial.search_cpu_s,
    )


def _trial(space: Space, row: tuple[Any, ...]) -> Trial:
    index, choices, seed, score, violation, costs, metrics, n_images, wall_s, cpu_s, *search = row
    return Trial(
        index=index,
        candidate=space.candidate(np.frombuffer(choices, "<u2").tolist()),
        seed=seed,
        costs=json.loads(costs),
        score=score,
        metrics=json.loads(metrics),
        n_images=n_images,
        violation=violation,
        wall_s=wall_s,
        cpu_s=cpu_s,
        search_images=search[0],
        search_metrics=json.loads(search[1]),
        search_wall_s=search[2],
        search_cpu_s=search[3],
    )


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


@contextmanager
def locked(directory: Path) -> Iterator[None]:
    """Hold a directory against other processes inside; it is released with the process too.

    Raises:
        ConfigError: another process holds it.
    """
    lock = _lock(directory)
    try:
        yield
    finally:
        if lock is not None:
            os.close(lock)


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
