# SPDX-License-Identifier: Apache-2.0
"""Small changes of a candidate: its neighbours, and random moves that respect a limit."""

from __future__ import annotations

import numpy as np

from npusim.errors import ConfigError
from spaces.base import Candidate, Space
from spaces.costs import costs
from spaces.limits import Limit

NEAR = 0.7
"""Probability that a mutation moves to the next option up or down, rather than to any other."""
MOVES_MAX = 100
"""Moves that are tried before a feasible candidate is drawn afresh."""


def single_changes(space: Space, choices: tuple[int, ...], fixed: int | None = None) -> np.ndarray:
    """Option indices of all candidates that differ in one decision, i64 [n, n_decisions].

    Args:
        choices: the candidate's option indices.
        fixed: position of a decision that must not change.
    """
    rows = []
    for position, n in enumerate(space.n_options):
        if position == fixed:
            continue
        for option in range(n):
            if option != choices[position]:
                rows.append((*choices[:position], option, *choices[position + 1 :]))
    return np.array(rows, dtype=np.int64).reshape(len(rows), len(choices))


def mutate(
    space: Space, candidate: Candidate, rng: np.random.Generator, limit: Limit | None = None
) -> Candidate:
    """One random move, and with a limit a second one where the first would break it.

    A decision is drawn uniformly among those with several options; with probability `NEAR` it moves
    to an adjacent option, else to any other one. If that breaks the limit, a second decision is
    changed so that the cost comes as close below the limit as one change can bring it. Without such
    a change another move is tried, and after `MOVES_MAX` a candidate is drawn from the whole
    feasible set. So a mutation near the limit can trade one decision against another.

    Returns:
        Another candidate, within `limit`; the same one only if it is alone within the limit.

    Raises:
        ConfigError: the space has a single candidate, or `candidate` is of another space.
        InfeasibleError: nothing is within `limit`.
    """
    space.require(candidate)
    free = np.flatnonzero(space.n_options > 1)
    if free.size == 0:
        raise ConfigError(f"space {space.name!r} must have two candidates to mutate, got one")
    for _ in range(MOVES_MAX):
        position = int(rng.choice(free))
        moved = _move(space, candidate, position, rng)
        if limit is None or limit.allows(space, moved):
            return moved
        compensated = _compensate(space, moved, position, limit)
        if compensated is not None:
            return compensated
    assert limit is not None  # without one, the first move is taken
    return space.sample_feasible(rng, limit)


def _move(space: Space, candidate: Candidate, position: int, rng: np.random.Generator) -> Candidate:
    choices = list(candidate.choices)
    choices[position] = _other_option(choices[position], int(space.n_options[position]), rng)
    return Candidate(candidate.space_hash, tuple(choices))


def _other_option(current: int, n: int, rng: np.random.Generator) -> int:
    if rng.random() < NEAR:
        adjacent = [option for option in (current - 1, current + 1) if 0 <= option < n]
        return int(rng.choice(adjacent))
    other = int(rng.integers(n - 1))
    return other + (other >= current)


def _compensate(space: Space, moved: Candidate, fixed: int, limit: Limit) -> Candidate | None:
    """The costliest candidate within the limit that is one more change away, if there is one."""
    changed = single_changes(space, moved.choices, fixed)
    cost = costs(space, changed, limit.measure)
    cost[cost > limit.most] = -1
    if cost.size == 0 or cost.max() < 0:
        return None
    return Candidate(moved.space_hash, tuple(changed[int(cost.argmax())].tolist()))
