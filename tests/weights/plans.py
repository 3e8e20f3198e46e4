# SPDX-License-Identifier: Apache-2.0
"""Plans of the kernels, flat arrays, as sections of the reference, and the other way round."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from npusim.weights import plan_columns as k
from npusim.weights.plan import Plan
from npusim.weights.reference import Palette, Section, Slice, SliceHeader


def sections_of(plan: Plan) -> list[Section]:
    sections, at = [], 0
    for number, row in enumerate(plan.sections):
        first, n = int(row[k.FIRST]), int(row[k.N_WEIGHTS])
        palette = Palette(
            bool(row[k.ZERO_RUNS]),
            int(row[k.DIRECT_OFFSET]),
            int(row[k.PALETTE_BITS]),
            plan.palettes[number, : row[k.N_ENTRIES]].tolist(),
        )
        palette.only_palette = bool(palette.entries) and bool(row[k.RAW_BITS] >= 0)
        runs = plan.runs[first + number : first + number + n + 1].tolist()
        slices = [Slice(*part) for part in plan.slices[at : at + row[k.N_SLICES]].tolist()]
        at += len(slices)
        indices = plan.indices[first : first + n].tolist()
        sections.append(Section(palette, indices, runs if palette.zero_runs else [], slices))
    return sections


def plan_of(sections: list[Section]) -> Plan:
    """Plan that writes the sections as `reference.emit` does, raw slices whatever the palette."""
    n = sum(len(section.indices) for section in sections)
    plan = Plan(
        np.zeros((len(sections), k.SECTION_COLUMNS), np.int64),
        np.zeros((len(sections), 32), np.int64),
        np.empty(n, np.int16),
        np.zeros(n + len(sections), np.int32),
        np.array([_row(part) for section in sections for part in section.slices], np.int32),
    )
    first = 0
    for number, section in enumerate(sections):
        palette, end = section.palette, first + len(section.indices)
        row = plan.sections[number]
        row[k.FIRST], row[k.N_WEIGHTS] = first, len(section.indices)
        row[k.ZERO_RUNS], row[k.DIRECT_OFFSET] = palette.zero_runs, palette.direct_offset
        row[k.N_ENTRIES], row[k.PALETTE_BITS] = len(palette.entries), palette.palette_bits
        raw = SliceHeader(0, 0, 1, 7, 0, 1, 0, palette.palette_bits, palette.entries)
        row[k.RAW_BITS], row[k.HIGHEST] = raw.index_bits, max(section.indices)
        row[k.N_SLICES] = len(section.slices)
        plan.palettes[number, : len(palette.entries)] = palette.entries
        plan.indices[first:end] = section.indices
        if palette.zero_runs:
            plan.runs[first + number : end + number + 1] = section.runs
        first = end
    return plan


def _row(part: Slice) -> tuple[int, int, int, int]:
    return part.n_weights, part.wdiv, part.wtrunc, part.zdiv


def reference_sections(
    values: list[int],
    starts: list[int],
    zero_runs: Callable[[list[int]], bool],
    slices: Callable[[Palette, list[int], list[int]], list[Slice]],
    at_half: bool,
) -> list[Section]:
    """Sections from `starts` on as `reference_encoders` fills and cuts them."""
    from npusim.weights.reference_encoders import choose_palette, coded

    sections = []
    for start, end in zip(starts, [*starts[1:], len(values)], strict=True):
        part = values[start:end]
        runs_on = zero_runs(part)
        palette = choose_palette(part, runs_on, at_half)
        weights, runs = coded(part, runs_on)
        indices = [palette.index(weight) for weight in weights]
        sections.append(Section(palette, indices, runs, slices(palette, indices, runs)))
    return sections
