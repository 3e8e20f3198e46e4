# SPDX-License-Identifier: Apache-2.0
"""One search from its start to a tested result, in a run directory that can be resumed."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

import searchers
from npusim.errors import ConfigError
from searchers.base import (
    Budget,
    Evaluation,
    Evaluator,
    History,
    Pool,
    SearchContext,
    Searcher,
    Trial,
    is_one_shot,
    run,
    searcher_rng,
)
from searchers.evaluators import Traits
from searchers.options import resolve
from searchers.store import (
    RunStore,
    check_identity,
    read_json,
    run_identity,
    trial_to_json,
    write_json,
    write_text,
)
from spaces.base import Candidate, Space
from spaces.feasible import require_feasible
from spaces.limits import Limit

if TYPE_CHECKING:
    from searchers.data import TrainingData
    from searchers.halving import Halving
    from spaces.npu_limits import AnyLimit

_HELD_OUT_STREAM = 2
CURVE = ("trial", "score", "trials", "images", "wall_s", "cpu_s")
"""Columns of `StudyResult.curve`."""


class HeldOutEvaluator(Evaluator, Protocol):
    """An evaluator that can also measure the result of a search on data the search never saw."""

    def test(self, candidate: Candidate, seed: int) -> Evaluation | None:
        """Train for the last time and score on the held-out test data; None is not to be tested."""
        ...


class TrainingEvaluator(HeldOutEvaluator, Protocol):
    """An evaluator whose data one-shot searchers can train on too."""

    def search_data(self) -> tuple[TrainingData, TrainingData]:
        """The data that candidates are trained on, and the data that they are validated on."""
        ...


@dataclass(frozen=True, slots=True)
class Study:
    """What to search.

    Args:
        space: of the candidates.
        searcher: registered name.
        limit: that every candidate is within.
        budget: when the search ends.
        seed: from 0.
        options: of the searcher.
        further: limits beside the first one, see `searchers.within`.
        halving: rungs of training, see `searchers.halving`; None for whole trials alone.

    Raises:
        ConfigError: the seed is negative, or a one-shot searcher is to keep further limits or to
            halve.
        UnknownNameError: no such searcher.
    """

    space: Space
    searcher: str
    limit: Limit
    budget: Budget
    seed: int
    options: Mapping[str, Any] = field(default_factory=dict)
    further: tuple[AnyLimit, ...] = ()
    halving: Halving | None = None

    def __post_init__(self) -> None:
        if self.seed < 0:
            raise ConfigError(f"seed must be at least 0, got {self.seed}")
        if self.further and is_one_shot(searchers.get(self.searcher)):
            raise ConfigError(
                f"limits of searcher {self.searcher!r} must be one, on a size or on MACs, "
                f"got {', '.join(map(str, (self.limit, *self.further)))}"
            )
        if self.halving is not None and is_one_shot(searchers.get(self.searcher)):
            raise ConfigError(
                f"searcher to halve must be one that does not train itself, got {self.searcher!r}"
            )

    def make(self) -> Callable[..., Searcher]:
        """What makes the searcher, given what `searchers.base.run` gives it."""
        found = searchers.get(self.searcher)
        if self.further:
            from searchers.within import Within

            found = partial(Within, found, self.further)
        if self.halving is not None:
            from searchers.halving import HalvingSearch

            found = partial(HalvingSearch, found, self.halving)
        return found

    def identity(self, evaluator: Mapping[str, Any]) -> dict[str, Any]:
        """Identity of its run directory, with an evaluator of that identity."""
        options = self.all_options()
        named = (self.space, self.limit, self.searcher, options, self.seed)
        return run_identity(*named, evaluator, self.further, self.halving)

    def all_options(self) -> dict[str, Any]:
        """Every option of the searcher: as given, else its default.

        Raises:
            NpusimError: see `searchers.options.resolve`.
        """
        return resolve(self.searcher, searchers.get(self.searcher), self.options)

    def check_workers(self, n_workers: int) -> None:
        """Refuse workers that would have nothing to do.

        Raises:
            ConfigError: several, for a searcher that proposes one candidate at a time.
            NpusimError: see `check`.
        """
        if n_workers < 1:
            raise ConfigError(f"workers must be at least 1, got {n_workers}")
        make, options = self.make(), self.all_options()
        if n_workers == 1:
            return
        batch = 1
        if not is_one_shot(make):
            made = make(self.space, self.limit, searcher_rng(self.seed), **options)
            batch = getattr(made, "batch", 1)
        if batch == 1:
            hint = "; its option batch lets it propose more" if "batch" in options else ""
            raise ConfigError(
                f"workers of searcher {self.searcher!r} must be 1, since it proposes one candidate "
                f"at a time, got {n_workers}{hint}"
            )

    def check(self, directory: Path, evaluator: Mapping[str, Any]) -> None:
        """Refuse what cannot be run, before anything is written.

        Raises:
            UnknownNameError: no such searcher, or it has no such option.
            InfeasibleError: no candidate is within the limit.
            ConfigError: the directory has another run, or an option is of another type.
        """
        self.all_options()
        require_feasible(self.space, self.limit)
        check_identity(directory, self.identity(evaluator))


@dataclass(frozen=True, slots=True)
class StudyResult:
    """A finished study.

    Attributes:
        best: the valid trial of the highest score, if any.
        test: how `best` does on the test data, trained afresh; measured once, used for nothing.
        is_tabular: see `searchers.evaluators.Traits`.
    """

    study: Study
    history: History
    best: Trial | None
    test: Evaluation | None
    is_tabular: bool = False

    def curve(self) -> dict[str, list[Any]]:
        """What the search had found after so many trials, images and seconds, in columns.

        ``trial`` is the index of the best valid trial so far and ``score`` its score; ``trials``,
        ``images``, ``wall_s`` and ``cpu_s`` are what was spent when it was there, by trials and by
        the searcher itself. There is a row where the best changes, and one for the end.
        """
        found: dict[str, list[Any]] = {name: [] for name in CURVE}
        spent, best = np.zeros(3), None
        for trial in self.history:
            spent += (
                trial.n_images + trial.search_images,
                trial.wall_s + trial.search_wall_s,
                trial.cpu_s + trial.search_cpu_s,
            )
            better = trial.valid and (best is None or trial.merit > best.merit)
            best = trial if better else best
            if best is not None and (better or trial.index == len(self.history) - 1):
                row = (best.index, best.score, trial.index + 1, int(spent[0]), *spent[1:].tolist())
                for name, value in zip(CURVE, row, strict=True):
                    found[name].append(value)
        return found

    def to_json(self) -> dict[str, Any]:
        """The result as JSON values; only times, of keys that end in ``_s``, are not repeatable."""
        space, best = self.study.space, self.best
        return {
            "space": space.name,
            "space_hash": space.content_hash,
            "limit": asdict(self.study.limit),
            "further": [asdict(each) for each in self.study.further],
            "halving": None if self.study.halving is None else asdict(self.study.halving),
            "searcher": self.study.searcher,
            "options": self.study.all_options(),
            "seed": self.study.seed,
            "is_tabular": self.is_tabular,
            "n_trials": len(self.history),
            "n_images": self.history.n_images,
            "best": None
            if best is None
            else {**trial_to_json(best), "options": space.options_of(best.candidate)},
            "test": None if self.test is None else dict(self.test.metrics),
            "test_score": None if self.test is None else self.test.score,
            "test_images": 0 if self.test is None else self.test.n_images,
            "curve": self.curve(),
            "wall_s": sum(trial.wall_s for trial in self.history),
            "cpu_s": sum(trial.cpu_s for trial in self.history),
            "search_wall_s": sum(trial.search_wall_s for trial in self.history),
            "search_cpu_s": sum(trial.search_cpu_s for trial in self.history),
        }


def run_study(
    study: Study,
    directory: Path | None,
    evaluator: HeldOutEvaluator,
    *,
    device: str = "cpu",
    pool: Pool | None = None,
    on_trial: Callable[[Trial], None] = lambda trial: None,
    on_progress: Callable[[int, int, Mapping[str, float]], None] | None = None,
    should_stop: Callable[[], bool] = lambda: False,
) -> StudyResult | None:
    """Search and test, or go on with what the directory has; None if `should_stop` ended it.

    Args:
        study: what to search.
        directory: of the run; None keeps nothing, for evaluators that are faster than a disk.
        evaluator: must have ``search_data`` for a one-shot searcher, see `TrainingEvaluator`. Its
            method ``prepare``, if it has one, is called before the first trial, with `on_progress`.
        device: where a one-shot searcher trains.
        pool: evaluates candidates side by side, see `Study.check_workers`.
        on_trial, should_stop: see `searchers.base.run`.
        on_progress: hears how far the training of a one-shot searcher or of the evaluator is, see
            `SearchContext`.

    Raises:
        NpusimError: see `Study.check` and `searchers.base.run`.
        ConfigError: a one-shot searcher, and an evaluator without data to train on.
    """
    context = _context(study, directory, evaluator, device, on_progress)
    identity = evaluator.identity()
    with ExitStack() as closing:
        store = None
        if directory is not None:
            study.check(directory, identity)
            store = closing.enter_context(
                RunStore(directory, study.space, study.identity(identity))
            )
        if hasattr(evaluator, "prepare"):
            evaluator.prepare(on_progress)
        history = run(
            study.make(),
            study.space,
            study.limit,
            evaluator,
            study.budget,
            seed=study.seed,
            options=study.all_options(),
            context=context,
            store=store,
            pool=pool,
            on_trial=on_trial,
            should_stop=should_stop,
        )
        if should_stop():
            return None
        best = history.best()
        test = None if best is None else _test(study, best.candidate, directory, evaluator)
        result = StudyResult(study, history, best, test, Traits.of(evaluator).is_tabular)
        if directory is not None:
            _keep(result, directory)
    return result


def _keep(result: StudyResult, directory: Path) -> None:
    """Write what was found; ``result.json`` last: the run is whole with it."""
    if result.best is not None:
        text = result.study.space.to_json(result.best.candidate)
        write_text(directory / "best.json", text + "\n")
    write_json(directory / "result.json", result.to_json())


def take_part(study: Study, evaluator: TrainingEvaluator, device: str = "cpu") -> None:
    """Do this process's part of the training of a one-shot searcher that several processes share.

    Args:
        study: as of the first process, which does all else by `run_study`.
        evaluator: has the data.
        device: where this process trains.
    """
    context = SearchContext(evaluator.search_data, images=study.budget.images, device=device)
    make = searchers.get(study.searcher)
    rng = searcher_rng(study.seed)
    make(study.space, study.limit, rng, **study.all_options(), context=context).ask()


def _context(
    study: Study,
    directory: Path | None,
    evaluator: HeldOutEvaluator,
    device: str,
    on_progress: Callable[[int, int, Mapping[str, float]], None] | None,
) -> SearchContext | None:
    if not is_one_shot(searchers.get(study.searcher)):
        return None
    data: Callable[[], tuple[TrainingData, TrainingData]] | None = getattr(
        evaluator, "search_data", None
    )
    if data is None:
        raise ConfigError(
            f"searcher {study.searcher!r} must have an evaluator with data to train on, "
            f"got {evaluator.identity()['evaluator']!r}"
        )
    context = SearchContext(data, directory, device=device)
    return context if on_progress is None else replace(context, progress=on_progress)


def held_out_seed(seed: int) -> int:
    """Seed, 0..2**32-1, of the final training and test in a run with this seed."""
    return int(np.random.SeedSequence((seed, _HELD_OUT_STREAM)).generate_state(1)[0])


def _test(
    study: Study, candidate: Candidate, directory: Path | None, evaluator: HeldOutEvaluator
) -> Evaluation | None:
    """The test of a candidate, from ``test.json`` if that has it; its settings are the run's."""
    if directory is None:
        return evaluator.test(candidate, held_out_seed(study.seed))
    path = directory / "test.json"
    if path.exists():
        stored = read_json(path)
        if stored.pop("choices", None) == list(candidate.choices):
            return Evaluation(**stored)
    found = evaluator.test(candidate, held_out_seed(study.seed))
    if found is None:
        return None
    kept = {"score": found.score, "metrics": dict(found.metrics), "n_images": found.n_images}
    write_json(path, {"choices": list(candidate.choices), **kept})
    return found
