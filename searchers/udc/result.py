# SPDX-License-Identifier: Apache-2.0
"""From probabilities to a candidate that is within all limits, for certain.

The most likely candidate, gamma, is what the paper deploys; nothing guarantees that it fits. If it
does, it is taken. If not, the candidate of highest probability within the limit is, exactly, by the
space's dynamic programme. What is left of the limit is then filled up by the changes that cost the
least probability. Costs are the integers of what is really built.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from npusim.errors import ConfigError, InfeasibleError
from spaces.base import Candidate, Space
from spaces.costs import cost, costs
from spaces.decode import best
from spaces.feasible import require_feasible
from spaces.limits import Limit
from spaces.moves import single_changes
from spaces.npu_limits import AnyLimit, limit_costs

LOWEST = -60.0
"""Log odds below which options are all alike."""
CHANGES_MAX = 300
"""Changes, those that cost the least probability, that are tried in pairs, or to meet limits."""
TRIED_MAX = 50
"""Candidates that further limits are asked about, one after the other."""


@dataclass(frozen=True, slots=True)
class Decoded:
    """What a search ends with.

    Attributes:
        candidate: within all limits.
        gamma: the most likely candidate, which may not be.
        gamma_ratio: its cost as a part of the first limit.
        ratio: the candidate's.
        how: "argmax", "decoded" where gamma is over a limit, with "+filled" where it was filled up,
            and "+scored" where another one was chosen by its score, see `chosen`.
        log_odds: natural log of the candidate's probability as a part of gamma's.
    """

    candidate: Candidate
    gamma: Candidate
    gamma_ratio: float
    ratio: float
    how: str
    log_odds: float


def decode(space: Space, limits: Sequence[AnyLimit], log_pi: np.ndarray, fill: float) -> Decoded:
    """The candidate that probabilities stand for, within `limits`.

    Args:
        space: what it is of.
        limits: costs are to be within all of them, and near the first one.
        log_pi: log probabilities, f64 [D, K]; columns beyond a decision's options do not matter.
        fill: part of the first limit below which the candidate is filled up, if changes can.

    Raises:
        InfeasibleError: no candidate is within a limit, or none was found within all of them.

    Source: [UDC] section 4: P2. The decoding is ours; the paper deploys gamma.
    """
    first = limits[0]
    if not isinstance(first, Limit):
        raise ConfigError(f"the first limit must be on what the space costs itself, got {first}")
    for limit in limits:
        if isinstance(limit, Limit):
            require_feasible(space, limit)
    scores = scores_of(space, log_pi)
    gamma = space.candidate([int(row.argmax()) for row in scores])
    found, how = gamma, "argmax"
    if not first.allows(space, gamma):
        found, how = best(space, first, scores).candidate, "decoded"
    if not all(limit.allows(space, found) for limit in limits):
        found, how = _repaired(space, limits, scores, found), "decoded"
    filled = _filled(space, limits, scores, found, fill)
    if filled != found:
        found, how = filled, f"{how}+filled"
    return _decoded(space, first, scores, gamma, found, how)


def chosen(
    space: Space, limit: Limit, log_pi: np.ndarray, decoded: Decoded, candidate: Candidate
) -> Decoded:
    """`decoded`, but with a candidate that was chosen in its place; ``how`` ends in "+scored".

    Args:
        space, log_pi: as of `decode`.
        limit: the first one.
        decoded: what `decode` gave.
        candidate: within all limits.
    """
    scores = scores_of(space, log_pi)
    return _decoded(space, limit, scores, decoded.gamma, candidate, f"{decoded.how}+scored")


def _decoded(
    space: Space,
    limit: Limit,
    scores: Sequence[np.ndarray],
    gamma: Candidate,
    found: Candidate,
    how: str,
) -> Decoded:
    rows = np.array([gamma.choices, found.choices])
    odds = float(np.diff(_score(space, scores, rows))[0])
    gamma_ratio, ratio = (cost(space, each, limit.measure) / limit.most for each in (gamma, found))
    return Decoded(found, gamma, gamma_ratio, ratio, how, odds)


def scores_of(space: Space, log_pi: np.ndarray) -> list[np.ndarray]:
    """Log odds of the options against the likeliest, f64 [n_options] of each decision, 0 or less.

    Args:
        space: whose decisions they are of.
        log_pi: as of `decode`.
    """
    return [
        np.maximum(row[:n] - row[:n].max(), LOWEST)
        for row, n in zip(log_pi, space.n_options, strict=True)
    ]


def _score(space: Space, scores: Sequence[np.ndarray], rows: np.ndarray) -> np.ndarray:
    """Sum of the scores of the options of candidates, f64 [n]; decisions without effect: 0."""
    total = np.zeros(len(rows))
    for position, values in enumerate(scores):
        own = values[rows[:, position]]
        if position in space.conditions:
            own = own * space.conditions[position].at(lambda other: rows[:, other])
        total += own
    return total


def _excess(space: Space, limits: Sequence[AnyLimit], rows: np.ndarray) -> np.ndarray:
    """How far candidates are over all limits together, each as a part of it, f64 [n]."""
    total = np.zeros(len(rows))
    for limit in limits:
        total += np.maximum(limit_costs(space, rows, limit) / limit.most - 1, 0)
    return total


def _repaired(
    space: Space, limits: Sequence[AnyLimit], scores: Sequence[np.ndarray], start: Candidate
) -> Candidate:
    """A candidate within all limits, by changes that cost the least probability for what they save.

    Raises:
        InfeasibleError: no single change comes nearer.
    """
    found = start
    while (now := float(_excess(space, limits, np.array([found.choices]))[0])) > 0:
        rows = _likeliest(space, scores, single_changes(space, found.choices))
        saved = now - _excess(space, limits, rows)
        nearer = np.flatnonzero(saved > 0)
        if not len(nearer):
            over = next(limit for limit in limits if not limit.allows(space, found))
            least = int(limit_costs(space, np.array([found.choices]), over)[0])
            raise InfeasibleError(
                f"limits must be met together, got {least} {over.measure} over {over} where "
                f"{', '.join(str(limit) for limit in limits if limit is not over)} is met",
                least,
            )
        lost = _score(space, scores, np.array([found.choices])) - _score(space, scores, rows)
        rate = lost[nearer] / saved[nearer]
        found = space.candidate(rows[nearer[rate.argmin()]].tolist())
    return found


def _filled(
    space: Space,
    limits: Sequence[AnyLimit],
    scores: Sequence[np.ndarray],
    start: Candidate,
    fill: float,
) -> Candidate:
    """A candidate between `fill` and the whole of the first limit, as probable as can be found.

    One or two changes at a time.
    """
    measure, most = limits[0].measure, limits[0].most
    found = start
    while (now := cost(space, found, measure)) < fill * most:
        rows = _changes(space, found, scores)
        cost_of = costs(space, rows, measure)
        fits = (cost_of > now) & (cost_of <= most)
        rows, cost_of = rows[fits], cost_of[fits]
        lost = _score(space, scores, np.array([found.choices])) - _score(space, scores, rows)
        # what gets there for the least probability, else what costs the least for each bit
        short = cost_of < fill * most
        order = np.lexsort((lost / np.where(short, cost_of - now, 1), short))
        for row in rows[order[:TRIED_MAX]]:
            if _excess(space, limits[1:], row[None])[0] == 0:
                found = space.candidate(row.tolist())
                break
        else:
            break
    return found


def _changes(space: Space, found: Candidate, scores: Sequence[np.ndarray]) -> np.ndarray:
    """Candidates one change away, and those two away of the likeliest of them, each with each."""
    rows = single_changes(space, found.choices)
    likeliest = _likeliest(space, scores, rows)
    start = np.array(found.choices)
    first, second = np.triu_indices(len(likeliest), 1)
    changed = likeliest != start
    apart = ~(changed[first] & changed[second]).any(axis=1)
    first, second = likeliest[first[apart]], likeliest[second[apart]]
    return np.concatenate([rows, space.canonical(np.where(first != start, first, second))])


def _likeliest(space: Space, scores: Sequence[np.ndarray], rows: np.ndarray) -> np.ndarray:
    """The `CHANGES_MAX` candidates of highest probability."""
    return rows[np.argsort(-_score(space, scores, rows), kind="stable")[:CHANGES_MAX]]
