# SPDX-License-Identifier: Apache-2.0
"""Run directories: what survives a kill, what is refused."""

from __future__ import annotations

import dataclasses
import json
import multiprocessing
import shutil
import sqlite3
import sys
import time
from contextlib import closing
from pathlib import Path

import pytest
from planted import Killed, Planted

import searchers
from npusim.errors import ConfigError, FormatError, InfeasibleError, UnknownNameError
from searchers.base import Budget
from searchers.store import RunStore, count_trials, rows, write_json
from searchers.study import Study, StudyResult, held_out_seed, run_study
from spaces.digits import digits
from spaces.limits import Limit

SPACE = digits()
LIMIT = Limit.size("1.5KB")


def study(trials: int = 8, **changes) -> Study:
    fields = {
        "space": SPACE,
        "searcher": "evolution",
        "limit": LIMIT,
        "budget": Budget(trials=trials),
        "seed": 0,
        **changes,
    }
    return Study(**fields)


def finished(directory: Path, evaluator: Planted | None = None, **changes) -> StudyResult:
    found = run_study(study(**changes), directory, evaluator or Planted(SPACE))
    assert found is not None
    return found


def without_times(result: StudyResult) -> dict:
    found = {key: value for key, value in result.to_json().items() if not key.endswith("_s")}
    for name in ("best", "curve"):
        found[name] = {k: v for k, v in found[name].items() if not k.endswith("_s")}
    return found


def test_trials_come_back_as_they_were(tmp_path):
    kept = finished(tmp_path).history
    with opened(tmp_path) as store:
        assert [store.get(i) for i in range(len(kept))] == list(kept)
        assert store.get(len(kept)) is None
        assert len(store) == count_trials(tmp_path) == len(kept)
    assert [row["choices"] for row in rows(tmp_path)] == [list(t.candidate.choices) for t in kept]


def test_a_finished_run_is_not_evaluated_again(tmp_path):
    first = finished(tmp_path)
    evaluator = Planted(SPACE)
    again = finished(tmp_path, evaluator)
    assert evaluator.n_evaluated == 0
    assert again.to_json() == first.to_json()


def test_a_larger_budget_extends_and_a_smaller_one_takes_the_start(tmp_path):
    evaluator = Planted(SPACE)
    finished(tmp_path, trials=5)
    longer = finished(tmp_path, evaluator, trials=12)
    assert evaluator.n_evaluated == 7
    assert without_times(longer) == without_times(finished(tmp_path / "new", trials=12))
    shorter = finished(tmp_path, evaluator, trials=3)
    assert evaluator.n_evaluated == 7
    assert without_times(shorter) == without_times(finished(tmp_path / "newer", trials=3))


def test_the_directory_has_the_result_and_the_best_candidate(tmp_path):
    result = finished(tmp_path)
    assert json.loads((tmp_path / "result.json").read_text()) == result.to_json()
    best = SPACE.from_json((tmp_path / "best.json").read_text())
    assert best == result.best.candidate
    header = json.loads((tmp_path / "run.json").read_text())
    assert header["definition"] == SPACE.definition()
    assert not list(tmp_path.glob("*.part"))


def opened(directory: Path) -> RunStore:
    return RunStore(directory, SPACE, study().identity(Planted(SPACE).identity()))


def test_trials_may_finish_in_another_order(tmp_path):
    whole = finished(tmp_path / "whole")
    with opened(tmp_path / "run") as store:
        for index in (5, 0, 3):
            store.append(whole.history[index])
    evaluator = Planted(SPACE)
    again = finished(tmp_path / "run", evaluator)
    assert evaluator.n_evaluated == 5
    assert without_times(again) == without_times(whole)
    assert again.history[5] == whole.history[5]


def _moments(directory: Path, kept: Path, evaluator: Planted) -> dict[Path, int]:
    """Run a study in `directory`; each state its files are in, as a copy of it in `kept`.

    A killed process leaves the files as they are at that moment. The copies are taken before every
    line of `searchers`, those of equal content once; with each, how many trials were evaluated.
    """
    package = str(Path(searchers.__file__).parent)
    found: dict[tuple, Path] = {}
    evaluated: dict[Path, int] = {}

    def look(frame, event, argument):
        if not frame.f_code.co_filename.startswith(package):
            return None
        content = tuple(sorted((p.name, p.read_bytes()) for p in directory.glob("*")))
        state = (directory.exists(), content)
        if state not in found:
            found[state] = kept / str(len(found))
            if directory.exists():
                shutil.copytree(directory, found[state])
        evaluated[found[state]] = evaluator.n_evaluated  # the latest: what could be lost then
        return look

    before = sys.gettrace()
    sys.settrace(look)
    try:
        finished(directory, evaluator, trials=3)
    finally:
        sys.settrace(before)
    return evaluated


def test_a_process_may_be_killed_at_any_moment(tmp_path):
    moments = _moments(tmp_path / "run", tmp_path / "kept", Planted(SPACE))
    names = {frozenset(path.name for path in at.glob("*")) for at in moments}
    # no directory or an empty one, run.json begun, run.json, and one more file at a time
    for files in ("", "run.json.part", "run.json"):
        assert frozenset(files.split()) in names
    assert any("trials.sqlite-wal" in files for files in names)
    assert len(moments) >= 3 + 3 + 2 * 3
    whole = without_times(finished(tmp_path / "undisturbed", trials=3))
    for at, n_evaluated in moments.items():
        evaluator = Planted(SPACE)
        assert without_times(finished(at, evaluator, trials=3)) == whole
        assert evaluator.n_evaluated <= 3 - (n_evaluated - 1)
        assert not list(at.glob("*.part"))


def _run_and_be_killed(directory: Path, marker: Path) -> None:
    run_study(study(), directory, Killed(SPACE, marker))


def test_a_killed_process_loses_only_the_running_trial(tmp_path):
    marker = tmp_path / "kill"
    marker.touch()
    process = multiprocessing.get_context("spawn").Process(
        target=_run_and_be_killed, args=(tmp_path / "run", marker)
    )
    process.start()
    process.join(60)
    assert process.exitcode == -9
    evaluator = Planted(SPACE)
    again = finished(tmp_path / "run", evaluator)
    assert evaluator.n_evaluated == 8 - 3
    assert without_times(again) == without_times(finished(tmp_path / "undisturbed"))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"seed": 1}, r"seed must be 0, got 1"),
        ({"searcher": "random"}, r'searcher must be "evolution", got "random"'),
        ({"limit": Limit.size("1KB")}, r"limit must be .*12000.*, got .*8000"),
        ({"space": digits(bitwidths=(4, 8))}, r'space must be .*"digits".*, got .*"digits"'),
    ],
)
def test_the_directory_of_another_run_is_refused(tmp_path, changes, message):
    finished(tmp_path)
    before = {path: path.read_bytes() for path in tmp_path.iterdir()}
    other = study(**changes)
    with pytest.raises(ConfigError, match=rf"run directory .* has another run: {message}"):
        run_study(other, tmp_path, Planted(other.space))
    assert before == {path: path.read_bytes() for path in tmp_path.iterdir()}


def test_the_directory_of_another_evaluator_is_refused(tmp_path):
    finished(tmp_path)
    with pytest.raises(ConfigError, match=r"evaluator must be .*0.01.*, got .*0.5"):
        run_study(study(), tmp_path, Planted(SPACE, noise=0.5))


@pytest.mark.parametrize(
    ("changes", "error"),
    [
        ({"limit": Limit("size_bits", 1)}, InfeasibleError),
        ({"searcher": "x"}, UnknownNameError),
    ],
)
def test_what_cannot_run_leaves_no_directory(tmp_path, changes, error):
    with pytest.raises(error):
        run_study(study(**changes), tmp_path / "run", Planted(SPACE))
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("run.json", "{", r"run.json must be JSON"),
        ("run.json", "[]", r"run.json must be a JSON object, got list"),
        ("run.json", '{"format": "npusim.run", "version": 9}', r"run.json must be .*version 2"),
        ("test.json", "", r"test.json must be JSON"),
        ("trials.sqlite", "nonsense" * 1000, r"trials.sqlite must be a database of trials"),
        ("trials.sqlite", "\xff" * 9000, r"trials.sqlite must be a database of trials"),
    ],
)
def test_damaged_files_are_named(tmp_path, name, content, message):
    finished(tmp_path)
    (tmp_path / name).write_text(content, encoding="latin-1")
    with pytest.raises(FormatError, match=message):
        finished(tmp_path)


@pytest.mark.parametrize(
    ("statement", "message"),
    [
        ("pragma user_version = 9", r"trials.sqlite must have schema version 1, got 9"),
        ("update trials set choices = x'00'", r"trials.sqlite must be a database of trials, got"),
        ("update trials set choices = x'ffff'", r"trials.sqlite must be a database of trials, got"),
        ("update trials set costs = '{'", r"trials.sqlite must be a database of trials, got"),
        ("drop table trials; create table trials (x)", r"must be a database of trials, got"),
    ],
)
def test_other_content_of_the_database_is_refused(tmp_path, statement, message):
    finished(tmp_path)
    with closing(sqlite3.connect(tmp_path / "trials.sqlite")) as database:
        database.executescript(statement)
    with pytest.raises(FormatError, match=message):
        finished(tmp_path)


def test_runs_of_an_earlier_format_are_refused(tmp_path):
    (tmp_path / "run.json").write_text('{"format": "npusim.run", "version": 1}')
    (tmp_path / "trials.jsonl").write_text("{}\n")
    with pytest.raises(FormatError, match=r"version 2, got \('npusim.run', 1\)"):
        finished(tmp_path)


@pytest.mark.slow
def test_a_million_trials_stay_usable(tmp_path):
    """Each look-up and each further trial takes as long as in a store of a few."""
    trial = finished(tmp_path / "few").history[0]
    finished(tmp_path / "many", trials=1)

    def seconds(directory: Path) -> float:
        with opened(directory) as store:
            first, start = len(store), time.process_time()
            for i in range(200):
                store.append(dataclasses.replace(trial, index=first + i))
                assert store.get(i % first).score is not None
            return time.process_time() - start

    with closing(sqlite3.connect(tmp_path / "many" / "trials.sqlite")) as database, database:
        fields = "choices, seed, score, violation, costs, metrics, n_images, wall_s, cpu_s, "
        fields += "search_images, search_metrics, search_wall_s, search_cpu_s"
        database.execute(
            "with recursive n(i) as (select 1 union all select i + 1 from n where i < 999999) "
            f"insert into trials select i, {fields} from n, trials where idx = 0"
        )
    assert count_trials(tmp_path / "many") == 10**6
    assert seconds(tmp_path / "many") < 3 * seconds(tmp_path / "few") + 0.2


def test_trials_without_a_header_are_refused(tmp_path):
    finished(tmp_path)
    (tmp_path / "run.json").unlink()
    with pytest.raises(FormatError, match=r"run directory with trials must have a run.json"):
        finished(tmp_path)


def test_a_file_is_no_run_directory(tmp_path):
    (tmp_path / "run").write_text("")
    with pytest.raises(ConfigError, match="run directory must be a directory, got file"):
        finished(tmp_path / "run")


def test_a_directory_in_use_is_refused(tmp_path):
    identity = study().identity(Planted(SPACE).identity())
    with (
        RunStore(tmp_path, SPACE, identity),
        pytest.raises(ConfigError, match="run directory must not be in use by another process"),
    ):
        RunStore(tmp_path, SPACE, identity)
    RunStore(tmp_path, SPACE, identity).__exit__(None, None, None)


def test_stopping_gives_no_result(tmp_path):
    assert run_study(study(), tmp_path, Planted(SPACE), should_stop=lambda: True) is None
    assert not (tmp_path / "result.json").exists()


def test_json_files_are_replaced_as_a_whole(tmp_path):
    path = tmp_path / "x.json"
    write_json(path, {"a": 1})
    with pytest.raises(ValueError, match="not JSON compliant"):
        write_json(path, {"a": float("nan")})
    assert json.loads(path.read_text()) == {"a": 1}


def test_the_final_test_has_a_seed_of_its_own():
    result_seeds = {held_out_seed(seed) for seed in range(100)}
    assert len(result_seeds) == 100
