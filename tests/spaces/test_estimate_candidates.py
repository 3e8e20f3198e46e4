# SPDX-License-Identifier: Apache-2.0
"""Candidates through the cost model, against networks that have weights."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

import spaces
from npusim.cost.estimate import estimate as estimate_program
from npusim.errors import UnknownNameError
from spaces.estimate import estimate
from spaces.lower import lower


@pytest.mark.parametrize(
    ("name", "options"),
    [("digits", {}), ("cifar100", {"multiplier": 1}), ("imagenet", {"image": 64, "widen": 0.25})],
)
def test_bounds_are_near_what_weights_of_that_entropy_take(name, options):
    """Every level of 8-bit weights equally frequent: the bound is reached, the encoder is near."""
    space = spaces.get(name, **options)
    full = space.from_options(
        {d.name: 8 if d.kind == "bitwidth" else d.options[-1] for d in space.decisions}
    )
    found = estimate(space, full)
    rng = np.random.default_rng(0)
    lowered = lower(space, full)

    def with_weights(op):
        if op.weights is None or op.weights.ohwi is not None:
            return op
        values = rng.integers(-127, 128, op.weights.shape).astype(np.int16)
        return replace(op, weights=replace(op.weights, ohwi=lambda: values, tensor=None))

    real = replace(lowered.program, ops=tuple(map(with_weights, lowered.program.ops)))
    exact = estimate_program(real)
    assert found.flash_bytes == pytest.approx(exact.flash_bytes, rel=0.12)  # padding of channels
    assert found.total_cycles == pytest.approx(exact.total_cycles, rel=0.05)
    assert found.sram_peak_bytes == pytest.approx(exact.sram_peak_bytes, rel=0.1)
    assert found.macs == exact.macs


def test_compressed_weights_take_less_flash_and_not_more_cycles():
    space = spaces.get("cifar100", multiplier=1)
    full = space.options_of(space.largest())
    dense = estimate(space, space.from_options({**full, **{k: 8 for k in full if "bit" in k}}))
    options = {
        k: {"bitwidth": 4, "sparsity": 0.5}.get(k.split(".")[-1], v) for k, v in full.items()
    }
    compressed = estimate(space, space.from_options(options))
    assert compressed.flash_bytes < 0.45 * dense.flash_bytes  # 3 bits instead of 8, and scales
    assert compressed.total_cycles <= dense.total_cycles
    assert compressed.macs == dense.macs


def test_unknown_npus_are_refused():
    space = spaces.get("digits")
    with pytest.raises(UnknownNameError, match="ethos-u55-129"):
        estimate(space, space.largest(), "ethos-u55-129")
