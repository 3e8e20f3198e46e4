# SPDX-License-Identifier: Apache-2.0
"""Weight buffers: kernels against their twins, and decisions against Arm's compiler."""

from __future__ import annotations

import csv
import gzip
from dataclasses import dataclass

import numpy as np
import pytest
import regor_oracle as oracle
from hypothesis import given, settings
from hypothesis import strategies as st
from random_networks import VARIANTS, RandomNetwork

from npusim.cost import buffering_kernels as kernels
from npusim.cost import columns as col
from npusim.cost import reference_buffering as twin
from npusim.cost.blocks import find_blocks
from npusim.cost.estimate import cost_of
from npusim.cost.lowering import program
from npusim.cost.rows import memory_array, npu_array, rate_array, table
from npusim.cost.schedule import Schedule, Scheduler
from npusim.cost.weight_sizes import ExactSizes
from npusim.formats import load
from npusim.hardware import machine
from npusim.npu import names

FACT_NAMES = (
    *("OFM_DEPTH", "BLOCK_DEPTH", "WEIGHT_BYTES", "FETCHES", "TRANSFER_CYCLES", "STORED_CYCLES"),
    *("BUFFER_CYCLES", "SLACK_CYCLES", "SLACK_BYTES", "LIMIT_BYTES", "CAN_SLICE"),
    *("CAN_PRE_BUFFER", "STARTS_NPU", "N_SHARING", "N_STRIPES", "RUN_CYCLES", "READ_CYCLES"),
    *("STAGED_IFM_CYCLES", "CAN_STAGE_IFM"),
)
PERF_NAMES = (
    *("RUN", "FULL_RUN", "VISIBLE", "WEIGHT_READ", "IFM_READ", "STAGED_IFM_READ", "LAST_SLICE"),
    *("IFM_READ_BYTES", "IFM_BYTES"),
)
WAYS = ("UNBUFFERED", "SLICED", "WHOLE", "SHARED")
often = settings(deadline=None, derandomize=True, max_examples=300)
cycles = st.integers(1, 30_000)
flags = st.integers(0, 1)
facts_of = st.fixed_dictionaries(
    {
        "OFM_DEPTH": st.integers(1, 400),
        "BLOCK_DEPTH": st.sampled_from([8, 16, 24, 32, 48, 64, 128]),
        "WEIGHT_BYTES": st.integers(16, 40_000),
        "FETCHES": st.integers(1, 6),
        "TRANSFER_CYCLES": cycles,
        "STORED_CYCLES": cycles,
        "BUFFER_CYCLES": cycles,
        "SLACK_CYCLES": st.integers(0, 30_000),
        "SLACK_BYTES": st.integers(0, 60_000),
        "LIMIT_BYTES": st.integers(32, 60_000),
        "CAN_SLICE": flags,
        "CAN_PRE_BUFFER": flags,
        "STARTS_NPU": flags,
        "N_SHARING": st.integers(1, 2),
        "N_STRIPES": st.integers(1, 5),
        "RUN_CYCLES": cycles,
        "READ_CYCLES": cycles,
        "STAGED_IFM_CYCLES": cycles,
        "CAN_STAGE_IFM": flags,
    }
)


def array_of(facts: dict[str, int]) -> np.ndarray:
    array = np.zeros(kernels.N_FACTS)
    for name in FACT_NAMES:
        array[getattr(kernels, name)] = facts[name]
    return array


class TestTwins:
    def test_every_fact_and_result_has_a_column(self):
        assert sorted(getattr(kernels, name) for name in FACT_NAMES) == [*range(kernels.N_FACTS)]
        assert sorted(getattr(kernels, name) for name in PERF_NAMES) == [*range(kernels.N_PERF)]

    @given(facts_of)
    @often
    def test_the_way(self, facts):
        assert WAYS[kernels.choose_way(array_of(facts))] == twin.choose_way(facts)

    @given(facts_of, st.integers(1, 40_000), st.integers(1, 400))
    @often
    def test_depths_of_slices(self, facts, first_cycles, depth):
        array = array_of(facts)
        ratio = kernels.first_slice_ratio(array)
        assert ratio == twin.first_slice_ratio(facts)
        assert kernels.first_slice_depth(array, ratio) == twin.first_slice_depth(facts, ratio)
        step = kernels.next_slices_depth(array, first_cycles)
        assert step == twin.next_slices_depth(facts, first_cycles)
        assert kernels.whole_blocks(array, depth) == twin.whole_blocks(facts, depth)
        assert kernels.fills_blocks(array, depth) == twin.fills_blocks(facts, depth)

    @given(facts_of, st.tuples(*[cycles] * len(PERF_NAMES)), st.integers(1, 9), cycles)
    @often
    def test_whether_a_buffer_is_worth_it(self, facts, values, n_slices, buffer_bytes):
        perf = dict(zip(PERF_NAMES, values, strict=True))
        perf["FULL_RUN"] = perf["RUN"] + perf["VISIBLE"]
        array = np.zeros(kernels.N_PERF, np.int64)
        for name, value in perf.items():
            array[getattr(kernels, name)] = value
        found = kernels.is_worth_it(array_of(facts), array, n_slices, buffer_bytes)
        assert bool(found) == twin.is_worth_it(facts, perf, n_slices, buffer_bytes)

    @given(st.integers(0, 2**32 - 1))
    @often
    def test_how_slices_run(self, seed):
        rng = np.random.default_rng(seed)
        target = machine(str(rng.choice(names())))
        height, width, kernel = rng.integers(1, 30), rng.integers(1, 30), rng.integers(1, 4)
        depthwise = bool(rng.random() < 0.3)
        ifm_depth = int(rng.integers(1, 80))
        ofm_depth = ifm_depth if depthwise else int(rng.integers(1, 200))
        (row,) = table(
            1,
            unit=col.DEPTHWISE if depthwise else col.CONVOLUTION,
            **{"ifm_height": height, "ifm_width": width, "ifm_depth": ifm_depth},
            **{"ofm_height": height, "ofm_width": width, "ofm_depth": ofm_depth},
            **{"kernel_height": kernel, "kernel_width": kernel, "has_scales": 1},
            ifm_bits=int(rng.choice([8, 16])),
        )
        block = find_blocks(row[None], target.npu)[0]
        memories = memory_array([target.feature_maps, target.constants])
        arrays = npu_array(target.npu), rate_array(target.npu), memories
        places = np.array([0, 0, 0, 1, 0, 0])
        cuts = sorted({0, ofm_depth, *rng.integers(1, ofm_depth + 1, 3).tolist()})
        n_bytes = rng.integers(1, 200, len(cuts) - 1) * 16
        stripe, slack = int(rng.integers(1, height + 1)), int(rng.integers(0, 5000))
        staged, double = rng.integers(0, 2, 2).tolist()
        perf = np.empty(kernels.N_PERF, np.int64)
        how, room = (stripe, slack, staged, double), np.empty(kernels.ROOM, np.int64)
        where, at = (*arrays, places), np.array(cuts)
        kernels.performance(row, block, where, at, n_bytes, how, room, perf)
        wanted = twin.performance(
            *(row.tolist(), block.tolist(), (*arrays, places.tolist())),
            *(cuts, n_bytes.tolist(), stripe, slack),
            staged=bool(staged),
            double=bool(double),
        )
        assert {name: int(perf[getattr(kernels, name)]) for name in PERF_NAMES} == wanted


@dataclass(frozen=True)
class Choice:
    """How the weights of one operation are kept."""

    depths: str
    buffering: str
    pre_buffered: bool

    @classmethod
    def of_row(cls, row: dict) -> Choice:
        buffering = str(row["weight_buffering"] or "None").lower()
        early = buffering != "none" and int(float(row["weight_pre_buffer"])) == 1
        return cls(str(row["ofm_depth_slices"]), buffering, early)


def choices(schedule: Schedule) -> list[Choice]:
    return [
        Choice("|".join(map(str, op.depth_slices)), op.buffering, op.pre_buffered)
        for op, lowered in zip(cost_of(schedule).ops, schedule.program.ops, strict=True)
        if lowered.weights is not None
    ]


def has_weights(row: dict) -> bool:
    return row["operator"] in oracle.MAC_OPERATORS and row["weight_total_bytes"] not in ("", None)


def scheduled(network, npu: str, system: str) -> Schedule:
    target = machine(npu, system)
    return Scheduler(program(network), target, ExactSizes(target.npu)).run()


class TestDecisions:
    @pytest.mark.data
    @pytest.mark.parametrize(
        "npu", ["ethos-u55-32", "ethos-u55-64", "ethos-u55-128", "ethos-u55-256"]
    )
    @pytest.mark.parametrize("system", ["High_End", "Deep"])
    def test_of_real_models(self, npu, system, oracle_dir, models_dir):
        name = f"Ethos_U55_{system}_Embedded"
        stored = oracle_dir / f"{npu}__{name}__Shared_Sram__Performance__None.csv.gz"
        theirs: dict[str, list[Choice]] = {}
        with gzip.open(stored, "rt", newline="") as lines:
            for row in csv.DictReader(lines):
                if has_weights(row):
                    theirs.setdefault(row["model"], []).append(Choice.of_row(row))
        ours = {
            model: choices(scheduled(load(models_dir / f"{model}.tflite"), npu, name))
            for model in theirs
        }
        assert sum(map(len, theirs.values())) > 400
        assert ours == theirs

    @pytest.mark.parametrize("variant", ["chain", "convolution", "depthwise", "fully connected"])
    def test_of_random_networks(self, variant):
        n_compared = 0
        for seed in range(8):
            rng = np.random.default_rng((seed, list(VARIANTS).index(variant)))
            network, npu = RandomNetwork(rng, variant).build(), str(rng.choice(names()[:4]))
            if network.macs > 30_000_000:
                continue
            rows = oracle.compile_rows(network, npu)
            if rows is None:
                continue
            theirs = [Choice.of_row(row) for row in rows if has_weights(row)]
            assert choices(scheduled(network, npu, "Ethos_U55_High_End_Embedded")) == theirs
            n_compared += 1
        assert n_compared >= 5
