# SPDX-License-Identifier: Apache-2.0
"""A space as a sequence of steps, each of which fixes a few decisions: what can be gone through.

What a space costs, and which choices count as one, is a sum and a product of tables of few
decisions each. Going through them in the order of the layers, only the decisions that a later table
depends on too have to be remembered: in a chain of layers one width, in a residual block that and
the width inside. All that the past says about the future is the *state*, the options of those; so
whatever can be added up over candidates can be added up state by state.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from spaces.base import Candidate, Space
from spaces.costs import layer_tables
from spaces.tables import Table, check_joint, combine, constant, union


@dataclass(frozen=True, slots=True, eq=False)
class Step:
    """All ways to go on from the states before some layers to those after them, a row each.

    Attributes:
        decisions: positions of the decisions that it fixes.
        options: their option indices, i64 [n_rows, n_fixed].
        before, after: number of the state before and after, i64 [n_rows]; `before` rises.
        n_before, n_after: numbers of states.
        costs: i64 [n_rows].
        scored: the decisions that are scored here: position, option index, whether it has an
            effect, the latter two [n_rows].
    """

    decisions: tuple[int, ...]
    options: np.ndarray
    before: np.ndarray
    after: np.ndarray
    n_before: int
    n_after: int
    costs: np.ndarray
    scored: tuple[tuple[int, np.ndarray, np.ndarray], ...]


@dataclass(frozen=True, slots=True, eq=False)
class Programme:
    """A space and a measure to go through.

    Attributes:
        space: what it goes through.
        base: cost that all candidates have.
        steps: from one state, the first, to one state.
        free: positions of decisions that neither cost anything nor depend on others.
        least: least cost from each state to the end, after each number of steps.
    """

    space: Space
    base: int
    steps: tuple[Step, ...]
    free: tuple[int, ...]
    least: tuple[np.ndarray, ...]

    @property
    def smallest(self) -> int:
        """The least cost that a candidate can have."""
        return self.base + int(self.least[0][0])

    def candidate(self, rows: Sequence[int]) -> Candidate:
        """The candidate that these rows of the steps lead to, with the first free options."""
        choices = np.zeros(len(self.space.decisions), dtype=np.int64)
        for step, row in zip(self.steps, rows, strict=True):
            choices[list(step.decisions)] = step.options[row]
        return self.space.candidate(choices.tolist())


@dataclass(slots=True, eq=False)
class _Factor:
    """A part of the sum and the product: costs, and whether the options count as one candidate."""

    costs: Table
    counts: Table

    @property
    def scope(self) -> tuple[int, ...]:
        return union(self.costs.scope, self.counts.scope)


@lru_cache(maxsize=8)
def programme(space: Space, measure: str | None) -> Programme:
    """The programme of a space; without a measure nothing costs anything.

    Raises:
        UnknownNameError: no such measure.
        TooEntangledError: the layers remember too many decisions.
    """
    factors = _factors(space, measure)
    base = sum(int(factor.costs.values) for factor in factors if not factor.scope)
    factors = [factor for factor in factors if factor.scope]
    homes = _homes(space, factors)
    steps: list[Step] = []
    live: tuple[int, ...] = ()
    states = np.zeros((1, 0), dtype=np.int64)  # option indices of the live decisions, by state
    for i, factor in enumerate(factors):
        later = union(*(other.scope for other in factors[i + 1 :]))
        scored = [position for position, home in homes.items() if home == i]
        step, live, states = _step(space, factor, live, states, later, scored)
        steps.append(step)
    steps = _without_dead_ends(steps)
    free = tuple(p for p in range(len(space.decisions)) if p not in homes)
    return Programme(space, base, tuple(steps), free, _least(steps))


def _factors(space: Space, measure: str | None) -> list[_Factor]:
    """Costs of layers and conditions of decisions, in the order of layers; parts of others merged.

    A decision without effect must take its first option: that is the condition of one candidate.
    """
    order = {layer.name: i for i, layer in enumerate(space.layers)}
    found: list[tuple[int, _Factor]] = []
    if measure is not None:
        for layer, table in layer_tables(space, measure):
            found.append((order[layer.name], _Factor(table, constant(True))))
    for position, condition in space.conditions.items():
        name = space.decisions[position].name
        at = min(order[each.name] for each in space.layers if name in each.decisions.values())
        first = Table((position,), np.arange(space.n_options[position]) == 0)
        found.append((at, _Factor(constant(0), combine(np.logical_or, condition, first))))
    found.sort(key=lambda pair: pair[0])
    return _merged([factor for _, factor in found])


def _merged(factors: list[_Factor]) -> list[_Factor]:
    """Factors of which none has a scope within that of another."""
    kept: list[_Factor] = []
    by_size = sorted(range(len(factors)), key=lambda i: -len(factors[i].scope))
    into: dict[int, int] = {}
    for rank, i in enumerate(by_size):
        scope = set(factors[i].scope)
        larger = [j for j in by_size[:rank] if j not in into and scope <= set(factors[j].scope)]
        if larger:
            into[i] = min(larger, key=lambda j: abs(i - j))
    for i, factor in enumerate(factors):
        parts = [factors[j] for j, home in into.items() if home == i]
        if i in into:
            continue
        for part in parts:
            factor.costs = combine(np.add, factor.costs, part.costs)
            factor.counts = combine(np.logical_and, factor.counts, part.counts)
        kept.append(factor)
    return kept


def _homes(space: Space, factors: list[_Factor]) -> dict[int, int]:
    """The first step that knows a decision and whether it has an effect, by its position."""
    homes: dict[int, int] = {}
    for i, factor in enumerate(factors):
        for position in factor.scope:
            condition = space.conditions.get(position)
            if condition is None or set(condition.scope) <= set(factor.scope):
                homes.setdefault(position, i)
    return homes


def _step(
    space: Space,
    factor: _Factor,
    live: tuple[int, ...],
    states: np.ndarray,
    later: tuple[int, ...],
    scored: list[int],
) -> tuple[Step, tuple[int, ...], np.ndarray]:
    """One step, the decisions that live on after it, and the states of those that it reaches."""
    new = tuple(position for position in factor.scope if position not in live)
    shape = tuple(int(space.n_options[position]) for position in new)
    check_joint((len(states), *shape))
    options = np.indices(shape).reshape(len(shape), math.prod(shape)).T  # [n, len(new)]
    before = np.repeat(np.arange(len(states)), len(options))
    options = np.tile(options, (len(states), 1))

    column = {position: states[before, i] for i, position in enumerate(live)}
    column |= {position: options[:, i] for i, position in enumerate(new)}
    rows = np.broadcast_to(factor.counts.at(column.__getitem__), before.shape)
    costs = np.broadcast_to(factor.costs.at(column.__getitem__), before.shape)[rows]
    before, options = before[rows], options[rows]
    column = {position: values[rows] for position, values in column.items()}

    kept = tuple(position for position in (*live, *new) if position in later)
    reached = np.stack([before * 0, *(column[position] for position in kept)], axis=1)
    after_states, after = np.unique(reached, axis=0, return_inverse=True)
    always = np.ones(len(before), dtype=bool)
    scores = []
    for position in scored:
        condition = space.conditions.get(position)
        effect = always if condition is None else condition.at(column.__getitem__)
        scores.append((position, column[position], np.broadcast_to(effect, before.shape)))
    step = Step(
        decisions=new,
        options=options,
        before=before,
        after=after.reshape(-1),
        n_before=len(states),
        n_after=len(after_states),
        costs=np.ascontiguousarray(costs, dtype=np.int64),
        scored=tuple(scores),
    )
    return step, kept, after_states[:, 1:]


def _without_dead_ends(steps: Sequence[Step]) -> list[Step]:
    """The steps without rows, and states, from which the end cannot be reached."""
    found: list[Step] = []
    alive = np.ones(1, dtype=bool)  # states after the step
    for step in reversed(steps):
        rows = alive[step.after]
        before_alive = np.zeros(step.n_before, dtype=bool)
        before_alive[step.before[rows]] = True
        found.append(
            Step(
                decisions=step.decisions,
                options=step.options[rows],
                before=(np.cumsum(before_alive) - 1)[step.before[rows]],
                after=(np.cumsum(alive) - 1)[step.after[rows]],
                n_before=int(before_alive.sum()),
                n_after=int(alive.sum()),
                costs=step.costs[rows],
                scored=tuple((p, chosen[rows], effect[rows]) for p, chosen, effect in step.scored),
            )
        )
        alive = before_alive
    return found[::-1]


def _least(steps: Sequence[Step]) -> tuple[np.ndarray, ...]:
    """Least cost from each state to the end, before each step and after the last."""
    least = [np.zeros(1, dtype=np.int64)]
    for step in reversed(steps):
        totals = step.costs + least[0][step.after]
        starts = np.searchsorted(step.before, np.arange(step.n_before))
        least.insert(0, np.minimum.reduceat(totals, starts))
    return tuple(least)


def cost_range(space: Space, measure: str) -> tuple[int, int]:
    """The least and the most that candidates cost.

    Raises:
        TooEntangledError: the layers remember too many decisions.
    """
    found = programme(space, measure)
    most = np.zeros(1, dtype=np.int64)
    for step in reversed(found.steps):
        starts = np.searchsorted(step.before, np.arange(step.n_before))
        most = np.maximum.reduceat(step.costs + most[step.after], starts)
    return found.smallest, found.base + int(most[0])


def smallest(space: Space, measure: str) -> Candidate:
    """A candidate of the least cost there is.

    Raises:
        TooEntangledError: the layers remember too many decisions.
    """
    found = programme(space, measure)
    rows = []
    state = 0
    for step, least in zip(found.steps, found.least[1:], strict=True):
        ways = np.arange(*np.searchsorted(step.before, (state, state + 1)))
        row = int(ways[np.argmin(step.costs[ways] + least[step.after[ways]])])
        rows.append(row)
        state = int(step.after[row])
    return found.candidate(rows)
