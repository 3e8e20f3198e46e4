# SPDX-License-Identifier: Apache-2.0
"""The kernel that runs the lanes of a decoder cycle by cycle.

Twin: reference.py:run_lanes.
"""

from __future__ import annotations

import numpy as np

from npusim._jit import kernel

NEXT, LAST, FIFO, UNREAD, BITS, WEIGHTS, STEPS, CREDIT = range(8)
"""Columns of a lane's state: its next symbol and the end of its symbols, bits in its FIFO and not
yet fetched, what the symbol at hand still needs, steps saved up (of 65536)."""
LANE_COLUMNS = 8
ONE_STEP = 65536


@kernel
def run_lanes(symbols, lanes, fifo_bits, dma_bits, rates, most_cycles):
    # symbols i32 [n, 3]: bits, weights, steps; lanes i64 [n_lanes, 8], BITS .. CREDIT zero; rates
    # i64 [3]: bits, weights and steps (of 65536) a lane can do in a cycle -> cycles until all is
    # decoded, or -1 after `most_cycles`; cycles in which a lane waited for bits, all lanes
    bits_rate, weights_rate, steps_rate = rates
    n_lanes = lanes.shape[0]
    n_busy = 0
    for lane in range(n_lanes):
        n_busy += lanes[lane, NEXT] < lanes[lane, LAST]
        if lanes[lane, NEXT] < lanes[lane, LAST]:
            first = symbols[lanes[lane, NEXT]]
            lanes[lane, BITS], lanes[lane, WEIGHTS] = first[0], first[1]
            lanes[lane, STEPS] = first[2] * ONE_STEP
    turn, cycles, waits = 0, 0, 0
    while n_busy:
        if cycles == most_cycles:
            return -1, waits
        cycles += 1
        left = dma_bits  # whoever has room, beginning with the lane whose turn it is
        for i in range(n_lanes):
            row = lanes[(turn + i) % n_lanes]
            got = min(left, min(fifo_bits - row[FIFO], row[UNREAD]))
            row[FIFO] += got
            row[UNREAD] -= got
            left -= got
            if left == 0:
                break
        turn = (turn + 1) % n_lanes
        for lane in range(n_lanes):
            row = lanes[lane]
            if row[NEXT] == row[LAST]:
                continue
            bits, weights = bits_rate, weights_rate
            row[CREDIT] = min(row[CREDIT], ONE_STEP) + steps_rate
            while True:
                got = min(bits, min(row[BITS], row[FIFO]))
                row[BITS] -= got
                row[FIFO] -= got
                bits -= got
                done = min(row[CREDIT], row[STEPS])
                row[STEPS] -= done
                row[CREDIT] -= done
                if row[BITS]:
                    waits += row[FIFO] == 0 and bits > 0
                    break
                if row[STEPS]:
                    break
                given = min(weights, row[WEIGHTS])
                row[WEIGHTS] -= given
                weights -= given
                if row[WEIGHTS]:
                    break
                row[NEXT] += 1
                if row[NEXT] == row[LAST]:
                    n_busy -= 1
                    break
                symbol = symbols[row[NEXT]]
                row[BITS], row[WEIGHTS] = np.int64(symbol[0]), np.int64(symbol[1])
                row[STEPS] = np.int64(symbol[2]) * ONE_STEP
    return cycles, waits
