# SPDX-License-Identifier: Apache-2.0
"""Evaluators by name, without importing what they need before they are asked for."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from npusim.errors import ConfigError, MissingExtraError, UnknownNameError
from searchers.base import Evaluation
from searchers.training.recipes import Recipe
from spaces.base import Candidate, Space
from spaces.limits import Limit

if TYPE_CHECKING:
    from searchers.data import TrainingData
    from searchers.study import HeldOutEvaluator
    from searchers.training.evaluator import TrainEvaluator

TRAINING = ("short", "full", "none", "supernet", "zero-cost", "surrogate")
"""Names that `make` knows of evaluators that train, be it the result of a search alone; what
follows a colon is their argument."""
INSTANT = ("cost", "nas_bench_201", "nas_bench_macro", "planted", "recorded")
"""Those of evaluators that never train anything."""


@dataclass(frozen=True, slots=True)
class Traits:
    """What an evaluator says of itself by attributes of these names; all may be missing.

    Attributes:
        is_tabular: scores are looked up in a table of trainings of long ago.
        is_instant: quicker than a disk, so that trials are not stored one by one.
        counts_images: evaluations say how many images were trained on.
    """

    is_tabular: bool = False
    is_instant: bool = False
    counts_images: bool = True

    @classmethod
    def of(cls, evaluator: object) -> Traits:
        """The traits of an evaluator."""
        said = {each.name: getattr(evaluator, each.name, each.default) for each in fields(cls)}
        return cls(**said)


@dataclass(frozen=True, slots=True)
class TrainConfig:
    """How a candidate is trained in a search.

    Args:
        epochs: passes over the training data in a trial.
        final_epochs: passes over training and validation data before the final test.
        recipe: all else; None for the recipe of the data set.

    Raises:
        ConfigError: there is less than one epoch.
    """

    epochs: int = 8
    final_epochs: int = 20
    recipe: Recipe | None = None

    def __post_init__(self) -> None:
        for what in ("epochs", "final_epochs"):
            if getattr(self, what) < 1:
                raise ConfigError(f"{what} must be at least 1, got {getattr(self, what)}")


@dataclass(frozen=True, slots=True)
class RunPlace:
    """What an evaluator that trains before it scores has to know of its run.

    Attributes:
        limit: that all candidates are within.
        directory: where it may keep what it trained.
        seed: of the run.
    """

    limit: Limit
    directory: Path
    seed: int


class ResultTrained:
    """What evaluators share that score without training: data, and how a result is tested.

    Args:
        trained: trains the result of a search for its test.
    """

    def __init__(self, trained: TrainEvaluator):
        self.trained = trained

    def search_data(self) -> tuple[TrainingData, TrainingData]:
        """The training and the validation data, for searchers that train themselves."""
        return self.trained.search_data()

    def test(self, candidate: Candidate, seed: int) -> Evaluation | None:
        """The accuracy on the test data after training, as of `TrainEvaluator`."""
        return self.trained.test(candidate, seed)


class Unscored(ResultTrained):
    """Neither scores nor tests: for what strategies that train themselves find first.

    Args:
        trained: has the data, and says how it would be trained.
    """

    def identity(self) -> Mapping[str, Any]:
        """Its name, and the data set."""
        return {"evaluator": "none", "data_set": self.trained.identity()["data_set"]}

    def evaluate(self, candidate: Candidate, seed: int) -> Evaluation:
        """0 for all, so that the first candidate is the result."""
        return Evaluation(0.0)

    def test(self, candidate: Candidate, seed: int) -> None:
        """Nothing."""


def training(
    space: Space, config: TrainConfig, data_set: str | None = None, directory: Path | None = None
) -> TrainEvaluator:
    """The evaluator that trains the space's candidates on a data set.

    Args:
        space: of the candidates.
        config: how they are trained.
        data_set: name; None for the space's own.
        directory: of data sets; None for NPUSIM_DATA.

    Raises:
        MissingExtraError: torch or what the data set needs is not installed.
        UnknownNameError: the data set is not known.
        ConfigError: it is not one for the space's networks, or is not there.
    """
    try:
        import torch  # noqa: F401
    except ImportError as error:
        raise MissingExtraError("training", "search", error) from error
    from searchers.training.evaluator import TrainEvaluator

    return TrainEvaluator(space, config, data_set, directory)


def make(
    name: str,
    space: Space,
    config: TrainConfig,
    data_set: str | None = None,
    directory: Path | None = None,
    run: RunPlace | None = None,
) -> HeldOutEvaluator:
    """The evaluator of a name such as ``zero-cost:synflow``.

    Args:
        name: "short", training for ``config.epochs``; "full", for ``config.final_epochs``; "none",
            see `Unscored`; "supernet" or "supernet:EPOCHS", weights that all candidates share,
            trained once, see `searchers.one_shot.scores`; "zero-cost" or "zero-cost:PROXY", see
            `searchers.zero_cost`; "surrogate:RUN", a regression on the trials of that run
            directory, see `searchers.surrogate_evaluator`; or "package.module:function" of one's
            own, see `searchers.own_evaluator`. Without any training: "nas_bench_201:DATA_SET",
            "nas_bench_macro" or "nas_bench_macro:FILE", "planted:SEED:NOISE" or less of it, "cost"
            or "cost:MEASURE", see `searchers.tabular`; "recorded", "recorded:EPOCHS" or
            "recorded:EPOCHS:mean", see `searchers.recorded`.
        space: what the candidates are of.
        config: how candidates are trained, and always the result of the search.
        data_set, directory: see `training`; evaluators without training have their own.
        run: where "supernet" keeps its weights.

    Raises:
        UnknownNameError: no such evaluator or proxy.
        ConfigError: an argument is missing, or there must be none.
        NpusimError: see the evaluators.
    """
    kind, colon, argument = name.partition(":")
    if kind in INSTANT:
        return _instant()[kind](space, argument)
    if kind in ("short", "full", "none"):
        if colon:
            raise ConfigError(f"evaluator {kind!r} must have no argument, got {name!r}")
        if kind == "none":
            return Unscored(training(space, config, data_set, directory))
        if kind == "full":
            config = TrainConfig(config.final_epochs, config.final_epochs, config.recipe)
        return training(space, config, data_set, directory)
    if kind == "supernet":
        if not re.fullmatch(r"(:[1-9]\d{0,5})?", colon + argument, re.ASCII):
            raise ConfigError(
                f"evaluator 'supernet' must be supernet or supernet:EPOCHS, got {name!r}"
            )
        if run is None:
            raise ConfigError(
                "evaluator 'supernet' must score one run of npusim search, since its weights are "
                f"trained for that run's limit and seed, got {name!r} for several"
            )
        trained = training(space, config, data_set, directory)
        from searchers.one_shot.scores import SupernetEvaluator

        epochs = int(argument) if argument else None
        return SupernetEvaluator(space, run.limit, run.directory, run.seed, trained, epochs)
    if kind == "zero-cost":
        trained = training(space, config, data_set, directory)
        from searchers.zero_cost import ZeroCostEvaluator

        return ZeroCostEvaluator(space, argument or "nwot", trained=trained)
    if kind == "surrogate":
        if not argument:
            raise ConfigError(
                f"evaluator 'surrogate' must be surrogate:RUN_DIRECTORY, got {name!r}"
            )
        from searchers.surrogate_evaluator import SurrogateEvaluator

        return SurrogateEvaluator(
            space, Path(argument), training(space, config, data_set, directory)
        )
    if colon:
        from searchers.own_evaluator import OwnEvaluator

        return OwnEvaluator(space, name, training(space, config, data_set, directory))
    raise UnknownNameError("evaluator", name, (*TRAINING, *INSTANT, "package.module:function"))


def _instant() -> dict[str, Callable[[Space, str], HeldOutEvaluator]]:
    from searchers import recorded, tabular

    return {
        "cost": tabular.named_cost,
        "nas_bench_201": tabular.named_201,
        "nas_bench_macro": tabular.named_macro,
        "planted": tabular.named_planted,
        "recorded": recorded.named,
    }
