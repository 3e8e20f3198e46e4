# SPDX-License-Identifier: Apache-2.0
"""The loops over states and bins of the feasible set, compiled; twins in `spaces.reference`.

A *move* stands for the rows of a step that lead from one state to one other and shift the budget
by the same number of bins. Moves are sorted by the state they start from.
"""

from __future__ import annotations

from typing import Any

from npusim._jit import kernel


@kernel
def count_back(first: Any, moves: Any, weights: Any, ahead: Any, ways: Any) -> Any:
    """Ways to the end from the states before a step, from those after it.

    first i64 [n_before + 1]: moves of state s are first[s]..first[s + 1] - 1; moves i64 [n, 3]:
    state after, bins, a number not used here; weights f64 [n]; ahead f64 [n_after, n_bins]: ways
    within a budget of that many bins; ways f64 [n_before, n_bins], zeros, written.
    """
    n_bins = ahead.shape[1]
    for state in range(first.size - 1):
        for move in range(first[state], first[state + 1]):
            after, shift, weight = moves[move, 0], moves[move, 1], weights[move]
            for i in range(n_bins - shift):
                ways[state, shift + i] += weight * ahead[after, i]


@kernel
def best_back(first: Any, moves: Any, gains: Any, ahead: Any, best: Any) -> Any:
    """Best score to the end from the states before a step, as `count_back`.

    gains f64 [n]: score of the best row of each move; best f64 [n_before, n_bins], minus
    infinity, written.
    """
    n_bins = ahead.shape[1]
    for state in range(first.size - 1):
        for move in range(first[state], first[state + 1]):
            after, shift, gain = moves[move, 0], moves[move, 1], gains[move]
            for i in range(n_bins - shift):
                best[state, shift + i] = max(best[state, shift + i], gain + ahead[after, i])


@kernel
def walk(
    uniforms: Any, layout: Any, first: Any, moves: Any, upto: Any, ways: Any, n_bins: Any, rows: Any
) -> Any:
    """Draw ways to the end, each in proportion to its weight.

    uniforms f64 [n, n_steps, 2] in 0..1; layout i64 [n_steps, 2]: where each step's part of
    `first`, and the ways from the states after it in `ways`, begin; first i64, moves i64 [., 3]:
    of all steps, numbers of moves and rows counted through, moves with their first row and one
    more at the end; upto f64 [n_rows]: sum of the weights of a move's rows up to each; ways f64:
    of all steps; rows i64 [n, n_steps], written.
    """
    for i in range(uniforms.shape[0]):
        state, budget = 0, n_bins - 1
        for step in range(layout.shape[0]):
            at, ahead = layout[step, 0] + state, layout[step, 1]
            total = 0.0
            for move in range(first[at], first[at + 1]):
                left = budget - moves[move, 1]
                if left >= 0:
                    weight = upto[moves[move + 1, 2] - 1]
                    total += weight * ways[ahead + moves[move, 0] * n_bins + left]
            aim, reached, chosen = uniforms[i, step, 0] * total, 0.0, -1
            for move in range(first[at], first[at + 1]):
                left = budget - moves[move, 1]
                if left >= 0:
                    weight = upto[moves[move + 1, 2] - 1]
                    part = weight * ways[ahead + moves[move, 0] * n_bins + left]
                    if part > 0.0:
                        chosen = move
                        reached += part
                        if reached > aim:
                            break
            row, last = moves[chosen, 2], moves[chosen + 1, 2] - 1
            aim = uniforms[i, step, 1] * upto[last]
            while row < last and upto[row] <= aim:
                row += 1
            rows[i, step] = row
            state, budget = moves[chosen, 0], budget - moves[chosen, 1]


@kernel
def count_forward(
    first: Any, moves: Any, weights: Any, ahead: Any, reach: Any, reached: Any, masses: Any
) -> Any:
    """Weight of all ways that take each move of a step, and what reaches the states after it.

    first, moves, weights, ahead: as `count_back` has them; reach f64 [n_before, n_bins]: weight of
    the ways from the start to a state with that many bins left; reached f64 [n_after, n_bins],
    zeros, written, the same after the step; masses f64 [n], written.
    """
    n_bins = ahead.shape[1]
    for state in range(first.size - 1):
        for move in range(first[state], first[state + 1]):
            after, shift, weight = moves[move, 0], moves[move, 1], weights[move]
            mass = 0.0
            for i in range(n_bins - shift):
                part = weight * reach[state, shift + i]
                reached[after, i] += part
                mass += part * ahead[after, i]
            masses[move] = mass
