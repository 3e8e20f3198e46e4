# SPDX-License-Identifier: Apache-2.0
"""Train candidates for real in a search: on one CPU thread, repeatably."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, replace
from functools import reduce
from operator import add
from pathlib import Path
from typing import Any

import torch

from searchers.base import Evaluation
from searchers.data import DataSet, TrainingData
from searchers.evaluators import TrainConfig
from searchers.training import recipes
from searchers.training.loop import Training
from searchers.training.tasks import load_for, scale_of, score_on, task_on
from spaces.base import Candidate, Space
from spaces.nets import build


class TrainEvaluator:
    """Scores a candidate of a space by training it: accuracy, or PSNR in dB, on validation data.

    Args:
        space: of the candidates.
        config: how they are trained.
        data_set: name; None for the space's own.
        directory: of data sets; None for NPUSIM_DATA.

    Attributes:
        recipe: how candidates are trained, but for the epochs.
        device: where, as torch has it.

    Raises:
        UnknownNameError: the data set is not known.
        ConfigError: it is not one for the space's networks, or is not there.
        MissingExtraError: it needs a package that is not installed.
    """

    def __init__(
        self,
        space: Space,
        config: TrainConfig,
        data_set: str | None = None,
        directory: Path | None = None,
    ):
        self._space, self._config, self.device = space, config, "cpu"
        self._data_set = data_set or space.data_set
        self.recipe = recipes.get(self._data_set) if config.recipe is None else config.recipe
        self._data = load_for(space, self._data_set, directory)

    def identity(self) -> Mapping[str, Any]:
        """The data set and all settings of the training."""
        settings = asdict(self._config) | {"recipe": asdict(self.recipe)}
        return {"evaluator": "train", "data_set": self._data_set, **settings}

    def search_data(self) -> tuple[TrainingData, TrainingData]:
        """The training and the validation data, for searchers that train themselves."""
        return self._part("train"), self._part("validation")

    @property
    def epochs(self) -> int:
        """Passes over the training data in a whole trial."""
        return self._config.epochs

    @property
    def images_a_trial(self) -> int:
        """Images that a whole trial is trained on."""
        train, _ = self.search_data()
        task = task_on(train, self._space, self.recipe, torch.device("cpu"))
        size = self.recipe.batch_size
        return self.epochs * (task.n_samples // size) * size

    def evaluate(self, candidate: Candidate, seed: int, epochs: int | None = None) -> Evaluation:
        """Train on the training data, score on the validation data.

        Args:
            candidate: to train.
            seed: of weights, batches and augmentation.
            epochs: see `searchers.halving.GradedEvaluator`.
        """
        train, validation = self.search_data()
        found = self._fit_and_score(candidate, seed, train, validation, epochs or self.epochs)
        if epochs is None:
            return found
        metrics = {**found.metrics, "epochs": float(epochs)}
        return replace(found, metrics=metrics, violation=1 - epochs / self.epochs)

    def test(self, candidate: Candidate, seed: int) -> Evaluation:
        """Train on training and validation data for `final_epochs`, score on the test data.

        For the result of a search only: nothing may be chosen by what comes out. Several test
        folders count as one.
        """
        train, validation = self.search_data()
        both: TrainingData = reduce(add, (train, validation))
        tests = ["test"] if isinstance(self._data, DataSet) else list(self._data.tests)
        test: TrainingData = reduce(add, map(self._part, tests))
        return self._fit_and_score(candidate, seed, both, test, self._config.final_epochs)

    def _part(self, name: str) -> TrainingData:
        """A part of the data, by its name."""
        if isinstance(self._data, DataSet):
            found: TrainingData = getattr(self._data, name)
            return found
        return self._data.pairs(name, scale_of(self._space))

    def _fit_and_score(
        self,
        candidate: Candidate,
        seed: int,
        fit: TrainingData,
        held_out: TrainingData,
        epochs: int,
    ) -> Evaluation:
        recipe = self.recipe.but(epochs=epochs)
        offset = recipe.number_format == "q-hat"
        with one_thread():
            net = build(self._space, candidate, torch.Generator().manual_seed(seed), offset)
            net = net.to(self.device)
            task = task_on(fit, self._space, recipe, torch.device(self.device))
            training = Training(net, task, recipe, seed)
            training.run()
            found = score_on(net, self._space, held_out)
        n_images = training.plan.n_steps * recipe.batch_size
        return Evaluation(next(iter(found.values())), found, n_images)


@contextmanager
def one_thread() -> Iterator[None]:
    """Torch on one thread inside: small nets are faster, and sums always have the same order."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)
