# SPDX-License-Identifier: Apache-2.0
"""Sums of table entries over many candidates, compiled; the twin is in `spaces.reference`."""

from __future__ import annotations

from typing import Any

from npusim._jit import kernel


@kernel
def sum_tables(
    choices: Any,
    n_options: Any,
    first: Any,
    positions: Any,
    strides: Any,
    starts: Any,
    values: Any,
    totals: Any,
) -> Any:
    """Add up one entry of each table for each candidate.

    choices i64 [n, n_decisions]; n_options i64 [n_decisions]; axes of table t are
    first[t]..first[t + 1] - 1 in positions and strides, i64; its entries begin at starts[t] in
    values, i64; totals i64 [n], written. Returns the first candidate with a choice out of range,
    or -1.
    """
    for i in range(choices.shape[0]):
        for j in range(choices.shape[1]):
            if choices[i, j] < 0 or choices[i, j] >= n_options[j]:
                return i
        total = 0
        for t in range(starts.size):
            at = starts[t]
            for axis in range(first[t], first[t + 1]):
                at += choices[i, positions[axis]] * strides[axis]
            total += values[at]
        totals[i] = total
    return -1


@kernel
def sum_changes(
    choices: Any,
    n_options: Any,
    first: Any,
    positions: Any,
    strides: Any,
    starts: Any,
    values: Any,
    totals: Any,
) -> None:
    """Add up one entry of each table for each candidate that differs in one decision.

    choices i64 [n_decisions], in range; tables as `sum_tables` has them; totals i64 [n_decisions,
    n_options_max], written: the sum if the decision had the option, -1 where it has no such.
    """
    total = 0
    for t in range(starts.size):
        at = starts[t]
        for axis in range(first[t], first[t + 1]):
            at += choices[positions[axis]] * strides[axis]
        total += values[at]
    for j in range(totals.shape[0]):
        for option in range(totals.shape[1]):
            totals[j, option] = total if option < n_options[j] else -1
    for t in range(starts.size):
        at = starts[t]
        for axis in range(first[t], first[t + 1]):
            at += choices[positions[axis]] * strides[axis]
        for axis in range(first[t], first[t + 1]):
            j = positions[axis]
            for option in range(n_options[j]):
                changed = at + (option - choices[j]) * strides[axis]
                totals[j, option] += values[changed] - values[at]
