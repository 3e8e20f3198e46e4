# SPDX-License-Identifier: Apache-2.0
"""The block search: kernel = twin, equal to Arm's compiler on stored models and random layers."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import regor_oracle as oracle
from hypothesis import given, settings
from hypothesis import strategies as st

from npusim import npu as npus
from npusim.cost.blocks import BlockConfig, MacGeometry, available_banks, choose_block
from npusim.cost.reference_blocks import choose_block as reference_block
from npusim.errors import ConfigError, UnknownNameError
from npusim.network import Network
from npusim.network_builder import NetworkBuilder
from npusim.weights.reorder import TRAVERSALS

PAIRS = st.tuples(st.integers(1, 2), st.integers(1, 2))
FLAT = MacGeometry((1, 24, 17), (1, 24, 240), "depth-first")


@st.composite
def geometries(draw):
    extents = st.integers(1, 40)
    traversal = draw(st.sampled_from(TRAVERSALS))
    ifm_depth = draw(st.integers(1, 150))
    ofm_depth = ifm_depth if traversal == "depthwise" else draw(st.integers(1, 200))
    return MacGeometry(
        (draw(extents), draw(extents), ifm_depth),
        (draw(extents), draw(extents), ofm_depth),
        traversal,
        kernel=(draw(st.integers(1, 12)), draw(st.integers(1, 12))),
        stride=(draw(st.integers(1, 3)), draw(st.integers(1, 3))),
        dilation=draw(PAIRS),
        upscale=draw(PAIRS),
        nearest=draw(st.booleans()),
        ifm_bits=draw(st.sampled_from((8, 16))),
        table=draw(st.booleans()),
    )


@settings(deadline=None, derandomize=True, max_examples=60)
@given(geometry=geometries(), name=st.sampled_from(npus.names()))
def test_kernel_is_its_twin(geometry, name):
    assert choose_block(geometry, name) == reference_block(geometry, npus.get(name))


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


def test_a_table_takes_banks_of_the_smallest_shram_only():
    small, large = npus.get("ethos-u55-32"), npus.get("ethos-u55-128")
    assert (available_banks(small, False), available_banks(small, True)) == (14, 12)
    assert available_banks(large, False) == available_banks(large, True) == 20
    geometry = MacGeometry((32, 32, 32), (32, 32, 64), "depth-first")
    with_table = dataclasses.replace(geometry, table=True)
    assert choose_block(geometry, small) != choose_block(with_table, small)


def test_block_must_fit():
    tiny = dataclasses.replace(npus.get("ethos-u55-32"), name="tiny", shram_banks=6)
    assert reference_block(FLAT, tiny) is None
    with pytest.raises(ConfigError, match="must fit the 6 SHRAM banks of tiny, got none for Mac"):
        choose_block(FLAT, tiny)


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
@pytest.mark.parametrize("name", npus.names())
def test_blocks_of_real_models(oracle_dir, name):
    rows = list(oracle.stored_rows(oracle_dir, name))
    assert len(rows) > 400
    for row in rows:
        geometry = oracle.geometry_of(row)
        assert oracle.TRAVERSALS[row["traversal"]] == geometry.traversal
        assert choose_block(geometry, name) == oracle.block_of(row), (row["model"], geometry)


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
