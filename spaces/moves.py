# SPDX-License-Identifier: Apache-2.0
"""Small changes of a candidate: its neighbours, and random moves that respect a limit."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

import numpy as np

from npusim.errors import ConfigError
from spaces.base import Candidate, Space
from spaces.costs import change_costs
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
    for position in effective(space, choices):
        if position == fixed:
            continue
        for option in range(space.n_options[position]):
            if option != choices[position]:
                rows.append((*choices[:position], option, *choices[position + 1 :]))
    return space.canonical(np.array(rows, dtype=np.int64).reshape(len(rows), len(choices)))


def effective(space: Space, choices: Sequence[int]) -> tuple[int, ...]:
    """Positions of the decisions that have an effect in a candidate, rising."""
    if not space.conditions:
        return tuple(range(len(choices)))
    row = np.array([choices], dtype=np.int64)
    without = {
        position
        for position, condition in space.conditions.items()
        if not condition.at(lambda other: row[:, other]).all()
    }
    return tuple(position for position in range(len(choices)) if position not in without)


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
    free = _free(space, candidate.choices)
    if not free:
        raise ConfigError(f"space {space.name!r} must have two candidates to mutate, got one")
    for _ in range(MOVES_MAX):
        which, near, option = rng.random(3).tolist()
        position = free[int(which * len(free))]
        moved = list(candidate.choices)
        moved[position] = _other_option(space, position, moved[position], near, option)
        if space.conditions:
            moved = _with_drawn(space, candidate, moved, rng)
        if limit is None:
            return Candidate(candidate.space_hash, tuple(moved))
        found = _within(space, moved, position, limit)
        if found is not None:
            return Candidate(candidate.space_hash, tuple(found))
    assert limit is not None  # without one, the first move is taken
    return space.sample_feasible(rng, limit)


def _free(space: Space, choices: tuple[int, ...]) -> tuple[int, ...]:
    """Positions of the decisions with an effect and several options."""
    if not space.conditions:
        return _several(space)
    return tuple(p for p in effective(space, choices) if space.n_options[p] > 1)


@lru_cache(maxsize=8)
def _several(space: Space) -> tuple[int, ...]:
    return tuple(np.flatnonzero(space.n_options > 1).tolist())


def _other_option(space: Space, position: int, current: int, near: float, option: float) -> int:
    """Another option than the current one, by two uniform numbers of 0..1."""
    decision = space.decisions[position]
    n = len(decision.options)
    if decision.ordered and near < NEAR:
        adjacent = [other for other in (current - 1, current + 1) if 0 <= other < n]
        return adjacent[int(option * len(adjacent))]
    other = int(option * (n - 1))
    return other + (other >= current)


def _with_drawn(
    space: Space, candidate: Candidate, moved: list[int], rng: np.random.Generator
) -> list[int]:
    """Choices with those that a move brings drawn uniformly."""
    before = {*effective(space, candidate.choices)}
    for other in effective(space, moved):
        if other not in before:
            moved[other] = int(rng.integers(space.n_options[other]))
    return list(space.candidate(moved).choices)


def _within(space: Space, moved: list[int], fixed: int, limit: Limit) -> list[int] | None:
    """Choices as they are, or, beyond the limit, with one more change, or none if none helps.

    That change is the one to the costliest candidate within the limit.
    """
    costs = change_costs(space, moved, limit.measure)
    if costs[fixed, moved[fixed]] <= limit.most:
        return moved
    costs[costs > limit.most] = -1
    costs[fixed] = -1
    costliest = int(costs.argmax())
    position, option = divmod(costliest, costs.shape[1])
    if costs[position, option] < 0:
        return None
    moved[position] = option
    return list(space.candidate(moved).choices) if space.conditions else moved


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
