# SPDX-License-Identifier: Apache-2.0
"""Search strategies, and the loop that runs, stores and compares them.

>>> import searchers
>>> searchers.get("random").__name__
'RandomSearch'
"""

from __future__ import annotations

from collections.abc import Callable

from npusim import registry
from searchers.base import Budget as Budget
from searchers.base import Evaluation as Evaluation
from searchers.base import Evaluator as Evaluator
from searchers.base import History as History
from searchers.base import OneShotSearcher as OneShotSearcher
from searchers.base import SearchContext as SearchContext
from searchers.base import Searcher as Searcher
from searchers.base import Trial as Trial
from searchers.base import run as run


def names() -> list[str]:
    """Registered searchers, sorted."""
    return registry.names("npusim.searchers")


def get(name: str) -> Callable[..., Searcher]:
    """The searcher registered as `name`: call it with a space, a limit and a random generator.

    Options follow by name; see `searchers.options`.

    Raises:
        UnknownNameError: no such searcher.
    """
    found: Callable[..., Searcher]
    found = registry.get("npusim.searchers", name)
    return found
