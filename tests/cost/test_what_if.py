# SPDX-License-Identifier: Apache-2.0
"""Workloads on many machines: sweeps, sensitivities, widths of layers."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import npusim
from npusim.cost.estimate import estimate
from npusim.cost.lowering import program
from npusim.cost.sensitivity import sensitivities
from npusim.cost.what_if import Axis, Setup, Workload, pareto, parse_axis, sweep
from npusim.cost.widths import find_layer, layer_widths, tied_layers, with_width
from npusim.errors import ConfigError, UnknownNameError
from npusim.hardware import machine
from npusim.network import Network
from npusim.network_builder import NetworkBuilder
from npusim.npu import get


def residual(depth: int = 17, name: str = "residual", seed: int = 0) -> Network:
    """conv0 feeds an addition of conv1 and itself, a depthwise and conv2 follow, then dense."""
    rng = np.random.default_rng(seed)
    net = NetworkBuilder(name)

    def conv(x, kind, shape, axis, op_name):
        codes = rng.integers(-90, 91, shape).astype(np.int8)
        weights = net.constant(codes, scales=np.full(shape[axis], 0.01), axis=axis)
        bias = net.bias([0] * shape[axis], x, weights)
        return net.op(kind, x, weights, bias, scale=0.05, name=op_name)

    x = net.input((1, 12, 12, 3), scale=0.05)
    x = conv(x, "CONV_2D", (depth, 3, 3, 3), 0, "conv0")
    y = conv(x, "CONV_2D", (depth, 3, 3, depth), 0, "conv1")
    x = net.op("ADD", x, y, scale=0.1, name="sum")
    x = conv(x, "DEPTHWISE_CONV_2D", (1, 3, 3, depth), 3, "depthwise")
    x = net.op("AVERAGE_POOL_2D", x, filter_h=2, filter_w=2, stride_h=2, stride_w=2, name="pool")
    x = conv(x, "CONV_2D", (8, 1, 1, depth), 0, "conv2")
    x = net.op("RESHAPE", x, shape=(1, 8 * 6 * 6), name="flat", new_shape=(1, 8 * 6 * 6))
    x = conv(x, "FULLY_CONNECTED", (10, 8 * 6 * 6), 0, "dense")
    return net.build(x)


@pytest.fixture(scope="module")
def workload() -> Workload:
    return Workload.of(residual())


class TestWorkload:
    def test_costs_what_the_network_costs(self, workload):
        assert workload.cost(machine()) == npusim.estimate(residual())

    def test_measures_weights_once_for_npus_with_one_order(self, workload):
        first = workload.sizes(get("ethos-u55-128"))
        assert workload.sizes(get("ethos-u55-128").replace(shram_banks=48)) is first
        assert workload.sizes(get("ethos-u55-32")) is not first

    def test_machines_do_not_disturb_one_another(self):
        shared = Workload.of(residual())
        targets = [
            Setup().machine(changes)
            for changes in (
                {},
                {"npu": "ethos-u65-512"},
                {"shram_banks": 20, "sram_bytes_per_cycle": 1},
                {"npu": "ethos-u55-32", "memory_mode": "Sram_Only"},
            )
        ]
        together = [shared.cost(target) for target in [*targets, *reversed(targets)]]
        alone = [Workload.of(residual()).cost(target) for target in targets]
        assert together == [*alone, *reversed(alone)]

    def test_other_encoders(self):
        sizes = {
            name: Workload.of(residual(), name).cost(machine()).weights_encoded_bytes
            for name in ("regor", "tight")
        }
        assert sizes["tight"] < sizes["regor"]

    def test_refused(self):
        with pytest.raises(UnknownNameError, match="encoder must be one of legacy, regor, tight"):
            Workload.of(residual(), "zip")


class TestSweep:
    def test_every_combination_in_order(self, workload):
        axes = [Axis("sram_bytes_per_cycle", (2, 8)), Axis("npu", ("ethos-u55-32", "ethos-u55-64"))]
        found = sweep(workload, Setup(), axes)
        assert [tuple(point.values.values()) for point in found.points] == [
            *((2, "ethos-u55-32"), (2, "ethos-u55-64"), (8, "ethos-u55-32"), (8, "ethos-u55-64"))
        ]
        for point in found.points:
            expected = machine(
                point.values["npu"],
                overrides={"sram_bytes_per_cycle": point.values["sram_bytes_per_cycle"]},
            )
            assert point.cost == estimate(workload.program, expected)
        assert found.objectives == (
            *("inference_s", "sram_peak_bytes", "sram_bytes_per_cycle", "macs_per_cycle"),
        )

    def test_tells_how_far_it_is(self, workload):
        seen: list[int] = []
        sweep(workload, Setup(), [Axis("clock_hz", (1e8, 2e8))], done=seen.append)
        assert seen == [1, 2]

    def test_time_follows_the_clock(self, workload):
        found = sweep(workload, Setup(), [Axis("clock_hz", (1e8, 2e8))], ["inference_s"])
        slow, fast = (point.cost for point in found.points)
        assert slow.total_cycles == fast.total_cycles
        assert [point.is_best for point in found.points] == [False, True]
        assert found.only_best().points == found.points[1:]

    def test_one_machine_may_fail(self, workload):
        found = sweep(workload, Setup(), [Axis("shram_banks", (2, 24))], ["shram_banks"])
        assert [bool(point.obstacle) for point in found.points] == [True, False]
        assert [point.is_best for point in found.points] == [False, False]
        assert found.points[0].objective("total_cycles") == math.inf

    @pytest.mark.parametrize(
        ("axes", "objectives", "message"),
        [
            ([], (), "what is varied must be something, each once, got nothing"),
            ([Axis("npu", ("ethos-u55-32",))] * 2, (), "each once, got npu, npu"),
            ([Axis("clock_hz", (1e8,))], ("speed",), "objective must be one of"),
            ([Axis("clock_hz", (0,))], (), "clock_hz of system config .* must be more than 0"),
            ([Axis("hz", (1,))], (), "field of the hardware must be one of"),
            (
                [Axis("clock_hz", tuple(range(1, 1002))), Axis("shram_banks", tuple(range(1000)))],
                (),
                "machines of a sweep must be at most 1000000, got 1001000",
            ),
        ],
    )
    def test_refused(self, workload, axes, objectives, message):
        with pytest.raises((ConfigError, UnknownNameError), match=message):
            sweep(workload, Setup(), axes, objectives)


@pytest.mark.parametrize(
    ("text", "values"),
    [
        ("shram_banks=16:48:8", (16, 24, 32, 40, 48)),
        ("shram_banks=1:3", (1, 2, 3)),
        ("sram_bytes_per_cycle=0.5:1:0.25", (0.5, 0.75, 1.0)),
        ("sram_bytes_per_cycle=1,2.5", (1, 2.5)),
        ("arena_cache_size_bytes=none", (None,)),
        ("npu = a, b", ("a", "b")),
    ],
)
def test_axes_as_options_give_them(text, values):
    assert parse_axis(text) == Axis(text.partition("=")[0].strip(), values)


@given(st.lists(st.tuples(st.integers(0, 4), st.integers(0, 4), st.integers(0, 4)), max_size=12))
@settings(derandomize=True, deadline=None)
def test_pareto_is_what_its_definition_says(points):
    def beats(a, b):
        return all(x <= y for x, y in zip(a, b, strict=True)) and a != b

    expected = [not any(beats(other, point) for other in points) for point in points]
    assert pareto(points) == expected


@pytest.fixture(scope="module")
def found(workload):
    return {each.name: each for each in sensitivities(workload, machine())}


class TestSensitivity:
    def test_names(self, found):
        assert set(found) >= {
            *("clock_hz", "macs_per_cycle", "shram_banks", "arena_limit_bytes"),
            *("sram_bytes_per_cycle", "off_chip_flash_bytes_per_cycle", "sram_burst_bytes"),
            *("sram_read_latency_cycles", "sram_write_latency_cycles"),
        }

    def test_runs_again_with_each_end(self, found, workload):
        one = found["sram_bytes_per_cycle"]
        assert (one.low, one.value, one.high) == (pytest.approx(7.2), 8, pytest.approx(8.8))
        low = workload.cost(machine(overrides={"sram_bytes_per_cycle": one.low}))
        high = workload.cost(machine(overrides={"sram_bytes_per_cycle": one.high}))
        assert (one.low_cycles, one.high_cycles) == (low.total_cycles, high.total_cycles)
        assert one.slope == pytest.approx((one.high_cycles - one.low_cycles) / 1.6)
        assert one.slope < 0

    def test_time_is_inverse_to_the_clock(self, found):
        assert found["clock_hz"].elasticity == pytest.approx(-1)
        assert found["clock_hz"].slope == 0

    def test_multipliers_come_as_arm_sells_them(self, found, workload):
        one = found["macs_per_cycle"]
        assert (one.low, one.value, one.high) == (64, 128, 256)
        assert one.high_cycles == workload.cost(machine("ethos-u55-256")).total_cycles
        ends = {each.name: each for each in sensitivities(workload, machine("ethos-u55-256"), 0.2)}
        assert ends["macs_per_cycle"].high is ends["macs_per_cycle"].high_cycles is None

    def test_less_sram(self, found, workload):
        one = found["arena_limit_bytes"]
        assert one.low < one.value
        limited = workload.cost(machine(), arena_limit_bytes=int(0.9 * one.value))
        assert (one.low, one.low_cycles) == (limited.sram_peak_bytes, limited.total_cycles)
        assert one.high is None

    def test_the_most_influential_first(self, workload):
        sizes = [abs(each.elasticity or 0) for each in sensitivities(workload, machine())]
        assert sizes == sorted(sizes, reverse=True)

    def test_what_is_nothing_has_no_elasticity(self, found):
        one = found["off_chip_flash_write_latency_cycles"]
        assert (one.value, one.elasticity) == (0, None)

    @pytest.mark.parametrize("change", [0, 0.6, float("nan")])
    def test_refused(self, workload, change):
        with pytest.raises(ConfigError, match=r"change must be in 0.001..0.5"):
            sensitivities(workload, machine(), change)


class TestWidths:
    def test_what_is_tied(self, workload):
        assert tied_layers(workload.program, "conv0") == ("conv0", "conv1")
        assert tied_layers(workload.program, "conv1") == ("conv0", "conv1")
        assert tied_layers(workload.program, "conv2") == ("conv2",)

    @pytest.mark.parametrize("channels", [8, 16, 24])
    def test_a_program_of_that_width_is_the_network_of_that_width(self, workload, channels):
        changed, expected = with_width(workload.program, "conv1", channels), residual(channels)
        other = program(expected)
        assert [m.shape for m in changed.maps] == [m.shape for m in other.maps]
        for mine, theirs in zip(changed.ops, other.ops, strict=True):
            assert (mine.ifm, mine.ifm2, mine.ofm) == (theirs.ifm, theirs.ifm2, theirs.ofm)
            assert mine.macs == theirs.macs
            if theirs.weights is not None:
                assert mine.weights.shape == theirs.weights.shape

    def test_of_a_layer_that_is_flattened_afterwards(self, workload):
        changed = with_width(workload.program, "conv2", 5)
        dense = next(op for op in changed.ops if op.name == "dense")
        assert dense.weights.shape == (10, 1, 1, 5 * 6 * 6)
        assert dense.ifm.shape[3] == 5 * 6 * 6

    def test_costs_are_near_those_of_real_networks(self, workload):
        target = machine()
        steps = layer_widths(workload, target, "conv0")
        assert steps.cost == workload.cost(target).total_cycles
        assert steps.narrower == 16
        real = npusim.estimate(residual(16)).total_cycles
        assert steps.narrower_cost == pytest.approx(real, rel=0.02)

    def test_the_same_width_changes_nothing(self, workload):
        assert with_width(workload.program, "conv0", 17) is workload.program

    def test_names_can_be_short(self, workload):
        assert find_layer(workload.program, "v2") == "conv2"
        with pytest.raises(ConfigError, match="must be in one name only, got 'conv'"):
            find_layer(workload.program, "conv")
        with pytest.raises(UnknownNameError, match=r"layer must be one of conv0, .*'dense3'"):
            find_layer(workload.program, "dense3")

    @pytest.mark.parametrize(
        ("layer", "message"),
        [
            ("dense", "output .* of the network has its channels"),
            ("sum", "layer must be one of conv0, conv1, conv2, dense, got 'sum'"),
        ],
    )
    def test_refused(self, workload, layer, message):
        with pytest.raises((ConfigError, UnknownNameError), match=message):
            tied_layers(workload.program, layer)

    def test_channels_that_are_split_are_refused(self):
        whole = program(residual())
        conv = next(op for op in whole.ops if op.name == "conv1")
        half = replace(conv.ofm, part_shape=(*conv.ofm.shape[:3], 8), offset=(0, 0, 0, 0))
        ops = tuple(
            replace(op, ifm2=half) if op.ifm2 and op.ifm2.map == conv.ofm.map else op
            for op in whole.ops
        )
        with pytest.raises(ConfigError, match="takes a part of its channels"):
            tied_layers(replace(whole, ops=ops), "conv1")
