# SPDX-License-Identifier: Apache-2.0
"""Train candidates for real in a search: on one CPU thread, repeatably."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict
from typing import Any

import torch

from npusim.errors import ConfigError
from searchers.base import Evaluation
from searchers.data import DataSet, Split, load
from searchers.evaluators import TrainConfig
from searchers.training import recipes
from searchers.training.loop import Training
from searchers.training.tasks import Classification, classification_score
from spaces.base import Candidate, Space
from spaces.nets import build


class TrainEvaluator:
    """Scores a candidate of a space by training it: accuracy on the validation data.

    Raises:
        UnknownNameError: the space's data set is not known.
        ConfigError: it is not of images with classes, or is not there.
        MissingExtraError: it needs a package that is not installed.
    """

    def __init__(self, space: Space, config: TrainConfig):
        self._space, self._config = space, config
        self._recipe = recipes.get(space.data_set) if config.recipe is None else config.recipe
        data = load(space.data_set)
        if not isinstance(data, DataSet):
            raise ConfigError(
                f"data set of a search must be of images with classes, got {space.data_set!r}"
            )
        self._data = data

    def identity(self) -> Mapping[str, Any]:
        """The data set and all settings of the training."""
        settings = asdict(self._config) | {"recipe": asdict(self._recipe)}
        return {"evaluator": "train", "data_set": self._space.data_set, **settings}

    def search_data(self) -> tuple[Split, Split]:
        """The training and the validation data, for searchers that train themselves."""
        return self._data.train, self._data.validation

    def evaluate(self, candidate: Candidate, seed: int) -> Evaluation:
        """Train on the training data for `epochs`, score on the validation data."""
        return self._fit_and_score(
            candidate, seed, self._data.train, self._data.validation, self._config.epochs
        )

    def test(self, candidate: Candidate, seed: int) -> Evaluation:
        """Train on training and validation data for `final_epochs`, score on the test data.

        For the result of a search only: nothing may be chosen by what comes out.
        """
        both = self._data.train + self._data.validation
        return self._fit_and_score(
            candidate, seed, both, self._data.test, self._config.final_epochs
        )

    def _fit_and_score(
        self, candidate: Candidate, seed: int, fit: Split, held_out: Split, epochs: int
    ) -> Evaluation:
        recipe = self._recipe.but(epochs=epochs)
        offset = recipe.number_format == "q-hat"
        with one_thread():
            net = build(self._space, candidate, torch.Generator().manual_seed(seed), offset)
            task = Classification(fit, recipe, torch.device("cpu"))
            training = Training(net, task, recipe, seed)
            training.run()
            found = classification_score(net, held_out)
        n_images = training.plan.n_steps * recipe.batch_size
        return Evaluation(found["accuracy"], found, n_images)


@contextmanager
def one_thread() -> Iterator[None]:
    """Torch on one thread inside: small nets are faster, and sums always have the same order."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)
