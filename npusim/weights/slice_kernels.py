# SPDX-License-Identifier: Apache-2.0
"""Kernels that choose slices: Arm's two parameter searches (plan arrays: section_kernels.py).

A *state* is a configuration in the order of `reference_encoders.WEIGHT_CONFIGS`: 0..5 wdiv, 6..11
the same with truncated unary, 12 raw; 13..15 fill the row to a whole vector and never win.

Both searches walk the weights in blocks. Within a block they assume that the best (or active)
state stays what it was and only keep, for each state, its cost relative to that one and the
minimum of that cost: a few vector steps a weight, no search (lanes.py). Where the minimum shows
that the assumption failed, the block is walked again state by state.

Source: [VELA] behaviour of mlw_encode and mle_encode; twins in reference_encoders.py.
"""

from __future__ import annotations

import numpy as np

from npusim._jit import kernel
from npusim.weights.lanes import (
    FAR,
    LANES,
    SWITCH,
    UNCODABLE,
    legacy_turns,
    legacy_walk,
    regor_walk,
)
from npusim.weights.plan_columns import (
    FIRST,
    HIGHEST,
    N_SLICES,
    N_WEIGHTS,
    RAW_BITS,
    ZERO_RUNS,
)

STATES = LANES
BLOCK = 64


@kernel
def cost_table(raw_bits, n_rows, uncodable, raw_refused, never, costs):
    # costs i16 or i32 [>= n_rows, 16] <- bits of each index in each state; twin: index_bits
    for index in range(n_rows):
        for k in range(6):
            quotient = index >> k
            costs[index, k] = quotient + 1 + k if quotient <= 31 else uncodable
            costs[index, 6 + k] = min(quotient + 1, 2) + k if quotient <= 2 else uncodable
        costs[index, 12] = raw_bits if raw_bits >= 0 else raw_refused
        for state in range(13, STATES):
            costs[index, state] = never


@kernel
def legacy_states(indices, costs, history, bests, cuts):
    # indices i16 [n], costs i16 [., 16]; scratch: history i16 [n_blocks, 2, 16], bests i32 [.]
    # cuts i32 [n, 2] <- (first weight, state) of the slices, last slice first -> their number
    # twin: cheapest_path
    n = indices.size
    n_blocks = (n + BLOCK - 1) // BLOCK
    extremes = np.empty((2, STATES), np.int16)
    relative = np.zeros(STATES, np.int16)
    turns = np.empty(BLOCK, np.int32)
    best = 0
    for block in range(n_blocks):
        first = block * BLOCK
        last = min(n, first + BLOCK)
        for state in range(STATES):
            history[block, 0, state] = relative[state]
        legacy_walk(indices, first, last, costs, relative, extremes, best)
        steady = True
        for state in range(STATES):
            history[block, 1, state] = extremes[1, state]
            steady &= extremes[0, state] >= (state < best)  # ties go to the lowest state
        bests[block] = best if steady else -1 - best
        if not steady:
            for state in range(STATES):
                relative[state] = history[block, 0, state]
            best = legacy_turns(indices, first, last, costs, relative, best, turns)
    state, n_cuts = best, 0
    for block in range(n_blocks - 1, -1, -1):
        if bests[block] >= 0 and history[block, 1, state] <= SWITCH:
            continue  # this state never switches here
        first = block * BLOCK
        last = min(n, first + BLOCK)
        for s in range(STATES):
            relative[s] = history[block, 0, s]
        best = bests[block] if bests[block] >= 0 else -1 - bests[block]
        legacy_turns(indices, first, last, costs, relative, best, turns)
        for i in range(last - 1, max(first, 1) - 1, -1):
            if turns[i - first] >> (4 + state) & 1:
                cuts[n_cuts, 0], cuts[n_cuts, 1] = i, state
                n_cuts += 1
                state = turns[i - first] & 15
    cuts[n_cuts, 0], cuts[n_cuts, 1] = 0, state
    return n_cuts + 1


@kernel
def legacy_run_states(runs, weight_cuts, n_weight_cuts, trace, cuts):
    # runs i32 [n], weight_cuts as legacy_states gives them; trace i16 [n]: scratch
    # cuts i32 [n, 2] <- (first run, zdiv), last first -> number; twin: cheapest_path
    n = runs.size
    total = np.zeros(4, np.int64)
    cut = n_weight_cuts - 2
    free = n - 2  # the run before the last weight of a weight slice switches for nothing
    if cut >= 0:
        free = weight_cuts[cut, 0] - 1
    best = 0
    for i in range(n):
        limit = total[best] + SWITCH
        if i == free:
            limit -= SWITCH
            cut -= 1
            free = weight_cuts[cut, 0] - 1 if cut >= 0 else n - 2
        mask, winner = 0, 0
        for state in range(4):
            if total[state] > limit:
                total[state] = limit
                mask |= 1 << state
            total[state] += (runs[i] >> state) + 1 + state
            if total[state] < total[winner]:
                winner = state
        trace[i] = mask | best << 4
        best = winner
    state, n_cuts = best, 0
    for i in range(n - 1, 0, -1):
        if trace[i] >> state & 1:
            cuts[n_cuts, 0], cuts[n_cuts, 1] = i, state
            n_cuts += 1
            state = trace[i] >> 4
    cuts[n_cuts, 0], cuts[n_cuts, 1] = 0, state
    return n_cuts + 1


@kernel
def add_slices(n, weight_cuts, n_weight_cuts, run_cuts, n_run_cuts, slices):
    # cuts last first; slices i32 [., 4] filled from its beginning -> number of slices
    n_slices, start = 0, 0
    w, z = n_weight_cuts - 1, n_run_cuts - 1
    while start < n:
        wdiv_at = weight_cuts[w, 1]
        zdiv = run_cuts[z, 1]
        end = min(n, start + 32767)
        if w > 0:
            end = min(end, weight_cuts[w - 1, 0])
        if z > 0:
            end = min(end, run_cuts[z - 1, 0])
        slices[n_slices, 0] = end - start
        slices[n_slices, 1] = 7 if wdiv_at == 12 else wdiv_at % 6
        slices[n_slices, 2] = 6 <= wdiv_at < 12
        slices[n_slices, 3] = zdiv
        n_slices += 1
        start = end
        if w > 0 and weight_cuts[w - 1, 0] == end:
            w -= 1
        if z > 0 and run_cuts[z - 1, 0] == end:
            z -= 1
    return n_slices


@kernel
def legacy_slices(sections, indices, runs, slices):
    # fills slices and the sections' N_SLICES -> number of slices; twin: legacy_slices
    n_all = indices.size
    n_blocks = (n_all + BLOCK - 1) // BLOCK + 1
    costs = np.empty((1024, STATES), np.int16)
    history = np.empty((n_blocks, 2, STATES), np.int16)
    bests = np.empty(n_blocks, np.int32)
    cuts = np.empty((n_all + 1, 2), np.int32)
    run_cuts = np.empty((n_all + 2, 2), np.int32)
    trace = np.empty(n_all + 1, np.int16)
    at = 0
    for number in range(sections.shape[0]):
        row = sections[number]
        w, n = row[FIRST], row[N_WEIGHTS]
        part = indices[w : w + n]
        cost_table(row[RAW_BITS], row[HIGHEST] + 1, FAR, 100, FAR, costs)
        n_cuts = legacy_states(part, costs, history, bests, cuts)
        run_cuts[0, 0], run_cuts[0, 1] = 0, 0
        n_run_cuts = 1
        if row[ZERO_RUNS]:
            z = w + number
            n_run_cuts = legacy_run_states(runs[z : z + n + 1], cuts, n_cuts, trace, run_cuts)
        row[N_SLICES] = add_slices(n, cuts, n_cuts, run_cuts, n_run_cuts, slices[at:])
        at += row[N_SLICES]
    return at


@kernel
def careful_regor_walk(indices, first, last, costs, relative, uncodable, active, cuts, n_cuts):
    # as regor_walk, with its switches and cuts made where they fall -> active state, cuts
    for i in range(first, last):
        row = costs[indices[i]]
        base = row[active]
        winner, low = -1, 1 << 30
        for state in range(STATES):
            if row[state] == UNCODABLE:
                relative[state] += UNCODABLE
                uncodable[state] = i
                continue
            if uncodable[state] == i - 1:
                relative[state] = 0
            relative[state] += row[state]
            if relative[state] < low:
                winner, low = state, relative[state]
        if i == 0:
            active = winner
            cuts[0, 0], cuts[0, 1] = 0, winner
            n_cuts = 1
        elif base == UNCODABLE or low + SWITCH < 0:
            cheaper = low < relative[active] and uncodable[winner] <= uncodable[active]
            if not cheaper:
                cuts[n_cuts, 0] = i
                n_cuts += 1
            cuts[n_cuts - 1, 1] = winner
            active = winner
        base = relative[active]
        for state in range(STATES):
            relative[state] -= base
    return active, n_cuts


@kernel
def regor_states(indices, costs, cuts):
    # indices i16 [n], costs i32 [., 16]; cuts i32 [n, 2] <- (first weight, state), first slice
    # first -> their number; twin: regor_path
    n = indices.size
    relative = np.zeros(STATES, np.int32)
    uncodable = np.empty(STATES, np.int32)
    for state in range(STATES):
        uncodable[state] = -2
    lowest = np.empty(STATES, np.int32)
    kept = np.empty((2, STATES), np.int32)
    zero = np.int64(0)  # not a literal: a kernel has one signature
    active, n_cuts = careful_regor_walk(
        indices, zero, min(n, 1), costs, relative, uncodable, zero, cuts, zero
    )
    for first in range(1, n, BLOCK):
        last = min(n, first + BLOCK)
        for state in range(STATES):
            kept[0, state], kept[1, state] = relative[state], uncodable[state]
        highest = regor_walk(indices, first, last, costs, relative, uncodable, lowest, active)
        steady = highest < UNCODABLE
        for state in range(STATES):
            steady &= lowest[state] + SWITCH >= 0
        if not steady:
            for state in range(STATES):
                relative[state], uncodable[state] = kept[0, state], kept[1, state]
            active, n_cuts = careful_regor_walk(
                indices, first, last, costs, relative, uncodable, active, cuts, n_cuts
            )
    if n_cuts > 1 and cuts[n_cuts - 2, 1] == cuts[n_cuts - 1, 1]:
        n_cuts -= 1
    return n_cuts


@kernel
def regor_zdiv(runs):  # runs i32 [n] -> zdiv that the greedy search ends with; twin: regor_path
    total = np.zeros(4, np.int64)
    active, before = -1, 0
    for i in range(runs.size):
        winner = 0
        for state in range(4):
            total[state] += (runs[i] >> state) + 1 + state
            if total[state] < total[winner]:
                winner = state
        if active < 0 or total[winner] + SWITCH < before:
            active = winner
        before = total[active]
    return active


@kernel
def regor_slices(sections, indices, runs, slices):
    # fills slices and the sections' N_SLICES -> number of slices; twin: regor_slices
    costs = np.empty((1024, STATES), np.int32)
    cuts = np.empty((indices.size + 1, 2), np.int32)
    run_cuts = np.zeros((1, 2), np.int32)
    one = np.int64(1)  # not a literal: a kernel has one signature
    at = 0
    for number in range(sections.shape[0]):
        row = sections[number]
        w, n = row[FIRST], row[N_WEIGHTS]
        part = indices[w : w + n]
        cost_table(row[RAW_BITS], row[HIGHEST] + 1, UNCODABLE, UNCODABLE, UNCODABLE, costs)
        n_cuts = regor_states(part, costs, cuts)
        for i in range(n_cuts // 2):  # last first, as add_slices takes them
            for column in range(2):
                other = cuts[n_cuts - 1 - i, column]
                cuts[n_cuts - 1 - i, column] = cuts[i, column]
                cuts[i, column] = other
        if row[ZERO_RUNS]:
            run_cuts[0, 1] = regor_zdiv(runs[w + number : w + number + n + 1])
        row[N_SLICES] = add_slices(n, cuts, n_cuts, run_cuts, one, slices[at:])
        at += row[N_SLICES]
    return at
