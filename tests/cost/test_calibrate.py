# SPDX-License-Identifier: Apache-2.0
"""Corrections that are found again where they are known, and Arm's published figures."""

from __future__ import annotations

import csv
import gzip
import json
from collections import defaultdict

import numpy as np
import pytest
from hand_made_costs import MEMORY_BOUND, NETWORK, OUTPUT_BOUND, cost_of, cpu_op, op_cost

from npusim.cost.axi import axi_beats
from npusim.cost.calibrate import (
    Calibration,
    Corrections,
    Point,
    calibrate,
    corrected_cycles,
    published_points,
)
from npusim.cost.result import Traffic
from npusim.errors import ConfigError, UnknownNameError

COSTS = (
    NETWORK,
    cost_of(op_cost(), model="conv"),
    cost_of(*[OUTPUT_BOUND] * 3, MEMORY_BOUND, model="many"),
    cost_of(*[MEMORY_BOUND] * 4, op_cost(), model="dense"),
    cost_of(*[op_cost()] * 6, model="deep"),
)
# what Arm's compiler, regor 5.2.0, says of the networks of `published_points`
COMPILER_CYCLES = (417_755, 2_103_187, 7_860_707)


def points_of(truth):
    return [Point(cost.model, corrected_cycles(cost, truth), cost) for cost in COSTS]


class TestCorrectedCycles:
    def test_without_corrections_it_is_the_total(self):
        for cost in (*COSTS, cost_of(op_cost(cycles=1234), cpu_op())):
            assert corrected_cycles(cost, Corrections()) == cost.total_cycles

    def test_each_correction_by_hand(self):
        def change(*ops, **corrections):
            cost = cost_of(*ops)
            return corrected_cycles(cost, Corrections(**corrections)) - cost.total_cycles

        assert change(MEMORY_BOUND, memory_efficiency=0.5) == 2500
        assert change(MEMORY_BOUND, flash_efficiency=0.5, memory_efficiency=2) == 0
        assert change(MEMORY_BOUND, flash_efficiency=50) == 351 - 2500  # NPU and 1/50 of its wait
        assert change(MEMORY_BOUND, sram_efficiency=0.5) == 0
        # a convolution of 900 cycles that waits 100 for its weights from flash
        assert change(op_cost(), flash_efficiency=2) == -50
        assert change(op_cost(), sram_efficiency=0.1) == 2500 - 1000
        assert change(op_cost(), op_cost(), cpu_op(), overhead_cycles_per_op=-7) == -14
        assert change(op_cost(), op_cost(), overhead_cycles=11) == 11
        dram = op_cost(traffic={"dram": Traffic({}, {}, 600)})
        assert change(dram, dram_efficiency=0.1) == 5000
        assert change(dram, flash_efficiency=0.1) == 0


class TestCalibrate:
    @pytest.mark.parametrize("efficiency", [0.3, 0.8, 1.25, 1.7])
    def test_finds_the_truth(self, efficiency):
        truth = Corrections(memory_efficiency=efficiency, overhead_cycles_per_op=40)
        found = calibrate(points_of(truth))
        assert found.corrections.memory_efficiency == pytest.approx(efficiency, rel=1e-5)
        assert found.corrections.overhead_cycles_per_op == pytest.approx(40, rel=1e-4)
        assert max(map(abs, found.errors("after"))) < 1e-6
        assert max(map(abs, found.errors("before"))) > 0.01
        assert found.band < 1e-5
        assert found.degrees_of_freedom == 3
        assert found.without_effect == ()

    def test_other_parameters(self):
        truth = Corrections(flash_efficiency=0.7, overhead_cycles=90)
        found = calibrate(points_of(truth), parameters=("flash_efficiency", "overhead_cycles"))
        assert found.corrections.flash_efficiency == pytest.approx(0.7, rel=1e-5)
        assert found.corrections.overhead_cycles == pytest.approx(90, rel=1e-4)
        assert found.corrections.memory_efficiency == 1

    def test_no_grid_point_is_better(self):
        rng = np.random.default_rng(5)
        points = [
            Point(p.name, p.cycles * rng.uniform(0.9, 1.1), p.cost)
            for p in points_of(Corrections(memory_efficiency=0.8, overhead_cycles_per_op=30))
        ]
        found = calibrate(points)

        def loss(efficiency, overhead):
            trial = Corrections(memory_efficiency=efficiency, overhead_cycles_per_op=overhead)
            return sum((corrected_cycles(p.cost, trial) / p.cycles - 1) ** 2 for p in points)

        best = min(
            loss(efficiency, overhead)
            for efficiency in np.linspace(0.5, 1.5, 41)
            for overhead in np.linspace(-100, 200, 61)
        )
        fitted = found.corrections
        assert loss(fitted.memory_efficiency, fitted.overhead_cycles_per_op) <= best

    def test_points_are_left_out_one_by_one(self):
        points = points_of(Corrections(memory_efficiency=0.8))
        wrong = Point("wrong", 1.5 * points[0].cycles, points[0].cost)
        found = calibrate([wrong, *points[1:]])
        assert found.errors("left_out")[0] == pytest.approx(1 / 1.5 - 1, rel=1e-4)
        assert found.band >= 1 / 3 - 1e-4
        low, high = found.ranges["memory_efficiency"]
        assert low < found.corrections.memory_efficiency < high or low < 0.8 <= high + 1e-6

    def test_a_model_that_is_run_again(self):
        runs = []

        def predict(corrections):
            runs.append(corrections)  # whole cycles, as an estimator counts them
            return [round(corrected_cycles(cost, corrections)) for cost in COSTS]

        truth = Corrections(memory_efficiency=0.75, overhead_cycles_per_op=25)
        points = [Point(cost.model, corrected_cycles(cost, truth)) for cost in COSTS]
        found = calibrate(points, predict)
        assert found.corrections.memory_efficiency == pytest.approx(0.75, rel=0.01)
        assert found.corrections.overhead_cycles_per_op == pytest.approx(25, abs=3)
        assert len(runs) < 3000

    def test_a_parameter_without_effect_is_named_and_left(self):
        truth = Corrections(overhead_cycles_per_op=40)
        found = calibrate(
            points_of(truth), parameters=("dram_efficiency", "overhead_cycles_per_op")
        )
        assert found.without_effect == ("dram_efficiency",)
        assert found.corrections.dram_efficiency == 1
        assert found.corrections.overhead_cycles_per_op == pytest.approx(40)

    def test_apply_has_a_band(self):
        points = points_of(Corrections(memory_efficiency=0.8))
        wrong = Point("wrong", 1.1 * points[0].cycles, points[0].cost)
        found = calibrate([wrong, *points[1:]])
        low, value, high = found.apply(NETWORK)
        assert value == pytest.approx(corrected_cycles(NETWORK, found.corrections))
        assert (low / value, high / value) == pytest.approx((1 - found.band, 1 + found.band))
        assert found.band > 0.01

    def test_json(self):
        found = calibrate(points_of(Corrections(memory_efficiency=0.8)))
        values = json.loads(json.dumps(found.to_json()))
        assert values["degrees_of_freedom"] == 3
        assert values["parameters"] == ["memory_efficiency", "overhead_cycles_per_op"]
        assert values["corrections"]["memory_efficiency"] == pytest.approx(0.8, rel=1e-5)
        assert values["points"][0]["name"] == "net"
        assert values["points"][0]["before_error"] == found.errors("before")[0]

    def test_what_is_refused(self):
        points = points_of(Corrections())
        with pytest.raises(ConfigError, match=r"^points must be at least 3 to fit 2 .*, got 2$"):
            calibrate(points[:2])
        with pytest.raises(UnknownNameError, match=r"did you mean 'flash_efficiency'\?$"):
            calibrate(points, parameters=("flash_efficency",))
        with pytest.raises(ConfigError, match=r"^parameters must be some, each once, got $"):
            calibrate(points, parameters=())
        with pytest.raises(ConfigError, match=r"each once, got overhead_cycles, overhead_cycles$"):
            calibrate(points, parameters=("overhead_cycles",) * 2)
        with pytest.raises(ConfigError, match=r"^point 'x' must have a cost without predict"):
            calibrate([*points, Point("x", 1.0)])
        with pytest.raises(ConfigError, match=r"^predict must return 5 finite numbers, got \[1.0"):
            calibrate(points, lambda corrections: [1.0])
        with pytest.raises(ConfigError, match=r"finite numbers, got \[nan"):
            calibrate(points, lambda corrections: [float("nan")] * 5)
        with pytest.raises(ConfigError, match=r"^measured cycles of x must be more than 0"):
            Point("x", 0)
        with pytest.raises(ConfigError, match=r"^sram_efficiency must be in 0.015625\.\.64, got 0"):
            Corrections(sram_efficiency=0)
        with pytest.raises(ConfigError, match=r"^overhead_cycles must be in .*, got nan"):
            Corrections(overhead_cycles=float("nan"))
        with pytest.raises(UnknownNameError, match=r"^errors must be one of after, before, left"):
            calibrate(points).errors("now")


class TestPublished:
    def test_the_compiler_is_within_8_percent(self):
        measured = [point.npu_cycles for point in published_points()]
        errors = [c / m - 1 for c, m in zip(COMPILER_CYCLES, measured, strict=True)]
        assert errors == pytest.approx([0.0095, 0.0258, 0.0701], abs=1e-4)
        assert max(map(abs, errors)) <= 0.08

    @pytest.mark.data
    @pytest.mark.parametrize("third", ["coral_mbv2_10_224_uint8", "tflm_pt_mobilenet_v2_224_int8"])
    def test_after_a_fit_of_two_parameters_within_3_percent(self, oracle_dir, third):
        """Of MobileNetV2 the same architecture, quantized otherwise, is at hand, and twice."""
        found = fitted(oracle_dir, third)
        assert max(map(abs, found.errors("before"))) <= 0.08
        assert max(map(abs, found.errors("after"))) <= 0.01
        assert found.band <= 0.03
        assert found.degrees_of_freedom == 1
        assert 0.9 <= found.corrections.memory_efficiency <= 1.2
        assert -400 <= found.corrections.overhead_cycles_per_op <= 0

    @pytest.mark.data
    def test_beats_of_the_compiler(self, oracle_dir):
        """Bytes it counts by operation; scales and copies into buffers are not among them."""
        for point, cost in zip(published_points(), stored_costs(oracle_dir), strict=True):
            beats = axi_beats(cost)
            assert beats["axi0"].read == pytest.approx(point.axi0_read_beats, rel=0.1)
            assert beats["axi0"].written < point.axi0_written_beats
            assert beats["axi1"].read == pytest.approx(point.axi1_read_beats, rel=0.15)


STORED = ("mlek_kws_micronet_m_int8", "mlek_yolo_fastest_192_face_int8")


def stored_costs(oracle_dir, third="coral_mbv2_10_224_uint8"):
    """What Arm's compiler says of the three networks, as costs."""
    path = next(oracle_dir.glob("ethos-u55-128__*High_End*__Shared_Sram__Performance__None.csv.gz"))
    ops = defaultdict(list)
    with gzip.open(path, "rt", newline="") as lines:
        for row in csv.DictReader(lines):
            if row["model"] in (*STORED, third):
                ops[row["model"]].append(stored_op(row))
    return [cost_of(*ops[name], model=name) for name in (*STORED, third)]


def stored_op(row):
    def number(column):
        return round(float(row[column] or 0))

    sram = {
        "feature_maps": number("SramFeatureMap_read"),
        "weights": number("SramWeights_read"),
    }
    traffic = {
        "sram": Traffic(sram, {"feature_maps": number("SramFeatureMap_write")}, number("Sram_ac")),
        "off_chip_flash": Traffic(
            {"weights": number("OffChipFlashWeights_read")}, {}, number("OffChipFlash_ac")
        ),
    }
    cycles, npu = number("op_cycles"), number("npu_cycles")
    return op_cost(row["name"], cycles=cycles, npu_cycles=npu, compute_cycles=npu, traffic=traffic)


def fitted(oracle_dir, third) -> Calibration:
    points = [
        Point(point.name, point.npu_cycles, cost)
        for point, cost in zip(published_points(), stored_costs(oracle_dir, third), strict=True)
    ]
    return calibrate(points)
