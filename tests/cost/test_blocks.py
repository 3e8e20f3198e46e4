# SPDX-License-Identifier: Apache-2.0
"""The block search: kernel = twin, equal to Arm's compiler on stored models and random layers."""

from __future__ import annotations

import dataclasses

import numpy as np
import oracle_ops
import pytest
import regor_oracle as oracle
from hypothesis import given, settings
from hypothesis import strategies as st
from random_rows import rows

from npusim import npu as npus
from npusim.cost import columns as col
from npusim.cost import reference_blocks as reference
from npusim.cost.blocks import (
    BlockConfig,
    MacGeometry,
    choose_block,
    find_blocks,
    geometry_row,
    search_blocks,
)
from npusim.cost.rows import npu_array, table
from npusim.errors import ConfigError, UnknownNameError
from npusim.network import Network
from npusim.network_builder import NetworkBuilder

FLAT = MacGeometry((1, 24, 17), (1, 24, 240), "depth-first")


@settings(deadline=None, derandomize=True, max_examples=150)
@given(row=rows(), name=st.sampled_from(npus.names()))
def test_kernel_is_its_twin(row, name):
    npu = npus.get(name)
    assert search_blocks(row, npu)[0][0].tolist() == reference.find_block(row[0], npu_array(npu))


@pytest.mark.parametrize(
    ("geometry", "name", "block"),
    [
        # the first layer of an image network: three input channels, stride 2
        (
            MacGeometry((96, 96, 3), (48, 48, 8), "part-kernel", (3, 3), (2, 2)),
            "ethos-u55-128",
            (8, 16, 8, 17, 34, 8),
        ),
        # ofm depth 24 on ublocks of 4 channels: past 16 the search goes on at 32, so 24 is not met
        (
            MacGeometry((64, 64, 96), (64, 64, 24), "depth-first"),
            "ethos-u55-32",
            (1, 64, 16, 1, 64, 32),
        ),
        (
            MacGeometry((64, 64, 96), (64, 64, 24), "depth-first"),
            "ethos-u55-64",
            (5, 8, 24, 5, 8, 32),
        ),
        # equal cost: the block that reads more of the ifm, the ifm's edge counted
        (
            MacGeometry((5, 11, 152), (3, 4, 152), "depthwise", (3, 4), (2, 3)),
            "ethos-u55-32",
            (2, 2, 128, 5, 7, 128),
        ),
        # one row of a block of two rows is accumulated
        (FLAT, "ethos-u55-256", (2, 24, 128, 2, 24, 24)),
        # a transpose convolution reads half as many rows and columns
        (
            MacGeometry((8, 8, 16), (16, 16, 8), "part-kernel", (4, 4), upscale=(2, 2)),
            "ethos-u55-128",
            (16, 16, 8, 10, 10, 16),
        ),
    ],
)
def test_blocks_of_the_compiler(geometry, name, block):
    assert choose_block(geometry, name) == BlockConfig(*block)


@pytest.mark.parametrize(
    ("values", "ifm2", "block"),
    [
        # an ofm depth of 13 is rounded to ublocks
        ({"unit": col.POOLING, "kernel_height": 2, "extent": 8, "depth": 13}, None, (8, 4, 16)),
        # elementwise: as few blocks as possible; a scalar leaves room for a larger one
        ({"unit": col.ELEMENTWISE, "extent": 64, "depth": 16}, None, (4, 64, 16)),
        ({"unit": col.ELEMENTWISE, "extent": 64, "depth": 16}, (1, 1, 1), (10, 64, 16)),
        ({"unit": col.ELEMENTWISE, "extent": 64, "depth": 16}, (64, 64, 16), (4, 64, 16)),
    ],
)
def test_blocks_without_weights(values, ifm2, block):
    extent, depth = values["extent"], values["depth"]
    sizes = {key: value for key, value in values.items() if key not in ("extent", "depth")}
    for map_, (height, width, channels) in {
        "ifm": (extent, extent, depth),
        "ifm2": ifm2 or (0, 0, 0),
        "ofm": (extent, extent, depth),
    }.items():
        sizes |= {f"{map_}_height": height, f"{map_}_width": width, f"{map_}_depth": channels}
    assert tuple(find_blocks(table(1, **sizes), "ethos-u55-128")[0, :3]) == block


def test_a_table_takes_banks_of_the_smallest_shram_only():
    geometry = MacGeometry((32, 32, 32), (32, 32, 64), "depth-first")
    with_table = dataclasses.replace(geometry, table=True)
    for name, differs in (("ethos-u55-32", True), ("ethos-u55-128", False)):
        assert (choose_block(geometry, name) != choose_block(with_table, name)) is differs


def test_copies_of_32_bits_move_halves():
    sizes = {f"{map_}_{axis}": 20 for map_ in ("ifm", "ofm") for axis in ("height", "width")}
    wide = table(1, unit=col.POOLING, ifm_bits=32, ofm_bits=32, ifm_depth=24, ofm_depth=24, **sizes)
    half = table(1, unit=col.POOLING, ifm_bits=16, ofm_bits=16, ifm_depth=48, ofm_depth=48, **sizes)
    np.testing.assert_array_equal(find_blocks(wide), find_blocks(half))


def test_every_field_of_the_npu_counts():
    row = geometry_row(MacGeometry((8, 8, 64), (8, 8, 64), "depth-first"))[None]
    npu = npus.get("ethos-u55-128")
    usual = find_blocks(row, npu).tolist()
    for field, value in (
        *(("shram_banks", 48), ("shram_bank_bytes", 4096), ("acc32_granule_banks", 12)),
        *(("ofm_block_width_max", 2), ("ofm_block_height_max", 2), ("ofm_block_depth_max", 16)),
        *(("ifm8_granule_banks", 12), ("ifm_ublock_depth", 64)),
    ):
        assert find_blocks(row, npu.replace(**{field: value})).tolist() != usual, field


def test_block_must_fit():
    tiny = dataclasses.replace(npus.get("ethos-u55-32"), name="tiny", shram_banks=6)
    assert reference.find_block(geometry_row(FLAT), npu_array(tiny)) == [0] * 12
    with pytest.raises(ConfigError, match="must fit the 6 SHRAM banks of tiny, got none for Mac"):
        choose_block(FLAT, tiny)
    small = MacGeometry((1, 1, 1), (1, 1, 1), "depth-first")
    large = MacGeometry((60, 60, 64), (60, 60, 64), "depth-first", (8, 8), (3, 3))
    tiny = dataclasses.replace(tiny, shram_banks=8)
    with pytest.raises(ConfigError, match="SHRAM banks of tiny, got none for operation 1"):
        find_blocks([geometry_row(small), geometry_row(large)], tiny)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"ifm_shape": (1, 2)}, r"ifm_shape must be a tuple of 3 integers, got \(1, 2\)"),
        ({"ofm_shape": [1, 24, 240]}, "ofm_shape must be a tuple of 3 integers"),
        ({"kernel": (0, 1)}, "kernel must be in 1..65536, got 0"),
        ({"stride": (1, 4)}, "stride must be in 1..3, got 4"),
        ({"dilation": (3, 1)}, "dilation must be in 1..2, got 3"),
        ({"upscale": (1, 1.0)}, "upscale must be an integer, got 1.0"),
        ({"ifm_bits": 9}, "ifm_bits must be 8 or 16, got 9"),
        ({"nearest": None}, "nearest must be True or False, got None"),
        ({"table": 1}, "table must be True or False, got 1"),
        ({"traversal": "depthwise"}, "must equal its ifm depth 17, got 240"),
    ],
)
def test_bad_geometry_is_named(changes, message):
    with pytest.raises(ConfigError, match=message):
        dataclasses.replace(FLAT, **changes)


def test_unknown_names():
    with pytest.raises(UnknownNameError, match="did you mean 'depth-first'"):
        dataclasses.replace(FLAT, traversal="depth first")
    with pytest.raises(UnknownNameError, match="npu must be one of"):
        choose_block(FLAT, "ethos-u55-127")


@pytest.mark.data
def test_blocks_of_real_models(oracle_dir):
    n_ops = 0
    for target, name, ops in oracle_ops.stored_tables(oracle_dir):
        whole = [op for op in ops if not op.record["cascade"]]  # a cascade works on stripes
        blocks = find_blocks(np.array([op.row for op in whole]), target.npu)
        theirs = np.array([op.block for op in whole])
        differing = (blocks[:, : col.BLOCK_COLUMNS] != theirs).any(axis=1)
        assert [whole[i].record["name"] for i in np.flatnonzero(differing)] == [], name
        n_ops += len(whole)
    assert n_ops > 25_000


def random_layer(rng: np.random.Generator) -> Network:
    """One layer with small extents, where many blocks cost the same."""
    net = NetworkBuilder("layer")
    kind = str(rng.choice(["CONV_2D", "CONV_2D", "DEPTHWISE_CONV_2D", "FULLY_CONNECTED"]))
    dtype, bias_dtype = [("int8", "int32"), ("int16", "int64")][rng.integers(2)]
    height, width = (int(n) for n in rng.integers(1, rng.choice([8, 60]), 2))
    ifm_depth, ofm_depth = (int(n) for n in rng.integers(1, 130, 2))
    kernel = tuple(int(n) for n in rng.integers(1, 10, 2))
    if kind == "FULLY_CONNECTED":
        ifm = net.input((1, ifm_depth), dtype, scale=0.1)
        shape, axis, attributes = (ofm_depth, ifm_depth), 0, {}
    else:
        ifm = net.input((1, height, width, ifm_depth), dtype, scale=0.1)
        names = ("stride_h", "stride_w") if rng.random() < 0.7 else ("dilation_h", "dilation_w")
        attributes = dict(zip(names, rng.integers(1, 4, 2).tolist(), strict=True))
        shape, axis = (ofm_depth, *kernel, ifm_depth), 0
        if kind == "DEPTHWISE_CONV_2D":
            shape, axis = (1, *kernel, ifm_depth), 3
            attributes["depth_multiplier"] = 1
    codes = rng.integers(-127, 128, shape).astype(np.int8)
    weights = net.constant(codes, scales=np.full(shape[axis], 0.01), axis=axis)
    bias = net.bias(np.zeros(shape[axis], int), ifm, weights, dtype=bias_dtype)
    return net.build(net.op(kind, ifm, weights, bias, scale=0.5, **attributes))


def differing_blocks(n_layers: int, seed: int) -> tuple[int, list[object]]:
    rng = np.random.default_rng(seed)
    n_compared, differing = 0, []
    for _ in range(n_layers):
        network, name = random_layer(rng), str(rng.choice(npus.names()))
        rows = oracle.compile_rows(network, name)
        if not rows or len(rows) != 1:
            continue
        n_compared += 1
        geometry, block = oracle.geometry_of(rows[0]), oracle.block_of(rows[0])
        if choose_block(geometry, name) != block:
            differing.append((name, geometry, block))
    return n_compared, differing


def test_blocks_of_random_layers():
    n_compared, differing = differing_blocks(60, seed=1)
    assert n_compared > 50
    assert differing == []


@pytest.mark.slow
def test_blocks_of_many_random_layers():
    n_compared, differing = differing_blocks(3000, seed=2)
    assert n_compared > 2500
    assert differing == []
