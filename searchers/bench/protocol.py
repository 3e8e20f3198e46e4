# SPDX-License-Identifier: Apache-2.0
"""What a benchmark compares: tasks, searchers, seeds and a budget, each named once.

Every searcher gets every task, limit and seed, the same budget and the same evaluator. As a file:
`searchers.bench.protocol_files`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import searchers
from npusim.errors import ConfigError
from npusim.hardware import machine
from searchers.base import Budget, is_one_shot, searcher_rng
from searchers.evaluators import Traits
from searchers.options import resolve
from searchers.study import HeldOutEvaluator, Study
from spaces.base import Space
from spaces.feasible import require_feasible
from spaces.limits import Limit
from spaces.npu_limits import AnyLimit

REFERENCE = "one random candidate"
"""Name of the reference in results: random search with a budget of one trial."""

MakeEvaluator = Callable[[Space], HeldOutEvaluator]


@dataclass(frozen=True, slots=True)
class Task:
    """What is searched, and how candidates are scored.

    Args:
        name: once in a protocol.
        space: searched by all.
        limits: each is a problem of its own.
        make_evaluator: makes an evaluator in each process; must be picklable for several.
        budget: of each search; None for the protocol's.
        further: limits beside each of `limits`, on cycles, memory or another measure.
        said: JSON values that say all of it, for files; the names of the space and the task by
            default.

    Raises:
        ConfigError: there are no limits, or one twice.
    """

    name: str
    space: Space
    limits: tuple[Limit, ...]
    make_evaluator: MakeEvaluator
    budget: Budget | None = None
    further: tuple[AnyLimit, ...] = ()
    said: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        _each_once(f"limits of task {self.name!r}", [str(limit) for limit in self.limits])

    def to_json(self) -> dict[str, Any]:
        """All of it as JSON values."""
        return dict(self.said) or {"name": self.name, "space": self.space.name}


@dataclass(frozen=True, slots=True)
class Tuning:
    """What was spent on choosing a searcher's options before; added to what it costs.

    Args:
        trials, images: evaluations, and images trained on.
        wall_s, cpu_s: seconds.

    Raises:
        ConfigError: one is negative.
    """

    trials: int = 0
    images: int = 0
    wall_s: float = 0.0
    cpu_s: float = 0.0

    def __post_init__(self) -> None:
        for name in ("trials", "images", "wall_s", "cpu_s"):
            if not getattr(self, name) >= 0:
                raise ConfigError(f"{name} of tuning must be at least 0, got {getattr(self, name)}")


@dataclass(frozen=True, slots=True)
class Entrant:
    """A strategy that takes part.

    Args:
        name: as results name it, once in a protocol.
        searcher: its registered name.
        options: those that are not its defaults.
        tuning: what was spent on choosing them.
    """

    name: str
    searcher: str
    options: Mapping[str, Any] = field(default_factory=dict)
    tuning: Tuning = Tuning()


@dataclass(frozen=True, slots=True)
class Problem:
    """A task and one of its limits."""

    task: Task
    limit: Limit

    @property
    def name(self) -> str:
        """Of task and limit."""
        return f"{self.task.name}, {self.limit}"


@dataclass(frozen=True, slots=True)
class Cell:
    """One study of a benchmark: a problem, a strategy and a seed.

    Attributes:
        name: of the strategy; `REFERENCE` for the reference.
        directory: name of its run directory.
    """

    problem: Problem
    name: str
    study: Study
    directory: str


@dataclass(frozen=True, slots=True)
class Protocol:
    """A whole benchmark.

    Args:
        tasks, entrants: one or more, names once.
        seeds: of the repetitions, each once.
        budget: of each search, where its task has none of its own.
        npu: preset on which candidates are costed for fronts of cycles; None for no such fronts.

    Raises:
        ConfigError: something is empty, repeated or out of range.
        UnknownNameError: no such npu.
    """

    tasks: tuple[Task, ...]
    entrants: tuple[Entrant, ...]
    seeds: tuple[int, ...]
    budget: Budget
    npu: str | None = None

    def __post_init__(self) -> None:
        _each_once("names of tasks", [task.name for task in self.tasks])
        _each_once("names of searchers", [each.name for each in self.entrants])
        _each_once("seeds", list(map(str, self.seeds)))
        if min(self.seeds) < 0:
            raise ConfigError(f"seeds must be at least 0, got {min(self.seeds)}")
        if REFERENCE in (each.name for each in self.entrants):
            raise ConfigError(
                f"name of a searcher must not be that of the reference, {REFERENCE!r}"
            )
        if self.npu is not None:
            machine(self.npu)
        _each_once("names of run directories", [cell.directory for cell in self.cells()])

    def problems(self) -> list[Problem]:
        """Every limit of every task."""
        return [Problem(task, limit) for task in self.tasks for limit in task.limits]

    def cells(self, part: int = 1, n_parts: int = 1) -> list[Cell]:
        """The studies of a part; those of one seed together, so that early results are comparable.

        A part has every problem of some pairs of strategy and seed, of each strategy about as many.

        Args:
            part: from 1 to `n_parts`.
            n_parts: of the whole.
        """
        reference = Entrant(REFERENCE, "random")
        found = []
        for i, seed in enumerate(self.seeds):
            for problem in self.problems():
                for j, entrant in enumerate((*self.entrants, reference)):
                    if (i + j) % n_parts == part - 1:
                        found.append(self._cell(problem, entrant, seed))
        return found

    def _cell(self, problem: Problem, entrant: Entrant, seed: int) -> Cell:
        is_reference = entrant.name == REFERENCE
        budget = Budget(trials=1) if is_reference else problem.task.budget or self.budget
        space, limit = problem.task.space, problem.limit
        named = (space, entrant.searcher, limit, budget, seed, entrant.options)
        study = Study(*named, problem.task.further)
        names = (problem.task.name, limit.measure, limit.most, entrant.name, seed)
        directory = re.sub(r"[^\w.,=+-]+", "-", "-".join(map(str, names)))
        return Cell(problem, entrant.name, study, directory)

    def check(self) -> None:
        """Refuse what cannot be run.

        Raises:
            UnknownNameError: no such searcher, or it has no such option.
            InfeasibleError: no candidate is within a limit, or none that a searcher could propose.
            ConfigError: an option of another type, a budget that would never end, a one-shot
                searcher without data, or candidates that cannot be costed on the npu.
            NpusimError: an evaluator cannot be made.
        """
        for task in self.tasks:
            evaluator = task.make_evaluator(task.space)
            _check_budget(task, task.budget or self.budget, evaluator)
            if self.npu is not None and any(layer.given is not None for layer in task.space.layers):
                raise ConfigError(
                    f"npu must not be given where candidates of a task are made from a network, "
                    f"got {self.npu!r} and task {task.name!r}"
                )
            for limit in (*task.limits, *task.further):
                if isinstance(
                    limit, Limit
                ):  # what the NPU takes is known of single candidates only
                    require_feasible(task.space, limit)
            for limit in task.limits:
                for entrant in self.entrants:
                    _check_entrant(entrant, task, limit, evaluator)


def _check_budget(task: Task, budget: Budget, evaluator: HeldOutEvaluator) -> None:
    traits = Traits.of(evaluator)
    ends = budget.trials is not None or budget.seconds is not None
    if not ends and not traits.counts_images:
        raise ConfigError(
            f"budget of task {task.name!r} must be in trials or seconds, since its evaluator "
            f"trains on no images, got {budget.images} images"
        )


def _check_entrant(entrant: Entrant, task: Task, limit: Limit, evaluator: HeldOutEvaluator) -> None:
    make = searchers.get(entrant.searcher)
    options = resolve(entrant.searcher, make, entrant.options)
    if not is_one_shot(make):
        study = Study(task.space, entrant.searcher, limit, Budget(trials=1), 0, {}, task.further)
        study.make()(task.space, limit, searcher_rng(0), **options)
    elif not hasattr(evaluator, "search_data"):
        raise ConfigError(
            f"searcher {entrant.searcher!r} must have an evaluator with data to train on, "
            f"got {evaluator.identity()['evaluator']!r} of task {task.name!r}"
        )


def _each_once(what: str, values: Sequence[str]) -> None:
    if not values or len(set(values)) != len(values):
        raise ConfigError(
            f"{what} must be one or more, each once, got {', '.join(values) or 'none'}"
        )
