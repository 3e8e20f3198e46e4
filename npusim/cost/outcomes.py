# SPDX-License-Identifier: Apache-2.0
"""What else may come of weights whose bytes are not known but expected.

Nothing of the NPU runs before the first operation with weights, if it is the first of all, to hide
the transfer of its weights. A few bytes then decide whether these have a buffer, and how the
operations after it get theirs: cycles that are 15 % apart for the same network, in Arm's compiler
too when weights are drawn again. Where streams that are `DEVIATION` smaller and larger than
expected fall on either side, the mean of both is what is expected. Further on in a network both
sides cost about the same.
"""

from __future__ import annotations

from typing import Final

import numpy as np

from npusim.cost import columns as col
from npusim.cost.buffering import plan_weights
from npusim.cost.forms import Form, Weights
from npusim.cost.rows import Int64Array
from npusim.weights.expected import stream_law

OUTCOMES: Final = (-1.0, 1.0)
"""Deviations of the bytes of the first operation's weights from those expected."""


def entry_room(n_memories: int) -> tuple[tuple[object, ...], Int64Array]:
    """Room for `entries_kernels.resize_entry`, and for what it writes."""
    from npusim.cost.entries_kernels import ENTRY_COLUMNS, ROWS

    traffic = np.empty((n_memories, col.TRAFFIC_COLUMNS), np.int64)
    room = np.empty(ROWS, np.int64), np.zeros(2, np.int64), traffic
    return (room, np.empty(2, np.int64)), np.empty(ENTRY_COLUMNS, np.int64)


def other_forms(weights: Weights, whole: Form, form: Form) -> list[Form]:
    """Forms of a program with the likely outcomes of its first plan, none if all are alike.

    Args:
        weights: of the program; whose bytes are expected ones.
        whole: its form with all weights where they are stored.
        form: the same with the plans of weights of the expected bytes.
    """
    from npusim.cost.plans_kernels import is_buffered_alike

    index = _exposed_op(weights.ops)
    if index is None:
        return []
    others = [_with_first(weights, whole, form, index, one) for one in OUTCOMES]
    plans = form.plans[index]
    if all(is_buffered_alike(plans, other.plans[index]) for other in others):
        return []
    after = index + 1, len(form.plans) - 1
    for other in others if after[0] <= after[1] else ():
        found = plan_weights(weights, whole, span=after, before=other.plans[index])
        other.plans[after[0] :] = found
    return others


def _exposed_op(ops: Int64Array) -> int | None:
    """The first operation that waits for weights or a table, if it has weights and the NPU does
    nothing before it; ops as of `npusim.cost.entries_kernels`."""
    from npusim.cost.entries_kernels import HAS_WEIGHTS, TABLE_BYTES

    on_npu = ops[:, col.UNIT] != col.CPU
    waits = on_npu & (ops[:, [HAS_WEIGHTS, TABLE_BYTES]] != 0).any(axis=1)
    index = int(waits.argmax())
    is_exposed = waits.any() and ops[index, HAS_WEIGHTS] and not (index and on_npu[index - 1])
    return index if is_exposed else None


def _with_first(weights: Weights, whole: Form, form: Form, index: int, deviations: float) -> Form:
    """The form with the plan of one operation whose streams are larger than expected."""
    from npusim.cost.entries_kernels import resize_entry

    other, changed = form.copy(), whole.copy()
    room, entry = entry_room(len(weights.machine[2]))
    facts = weights.ops[index], weights.statistics[index], stream_law(deviations), weights.machine
    resize_entry(*facts, whole.entries[index], room, entry)
    changed.entries[index] = entry
    before = form.plans[index - 1] if index else None
    span = index, index
    other.plans[index] = plan_weights(
        weights, changed, span=span, before=before, deviations=deviations
    )[0]
    return other


def mean_outcome(first: Int64Array, second: Int64Array) -> Int64Array:
    """Half of the sum of two outcomes' cycles, operation by operation [n_ops], rounded so that the
    total is half of the sum of both totals.

    >>> mean_outcome(np.array([5, 3, 8]), np.array([6, 4, 8])).tolist()
    [5, 4, 8]
    """
    halves: Int64Array = np.diff(np.cumsum(first + second) // 2, prepend=0)
    return halves
