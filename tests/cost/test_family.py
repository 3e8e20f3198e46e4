# SPDX-License-Identifier: Apache-2.0
"""Families: networks in other widths are, array by array, what is built in those widths."""

from __future__ import annotations

import itertools
from dataclasses import replace

import numpy as np
import pytest
from deep_networks import window
from random_graphs import KINDS, RandomGraph

from npusim.cost.batch import Batch
from npusim.cost.family import Family
from npusim.cost.lowering import program
from npusim.cost.program import FeatureMap, NpuOp, Program, View
from npusim.errors import ConfigError
from npusim.network_builder import NetworkBuilder
from npusim.tensor import Tensor
from npusim.weights.expected import WeightStatistics

SCALE = 0.05


class Net:
    """Builds a network of all the ways in which depths depend on each other."""

    def __init__(self) -> None:
        self.net = NetworkBuilder("net")
        self.codes = itertools.count(1)  # no two layers have equal weights, which would be shared

    def mac(self, x: Tensor, kind: str, shape: tuple[int, ...], **options: object) -> Tensor:
        depth = shape[3 if kind == "DEPTHWISE_CONV_2D" else 0]
        weights = self.net.constant(np.full(shape, next(self.codes), np.int8), scales=0.01)
        bias = self.net.bias([0] * depth, x, weights)
        return self.net.op(kind, x, weights, bias, scale=SCALE, **options)

    def conv(self, x: Tensor, depth: int, kernel: int = 3, stride: int = 1) -> Tensor:
        return self.mac(x, "CONV_2D", (depth, kernel, kernel, x.shape[3]), **window(stride, True))

    def depthwise(self, x: Tensor) -> Tensor:
        shape = (1, 3, 3, x.shape[3])
        return self.mac(x, "DEPTHWISE_CONV_2D", shape, depth_multiplier=1, **window(1, True))

    def build(self, widths: list[int]) -> Program:
        """Stem, residual, depthwise, concatenation, and a dense head on all pixels."""
        stem, inner, first, second, dense = widths
        net = self.net
        x = self.conv(net.input((1, 16, 12, 3), "int8", scale=SCALE), stem, stride=2)
        y = self.conv(self.conv(x, inner, 1), stem)
        x = net.op("ADD", x, y, scale=SCALE)
        parts = [self.conv(x, first, 1), self.depthwise(self.conv(x, second))]
        shape = (*x.shape[:3], first + second)
        x = net.op("CONCATENATION", *parts, axis=3, shape=shape, scale=SCALE)
        x = net.op("MAX_POOL_2D", x, filter_h=2, filter_w=2, **window(2, False))
        n = int(np.prod(x.shape[1:]))
        x = net.op("RESHAPE", x, np.array([1, n], np.int32), shape=(1, n))
        x = self.mac(x, "FULLY_CONNECTED", (dense, n))
        return program(net.build(self.mac(x, "FULLY_CONNECTED", (10, dense))))


def assert_same(found: Batch, wanted: Batch) -> None:
    np.testing.assert_array_equal(found.ops[found.rows], wanted.ops[wanted.rows])
    links = np.tile(found.links, (found.n_programs, 1))  # one for all
    np.testing.assert_array_equal(links, wanted.links)
    for name in ("formats", "other_bytes"):
        np.testing.assert_array_equal(getattr(found, name), getattr(wanted, name), err_msg=name)
    for name in ("maps", "in_place"):
        values = getattr(wanted.table, name)
        np.testing.assert_array_equal(getattr(found.table, name), values, err_msg=name)
    n_columns, shared = wanted.table.accesses.shape[1], found.table.starts[-1, 0] == 0
    for i in range(wanted.n_programs):
        (low, *_), (high, *_) = wanted.table.starts[i : i + 2].tolist()
        uses = found.table.accesses if shared else found.table.accesses[low:high]
        compared = 3 if shared else n_columns  # depths then are those of one program
        np.testing.assert_array_equal(
            uses[:, :compared], wanted.table.accesses[low:high, :compared], err_msg=str(i)
        )


def test_widths_of_all_kinds() -> None:
    family = Family(Net().build([16, 24, 8, 32, 48]))
    assert list(family.widths.values()) == [16, 24, 8, 32, 48]
    widths = np.random.default_rng(0).integers(8, 80, (40, 5))
    widths[:20] = -(-widths[:20] // 16) * 16
    wanted = Batch.of([Net().build(one) for one in widths.tolist()])
    assert_same(family.batch(widths), wanted)


def chain(widths: tuple[int, ...], side: int = 8) -> Program:
    """Convolutions one after the other, whose maps are seen in one depth each."""
    net = Net()
    x = net.net.input((1, side, side, 3), "int8", scale=SCALE)
    for depth in widths:
        x = net.conv(x, depth)
    return program(net.net.build(net.conv(x, 10)))


def test_networks_share_their_accesses_where_depths_do_not_decide_about_formats() -> None:
    family = Family(chain((16, 24)))
    widths = np.random.default_rng(3).integers(8, 80, (20, 2))
    found = family.batch(widths)
    assert not found.table.starts[:, 0].any()
    assert_same(found, Batch.of([chain(tuple(one)) for one in widths.tolist()]))
    large = Family(chain((16,), side=1024))  # a map of more than 2**31 elements is in NHWC
    sizes = np.array([[16], [4096]])
    found = large.batch(sizes)
    assert found.table.starts[-1, 0] == len(found.table.accesses)
    assert found.formats.reshape(2, -1).sum(axis=1).tolist() == [1, 0]
    np.testing.assert_array_equal(found.formats[:3], large.batch(sizes[:1]).formats)


def test_what_is_known_of_weights() -> None:
    family = Family(Net().build([16, 24, 8, 32, 48]))
    statistics = [WeightStatistics(bits) for bits in (2, 4, 8)]
    widths = np.random.default_rng(1).integers(8, 80, (12, 5))
    choices = np.random.default_rng(2).integers(0, 3, (12, len(family.weighted)))
    found = family.batch(widths, statistics, choices)
    wanted = []
    for one, chosen in zip(widths.tolist(), choices.tolist(), strict=True):
        lowered = Net().build(one)
        names = [op.source.name for op in lowered.ops if op.weights and op.source]
        known = {name: statistics[i] for name, i in zip(names, chosen, strict=True)}
        wanted.append(Batch.of([lowered], known))
    ops = [one.ops[one.rows] for one in wanted]
    np.testing.assert_array_equal(found.ops[found.rows], np.concatenate(ops))


@pytest.mark.parametrize("seed", range(40))
def test_any_program_is_a_member_of_its_family(seed: int) -> None:
    network = RandomGraph(np.random.default_rng((9, seed)), list(KINDS), 10).build()
    assert network is not None
    lowered = program(network)
    family = Family(lowered)
    own = np.array(list(family.widths.values()), np.int64)[None]
    assert_same(family.batch(own), Batch.of([lowered]))


def test_maps_without_elements_fix_what_they_touch() -> None:
    shapes = (1, 4, 4, 0), (1, 4, 4, 8), (1, 4, 4, 8)
    maps = tuple(FeatureMap(name, shape) for name, shape in zip("xyz", shapes, strict=True))
    x, y, z = (View(index, shape) for index, shape in enumerate(shapes))
    ops = NpuOp("y", "cpu", replace(x, shape=(1, 4, 4, 2)), y), NpuOp("z", "abs", y, z)
    lowered = Program("empty", maps, ops)
    family = Family(lowered)
    assert family.widths == {}
    assert_same(family.batch(np.empty((1, 0), np.int64)), Batch.of([lowered]))


@pytest.mark.parametrize(
    ("widths", "message"),
    [
        ([[1, 2, 3]], "widths must have shape"),
        ([[0, 1, 1, 1, 1]], r"widths must be in 1\.\.65536"),
        ([[1.5, 1, 1, 1, 1]], "widths must hold integers"),
    ],
)
def test_wrong_widths(widths: list[list[float]], message: str) -> None:
    family = Family(Net().build([16, 24, 8, 32, 48]))
    with pytest.raises(ConfigError, match=message):
        family.batch(widths)


def test_wrong_choices() -> None:
    family = Family(Net().build([16, 24, 8, 32, 48]))
    with pytest.raises(ConfigError, match="choices must have shape"):
        family.batch([[1] * 5], choices=[[0]])
    with pytest.raises(ConfigError, match=r"choices must be in 0\.\.0"):
        family.batch([[1] * 5], choices=[[1] * len(family.weighted)])
