# SPDX-License-Identifier: Apache-2.0
"""What searchers on shared weights have alike: they train when first asked, then propose.

Whatever the strategy, its result is within all limits for certain: the most likely candidate if
that fits, else the most likely one that does, exactly; then filled up; then, where asked, held
against its real weight stream.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import replace
from functools import cached_property
from typing import TYPE_CHECKING, Any, Literal, Protocol

import numpy as np

from npusim.errors import ConfigError, InfeasibleError, MissingExtraError
from searchers.base import SearchContext, Trial
from searchers.training import recipes
from searchers.training.recipes import Recipe
from searchers.udc.config import WeightsConfig
from spaces.base import Candidate, LayerKind, Space
from spaces.costs import cost
from spaces.feasible import FeasibleSet, feasible_set, require_feasible
from spaces.limits import Limit
from spaces.npu_limits import AnyLimit, parse_limit

if TYPE_CHECKING:
    from searchers.data import TrainingData
    from searchers.training.tasks import Task
    from searchers.udc.result import Decoded
    from searchers.udc.run_files import RunFiles
    from searchers.udc.strategy import Step, Strategy

CHECKPOINT_S = 30.0
"""Between checkpoints."""
TINY_MACS = 1_000_000
"""Of the largest candidate: networks that go through with all their samples side by side."""
SHRINKS_MAX, SHRINK_LEAST = 16, 0.98
"""Times that a candidate is decoded for a smaller size because its stream is over the limit, and
what is left of the size at most each time."""
DRAWS = 64
FLATTER_MAX = 1 << 20

Within = Literal["size", "stream", "flash"]


class Settings(Protocol):
    """Makes a strategy's settings."""

    def __call__(self, n_images: int = 0, pictures: bool = False, **changes: Any) -> WeightsConfig:
        """Those for so many training images; fields that are None in `changes` stay."""
        ...


class OneShotSearch:
    """Proposes what a strategy on shared weights found.

    First the candidate that its probabilities stand for, within the limit for certain; asked again,
    others drawn by these probabilities from all that are within it.

    Args:
        space: what is searched.
        limit: e*; every proposal is within it.
        rng: decides everything.
        context: data, directory, progress.
        also: further limits, comma-separated, such as "2M macs, 120k total_cycles"; measures of
            `spaces.costs.MEASURES` and of `spaces.npu_limits.NPU_MEASURES`.
        within: what the limit on a size counts: "size" for the bound of [UDC] eq. (4), "stream" for
            the weight stream, "flash" for that with biases, scales and constants.
        npu: for "stream" and "flash", and for further limits on cycles and memory.
        settings: gives the settings for a number of images.
        changes: of the settings.

    Raises:
        InfeasibleError: no candidate is within a limit; names the least there is.
        ConfigError: an option is out of range.
        MissingExtraError: torch is not installed.
    """

    one_shot = True
    draws = 0
    """Candidates drawn from the probabilities that shared weights score beside the decoded one."""

    def __init__(
        self,
        space: Space,
        limit: Limit,
        rng: np.random.Generator,
        context: SearchContext,
        also: str | None,
        within: Within,
        npu: str,
        settings: Settings,
        changes: Mapping[str, Any],
    ):
        try:
            import torch  # noqa: F401
        except ImportError as error:
            raise MissingExtraError("a search on shared weights", "search", error) from error
        self.space, self.limit, self.context = space, limit, context
        self._rng, self._within, self._npu = rng, within, npu
        further = [text.strip() for text in also.split(",")] if also else []
        self._limits: tuple[AnyLimit, ...] = (
            limit,
            *(parse_limit(text, npu) for text in further),
        )
        for each in self._limits:
            if isinstance(each, Limit):
                require_feasible(space, each)
            else:
                each.cost(space, space.largest())  # refuses what cannot be estimated
        if within != "size" and limit.measure != "size_bits":
            raise ConfigError(
                f"limit within the {within} must be a size, got one on {limit.measure}"
            )
        self._settings, self._changes = settings, changes
        settings(**changes)  # refuses what is out of range
        self._seed = int(rng.integers(1 << 62))
        self._log_pi: np.ndarray | None = None
        self._proposed: set[Candidate] = set()
        self._feasible = feasible_set(space, limit)
        self._strategy: Strategy
        self._files: RunFiles
        self.n_images = 0
        self.metrics: Mapping[str, float] = {}

    def ask(self) -> Candidate | None:
        """The decoded candidate, then distinct draws from the probabilities within the limit."""
        found = self._train() if self._log_pi is None else self._draw()
        if found is not None:
            self._proposed.add(found)
        return found

    def tell(self, trial: Trial) -> None:
        """Nothing is learnt from trials."""

    # -- the first proposal

    def _make(self, config: WeightsConfig) -> Strategy:
        """The strategy, before its first step."""
        raise NotImplementedError

    def _train(self) -> Candidate | None:
        from searchers.training.evaluator import one_thread

        with one_thread():
            strategy = self.trained()
            if strategy.weights.processes.rank > 0:
                return None
            self._log_pi = strategy.log_pi().detach().cpu().numpy()
            decoded = self._scored(self._decode())
            self.metrics = self._figures(decoded, self._files.steps[-1])
            self._files.finish(strategy, decoded, dict(self.metrics))
        return decoded.candidate

    def trained(self) -> Strategy:
        """The strategy after its last step, from its checkpoint on if there is one."""
        from searchers.udc.run_files import RunFiles

        strategy = self._make(self.config)
        processes = strategy.weights.processes
        self._files = RunFiles(self.context.directory, processes.rank == 0)
        self._search(strategy, self._files)
        processes.leave()
        self._strategy, self.n_images = strategy, strategy.n_images
        return strategy

    @cached_property
    def config(self) -> WeightsConfig:
        """The settings, for the data there is."""
        pictures = self.space.layers[-1].kind is not LayerKind.DENSE
        found = self._settings(self.task.n_samples, pictures, **self._changes)
        macs_most = cost(self.space, self.space.largest(), "macs")
        if self._changes.get("n_together") is not None or macs_most > TINY_MACS:
            return found
        return replace(found, n_together=found.n_mc)

    @cached_property
    def task(self) -> Task:
        """What is trained on."""
        return self._task(self.context.data()[0], self._recipe)

    @cached_property
    def validation(self) -> Task:
        """What may be validated on, as it is: not augmented."""
        return self._task(
            self.context.data()[1], self._recipe.but(crop=0, crop_area=1.0, flip=False)
        )

    @property
    def _recipe(self) -> Recipe:
        return recipes.get(self.space.data_set)

    def _task(self, data: TrainingData, recipe: Recipe) -> Task:
        import torch

        from searchers.training.tasks import task_on

        return task_on(data, self.space, recipe, torch.device(self.context.device))

    def _figures(self, decoded: Decoded, last: Step) -> dict[str, float]:
        """What is kept of the search with its result."""
        return {
            "gamma_ratio": cost(self.space, decoded.gamma, self.limit.measure) / self.limit.most,
            "ratio": cost(self.space, decoded.candidate, self.limit.measure) / self.limit.most,
            "log_odds": decoded.log_odds,
            "search_loss": last.loss,
            "entropy_bits": last.entropy_bits,
            **self._stored(decoded.candidate),
        }

    def _search(self, strategy: Strategy, files: RunFiles) -> None:
        """All steps that are left; an interruption loses those since the last checkpoint."""
        files.resume(strategy)
        processes = strategy.weights.processes
        if processes.n > 1:  # the first one has the checkpoint
            strategy.load_state_dict(processes.share(strategy.state_dict()))
        saved = time.monotonic()
        while strategy.t < strategy.n_steps:
            step = strategy.step()
            files.add(step)
            figures = {
                "loss": step.loss,
                "cost": step.cost,
                "argmax": step.gamma,
                "entropy": step.entropy_bits,
            }
            self.context.progress(step.t, strategy.n_steps, figures)
            if time.monotonic() - saved > CHECKPOINT_S:
                files.save(strategy)
                saved = time.monotonic()
        files.save(strategy)

    def _decode(self) -> Decoded:
        """The candidate within all limits, by what the first one counts.

        Raises:
            InfeasibleError: it takes more in flash than the bound says, whatever the bound.
        """
        from searchers.udc.result import decode

        assert self._log_pi is not None
        most, least = self.limit.most, None
        for _ in range(SHRINKS_MAX):
            limits = (Limit(self.limit.measure, most), *self._limits[1:])
            try:
                decoded = decode(self.space, limits, self._log_pi, self.config.fill)
            except InfeasibleError:
                if least is None:
                    raise
                break
            taken = self._taken(decoded.candidate)
            if taken <= self.limit.most:
                return decoded
            least = taken if least is None else min(least, taken)
            most = max(1, int(most * min(self.limit.most / taken, SHRINK_LEAST)))
        assert least is not None
        raise InfeasibleError(
            f"limit on the {self._within} must be at least {least} bits, the least found, "
            f"got {self.limit.most} ({self.limit})",
            least,
        )

    def _scored(self, decoded: Decoded) -> Decoded:
        """The best by shared weights of what was decoded and of `draws` from the probabilities."""
        if self.draws == 0:
            return decoded
        from searchers.one_shot.scores import SharedScore
        from searchers.udc.result import chosen

        assert self._log_pi is not None
        score = SharedScore(self._strategy.net, self.task, self.context.data()[1])
        proposed, self._proposed = self._proposed, {decoded.candidate}
        tried = [decoded.candidate]
        while len(tried) <= self.draws and (found := self._draw()) is not None:
            tried.append(found)
            self._proposed.add(found)
        self._proposed = proposed
        best = max(tried, key=lambda each: next(iter(score(each).values())))
        if best == decoded.candidate:
            return decoded
        return chosen(self.space, self.limit, self._log_pi, decoded, best)

    def _taken(self, candidate: Candidate) -> int:
        """What a candidate takes of the first limit."""
        if self._within == "size":
            return cost(self.space, candidate, self.limit.measure)
        return 8 * int(self._stored(candidate)[f"{self._within}_bytes"])

    def _stored(self, candidate: Candidate) -> dict[str, float]:
        from searchers.udc.streams import stored

        found = stored(self._strategy.net, candidate, self._npu)
        return {"stream_bytes": found.stream_bytes, "flash_bytes": found.flash_bytes}

    # -- further ones

    def _draw(self) -> Candidate | None:
        """A candidate not proposed yet, in proportion to its probability among those that fit.

        Where nothing new is drawn for a while, from flatter probabilities.
        """
        from searchers.udc.result import scores_of

        assert self._log_pi is not None
        flatter = 1.0
        while len(self._proposed) < self._feasible.count() and flatter < FLATTER_MAX:
            scores = [row / flatter for row in scores_of(self.space, self._log_pi)]
            rows = FeasibleSet(self.space, self.limit, scores).sample_many(self._rng, DRAWS)
            for row in rows.tolist():
                found = self.space.candidate(row)
                if found not in self._proposed and self._fits(found):
                    self.metrics = {}
                    return found
            flatter *= 2
        return None

    def _fits(self, candidate: Candidate) -> bool:
        within = self._taken(candidate) <= self.limit.most
        return within and all(each.allows(self.space, candidate) for each in self._limits[1:])
