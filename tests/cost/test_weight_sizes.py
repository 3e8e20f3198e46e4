# SPDX-License-Identifier: Apache-2.0
"""Expected sizes of weights against the streams that Arm's encoder makes."""

from __future__ import annotations

import numpy as np
import pytest

from npusim.cost import columns as col
from npusim.cost.program import NpuOp, View, WeightSource
from npusim.cost.rows import npu_array
from npusim.cost.weight_sizes import ExactSizes, ExpectedSizes, weights_row
from npusim.cost.weight_sizes_kernels import coded_weights
from npusim.errors import ConfigError, UnknownNameError
from npusim.npu import get, names
from npusim.weights import reorder
from npusim.weights.expected import WeightStatistics
from npusim.weights.measures import weights_entropy_bits
from npusim.weights.traversal import choose_traversal


def operation(weights: np.ndarray, kind: str, bits: int = 8, *, made: bool = False) -> NpuOp:
    shape = weights.shape
    depths = (1, 8, 8, shape[0] if kind == "DEPTHWISE_CONV_2D" else shape[3]), (1, 8, 8, shape[0])
    traversal = choose_traversal(shape, kind, bits)
    source = WeightSource(shape, ("w",), traversal, weights.copy, is_made=made)
    views = [View(i, depth) for i, depth in enumerate(depths)]
    return NpuOp("y", "conv", *views, kernel=shape[1:3], weights=source)


def drawn(rng: np.random.Generator) -> tuple[np.ndarray, str]:
    """Trained weights of some layer, and its kind."""
    kind = ("CONV_2D", "DEPTHWISE_CONV_2D", "FULLY_CONNECTED")[int(rng.integers(3))]
    kernel = (1, 1) if kind == "FULLY_CONNECTED" else tuple(map(int, rng.integers(1, 10, 2)))
    depth = 1 if kind == "DEPTHWISE_CONV_2D" else int(rng.integers(1, 80))
    values = rng.normal(size=(int(rng.integers(1, 80)), *kernel, depth))
    scaled = values / np.abs(values).max(axis=(1, 2, 3), keepdims=True) * 127
    return np.rint(scaled).astype(np.int16), kind


@pytest.mark.parametrize("seed", range(60))
def test_as_many_values_are_coded_as_in_the_stream(seed: int) -> None:
    rng = np.random.default_rng((31, seed))
    weights, kind = drawn(rng)
    bits = 16 if rng.random() < 0.3 else 8
    npu = get(str(rng.choice([name for name in names() if get(name).n_cores == 1])))
    op = operation(weights, kind, bits)
    row = weights_row(op, bits)
    assert op.weights is not None
    values = reorder(
        weights, npu, ofm_block_depth=16, traversal=op.weights.traversal, ifm_bits=bits
    )
    assert coded_weights(row, npu_array(npu), weights.shape[0]) == values.size
    assert row[col.IFM_BITS] == bits


def test_sizes_from_entropy_are_near() -> None:
    npu, errors, exact, expected = get("ethos-u55-128"), [], 0, 0
    rng = np.random.default_rng(0)
    for _ in range(150):
        weights, kind = drawn(rng)
        op = operation(weights, kind)
        known = WeightStatistics(
            entropy_bits=float(weights_entropy_bits(weights)),
            nonzero_fraction=float((weights != 0).mean()),
        )
        cut = (0, weights.shape[0])
        size = int(ExactSizes(npu).slices(op, 8, 16, cut)[0, 0])
        found = int(ExpectedSizes(npu, known).slices(op, 8, 16, cut)[0, 0])
        exact, expected = exact + size, expected + found
        if size >= 1024:
            errors.append(found / size - 1)
    assert abs(expected / exact - 1) < 0.04
    assert np.abs(errors).mean() < 0.04


def test_weights_that_the_compiler_makes() -> None:
    npu = get("ethos-u55-128")
    for shape in ((29, 27, 11, 1), (37, 32, 24, 1), (4, 24, 12, 1)):
        op = operation(np.ones(shape, np.int16), "DEPTHWISE_CONV_2D", made=True)
        sizes = [
            of.slices(op, 8, 16, (0, shape[0])) for of in (ExactSizes(npu), ExpectedSizes(npu))
        ]
        np.testing.assert_array_equal(*sizes)


def test_more_known_zeros_take_less() -> None:
    op = operation(np.ones((64, 3, 3, 64), np.int16), "CONV_2D")
    sizes = [
        int(ExpectedSizes(get("ethos-u55-128"), WeightStatistics(bits, part)).slices(*given)[0, 0])
        for given in [(op, 8, 16, (0, 64))]
        for bits in (8, 4)
        for part in (1.0, 0.5, 0.1)
    ]
    assert sizes[:3] == sorted(sizes[:3], reverse=True)
    assert sizes[3:] == sorted(sizes[3:], reverse=True)
    assert sizes[3] < sizes[0]


def test_errors() -> None:
    op = operation(np.ones((8, 3, 3, 8), np.int16), "CONV_2D")
    sizes = ExpectedSizes(get("ethos-u55-128"), {"x": WeightStatistics()})
    with pytest.raises(UnknownNameError, match="weight statistics"):
        sizes.slices(op, 8, 16, (0, 8))
    for wrong in ({"bits": 9}, {"nonzero_fraction": 1.5}, {"entropy_bits": -1.0}):
        with pytest.raises(ConfigError, match=next(iter(wrong))):
            WeightStatistics(**wrong)  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="must not both"):
        WeightStatistics(entropy_bits=3.0, n_clusters=16)
