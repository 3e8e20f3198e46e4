# SPDX-License-Identifier: Apache-2.0
"""What candidates reach with the weights they share: the score of SPOS, and an evaluator."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn

from searchers.base import Evaluation, SearchContext
from searchers.data import TrainingData
from searchers.evaluators import ResultTrained
from searchers.training.evaluator import TrainEvaluator, one_thread
from searchers.training.tasks import Task, score_on
from searchers.udc.config import WeightsConfig
from searchers.udc.sampling import Decisions
from searchers.udc.supernet import Supernet
from spaces.base import Candidate, Space
from spaces.limits import Limit

if TYPE_CHECKING:
    from searchers.one_shot.searchers import SinglePathSearch

CALIBRATION_IMAGES = 256


class SharedCandidate(nn.Module):
    """A candidate with its part of shared weights, batch norm by training images of its own.

    Args:
        net: has the weights.
        candidate: of the network's space.
        images: that batch norm is recalibrated with, f32 [N, C, H, W].
    """

    def __init__(self, net: Supernet, candidate: Candidate, images: Tensor):
        super().__init__()
        self.net = net
        choices = torch.tensor([candidate.choices], device=images.device)
        self.z = Decisions.of(net.space, images.device).one_hot(choices)  # [1, D, K]
        self.statistics = net.statistics(images[None], self.z)

    def forward(self, images: Tensor) -> Tensor:
        """Outputs of images [N, C, H, W]."""
        outputs: Tensor = self.net(images[None], self.z, self.statistics)[0]
        return outputs


class SharedScore:
    """Scores candidates on validation data by weights that are not trained any more.

    Args:
        net: has the weights.
        task: training images to recalibrate batch norm with are from there.
        validation: what is scored on.

    Source: Guo et al., 2020, SPOS, section 3.4: batch norm recalibrated for each candidate.
    """

    def __init__(self, net: Supernet, task: Task, validation: TrainingData):
        self._net, self._validation = net, validation
        self._images = next(iter(task.inputs(CALIBRATION_IMAGES)))

    def __call__(self, candidate: Candidate) -> dict[str, float]:
        """What `searchers.training.tasks.score_on` gives; the first figure is the score."""
        shared = SharedCandidate(self._net, candidate, self._images)
        return score_on(shared, self._net.space, self._validation)


class SharedEvaluator:
    """`SharedScore` as an evaluator of `searchers.base.run`.

    Args:
        score: gives the figures of a candidate.
        excess: how far a candidate is over limits that the space does not know, 0 for not at all.
    """

    def __init__(
        self,
        score: Callable[[Candidate], Mapping[str, float]],
        excess: Callable[[Candidate], float],
    ):
        self._score, self._excess = score, excess

    def identity(self) -> Mapping[str, Any]:
        """Not for itself: it is part of what its searcher is."""
        return {"evaluator": "shared weights"}

    def evaluate(self, candidate: Candidate, seed: int) -> Evaluation:
        """The score, whatever the seed."""
        figures = self._score(candidate)
        return Evaluation(next(iter(figures.values())), figures, 0, self._excess(candidate))


class SupernetEvaluator(ResultTrained):
    """Scores candidates by shared weights, trained once, before the first score.

    They are trained as `searchers.one_shot.single_path` does and kept in the directory, from where
    a run that goes on, and each of its workers, takes them.

    Args:
        space: what the candidates are of.
        limit: that they are within.
        directory: of the run; the weights are in its folder ``evaluator``.
        seed: of the run.
        trained: has the data, and trains the result of a search for its test.
        epochs: of the shared weights; None for what `searchers.one_shot.single_path` has.

    Raises:
        ConfigError: `epochs` is less than 1.
    """

    def __init__(
        self,
        space: Space,
        limit: Limit,
        directory: Path,
        seed: int,
        trained: TrainEvaluator,
        epochs: int | None = None,
    ):
        super().__init__(trained)
        self._arguments = (space, limit, seed, epochs)
        self._directory = directory / "evaluator"
        self._config = self._make(SearchContext(trained.search_data)).config
        self._searcher: SinglePathSearch | None = None
        self._score: SharedScore | None = None

    def _make(self, context: SearchContext) -> SinglePathSearch:
        from searchers.one_shot.searchers import SinglePathSearch

        space, limit, seed, epochs = self._arguments
        return SinglePathSearch(space, limit, np.random.default_rng(seed), context, epochs=epochs)

    def identity(self) -> Mapping[str, Any]:
        """How the weights are trained, and the result."""
        names = {each.name for each in fields(WeightsConfig)}
        settings = {name: value for name, value in asdict(self._config).items() if name in names}
        return {
            "evaluator": "supernet",
            "weights": settings,
            "trained": dict(self.trained.identity()),
        }

    def prepare(
        self, progress: Callable[[int, int, Mapping[str, float]], None] | None = None
    ) -> None:
        """Train the weights, or take them from the directory.

        Args:
            progress: see `searchers.base.SearchContext`.
        """
        if self._score is None:
            given = {} if progress is None else {"progress": progress}
            context = SearchContext(self.trained.search_data, self._directory, **given)
            self._searcher = self._make(context)
            self._score = self._searcher.score()

    def evaluate(self, candidate: Candidate, seed: int) -> Evaluation:
        """Accuracy or PSNR in dB, on validation data, by the shared weights; no seed matters."""
        self.prepare()
        assert self._score is not None
        with one_thread():
            figures = self._score(candidate)
        return Evaluation(next(iter(figures.values())), figures)

    def summary(self) -> str:
        """What the scores are by."""
        self.prepare()
        assert self._searcher is not None
        return f"scores by shared weights trained on {self._searcher.n_images:,} images"
