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
    """Option indices of all candidates that one changed decision leads to, i64 [n, n_decisions].

    Where the change brings layers that were not there, their decisions have their first option.

    Args:
        space: what the candidate is of.
        choices: the candidate's option indices.
        fixed: position of a decision that must not change.
    """
    rows = []
    for position in _effective(space, choices):
        if position == fixed:
            continue
        for option in range(space.n_options[position]):
            if option != choices[position]:
                rows.append((*choices[:position], option, *choices[position + 1 :]))
    return space.canonical(np.array(rows, dtype=np.int64).reshape(len(rows), len(choices)))


def _effective(space: Space, choices: tuple[int, ...]) -> list[int]:
    """Positions of the decisions that have an effect in a candidate."""
    row = np.array([choices], dtype=np.int64)
    without = {
        position
        for position, condition in space.conditions.items()
        if not condition.at(lambda other: row[:, other]).all()
    }
    return [position for position in range(len(choices)) if position not in without]


def mutate(
    space: Space, candidate: Candidate, rng: np.random.Generator, limit: Limit | None = None
) -> Candidate:
    """One random move, and with a limit a second one where the first would break it.

    A decision is drawn uniformly among those with an effect and several options; with probability
    `NEAR` it moves to an adjacent option, else, as operators always, to any other one. Decisions of
    layers that the move brings are drawn uniformly. If that breaks the limit, a second decision is
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
    effective = _effective(space, candidate.choices)
    free = [position for position in effective if space.n_options[position] > 1]
    if not free:
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
    n = int(space.n_options[position])
    near = space.decisions[position].ordered and rng.random() < NEAR
    choices[position] = _other_option(choices[position], n, near, rng)
    if space.conditions:
        before = {*_effective(space, candidate.choices)}
        for other in _effective(space, tuple(choices)):
            if other not in before:
                choices[other] = int(rng.integers(space.n_options[other]))
    return space.candidate(choices)


def _other_option(current: int, n: int, near: bool, rng: np.random.Generator) -> int:
    if near:
        adjacent = [option for option in (current - 1, current + 1) if 0 <= option < n]
        return int(rng.choice(adjacent))
    other = int(rng.integers(n - 1))
    return other + (other >= current)


def crossover(
    space: Space,
    first: Candidate,
    second: Candidate,
    rng: np.random.Generator,
    limit: Limit | None = None,
) -> Candidate:
    """A candidate that has each decision from one of two others, at random.

    Where that breaks the limit, decisions of the second are taken back one after another, in random
    order, until it does not. If the second adds nothing that fits, that is the first one itself.

    Raises:
        ConfigError: a candidate is of another space, or the first is beyond the limit.
    """
    space.require(first)
    space.require(second)
    if limit is not None and not limit.allows(space, first):
        raise ConfigError(f"first candidate of a crossover must be within {limit}, got one beyond")
    taken = rng.permutation(np.flatnonzero(rng.random(len(first.choices)) < 0.5)).tolist()
    choices = list(first.choices)
    for position in taken:
        choices[position] = second.choices[position]
    child = space.candidate(choices)
    while limit is not None and not limit.allows(space, child):
        position = taken.pop()
        choices[position] = first.choices[position]
        child = space.candidate(choices)
    return child


def _compensate(space: Space, moved: Candidate, fixed: int, limit: Limit) -> Candidate | None:
    """The costliest candidate within the limit that is one more change away, if there is one."""
    changed = single_changes(space, moved.choices, fixed)
    cost = costs(space, changed, limit.measure)
    cost[cost > limit.most] = -1
    if cost.size == 0 or cost.max() < 0:
        return None
    return Candidate(moved.space_hash, tuple(changed[int(cost.argmax())].tolist()))
