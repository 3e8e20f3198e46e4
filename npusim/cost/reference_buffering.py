# SPDX-License-Identifier: Apache-2.0
"""The choice of weight buffers in plain Python: the same rules, one sentence of the rule at a time.

Facts and what comes of a run are dictionaries here, by the names of the kernels' columns.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise
from math import ceil, floor
from typing import Any

from numpy import float32

from npusim.cost import columns as c
from npusim.cost.reference_cycles import (
    copy_cycles,
    cut,
    element_access,
    min_read_cycles,
    op_cycles,
)

Facts = Mapping[str, float]
_SPLIT_DEPTH = 16
_STARTUP_CYCLES = 1000


def _hidden_part(facts: Facts) -> float:
    """Cycles of copying all weights that the operation before does not hide."""
    return max(facts["TRANSFER_CYCLES"] - facts["SLACK_CYCLES"], 0)


def _is_slow(facts: Facts) -> bool:
    """Whether the operation takes longer than reading its weights where they are stored."""
    return facts["RUN_CYCLES"] > facts["STORED_CYCLES"]


def smallest_transfer(facts: Facts) -> int:
    """Twin of the kernel."""
    n_channels = min(_SPLIT_DEPTH, facts["OFM_DEPTH"])
    return floor(facts["TRANSFER_CYCLES"] * n_channels / facts["OFM_DEPTH"])


def starts_network(facts: Facts) -> bool:
    """Twin of the kernel."""
    if not facts["STARTS_NPU"] or facts["FETCHES"] <= 1:
        return False
    smallest = smallest_transfer(facts)
    return smallest <= _STARTUP_CYCLES or smallest < facts["STORED_CYCLES"] // 10


def choose_way(facts: Facts) -> str:
    """Twin of the kernel: the name of the way."""
    if facts["BUFFER_CYCLES"] >= facts["STORED_CYCLES"]:
        return "UNBUFFERED"
    gains = facts["BUFFER_CYCLES"] + _hidden_part(facts) < facts["STORED_CYCLES"]
    fits = facts["WEIGHT_BYTES"] <= facts["LIMIT_BYTES"]
    if facts["N_SHARING"] > 1 and fits and (gains or not _is_slow(facts)):
        return "SHARED"
    if facts["CAN_SLICE"]:
        hides_some = facts["CAN_PRE_BUFFER"] and facts["FETCHES"] > 1
        hides_some = hides_some and smallest_transfer(facts) < facts["SLACK_CYCLES"]
        many = facts["OFM_DEPTH"] // facts["BLOCK_DEPTH"] > 2
        return "SLICED" if starts_network(facts) or gains or many or hides_some else "UNBUFFERED"
    hidden = _hidden_part(facts) < facts["TRANSFER_CYCLES"] // 20
    hidden = hidden or ceil(_hidden_part(facts) / facts["N_STRIPES"]) < _STARTUP_CYCLES
    worth = gains or not _is_slow(facts)
    return "WHOLE" if fits and worth and (hidden or starts_network(facts)) else "UNBUFFERED"


def first_slice_ratio(facts: Facts) -> float:
    """Twin of the kernel."""
    depth = facts["OFM_DEPTH"]
    least = min(_SPLIT_DEPTH / depth, 1.0)
    ratio = min(facts["SLACK_CYCLES"] / facts["TRANSFER_CYCLES"], 1.0)
    tail = 1.0 - floor(ratio / least) * least
    if tail < least / 2:
        ratio = 1.0
    if _is_slow(facts) and 0.5 < ratio < 1.0:
        ratio = ceil(floor(depth / 2) / _SPLIT_DEPTH) * _SPLIT_DEPTH / depth
        ratio = min(max(ratio, 0.5), 1.0)
    half_of_limit = facts["LIMIT_BYTES"] // 2
    return min(max(ratio, least), min(half_of_limit / facts["WEIGHT_BYTES"], 1.0))


def first_slice_depth(facts: Facts, ratio: float) -> int:
    """Twin of the kernel."""
    return max(floor(facts["OFM_DEPTH"] * ratio) // _SPLIT_DEPTH * _SPLIT_DEPTH, _SPLIT_DEPTH)


def next_slices_depth(facts: Facts, first_cycles: int) -> int:
    """Twin of the kernel."""
    depth, block = facts["OFM_DEPTH"], facts["BLOCK_DEPTH"]
    meanwhile = floor(depth * first_cycles / facts["TRANSFER_CYCLES"])
    step = ceil(max(meanwhile, _SPLIT_DEPTH) / block) * block
    half_of_limit = facts["LIMIT_BYTES"] // 2
    if floor(step / depth * facts["WEIGHT_BYTES"]) > half_of_limit:
        step = floor(half_of_limit / facts["WEIGHT_BYTES"] * depth)
    return int(step)


def whole_blocks(facts: Facts, depth: int) -> int:
    """Twin of the kernel."""
    block = int(facts["BLOCK_DEPTH"])
    unit = block if depth > block else _SPLIT_DEPTH
    return max(depth // unit * unit, _SPLIT_DEPTH)


def fills_blocks(facts: Facts, depth: int) -> bool:
    """Twin of the kernel."""
    n_blocks = ceil(depth / facts["BLOCK_DEPTH"])
    part = float32(depth) / float32(n_blocks * facts["BLOCK_DEPTH"])
    return not _is_slow(facts) or bool(part >= float32(0.3))


def performance(
    row: Sequence[int],
    block: Sequence[int],
    machine: Any,
    depths: Sequence[int],
    n_bytes: Sequence[int],
    stripe: int,
    slack: int,
    *,
    staged: bool,
    double: bool,
) -> dict[str, int]:
    """Twin of the kernel."""
    npu, rates, memories, places = machine
    at = list(places)
    if not staged:
        at[c.BUFFER_PLACE] = -1
    stored, staging = places[c.CONSTANT_PLACE], places[c.BUFFER_PLACE]
    parts = [cut(row, stripe, end - start) for start, end in pairwise(depths)]
    runs, hides, visible = [], slack, 0
    for i, (part, n) in enumerate(zip(parts, n_bytes, strict=True)):
        total, _, _, _, fill, drain = op_cycles(part, block, npu, rates, memories, at)
        is_first, is_last = i == 0, i == len(parts) - 1
        runs.append(total - (0 if is_first else fill) - (0 if is_last else drain))
        if staged:
            visible += max(copy_cycles(n, stored, staging, memories) - hides, 0)
        hides = runs[-1] if double else 0
    access = [element_access(part, block, npu) for part in parts]
    element_bits = int(row[c.IFM_BITS])
    ifm_bytes = sum(one[c.IFM_READ] * element_bits // 8 for one in access)
    fetches = [one[c.WEIGHT_FETCHES] for one in access]
    weight_bytes = sum(n * times for n, times in zip(n_bytes, fetches, strict=True))
    repeats = max(1.0, int(row[c.OFM_HEIGHT]) / stripe)
    run = int(repeats * sum(runs))
    source = staging if staged else stored
    weight_read = 0
    if weight_bytes:
        once = min_read_cycles(weight_bytes // sum(fetches), source, memories)
        weight_read = int(repeats * (once * sum(fetches)))
    last = parts[-1]
    area = int(last[c.IFM_HEIGHT]) * int(last[c.IFM_WIDTH])
    return {
        "RUN": run,
        "FULL_RUN": run + visible,
        "VISIBLE": visible,
        "WEIGHT_READ": weight_read,
        "IFM_READ": int(repeats * min_read_cycles(ifm_bytes, places[c.IFM_PLACE], memories)),
        "STAGED_IFM_READ": min_read_cycles(ifm_bytes, staging, memories),
        "LAST_SLICE": runs[-1],
        "IFM_READ_BYTES": ifm_bytes,
        "IFM_BYTES": area * int(last[c.IFM_DEPTH]) * element_bits // 8,
    }


def is_worth_it(facts: Facts, perf: Mapping[str, int], n_slices: int, buffer_bytes: int) -> bool:
    """Twin of the kernel."""
    unbuffered = max(facts["RUN_CYCLES"], facts["READ_CYCLES"])
    buffered = max(perf["FULL_RUN"], perf["WEIGHT_READ"])
    ifm = perf["IFM_READ"]
    if facts["CAN_STAGE_IFM"]:
        if perf["IFM_BYTES"] + buffer_bytes <= facts["LIMIT_BYTES"]:
            ifm = perf["STAGED_IFM_READ"]
        else:
            ifm_instead = max(unbuffered, facts["STAGED_IFM_CYCLES"])
            has_room = perf["IFM_BYTES"] < facts["SLACK_BYTES"]
            if has_room and ifm_instead < min(max(buffered, ifm), ifm):
                return False
    before, after = max(unbuffered, ifm), max(buffered, ifm)
    gain = 0
    if _is_slow(facts):
        if perf["VISIBLE"] // n_slices < _STARTUP_CYCLES:
            gain += perf["VISIBLE"]
        if n_slices > 1 and perf["FULL_RUN"] == after and starts_network(facts):
            gain += n_slices * _STARTUP_CYCLES // 2
    if facts["FETCHES"] == 1 and facts["TRANSFER_CYCLES"] + perf["WEIGHT_READ"] > before:
        return False
    return after - gain <= before
