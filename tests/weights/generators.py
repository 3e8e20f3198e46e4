# SPDX-License-Identifier: Apache-2.0
"""Tensors and streams to try codecs on: random pieces, hand-picked hard ones, any valid section."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from npusim.weights import format as f
from npusim.weights.reference import Palette, Section, Slice, SliceHeader

Values = np.ndarray
"""int16, shape [n_weights], each in -255..255."""

SCALES = (0.3, 1, 2, 4, 8, 15, 30, 100, 400)
ZERO_FRACTIONS = (0, 0, 0, 0.1, 0.5, 0.7, 0.8, 0.9, 0.95, 0.99, 0.999, 1)
PALETTE_SIZES = (1, 2, 3, 15, 16, 17, 31, 32, 33, 34, 64, 300)
BORDERS = (32767, 32768, 65534, 65536, 131071, 131072, 131073, 262144)
"""Lengths at the longest slice and round the first weights of regor's sections."""


def _limited(values: np.ndarray) -> Values:
    return np.clip(np.rint(values), -f.WEIGHT_MAX, f.WEIGHT_MAX).astype(np.int16)


def _scale(rng: np.random.Generator) -> float:
    return float(rng.choice(SCALES))


def uniform(rng: np.random.Generator, n: int) -> Values:
    high = int(rng.choice([1, 2, 7, 15, 16, 31, 127, 255]))
    low = 0 if rng.random() < 0.2 else -high
    return rng.integers(low, high + 1, n).astype(np.int16)


def laplace(rng: np.random.Generator, n: int) -> Values:
    return _limited(rng.laplace(0, _scale(rng), n))


def normal(rng: np.random.Generator, n: int) -> Values:
    centre = 0 if rng.random() < 0.8 else int(rng.integers(-200, 201))
    return _limited(rng.normal(centre, _scale(rng), n))


def constant(rng: np.random.Generator, n: int) -> Values:
    extremes = [0, 1, -1, 127, -128, 255, -255]
    value = rng.choice(extremes) if rng.random() < 0.7 else rng.integers(-255, 256)
    return np.full(n, value, np.int16)


def alternating(rng: np.random.Generator, n: int) -> Values:
    """A few values in turn, which one after the other favour different divisors."""
    period = rng.integers(-255, 256, int(rng.integers(2, 5)))
    return np.resize(np.repeat(period, int(rng.choice([1, 1, 2, 40]))), n).astype(np.int16)


def ramp(rng: np.random.Generator, n: int) -> Values:
    top = int(rng.choice([3, 20, 127, 255]))
    step = float(rng.choice([0.01, 0.1, 1, 7]))
    return _limited((np.arange(n) * step) % (2 * top + 1) - top)


def palette(rng: np.random.Generator, n: int) -> Values:
    """Exactly as many distinct values as it says, where there is room for them."""
    size = int(rng.choice(PALETTE_SIZES))
    wide = size > 60 or rng.random() < 0.5
    values = rng.choice(np.arange(-255, 256) if wide else np.arange(-31, 32), size, replace=False)
    rates = rng.dirichlet(np.full(size, float(rng.choice([0.1, 1, 100]))))
    drawn = rng.choice(values, n, p=rates)
    drawn[:size] = values[:n]
    return drawn.astype(np.int16)


def ties(rng: np.random.Generator, n: int) -> Values:
    """Values that all occur equally often, in random order: palettes are cut within ties."""
    size = int(rng.choice([2, 4, 32, 33, 40, 64, 100]))
    values = rng.choice(np.arange(-255, 256), size, replace=False)
    return rng.permutation(np.resize(values, n)).astype(np.int16)


def drifting(rng: np.random.Generator, n: int) -> Values:
    """Laplace weights whose scale changes all along."""
    scale = np.exp(np.cumsum(rng.normal(0, 0.05, n)) % 5)
    return _limited(rng.laplace(0, 1, n) * scale)


def outlier(rng: np.random.Generator, n: int) -> Values:
    """Small weights and a single large one, which no small divisor can code."""
    values = _limited(rng.laplace(0, float(rng.choice([0.5, 1, 3])), n))
    values[rng.integers(n)] = rng.choice([-255, 255, 254, 100, -64])
    return values


def long_runs(rng: np.random.Generator, n: int) -> Values:
    """Non-zero weights between runs of zeros of all lengths."""
    values = np.zeros(n, np.int16)
    mean = float(rng.choice([1, 3, 10, 100, 1000]))
    at = np.cumsum(1 + rng.geometric(1 / mean, n // int(mean + 1) + 1))
    at = at[at < n]
    values[at] = rng.integers(1, int(rng.choice([2, 5, 100])) + 1, at.size)
    return values


def bursts(rng: np.random.Generator, n: int) -> Values:
    """33 or more non-zero weights, then zeros only; again and again."""
    length = int(rng.choice([32, 33, 34, 65, 66, 130]))
    block = np.concatenate([rng.integers(1, 20, length), np.zeros(int(rng.choice([5, 200, 1500])))])
    return np.resize(block, n).astype(np.int16)


KINDS: tuple[Callable[[np.random.Generator, int], Values], ...] = (
    uniform,
    laplace,
    normal,
    constant,
    alternating,
    ramp,
    palette,
    ties,
    drifting,
    outlier,
    long_runs,
    bursts,
)


def piece(rng: np.random.Generator, n: int) -> Values:
    """`n` weights of one kind, some of them set to zero."""
    kind = KINDS[int(rng.integers(len(KINDS)))]
    values = kind(rng, n)
    zeros = float(rng.choice(ZERO_FRACTIONS))
    values[rng.random(n) < zeros] = 0
    return values


def tensor_of(rng: np.random.Generator, n: int) -> Values:
    """`n` > 0 weights in one to many pieces."""
    pieces = [piece(rng, n)] if rng.random() < 0.4 else []
    while sum(map(len, pieces)) < n:
        pieces.append(piece(rng, int(rng.integers(1, max(2, n // 2) + 1))))
    return np.concatenate(pieces)[:n]


def tensor(rng: np.random.Generator, most: int) -> Values:
    """1..`most` weights, as many short tensors as long ones."""
    return tensor_of(rng, int(np.exp(rng.uniform(0, np.log(most + 1)))))


def corner_cases() -> dict[str, Values]:
    """Tensors at the limits of the format and of the encoders' rules, by name."""
    rng = np.random.default_rng(7)
    cases = {f"single_{v}": np.array([v]) for v in (0, 1, -1, 2, 127, -128, 255, -255)}
    cases |= {f"zeros_{n}": np.zeros(n) for n in (2, 7, 8, 63, 64, 1000, 32768, 131073)}
    cases |= {f"constant_{n}": np.full(n, -3) for n in (2, 11, 12, 13, 32767, 32768, 65535)}
    for size in (1, 2, 16, 31, 32, 33):
        values = np.resize(np.arange(1, size + 1) * np.resize([1, -1], size), 900)
        cases[f"palette_{size}"] = values
        cases[f"palette_{size}_and_zeros"] = np.where(rng.random(900) < 0.2, 0, values)
        cases[f"palette_{size}_in_zeros"] = np.where(rng.random(900) < 0.9, 0, values)
    cases["all_values"] = np.arange(-255, 256)
    cases["all_values_shuffled"] = rng.permutation(np.resize(np.arange(-255, 256), 5110))
    cases["one_outlier"] = np.where(np.arange(4000) == 2500, 255, rng.integers(-1, 2, 4000))
    cases["outliers_at_both_ends"] = np.concatenate([[-255], rng.integers(-1, 2, 500), [255]])
    cases["weight_then_zeros"] = np.concatenate([[9], np.zeros(5000)])
    cases["zeros_then_weight"] = np.concatenate([np.zeros(5000), [9]])
    cases["weights_then_zeros"] = np.concatenate([np.arange(1, 34), np.zeros(3000)])
    cases["sparse_then_dense"] = np.concatenate([rng.random(900) < 0.02, laplace(rng, 900)])
    cases["no_small_values"] = rng.integers(40, 60, 2000) * rng.choice([-1, 1], 2000)
    for n in BORDERS:
        dense = rng.integers(-3, 4, n)
        cases[f"dense_{n}"] = dense
        cases[f"sparse_{n}"] = np.where(rng.random(n) < 0.97, 0, dense)
    return {name: values.astype(np.int16) for name, values in cases.items()}


# --- streams no encoder writes ----------------------------------------------------------------


def _random_palette(rng: np.random.Generator) -> Palette:
    size = int(rng.choice([0, 0, 2, 3, 5, 16, 17, 31, 32]))
    bits = int(rng.integers(f.PALETTE_BITS_MIN, f.PALETTE_BITS_MAX + 1))
    entries = rng.integers(0, 1 << bits, size).tolist()
    offset = int(rng.choice([0, 0, 1, 2, 30, 31]))
    return Palette(bool(rng.random() < 0.5), offset, bits, entries, only_palette=False)


def _random_slice(rng: np.random.Generator, palette: Palette, n: int) -> tuple[Slice, list[int]]:
    """Any configuration, and `n` weight indices that it can code."""
    wdiv = int(rng.choice([*range(f.WDIV_MAX + 1), f.WDIV_RAW]))
    part = Slice(n, wdiv, int(rng.integers(2)), int(rng.integers(f.ZDIV_MAX + 1)))
    header = SliceHeader(0, 0, n, wdiv, part.wtrunc, 1, 0, palette.palette_bits, palette.entries)
    quotients = f.QUOTIENT_TRUNC_MAX if part.wtrunc else f.QUOTIENT_MAX
    codable = (1 if header.raw else quotients + 1) << header.index_bits
    allowed = f.FOLDED_MAX + 1 + len(palette.entries) - palette.direct_offset
    top = min(codable, allowed)
    if rng.random() < 0.5:
        top = min(top, max(1, 3 << header.index_bits))  # most quotients small, as in real streams
    indices = rng.integers(0, top, n)
    indices[rng.random(n) < 0.05] = min(codable, allowed) - 1
    return part, indices.tolist()


def _random_runs(rng: np.random.Generator, n: int) -> list[int]:
    mean = float(rng.choice([0.2, 1, 5, 60]))
    runs = rng.geometric(1 / (1 + mean), n) - 1
    runs[rng.random(n) < 0.01] = 3000
    return runs.tolist()


def random_section(rng: np.random.Generator, most: int) -> Section:
    """A section that the format allows, whether or not an encoder would choose it.

    Palettes hold repeated entries and minus zeros, slices change every parameter they may.
    """
    palette = _random_palette(rng)
    slices, indices = [], []
    for _ in range(int(rng.integers(1, 5))):
        n = int(np.exp(rng.uniform(0, np.log(most + 1))))
        part, chosen = _random_slice(rng, palette, n)
        slices.append(part)
        indices += chosen
    return Section(palette, indices, _random_runs(rng, len(indices) + 1), slices)


def section_values(section: Section) -> Values:
    """The weights that a section stands for."""
    from npusim.weights.reference import SliceHeader, index_weight

    header = SliceHeader(
        0, 0, 1, 0, 0, 1, section.palette.direct_offset, 2, section.palette.entries
    )
    weights = [index_weight(header, x, 0) for x in section.indices]
    if not section.palette.zero_runs:
        return np.array(weights, np.int16)
    ends = np.cumsum(np.array(section.runs) + 1)
    values = np.zeros(ends[-1] - 1, np.int16)
    values[ends[:-1] - 1] = weights
    return values
