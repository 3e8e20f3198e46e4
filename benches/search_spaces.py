# SPDX-License-Identifier: Apache-2.0
"""How fast candidates of the search spaces are costed, counted, drawn and decoded.

    python benches/search_spaces.py [NAME ...]

CPU time of one process, the best of three; each kernel is called once before on a small input.
"""

from __future__ import annotations

import math
import sys
import time
from collections.abc import Callable
from typing import Any

import numpy as np

import spaces
from spaces.costs import costs
from spaces.decode import best
from spaces.estimate import estimate
from spaces.feasible import FeasibleSet
from spaces.limits import Limit

N_COSTED = 100_000
N_DRAWN = 5_000
REPEATS = 3
DEFAULT = ("digits", "cifar100", "imagenet", "super_resolution")


def best_cpu_s(function: Callable[[], Any], repeats: int = REPEATS) -> float:
    """Least CPU time of a call, in seconds."""
    times = []
    for _ in range(repeats):
        start = time.process_time()
        function()
        times.append(time.process_time() - start)
    return min(times)


def row(space: spaces.Space, limit: Limit) -> list[str]:
    """The figures of one space within one limit."""
    rng = np.random.default_rng(0)
    choices = space.sample_many(rng, N_COSTED)
    table_s = best_cpu_s(lambda: FeasibleSet(space, limit))
    found = FeasibleSet(space, limit)
    candidates = [space.sample(rng) for _ in range(5)]
    scores = [np.sort(rng.normal(size=n)) for n in space.n_options]
    decoded = best(space, limit, scores)
    low, high = (bound - math.log10(space.count()) for bound in found.log10_bounds())
    return [
        space.name,
        str(limit),
        f"{N_COSTED / best_cpu_s(lambda: costs(space, choices, 'size_bits')):,.0f}",
        f"{N_COSTED / best_cpu_s(lambda: costs(space, choices, 'macs')):,.0f}",
        f"{table_s:.2f}",
        f"{low:.2f}..{high:.2f}",
        f"{N_DRAWN / best_cpu_s(lambda: found.sample_many(rng, N_DRAWN)):,.0f}",
        f"{500 / best_cpu_s(lambda: [found.sample(rng) for _ in range(500)]):,.0f}",
        f"{best_cpu_s(lambda: best(space, limit, scores), 1):.2f}{'' if decoded.optimal else ' *'}",
        f"{1000 * best_cpu_s(lambda: [estimate(space, c) for c in candidates]) / 5:.0f}",
    ]


def warm_up() -> None:
    """Compile the kernels, or load them."""
    space = spaces.get("digits", widths=(1.0,), bitwidths=(4, 8), sparsities=(1.0,))
    row(space, Limit.size("50KB"))


def main(names: list[str]) -> None:
    """Print a table, a row for each space and its smallest default limit."""
    warm_up()
    print(
        "| space | limit | sizes a second | MACs a second | tables, s | log10 of the share | "
        "draws a second | one by one | best, s | NPU cost, ms |"
    )
    print("|---|---|---|---|---|---|---|---|---|---|")
    for name in names or DEFAULT:
        space = spaces.get(name)
        for limit in space.limits[:1]:
            print("| " + " | ".join(row(space, limit)) + " |", flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
