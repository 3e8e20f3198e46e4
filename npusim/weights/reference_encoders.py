# SPDX-License-Identifier: Apache-2.0
"""How Arm's two encoders choose sections, palettes and slices, in plain Python integers.

`legacy` is the C encoder of ``mlw_codec`` (Vela up to 4.x), `regor` the C++ one of Vela 5.
Both end in `reference.emit`. Slow and obvious; the kernels are held against these, and these
against Arm's binaries.

Source: [VELA] behaviour of mlw_encode and mle_encode in ethos-u-vela 5.2.0.
"""

from __future__ import annotations

from collections import Counter
from itertools import pairwise

from npusim.weights import format as f
from npusim.weights.reference import Palette, Section, Slice, emit, fold, split_runs

Config = tuple[int, int]
"""(wdiv, wtrunc) of a slice."""

WEIGHT_CONFIGS: list[Config] = [
    *((k, 0) for k in range(f.WDIV_MAX + 1)),
    *((k, 1) for k in range(f.WDIV_MAX + 1)),
    (f.WDIV_RAW, 0),
]
"""In the order in which both encoders number (and on ties prefer) them."""


# --- palettes ---------------------------------------------------------------------------------


def choose_palette(values: list[int], zero_runs: bool, at_half: bool) -> Palette:
    """Palette of one section; `at_half` lets it cover exactly half of the coded weights."""
    counts = Counter(v for v in values if v or not zero_runs)
    used = {fold(v) for v in counts}
    direct_offset = 0
    if any(values):
        while direct_offset < f.DIRECT_OFFSET_MAX and direct_offset not in used:
            direct_offset += 1
    ranked = sorted(((n, fold(v)) for v, n in counts.items()), reverse=True)
    only_palette = len(ranked) <= f.PALETTE_MAX
    largest = max(used, default=0)
    limit = f.PALETTE_MAX if only_palette else min(f.PALETTE_MAX, f.FOLDED_MAX - largest)
    if limit == 1:
        limit = 0
    chosen = ranked[:limit]
    covered, total = sum(n for n, _ in chosen), sum(n for n, _ in ranked)
    entries = [folded for _, folded in chosen]
    half = total // 2
    if covered < half or (covered == half and not at_half):
        entries = []
    if len(entries) == 1:
        entries.append(0)
    widest = max(entries) if entries else largest
    palette_bits = max(f.PALETTE_BITS_MIN, widest.bit_length())
    return Palette(zero_runs, direct_offset, palette_bits, entries, only_palette)


def coded(values: list[int], zero_runs: bool) -> tuple[list[int], list[int]]:
    """Weights to be coded and the zero runs round them (no runs without zero-run mode)."""
    return split_runs(values) if zero_runs else (values, [])


def index_bits(palette: Palette, config: Config, index: int) -> int | None:
    """Bits of one weight symbol; None if the configuration cannot code it."""
    k, trunc = config
    if k == f.WDIV_RAW:
        return palette.raw_bits
    quotient = index >> k
    if trunc:
        return min(quotient + 1, 2) + k if quotient <= f.QUOTIENT_TRUNC_MAX else None
    return quotient + 1 + k if quotient <= f.QUOTIENT_MAX else None


# --- legacy -----------------------------------------------------------------------------------

LEGACY_WINDOWS = (32, 64, 128, 256, 512)
LEGACY_SWITCH_BITS = 40
LEGACY_UNCODABLE_BITS = 10000
LEGACY_RAW_REFUSED_BITS = 100


def _log2_up(n: int) -> int:
    return min(max(n - 1, 0).bit_length(), 8)


def legacy_sections(values: list[int]) -> list[int]:
    """First positions of the palette sections, by the window heuristic."""
    starts = [0]
    last = 0  # position of the last restart
    have = False  # a palette is in force, of `size` distinct values
    size = 0
    for i, v in enumerate(values):
        zeros = sum(x == 0 for x in values[last:i])
        excess = int(zeros > (i - last) // 4)  # zeros would be coded as runs
        if have and v not in values[last:i]:
            size += 1
            n = size - 1 - excess
            if n & (n - 1) == 0 and (i - last - zeros > 512 or size - excess > 32):
                last, have = i, False
                starts.append(i)
        for window in LEGACY_WINDOWS:
            nonzero = [p for p in range(last, i + 1) if values[p]]
            d = len(nonzero) - 1
            n = window * (2 if have else 1)
            if d <= 0 or d % n:
                continue
            r = nonzero[-(n + 2)] if len(nonzero) >= n + 2 else last
            distinct = len({*values[r : i + 1]})
            fresh = distinct - excess
            if have:
                gain = n * 15 * (_log2_up(size - excess) - _log2_up(fresh))
            elif fresh <= f.PALETTE_MAX:
                gain = n * (90 - 15 * _log2_up(fresh))
            else:
                continue
            saved = int(gain / 16) - 8 * distinct - 20
            if saved > 0:
                last, size, have = r, distinct, True
                if starts[-1] != r:
                    starts.append(r)
    return starts


def legacy_zero_runs(values: list[int]) -> bool:
    """Zeros are the most common value and more than four times the runner-up."""
    counts = Counter(values)
    zeros = counts.pop(0, 0)
    return zeros > 4 * max(counts.values(), default=0)


def cheapest_path(costs: list[list[int]], free: set[int]) -> list[int]:
    """State per symbol; a switch costs `LEGACY_SWITCH_BITS`, ties go to the lowest state.

    Before the symbols in `free` a switch costs nothing.
    """
    n = len(costs[0])
    total = [0] * n
    switches: list[tuple[int, list[bool]]] = []
    for i, row in enumerate(costs):
        best = total.index(min(total))
        limit = total[best] + (0 if i in free else LEGACY_SWITCH_BITS)
        switched = [limit < t for t in total]
        switches.append((best, switched))
        total = [min(t, limit) + c for t, c in zip(total, row, strict=True)]
    state = total.index(min(total))
    path: list[int] = []
    for best, switched in reversed(switches):
        path.append(state)
        if switched[state]:
            state = best
    return path[::-1]


def legacy_slices(palette: Palette, indices: list[int], runs: list[int]) -> list[Slice]:
    """Slices of one section by a Viterbi search each over weights and runs."""
    costs = []
    for x in indices:
        row = [index_bits(palette, c, x) for c in WEIGHT_CONFIGS]
        costs.append([LEGACY_UNCODABLE_BITS if bits is None else bits for bits in row])
        if row[-1] is None:
            costs[-1][-1] = LEGACY_RAW_REFUSED_BITS
    configs = cheapest_path(costs, free=set())
    cuts = {i for i, (a, b) in enumerate(pairwise(configs), 1) if a != b}
    zdivs = [0] * (len(indices) + 1)
    if palette.zero_runs:
        run_costs = [[(z >> k) + 1 + k for k in range(f.ZDIV_MAX + 1)] for z in runs]
        zdivs = cheapest_path(run_costs, free={end - 1 for end in cuts | {len(indices)}})
    cuts |= {i for i, (a, b) in enumerate(pairwise(zdivs), 1) if a != b}
    slices, start = [], 0
    for end in [*sorted(cuts), len(indices)]:
        while start < end:
            n = min(end - start, f.SLICE_LEN_EMITTED_MAX)
            wdiv, wtrunc = WEIGHT_CONFIGS[configs[start]]
            slices.append(Slice(n, wdiv, wtrunc, zdivs[start]))
            start += n
    return slices


def legacy(values: list[int]) -> bytes:
    """Stream of the C encoder behind ``ethosu.mlw_codec``."""
    sections = []
    starts = legacy_sections(values) if values else []
    for start, end in pairwise([*starts, len(values)]):
        part = values[start:end]
        zero_runs = legacy_zero_runs(part)
        palette = choose_palette(part, zero_runs, at_half=False)
        weights, runs = coded(part, zero_runs)
        indices = [palette.index(w) for w in weights]
        sections.append(Section(palette, indices, runs, legacy_slices(palette, indices, runs)))
    return emit(sections)


# --- regor ------------------------------------------------------------------------------------

REGOR_SECTION_WEIGHTS = 131072
REGOR_SWITCH_BITS = 40
REGOR_UNCODABLE_BITS = 40


def regor_zero_runs(values: list[int]) -> bool:
    """Zeros are over five times the next value; half of them, rounded down, come in runs."""
    counts = Counter(values)
    zeros = counts.pop(0, 0)
    in_runs, length = 0, 0
    for v in [*values, 1]:
        if v == 0:
            length += 1
        else:
            in_runs += length if length >= 2 else 0
            length = 0
    return zeros > 5 * max(counts.values(), default=0) and in_runs >= zeros // 2


def regor_path(costs: list[list[int | None]]) -> list[tuple[int, int]]:
    """Greedy choice of configurations: [(first symbol, state)] of each slice."""
    n = len(costs[0])
    total = [0] * n
    uncodable = [-1] * n  # last symbol a state could not code
    out: list[tuple[int, int]] = []
    active = -1
    before = 0
    for i, row in enumerate(costs):
        for s, bits in enumerate(row):
            if bits is None:
                total[s] += REGOR_UNCODABLE_BITS
                uncodable[s] = i
            else:
                if i and uncodable[s] == i - 1:
                    total[s] = before  # of the active state: bygones are bygones
                total[s] += bits
        codable = [s for s in range(n) if row[s] is not None]
        best = min(codable, key=lambda s: (total[s], s))
        if active < 0:
            active = best
            out.append((0, best))
        elif row[active] is None or total[best] + REGOR_SWITCH_BITS < before:
            if total[best] < total[active] and uncodable[best] <= uncodable[active]:
                out[-1] = (out[-1][0], best)
            else:
                out.append((i, best))
            active = best
        before = total[active]
    if len(out) > 1 and out[-2][1] == out[-1][1]:
        out.pop()  # only the last slice is joined with an equal one before it
    return out


def regor_slices(palette: Palette, indices: list[int], runs: list[int]) -> list[Slice]:
    """Slices of one section by regor's greedy search."""
    costs = [[index_bits(palette, c, x) for c in WEIGHT_CONFIGS] for x in indices]
    zdiv = 0
    if palette.zero_runs:
        run_costs: list[list[int | None]] = [
            [(z >> k) + 1 + k for k in range(f.ZDIV_MAX + 1)] for z in runs
        ]
        zdiv = regor_path(run_costs)[-1][1]
    path = regor_path(costs)
    slices = []
    for (start, state), (end, _) in pairwise([*path, (len(indices), 0)]):
        while start < end:
            n = min(end - start, f.SLICE_LEN_EMITTED_MAX)
            slices.append(Slice(n, *WEIGHT_CONFIGS[state], zdiv))
            start += n
    return slices


def regor(values: list[int]) -> bytes:
    """Stream of the C++ encoder inside regor."""
    sections = []
    for start in range(0, len(values), REGOR_SECTION_WEIGHTS):
        part = values[start : start + REGOR_SECTION_WEIGHTS]
        zero_runs = regor_zero_runs(part)
        palette = choose_palette(part, zero_runs, at_half=True)
        weights, runs = coded(part, zero_runs)
        indices = [palette.index(w) for w in weights]
        sections.append(Section(palette, indices, runs, regor_slices(palette, indices, runs)))
    return emit(sections)
