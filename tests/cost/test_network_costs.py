# SPDX-License-Identifier: Apache-2.0
"""Costs of whole networks: against Arm's compiler, and what is told beside them."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import regor_oracle as oracle
from deep_networks import FAMILIES, DeepNetwork
from random_graphs import KINDS, RandomGraph
from random_networks import VARIANTS, RandomNetwork
from short_graphs import short_graph

import npusim
from npusim.cost.estimate import estimate
from npusim.cost.explain import op_waterfall
from npusim.cost.lowering import program
from npusim.cost.what_if import Workload
from npusim.errors import ConfigError, UnknownNameError
from npusim.formats.vela_stream import COMPILED_KIND
from npusim.hardware import machine
from npusim.network import Network
from npusim.network_builder import NetworkBuilder
from npusim.npu import names
from npusim.weights import prune, requantize

FLASH_KNOWN_WRONG = {
    ("coral_automl_traffic", "ethos-u55-64", "Ethos_U55_Deep_Embedded"): 2880,
    ("coral_automl_traffic", "ethos-u55-256", "Ethos_U55_Deep_Embedded"): 1600,
    ("coral_automl_traffic", "ethos-u65-512", "Ethos_U65_Embedded"): 1600,
}
"""Bytes of flash that we say too few; a copy of weights in other slices that one layer shares."""


@dataclass(frozen=True)
class Measured:
    """Cycles, SRAM, flash."""

    cycles: int
    sram_bytes: int
    flash_bytes: int

    @classmethod
    def ours(cls, cost: npusim.cost.result.Cost) -> Measured:
        return cls(cost.total_cycles, cost.sram_peak_bytes, cost.flash_bytes)


def stored(folder: Path, npus: tuple[str, ...]) -> Iterator[tuple[dict[str, str], Measured]]:
    """What the compiler said of the real models without a limit of the arena."""
    with (folder / "oracle" / "summary.csv").open(newline="") as lines:
        for row in csv.DictReader(lines):
            free = row["opt"] == "Performance" and not row["arena"]
            if row["acc"] in npus and free and not row["mem"].startswith("Dedicated"):
                values = (row["total_cycles"], row["Sram_peak"], row["ro_peak"])
                yield row, Measured(*(int(float(value)) for value in values))


def compare_with_stored(models_dir: Path, npus: tuple[str, ...], least: int) -> None:
    workloads: dict[str, Workload] = {}
    n = 0
    for row, theirs in stored(models_dir.parent, npus):
        name = row["model"]
        if name not in workloads:
            workloads[name] = Workload.of(npusim.load(models_dir / f"{name}.tflite"))
        target = machine(row["acc"], row["sys"], row["mem"], vela_axi_quirk=True)
        ours = Measured.ours(workloads[name].cost(target))
        missing = FLASH_KNOWN_WRONG.get((name, row["acc"], row["sys"]), 0)
        if missing and row["mem"] == "Shared_Sram":
            ours = replace(ours, flash_bytes=ours.flash_bytes + missing)
        assert ours == theirs, (name, row["acc"], row["sys"], row["mem"])
        n += 1
    assert n >= least


@pytest.mark.data
def test_real_models(models_dir):
    compare_with_stored(models_dir, ("ethos-u55-128", "ethos-u65-512"), 110)


@pytest.mark.data
@pytest.mark.slow
def test_real_models_on_all_npus(models_dir):
    compare_with_stored(models_dir, tuple(names()), 400)


def random_network(seed: int) -> Network | None:
    """Layers with weights, deep networks, and graphs of every kind of operation, in turn."""
    rng = np.random.default_rng((29, seed))
    number = seed // 3
    if seed % 3 == 0:
        return RandomNetwork(rng, list(VARIANTS)[number % len(VARIANTS)]).build()
    if seed % 3 == 1:
        return DeepNetwork(rng, list(FAMILIES)[number % len(FAMILIES)]).build()
    return RandomGraph(rng, list(KINDS), int(rng.integers(2, 9))).build()


def compiled(
    seeds: range,
    make: Callable[[int], Network | None] = random_network,
    *,
    optimise: str = "performance",
    arena_part: float = 0.0,
) -> Iterator[tuple[int, Measured, Measured]]:
    """What the compiler says of random networks, and what we say.

    Args:
        seeds: of the networks.
        make: a network of a seed.
        optimise: for what the schedule is made.
        arena_part: of what a network needs without a limit, to which its arena is limited.
    """
    for seed in seeds:
        network = make(seed)
        npu, sram_only = names()[seed % 4], seed % 5 == 0
        if network is None:
            continue
        how: dict[str, Any] = {"sram_only": sram_only, "optimise": optimise}
        limit = None
        try:
            report = oracle.compile_model(network, npu, **how).perf_report
            if arena_part and report.npuOps:
                limit = int(arena_part * report.memories["Sram"].peakUsage)
                report = oracle.compile_model(network, npu, **how, limit_bytes=limit).perf_report
        except RuntimeError:  # the compiler's own; not of interest here
            continue
        if report.npuOps:
            theirs = (report.totalCycles, report.memories["Sram"].peakUsage)
            ours = estimate(
                *(network, npu),
                memory_mode="Sram_Only" if sram_only else "Shared_Sram",
                optimise=optimise,
                arena_limit_bytes=limit,
            )
            yield seed, Measured(*theirs, report.readOnlyPeakUsage), Measured.ours(ours)


def assert_near(found: list[tuple[int, Measured, Measured]], least_exact: float) -> None:
    errors = np.array([abs(ours.cycles / theirs.cycles - 1) for _, theirs, ours in found])
    sram = [theirs.sram_bytes == ours.sram_bytes for _, theirs, ours in found]
    flash = [theirs.flash_bytes == ours.flash_bytes for _, theirs, ours in found]
    wrong = [seed for (seed, *_), error in zip(found, errors, strict=True) if error > 1e-4]
    print(
        f"{len(found)} networks: cycles exact in {np.sum(errors == 0)}, "
        f"MAPE {100 * errors.mean():.3f} %, largest {100 * errors.max():.2f} %; "
        f"SRAM in {np.sum(sram)}, flash in {np.sum(flash)}"
    )
    assert errors.mean() <= 0.015, wrong
    assert (errors <= 1e-4).mean() >= least_exact, wrong
    assert np.mean(sram) >= least_exact
    assert np.mean(flash) >= least_exact - 0.06


def test_random_networks():
    found = list(compiled(range(90)))
    assert len(found) > 70
    assert_near(found, 0.97)


def test_short_graphs():
    found = list(compiled(range(400), short_graph))
    assert len(found) > 300
    assert_near(found, 0.99)


@pytest.mark.parametrize(
    "seed", [143, 222, 477, 504, 1009, 1387, 1443, 1448, 1607, 2026, 2779, 2848, 2919, 2950]
)
def test_graphs_that_once_differed(seed):
    """Activations across parts and whole copies, batches with a depth multiplier, mirrors, pads."""
    rng = np.random.default_rng((77, seed))
    n_ops, dtype = int(rng.integers(2, 9)), "int8" if rng.random() < 0.7 else "int16"
    network = RandomGraph(rng, list(KINDS), n_ops, dtype).build()
    report = oracle.compile_model(network, "ethos-u55-128").perf_report
    assert estimate(network, "ethos-u55-128").total_cycles == report.totalCycles


@pytest.mark.slow
def test_many_random_networks():
    found = list(compiled(range(1000, 4000)))
    assert len(found) > 2500
    assert_near(found, 0.99)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("optimise", "part"), [("size", 0.0), ("performance", 0.7), ("performance", 0.5)]
)
def test_random_networks_of_little_memory(optimise, part):
    found = list(compiled(range(4000, 4300), optimise=optimise, arena_part=part))
    assert len(found) > 200
    assert_near(found, 0.97)


@pytest.mark.slow
def test_many_short_graphs():
    found = list(compiled(range(1000, 11_000), short_graph))
    assert len(found) > 8000
    assert_near(found, 0.99)


def convolution(codes: np.ndarray, side: int = 16, name: str = "one") -> Network:
    net = NetworkBuilder(name)
    x = net.input((1, side, side, codes.shape[3]), scale=0.02)
    weights = net.constant(codes.astype(np.int8), scales=0.01)
    bias = net.bias([0] * codes.shape[0], x, weights)
    return net.build(net.op("CONV_2D", x, weights, bias, scale=0.1, name="conv"))


@pytest.fixture(scope="module")
def codes() -> np.ndarray:
    return np.random.default_rng(3).integers(-127, 128, (64, 1, 1, 64))


class TestDecoder:
    def test_compression_changes_cycles(self, codes):
        # one position, so that weights are used once and decoding them is what takes time
        memories = {
            "overrides": {"sram_bytes_per_cycle": 1e3, "off_chip_flash_bytes_per_cycle": 1e3}
        }
        target = machine("ethos-u55-256", **memories)
        few = requantize(prune(codes.astype(np.int8), 0.2), 3)
        cycles = {
            decoder: [
                estimate(convolution(weights, 1), target, decoder=decoder).ops[0]
                for weights in (codes, few)
            ]
            for decoder in ("compiler", "stream")
        }
        dense, sparse = cycles["compiler"]
        assert dense.compute_cycles == sparse.compute_cycles
        dense, sparse = cycles["stream"]
        assert sparse.decode_cycles < dense.decode_cycles
        assert dense.bound == "decode"
        assert dense.compute_cycles == dense.decode_cycles > sparse.compute_cycles
        assert op_waterfall(dense, "ethos-u55-256").cycles_by_stage["decode"] > 0

    def test_counts_iterations_once_for_each_time_weights_are_read(self, codes):
        from npusim.weights import planned_iterations, reorder

        op = estimate(convolution(codes), "ethos-u55-128", decoder="stream").ops[0]
        values = reorder(
            codes.astype(np.int16),
            "ethos-u55-128",
            ofm_block_depth=op.block.ofm_block[2],
            traversal=op.traversal,
        )
        n_blocks = -(-16 // op.block.ofm_block[0]) * -(-16 // op.block.ofm_block[1])
        if len(op.depth_slices) == 2:
            assert op.decode_cycles == n_blocks * planned_iterations(values).sum()
        assert op.decode_cycles % n_blocks == 0

    def test_two_cores_decode_side_by_side(self, codes):
        one = estimate(convolution(codes), "ethos-u65-256", decoder="stream").ops[0]
        two = estimate(convolution(codes), "ethos-u65-512", decoder="stream").ops[0]
        assert 0.4 < two.decode_cycles / one.decode_cycles < 0.75

    def test_the_schedule_stays(self, codes):
        costs = [estimate(convolution(codes), decoder=d) for d in ("compiler", "stream")]
        assert costs[0].arena == costs[1].arena
        assert costs[0].flash_bytes == costs[1].flash_bytes
        assert [c.ops[0].block for c in costs] == [costs[0].ops[0].block] * 2
        assert costs[1].notes == (
            "weights are decoded at one chunk iteration a cycle, unlike in Arm's compiler",
        )

    def test_weights_must_be_known(self, codes):
        known = program(convolution(codes))
        ops = [replace(op, weights=replace(op.weights, ohwi=None)) for op in known.ops]
        with pytest.raises(ConfigError, match="weights of 'conv' must be known for exact sizes"):
            estimate(replace(known, ops=tuple(ops)), decoder="stream")

    def test_unknown(self, codes):
        with pytest.raises(UnknownNameError, match="decoder must be one of compiler, stream"):
            estimate(convolution(codes), decoder="streams")


class TestCpu:
    @pytest.fixture
    def network(self) -> Network:
        net = NetworkBuilder("mixed")
        x = net.input((1, 8, 8, 4), scale=0.02)
        weights = net.constant(np.ones((4, 1, 1, 4), np.int8), scales=0.01)
        x = net.op("CONV_2D", x, weights, net.bias([0] * 4, x, weights), scale=0.1, name="conv")
        return net.build(net.op("L2_NORMALIZATION", x, scale=0.1, shape=x.shape, name="norm"))

    def test_is_never_silently_free(self, network):
        cost = estimate(network)
        assert cost.n_cpu_ops == 1
        assert cost.notes == ("1 operations of the CPU are not in the total cycles",)
        assert cost.ops[1].obstacle
        assert (cost.ops[1].op, cost.ops[1].source_op) == ("cpu", "L2_NORMALIZATION")

    def test_unknown_operators_are_marked(self, network):
        conv, norm = network.ops
        odd = replace(network, ops=(conv, replace(norm, kind="MyOwn", known=False)))
        cost = estimate(odd)
        assert (cost.n_cpu_ops, cost.ops[1].source_op) == (1, "MyOwn")
        assert "MyOwn" in cost.ops[1].obstacle

    @pytest.mark.parametrize(
        "cycles", [{"L2_NORMALIZATION": 700}, lambda op: 700], ids=["mapping", "function"]
    )
    def test_cycles_are_the_user_s(self, network, cycles):
        cost = estimate(network, cpu_cycles=cycles)
        assert cost.total_cycles == estimate(network).total_cycles + 700
        assert cost.npu_cycles == estimate(network).npu_cycles
        assert cost.notes == ()

    @pytest.mark.parametrize("cycles", [-1, 1.5, True])
    def test_refused(self, network, cycles):
        with pytest.raises(ConfigError, match="cpu_cycles of 'norm' must be"):
            estimate(network, cpu_cycles={"L2_NORMALIZATION": cycles})


class TestMemory:
    def test_the_mode_s_limit_is_the_arena_s(self, codes):
        limited = machine(overrides={"arena_cache_size_bytes": 20_000})
        cost = estimate(convolution(codes), limited)
        assert cost.arena_limit_bytes == 20_000
        assert cost == estimate(convolution(codes), limited, arena_limit_bytes=20_000)
        assert estimate(convolution(codes), limited, arena_limit_bytes=30_000).fits is (
            cost.sram_peak_bytes <= 30_000
        )

    def test_sizes_of_memories(self, codes):
        need = estimate(convolution(codes))
        sizes = {
            "sram_size_bytes": need.sram_peak_bytes,
            "off_chip_flash_size_bytes": need.flash_bytes,
        }
        fits = estimate(convolution(codes), machine(overrides=sizes))
        assert (fits.fits, fits.too_small, fits.notes) == (True, (), ())
        for name in sizes:
            less = sizes | {name: sizes[name] - 1}
            found = estimate(convolution(codes), machine(overrides=less))
            memory = name.removesuffix("_size_bytes")
            assert (found.fits, found.too_small) == (False, (memory,))
            assert found.notes[0].startswith(f"{memory} must hold {sizes[name]:,} bytes")
            assert found.total_cycles == need.total_cycles

    def test_one_memory_for_all_holds_both(self, codes):
        cost = estimate(convolution(codes), memory_mode="Sram_Only")
        small = machine(memory_mode="Sram_Only", overrides={"sram_size_bytes": cost.flash_bytes})
        assert estimate(convolution(codes), small).too_small == ("sram",)


def test_json_has_the_values(codes):
    for options in ({}, {"optimise": "size"}, {"arena_limit_bytes": 4096}):
        cost = estimate(convolution(codes), **options)
        found = json.loads(json.dumps(cost.to_json()))
        assert found["total_cycles"] == cost.total_cycles == sum(o["cycles"] for o in found["ops"])
        assert found["fits"] is cost.fits
        assert found["ops"][0]["block"] == list(cost.ops[0].block.ofm_block)


def test_models_that_are_compiled_are_refused(codes):
    network = convolution(codes)
    done = replace(network, ops=(replace(network.ops[0], kind=COMPILED_KIND, known=False),))
    for refuse in (Workload.of, estimate):
        with pytest.raises(ConfigError, match="model 'one' must not be compiled yet"):
            refuse(done)
