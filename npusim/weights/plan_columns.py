# SPDX-License-Identifier: Apache-2.0
"""Columns of a plan's `sections`, one row a palette section (its arrays: section_kernels.py)."""

from __future__ import annotations

START, FIRST, N_WEIGHTS, ZERO_RUNS, N_ENTRIES = range(5)
"""First weight, first index, indices, whether zero runs are coded, palette entries."""
PALETTE_BITS, DIRECT_OFFSET, RAW_BITS, HIGHEST, N_SLICES = range(5, 10)
"""As in the palette header; width of raw indices or -1; highest index; slices."""
SECTION_COLUMNS = 10
