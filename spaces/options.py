# SPDX-License-Identifier: Apache-2.0
"""The options of the paper's spaces, which layers with weights decide between.

Source: [UDC] section 6: width in increments of 10% of the original, bitwidth (1, 4, 8, 32),
sparsity 1 - 100% non-zeros in increments of 10%.
"""

from __future__ import annotations

WIDTHS = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0)
BITWIDTHS = (1, 4, 8, 32)
SPARSITIES = (0.01, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0)
DEPLOYABLE_BITWIDTHS = (1, 2, 4, 8)
"""Bitwidths that an NPU with 8-bit weights can run; the paper's include 32."""
