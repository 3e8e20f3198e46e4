# SPDX-License-Identifier: Apache-2.0
"""Trials in Optuna's storage: what its dashboard would show."""

from __future__ import annotations

import pytest
from planted import Failing
from test_store import SPACE, finished

from npusim.cli import main
from npusim.errors import ConfigError, FormatError
from searchers.export import to_optuna

optuna = pytest.importorskip("optuna")


def journal(path):
    """The storage of a journal file."""
    return optuna.storages.JournalStorage(
        optuna.storages.journal.JournalFileBackend(str(path)),
    )


@pytest.mark.parametrize("to", ["sqlite:///{}/study.db", "{}/study.log"])
def test_a_run_is_a_study(to, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("searchers.export.CHUNK", 3)
    history = finished(tmp_path / "mine", Failing(SPACE)).history
    url = to.format(tmp_path)
    with pytest.raises(SystemExit) as exit_:
        main(("trials", "export", str(tmp_path / "mine"), "--optuna", url))
    assert exit_.value.code == 0
    assert "8 trials of" in capsys.readouterr().out
    storage = journal(url) if url.endswith(".log") else url
    study = optuna.load_study(storage=storage, study_name="mine")
    assert study.best_value == history.best().score
    assert study.user_attrs["searcher"] == "evolution"
    for trial, found in zip(history, study.get_trials(), strict=True):
        assert found.params == SPACE.options_of(trial.candidate)
        assert found.value == (trial.score if trial.valid else None)
        assert found.user_attrs["costs"] == dict(trial.costs)
        assert found.user_attrs["seed"] == trial.seed
        assert found.number == found.user_attrs["index"] == trial.index
    with pytest.raises(
        ConfigError, match=r"(study|journal) must be a new (one in sqlite|file).*, got"
    ):
        to_optuna(tmp_path / "mine", url, "mine")


def test_what_cannot_be_exported_is_refused(tmp_path):
    with pytest.raises(FormatError, match=r"run directory must have a run.json"):
        to_optuna(tmp_path, "sqlite://", "x")
    finished(tmp_path / "mine")
    with pytest.raises(ConfigError, match="storage must be one that Optuna opens, got 'nonsense'"):
        to_optuna(tmp_path / "mine", "nonsense", "x")
    (tmp_path / "mine" / "run.json").write_text("{}")
    with pytest.raises(FormatError, match=r"run.json must be npusim.run version 2"):
        to_optuna(tmp_path / "mine", "sqlite://", "x")
