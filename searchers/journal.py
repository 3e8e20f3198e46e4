# SPDX-License-Identifier: Apache-2.0
"""Trials written into a new journal file of Optuna, a few thousand a second."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import optuna
from optuna.storages import JournalStorage
from optuna.storages.journal import BaseJournalBackend, JournalFileBackend


class _Chunk(BaseJournalBackend):
    """A journal of which a storage sees how the study began, and the trials of one chunk.

    Optuna numbers trials when it reads a journal, so that those of a chunk need not know the
    others; a storage that saw all of them would keep them all in memory.
    """

    def __init__(self, path: Path):
        self._file = JournalFileBackend(str(path))
        self._beginning: list[dict[str, Any]] = []
        self._new: list[dict[str, Any]] = []

    def read_logs(self, log_number_from: int) -> list[dict[str, Any]]:
        """Entries from that number on."""
        return (self._beginning + self._new)[log_number_from:]

    def append_logs(self, logs: list[dict[str, Any]]) -> None:
        """Further entries of the chunk."""
        self._new += logs

    def write(self) -> list[dict[str, Any]]:
        """Write the chunk's entries to the file and forget them; returns them."""
        written, self._new = self._new, []
        self._file.append_logs(written)
        return written

    def begin(self) -> None:
        """What there is now is how the study began."""
        self._beginning = self.write()


def write_journal(
    path: Path,
    name: str,
    attributes: Mapping[str, Any],
    chunks: Iterable[Sequence[optuna.trial.FrozenTrial]],
) -> int:
    """A new study, to be maximised, and its trials; returns their number.

    Args:
        path: of the file, which there must not be.
        name: of the study.
        attributes: of the study.
        chunks: trials that are written at once, in their order.
    """
    journal = _Chunk(path)
    study = optuna.create_study(
        storage=JournalStorage(journal), study_name=name, direction="maximize"
    )
    for key, value in attributes.items():
        study.set_user_attr(key, value)
    journal.begin()
    n_trials = 0
    for chunk in chunks:
        storage = JournalStorage(journal)
        optuna.load_study(storage=storage, study_name=name).add_trials(chunk)
        journal.write()
        n_trials += len(chunk)
    return n_trials
