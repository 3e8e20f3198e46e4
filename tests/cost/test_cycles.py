# SPDX-License-Identifier: Apache-2.0
"""Cycles and traffic of operations: kernel = twin, equal to Arm's compiler, and sensible."""

from __future__ import annotations

import csv
import os
from typing import Any

import numpy as np
import oracle_ops
import pytest
import regor_oracle as oracle
from hypothesis import given, settings
from hypothesis import strategies as st
from random_rows import rows
from single_ops import random_ops

import npusim
from npusim import npu as npus
from npusim.cost import columns as col
from npusim.cost import reference_cycles as reference
from npusim.cost.blocks import find_blocks, search_blocks
from npusim.cost.cycles import OpCycles, op_cycles
from npusim.cost.rows import memory_array, npu_array, rate_array, table
from npusim.errors import ConfigError
from npusim.hardware import Machine, machine
from npusim.memories import Memory

SRAM = Memory("sram", 8.0, 32, 32, 32)
FLASH = Memory("off_chip_flash", 1.0, 64, 64, 128)
ODD = Memory("dram", 3.3, 17, 5, 16)
MEMORIES = [SRAM, FLASH, ODD]
UNBUFFERED = np.array([0, 0, 0, 1, -1, 0])
PLACES = st.tuples(*[st.integers(0, 2)] * 4, st.integers(-1, 2), st.integers(0, 2))


@settings(deadline=None, derandomize=True, max_examples=200)
@given(row=rows(), name=st.sampled_from(npus.names()), places=PLACES, dma=st.integers(0, 999))
def test_kernels_are_their_twins(row, name, places, dma):
    blocks, found = search_blocks(row, npus.get(name))
    if not found[0]:
        return
    taken = op_cycles(row, blocks, name, MEMORIES, [places], dma_bytes=dma)
    npu, memories = npu_array(npus.get(name)), memory_array(MEMORIES)
    rates = rate_array(npus.get(name))
    arguments = (row[0], blocks[0], npu)
    assert taken.cycles[0].tolist() == reference.op_cycles(*arguments, rates, memories, places)
    assert taken.elements[0].tolist() == reference.element_access(*arguments)
    moved = reference.byte_access(*arguments, memories, places)
    assert taken.moved_bytes[0].tolist() == moved
    traffic = reference.memory_traffic(moved, dma, memories, places)
    assert taken.memory_cycles[0].tolist() == traffic


@settings(deadline=None, derandomize=True, max_examples=100)
@given(
    row=rows(),
    cuts=st.tuples(st.integers(1, 40), st.integers(1, 150)),
    n_bytes=st.integers(0, 1 << 28),
    at=st.tuples(st.integers(0, 2), st.integers(0, 2)),
)
def test_kernels_of_the_scheduler_are_their_twins(row, cuts, n_bytes, at):
    from npusim.cost import cycles_kernels as kernels

    part, memories = np.empty(col.ROW_COLUMNS, np.int64), memory_array(MEMORIES)
    kernels.cut(row[0], *cuts, part)
    assert part.tolist() == reference.cut(row[0], *cuts)
    assert kernels.copy_cycles(n_bytes, *at, memories) == reference.copy_cycles(
        n_bytes, *at, memories
    )
    assert kernels.min_read_cycles(n_bytes, at[0], memories) == reference.min_read_cycles(
        n_bytes, at[0], memories
    )


def differences(target: Machine, ops: list[oracle_ops.OracleOp]) -> tuple[int, list[Any]]:
    """Numbers compared, and those that are not the compiler's."""
    memories = oracle_ops.memories_of(target)
    names = [memory.name for memory in memories]
    taken = measured(target, ops)
    n_compared, found = 0, []
    for i, op in enumerate(ops):
        record = op.record
        expected = [
            ("output", taken.cycles[i, col.OUTPUT_CYCLES], record["ao_cycles"]),
            ("issue", taken.cycles[i, col.ISSUE_CYCLES], record["cmd_cycles"]),
        ]
        if op.row[col.UNIT] <= col.REDUCE_SUM:
            expected.append(("mac", taken.cycles[i, col.MAC_CYCLES], record["mac_cycles"]))
        if not op.is_buffered and not op.row[col.TABLE_BANKS]:
            expected.append(("npu", taken.cycles[i, col.OP_CYCLES], record["npu_cycles"]))
        expected += traffic_of(op, taken, i, names.index("sram"))
        n_compared += len(expected)
        found += [
            (what, ours, theirs, record["name"], op.row.tolist())
            for what, ours, theirs in expected
            if int(ours) != int(theirs or 0)
        ]
    return n_compared, found


def traffic_of(op: oracle_ops.OracleOp, taken: OpCycles, i: int, sram: int) -> list[Any]:
    """What is moved from and to SRAM: ours and the compiler's."""
    moved, record, places = taken.moved_bytes[i], op.record, op.places
    read = {col.IFM_READ: col.IFM_PLACE, col.IFM2_READ: col.IFM2_PLACE}
    read[col.SCRATCH_READ] = col.SCRATCH_PLACE
    written = {col.OFM_WRITTEN: col.OFM_PLACE, col.SCRATCH_WRITTEN: col.SCRATCH_PLACE}
    source = col.BUFFER_PLACE if op.is_buffered else col.CONSTANT_PLACE
    expected = [
        (what, sum(int(moved[i]) for i, place in columns.items() if places[place] == sram), theirs)
        for what, columns, theirs in (
            ("read", read, record["SramFeatureMap_read"]),
            ("written", written, record["SramFeatureMap_write"]),
            ("weights", {col.WEIGHTS_READ: source}, record["SramWeights_read"]),
        )
    ]
    if op.row[col.UNIT] > col.DEPTHWISE:
        ours = taken.memory_cycles[i, sram, col.MEMORY_CYCLES]
        expected.append(("sram cycles", int(ours), record["Sram_ac"]))
    return expected


def measured(target: Machine, ops: list[oracle_ops.OracleOp]) -> OpCycles:
    """Our cycles on the compiler's blocks; the second block of a matmul is ours."""
    rows_ = np.array([op.row for op in ops])
    blocks = search_blocks(rows_, target.npu)[0]
    blocks[:, : col.BLOCK_COLUMNS] = [op.block for op in ops]
    places = np.array([op.places for op in ops])
    return op_cycles(rows_, blocks, target.npu, oracle_ops.memories_of(target), places)


@pytest.mark.data
def test_cycles_of_real_models(oracle_dir):
    n_tables = n_compared = 0
    for target, name, ops in oracle_ops.stored_tables(oracle_dir):
        n, found = differences(target, ops)
        n_tables, n_compared = n_tables + 1, n_compared + n
        assert found == [], name
    assert n_tables == 25
    assert n_compared > 150_000


@pytest.mark.data
def test_layers_of_a_16_bit_network(oracle_dir):
    """Networks of one layer each, with what the compiler says they take and multiply."""
    with (oracle_dir.parent / "seanet_u55_128.csv").open(newline="") as lines:
        layers = list(csv.reader(lines))[1:]
    folder = oracle_dir.parent.parent / "models" / "seanet"
    for name, _, _, cycles, macs, *_ in layers:
        path = folder / f"{name.removeprefix('seanet_')}.tflite"
        cost = npusim.estimate(npusim.load(path), npu="ethos-u55-128")
        assert (cost.total_cycles, cost.macs) == (int(cycles), int(macs)), name
    assert len(layers) == 120


@pytest.mark.parametrize("name", npus.names())
def test_cycles_of_random_operations(name):
    compare_live(name, range(2))


@pytest.mark.slow
@pytest.mark.parametrize("name", npus.names())
def test_cycles_of_many_random_operations(name):
    compare_live(name, range(2, 40))


def compare_live(name: str, seeds: range) -> None:
    system = "Ethos_U55_High_End_Embedded"
    target = machine(name, system, "Shared_Sram", overrides={"axi_width_bytes": 8})
    n_ops = 0
    for seed in seeds:
        ops = oracle_ops.compiled_ops(oracle.compile_model(random_ops(seed), name), target)
        assert differences(target, ops)[1] == []
        ours = find_blocks(np.array([op.row for op in ops]), name)
        np.testing.assert_array_equal(ours[:, : col.BLOCK_COLUMNS], [op.block for op in ops])
        n_ops += len(ops)
    assert n_ops > 15 * len(seeds)


def one(**values: Any) -> np.ndarray:
    """The row of a 3 x 3 convolution on 32 x 32 pixels, or with other values."""
    usual = {"unit": col.CONVOLUTION, "kernel_height": 3, "kernel_width": 3, "has_scales": 1}
    for map_ in ("ifm", "ofm"):
        usual |= {f"{map_}_height": 32, f"{map_}_width": 32, f"{map_}_depth": 16}
    return table(1, **(usual | values))


def cycles_of(row: np.ndarray, npu: Any = "ethos-u55-128", memories: Any = MEMORIES) -> int:
    return int(op_cycles(row, find_blocks(row, npu), npu, memories, [UNBUFFERED]).total[0])


@pytest.mark.parametrize(
    ("depth", "cycles"),
    [
        *((16, 25_715), (17, 75_844), (24, 75_967), (32, 75_092)),
        *((33, 187_414), (64, 296_852), (65, 557_590)),
    ],
)
def test_staircase_of_channels(depth, cycles):
    """One channel more may triple the cycles: the compiler's figures for maps in NHCWB16."""
    row = one(ifm_depth=depth, ofm_depth=depth)
    npu = op_cycles(row, find_blocks(row), "ethos-u55-128", MEMORIES, [UNBUFFERED])
    assert int(npu.cycles[0, col.OP_CYCLES]) == cycles


@settings(deadline=None, derandomize=True, max_examples=60)
@given(row=rows(), name=st.sampled_from(npus.names()), factor=st.sampled_from((1.5, 2.0, 7.0)))
def test_more_bandwidth_is_never_slower(row, name, factor):
    blocks, found = search_blocks(row, npus.get(name))
    if not found[0] or row[0, col.UNIT] == col.TRANSPOSE:
        return
    slow = op_cycles(row, blocks, name, MEMORIES, [UNBUFFERED])
    fast = [Memory(m.name, m.bytes_per_cycle * factor, 0, 0, m.burst_bytes) for m in MEMORIES]
    assert (
        slow.memory_cycles.max()
        >= op_cycles(row, blocks, name, fast, [UNBUFFERED]).memory_cycles.max()
    )


@settings(deadline=None, derandomize=True, max_examples=60)
@given(
    row=rows(units=st.sampled_from((col.CONVOLUTION, col.PRODUCT))),
    name=st.sampled_from(npus.names()),
)
def test_never_faster_than_the_multipliers_and_the_memories(row, name):
    blocks, found = search_blocks(row, npus.get(name))
    if not found[0]:
        return
    taken = op_cycles(row, blocks, name, MEMORIES, [UNBUFFERED])
    values = row[0]
    n_macs = np.prod(values[[col.OFM_HEIGHT, col.OFM_WIDTH, col.OFM_DEPTH, col.IFM_DEPTH]])
    n_macs *= values[col.KERNEL_HEIGHT] * values[col.KERNEL_WIDTH]
    least = n_macs // npus.get(name).macs_per_cycle
    assert taken.total[0] >= least
    ofm_bytes = np.prod(values[[col.OFM_HEIGHT, col.OFM_WIDTH, col.OFM_DEPTH]])
    ofm_bytes = ofm_bytes * values[col.OFM_BITS] // 8
    assert taken.total[0] >= ofm_bytes // SRAM.bytes_per_cycle
    assert taken.moved_bytes[0, col.OFM_WRITTEN] >= ofm_bytes


def test_decoder_limits():
    row = one(ifm_depth=64, ofm_depth=64)
    npu = npus.get("ethos-u55-128")
    usual = cycles_of(row)
    assert cycles_of(row, npu.replace(weight_decoder_weights_per_cycle=1)) > usual
    blocks = find_blocks(row)
    fetches = op_cycles(row, blocks, npu, MEMORIES, [UNBUFFERED]).elements[0, col.WEIGHT_FETCHES]
    bounded = one(ifm_depth=64, ofm_depth=64, decode_cycles=usual)
    assert cycles_of(bounded) == usual * fetches
    assert cycles_of(one(ifm_depth=64, ofm_depth=64, decode_cycles=1)) == usual


def test_buffers_move_weights_from_flash_to_sram():
    row = one(weight_bytes=1000, scale_bytes=100)
    blocks = find_blocks(row)
    places = np.array([UNBUFFERED, UNBUFFERED])
    places[1, col.BUFFER_PLACE] = 0
    pair = np.repeat(row, 2, axis=0), np.repeat(blocks, 2, axis=0)
    taken = op_cycles(*pair, "ethos-u55-128", MEMORIES, places, dma_bytes=[0, 800])
    fetches = taken.elements[0, col.WEIGHT_FETCHES]
    weights = taken.memory_cycles[:, :, col.WEIGHT_CYCLES]
    assert weights.tolist() == [[0, fetches * 1000, 0], [(fetches * 1000 + 800) // 8, 800, 0]]
    scales = taken.memory_cycles[:, :, col.SCALE_CYCLES]
    assert scales.tolist() == [[0, fetches * 100, 0]] * 2


def test_operations_that_take_no_time():
    row = one(unit=col.DMA)
    taken = op_cycles(row, find_blocks(row), "ethos-u55-128", MEMORIES, [UNBUFFERED])
    assert not taken.cycles.any()
    assert taken.total.tolist() == [0]


@pytest.mark.skipif(os.environ.get("NUMBA_DISABLE_JIT") == "1", reason="nothing is compiled")
def test_any_input_gives_the_kernels_the_same_types():
    from npusim.cost import blocks_kernels, cycles_kernels

    rows_ = np.repeat(one(), 4, axis=0)
    locked = rows_.copy()
    locked.flags.writeable = False
    places = np.tile(UNBUFFERED, (4, 1))
    kinds = (rows_, rows_.tolist(), rows_.astype(">i4"), np.asfortranarray(rows_), locked)
    for table_ in kinds:
        taken = op_cycles(
            table_, find_blocks(table_).tolist(), "ethos-u55-128", MEMORIES, places.astype("i2")
        )
        assert len(set(taken.total)) == 1
    for kernel in (blocks_kernels.find_blocks, cycles_kernels.table_cycles):
        assert len(kernel.signatures) == 1


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"blocks": np.zeros((1, 12), int)}, "blocks must have extents of at least 1"),
        ({"blocks": np.ones((2, 12), int)}, r"blocks must have shape \(1, 12\), got \(2, 12\)"),
        ({"blocks": np.ones((1, 12))}, "blocks must hold integers, got dtype float64"),
        ({"places": [[0, 0, 0, 3, -1, 0]]}, "places must be indices of 3 memories, got -1 to 3"),
        ({"places": [[-1, 0, 0, 0, -1, 0]]}, "places must be indices of 3 memories"),
        ({"rows": np.zeros((1, 3), int)}, r"rows must have shape \[n_ops, 35\]"),
    ],
)
def test_bad_arrays_are_named(changes, message):
    row = one()
    arguments = {"rows": row, "blocks": find_blocks(row), "places": [UNBUFFERED]} | changes
    with pytest.raises(ConfigError, match=message):
        op_cycles(
            arguments["rows"],
            arguments["blocks"],
            "ethos-u55-128",
            MEMORIES,
            arguments["places"],
        )
