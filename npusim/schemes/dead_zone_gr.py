# SPDX-License-Identifier: Apache-2.0
"""Golomb-Rice codes that skip the gap that pruning leaves around zero."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Final

import numpy as np

from npusim.schemes.base import Scheme, Values
from npusim.schemes.bitstream import BitReader, BitWriter, checked_levels, rice_bits
from npusim.schemes.decoder import Decoder, Symbols
from npusim.schemes.mask_rle_gr import best_k, pair_symbols, put_pairs, split, take_pairs
from npusim.schemes.statistics import (
    CODE_MAX,
    CODES,
    VALUE_MAX,
    Int64Array,
    nonzero_values,
    value_counts,
    zero_runs,
)

_K_BITS = 5
_DEAD_BITS = 8
_NO_RUNS: Final = 31
"""In the place of the runs' k: every weight has a code, zeros the shortest."""


@dataclass(frozen=True, slots=True)
class DeadZoneGr(Scheme):
    """`mask-rle-gr` whose codes begin at the least magnitude there is, or without runs.

    A header holds the runs' k in 5 bits, 31 for no runs, the weights' k in 5 bits, and in 8 bits
    how many magnitudes from 1 on do not occur. With runs the weights' codes are less by twice that;
    without, weights 0, 1, -1, 2 ... are coded as 0, 1, 2, 3 ..., and the number is 0. What takes
    less is chosen.

    Source: npusim's own, from docs/compression_study.md.

    >>> DeadZoneGr().encode([0, 0, 90, 0, -91, 0, 0, 0]).hex()
    '0164e968'
    """

    name: ClassVar[str] = "dead-zone-gr"

    @property
    def decoder(self) -> Decoder:
        """As of `mask-rle-gr`, and an adder."""
        return Decoder(
            symbol="run and non-zero",
            bits_per_cycle=32,
            weights_per_cycle=16,
            area_ge_low=2100,
            area_ge_high=6300,
        )

    def _size(self, values: Values) -> int:
        counts = value_counts(values)
        whole = rice_bits(_codes_of_all(), counts)[1]
        counts[VALUE_MAX] = 0
        runs = zero_runs(values)
        lengths, n_runs = runs.lengths, runs.counts
        if runs.last:
            lengths, n_runs = np.append(lengths, runs.last), np.append(n_runs, 1)
        codes = np.maximum(CODES - 2 * _dead(counts), 0)  # below, there are none
        apart = rice_bits(lengths, n_runs)[1] + rice_bits(codes, counts)[1]
        return -(-(2 * _K_BITS + _DEAD_BITS + min(apart, whole)) // 8)

    def _encode(self, values: Values) -> bytes:
        form, out = _Form.of(values), BitWriter()
        out.fields([form.k_run, form.k_code], _K_BITS)
        out.fields([form.dead], _DEAD_BITS)
        if form.k_run == _NO_RUNS:
            out.rice(form.codes, form.k_code)
        else:
            put_pairs(out, form.runs, form.codes, form.k_run, form.k_code)
        return out.to_bytes()

    def _decode(self, stream: bytes, n: int) -> Values:
        reader = BitReader(stream)
        k_run, k_code = reader.fields(2, _K_BITS).tolist()
        dead = reader.field(_DEAD_BITS)
        with_runs = k_run != _NO_RUNS
        if k_code > 15 or (k_run > 15 and with_runs) or dead >= (VALUE_MAX if with_runs else 1):
            raise reader.error("header must hold two divisors and a magnitude, got others")
        if with_runs:
            values = take_pairs(reader, n, k_run, k_code, CODE_MAX - 2 * dead)
            values += np.sign(values) * np.int16(dead)
        else:
            codes = reader.rice(n, k_code, CODE_MAX + 1)
            levels = np.where(codes, nonzero_values(codes - 1), 0)
            values = checked_levels(levels, reader, *self.value_range)
        reader.finish()
        return values

    def _symbols(self, values: Values) -> Symbols:
        form = _Form.of(values)
        if form.k_run != _NO_RUNS:
            return pair_symbols(form.runs, form.codes, form.k_run, form.k_code)
        return Symbols.of((form.codes >> form.k_code) + 1 + form.k_code, np.ones_like(form.codes))


@dataclass(frozen=True, slots=True)
class _Form:
    """Header and codes of some weights."""

    k_run: int
    k_code: int
    dead: int
    runs: Int64Array
    codes: Int64Array

    @classmethod
    def of(cls, values: Values) -> _Form:
        counts, (runs, codes) = value_counts(values), split(values)
        k_all, whole = rice_bits(_codes_of_all(), counts)
        counts[VALUE_MAX] = 0
        dead = _dead(counts)
        k_run, k_code = best_k(runs), best_k(codes - 2 * dead)
        apart = rice_bits(runs, np.ones_like(runs))[1]
        apart += rice_bits(codes - 2 * dead, np.ones_like(codes))[1]
        if whole < apart:
            none = np.empty(0, np.int64)
            return cls(_NO_RUNS, k_all, 0, none, _codes_of_all()[values.astype(int) + VALUE_MAX])
        return cls(k_run, k_code, dead, runs, codes - 2 * dead)


def _codes_of_all() -> Int64Array:
    """Of each weight -255..255, zero among them."""
    codes = CODES + 1
    codes[VALUE_MAX] = 0
    return codes


def _dead(counts: Int64Array) -> int:
    """How many magnitudes from 1 on do not occur; 0 without non-zeros. Zeros are not counted."""
    magnitudes = counts[VALUE_MAX + 1 :] + counts[VALUE_MAX - 1 :: -1]
    return int(np.argmax(magnitudes != 0))
