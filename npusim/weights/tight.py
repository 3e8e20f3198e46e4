# SPDX-License-Identifier: Apache-2.0
"""Our own encoder: the smallest stream we can find that Arm's hardware reads.

Same format as Arm's encoders, other decisions: palettes as large as pays (none included), sections
where a dynamic programme over blocks of weights puts them, zero runs where they pay, and a zero
coded directly as index 0 of the direct values. It also plans like both of Arm's encoders and
returns the smallest plan of all, so that it is never larger than either.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from npusim._arguments import choice, integer
from npusim.errors import UnknownNameError
from npusim.weights import format as f
from npusim.weights.plan import Plan, Values, empty_plan, legacy_starts, plans_like_arm, with_slices

DEFAULT_EFFORT = 2
DIRECT_OFFSETS = ("conservative", "free")
"""Direct values may begin above the smallest value of all, as Arm's encoders have it, or above the
smallest one outside the palette: smaller at times, but no encoder of Arm's ever wrote it."""


class _Effort(NamedTuple):
    """Most blocks a tensor is cut into for the section search, least weights in a block."""

    n_blocks: int
    block_weights: int
    palette_sizes: tuple[int, ...]


_FEW_SIZES = (0, 2, 4, 8, 16, 32)
_MOST_SIZES = (0, 2, 3, 4, 5, 6, 7, 8, 10, 12, 14, 16, 20, 24, 28, 31, 32)
_ALL_SIZES = (0, *range(2, f.PALETTE_MAX + 1))

EFFORTS = (
    _Effort(1, 1, _FEW_SIZES),
    _Effort(8, 1024, _MOST_SIZES),
    _Effort(16, 512, _MOST_SIZES),
    _Effort(40, 256, _MOST_SIZES),
    _Effort(48, 256, _ALL_SIZES),
    _Effort(64, 256, _ALL_SIZES),
    _Effort(96, 128, _ALL_SIZES),
    _Effort(128, 128, _ALL_SIZES),
    _Effort(192, 64, _ALL_SIZES),
    _Effort(384, 64, _ALL_SIZES),
)
"""Settings by effort 0..9; the time grows with the square of the blocks.

An effort tries what all lower ones try too, so that more effort never gives a larger stream.
"""


def section_starts(
    values: Values, effort: _Effort, sizes: npt.NDArray[np.int64], free: bool
) -> npt.NDArray[np.int64]:
    """First weights of the sections that cost least, by dynamic programming over blocks."""
    from npusim.weights.tight_kernels import best_sections, block_counts

    block = max(effort.block_weights, -(-values.size // effort.n_blocks))
    n_blocks = -(-values.size // block)
    if n_blocks == 1:
        return np.zeros(1, np.int64)
    counts = np.empty((n_blocks + 1, 512), np.int32)
    quotients = np.empty((n_blocks + 1, 4), np.int64)
    block_counts(values, block, counts, quotients)
    least = np.empty(n_blocks + 1, np.int64)
    come_from = np.empty(n_blocks + 1, np.int64)
    best_sections(counts, quotients, sizes, int(free), least, come_from)
    starts, at = [], n_blocks
    while at:
        at = int(come_from[at])
        starts.append(at * block)
    return np.array(starts[::-1], np.int64)


def _fill(
    values: Values, starts: npt.NDArray[np.int64], sizes: npt.NDArray[np.int64], free: bool
) -> Plan:
    from npusim.weights.tight_kernels import fill_tight

    plan = empty_plan(values.size, starts.size)
    n = fill_tight(
        values, starts, sizes, int(free), plan.sections, plan.palettes, plan.indices, plan.runs
    )
    return plan.first_indices(n)


def check_options(
    effort: int = DEFAULT_EFFORT, direct_offset: str = "conservative", **unknown: object
) -> tuple[tuple[_Effort, ...], bool]:
    """Settings up to `effort` and whether the direct offset is free (errors: see `tight_plan`)."""
    for name in sorted(unknown):
        raise UnknownNameError("option of encoder 'tight'", name, ("effort", "direct_offset"))
    settings = EFFORTS[: integer("effort", effort, 0, len(EFFORTS) - 1) + 1]
    return settings, choice("direct_offset", direct_offset, DIRECT_OFFSETS) == "free"


def tight_plan(
    values: Values,
    effort: int = DEFAULT_EFFORT,
    direct_offset: str = "conservative",
    *,
    arms: Sequence[Plan] | None = None,
) -> Plan:
    """The smallest plan found.

    Args:
        values: int16, shape [n_weights], n_weights > 0, each in -255..255.
        effort: 0 (no section search) .. 9 (hundreds of blocks); see `EFFORTS`.
        direct_offset: one of `DIRECT_OFFSETS`.
        arms: the plans of Arm's two encoders, where they are known already.

    Raises:
        ConfigError: `effort` is no integer in 0..9.
        UnknownNameError: no such `direct_offset`.
    """
    settings, free = check_options(effort, direct_offset)
    plans = list(arms) if arms is not None else plans_like_arm(values)
    legacy = legacy_starts(values)
    tried = set()
    for setting in settings:
        sizes = np.array(setting.palette_sizes, np.int64)
        for starts in (section_starts(values, setting, sizes, free), legacy):
            key = (setting.palette_sizes, starts.tobytes())
            if key not in tried:
                tried.add(key)
                plans += with_slices(_fill(values, starts, sizes, free))
    return min(plans, key=Plan.bits)
