# SPDX-License-Identifier: Apache-2.0
"""A plan: what an encoder decides about a tensor, before a bit is written.

Arm's two encoders and ours differ in their plans only; a plan's exact size and its stream follow
from the format alone.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from npusim.weights import format as f
from npusim.weights.plan_columns import SECTION_COLUMNS

Values = npt.NDArray[np.int16]

REGOR_SECTION_WEIGHTS = 131072
"""Regor begins a palette section at every multiple of this many weights. Source: [VELA]."""


@dataclass(frozen=True, slots=True)
class Plan:
    """Sections, palettes, weight indices, zero runs and slices of one tensor.

    Flat arrays, as the kernels take them; section_kernels.py describes each.
    """

    sections: npt.NDArray[np.int64]
    palettes: npt.NDArray[np.int64]
    indices: npt.NDArray[np.int16]
    runs: npt.NDArray[np.int32]
    slices: npt.NDArray[np.int32]

    def bits(self) -> int:
        """Exact length of the stream up to its end marker, in bits."""
        from npusim.weights.emit_kernels import plan_bits

        return int(plan_bits(self.sections, self.indices, self.runs, self.slices))

    def n_bytes(self) -> int:
        """Exact length of the stream in bytes, a multiple of 16."""
        unit_bits = 8 * f.STREAM_ALIGN_BYTES
        bits = self.bits() + f.ZDIV_FIELD_BITS
        return f.STREAM_ALIGN_BYTES * -(-bits // unit_bits)

    def first_indices(self, n: int) -> Plan:
        """The plan with only its first `n` indices."""
        return replace(self, indices=self.indices[:n])

    def stream(self) -> bytes:
        """The stream's bytes, with its end marker."""
        from npusim.weights.emit_kernels import write_plan

        n_bytes = self.n_bytes()
        words = np.zeros(n_bytes // 8 + 2, np.uint64)
        parts = np.empty((5, words.size + 2), np.uint64)
        bits = write_plan(
            self.sections, self.palettes, self.indices, self.runs, self.slices, parts, words
        )
        word, ones = bits >> 6, np.uint64(2**64 - 1)
        if bits & 63:
            words[word] |= ones << np.uint64(bits & 63)
            word += 1
        words[word:] = ones
        return words.astype("<u8", copy=False).tobytes()[:n_bytes]


def empty_plan(n_weights: int, n_sections: int) -> Plan:
    """Plan with room for a tensor, for a kernel to fill."""
    return Plan(
        np.zeros((n_sections, SECTION_COLUMNS), np.int64),
        np.zeros((n_sections, f.PALETTE_MAX), np.int64),
        np.empty(n_weights, np.int16),
        np.empty(n_weights + n_sections, np.int32),
        np.empty((0, 4), np.int32),
    )


def _fill(values: Values, starts: npt.NDArray[np.int64], regor: bool) -> Plan:
    """Sections from `starts` on, with Arm's palette and zero-run rules; no slices yet."""
    from npusim.weights.section_kernels import fill_sections

    plan = empty_plan(values.size, starts.size)
    n = fill_sections(
        values, starts, int(regor), plan.sections, plan.palettes, plan.indices, plan.runs
    )
    return plan.first_indices(n)


def _cut(plan: Plan, search: Callable[..., int]) -> Plan:
    """The plan with the slices that `search`, a kernel, finds."""
    slices = np.empty((plan.indices.size + len(plan.sections), 4), np.int32)
    sections = plan.sections.copy()
    n = search(sections, plan.indices, plan.runs, slices)
    return replace(plan, sections=sections, slices=slices[:n])


def with_slices(plan: Plan) -> list[Plan]:
    """The plan cut into slices by each of Arm's two parameter searches."""
    from npusim.weights.slice_kernels import legacy_slices, regor_slices

    return [_cut(plan, legacy_slices), _cut(plan, regor_slices)]


def legacy_starts(values: Values) -> npt.NDArray[np.int64]:
    """First weights of the legacy encoder's palette sections; linear time."""
    from npusim.weights.section_kernels import RING, legacy_sections

    starts = np.empty(values.size + 1, np.int64)
    low, high = int(values.min()) + f.WEIGHT_MAX, int(values.max()) + f.WEIGHT_MAX
    seen = np.empty(2 * f.WEIGHT_MAX + 1, np.int32)
    n = legacy_sections(values, low, high, starts, seen, np.empty(RING, np.int32))
    return starts[:n].copy()


def legacy_plan(values: Values) -> Plan:
    """Plan of the C encoder behind ``ethosu.mlw_codec``. Source: [VELA] mlw_encode."""
    from npusim.weights.slice_kernels import legacy_slices

    return _cut(_fill(values, legacy_starts(values), regor=False), legacy_slices)


def regor_plan(values: Values) -> Plan:
    """Plan of the C++ encoder inside regor, Vela 5's default core. Source: [VELA] mle_encode."""
    from npusim.weights.slice_kernels import regor_slices

    starts = np.arange(0, values.size, REGOR_SECTION_WEIGHTS, dtype=np.int64)
    return _cut(_fill(values, starts, regor=True), regor_slices)


def plans_like_arm(values: Values) -> list[Plan]:
    """The plans of both of Arm's encoders."""
    return [legacy_plan(values), regor_plan(values)]
