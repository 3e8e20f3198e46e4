# SPDX-License-Identifier: Apache-2.0
"""Batches cost what `npusim.estimate` does, network by network and machine by machine."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
from deep_networks import FAMILIES, DeepNetwork
from random_graphs import KINDS, RandomGraph
from random_networks import equal_weights

from npusim.cost import batch as batches
from npusim.cost import batch_tables
from npusim.cost.batch import Batch, BatchCost, BatchEstimator, estimate_batch
from npusim.cost.estimate import estimate
from npusim.cost.lowering import program
from npusim.cost.program import Program
from npusim.cost.weight_sizes import ExpectedSizes
from npusim.errors import ConfigError, UnknownNameError
from npusim.hardware import Machine, machine
from npusim.npu import names
from npusim.weights.expected import WeightStatistics

STATISTICS = WeightStatistics(bits=6, nonzero_fraction=0.7)
SYSTEMS = (
    ("Ethos_U55_High_End_Embedded", "Shared_Sram"),
    ("Ethos_U55_Deep_Embedded", "Sram_Only"),
    ("Ethos_U55_Deep_Embedded", "Shared_Sram"),
)
MACHINES = [machine(npu, *SYSTEMS[i % 3]) for i, npu in enumerate((*names()[:4], *names()[1:3]))]


def deep(seed: int) -> Program:
    rng = np.random.default_rng((7, seed))
    return program(DeepNetwork(rng, list(FAMILIES)[seed % len(FAMILIES)]).build())


def graph(seed: int) -> Program:
    network = RandomGraph(np.random.default_rng((8, seed)), list(KINDS), 10).build()
    return deep(seed) if network is None else program(network)


def totals(programs: Sequence[Program], targets: Sequence[Machine]) -> dict[str, np.ndarray]:
    """What a batch tells, found one by one."""
    costs = [
        [estimate(one, target, weights=ExpectedSizes(target.npu, STATISTICS)) for target in targets]
        for one in programs
    ]
    return {
        name: np.array([[getattr(cost, name) for cost in row] for row in costs])
        for name in batches.MEASURES
    }


def assert_same(found: BatchCost, wanted: dict[str, np.ndarray]) -> None:
    for name, values in wanted.items():
        if name != "sram_peak_bytes":
            np.testing.assert_array_equal(getattr(found, name), values, err_msg=name)
    gaps = wanted["sram_peak_bytes"] - found.sram_peak_bytes
    assert (gaps >= 0).all()  # an arena may need gaps
    assert (gaps == 0).mean() >= 0.95


def assert_equal(found: BatchCost, wanted: BatchCost) -> None:
    for name in (*batches.MEASURES, "macs"):
        np.testing.assert_array_equal(getattr(found, name), getattr(wanted, name), err_msg=name)


def test_deep_networks_cost_what_each_costs_alone() -> None:
    programs = [deep(seed) for seed in range(12)]
    found = estimate_batch(Batch.of(programs, STATISTICS), MACHINES)
    assert_same(found, totals(programs, MACHINES))
    assert found.macs.tolist() == [sum(op.macs for op in one.ops) for one in programs]


def test_graphs_of_all_operations_cost_what_each_costs_alone() -> None:
    programs = [graph(seed) for seed in range(25)]
    found = estimate_batch(Batch.of(programs, STATISTICS), MACHINES[:3])
    assert_same(found, totals(programs, MACHINES[:3]))


def test_equal_weights_cost_what_each_costs_alone() -> None:
    programs = [program(equal_weights(seed)) for seed in range(8)]
    found = estimate_batch(Batch.of(programs, STATISTICS), MACHINES)
    assert_same(found, totals(programs, MACHINES))


@pytest.mark.slow
def test_many_graphs_cost_what_each_costs_alone() -> None:
    programs = [graph(seed) for seed in range(100, 400)] + [deep(seed) for seed in range(100, 200)]
    found = estimate_batch(Batch.of(programs, STATISTICS), MACHINES)
    assert_same(found, totals(programs, MACHINES))


def test_what_an_estimator_knows_changes_nothing() -> None:
    first, second = (Batch.of([deep(s) for s in seeds], STATISTICS) for seeds in ((0, 1), (1, 2)))
    estimator = BatchEstimator(MACHINES[:2])
    estimator(first)
    assert_equal(estimator(second), estimate_batch(second, MACHINES[:2]))
    assert_equal(estimator(first), estimate_batch(first, MACHINES[:2]))


def test_tables_that_are_full_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    batch = Batch.of([deep(seed) for seed in range(10)], STATISTICS)
    wanted = estimate_batch(batch, MACHINES[0])
    for name, value in (("_PLANS_MIN", 2), ("_PLANS_MAX", 8), ("_KNOWN_MIN", 2), ("_AT_ONCE", 3)):
        monkeypatch.setattr(batch_tables, name, value)
    estimator = BatchEstimator(MACHINES[0])
    assert_equal(estimator(batch), wanted)
    entries = estimator.entries(batch)
    monkeypatch.setattr(batch_tables, "_KNOWN_MAX", 1)
    assert_equal(estimator(batch), wanted)
    assert_equal(estimator.costs(batch, entries), wanted)  # of numbers that are forgotten


@pytest.mark.parametrize("sram", [True, False])
def test_many_machines_cost_what_few_do(monkeypatch: pytest.MonkeyPatch, sram: bool) -> None:
    batch = Batch.of([graph(seed) for seed in range(8)], STATISTICS)
    small = machine("ethos-u55-64", overrides={"shram_banks": 8})  # where something does not fit
    targets = [*MACHINES, machine(overrides={"sram_bytes_per_cycle": 2}), small]
    wanted = BatchEstimator(targets, sram=sram)(batch)
    monkeypatch.setattr(batches, "_KEPT_MACHINES_MAX", 1)
    assert_equal(BatchEstimator(targets, sram=sram)(batch), wanted)
    for name, value in (("_PLANS_MIN", 2), ("_PLANS_MAX", 8), ("_AT_ONCE", 3)):
        monkeypatch.setattr(batch_tables, name, value)
    assert_equal(BatchEstimator(targets, sram=sram)(batch), wanted)


def test_without_sram_the_rest_is_the_same() -> None:
    batch = Batch.of([deep(0)], STATISTICS)
    whole, part = estimate_batch(batch), BatchEstimator(sram=False)(batch)
    assert part.total_cycles == whole.total_cycles
    assert part.flash_bytes == whole.flash_bytes
    assert part.sram_peak_bytes == 0 < whole.sram_peak_bytes


def test_a_network_that_does_not_fit_is_marked() -> None:
    small = machine("ethos-u55-128", overrides={"shram_banks": 8})
    batch = Batch.of([deep(0)], STATISTICS)
    with pytest.raises(ConfigError, match="SHRAM"):
        estimate(deep(0), small, weights=ExpectedSizes(small.npu, STATISTICS))
    found = estimate_batch(batch, [small, MACHINES[0]])
    assert found.fits.tolist() == [[False, True]]
    assert found.total_cycles[0, 0] == found.flash_bytes[0, 0] == found.sram_peak_bytes[0, 0] == -1
    assert np.isnan(found.inference_s[0, 0])
    assert found.inference_s[0, 1] == found.total_cycles[0, 1] / MACHINES[0].clock_hz


def test_errors() -> None:
    with pytest.raises(ConfigError, match="networks must be one or more"):
        Batch.of([])
    with pytest.raises(ConfigError, match="machines must be one or more"):
        BatchEstimator([])
    spilling = machine("ethos-u65-256", "Ethos_U65_High_End", "Dedicated_Sram")
    with pytest.raises(ConfigError, match="must keep feature maps where weights are staged, got"):
        BatchEstimator([MACHINES[0], spilling])
    limited = machine("ethos-u55-128", overrides={"arena_cache_size_bytes": 5000})
    with pytest.raises(ConfigError, match="must have arenas without limit, got 5000 bytes in"):
        BatchEstimator(limited)
    with pytest.raises(UnknownNameError, match="ethos-u77"):
        BatchEstimator("ethos-u77")
    with pytest.raises(UnknownNameError, match="weight statistics"):
        Batch.of([deep(0)], {"other": STATISTICS})
