# SPDX-License-Identifier: Apache-2.0
"""The kernels of `spaces` in plain Python: slow, obvious, the definition of correct."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise


def sum_tables(
    choices: Sequence[Sequence[int]],
    n_options: Sequence[int],
    first: Sequence[int],
    positions: Sequence[int],
    strides: Sequence[int],
    starts: Sequence[int],
    values: Sequence[int],
    totals: list[int],
) -> int:
    """Twin of `spaces.costs_kernels.sum_tables`."""
    for i, row in enumerate(choices):
        if any(not 0 <= choice < n for choice, n in zip(row, n_options, strict=True)):
            return i
        totals[i] = 0
        for t, start in enumerate(starts):
            axes = range(first[t], first[t + 1])
            totals[i] += values[start + sum(row[positions[a]] * strides[a] for a in axes)]
    return -1


def sum_changes(
    choices: Sequence[int],
    n_options: Sequence[int],
    first: Sequence[int],
    positions: Sequence[int],
    strides: Sequence[int],
    starts: Sequence[int],
    values: Sequence[int],
    totals: list[list[int]],
) -> None:
    """Twin of `spaces.costs_kernels.sum_changes`."""
    for j, row in enumerate(totals):
        for option in range(len(row)):
            changed = [*choices[:j], option, *choices[j + 1 :]]
            total, tables = [0], (first, positions, strides, starts, values)
            outside = sum_tables([changed], n_options, *tables, total) == 0
            row[option] = -1 if outside else total[0]


def count_back(
    first: Sequence[int],
    moves: Sequence[Sequence[int]],
    weights: Sequence[float],
    ahead: Sequence[Sequence[float]],
    ways: list[list[float]],
) -> None:
    """Twin of `spaces.feasible_kernels.count_back`."""
    for state, row in enumerate(ways):
        for budget in range(len(row)):
            for move in range(first[state], first[state + 1]):
                after, shift = moves[move][:2]
                if shift <= budget:
                    row[budget] += weights[move] * ahead[after][budget - shift]


def best_back(
    first: Sequence[int],
    moves: Sequence[Sequence[int]],
    gains: Sequence[float],
    ahead: Sequence[Sequence[float]],
    best: list[list[float]],
) -> None:
    """Twin of `spaces.feasible_kernels.best_back`."""
    for state, row in enumerate(best):
        for budget in range(len(row)):
            ways = [(move, *moves[move][:2]) for move in range(first[state], first[state + 1])]
            row[budget] = max(
                (
                    gains[m] + ahead[after][budget - shift]
                    for m, after, shift in ways
                    if shift <= budget
                ),
                default=-float("inf"),
            )


def count_forward(
    first: Sequence[int],
    moves: Sequence[Sequence[int]],
    weights: Sequence[float],
    ahead: Sequence[Sequence[float]],
    reach: Sequence[Sequence[float]],
    reached: list[list[float]],
    masses: list[float],
) -> None:
    """Twin of `spaces.feasible_kernels.count_forward`."""
    for state, row in enumerate(reach):
        for move in range(first[state], first[state + 1]):
            after, shift = moves[move][:2]
            masses[move] = 0.0
            for left, reaching in enumerate(row[shift:]):
                reached[after][left] += weights[move] * reaching
                masses[move] += weights[move] * reaching * ahead[after][left]


def walk(
    uniforms: Sequence[Sequence[Sequence[float]]],
    layout: Sequence[Sequence[int]],
    first: Sequence[int],
    moves: Sequence[Sequence[int]],
    upto: Sequence[float],
    ways: Sequence[float],
    n_bins: int,
    rows: list[list[int]],
) -> None:
    """Twin of `spaces.feasible_kernels.walk`."""
    for i, draws in enumerate(uniforms):
        state, budget = 0, n_bins - 1
        for step, (at, ahead) in enumerate(layout):
            parts = {}
            for move in range(first[at + state], first[at + state + 1]):
                after, shift, _ = moves[move]
                if shift <= budget:
                    weight = upto[moves[move + 1][2] - 1]
                    parts[move] = weight * ways[ahead + after * n_bins + budget - shift]
            chosen = _picked(
                {move: part for move, part in parts.items() if part > 0}, draws[step][0]
            )
            row, after_last = moves[chosen][2], moves[chosen + 1][2]
            sums = [0.0, *upto[row:after_last]]
            weights = {row + j: b - a for j, (a, b) in enumerate(pairwise(sums))}
            rows[i][step] = _picked(weights, draws[step][1])
            state, budget = moves[chosen][0], budget - moves[chosen][1]


def _picked(weights: dict[int, float], uniform: float) -> int:
    """The first key at which the sum of the weights is above its share of their total."""
    aim, reached = uniform * sum(weights.values()), 0.0
    for key, weight in weights.items():
        reached += weight
        if reached > aim:
            return key
    return key
