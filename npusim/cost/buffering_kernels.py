# SPDX-License-Identifier: Apache-2.0
"""Kernels of `npusim.cost.buffering`; twin: `npusim.cost.reference_buffering`.

facts f64 [N_FACTS] are what a choice depends on, named below; all hold whole numbers. perf i64
[N_PERF] is how an operation runs when its weights are cut and kept in a given way. Other arrays are
those of `npusim.cost.columns`.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from npusim._jit import leaf_kernel
from npusim.cost import columns as col
from npusim.cost.cycles_kernels import (
    copy_cycles,
    cut,
    element_access,
    min_read_cycles,
    op_cycles,
    put,
)

OFM_DEPTH, BLOCK_DEPTH = range(2)
"""Channels of the ofm, and of a block."""
WEIGHT_BYTES, FETCHES = range(2, 4)
"""Bytes of all weights and scales; how often the operation reads them."""
TRANSFER_CYCLES, STORED_CYCLES, BUFFER_CYCLES = range(4, 7)
"""To copy all of them; to fetch them as often as needed from where they are stored, or buffered."""
SLACK_CYCLES, SLACK_BYTES, LIMIT_BYTES = range(7, 10)
"""Cycles of the operation before that hide a transfer; room for a buffer under it; under this."""
CAN_SLICE, CAN_PRE_BUFFER, STARTS_NPU, N_SHARING, N_STRIPES = range(10, 15)
"""Whether slices are allowed, and transfers under the operation before; whether none of the NPU's
is before; neighbours that read the same weights, itself included; stripes of a cascade."""
RUN_CYCLES, READ_CYCLES, STAGED_IFM_CYCLES = range(15, 18)
"""With all weights in one piece where they are stored: of the operation; to read its weights; to
read its ifm if that is in the staging memory."""
CAN_STAGE_IFM = 18
"""Whether the ifm is computed by an operation that could leave it in the staging memory."""
N_FACTS = 19

RUN, FULL_RUN, VISIBLE, WEIGHT_READ, IFM_READ, STAGED_IFM_READ = range(6)
LAST_SLICE, IFM_READ_BYTES, IFM_BYTES = range(6, 9)
"""Cycles: of all slices; with the transfers that nothing hides; those alone; to read weights; to
read the ifm; that if it is in the staging memory; of the last slice. Bytes read of the ifm; its
size."""
N_PERF = 9
ROOM = 4, col.ROW_COLUMNS
"""Shape of what `performance` works in: making arrays would take longer than all else."""

UNBUFFERED, SLICED, WHOLE, SHARED = range(4)
"""Ways to buffer: not at all, in depth slices, all weights at once, all at once for neighbours."""

SPLIT_DEPTH = 16
"""Slices are multiples of this many channels."""
STARTUP_CYCLES = 1000
"""A delay that the compiler takes for noise."""
_USED_BLOCK_MIN = np.float32(0.3)


@leaf_kernel
def choose_way(facts: Any) -> Any:
    """The way that is worth trying: one of `UNBUFFERED`, `SLICED`, `WHOLE`, `SHARED`."""
    if facts[BUFFER_CYCLES] >= facts[STORED_CYCLES]:
        return UNBUFFERED
    hidden = max(facts[TRANSFER_CYCLES] - facts[SLACK_CYCLES], 0.0)
    buffered = facts[BUFFER_CYCLES] + hidden
    first = starts_network(facts)
    smallest = smallest_transfer(facts)
    way = UNBUFFERED
    if facts[CAN_SLICE]:
        slices = facts[OFM_DEPTH] // facts[BLOCK_DEPTH]
        early = facts[CAN_PRE_BUFFER] and smallest < facts[SLACK_CYCLES] and facts[FETCHES] > 1
        if first or buffered < facts[STORED_CYCLES] or slices > 2 or early:
            way = SLICED
    fits = facts[WEIGHT_BYTES] <= facts[LIMIT_BYTES]
    per_stripe = -(-hidden // facts[N_STRIPES])
    covered = hidden < facts[TRANSFER_CYCLES] // 20 or per_stripe < STARTUP_CYCLES
    shared = facts[N_SHARING] > 1
    worth = buffered < facts[STORED_CYCLES] or facts[RUN_CYCLES] <= facts[STORED_CYCLES]
    if fits and worth and (shared or (not facts[CAN_SLICE] and (covered or first))):
        way = SHARED if shared else WHOLE
    return way


@leaf_kernel
def smallest_transfer(facts: Any) -> Any:
    """Cycles to copy as few channels as a slice may have."""
    least = min(facts[OFM_DEPTH], float(SPLIT_DEPTH))
    return np.floor(facts[TRANSFER_CYCLES] * least / facts[OFM_DEPTH])


@leaf_kernel
def starts_network(facts: Any) -> Any:
    """Whether a transfer with nothing of the NPU's to hide it under looks worth its wait."""
    smallest = smallest_transfer(facts)
    short = smallest < facts[STORED_CYCLES] // 10 or smallest <= STARTUP_CYCLES
    return facts[STARTS_NPU] and facts[FETCHES] > 1 and short


@leaf_kernel
def first_slice_ratio(facts: Any) -> Any:
    """Part of the ofm's depth whose weights can be copied under the operation before."""
    depth = facts[OFM_DEPTH]
    least = min(SPLIT_DEPTH / depth, 1.0)
    most = min((facts[LIMIT_BYTES] // 2) / facts[WEIGHT_BYTES], 1.0)
    hidden = min(facts[SLACK_CYCLES] / facts[TRANSFER_CYCLES], 1.0)
    aligned = np.floor(hidden / least) * least
    ratio = 1.0 if 1.0 - aligned < least / 2 else hidden
    if facts[RUN_CYCLES] > facts[STORED_CYCLES] and 0.5 < ratio < 1.0:
        half = np.ceil(np.floor(depth * 0.5) / SPLIT_DEPTH) * SPLIT_DEPTH / depth
        ratio = min(max(half, 0.5), 1.0)
    return min(max(ratio, least), most)


@leaf_kernel
def first_slice_depth(facts: Any, ratio: Any) -> Any:
    """Channels of the slice that is copied first."""
    depth = np.floor(facts[OFM_DEPTH] * ratio)
    return max(depth // SPLIT_DEPTH * SPLIT_DEPTH, float(SPLIT_DEPTH))


@leaf_kernel
def next_slices_depth(facts: Any, first_cycles: Any) -> Any:
    """Channels of the further slices: as many as are copied while the first slice runs."""
    depth = np.floor(facts[OFM_DEPTH] * first_cycles / facts[TRANSFER_CYCLES])
    depth = max(depth, float(SPLIT_DEPTH))
    depth = np.ceil(depth / facts[BLOCK_DEPTH]) * facts[BLOCK_DEPTH]
    half = facts[LIMIT_BYTES] // 2
    if np.floor(depth / facts[OFM_DEPTH] * facts[WEIGHT_BYTES]) > half:
        depth = np.floor(half / facts[WEIGHT_BYTES] * facts[OFM_DEPTH])
    return depth


@leaf_kernel
def whole_blocks(facts: Any, depth: Any) -> Any:
    """Channels of the further slices in whole blocks, or if they are less than one in splits."""
    step = facts[BLOCK_DEPTH] if depth > facts[BLOCK_DEPTH] else float(SPLIT_DEPTH)
    return max(depth // step * step, float(SPLIT_DEPTH))


@leaf_kernel
def fills_blocks(facts: Any, depth: Any) -> Any:
    """Whether slices of this depth use enough of their blocks, or the weights are what counts."""
    blocks = np.ceil(depth / facts[BLOCK_DEPTH]) * facts[BLOCK_DEPTH]
    if facts[RUN_CYCLES] <= facts[STORED_CYCLES]:
        return True
    return np.float32(depth) / np.float32(blocks) >= _USED_BLOCK_MIN


@leaf_kernel
def performance(
    row: Any, block: Any, machine: Any, depths: Any, n_bytes: Any, how: Any, room: Any, perf: Any
) -> None:
    """Write how an operation runs in depth slices.

    machine (npu, rates, memories, places); depths i64 [n + 1] where slices begin and the last ends;
    n_bytes i64 [n] of each slice's weights and scales, all 0 for operations without weights; how
    (rows of a stripe, cycles that hide the first transfer, whether slices are copied to the buffer,
    whether each one is copied while the one before runs), all i64; room i64 `ROOM`.
    """
    npu, rates, memories, places = machine
    height, slack, staged, double = how
    at, part = room[0, : col.PLACE_COLUMNS], room[1]
    elements, cycles = room[2, : col.ACCESS_COLUMNS], room[3, : col.CYCLE_COLUMNS]
    put(places, at)
    if not staged:
        at[col.BUFFER_PLACE] = -1
    stored = places[col.CONSTANT_PLACE]
    source = places[col.BUFFER_PLACE] if staged else stored
    perf[:] = 0
    n_fetches, weight_bytes, last_depth = 0, 0, 0
    for i in range(n_bytes.size):
        depth = depths[i + 1] - depths[i]
        if depth != last_depth:  # else all is as for the slice before
            last_depth = depth
            cut(row, height, depth, part)
            element_access(part, block, npu, elements)
            op_cycles(part, block, npu, rates, memories, at, cycles)
        perf[IFM_READ_BYTES] += elements[col.IFM_READ] * row[col.IFM_BITS] // 8
        weight_bytes += n_bytes[i] * elements[col.WEIGHT_FETCHES]
        n_fetches += elements[col.WEIGHT_FETCHES]
        run = cycles[col.OP_CYCLES]
        if i > 0:
            run -= cycles[col.FILL_CYCLES]
        if i < n_bytes.size - 1:
            run -= cycles[col.DRAIN_CYCLES]
        if staged:
            transfer = copy_cycles(n_bytes[i], stored, source, memories)
            perf[VISIBLE] += max(transfer - slack, 0)
        perf[RUN] += run
        perf[LAST_SLICE] = run
        slack = run if double else 0
    area = part[col.IFM_HEIGHT] * part[col.IFM_WIDTH]
    perf[IFM_BYTES] = area * part[col.IFM_DEPTH] * row[col.IFM_BITS] // 8
    repeats = max(1.0, row[col.OFM_HEIGHT] / height)
    perf[RUN] = int(repeats * perf[RUN])
    perf[FULL_RUN] = perf[RUN] + perf[VISIBLE]
    perf[IFM_READ] = min_read_cycles(perf[IFM_READ_BYTES], places[col.IFM_PLACE], memories)
    perf[IFM_READ] = int(repeats * perf[IFM_READ])
    staging = places[col.BUFFER_PLACE]
    perf[STAGED_IFM_READ] = min_read_cycles(perf[IFM_READ_BYTES], staging, memories)
    if weight_bytes > 0:
        once = min_read_cycles(weight_bytes // n_fetches, source, memories)
        perf[WEIGHT_READ] = int(repeats * (once * n_fetches))


@leaf_kernel
def is_worth_it(facts: Any, perf: Any, n_slices: Any, buffer_bytes: Any) -> Any:
    """Whether the network runs no slower with a buffer of buffer_bytes i64 for n_slices i64."""
    ifm_cycles = float(perf[IFM_READ])
    if facts[CAN_STAGE_IFM]:
        fits = perf[IFM_BYTES] + buffer_bytes <= facts[LIMIT_BYTES]
        with_ifm = max(facts[RUN_CYCLES], facts[READ_CYCLES], facts[STAGED_IFM_CYCLES])
        with_weights = max(perf[FULL_RUN], perf[WEIGHT_READ], perf[IFM_READ])
        better = with_ifm < with_weights and with_ifm < perf[IFM_READ]
        if not fits and perf[IFM_BYTES] < facts[SLACK_BYTES] and better:
            return False
        if fits:
            ifm_cycles = float(perf[STAGED_IFM_READ])
    before = max(facts[RUN_CYCLES], facts[READ_CYCLES], ifm_cycles)
    after = float(max(perf[FULL_RUN], perf[WEIGHT_READ]))
    after = max(after, ifm_cycles)
    if facts[RUN_CYCLES] > facts[STORED_CYCLES]:
        bound_by_run = perf[FULL_RUN] == after
        if perf[VISIBLE] // n_slices < STARTUP_CYCLES:
            after -= perf[VISIBLE]
        if n_slices > 1 and bound_by_run and starts_network(facts):
            after -= n_slices * (STARTUP_CYCLES // 2)
    once = facts[FETCHES] == 1 and facts[TRANSFER_CYCLES] + perf[WEIGHT_READ] > before
    return before >= after and not once
