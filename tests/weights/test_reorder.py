# SPDX-License-Identifier: Apache-2.0
"""Stream order: by hand, against the plain-Python order and position by position against Arm's."""

from __future__ import annotations

from collections import Counter
from itertools import groupby

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from npusim import npu as npus
from npusim.errors import ConfigError, UnknownNameError
from npusim.weights import reference_reorder
from npusim.weights.reorder import (
    TRAVERSALS,
    coded_weights,
    depth_slices,
    padding_runs,
    reorder,
    reorder_slices,
    restore,
)

SMALL = np.ones((8, 1, 1, 8), np.int8)


def random_case(rng, most=40):
    """Weights and arguments, valid on some NPU: half of the depths near a multiple of 8."""
    npu = npus.get(rng.choice(npus.names()))
    traversal = str(rng.choice(TRAVERSALS))

    def depth():
        near = 8 * int(rng.integers(1, most // 8 + 1)) + int(rng.integers(-1, 2))
        return near if rng.random() < 0.5 else int(rng.integers(1, most))

    ofm_depth = depth()
    ifm_depth = 1 if traversal == "depthwise" else depth()
    long_kernel = rng.random() < 0.1
    height, width = rng.integers(1, 19 if long_kernel else 6, 2).tolist()
    step = npu.ofm_ublock_depth * npu.n_cores
    covering = rng.random() < 0.2
    block = int(rng.integers(ofm_depth, 129)) if covering else step * int(rng.integers(1, 5))
    options = {
        "ofm_block_depth": block,
        "traversal": traversal,
        "ifm_bits": int(rng.choice([8, 16])),
        "dilation": tuple(rng.integers(1, 3, 2).tolist()),
        "core": int(rng.integers(min(npu.n_cores, ofm_depth))),
    }
    weights = rng.integers(-255, 256, (ofm_depth, height, width, ifm_depth))
    return weights, npu, options


def core_arguments(npu, options):
    """Block depth of the core's own channels, as Arm's encoder and the reference take it."""
    return -(-(options["ofm_block_depth"] - options["core"]) // npu.n_cores)


def differ_from_arm(seed, n_cases, most):
    codec = pytest.importorskip("ethosu.mlw_codec", reason="ethos-u-vela is the oracle")
    rng = np.random.default_rng(seed)
    differing = []
    for case in range(n_cases):
        weights, npu, options = random_case(rng, most)
        stream, n_coded = codec.reorder_encode(
            npu.ifm_ublock_depth,
            npu.ofm_ublock_depth,
            np.ascontiguousarray(weights[options["core"] :: npu.n_cores], np.int16),
            core_arguments(npu, options),
            options["traversal"] == "depthwise",
            options["traversal"] == "part-kernel",
            options["ifm_bits"],
            8 // options["dilation"][0],
            8 // options["dilation"][1],
        )
        values = reorder(weights, npu, **options)
        same = values.tolist() == codec.decode(bytearray(stream))
        if not same or coded_weights(weights.shape, npu, **options) != n_coded:
            differing.append((case, weights.shape, npu.name, options))
    return differing


def test_order_equals_arms_on_random_layers():
    assert differ_from_arm(seed=1, n_cases=400, most=40) == []


@pytest.mark.slow
def test_order_equals_arms_on_many_random_layers():
    assert differ_from_arm(seed=2, n_cases=6000, most=80) == []


@settings(deadline=None, derandomize=True, max_examples=60)
@given(seed=st.integers(0, 2**32 - 1))
def test_kernel_equals_reference_and_restores(seed):
    weights, npu, options = random_case(np.random.default_rng(seed), most=24)
    values = reorder(weights, npu, **options)
    own = weights[options["core"] :: npu.n_cores]
    expected = reference_reorder.reorder(
        own.tolist(),
        core_arguments(npu, options),
        npu.ofm_ublock_depth,
        npu.ifm_ublock_depth,
        options["traversal"],
        options["ifm_bits"],
        options["dilation"],
    )
    assert values.dtype == np.int16
    assert values.tolist() == expected
    assert len(expected) == coded_weights(weights.shape, npu, **options)
    assert (restore(values, weights.shape, npu, **options) == own).all()


def test_depth_first_order_by_hand():
    weights = np.arange(1, 5).reshape(2, 1, 2, 1)  # o0: 1 2, o1: 3 4
    values = reorder(weights, "ethos-u55-32")
    assert values.shape == (2 * 4 * 32,)  # 2 elements, 4 ofm lanes, 32 ifm lanes
    assert {int(p): int(values[p]) for p in np.flatnonzero(values)} == {0: 1, 8: 3, 128: 2, 136: 4}


def test_part_kernel_order_by_hand():
    weights = np.arange(1, 5).reshape(2, 1, 2, 1)
    values = reorder(weights, "ethos-u55-128", traversal="part-kernel")
    assert values.shape == (4 * 8 * 8,)  # 2 elements padded to 4, 8 ofm lanes, 8 ifm lanes
    assert {int(p): int(values[p]) for p in np.flatnonzero(values)} == {0: 1, 8: 3, 64: 2, 72: 4}


def test_depthwise_order_by_hand():
    weights = np.arange(1, 5).reshape(2, 1, 2, 1)
    values = reorder(weights, "ethos-u55-128", traversal="depthwise")
    assert values.tolist() == [1, 3, *[0] * 6, 2, 4, *[0] * 22]


def test_dilation_shrinks_the_sub_kernels():
    weights = np.arange(1, 10).reshape(1, 9, 1, 1)
    options = {"traversal": "depthwise", "npu": "ethos-u55-32"}
    whole = reorder(weights, **options)[::4]
    dilated = reorder(weights, dilation=(2, 1), **options)[::4]
    assert whole.tolist() == [1, 2, 3, 4, 5, 6, 7, 8, 9, 0, 0, 0]  # sub-kernels of 8 and 1 rows
    assert dilated.tolist() == [1, 2, 3, 4, 5, 6, 7, 8, 9, 0, 0, 0]  # of 4, 4 and 1
    weights = np.arange(1, 6).reshape(1, 5, 1, 1)
    assert reorder(weights, **options)[::4].tolist() == [1, 2, 3, 4, 5, 0, 0, 0]
    weights = np.arange(1, 11).reshape(1, 5, 2, 1)
    both = reorder(weights, dilation=(2, 1), **options)[::4]
    assert both.tolist() == [1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 0, 0]
    wide = reorder(weights.reshape(1, 2, 5, 1), dilation=(1, 2), **options)[::4]
    assert wide.tolist() == [1, 2, 3, 4, 6, 7, 8, 9, 5, 10, 0, 0]


def test_u55_sizes_from_64_macs_on_share_one_order():
    weights = np.random.default_rng(3).integers(-9, 9, (24, 3, 3, 20))
    orders = {npu: reorder(weights, npu).tobytes() for npu in npus.names() if "512" not in npu}
    assert len({orders[npu] for npu in orders if npu != "ethos-u55-32"}) == 1
    assert orders["ethos-u55-32"] != orders["ethos-u55-64"]


def test_second_core_takes_the_odd_channels():
    weights = np.arange(1, 6).reshape(5, 1, 1, 1)
    options = {"npu": "ethos-u65-512", "traversal": "depthwise"}
    assert reorder(weights, **options)[:8].tolist() == [1, 3, 5, 0, 0, 0, 0, 0]
    assert reorder(weights, core=1, **options)[:8].tolist() == [2, 4, 0, 0, 0, 0, 0, 0]


@pytest.mark.parametrize("dtype", [np.int8, np.uint8, np.int16, np.int32, np.uint64])
def test_zero_point_is_subtracted_whatever_the_dtype(dtype):
    weights = np.array([[3], [120]], dtype).reshape(2, 1, 1, 1)
    values = reorder(weights, traversal="depthwise", zero_point=100)
    assert values[:2].tolist() == [-97, 20]


def test_extremes_of_uint8_fit():
    weights = np.array([0, 255], np.uint8).reshape(2, 1, 1, 1)
    for zero_point in (0, 255):
        values = reorder(weights, traversal="depthwise", zero_point=zero_point)
        assert values[:2].tolist() == [-zero_point, 255 - zero_point]


def test_strided_and_fortran_arrays_are_read_by_position():
    weights = np.random.default_rng(4).integers(-9, 9, (16, 3, 3, 24)).astype(np.int16)
    expected = reorder(weights[:, ::-1, ::-1].copy()).tolist()
    assert reorder(weights[:, ::-1, ::-1]).tolist() == expected
    assert reorder(np.asfortranarray(weights[:, ::-1, ::-1])).tolist() == expected


def test_input_is_left_alone():
    weights = np.full((3, 2, 2, 5), 7, np.int16)
    weights.flags.writeable = False
    assert reorder(weights).sum() == weights.sum()


def test_slices_restart_the_order_and_the_cores():
    weights = np.random.default_rng(5).integers(-99, 99, (33, 1, 1, 8))
    parts = reorder_slices(weights, [0, 16, 32, 33], "ethos-u65-512", ofm_block_depth=16)
    where = [(part.ofm_offset, part.ofm_depth, part.core) for part in parts]
    assert where == [(0, 16, 0), (0, 16, 1), (16, 16, 0), (16, 16, 1), (32, 1, 0)]
    own = reorder(weights[16:32], "ethos-u65-512", ofm_block_depth=16, core=1)
    assert parts[3].values.tolist() == own.tolist()
    whole = reorder_slices(weights)
    assert [(part.ofm_offset, part.ofm_depth, part.core) for part in whole] == [(0, 33, 0)]
    assert whole[0].values.tolist() == reorder(weights).tolist()


@pytest.mark.parametrize("seed", range(40))
def test_padding_runs_are_the_zeros_between_weights(seed):
    weights, npu, options = random_case(np.random.default_rng(seed))
    coded = reorder(np.ones_like(weights), npu, **options).tolist()
    runs = Counter(len(list(run)) for weight, run in groupby(coded) if not weight)
    assert padding_runs(weights.shape, npu, **options).tolist() == sorted(map(list, runs.items()))


def test_padding_of_a_bad_shape_is_refused():
    with pytest.raises(ConfigError, match=r"shape"):
        padding_runs((8, 1, 8))
    with pytest.raises(UnknownNameError, match="traversal must be one of"):
        padding_runs((8, 1, 1, 8), traversal="depth")


def test_restore_refuses_weights_in_padding():
    values = reorder(SMALL)
    values[64] = 5
    with pytest.raises(ConfigError, match=r"must be 0 in padding, got 5 at position 64"):
        restore(values, SMALL.shape)
    values = reorder(np.ones((3, 1, 1, 1), np.int8), traversal="depthwise")
    values[-1] = -1
    with pytest.raises(ConfigError, match=r"got -1 at position 31"):
        restore(values, (3, 1, 1, 1), traversal="depthwise")


@pytest.mark.parametrize(
    ("weights", "message"),
    [
        (np.ones((8, 1, 1, 8), bool), "weights must hold integers, got dtype bool"),
        (np.ones((8, 1, 1, 8)), "weights must hold integers, got dtype float64"),
        (np.full((8, 1, 1, 8), np.nan), "weights must hold integers, got dtype float64"),
        (np.ones((8, 1, 1, 8), object), "weights must hold integers, got dtype object"),
        (np.ones((8, 1, 1, 8), complex), "weights must hold integers, got dtype complex128"),
        ("weights", "weights must hold integers, got dtype <U7"),
        (None, "weights must hold integers, got dtype object"),
        ([[1], [1, 2]], "weights must form one array"),
        (np.ones((8, 8), int), r"weights must have 4 axes \[O, H, W, I\], got shape \(8, 8\)"),
        (np.int8(3), r"weights must have 4 axes \[O, H, W, I\], got shape \(\)"),
        (np.ones((8, 0, 1, 8), int), r"weight axis H must be in 1..2147483648, got 0"),
        (np.full((1, 1, 1, 1), 256), r"weights must be in -255..255, got 256"),
        (np.full((1, 1, 1, 1), -256), r"weights must be in -255..255, got -256"),
        (np.full((1, 1, 1, 1), 2**63, np.uint64), r"must be in -255..255, got 9223372036854775808"),
        (np.full((1, 1, 1, 1), -(2**63)), r"must be in -255..255, got -9223372036854775808"),
    ],
)
def test_bad_weights_are_refused(weights, message):
    with pytest.raises(ConfigError, match=message):
        reorder(weights)
    with pytest.raises(ConfigError, match=message):
        reorder_slices(weights)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"ofm_block_depth": 0}, r"ofm_block_depth must be in 1..128, got 0"),
        ({"ofm_block_depth": -8}, r"ofm_block_depth must be in 1..128, got -8"),
        ({"ofm_block_depth": 136}, r"ofm_block_depth must be in 1..128, got 136"),
        ({"ofm_block_depth": 16.0}, r"ofm_block_depth must be an integer, got 16.0"),
        ({"ofm_block_depth": True}, r"ofm_block_depth must be an integer, got True"),
        ({"ofm_block_depth": 4}, r"must be a multiple of 8 on ethos-u55-128 .* depth 8, got 4"),
        ({"ofm_block_depth": 4, "npu": "ethos-u65-512"}, r"must be a multiple of 16 on"),
        ({"ifm_bits": 9}, "ifm_bits must be 8 or 16, got 9"),
        ({"ifm_bits": 32}, r"ifm_bits must be in 8..16, got 32"),
        ({"ifm_bits": "8"}, "ifm_bits must be an integer, got '8'"),
        ({"dilation": 1}, r"dilation must be \(height, width\), got 1"),
        ({"dilation": (1, 1, 1)}, r"dilation must be \(height, width\)"),
        ({"dilation": (0, 1)}, r"dilation h must be in 1..2, got 0"),
        ({"dilation": (1, 3)}, r"dilation w must be in 1..2, got 3"),
        ({"core": 1}, r"core must be in 0..0, got 1"),
        ({"core": -1}, r"core must be in 0..0, got -1"),
        ({"core": 2, "npu": "ethos-u65-512"}, r"core must be in 0..1, got 2"),
        ({"traversal": "depthwise"}, r"depthwise weights must have shape \[O, H, W, 1\]"),
    ],
)
def test_bad_arguments_are_refused(options, message):
    with pytest.raises(ConfigError, match=message):
        reorder(SMALL, **options)
    with pytest.raises(ConfigError, match=message):
        coded_weights(SMALL.shape, **options)
    with pytest.raises(ConfigError, match=message):
        restore(np.zeros(256, int), SMALL.shape, **options)


def test_unknown_names_are_refused_with_a_guess():
    with pytest.raises(UnknownNameError, match="did you mean 'part-kernel'"):
        reorder(SMALL, traversal="part_kernel")
    with pytest.raises(UnknownNameError, match="traversal must be one of"):
        reorder(SMALL, traversal=None)
    with pytest.raises(UnknownNameError, match="did you mean 'ethos-u55-128'"):
        reorder(SMALL, "ethosu55-128")


@pytest.mark.parametrize(
    ("zero_point", "dtype", "message"),
    [
        (128, np.int8, r"zero_point of 8-bit weights must be in -128..127, got 128"),
        (-1, np.uint8, r"zero_point of 8-bit weights must be in 0..255, got -1"),
        (0.0, np.int8, r"zero_point of 8-bit weights must be an integer, got 0.0"),
        (255, np.int16, r"weights less the zero point 255 must be in -255..255, got -256"),
        (2**40, np.int64, r"zero_point must be in"),
    ],
)
def test_bad_zero_points_are_refused(zero_point, dtype, message):
    with pytest.raises(ConfigError, match=message):
        reorder(np.full((1, 1, 1, 1), -1).astype(dtype), zero_point=zero_point)


@pytest.mark.parametrize(
    ("offsets", "message"),
    [
        ([], "must run from 0 to the ofm depth 40, got"),
        ([40], "must run from 0 to the ofm depth 40"),
        ([16, 40], "must run from 0 to the ofm depth 40"),
        ([0, 16], "must run from 0 to the ofm depth 40"),
        ([0, 16, 16, 40], "must rise strictly"),
        ([0, 32, 16, 40], "must rise strictly"),
        ([0, 8, 40], "must be multiples of 16"),
        ([0, 48, 40], r"a slice offset must be in 0..40, got 48"),
        ([0, 16.0, 40], "a slice offset must be an integer, got 16.0"),
    ],
)
def test_bad_slices_are_refused(offsets, message):
    with pytest.raises(ConfigError, match=message):
        depth_slices(np.zeros((40, 1, 1, 8), int), offsets)


@pytest.mark.parametrize(
    ("values", "shape", "message"),
    [
        (np.zeros(255, int), (8, 1, 1, 8), r"values must have shape \(256,\), got \(255,\)"),
        (np.zeros((256, 1), int), (8, 1, 1, 8), r"values must have shape \(256,\)"),
        (np.zeros(256), (8, 1, 1, 8), "values must hold integers"),
        (np.full(256, 300), (8, 1, 1, 8), r"values must be in -255..255, got 300"),
        (np.zeros(256, int), (8, 1, 8), r"weights must have 4 axes"),
        (np.zeros(256, int), "8118", r"weights must have 4 axes"),
        (np.zeros(256, int), (8, 1, 1, 0), r"weight axis I must be in"),
        (np.zeros(256, int), (2**31, 2**31, 1, 1), r"must take at most 1099511627776 values"),
    ],
)
def test_restore_refuses_bad_values_and_shapes(values, shape, message):
    with pytest.raises(ConfigError, match=message):
        restore(values, shape)


def test_kernels_have_one_signature():
    from npusim.weights import reorder_kernels

    for dtype in (np.int8, np.uint8, np.int16, np.int64):
        values = reorder(np.ones((3, 2, 2, 5), dtype))
        restore(values.astype(dtype), (3, 2, 2, 5))
    if hasattr(reorder_kernels.walk, "signatures"):
        assert len(reorder_kernels.walk.signatures) == 1
    else:
        pytest.skip("NUMBA_DISABLE_JIT is set")
