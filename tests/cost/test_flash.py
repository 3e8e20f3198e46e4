# SPDX-License-Identifier: Apache-2.0
"""What is in flash: by hand, and as Arm's compiler counts it."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import regor_oracle as oracle
from compiled_programs import Reader, compiled_models, compiled_networks
from memory_tables import SHAPE, chain
from random_networks import equal_weights

from npusim.cost.estimate import estimate
from npusim.cost.flash import (
    EncodedWeights,
    FlashItem,
    flash_bytes,
    flash_items,
    other_bytes,
    weight_values,
    weights_bytes,
)
from npusim.cost.lowering import program as lowered
from npusim.cost.program import Program, WeightSource
from npusim.errors import ConfigError
from npusim.network import Network
from npusim.network_builder import NetworkBuilder

ENCODED = EncodedWeights(320, (0, 24), ofm_block_depth=24)
WEIGHTS = WeightSource((24, 1, 1, 24), ("one",), "depth-first")


def three_convolutions(**fields: Any) -> Program:
    """Convolutions with fields of each given in a list."""
    program = chain(SHAPE, SHAPE, SHAPE, SHAPE, kinds=("conv",) * 3)
    ops = [
        replace(op, **{name: values[i] for name, values in fields.items()})
        for i, op in enumerate(program.ops)
    ]
    return replace(program, ops=tuple(ops))


def sizes(items: tuple[FlashItem, ...]) -> list[tuple[str, int]]:
    return [(item.kind, item.n_bytes) for item in items]


class TestItems:
    def test_streams_come_with_biases_and_scales(self):
        program = chain(SHAPE, SHAPE, kinds=("conv",))
        program = replace(program, ops=(replace(program.ops[0], weights=WEIGHTS),))
        (item,) = flash_items(program, [ENCODED])
        assert item == FlashItem("op 0", "weights", 320 + 240, 0)

    @pytest.mark.parametrize(
        ("slices", "n_cores", "wanted"),
        [
            *[((0, 24), 1, 240), ((0, 16, 24), 1, 240), ((0, 8, 24), 1, 240), ((0, 1, 2), 1, 32)],
            *[((0, 24), 2, 256), ((0, 1), 2, 16), ((0, 16, 24), 2, 256)],
        ],
    )
    def test_scales_of_every_slice_and_core_fill_16_bytes(self, slices, n_cores, wanted):
        assert EncodedWeights(0, slices, 8).scale_bytes(n_cores) == wanted

    def test_the_same_weights_are_there_once(self):
        other = replace(WEIGHTS, key=("other",))
        program = three_convolutions(weights=[WEIGHTS, WEIGHTS, other])
        assert sizes(flash_items(program, [ENCODED] * 3)) == [("weights", 560)] * 2

    def test_made_weights_with_the_same_values_are_there_once(self):
        sources = [
            replace(WEIGHTS, key=(i,), is_made=True, ohwi=lambda value=value: np.full(2, value))
            for i, value in enumerate((1, 1, 2))
        ]
        items = flash_items(three_convolutions(weights=sources), [ENCODED] * 3)
        assert [item.name for item in items] == ["op 0", "op 2"]

    @pytest.mark.parametrize("field", [{"depth_slices": (0, 16, 24)}, {"ofm_block_depth": 8}])
    def test_other_cuts_or_blocks_make_other_streams(self, field):
        program = three_convolutions(weights=[WEIGHTS] * 3)
        items = flash_items(program, [ENCODED, replace(ENCODED, **field), ENCODED])
        assert [kind for kind, _ in sizes(items)] == ["weights"] * 2

    def test_tables_with_the_same_content_are_there_once(self):
        program = three_convolutions(
            weights=[None] * 3, table_bytes=[256] * 3, table_content=["tanh", None, "tanh"]
        )
        assert sizes(flash_items(program, [None] * 3)) == [("table", 256)] * 2

    def test_constants_that_the_npu_reads_are_there_once(self):
        flags = {"is_constant": {0: True, 1: True}, "n_constant_bytes": {0: 5, 1: 5}}
        one = chain(SHAPE, SHAPE, SHAPE, **flags)
        assert sizes(flash_items(one, [None] * 2)) == [("constant", 16)] * 2
        same = chain(SHAPE, SHAPE, SHAPE, content={0: "five", 1: "five"}, **flags)
        assert sizes(flash_items(same, [None] * 2)) == [("constant", 16)]
        cpu = chain(SHAPE, SHAPE, SHAPE, kinds=("cpu", "max_pool"), **flags)
        assert [item.name for item in flash_items(cpu, [None] * 2)] == ["map 1"]

    def test_lie_one_behind_the_other(self):
        program = three_convolutions(weights=[WEIGHTS, None, None], table_bytes=[256, 20, 0])
        items = flash_items(program, [ENCODED, None, None])
        assert [item.address for item in items] == [0, 560, 816]
        assert flash_bytes(items) == 848


class TestRefusals:
    @pytest.mark.parametrize(
        ("encoded", "message"),
        [
            ([ENCODED], "encoded must have 3 rows, got 1"),
            ([ENCODED] * 3, "weights of op 'op 1' must have none, got streams"),
            ([None] * 3, "weights of op 'op 0' must have some, got no streams"),
        ],
    )
    def test_of_streams_that_do_not_match(self, encoded, message):
        program = three_convolutions(weights=[WEIGHTS, None, None])
        with pytest.raises(ConfigError, match=f"^{re.escape(message)}$"):
            flash_items(program, encoded)

    @pytest.mark.parametrize(
        ("fields", "message"),
        [
            ({"n_bytes": 8}, "n_bytes must be a multiple of 16, got 8"),
            ({"n_bytes": 1.5}, "n_bytes must be an integer, got 1.5"),
            ({"depth_slices": (0,)}, "depth_slices must rise from 0, got (0,)"),
            ({"depth_slices": (0, 8, 8)}, "depth_slices must rise from 0, got (0, 8, 8)"),
            ({"depth_slices": (4, 8)}, "depth_slices must rise from 0, got (4, 8)"),
            ({"ofm_block_depth": 0}, "ofm_block_depth must be in 1.."),
        ],
    )
    def test_of_malformed_streams(self, fields, message):
        with pytest.raises(ConfigError, match=f"^{re.escape(message)}"):
            replace(ENCODED, **fields)

    def test_of_three_cores(self):
        with pytest.raises(ConfigError, match=r"^n_cores must be in 1\.\.2, got 3$"):
            ENCODED.scale_bytes(3)


def encoded_of(compiled: Any, network: Network) -> list[EncodedWeights | None]:
    """The compiler's streams of every operation."""
    main = {row["id"]: row for row in oracle.table_rows(compiled, "perf_debug_main")}
    found: list[EncodedWeights | None] = []
    for row in Reader(compiled, network).rows:
        if not row["weight_total_bytes"]:
            found.append(None)
            continue
        cuts = tuple(int(cut) for cut in row["ofm_depth_slices"].split("|"))
        depth = int(float(main[row["id"]]["ofm_block_c"]))
        found.append(EncodedWeights(int(row["weight_total_bytes"]), cuts, depth))
    return found


def error_bytes(compiled: Any, network: Network, n_cores: int = 1) -> int:
    """Bytes that our count differs from the compiler's."""
    items = flash_items(lowered(network), encoded_of(compiled, network), n_cores)
    return flash_bytes(items) - int(compiled.perf_report.readOnlyPeakUsage)


def compared_bytes(network: Network, rng: np.random.Generator) -> tuple[int, int]:
    """Bytes of random streams and what goes with them, counted without items and with them."""
    program, known = lowered(network), {}
    encoded: list[EncodedWeights | None] = []
    for op, values in zip(program.ops, weight_values(program), strict=True):
        if op.weights is None:
            encoded.append(None)
            continue
        depth, block_depth = op.ofm.part[3], 8 * int(rng.integers(1, 3))
        depths = (0, *({depth // int(rng.integers(1, 3))} - {depth}), depth)
        one = EncodedWeights(16 * int(rng.integers(1, 9)), depths, block_depth)
        encoded.append(known.setdefault((values, depths, block_depth), one))
    lines = [
        (0, 0, 0, 0)
        if one is None
        else (one.n_bytes, one.scale_bytes(), one.depth_slices[1], one.ofm_block_depth)
        for one in encoded
    ]
    found = np.array(lines, np.int64)
    counted = other_bytes(program) + weights_bytes(program, found[:, :2], found[:, 2:])
    return counted, flash_bytes(flash_items(program, encoded))


def shared_weights() -> Network:
    """Equal and different weights, scales, tables and operands."""
    rng = np.random.default_rng(1)
    net = NetworkBuilder("shared")
    x = net.input((1, 8, 8, 16), scale=0.05)
    weights = net.constant(rng.integers(-127, 128, (16, 3, 3, 16)).astype(np.int8), scales=0.01)
    for scale in (0.05, 0.06, 0.05, 0.06, 0.05):
        x = net.op("CONV_2D", x, weights, net.bias([0] * 16, x, weights), scale=scale)
    for kind in ("LOGISTIC", "TANH", "LOGISTIC"):
        zero_point = -128 if kind == "LOGISTIC" else 0
        x = net.op(kind, x, scale=1 / 128 if zero_point == 0 else 1 / 256, zero_point=zero_point)
    for scale in (0.1, 0.2, 0.1):
        operand = net.constant(np.arange(16, dtype=np.int8).reshape(1, 1, 1, 16), scales=scale)
        x = net.op("MUL", x, operand, scale=0.1)
    return net.build(x)


def leaks(*slopes: float, shift: float = 0.01) -> Network:
    """LEAKY_RELU of 16 bits, each with another scale, so that slopes become operands."""
    net = NetworkBuilder("leaks")
    x = net.input((1, 8, 8, 16), "int16", scale=0.05)
    for number, slope in enumerate(slopes, start=1):
        x = net.op("LEAKY_RELU", x, scale=0.05 + number * shift, alpha=slope)
    return net.build(x)


def equal_slopes(*codes: int) -> Network:
    """PRELU of 16 bits, the slopes of each alike."""
    net = NetworkBuilder("slopes")
    x = net.input((1, 8, 8, 16), "int16", scale=0.05)
    for number, code in enumerate(codes, start=1):
        slopes = net.constant(np.full((1, 1, 16), code, np.int8), scales=0.01)
        x = net.op("PRELU", x, slopes, scale=0.05 + number * 0.01, shape=x.shape)
    return net.build(x)


@pytest.mark.parametrize("scale", [0.01, 0.02])
def test_bytes_of_weights_are_counted_as_items_are(scale):
    rng = np.random.default_rng(4)
    networks = [shared_weights(), *(equal_weights(seed, scale) for seed in range(20))]
    pairs = [compared_bytes(network, rng) for network in networks for _ in range(4)]
    assert [counted for counted, _ in pairs] == [itemised for _, itemised in pairs]


class TestCompiler:
    @pytest.mark.parametrize("seed", range(8))
    @pytest.mark.parametrize("scale", [0.01, 0.02])
    def test_equal_weights_are_there_once(self, seed, scale):
        network, npu = equal_weights(seed, scale), ("ethos-u55-32", "ethos-u55-256")[seed % 2]
        report = oracle.compile_model(network, npu).perf_report
        cost = estimate(network, npu)
        assert cost.flash_bytes == report.readOnlyPeakUsage
        assert cost.sram_peak_bytes == report.memories["Sram"].peakUsage
        assert cost.total_cycles == report.totalCycles

    @pytest.mark.parametrize(
        ("network", "n_bytes"),
        [
            *[(leaks(0.1), 16), (leaks(0.1, 0.2), 16), (leaks(1.5), 32), (leaks(0.1, shift=0), 0)],
            *[(leaks(-0.3, -0.2), 32), (leaks(-0.3, 0.2), 48)],
            *[(equal_slopes(13), 32), (equal_slopes(13, 25), 48), (equal_slopes(13, 13), 32)],
            *[(equal_slopes(-13), 32), (equal_slopes(-13, 25), 64), (equal_slopes(1), 16)],
        ],
    )
    def test_slopes_are_there_once(self, network, n_bytes):
        compiled = oracle.compile_model(network, "ethos-u55-128")
        assert compiled.perf_report.readOnlyPeakUsage == n_bytes
        assert error_bytes(compiled, network) == 0

    @pytest.mark.parametrize("npu", ["ethos-u55-32", "ethos-u65-512"])
    def test_shared_content(self, npu):
        network = shared_weights()
        compiled = oracle.compile_model(network, npu)
        assert error_bytes(compiled, network, oracle.NPUS[npu][2]) == 0

    def test_random_networks(self):
        found = {}
        for label, network, compiled in compiled_networks(4):
            if len(Reader(compiled, network).rows) == len(lowered(network).ops):
                found[label] = error_bytes(compiled, network)
        assert len(found) > 40
        assert {label: error for label, error in found.items() if error} == {}

    def test_real_models(self, models_dir):
        found = {
            label: error_bytes(compiled, network)
            for label, network, compiled in compiled_models(models_dir)
            if len(Reader(compiled, network).rows) == len(lowered(network).ops)
        }
        assert len(found) >= 14
        assert {label: error for label, error in found.items() if error} == {}
