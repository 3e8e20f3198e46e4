# SPDX-License-Identifier: Apache-2.0
"""Strategies on shared weights as searchers: `searchers.udc.one_shot` around each."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING, Literal, Unpack

import numpy as np

from npusim.errors import InfeasibleError
from searchers.base import Budget, SearchContext, Trial, run
from searchers.evolution import EvolutionSearch
from searchers.one_shot.config import (
    FrankWolfeConfig,
    FrankWolfeOptions,
    ReinforceConfig,
    SinglePathConfig,
    SinglePathOptions,
    TabnasOptions,
    TunasOptions,
)
from searchers.store import RunStore, run_identity
from searchers.udc.config import WeightsConfig, settings
from searchers.udc.one_shot import OneShotSearch, Within
from spaces.base import Candidate, Space
from spaces.costs import cost
from spaces.limits import Limit
from spaces.npu_limits import excess

if TYPE_CHECKING:
    from searchers.one_shot.frank_wolfe import FrankWolfe
    from searchers.one_shot.reinforce import Tabnas, Tunas
    from searchers.one_shot.scores import SharedScore
    from searchers.one_shot.single_path import SinglePath
    from searchers.udc.result import Decoded
    from searchers.udc.strategy import Step

Preset = Literal["cpu", "paper"]


class TunasSupernetSearch(OneShotSearch):
    """TuNAS on shared weights: `searchers.one_shot.reinforce.Tunas`.

    Args:
        space, limit, rng, context, also, within, npu: see `searchers.udc.one_shot.OneShotSearch`.
        preset: "cpu" or "paper", see `searchers.udc.config.PRESETS`.
        changes: of the settings, see `searchers.one_shot.config.TunasOptions` and
            `ReinforceConfig`.

    Raises:
        InfeasibleError: no candidate is within a limit; names the least there is.
        ConfigError: an option is out of range.
        MissingExtraError: torch is not installed.
    """

    def __init__(
        self,
        space: Space,
        limit: Limit,
        rng: np.random.Generator,
        context: SearchContext,
        preset: Preset = "cpu",
        also: str | None = None,
        within: Within = "size",
        npu: str = "ethos-u55-128",
        **changes: Unpack[TunasOptions],
    ):
        made = partial(settings, ReinforceConfig, preset)
        super().__init__(space, limit, rng, context, also, within, npu, made, changes)

    def _make(self, config: WeightsConfig) -> Tunas:
        from searchers.one_shot.reinforce import Tunas

        assert isinstance(config, ReinforceConfig)
        both = (self.task, self.validation)
        device, images = self.context.device, self.context.images
        return Tunas(self.space, self._limits, *both, config, self._seed, device, images)


class TabnasSupernetSearch(OneShotSearch):
    """TabNAS on shared weights: `searchers.one_shot.reinforce.Tabnas`.

    Args:
        space, limit, rng, context, also, within, npu: see `searchers.udc.one_shot.OneShotSearch`.
        preset: "cpu" or "paper", see `searchers.udc.config.PRESETS`.
        changes: of the settings, see `searchers.one_shot.config.TabnasOptions` and
            `ReinforceConfig`.

    Raises:
        InfeasibleError: no candidate is within a limit; names the least there is.
        ConfigError: an option is out of range.
        MissingExtraError: torch is not installed.
        TooEntangledError: the space has no exact feasible set.
    """

    def __init__(
        self,
        space: Space,
        limit: Limit,
        rng: np.random.Generator,
        context: SearchContext,
        preset: Preset = "cpu",
        also: str | None = None,
        within: Within = "size",
        npu: str = "ethos-u55-128",
        **changes: Unpack[TabnasOptions],
    ):
        made = partial(settings, ReinforceConfig, preset)
        super().__init__(space, limit, rng, context, also, within, npu, made, changes)

    def _make(self, config: WeightsConfig) -> Tabnas:
        from searchers.one_shot.reinforce import Tabnas

        assert isinstance(config, ReinforceConfig)
        both = (self.task, self.validation)
        device, images = self.context.device, self.context.images
        return Tabnas(self.space, self._limits, *both, config, self._seed, device, images)


class FrankWolfeSupernetSearch(OneShotSearch):
    """HardCoRe-NAS on shared weights: `searchers.one_shot.frank_wolfe`.

    Args:
        space, limit, rng, context, also, within, npu: see `searchers.udc.one_shot.OneShotSearch`.
        preset: "cpu" or "paper", see `searchers.udc.config.PRESETS`.
        changes: of the settings, see `searchers.one_shot.config.FrankWolfeOptions` and
            `FrankWolfeConfig`.

    Raises:
        InfeasibleError: no candidate is within a limit; names the least there is.
        ConfigError: an option is out of range.
        MissingExtraError: torch is not installed.
        TooEntangledError: the space has no exact feasible set.
    """

    def __init__(
        self,
        space: Space,
        limit: Limit,
        rng: np.random.Generator,
        context: SearchContext,
        preset: Preset = "cpu",
        also: str | None = None,
        within: Within = "size",
        npu: str = "ethos-u55-128",
        **changes: Unpack[FrankWolfeOptions],
    ):
        made = partial(settings, FrankWolfeConfig, preset)
        super().__init__(space, limit, rng, context, also, within, npu, made, changes)

    def _make(self, config: WeightsConfig) -> FrankWolfe:
        from searchers.one_shot.frank_wolfe import FrankWolfe

        assert isinstance(config, FrankWolfeConfig)
        device, images = self.context.device, self.context.images
        return FrankWolfe(self.space, self._limits, self.task, config, self._seed, device, images)


class SinglePathSearch(OneShotSearch):
    """SPOS: weights shared by candidates drawn uniformly, then evolution scored with them.

    Proposes the candidate of the highest score, within all limits; then the next best ones, then
    ones drawn uniformly.

    Args:
        space, limit, rng, context, also, within, npu: see `searchers.udc.one_shot.OneShotSearch`.
        preset: "cpu" or "paper", see `searchers.udc.config.PRESETS`.
        changes: of the settings, see `searchers.one_shot.config.SinglePathOptions` and
            `SinglePathConfig`.

    Raises:
        InfeasibleError: no candidate is within a limit; names the least there is.
        ConfigError: an option is out of range.
        MissingExtraError: torch is not installed.

    Source: Guo et al., 2020, "Single path one-shot neural architecture search with uniform
    sampling" (SPOS). Differs: evolution is that of `searchers.evolution`.
    """

    def __init__(
        self,
        space: Space,
        limit: Limit,
        rng: np.random.Generator,
        context: SearchContext,
        preset: Preset = "cpu",
        also: str | None = None,
        within: Within = "size",
        npu: str = "ethos-u55-128",
        **changes: Unpack[SinglePathOptions],
    ):
        made = partial(settings, SinglePathConfig, preset)
        super().__init__(space, limit, rng, context, also, within, npu, made, changes)
        self._ranked: list[Candidate] = []

    def _make(self, config: WeightsConfig) -> SinglePath:
        from searchers.one_shot.single_path import SinglePath

        device, images = self.context.device, self.context.images
        return SinglePath(self.space, self._limits, self.task, config, self._seed, device, images)

    def score(self) -> SharedScore:
        """Scores by the trained weights, which are trained now if they were not yet."""
        from searchers.one_shot.scores import SharedScore
        from searchers.training.evaluator import one_thread

        with one_thread():
            if not self.n_images:
                self.trained()
            return SharedScore(self._strategy.net, self.task, self.context.data()[1])

    def _decode(self) -> Decoded:
        """The best of what evolution scores; the others are ranked for later.

        Raises:
            InfeasibleError: none of them is within further limits, or the stream or flash.
        """
        from searchers.udc.result import Decoded

        trials = self._evolved()
        best, *others = sorted(trials, key=lambda trial: trial.rank, reverse=True)
        if not best.valid:
            least = self._taken(best.candidate)
            raise InfeasibleError(
                f"limit on the {self._within} must be at least {least} bits with all further "
                f"limits met, the nearest of {len(trials)}, got {self.limit}",
                least,
            )
        self._ranked = [trial.candidate for trial in others if trial.valid]
        ratio = cost(self.space, best.candidate, self.limit.measure) / self.limit.most
        return Decoded(best.candidate, best.candidate, ratio, ratio, "evolved", 0.0)

    def _evolved(self) -> Sequence[Trial]:
        """All candidates that evolution scores, in their order."""
        from searchers.one_shot.scores import SharedEvaluator

        config, directory = self.config, self.context.directory
        assert isinstance(config, SinglePathConfig)
        evaluator = SharedEvaluator(self.score(), self._excess)
        arguments = (EvolutionSearch, self.space, self.limit, evaluator)
        search = partial(
            run,
            *arguments,
            Budget(trials=config.candidates),
            seed=self._seed,
            on_trial=lambda trial: self.context.progress(
                trial.index + 1, config.candidates, {"score": trial.merit}
            ),
        )
        if directory is None:
            return search()
        named = (self.space, self.limit, "evolution", {}, self._seed, evaluator.identity())
        with RunStore(directory / "searcher" / "scored", self.space, run_identity(*named)) as store:
            return search(store=store)

    def _excess(self, candidate: Candidate) -> float:
        """How far a candidate is over what the first limit counts, and over further ones."""
        over = max(self._taken(candidate) / self.limit.most - 1, 0)
        return over + excess(self.space, candidate, self._limits[1:])

    def _figures(self, decoded: Decoded, last: Step) -> dict[str, float]:
        shared = self.score()(decoded.candidate)
        return {**super()._figures(decoded, last), "shared_score": next(iter(shared.values()))}

    def _draw(self) -> Candidate | None:
        while self._ranked:
            found = self._ranked.pop(0)
            if found not in self._proposed:
                self.metrics = {}
                return found
        return super()._draw()
