# SPDX-License-Identifier: Apache-2.0
"""Successive halving: many candidates trained for a little, the best of them for longer.

A rung is a number of epochs. All candidates of a bracket are trained for those of the first rung;
the best of a rung, one in `eta`, go on to the next, which has `eta` times as many epochs; the last
has as many as a whole trial. Each rung trains afresh, because learning rates fall over the whole of
a training. Then the next bracket begins.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Protocol

import numpy as np

from npusim._arguments import integer
from npusim.errors import ConfigError
from searchers.base import Evaluation, Evaluator, Searcher, Trial
from searchers.options import parse
from spaces.base import Candidate, Space
from spaces.limits import Limit

CANDIDATES_MAX = 10_000
"""Of a bracket."""


class GradedEvaluator(Evaluator, Protocol):
    """An evaluator that can also train for less than a whole trial, for halving.

    Attributes:
        epochs: of a whole trial.
        images_a_trial: images that a whole trial is trained on.
    """

    epochs: int
    images_a_trial: int

    def evaluate(self, candidate: Candidate, seed: int, epochs: int | None = None) -> Evaluation:
        """Score one candidate after so many epochs; None for a whole trial.

        What is not a whole trial violates that, by the part that is missing, and has the metric
        ``epochs``.
        """
        ...


@dataclass(frozen=True, slots=True)
class Halving:
    """The rungs of successive halving.

    Args:
        epochs: of a whole trial, and so of the last rung.
        eta: one candidate in so many goes on, to so many times as many epochs.
        min_epochs: of the first rung, at least.

    Raises:
        ConfigError: out of range, or there is but one rung.

    Source: Jamieson and Talwalkar, 2016, "Non-stochastic best arm identification".

    >>> Halving(epochs=27, eta=3, min_epochs=2).rungs
    (3, 9, 27)
    """

    epochs: int
    eta: int = 3
    min_epochs: int = 1

    def __post_init__(self) -> None:
        integer("eta of halving", self.eta, 2, 100)
        integer("min_epochs of halving", self.min_epochs, 1, 1_000_000)
        if len(self.rungs) < 2:
            raise ConfigError(
                f"min_epochs of halving must be at most the epochs of a trial over eta, "
                f"{self.epochs} / {self.eta}, got {self.min_epochs}"
            )
        if self.n_candidates > CANDIDATES_MAX:
            raise ConfigError(
                f"candidates of a bracket must be at most {CANDIDATES_MAX}, got {self.n_candidates}"
            )

    @classmethod
    def parse(cls, text: str, epochs: int) -> Halving:
        """Settings such as ``eta=3,min_epochs=2``.

        Raises:
            ConfigError: not written so, or out of range.
        """
        found = parse(part for part in text.split(",") if part.strip())
        for name, value in found.items():
            if name not in ("eta", "min_epochs") or not value.isdecimal():
                raise ConfigError(
                    f"halving must be such as eta=3,min_epochs=1, in whole numbers, got {text!r}"
                )
        return cls(epochs, **{name: int(value) for name, value in found.items()})

    @property
    def rungs(self) -> tuple[int, ...]:
        """Epochs of each rung, rising to those of a whole trial."""
        found = [self.epochs]
        while -(-found[0] // self.eta) >= self.min_epochs and found[0] > 1:
            found.insert(0, -(-found[0] // self.eta))
        return tuple(found)

    @property
    def n_candidates(self) -> int:
        """Candidates of a bracket, so that one is left in the last rung."""
        return int(self.eta ** (len(self.rungs) - 1))


class HalvingSearch:
    """Successive halving of what any searcher proposes.

    The searcher inside hears the scores of the first rung, which are those of all its proposals
    after the same training, and is never asked for more than its ``batch`` before it heard of
    them. A rung ends before the next begins, so that results do not depend on the number of
    workers.

    Args:
        make: the searcher inside; not one-shot.
        halving: the rungs.
        space, limit, rng: see `searchers.base.Searcher`.
        options: of the searcher inside.

    Attributes:
        epochs: that the latest proposal is to be trained for.
    """

    def __init__(
        self,
        make: Callable[..., Searcher],
        halving: Halving,
        space: Space,
        limit: Limit,
        rng: np.random.Generator,
        **options: Any,
    ):
        self._inside = make(space, limit, rng, **options)
        self._batch_inside = getattr(self._inside, "batch", 1)
        self._halving = halving
        self.batch = halving.n_candidates
        self.epochs = halving.rungs[0]
        self._begin()

    def _begin(self) -> None:
        self._rung, self._n_asked = 0, 0
        self._n_planned = self._halving.n_candidates
        self._promoted: deque[Candidate] = deque()
        self._told: list[Trial] = []
        self._is_last = False  # the searcher inside has no more

    def ask(self) -> Candidate | None:
        """A proposal for the rung; None where a rung ends, or all does."""
        self.epochs = self._halving.rungs[self._rung]
        if self._rung > 0:
            found = self._promoted.popleft() if self._promoted else None
        elif self._n_asked == self._n_planned or self._is_last:
            found = None
        elif self._n_asked - len(self._told) == self._batch_inside:
            found = None  # the searcher inside is to hear of these first
        else:
            found = self._inside.ask()
            if found is None and self._n_asked == len(self._told):
                self._is_last = True
                return self._next_rung()
        self._n_asked += found is not None
        return found

    def _next_rung(self) -> Candidate | None:
        """The searcher inside came to its end: what is left goes on."""
        if not self._told:
            return None
        self._promote()
        return self.ask()

    def tell(self, trial: Trial) -> None:
        """Hear of the proposals of a rung; after the last of them the best go on."""
        self._told.append(trial)
        if self._rung == 0:
            missing = 1 - self._halving.rungs[0] / self._halving.epochs
            self._inside.tell(replace(trial, violation=max(0.0, trial.violation - missing)))
        if len(self._told) == self._n_planned:
            self._promote()

    def _promote(self) -> None:
        scored = [trial for trial in self._told if trial.score is not None]
        best = sorted(scored, key=lambda trial: trial.rank, reverse=True)
        n_best = len(self._told) // self._halving.eta or 1
        is_last = self._is_last
        rung = self._rung + 1
        self._begin()
        if rung < len(self._halving.rungs) and best:
            self._rung = rung
            self._promoted.extend(trial.candidate for trial in best[:n_best])
            self._n_planned = len(self._promoted)
        self._is_last = is_last
