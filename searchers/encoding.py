# SPDX-License-Identifier: Apache-2.0
"""Candidates as points for regression: one number for ordered decisions, one bit an operator."""

from __future__ import annotations

import numpy as np

from spaces.base import Space


def one_hot(space: Space, choices: np.ndarray) -> np.ndarray:
    """A bit for each option of each decision, f64 [n, total of n_options].

    Args:
        space: what the candidates are of.
        choices: option indices, i64 [n, n_decisions].
    """
    starts = np.cumsum([0, *space.n_options[:-1]])
    found = np.zeros((len(choices), int(space.n_options.sum())))
    found[np.arange(len(choices))[:, None], choices + starts] = 1.0
    return found


def points(space: Space, choices: np.ndarray) -> np.ndarray:
    """Ordered decisions in 0..1, first option to last, others as `one_hot`; f64 [n, n_columns].

    Args:
        space: what the candidates are of.
        choices: option indices, i64 [n, n_decisions].
    """
    ordered = np.array([decision.ordered for decision in space.decisions], dtype=bool)
    scaled = choices[:, ordered] / np.maximum(space.n_options[ordered] - 1, 1)
    bits = one_hot(space, choices)[:, np.repeat(~ordered, space.n_options)]
    return np.concatenate([scaled, bits], axis=1)
