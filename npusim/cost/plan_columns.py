# SPDX-License-Identifier: Apache-2.0
"""Columns of plans: how one operation gets its weights, int64.

The weights are cut at `FIRST_DEPTH`, and then every `NEXT_DEPTH` channels; they are whole where
`FIRST_DEPTH` is all there are.
"""

from __future__ import annotations

NPU_CYCLES, TOTAL_CYCLES = range(2)
"""Cycles of the NPU, and of the slower of it and the memories; not filled in by every kernel."""
SLACK_CYCLES, SLACK_BYTES = range(2, 4)
"""What the next operation hides a transfer under, and room for its buffer."""
WEIGHT_BYTES, SCALE_BYTES = range(4, 6)
"""Of all slices."""
HALF0, HALF1, PRE_BUFFERED = range(6, 9)
"""Bytes of the two parts of the buffer, which slices take in turn, 0 where not used; whether the
first slice is copied under the operation before."""
N_SLICES, FIRST_DEPTH, NEXT_DEPTH, FIRST_BYTES = range(9, 13)
"""Number of slices, channels of the first and of the next ones; bytes of the first one, without
what pads its biases and scales."""
TRANSFER_CYCLES = 13
"""To copy all weights and scales in one piece; 0 where that is out of the question."""
PLAN_COLUMNS = 14

UNLIMITED_BYTES = 1 << 30
"""Room for a buffer where the arena has no limit."""
