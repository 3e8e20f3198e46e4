# SPDX-License-Identifier: Apache-2.0
"""Compiled loops against their twins in plain Python."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from spaces import costs_kernels, feasible_kernels, reference

often = settings(deadline=None, derandomize=True, max_examples=60)
seeds = st.integers(0, 2**32 - 1)


@given(seed=seeds, n=st.integers(0, 5), n_decisions=st.integers(0, 4), bad=st.booleans())
@often
def test_sum_tables(seed, n, n_decisions, bad):
    rng = np.random.default_rng(seed)
    n_options = rng.integers(1, 4, n_decisions)
    choices = rng.integers(0, n_options + bad, size=(n, n_decisions))
    scopes = [np.flatnonzero(rng.random(n_decisions) < 0.5) for _ in range(rng.integers(0, 4))]
    strides = [np.cumprod([1, *n_options[scope][:0:-1]])[::-1][: len(scope)] for scope in scopes]
    sizes = [int(np.prod(n_options[scope])) for scope in scopes]
    tables = (
        np.cumsum([0, *map(len, scopes)]),
        np.concatenate([np.zeros(0, np.int64), *scopes]),
        np.concatenate([np.zeros(0, np.int64), *strides]),
        np.cumsum([0, *sizes])[:-1],
        rng.integers(0, 10**12, sum(sizes)),
    )
    for row in choices if not bad else ():
        changed = np.full((n_decisions, 3), -7)
        costs_kernels.sum_changes(row, n_options, *tables, changed)
        expected_rows = changed.tolist()
        arguments = (row.tolist(), n_options.tolist(), *(each.tolist() for each in tables))
        reference.sum_changes(*arguments, expected_rows)
        assert changed.tolist() == expected_rows
    totals = np.full(n, -7)
    status = costs_kernels.sum_tables(choices, n_options, *tables, totals)
    expected = [-7] * n
    found = reference.sum_tables(
        choices.tolist(), n_options.tolist(), *(each.tolist() for each in tables), expected
    )
    assert status == found
    assert totals.tolist() == expected


def steps(rng: np.random.Generator, n_states: int, n_after: int, n_bins: int):
    """Random moves of a step: `first`, `moves` with rows counted through, number of rows."""
    n_moves = rng.integers(1, 4, n_states)
    first = np.cumsum([0, *n_moves])
    sizes = rng.integers(1, 4, first[-1])
    moves = np.stack(
        [
            rng.integers(0, n_after, first[-1]),
            rng.integers(0, n_bins + 2, first[-1]),
            np.cumsum([0, *sizes])[:-1],
        ],
        axis=1,
    )
    moves[first[:-1], 1] = 0  # from each state a way that costs nothing
    return first, moves, sizes


@given(seed=seeds, n_before=st.integers(1, 3), n_after=st.integers(1, 3), n_bins=st.integers(1, 5))
@often
def test_tables_of_ways_and_scores(seed, n_before, n_after, n_bins):
    rng = np.random.default_rng(seed)
    first, moves, _ = steps(rng, n_before, n_after, n_bins)
    weights = rng.integers(1, 5, len(moves)).astype(float)
    ahead = rng.integers(0, 9, (n_after, n_bins)).astype(float)
    for name, start in (("count_back", 0.0), ("best_back", -np.inf)):
        filled = np.full((n_before, n_bins), start)
        getattr(feasible_kernels, name)(first, moves, weights, ahead, filled)
        expected = [[start] * n_bins for _ in range(n_before)]
        getattr(reference, name)(
            first.tolist(), moves.tolist(), weights.tolist(), ahead.tolist(), expected
        )
        assert filled.tolist() == expected  # integers in floats: exact
    reach = rng.integers(0, 9, (n_before, n_bins)).astype(float)
    reached, masses = np.zeros((n_after, n_bins)), np.full(len(moves), -7.0)
    arrays = (first, moves, weights, ahead, reach)
    feasible_kernels.count_forward(*arrays, reached, masses)
    expected, expected_masses = np.zeros((n_after, n_bins)).tolist(), [-7.0] * len(moves)
    reference.count_forward(*(each.tolist() for each in arrays), expected, expected_masses)
    assert reached.tolist() == expected
    assert masses.tolist() == expected_masses


@given(seed=seeds, n=st.integers(0, 6), n_steps=st.integers(0, 3), n_bins=st.integers(1, 5))
@often
def test_walks(seed, n, n_steps, n_bins):
    rng = np.random.default_rng(seed)
    n_states = [1, *rng.integers(1, 4, max(n_steps - 1, 0)), 1][: n_steps + 1]
    ways = [np.ones((1, n_bins))]
    parts = []
    for before, after in reversed(list(pairwise(n_states))):
        first, moves, sizes = steps(rng, before, after, n_bins)
        table = np.zeros((before, n_bins))
        upto = np.concatenate([np.cumsum(rng.integers(1, 4, size)) for size in sizes]).astype(float)
        totals = upto[np.cumsum(sizes) - 1]
        feasible_kernels.count_back(first, moves, totals, ways[0], table)
        ways.insert(0, table)
        parts.insert(0, (first, moves, upto))
    n_firsts = np.cumsum([0, *(len(first) for first, _, _ in parts)])
    n_moves = np.cumsum([0, *(len(moves) for _, moves, _ in parts)])
    n_rows = np.cumsum([0, *(len(upto) for _, _, upto in parts)])
    ahead = np.cumsum([table.size for table in ways])
    moves = [p[1] + [0, 0, rows] for p, rows in zip(parts, n_rows, strict=False)]
    arrays = (
        np.stack([n_firsts[:-1], ahead[: len(parts)]], axis=1),
        np.concatenate(
            [np.zeros(0, np.int64), *(p[0] + m for p, m in zip(parts, n_moves, strict=False))]
        ),
        np.concatenate([*moves, np.array([[0, 0, n_rows[-1]]])]),
        np.concatenate([np.zeros(0), *(p[2] for p in parts)]),
        np.concatenate([table.ravel() for table in ways]),
    )
    uniforms = rng.random((n, len(parts), 2))
    rows = np.zeros((n, len(parts)), dtype=np.int64)
    feasible_kernels.walk(uniforms, *arrays, n_bins, rows)
    expected = [[0] * len(parts) for _ in range(n)]
    reference.walk(uniforms.tolist(), *(each.tolist() for each in arrays), n_bins, expected)
    assert rows.tolist() == expected


SURFACES = """
import numpy as np, json
from npusim import _jit
from spaces import feasible, decode, costs
from spaces.digits import digits
from spaces.limits import Limit

space = digits(widths=(0.3, 1.0), bitwidths=(1, 4), sparsities=(0.2, 1.0))
every = feasible.enumerate_all(space)
for dtype in (np.int64, np.int32, np.int8):
    rows = every.astype(dtype)
    for view in (rows, rows[::2], np.asfortranarray(rows), rows[:0]):
        view.flags.writeable = False
        costs.costs(space, view, "size_bits")
        for row in view[:2]:
            costs.change_costs(space, row, "size_bits")
            costs.change_costs(space, tuple(row.tolist()), "size_bits")
for bins_max in (1 << 16, 20):
    feasible.BINS_MAX = bins_max
    for weights in (None, [np.zeros(2)] * 11):
        found = feasible.FeasibleSet(space, Limit.size("1KB"), weights)
        found.sample(np.random.default_rng(0)), found.sample_many(np.random.default_rng(0), 9)
        found.log10_bounds()
        found.marginals()
    decode.best(space, Limit.size("1KB"), [[0, 1]] * 11)
ours = [k for k in _jit.KERNELS if k.__module__.startswith("spaces.")]
print(json.dumps({k.__name__: len(k.signatures) for k in ours}))
"""


@pytest.mark.skipif(os.environ.get("NUMBA_DISABLE_JIT") == "1", reason="NUMBA_DISABLE_JIT is set")
def test_any_input_of_the_surfaces_gives_each_kernel_the_same_types():
    done = subprocess.run([sys.executable, "-c", SURFACES], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == dict.fromkeys(
        ("sum_tables", "sum_changes", "count_back", "count_forward", "best_back", "walk"), 1
    )
