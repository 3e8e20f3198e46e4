# SPDX-License-Identifier: Apache-2.0
"""Optuna's samplers as searchers: they propose, and only what is within the limit is evaluated."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from npusim._arguments import integer
from npusim.errors import MissingExtraError
from searchers.base import Trial
from searchers.distinct import Distinct
from spaces.base import Candidate, Space
from spaces.limits import Limit

if TYPE_CHECKING:
    from optuna.distributions import BaseDistribution
    from optuna.samplers import BaseSampler

MENDED_MAX = 30
"""Mended proposals that may be known before a candidate is drawn uniformly."""


class OptunaSearch:
    """Ask one of Optuna's samplers until it proposes a new candidate within the limit.

    Costs are known before a candidate is evaluated, so proposals beyond the limit are dropped for
    free and the sampler never hears of them. If too many in a row are dropped, the last one
    is crossed with the best trial and mutated, which gives one within the limit.

    Args:
        space, limit, rng: see `searchers.base.Searcher`.
        sampler: ``tpe`` (tree-structured Parzen estimators), ``gp`` (Gaussian process; needs
            torch) or ``cmaes`` (covariance matrix adaptation; needs the package cmaes).
        initial: candidates drawn uniformly within the limit before the sampler is asked.

        proposals: proposals in a row that may be beyond the limit, or known, before one is mended.

    Raises:
        ConfigError: an option is out of range.
        InfeasibleError: no candidate is within the limit.
        MissingExtraError: Optuna, or what the sampler needs, is not installed.
    """

    def __init__(
        self,
        space: Space,
        limit: Limit,
        rng: np.random.Generator,
        sampler: Literal["tpe", "gp", "cmaes"] = "tpe",
        initial: int = 10,
        proposals: int = 30,
    ):
        integer("initial", initial, 1, 1_000_000)
        self._proposals = integer("proposals", proposals, 1, 1_000_000)
        self._space, self._limit, self._rng = space, limit, rng
        self._distinct = Distinct(space, limit)
        self._n_random = initial
        self._several = space.count() > 1
        seed = int(rng.integers(2**31))
        try:
            import optuna

            made = _sampler(sampler, initial, seed)
            self._distributions = _distributions(space)
        except ImportError as error:
            raise MissingExtraError(f"Optuna's {sampler}", "searchers", error) from error
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        self._optuna = optuna
        self._study = optuna.create_study(direction="maximize", sampler=made)
        self._asked: dict[Candidate, Any] = {}
        self._best: Trial | None = None

    def ask(self) -> Candidate | None:
        """A random candidate at first, then the sampler's; None after the last one."""
        if self._n_random > 0 or self._best is None or not self._several:
            self._n_random -= 1
            return self._distinct.sample(self._rng)
        best = self._best
        for _ in range(self._proposals):
            trial, proposal = self._proposal()
            if self._distinct.is_new(proposal):
                self._asked[proposal] = trial
                return self._distinct.take(proposal)
            self._study.tell(trial, state=self._optuna.trial.TrialState.FAIL)
        return self._distinct.first_new(
            lambda: self._space.mutate(
                self._space.crossover(best.candidate, proposal, self._rng, self._limit),
                self._rng,
                self._limit,
            ),
            MENDED_MAX,
        ) or self._distinct.sample(self._rng)

    def _proposal(self) -> tuple[Any, Candidate]:
        trial = self._study.ask(self._distributions)
        choices = [trial.params[decision.name] for decision in self._space.decisions]
        return trial, self._space.candidate(choices)

    def tell(self, trial: Trial) -> None:
        """Tell the sampler; trials that are not valid it hears of as failed."""
        if trial.score is not None and (self._best is None or trial.rank > self._best.rank):
            self._best = trial
        asked = self._asked.pop(trial.candidate, None)
        if asked is not None:
            failed = self._optuna.trial.TrialState.FAIL
            self._study.tell(
                asked, trial.score if trial.valid else None, None if trial.valid else failed
            )
        elif trial.valid:
            self._study.add_trial(
                self._optuna.trial.create_trial(
                    params=_params(self._space, trial.candidate),
                    distributions=self._distributions,
                    value=trial.score,
                )
            )


def _params(space: Space, candidate: Candidate) -> dict[str, int]:
    names = [decision.name for decision in space.decisions]
    return dict(zip(names, candidate.choices, strict=True))


def _distributions(space: Space) -> dict[str, BaseDistribution]:
    """Option indices: numbers where options are ordered, else names."""
    from optuna.distributions import CategoricalDistribution, IntDistribution

    return {
        decision.name: IntDistribution(0, len(decision.options) - 1)
        if decision.ordered
        else CategoricalDistribution(range(len(decision.options)))
        for decision in space.decisions
    }


def _sampler(name: str, initial: int, seed: int) -> BaseSampler:
    from optuna.samplers import CmaEsSampler, GPSampler, TPESampler

    if name == "tpe":
        return TPESampler(n_startup_trials=initial, seed=seed)
    if name == "gp":
        import torch  # noqa: F401  (what the sampler needs; it would say so only when asked)

        return GPSampler(n_startup_trials=initial, seed=seed, deterministic_objective=False)
    import cmaes  # noqa: F401

    return CmaEsSampler(n_startup_trials=initial, seed=seed)
