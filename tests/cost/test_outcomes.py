# SPDX-License-Identifier: Apache-2.0
"""Costs where a few bytes of weights that are not known decide about a buffer."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
from deep_networks import FAMILIES
from test_expected_costs import TrainedNetwork

from npusim.cost import batch as batches
from npusim.cost.batch import Batch, BatchEstimator, estimate_batch
from npusim.cost.estimate import estimate
from npusim.cost.lowering import program
from npusim.cost.outcomes import OUTCOMES, mean_outcome
from npusim.cost.program import NpuOp, Program
from npusim.cost.weight_sizes import ExpectedSizes, Int64Array
from npusim.errors import ConfigError
from npusim.hardware import Machine, machine
from npusim.npu import names
from npusim.weights.expected import DEVIATION, TRAINED

OPEN = (109, 174, 317, 784)
"""Seeds of networks whose first buffer is uncertain."""


def trained(seed: int) -> tuple[Program, Machine]:
    rng = np.random.default_rng((5, seed))
    network = TrainedNetwork(rng, list(FAMILIES)[seed % len(FAMILIES)]).build()
    return program(network), machine(names()[seed % 4])


class FirstDeviates:
    """Expected sizes, but for those of the first weights of a program."""

    def __init__(self, lowered: Program, target: Machine, deviations: float):
        self.first = next(op for op in lowered.ops if op.weights is not None)
        self.expected = ExpectedSizes(target.npu)
        self.deviating = ExpectedSizes(target.npu, deviations=deviations)

    def slices(
        self, op: NpuOp, ifm_bits: int, block_depth: int, depths: Sequence[int]
    ) -> Int64Array:
        sizes = self.deviating if op is self.first else self.expected
        return sizes.slices(op, ifm_bits, block_depth, depths)


@pytest.mark.parametrize("seed", OPEN)
def test_the_mean_of_both_outcomes_is_expected(seed: int) -> None:
    lowered, target = trained(seed)
    both = [
        estimate(lowered, target, weights=FirstDeviates(lowered, target, one)) for one in OUTCOMES
    ]
    totals = [cost.total_cycles for cost in both]
    cost = estimate(lowered, target, weights=ExpectedSizes(target.npu))
    assert cost.cycles_range == (min(totals), max(totals))
    assert cost.total_cycles == sum(totals) // 2 == sum(op.cycles for op in cost.ops)
    assert cost.npu_cycles == sum(one.npu_cycles for one in both) // 2
    assert f"between {min(totals):,} and {max(totals):,}" in " ".join(cost.notes)
    assert cost.to_json()["cycles_range"] == sorted(totals)


def test_known_weights_limits_and_most_networks_leave_nothing_open() -> None:
    lowered, target = trained(OPEN[0])
    sizes = ExpectedSizes(target.npu)
    for cost in (
        estimate(lowered, target),
        estimate(lowered, target, weights=sizes, optimise="size"),
        estimate(lowered, target, weights=ExpectedSizes(target.npu, deviations=1)),
        estimate(trained(3)[0], target, weights=sizes),
    ):
        assert cost.cycles_range == (cost.total_cycles, cost.total_cycles)
        assert not [note for note in cost.notes if "between" in note]


def test_cycles_of_the_cpu_are_in_the_range() -> None:
    lowered, target = trained(OPEN[0])
    sizes = ExpectedSizes(target.npu)
    bare = estimate(lowered, target, weights=sizes)
    cost = estimate(lowered, target, weights=sizes, cpu_cycles=lambda op: 1000)
    more = 1000 * cost.n_cpu_ops
    assert cost.cycles_range == tuple(cycles + more for cycles in bare.cycles_range)


def test_batches_have_the_same_range(monkeypatch: pytest.MonkeyPatch) -> None:
    programs = [trained(seed)[0] for seed in (*OPEN, 3)]
    targets = [machine(name) for name in names()[:4]]
    found = estimate_batch(Batch.of(programs, TRAINED), targets)
    assert (found.cycles_range[..., 0] < found.cycles_range[..., 1]).sum() >= len(OPEN)
    for i, lowered in enumerate(programs):
        for j, target in enumerate(targets):
            cost = estimate(lowered, target, weights=ExpectedSizes(target.npu))
            assert tuple(found.cycles_range[i, j]) == cost.cycles_range
            assert found.total_cycles[i, j] == cost.total_cycles
            assert found.npu_cycles[i, j] == cost.npu_cycles
    monkeypatch.setattr(batches, "_KEPT_MACHINES_MAX", 1)
    again = BatchEstimator(targets)(Batch.of(programs, TRAINED))
    np.testing.assert_array_equal(again.cycles_range, found.cycles_range)
    np.testing.assert_array_equal(again.total_cycles, found.total_cycles)


def test_the_total_of_means_is_the_mean_of_totals() -> None:
    first, second = np.random.default_rng(0).integers(0, 1 << 40, (2, 99))
    found = mean_outcome(first, second)
    assert found.sum() == (first.sum() + second.sum()) // 2
    assert np.abs(2 * found - first - second).max() <= 1
    np.testing.assert_array_equal(mean_outcome(first, first), first)


def test_deviations_are_of_all_streams() -> None:
    lowered, target = trained(3)
    lower, middle, higher = (
        estimate(lowered, target, weights=ExpectedSizes(target.npu, deviations=one))
        for one in (-1, 0, 1)
    )
    for other, sign in ((lower, -1), (higher, 1)):
        ratio = other.weights_encoded_bytes / middle.weights_encoded_bytes
        assert DEVIATION / 3 < sign * (ratio - 1) < DEVIATION * 4 / 3  # streams are padded
    assert higher.notes[0].endswith("bell-shaped weights of 8 bits, +1 deviations")
    with pytest.raises(ConfigError, match=r"deviations must be in -3\.\.3, got 4"):
        ExpectedSizes(target.npu, deviations=4)
