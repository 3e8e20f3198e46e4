# SPDX-License-Identifier: Apache-2.0
"""Which weights are copied to a buffer before they are used, and in how many depth slices.

Weights that are stored in a slow memory can be copied to the staging memory by the DMA unit while
the operation before, or the slice before, runs. Arm's compiler decides operation by operation: it
compares the time to fetch the weights, as often as the blocks need them, from where they are stored
with that from a buffer, cuts the weights where only a part can be copied unseen, and keeps the
buffer if the operation then is no slower.

Source: [VELA] regor 5.2.0, found by comparing with its compiled operations.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from npusim.cost.forms import Form, Weights
from npusim.cost.plan_columns import UNLIMITED_BYTES

Int64Array = npt.NDArray[np.int64]


@dataclass(slots=True, eq=False)
class Usage:
    """What is in the arena over time.

    Attributes:
        maps_bytes: feature maps, int64 [n_steps].
        buffer_bytes: weight buffers, int64 [n_steps].
        op_time: step at which each operation begins, int64 [n_ops].
    """

    maps_bytes: Int64Array
    buffer_bytes: Int64Array
    op_time: Int64Array

    @classmethod
    def nothing(cls, n_ops: int) -> Usage:
        """An arena that is empty before the first buffer."""
        return cls(np.zeros(n_ops, np.int64), np.zeros(n_ops, np.int64), np.arange(n_ops))

    def total_bytes(self, index: int) -> int:
        """While operation `index` begins."""
        time = self.op_time[index]
        return int(self.maps_bytes[time] + self.buffer_bytes[time])


def plan_weights(
    weights: Weights,
    form: Form,
    limit_bytes: int = UNLIMITED_BYTES,
    usage: Usage | None = None,
    span: tuple[int, int] | None = None,
    before: Int64Array | None = None,
    deviations: float = 0.0,
) -> Int64Array:
    """Plans for the weights of operations, one after the other, those without weights included.

    Args:
        weights: of a program.
        form: of it; its plans say what buffers `usage` counts already.
        limit_bytes: most that the arena may take.
        usage: of the arena, to which buffers are added; None: nothing.
        span: first and last of the operations; None: all.
        before: the plan of the operation before, if that is not the first, [PLAN_COLUMNS].
        deviations: of expected streams, see `npusim.cost.weight_sizes.ExpectedSizes`.

    Returns:
        int64, shape [n, plan_columns.PLAN_COLUMNS]: the plans of operations first..last.
    """
    from npusim.cost.plans_kernels import plan_ops

    n_ops = len(form.plans)
    first, last = (0, n_ops - 1) if span is None else span
    plans = np.empty_like(form.plans)
    if before is not None:
        plans[first - 1] = before
    arena = Usage.nothing(n_ops) if usage is None else usage
    in_use = (
        np.array([min(limit_bytes, UNLIMITED_BYTES)], np.int64),
        *(arena.maps_bytes, arena.buffer_bytes, arena.op_time),
    )
    program, room = (weights.ops, weights.links), weights.room
    shape = form.stripes, form.entries, form.cascade, form.plans
    at = first
    while at <= last:
        known = weights.known(deviations)
        at = plan_ops((at, last), program, shape, in_use, weights.machine, known, room, plans)
        if at <= last:
            weights.add_slices(at, *room[2].tolist())
    return plans[first : last + 1]
