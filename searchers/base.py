# SPDX-License-Identifier: Apache-2.0
"""What every search is made of: a searcher that asks and is told, an evaluator, trials, a budget.

`run` owns the loop. A searcher only proposes candidates and learns from trials; it never logs or
stores, and it never proposes a candidate beyond the limit, since the space tells it the cost
beforehand. An evaluator only scores one candidate. So both can be exchanged freely. A *one-shot*
searcher trains a network that holds many candidates before it proposes one: it is given a
`SearchContext`, and what it spends counts against the budget like the training of candidates.

A run is a function of the space, the limit, the searcher and a seed: the searcher draws from one
random stream, and each trial's evaluation has its own seed. Replaying stored trials therefore
leads to the same next proposal as if the run had never stopped.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from npusim.errors import ConfigError
from searchers.budget import Budget as Budget
from searchers.stopwatch import Stopwatch
from spaces.base import Candidate, Space
from spaces.costs import MEASURES, cost
from spaces.limits import Limit

if TYPE_CHECKING:
    from searchers.data import TrainingData

_SEARCHER_STREAM, _EVALUATION_STREAM = 0, 1


@dataclass(frozen=True, slots=True)
class Evaluation:
    """What an evaluator measured.

    Attributes:
        score: what the search maximises; not finite if training failed.
        metrics: further figures, by name.
        n_images: images that were trained on.
        violation: by how much constraints that only the evaluation could check are exceeded, in
            any unit that grows with it; 0 if they are met.
    """

    score: float
    metrics: Mapping[str, float] = field(default_factory=dict)
    n_images: int = 0
    violation: float = 0.0


class Evaluator(Protocol):
    """Scores candidates; knows nothing of the search."""

    def identity(self) -> Mapping[str, Any]:
        """JSON values that name the evaluator and all its settings: equal ones, equal scores."""
        ...

    def evaluate(self, candidate: Candidate, seed: int) -> Evaluation:
        """Score one candidate; the result depends on the arguments alone."""
        ...


@dataclass(frozen=True, slots=True)
class Trial:
    """A candidate and its measured result.

    Attributes:
        index: position in the history, from 0.
        candidate: what was evaluated.
        seed: of its evaluation.
        costs: by measure of `spaces.costs.MEASURES`, exact.
        score: what the search maximises; None if the evaluation gave a number that is not finite.
        metrics, n_images, violation: see `Evaluation`.
        wall_s, cpu_s: of the evaluation. They differ from run to run.
        search_images, search_metrics: what the searcher spent before it proposed the candidate, and
            what it says of it; see `OneShotSearcher`.
        search_wall_s, search_cpu_s: the searcher's own: of the proposal, and of what it learnt from
            the trials before; with the first one, of making the searcher. They differ from run to
            run.
    """

    index: int
    candidate: Candidate
    seed: int
    costs: Mapping[str, int]
    score: float | None
    metrics: Mapping[str, float]
    n_images: int
    violation: float
    wall_s: float
    cpu_s: float
    search_images: int = 0
    search_metrics: Mapping[str, float] = field(default_factory=dict)
    search_wall_s: float = 0.0
    search_cpu_s: float = 0.0

    @property
    def valid(self) -> bool:
        """Whether it may be the result of a search: scored, and within all constraints."""
        return self.score is not None and self.violation <= 0

    @property
    def merit(self) -> float:
        """Its score, and minus infinity if it is not valid."""
        return self.score if self.score is not None and self.violation <= 0 else -math.inf

    @property
    def rank(self) -> tuple[float, float]:
        """What compares trials, the greater the better, those that are not valid too.

        Valid ones by score; others below them, by how little they violate; those without a score
        last.
        """
        if self.score is None:
            return (-math.inf, 0.0)
        return (-max(self.violation, 0.0), self.score)

    @property
    def outcome(self) -> tuple[Any, ...]:
        """All that must be the same in a run with the same seed: everything but the times."""
        return (
            self.index,
            self.candidate,
            self.seed,
            dict(self.costs),
            self.score,
            dict(self.metrics),
            self.n_images,
            self.violation,
            self.search_images,
            dict(self.search_metrics),
        )


class History(Sequence[Trial]):
    """The trials of a run, in order."""

    def __init__(self, trials: Iterable[Trial] = ()):
        self._trials: list[Trial] = []
        self._n_images, self._wall_s = 0, 0.0
        for trial in trials:
            self.append(trial)

    def append(self, trial: Trial) -> None:
        """Add the next trial; its index must be the number of trials so far."""
        if trial.index != len(self):
            raise ConfigError(f"index of the next trial must be {len(self)}, got {trial.index}")
        self._trials.append(trial)
        self._n_images += trial.n_images + trial.search_images
        self._wall_s += trial.wall_s + trial.search_wall_s

    def __len__(self) -> int:
        return len(self._trials)

    def __getitem__(self, index: Any) -> Any:
        return self._trials[index]

    def __iter__(self) -> Iterator[Trial]:
        return iter(self._trials)

    @property
    def n_images(self) -> int:
        """Images trained on, by all trials and by the searcher itself."""
        return self._n_images

    @property
    def wall_s(self) -> float:
        """Wall time of all proposals and evaluations."""
        return self._wall_s

    def best(self) -> Trial | None:
        """The valid trial of the highest score, the first of equals; None if none is valid."""
        best = max(self, key=lambda trial: trial.merit, default=None)
        return best if best is not None and best.valid else None

    def best_scores(self) -> np.ndarray:
        """Best valid score after each trial, f64 [n_trials]; NaN before the first valid one."""
        best = np.maximum.accumulate([trial.merit for trial in self] or np.zeros(0))
        return np.where(np.isinf(best), math.nan, best)


class Searcher(Protocol):
    """A search strategy.

    Registered under the entry-point group ``npusim.searchers`` as a class or function of these
    arguments; further ones are its options, see `searchers.options.declared`.

    With an attribute ``batch``, from 1, it is asked for so many candidates before it is told of any
    of them, whether they are then evaluated side by side or one after another; without, for one.
    So results never depend on the number of workers. With an attribute ``epochs``, its latest
    proposal is trained for so many, see `searchers.halving.GradedEvaluator`.
    """

    def __init__(self, space: Space, limit: Limit, rng: np.random.Generator) -> None: ...

    def ask(self) -> Candidate | None:
        """The next candidate, within the limit; None if there is nothing left to try."""
        ...

    def tell(self, trial: Trial) -> None:
        """Learn from a finished trial; must not change it. Trials come in the order of `ask`."""
        ...


def _unheard(done: int, total: int, figures: Mapping[str, float]) -> None:
    """Progress that nobody follows."""


@dataclass(frozen=True, slots=True)
class SearchContext:
    """What a one-shot searcher needs besides the space, the limit and the random stream.

    Attributes:
        data: gives the data to train on and the data to validate on; the test data is not among
            them.
        directory: of the run, where the searcher may keep checkpoints below ``searcher``; None
            keeps nothing.
        images: images the whole search may train on, those of trials included; None is no limit.
        device: torch's name of where to train.
        progress: called now and then with the steps done, their total, and figures by name.
    """

    data: Callable[[], tuple[TrainingData, TrainingData]]
    directory: Path | None = None
    images: int | None = None
    device: str = "cpu"
    progress: Callable[[int, int, Mapping[str, float]], None] = _unheard


class OneShotSearcher(Searcher, Protocol):
    """A searcher that trains inside `ask`.

    Its class (or function) has the attribute ``one_shot = True``, and it takes a further argument,
    ``context: SearchContext``. Stored trials are replayed by asking again, so an `ask` whose
    training was finished before takes its end from a checkpoint in the context's directory.

    Attributes:
        n_images: images it has trained on so far.
        metrics: finite figures about its latest proposal, by name; kept with the trial.
    """

    n_images: int
    metrics: Mapping[str, float]


@dataclass(frozen=True, slots=True)
class Job:
    """A candidate to evaluate.

    Attributes:
        index: of its trial.
        seed: of the evaluation.
        epochs: of its training, for a `searchers.halving.GradedEvaluator`; None: a whole trial.
        device: to evaluate on, for an evaluator with that attribute; None for its own.
    """

    index: int
    candidate: Candidate
    seed: int
    epochs: int | None = None
    device: str | None = None


@dataclass(frozen=True, slots=True)
class Measured:
    """What the evaluation of trial `index` gave, and the time it took."""

    index: int
    evaluation: Evaluation
    wall_s: float
    cpu_s: float


class Pool(Protocol):
    """Evaluates several candidates side by side; see `searchers.workers.Workers`."""

    def evaluate_all(self, jobs: Sequence[Job]) -> Iterator[Measured]:
        """What all jobs gave, in any order."""
        ...


class TrialStore(Protocol):
    """Where finished trials are kept; see `searchers.store`."""

    def get(self, index: int) -> Trial | None:
        """The trial of that index, if an earlier run stored it."""
        ...

    def append(self, trial: Trial) -> None:
        """Keep a finished trial: after the return, not even a killed process loses it."""
        ...


def searcher_rng(seed: int) -> np.random.Generator:
    """The random stream that the searcher of a run with this seed draws from."""
    return np.random.default_rng(np.random.SeedSequence((seed, _SEARCHER_STREAM)))


def evaluation_seed(seed: int, index: int) -> int:
    """Seed, 0..2**32-1, of the evaluation of trial `index` in a run with this seed."""
    sequence = np.random.SeedSequence((seed, _EVALUATION_STREAM, index))
    return int(sequence.generate_state(1)[0])


def run(
    make_searcher: Callable[..., Searcher],
    space: Space,
    limit: Limit,
    evaluator: Evaluator,
    budget: Budget,
    *,
    seed: int,
    options: Mapping[str, Any] | None = None,
    context: SearchContext | None = None,
    store: TrialStore | None = None,
    pool: Pool | None = None,
    on_trial: Callable[[Trial], None] = lambda trial: None,
    should_stop: Callable[[], bool] = lambda: False,
) -> History:
    """Search until the budget is spent, the space is exhausted or `should_stop` says so.

    Args:
        make_searcher: a registered searcher.
        seed: from 0; decides all proposals, and the seeds of all evaluations.
        options: arguments of the searcher.
        context: for a one-shot searcher; the others do not see it.
        store: keeps trials; those it has already are replayed, not evaluated again.
        pool: evaluates the candidates of a batch instead of `evaluator`; changes no result.
        on_trial: called with each trial in the order of their indices, replayed ones too.
        should_stop: asked before each trial.

    Raises:
        ConfigError: the searcher proposes a candidate beyond the limit or of another space, the
            stored trials are not the ones that this searcher proposes, or a one-shot searcher gets
            no context.
        InfeasibleError: no candidate is within the limit.
    """
    if seed < 0:
        raise ConfigError(f"seed must be at least 0, got {seed}")
    arguments = dict(options or {})
    if is_one_shot(make_searcher):
        if context is None:
            raise ConfigError("a one-shot searcher must get a context to train in, got none")
        arguments["context"] = replace(context, images=budget.images)
    own_time = Stopwatch()
    with own_time:
        searcher = make_searcher(space, limit, searcher_rng(seed), **arguments)
    history = History()

    def may_go_on() -> bool:
        return budget.allows_another(history) and not should_stop()

    while may_go_on():
        n_most = getattr(searcher, "batch", 1)
        if budget.trials is not None:
            n_most = min(n_most, budget.trials - len(history))
        batch = _ask_batch(searcher, space, limit, n_most, len(history), seed, own_time)
        if not batch:
            break
        for trial in _trials(space, evaluator, batch, store, pool, len(history)):
            history.append(trial)
            with own_time:
                searcher.tell(trial)
            on_trial(trial)
            if not may_go_on():
                break
    return history


def is_one_shot(make_searcher: Callable[..., Searcher]) -> bool:
    """Whether a registered searcher trains inside `ask`; see `OneShotSearcher`."""
    return bool(getattr(make_searcher, "one_shot", False))


@dataclass(frozen=True, slots=True)
class _Proposal:
    job: Job
    images: int
    metrics: Mapping[str, float]
    wall_s: float
    cpu_s: float


def _ask_batch(
    searcher: Searcher,
    space: Space,
    limit: Limit,
    n_most: int,
    first: int,
    seed: int,
    own_time: Stopwatch,
) -> dict[int, _Proposal]:
    """What a searcher proposes, by index from `first`, and what the proposals took."""
    found: dict[int, _Proposal] = {}
    for index in range(first, first + n_most):
        before = getattr(searcher, "n_images", 0)
        with own_time:
            candidate = searcher.ask()
        if candidate is None:
            break
        if not limit.allows(space, candidate):
            raise ConfigError(f"searcher must propose candidates within {limit}, got {candidate}")
        epochs = getattr(searcher, "epochs", None)
        job = Job(index, candidate, evaluation_seed(seed, index), epochs)
        images = getattr(searcher, "n_images", 0) - before
        metrics = dict(getattr(searcher, "metrics", {}))
        found[index] = _Proposal(job, images, metrics, *own_time.take())
    return found


def _trials(
    space: Space,
    evaluator: Evaluator,
    batch: Mapping[int, _Proposal],
    store: TrialStore | None,
    pool: Pool | None,
    first: int,
) -> Iterator[Trial]:
    """The trials of a batch in the order of their indices, each as soon as it and those before are.

    What is stored is not evaluated again; what is evaluated is stored at once.
    """
    ready: dict[int, Trial] = {}
    for index, proposal in batch.items():
        stored = store.get(index) if store is not None else None
        if stored is None:
            continue
        if stored.candidate != proposal.job.candidate:
            raise ConfigError(
                f"stored trial {index} must be what the searcher proposes again, "
                f"got {stored.candidate.choices} instead of {proposal.job.candidate.choices}"
            )
        ready[index] = stored
    jobs = [proposal.job for index, proposal in batch.items() if index not in ready]
    measured = pool.evaluate_all(jobs) if pool else (measure(evaluator, job) for job in jobs)
    for index in range(first, first + len(batch)):
        while index not in ready:
            found = next(measured)
            ready[found.index] = _trial(space, batch[found.index], found)
            if store is not None:
                store.append(ready[found.index])
        yield ready.pop(index)


def measure(evaluator: Evaluator, job: Job) -> Measured:
    """Evaluate a candidate and take the time."""
    wall, cpu = time.perf_counter(), time.process_time()
    if job.device is not None:
        evaluator.device = job.device  # type: ignore[attr-defined]
    if job.epochs is None:
        found = evaluator.evaluate(job.candidate, job.seed)
    else:
        found = evaluator.evaluate(job.candidate, job.seed, job.epochs)  # type: ignore[call-arg]
    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    return Measured(job.index, found, wall, cpu)


def _trial(space: Space, proposal: _Proposal, measured: Measured) -> Trial:
    found, job = measured.evaluation, proposal.job
    finite = math.isfinite(found.score) and math.isfinite(found.violation)
    return Trial(
        index=job.index,
        candidate=job.candidate,
        seed=job.seed,
        costs={measure: cost(space, job.candidate, measure) for measure in MEASURES},
        score=found.score if finite else None,
        metrics={name: value for name, value in found.metrics.items() if math.isfinite(value)},
        n_images=found.n_images,
        violation=found.violation if finite else 0.0,
        wall_s=measured.wall_s,
        cpu_s=measured.cpu_s,
        search_images=proposal.images,
        search_metrics=proposal.metrics,
        search_wall_s=proposal.wall_s,
        search_cpu_s=proposal.cpu_s,
    )
