# SPDX-License-Identifier: Apache-2.0
"""Bounds by hand, and that schemes keep to them, or get below where they may."""

from __future__ import annotations

import numpy as np
import pytest

from npusim import schemes
from npusim.errors import ConfigError
from npusim.schemes.bounds import BOUNDS, bounds
from npusim.weights import binary_entropy_bits

RNG = np.random.default_rng(3)
N = 400_000
LAPLACE = np.rint(RNG.laplace(0, 12, N)).clip(-127, 127).astype(np.int16)


def test_by_hand():
    # a mask of 8 bits; half of 16 weights times 8 bits; 16 weights of entropy 1.5
    values = [0] * 8 + [1] * 4 + [-1] * 4
    assert bounds(values, 8) == {"entropy": 3, "mask-entropy": 2, "mask-raw": 10}
    assert bounds(np.empty(0, int), 8) == dict.fromkeys(BOUNDS, 0)
    assert bounds([7] * 9, 4) == {"entropy": 0, "mask-entropy": 0, "mask-raw": 5}


@pytest.mark.parametrize("zeros", [0.1, 0.5, 0.75, 0.9, 0.98])
def test_an_arithmetic_coded_mask_reaches_its_entropy_to_two_decimals(zeros):
    values = np.where(RNG.random(N) < zeros, 0, LAPLACE)
    share = np.count_nonzero(values) / N
    found = 8 * schemes.get("mask-arithmetic").mask_bytes(values) / N
    assert found == pytest.approx(float(binary_entropy_bits(share)), abs=1e-3)
    raw = schemes.get("mask-arithmetic", nonzeros="raw").size(values)
    assert raw == pytest.approx(bounds(values, 8)["mask-raw"], rel=1e-3)


@pytest.mark.parametrize("zeros", [0, 0.5, 0.75, 0.9])
def test_the_best_lossless_scheme_is_within_two_percent_of_entropy(zeros):
    values = np.where(RNG.random(N) < zeros, 0, LAPLACE)
    entropy = bounds(values, 8)["entropy"]
    assert 1 <= schemes.get("cabac").size(values) / entropy < 1.01
    assert 1 <= schemes.get("rans", precision=14).size(values) / entropy < 1.02


def test_order_zero_codes_stay_above_and_adaptive_ones_need_not():
    drifting = np.concatenate([LAPLACE // 16, LAPLACE])
    entropy = bounds(drifting, 8)["entropy"]
    assert schemes.get("huffman").size(drifting) >= entropy
    assert schemes.get("rans").size(drifting) >= entropy
    assert schemes.get("cabac").size(drifting) < entropy


def test_errors():
    with pytest.raises(ConfigError, match=r"^bits must be in 1\.\.9, got 0$"):
        bounds([1], 0)
    with pytest.raises(ConfigError, match=r"^weights must be in -255\.\.255, got 256$"):
        bounds([256], 8)
