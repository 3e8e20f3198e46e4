# SPDX-License-Identifier: Apache-2.0
"""Rows of numbers: their layout, tables from arrays, and rows of what a network is lowered to."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import oracle_ops
import pytest
import regor_oracle as oracle
from single_ops import random_ops

from npusim import npu as npus
from npusim.cost import columns as col
from npusim.cost import formats, rows
from npusim.cost.lowering import program
from npusim.errors import ConfigError, UnknownNameError
from npusim.hardware import machine
from npusim.memories import Memory
from npusim.weights.traversal import choose_traversal

SIZES = {f"{m}_{axis}": 8 for m in ("ifm", "ofm") for axis in ("height", "width", "depth")}


def test_columns_have_the_names_of_their_places():
    assert len(rows.ROW_NAMES) == col.ROW_COLUMNS
    assert [getattr(col, name.upper()) for name in rows.ROW_NAMES] == list(range(col.ROW_COLUMNS))
    units = [getattr(col, name.upper()) for name in rows.UNIT_NAMES]
    assert units == list(range(len(rows.UNIT_NAMES)))
    assert (col.NHWC, col.NHCWB16) == (formats.NHWC, formats.NHCWB16)


@pytest.mark.parametrize("name", npus.names())
def test_arrays_hold_every_number_of_the_npu(name):
    npu, array = npus.get(name), rows.npu_array(npus.get(name))
    assert array.shape == (col.NPU_COLUMNS,)
    assert array[col.OFM_UBLOCK_DEPTH] == npu.ofm_ublock_depth
    assert array[col.LINE_STALL40_CYCLES] == npu.line_stall_acc40_cycles
    rates = rows.rate_array(npu)
    assert tuple(rates) == npu.output_cycles_per_element + npu.activation_cycles_per_element
    assert rates.shape == (col.RATE_COLUMNS,)
    memory = Memory("sram", 2.5, 3, 4, 32)
    assert rows.memory_array([memory]).tolist() == [[2.5, 3, 4, 32]]


def test_tables_choose_what_is_not_given():
    depths = np.repeat([3, 8, 9, 16, 24, 32, 40, 64, 100], 6)
    kernels = np.tile([1, 2, 3, 5, 7, 9], 9)
    for bits in (8, 16):
        sizes = SIZES | {"ifm_depth": depths}
        made = rows.table(54, unit=0, kernel_height=kernels, ifm_bits=bits, **sizes)
        expected = [
            rows.TRAVERSALS.index(choose_traversal((8, int(k), 1, int(depth)), "CONV_2D", bits))
            for k, depth in zip(kernels, depths, strict=True)
        ]
        assert made[:, col.TRAVERSAL].tolist() == expected
        assert set(made[:, col.ACC_BITS]) == {40 if bits == 16 else 32}
        assert set(made[:, col.OUTPUT_RATE]) == {3 if bits == 16 else 7}
    pool = rows.table(1, unit=col.POOLING, ifm_bits=16, **SIZES)[0]
    assert pool[[col.ACC_BITS, col.OUTPUT_RATE, col.TRAVERSAL]].tolist() == [32, 7, 0]


@pytest.mark.parametrize(
    ("values", "error", "message"),
    [
        ({"ifm_dept": 3}, UnknownNameError, "did you mean 'ifm_depth'"),
        ({"unit": [0, 1, 2]}, ConfigError, r"unit must be one integer or 2, got shape \(3,\)"),
        ({"unit": 0.5}, ConfigError, "unit must hold integers, got dtype float64"),
        ({"unit": 10}, ConfigError, "unit must be in 0..9, got 10 to 10"),
        ({"ofm_height": [4, 0]}, ConfigError, "ofm_height must be in 1..16777216, got 0 to 4"),
        ({"ifm_bits": [8, 12]}, ConfigError, "ifm_bits must be one of 8, 16, 32, got 12"),
    ],
)
def test_bad_values_are_named(values, error, message):
    with pytest.raises(error, match=message):
        rows.table(2, **({"unit": 0} | SIZES | values))


def test_maps_must_be_given():
    with pytest.raises(ConfigError, match="ofm_depth must be given, got none"):
        rows.table(1, unit=0, **{name: 1 for name in SIZES if name != "ofm_depth"})


def test_rows_of_lowered_operations():
    """One operation after the other: our lowering's row is what the compiler's tables say."""
    name, n_ops = "ethos-u55-128", 0
    target = machine(name)
    for seed in range(12):
        network = random_ops(seed, n_ops=1)
        theirs = oracle_ops.compiled_ops(oracle.compile_model(network, name), target)
        lowered = program(network)
        map_formats = formats.map_formats(lowered)
        ours = [rows.row(op, lowered.maps, map_formats) for op in lowered.ops if op.on_npu]
        for row, op in zip(ours, theirs, strict=True):
            row[col.WEIGHT_BYTES] = op.row[col.WEIGHT_BYTES]
            if not row[col.IFM2_DEPTH]:
                row[col.IFM2_FORMAT] = op.row[col.IFM2_FORMAT]
            row[[col.STEP_HEIGHT, col.STEP_WIDTH]] = 1  # as the tables do not say
            assert dict(zip(rows.ROW_NAMES, row, strict=True)) == dict(
                zip(rows.ROW_NAMES, op.row, strict=True)
            )
            n_ops += 1
    assert n_ops > 30


def test_outstanding_transfers_limit_a_memory():
    free = Memory("sram", 8.0, 32, 16, 32)
    assert rows.memory_array([free])[0, col.BYTES_PER_CYCLE] == 8.0
    assert rows.memory_array([replace(free, max_reads=4)])[0, col.BYTES_PER_CYCLE] == 4.0
    assert rows.memory_array([replace(free, max_writes=1)])[0, col.BYTES_PER_CYCLE] == 2.0
