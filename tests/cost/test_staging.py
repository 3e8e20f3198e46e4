# SPDX-License-Identifier: Apache-2.0
"""Feature maps in DRAM and in the staging memory of an Ethos-U65, against Arm's compiler."""

from __future__ import annotations

import csv
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace

import numpy as np
import pytest
import regor_oracle as oracle
from deep_networks import FAMILIES, DeepNetwork
from hypothesis import given, settings
from hypothesis import strategies as st
from random_graphs import KINDS, RandomGraph

from npusim.cost import reference_staging as twin
from npusim.cost.cascades import Cascade, visiting_order
from npusim.cost.estimate import estimate
from npusim.cost.result import Cost
from npusim.cost.staging_kernels import choose
from npusim.formats import load
from npusim.hardware import machine
from npusim.network import Network

NPUS = ("ethos-u65-256", "ethos-u65-512")
WHERE = ("Ethos_U65_High_End", "Dedicated_Sram")
CONTENTS = {"feature_maps": "FeatureMap", "weights": "Weights", "scales": "Scales"}
TRAFFIC = [
    f"{m}_{c}_{w}" for m in ("Sram", "Dram") for c in CONTENTS.values() for w in ("rd", "wr")
]
often = settings(deadline=None, derandomize=True, max_examples=300)


@dataclass(frozen=True)
class Measured:
    """Cycles, and bytes of SRAM, DRAM and flash."""

    cycles: int
    sram_bytes: int
    dram_bytes: int
    flash_bytes: int

    @classmethod
    def ours(cls, cost: Cost) -> Measured:
        memories = cost.sram_peak_bytes, cost.dram_peak_bytes
        return cls(cost.total_cycles, *memories, cost.flash_bytes)


@st.composite
def rivals(draw: st.DrawFn) -> tuple[np.ndarray, ...]:
    """Ranges in the order of their starts, their worth, a limit, and use without and with them."""
    n, n_steps = draw(st.integers(1, 8)), 12
    starts = sorted(draw(st.lists(st.integers(0, n_steps - 1), min_size=n, max_size=n)))
    ranges = np.array(
        [(s, draw(st.integers(s, n_steps - 1)), 16 * draw(st.integers(1, 40))) for s in starts]
    )
    worth = draw(st.lists(st.integers(0, 9) | st.just((1 << 31) - 1), min_size=n, max_size=n))
    least = draw(st.lists(st.integers(0, 20).map(lambda k: 16 * k), min_size=12, max_size=12))
    most = np.array(least)
    for start, end, n_bytes in ranges:
        most[start : end + 1] += n_bytes
    limit = draw(st.integers(max(least), int(most.max())))
    return ranges, np.array(worth), np.array(limit), np.array(least), most


class TestChoice:
    @given(rivals())
    @often
    def test_kernel_is_its_twin(self, case):
        ranges, worth, limit, least, most = case
        kept = np.zeros(len(ranges), np.int8)
        room = np.zeros((len(ranges) + 1, 3), np.int64)
        usage = least.copy(), most.copy()
        choose(ranges, worth, int(limit), *usage, room, kept)
        want = twin.choose(ranges.tolist(), worth.tolist(), int(limit), *usage)
        assert kept.astype(bool).tolist() == want
        assert (usage[0] == least).all()
        assert (usage[1] == most).all()
        for (start, end, n_bytes), stays in zip(ranges, want, strict=True):
            least[start : end + 1] += n_bytes * stays
        assert least.max() <= limit

    def test_what_is_worth_most_together_stays(self):
        ranges = [(0, 3, 60), (1, 1, 50), (2, 3, 50)]
        least, most = [0] * 4, [60, 110, 110, 110]
        assert twin.choose(ranges, [5, 3, 3], 100, least, most) == [False, True, True]
        assert twin.choose(ranges, [7, 3, 3], 100, least, most) == [True, False, False]


def test_order_in_which_cascades_grow():
    cascades = [Cascade(last - 1, last, 0, 0, {}) for last in (1, 5, 14, 18, 7)]
    assert [one.last for one in visiting_order(cascades)] == [7, 18, 5, 14, 1]
    many = [Cascade(last - 1, last, 0, 0, {}) for last in range(1, 31)]
    assert sorted(one.last for one in visiting_order(many)) == list(range(1, 31))


def traffic(cost: Cost) -> dict[str, int]:
    """Bytes that are moved, by the compiler's names of memory, content and direction."""
    found = dict.fromkeys(TRAFFIC, 0)
    for op in cost.ops:
        for role, one in op.traffic.items():
            for way, n_bytes in (("rd", one.read_bytes), ("wr", one.written_bytes)):
                for what, name in CONTENTS.items():
                    found[f"{role.capitalize()}_{name}_{way}"] += n_bytes.get(what, 0)
    return found


@pytest.mark.data
def test_real_models(models_dir):
    n, networks = 0, {}
    with (models_dir.parent / "oracle" / "summary.csv").open(newline="") as lines:
        for row in csv.DictReader(lines):
            if row["acc"] not in NPUS or not row["mem"].startswith("Dedicated"):
                continue
            name = row["model"]
            network = networks.setdefault(name, load(models_dir / f"{name}.tflite"))
            columns = ("total_cycles", "Sram_peak", "Dram_peak", "ro_peak")
            want = Measured(*(int(float(row[column] or 0)) for column in columns))
            cost = estimate(network, row["acc"], row["sys"], row["mem"])
            assert Measured.ours(cost) == want, row
            assert traffic(cost) == {key: int(float(row[key] or 0)) for key in TRAFFIC}, row
            n += 1
    assert n > 40


def deep_network(seed: int) -> tuple[Network, str]:
    rng = np.random.default_rng((77, seed))
    network = DeepNetwork(rng, list(FAMILIES)[seed % len(FAMILIES)]).build()
    return network, str(rng.choice(NPUS))


def random_graph(seed: int) -> tuple[Network | None, str]:
    rng = np.random.default_rng((9, seed))
    kinds, n_ops = list(KINDS), int(rng.integers(3, 12))
    dtype = ("int8", "int8", "int16")[int(rng.integers(3))]
    return RandomGraph(rng, kinds, n_ops, dtype).build(), NPUS[int(rng.integers(2))]


def compared(network: Network, npu: str) -> Iterator[tuple[str, Measured, Measured]]:
    """With staging memories of several sizes: (what, what the compiler says, what we say).

    Without flash, which is the same in every memory mode and compared elsewhere.
    """
    enough = estimate(network, npu, *WHERE).sram_peak_bytes
    for optimise, part in (("performance", 1.0), ("performance", 0.5), ("size", 0.25)):
        limit = max(int(part * enough), 2048)
        options = {"spills": True, "optimise": optimise, "limit_bytes": limit}
        try:
            report = oracle.compile_model(network, npu, **options).perf_report
        except RuntimeError:  # the compiler's own; not of interest here
            continue
        if report.npuOps:
            memories = (
                report.memories[name].peakUsage if name in report.memories else 0
                for name in ("Sram", "Dram")
            )
            flash = report.readOnlyPeakUsage
            theirs = Measured(report.totalCycles, next(memories), next(memories) - flash, 0)
            cost = estimate(network, npu, *WHERE, optimise=optimise, arena_limit_bytes=limit)
            dram = cost.dram_peak_bytes - cost.flash_bytes
            ours = Measured(cost.total_cycles, cost.sram_peak_bytes, dram, 0)
            yield f"{npu}, {optimise}, {limit}", theirs, ours


def differences(networks: Iterator[tuple[int, Network, str]]) -> tuple[list[str], int]:
    """What differs by more than a cycle in ten thousand, or in memory; how many were tried."""
    wrong, n = [], 0
    for seed, network, npu in networks:
        for what, theirs, ours in compared(network, npu):
            n += 1
            cycles = replace(ours, cycles=theirs.cycles)
            if abs(ours.cycles / theirs.cycles - 1) > 1e-4 or cycles != theirs:
                wrong.append(f"seed {seed}, {what}: {theirs}, {ours}")
    return wrong, n


def deep_networks(seeds: Iterable[int]) -> Iterator[tuple[int, Network, str]]:
    for seed in seeds:
        yield seed, *deep_network(seed)


def random_graphs(seeds: Iterable[int]) -> Iterator[tuple[int, Network, str]]:
    for seed in seeds:
        network, npu = random_graph(seed)
        if network is not None:
            yield seed, network, npu


def test_deep_networks():
    wrong, n = differences(deep_networks(range(10)))
    assert n == 30
    assert wrong == []


GRAPHS = (
    *(12, 44, 109),  # parts that the CPU reads
    *(354, 587),  # slopes for each channel, with a map in other shapes
    *(115, 1204, 1448),  # accumulators of sums and transposes in 16 bits
    *(0, 1, 2, 3, 1370),
)


def test_random_graphs():
    wrong, n = differences(random_graphs(GRAPHS))
    assert n >= 24
    assert wrong == []


@pytest.mark.slow
def test_many_deep_networks():
    wrong, n = differences(deep_networks(range(100, 500)))
    assert n > 1100
    assert len(wrong) <= 0.005 * n, wrong


@pytest.mark.slow
def test_many_random_graphs():
    wrong, n = differences(random_graphs(range(1000, 1600)))
    print(f"{len(wrong)} of {n} differ\n" + "\n".join(wrong))
    assert n > 1400
    assert len(wrong) <= 0.03 * n, wrong


@pytest.fixture(scope="module")
def costs() -> dict[str, Cost]:
    network, npu = deep_network(1)
    free = estimate(network, npu, *WHERE)
    return {
        "free": free,
        "half": estimate(network, npu, *WHERE, arena_limit_bytes=free.sram_peak_bytes // 2),
        "little": estimate(network, npu, *WHERE, arena_limit_bytes=64),
    }


class TestCosts:
    def test_less_sram_costs_cycles_and_dram(self, costs):
        by_sram = [costs[name] for name in ("free", "half", "little")]
        assert sorted(by_sram, key=lambda cost: cost.total_cycles) == by_sram
        assert sorted(by_sram, key=lambda cost: cost.dram_peak_bytes) == by_sram
        assert sorted(by_sram, key=lambda cost: -cost.sram_peak_bytes) == by_sram

    def test_maps_are_in_one_memory_or_the_other(self, costs):
        half = costs["half"]
        staged, spilled = ({one.name for one in part} for part in (half.arena, half.spilled))
        assert staged
        assert spilled
        assert not staged & spilled
        assert half.sram_peak_bytes == max(one.address + one.n_bytes for one in half.arena)
        highest = max(one.address + one.n_bytes for one in half.spilled)
        assert half.dram_peak_bytes == highest + half.flash_bytes

    def test_traffic_of_maps_is_that_of_their_memories(self, costs):
        def moved(cost: Cost, role: str) -> int:
            parts = (op.traffic[role] for op in cost.ops if role in op.traffic)
            return sum(
                part.read_bytes.get("feature_maps", 0) + part.written_bytes.get("feature_maps", 0)
                for part in parts
            )

        by_sram = [costs[name] for name in ("free", "half", "little")]
        dram = [moved(cost, "dram") for cost in by_sram]
        assert dram == sorted(dram)
        assert moved(by_sram[1], "sram") > moved(by_sram[2], "sram")

    def test_notes_do_not_doubt_it(self, costs):
        assert all(cost.notes == () for cost in costs.values())

    def test_the_limit_is_the_staging_memory_s(self, costs):
        assert costs["half"].fits
        network, npu = deep_network(1)
        preset = estimate(network, npu, WHERE[0], "Dedicated_Sram_256KB")
        assert preset.arena_limit_bytes == 1 << 18


def test_memories_that_are_too_small():
    network, npu = deep_network(1)
    need = estimate(network, npu, *WHERE)
    for role, n_bytes in (("sram", need.sram_peak_bytes), ("dram", need.dram_peak_bytes)):
        for less, too_small in ((0, ()), (1, (role,))):
            target = machine(npu, *WHERE, overrides={f"{role}_size_bytes": n_bytes - less})
            assert estimate(network, target).too_small == too_small
