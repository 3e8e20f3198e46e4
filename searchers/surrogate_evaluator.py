# SPDX-License-Identifier: Apache-2.0
"""Scores predicted from the finished trials of an earlier run, by ridge regression."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from npusim.errors import ConfigError, MissingExtraError
from searchers.base import Evaluation, Trial
from searchers.encoding import one_hot
from searchers.evaluators import ResultTrained
from searchers.stored import read_run
from spaces.base import Candidate, Space

if TYPE_CHECKING:
    from searchers.training.evaluator import TrainEvaluator

TRIALS_LEAST, N_FOLDS = 10, 5
PENALTIES = tuple(np.logspace(-2, 3, 11))
"""Weights of the squared coefficients, of which leaving one trial out chooses."""


class SurrogateEvaluator(ResultTrained):
    """Scores a candidate by ridge regression on the options of the trials of a finished run.

    How far that can be trusted is measured: each fifth of the trials is predicted from the others,
    and what is kept of every trial, and printed, is how well these predictions rank them.

    Args:
        space: what the candidates are of; the run's too.
        directory: of the run.
        trained: trains the result of a search for its test.

    Attributes:
        rank_correlation: Spearman's, of predictions in `N_FOLDS`-fold cross-validation; -1..1.
        mean_error: mean absolute error of these, in units of the score.
        n_trials: that it was fitted on.

    Raises:
        ConfigError: the run is of another space, or has too few valid trials.
        FormatError: the directory has no run.
        MissingExtraError: scikit-learn is not installed.
    """

    def __init__(self, space: Space, directory: Path, trained: TrainEvaluator):
        super().__init__(trained)
        try:
            from sklearn.linear_model import RidgeCV
            from sklearn.model_selection import KFold, cross_val_predict
        except ImportError as error:
            raise MissingExtraError("the surrogate evaluator", "search", error) from error
        self._space, self._directory = space, directory
        trials = _trials(space, directory)
        self.n_trials = len(trials)
        rows = one_hot(space, np.array([trial.candidate.choices for trial in trials]))
        scores = np.array([trial.score for trial in trials])
        self._model = RidgeCV(PENALTIES).fit(rows, scores)
        folds = KFold(N_FOLDS, shuffle=True, random_state=0)
        predicted = cross_val_predict(RidgeCV(PENALTIES), rows, scores, cv=folds)
        self.rank_correlation = _spearman(predicted, scores)
        self.mean_error = float(np.abs(predicted - scores).mean())
        content = rows.astype(np.uint8).tobytes() + scores.tobytes()
        self._fitted_on = hashlib.sha256(content).hexdigest()[:16]

    def identity(self) -> Mapping[str, Any]:
        """The trials it was fitted on, and how results are trained."""
        fitted_on = {"n_trials": self.n_trials, "fitted_on": self._fitted_on}
        return {"evaluator": "surrogate", **fitted_on, "trained": dict(self.trained.identity())}

    def summary(self) -> str:
        """How well it ranks."""
        return (
            f"surrogate fitted on {self.n_trials} trials of {self._directory}: rank correlation "
            f"{self.rank_correlation:.2f}, mean error {self.mean_error:.2g} in {N_FOLDS}-fold "
            "cross-validation"
        )

    def evaluate(self, candidate: Candidate, seed: int) -> Evaluation:
        """The predicted score."""
        row = one_hot(self._space, np.array([candidate.choices]))
        figures = {"rank_correlation": self.rank_correlation, "mean_error": self.mean_error}
        return Evaluation(float(self._model.predict(row)[0]), figures)


def _trials(space: Space, directory: Path) -> list[Trial]:
    run = read_run(directory)
    if run.space.content_hash != space.content_hash:
        raise ConfigError(
            f"trials of a surrogate must be of space {space.name!r}, got {run.space.name!r} "
            f"of {directory}"
        )
    valid = [trial for trial in run.trials if trial.valid]
    if len(valid) < TRIALS_LEAST:
        raise ConfigError(
            f"valid trials of a surrogate must be at least {TRIALS_LEAST}, got {len(valid)} "
            f"of {directory}"
        )
    return valid


def _spearman(predicted: np.ndarray, scores: np.ndarray) -> float:
    """Rank correlation; 0 where either has but one value."""
    if np.ptp(predicted) == 0 or np.ptp(scores) == 0:
        return 0.0
    from scipy.stats import spearmanr

    return float(spearmanr(predicted, scores).statistic)
