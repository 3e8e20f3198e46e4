# SPDX-License-Identifier: Apache-2.0
"""A user's own function as the evaluator of a search, by the name of its module and its own."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from npusim.errors import ConfigError
from searchers.base import Evaluation
from searchers.evaluators import ResultTrained
from searchers.training.evaluator import TrainEvaluator
from spaces.base import Candidate, Space

Score = Callable[[Space, Candidate, int], "float | Evaluation"]


class OwnEvaluator(ResultTrained):
    """Scores by ``function(space, candidate, seed)``, the higher the better.

    The function gives a number or an `Evaluation`, by its arguments alone: a resumed run does not
    know that it was changed. Several workers each import it.

    Args:
        space: what the candidates are of.
        name: ``package.module:function``; the working directory is searched too.
        trained: trains the result of a search for its test.

    Raises:
        ConfigError: there is no such module or function; or, when it is called, it gives something
            else.
    """

    def __init__(self, space: Space, name: str, trained: TrainEvaluator):
        super().__init__(trained)
        self._space, self._name, self._score = space, name, load(name)

    def identity(self) -> Mapping[str, Any]:
        """The function's name, and how results are trained."""
        return {"evaluator": self._name, "trained": dict(self.trained.identity())}

    def evaluate(self, candidate: Candidate, seed: int) -> Evaluation:
        """What the function gives."""
        found = self._score(self._space, candidate, seed)
        if isinstance(found, Evaluation):
            return found
        try:
            return Evaluation(float(found))
        except (TypeError, ValueError):
            raise ConfigError(
                f"evaluator {self._name!r} must give a number or an Evaluation, got {found!r}"
            ) from None


def load(name: str) -> Score:
    """The function named ``package.module:function``.

    Raises:
        ConfigError: there is none.

    >>> load("math:hypot")(3, 4)
    5.0
    """
    module, _, function = name.partition(":")
    here = str(Path.cwd())
    if here not in sys.path:  # as `python -m` has it
        sys.path.append(here)
    try:
        found: Any = importlib.import_module(module)
    except ModuleNotFoundError as error:
        if error.name is None or not f"{module}.".startswith(f"{error.name}."):
            raise  # the module is there, and needs another that is not
        raise ConfigError(f"evaluator {name!r} must name a module, got {error}") from None
    except (ImportError, ValueError) as error:
        raise ConfigError(f"evaluator {name!r} must name a module, got {error}") from None
    found = getattr(found, function, None)
    if not callable(found):
        raise ConfigError(
            f"evaluator {name!r} must name a function of {module!r}, got {function!r}: "
            f"{type(found).__name__}"
        )
    score: Score = found
    return score
