# SPDX-License-Identifier: Apache-2.0
"""Evaluators without training, for tests of everything around them."""

from __future__ import annotations

import math
import os
import signal
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np

from searchers.base import Evaluation
from spaces.base import Candidate, Space


class Planted:
    """A known landscape: each decision has a best option; a little noise from the seed."""

    def __init__(self, space: Space, noise: float = 0.01):
        self.space, self.noise = space, noise
        self.n_evaluated = 0

    def identity(self) -> Mapping[str, Any]:
        return {"evaluator": "planted", "noise": self.noise}

    def evaluate(self, candidate: Candidate, seed: int) -> Evaluation:
        self.n_evaluated += 1
        score = self.noiseless(candidate) + self.noise * np.random.default_rng(seed).normal()
        return Evaluation(score, {"accuracy": score}, n_images=100)

    def test(self, candidate: Candidate, seed: int) -> Evaluation:
        accuracy = self.noiseless(candidate)
        return Evaluation(accuracy, {"accuracy": accuracy})

    def noiseless(self, candidate: Candidate) -> float:
        best = np.random.default_rng(0).random(len(candidate.choices))
        return 1 - float(np.abs(self.space.encode(candidate) - best).mean())


class Failing(Planted):
    """Now and then gives no finite score, or breaks a constraint that only it can check."""

    def evaluate(self, candidate: Candidate, seed: int) -> Evaluation:
        found = super().evaluate(candidate, seed)
        if self.n_evaluated % 4 == 1:
            return Evaluation(math.nan, {"accuracy": math.nan, "epochs": 1.0})
        score = found.score + 1
        return Evaluation(score, {"accuracy": score}, violation=float(self.n_evaluated % 4 == 2))


class Sharp(Planted):
    """As if candidates made images: scores are PSNR in dB, around 30."""

    def evaluate(self, candidate: Candidate, seed: int) -> Evaluation:
        psnr = 30 + super().evaluate(candidate, seed).score
        return Evaluation(psnr, {"psnr": psnr, "ssim": 0.9})

    def test(self, candidate: Candidate, seed: int) -> Evaluation:
        psnr = 29 + self.noiseless(candidate)
        return Evaluation(psnr, {"psnr": psnr, "ssim": 0.9})


class Hopeless(Planted):
    """Never gives a finite score."""

    def evaluate(self, candidate: Candidate, seed: int) -> Evaluation:
        return Evaluation(math.inf)


class Interrupted(Planted):
    """Raises KeyboardInterrupt, as Ctrl-C does, in the evaluation number `at` from 0."""

    def __init__(self, space: Space, at: int):
        super().__init__(space)
        self.at = at

    def evaluate(self, candidate: Candidate, seed: int) -> Evaluation:
        if self.n_evaluated == self.at:
            raise KeyboardInterrupt
        return super().evaluate(candidate, seed)


class Killed(Planted):
    """Kills its process like ``kill -9``, once: in an evaluation after `marker` was made."""

    def __init__(self, space: Space, marker: Path):
        super().__init__(space)
        self.marker = marker

    def evaluate(self, candidate: Candidate, seed: int) -> Evaluation:
        if self.n_evaluated == 3:
            with suppress(FileNotFoundError):  # another worker was first
                self.marker.unlink()
                os.kill(os.getpid(), signal.SIGKILL)
        return super().evaluate(candidate, seed)
