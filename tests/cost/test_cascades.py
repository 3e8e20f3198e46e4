# SPDX-License-Identifier: Apache-2.0
"""Arena limits and the smallest arena: stripes and cascades against Arm's compiler."""

from __future__ import annotations

import csv
from collections.abc import Iterator

import numpy as np
import pytest
import regor_oracle as oracle
from deep_networks import FAMILIES, DeepNetwork

from npusim.cost.cascades import input_rows
from npusim.cost.estimate import estimate
from npusim.cost.result import Cost
from npusim.cost.rows import table
from npusim.errors import ConfigError, UnknownNameError
from npusim.formats import load
from npusim.network import Network
from npusim.npu import names

NPUS = names()[:4]


def random_network(seed: int) -> tuple[Network, str]:
    rng = np.random.default_rng((11, seed))
    family = list(FAMILIES)[seed % len(FAMILIES)]
    return DeepNetwork(rng, family).build(), str(rng.choice(NPUS))


def compared(seed: int) -> Iterator[tuple[str, int, int, int, int]]:
    """For the smallest arena and a limit: (what, cycles and arena of the compiler, and ours)."""
    network, npu = random_network(seed)
    free = estimate(network, npu)
    limit = int(0.7 * free.sram_peak_bytes)
    for optimise, most in (("size", None), ("performance", limit)):
        options = {"optimise": optimise} | ({} if most is None else {"limit_bytes": most})
        report = oracle.compile_model(network, npu, **options).perf_report
        if report.cpuOps:
            continue
        found = estimate(network, npu, optimise=optimise, arena_limit_bytes=most)
        arena = report.memories["Sram"].peakUsage
        what = f"seed {seed}, {npu}, {optimise}, {most}"
        yield what, report.totalCycles, arena, found.total_cycles, found.sram_peak_bytes


def differences(seeds: range) -> tuple[list[str], int]:
    """What differs by more than a cycle an operation, or in the arena; how many were tried."""
    wrong, n = [], 0
    for seed in seeds:
        for what, cycles, arena, our_cycles, our_arena in compared(seed):
            n += 1
            if abs(our_cycles / cycles - 1) > 1e-4 or our_arena != arena:
                wrong.append(f"{what}: cycles {cycles}, {our_cycles}; arena {arena}, {our_arena}")
    return wrong, n


def test_random_networks():
    wrong, n = differences(range(8))
    assert n >= 12
    assert wrong == []


@pytest.mark.slow
def test_many_random_networks():
    wrong, n = differences(range(100, 300))
    assert n > 300
    assert len(wrong) <= 0.02 * n, wrong


@pytest.mark.data
def test_real_models(models_dir):
    n, networks = 0, {}
    with (models_dir.parent / "oracle" / "summary.csv").open(newline="") as lines:
        for row in csv.DictReader(lines):
            if not row["acc"].startswith("ethos-u55") or (
                row["opt"] != "Size" and not row["arena"]
            ):
                continue
            name = row["model"]
            network = networks.setdefault(name, load(models_dir / f"{name}.tflite"))
            limit = int(float(row["arena"])) if row["arena"] else None
            cost = estimate(
                *(network, row["acc"], row["sys"], row["mem"]),
                optimise=row["opt"].lower(),
                arena_limit_bytes=limit,
            )
            assert cost.sram_peak_bytes == int(float(row["Sram_peak"])), (name, limit)
            assert cost.total_cycles == pytest.approx(float(row["total_cycles"]), rel=1e-4)
            assert cost.fits == (limit is None or int(float(row["Sram_peak"])) <= limit)
            n += 1
    assert n > 100


@pytest.fixture(scope="module")
def costs() -> dict[str, Cost]:
    network, npu = random_network(0)
    free = estimate(network, npu)
    return {
        "free": free,
        "size": estimate(network, npu, optimise="size"),
        "loose": estimate(network, npu, arena_limit_bytes=2 * free.sram_peak_bytes),
        "impossible": estimate(network, npu, arena_limit_bytes=16),
    }


class TestCosts:
    def test_less_memory_costs_cycles(self, costs):
        assert costs["size"].sram_peak_bytes < costs["free"].sram_peak_bytes
        assert costs["size"].total_cycles >= costs["free"].total_cycles
        assert any(op.cascade for op in costs["size"].ops)
        assert not any(op.cascade for op in costs["free"].ops)

    def test_a_loose_limit_changes_nothing(self, costs):
        assert costs["loose"].ops == costs["free"].ops
        assert costs["loose"].fits

    def test_what_does_not_fit_says_so(self, costs):
        assert not costs["impossible"].fits
        assert costs["impossible"].sram_peak_bytes > 16

    def test_stripes_are_no_higher_than_the_ofm(self, costs):
        for op in costs["size"].ops:
            assert 1 <= op.stripe_height <= op.ofm_shape[0]
            assert op.cascade or op.stripe_height == op.ofm_shape[0]


@pytest.mark.parametrize("limit", [0, -1, 1.5, True])
def test_limits_that_are_none(limit):
    network, npu = random_network(0)
    with pytest.raises(ConfigError, match="arena_limit_bytes must be"):
        estimate(network, npu, arena_limit_bytes=limit)


def test_unknown_optimisation():
    network, npu = random_network(0)
    with pytest.raises(UnknownNameError, match="did you mean 'size'"):
        estimate(network, npu, optimise="sise")


def test_rows_that_a_stripe_needs():
    (row,) = table(
        1,
        unit=0,
        **{"ifm_height": 20, "ifm_width": 9, "ifm_depth": 8},
        **{"ofm_height": 9, "ofm_width": 9, "ofm_depth": 8},
        **{"kernel_height": 3, "kernel_width": 3, "stride_height": 2, "dilation_height": 2},
    )
    assert [input_rows(row, n) for n in (1, 2, 9)] == [5, 7, 20]
