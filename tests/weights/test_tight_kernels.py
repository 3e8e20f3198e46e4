# SPDX-License-Identifier: Apache-2.0
"""Costs and sections of the tight encoder against sums and searches written out in Python."""

from __future__ import annotations

from collections import Counter
from itertools import pairwise, product

import generators
import numpy as np
import plans
from hypothesis import given, settings
from hypothesis import strategies as st

from npusim.weights import tight, tight_kernels
from npusim.weights.format import PALETTE_MAX, WDIV_RAW
from npusim.weights.reference import fold
from npusim.weights.reference_encoders import WEIGHT_CONFIGS, index_bits

SIZES = np.array([0, *range(2, PALETTE_MAX + 1)], np.int64)
BITS_OF_HEADERS = 23 + 13
BITS_OF_ESCAPE = 66

seeds = st.integers(0, 2**32 - 1)
often = settings(deadline=None, derandomize=True, max_examples=80)


def random_values(seed: int, most: int = 400) -> np.ndarray:
    return generators.tensor(np.random.default_rng(seed), most)


def run_quotients(values: list[int]) -> list[int]:
    """Sums of quotients, by divisor, of the runs of zeros before non-zero weights."""
    sums, run = [0] * 4, 0
    for value in values:
        if value == 0:
            run += 1
            continue
        for zdiv in range(4):
            sums[zdiv] += run >> zdiv
        run = 0
    return sums


def palette_bits(
    counts: Counter[int], quotients: list[int], highest: int, zero_runs: bool, size: int, free: bool
) -> int | None:
    """Cost of a section with the `size` most frequent folded values as palette; None: cannot be."""
    coded = {folded: n for folded, n in counts.items() if n and (folded or not zero_runs)}
    ranked = sorted(coded, key=lambda folded: (coded[folded], folded), reverse=True)
    if size > max(min(len(ranked), PALETTE_MAX), 2) or (size and not ranked):
        return None
    entries = ranked[:size]
    direct = [folded for folded in ranked if folded not in entries]
    lowest = min((direct if free else ranked) or [highest])
    offset = min(31, lowest) if direct or not size else 0
    at = {folded: entries.index(folded) if folded in entries else folded + size - offset
          for folded in ranked}  # fmt: skip
    if any(index > 1023 for index in at.values()):
        return None
    costs = []
    for config in WEIGHT_CONFIGS[:-1]:
        bits = 0
        for folded, n in coded.items():
            some = index_bits(None, config, at[folded])
            bits += n * (BITS_OF_ESCAPE if some is None else some)
        costs.append(bits)
    n_coded = max(sum(coded.values()), 1)
    if not size:
        costs.append(n_coded * max(2, (highest - offset).bit_length()))
    elif not direct:
        costs.append(n_coded * (size - 1).bit_length())
    runs = min(quotients[z] + (n_coded + 1) * (1 + z) for z in range(4)) if zero_runs else 0
    width = max(2, max(entries, default=0).bit_length())
    return BITS_OF_HEADERS + size * width + min(costs) + runs


def cheapest(values: list[int], highest: int, free: bool) -> tuple[int, bool, int]:
    """(bits, zero runs, palette size) of the cheapest section; the first of equals."""
    counts, quotients = Counter(map(fold, values)), run_quotients(values)
    best: tuple[int, bool, int] | None = None
    for zero_runs in (False, True) if counts[0] else (False,):
        for size in SIZES.tolist():
            bits = palette_bits(counts, quotients, highest, zero_runs, size, free)
            if bits is not None and (best is None or bits < best[0]):
                best = bits, zero_runs, size
    assert best is not None
    return best


def test_configurations_are_those_of_the_reference():
    assert len(WEIGHT_CONFIGS) == 13
    assert WEIGHT_CONFIGS[-1][0] == WDIV_RAW


@often
@given(seed=seeds, n_blocks=st.integers(1, 6))
def test_block_counts(seed, n_blocks):
    values = random_values(seed)
    block = -(-values.size // n_blocks)
    n_blocks = -(-values.size // block)
    counts = np.empty((n_blocks + 1, 512), np.int32)
    quotients = np.empty((n_blocks + 1, 4), np.int64)
    tight_kernels.block_counts(values, block, counts, quotients)
    for number in range(n_blocks + 1):
        before = values[: number * block].tolist()
        folded = np.bincount([fold(v) for v in before] or [], minlength=512)
        assert counts[number].tolist() == folded.tolist()
        assert quotients[number].tolist() == run_quotients(before)


@often
@given(seed=seeds, free=st.booleans())
def test_best_palette(seed, free):
    values = random_values(seed).tolist()
    counts = np.bincount([fold(v) for v in values], minlength=512).astype(np.int32)
    highest = max(map(fold, values))
    choice = np.empty(2, np.int64)
    bits = tight_kernels.best_palette(
        counts,
        highest,
        np.array(run_quotients(values)),
        SIZES,
        int(free),
        np.empty(512, np.int32),
        choice,
    )
    assert (bits, bool(choice[0]), choice[1]) == cheapest(values, highest, free)


@often
@given(seed=seeds, free=st.booleans())
def test_best_sections(seed, free):
    """Against every way to cut up to five blocks into sections."""
    values = random_values(seed, 200)
    block = -(-values.size // 5)
    n_blocks = -(-values.size // block)
    counts = np.empty((n_blocks + 1, 512), np.int32)
    quotients = np.empty((n_blocks + 1, 4), np.int64)
    tight_kernels.block_counts(values, block, counts, quotients)
    least, come_from = np.empty(n_blocks + 1, np.int64), np.empty(n_blocks + 1, np.int64)
    tight_kernels.best_sections(counts, quotients, SIZES, int(free), least, come_from)
    highest = max(fold(int(v)) for v in values)
    costs = {}
    for start in range(n_blocks):
        for end in range(start + 1, n_blocks + 1):
            costs[start, end] = _span_bits(counts, quotients, start, end, highest, free)
    totals = []
    for cuts in product([False, True], repeat=n_blocks - 1):
        borders = [0, *(i for i, cut in enumerate(cuts, 1) if cut), n_blocks]
        totals.append(sum(costs[span] for span in pairwise(borders)))
    assert least[-1] == min(totals)
    ours, end = 0, n_blocks
    while end:
        ours += costs[int(come_from[end]), end]
        end = int(come_from[end])
    assert ours == least[-1]


def _span_bits(counts, quotients, start, end, highest, free) -> int:
    some = Counter(dict(enumerate((counts[end] - counts[start]).tolist())))
    runs = (quotients[end] - quotients[start]).tolist()
    found = [
        palette_bits(some, runs, highest, zero_runs, size, free)
        for zero_runs in ((False, True) if some[0] else (False,))
        for size in SIZES.tolist()
    ]
    return min(bits for bits in found if bits is not None)


@often
@given(seed=seeds, free=st.booleans(), n_sections=st.integers(1, 3))
def test_sections_are_filled_with_the_cheapest_palettes(seed, free, n_sections):
    values = random_values(seed)
    starts = np.unique(np.linspace(0, values.size, n_sections, endpoint=False).astype(np.int64))
    plan = tight._fill(values, starts, SIZES, free)
    made = plans.sections_of(plan)
    assert len(made) == starts.size
    for section, part in zip(made, np.split(values, starts[1:]), strict=True):
        _, zero_runs, size = cheapest(part.tolist(), max(map(fold, part.tolist())), free)
        assert section.palette.zero_runs == zero_runs
        assert len(section.palette.entries) == size
        assert np.array_equal(generators.section_values(section), part)
