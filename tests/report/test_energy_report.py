# SPDX-License-Identifier: Apache-2.0
"""Tables and rows of energies and calibrations."""

from __future__ import annotations

import pytest
from hand_made_costs import MEMORY_BOUND, NETWORK, cost_of, cpu_op, op_cost

from npusim.cli.output import csv_text, table_text
from npusim.cost.calibrate import Corrections, Point, PublishedPoint, calibrate, corrected_cycles
from npusim.cost.energy import energy
from npusim.cost.energy_constants import Band, energy_constants
from npusim.report.calibration import beat_rows, beat_table, calibration_table, calibration_text
from npusim.report.energy import (
    ENERGY_COLUMNS,
    component_table,
    constants_table,
    energy_rows,
    energy_table,
    energy_text,
)


@pytest.mark.parametrize(
    ("band", "text"),
    [
        (Band(0.5e6, 1e6, 2.345e6), "1 µJ (0.5..2.3)"),
        (Band(1.234e9, 5.678e9, 99.6e9), "5.7 mJ (1.2..100)"),
        (Band(1, 2, 3), "2 pJ (1..3)"),
        (Band(0, 0, 0), "0 pJ (0..0)"),
        (Band(1e3, 123e3, 4567e3), "120 nJ (1..4,600)"),
    ],
)
def test_bands_have_two_digits(band, text):
    assert energy_text(band) == text


def test_rows_are_those_of_the_library():
    found = energy(NETWORK)
    rows = energy_rows(found)
    assert [list(row) for row in rows] == [list(ENERGY_COLUMNS)] * 3
    total = sum(row["energy_uj_high"] for row in rows)
    assert total == pytest.approx(found.total_pj.high / 1e6)
    assert rows[2]["flash_uj_low"] == found.ops[2].by_component["flash"].low / 1e6
    assert rows[0]["calibrated"] is False
    assert len(csv_text(rows, ENERGY_COLUMNS).splitlines()) == 4


def test_table_of_operations():
    found = energy(NETWORK)
    text = table_text([energy_table(found)])
    assert "net on ethos-u55-128, Ethos_U55_High_End_Embedded, Shared_Sram" in text
    assert "(uncalibrated)" in text
    assert energy_text(found.total_pj) in text
    assert "sram: sram_64kib, off_chip_flash: nor_flash" in text
    assert "at 22 nm" in text
    assert "mW (" in text
    assert "dram" not in text.replace("dram:", "")  # nothing is spent there
    calibrated = table_text([energy_table(energy(cost_of(cpu_op()), {"calibration": "board 7"}))])
    assert "calibrated: board 7" in calibrated
    assert "cpu" in calibrated
    assert "no memory" in calibrated


def test_table_of_networks():
    text = table_text(
        [component_table([energy(NETWORK), energy(cost_of(MEMORY_BOUND, model="b"))])]
    )
    for found in (energy(NETWORK), energy(cost_of(MEMORY_BOUND))):
        assert energy_text(found.total_pj) in text
        assert energy_text(found.by_component["flash"]) in text
    assert "uncalibrated" in text


def test_table_of_constants():
    text = table_text([constants_table(energy_constants())])
    assert "mac_int8_pj" in text
    assert "literature figure to verify" in text
    assert "45 nm" in text


COSTS = [NETWORK, cost_of(op_cost(), model="conv"), cost_of(MEMORY_BOUND, op_cost(), model="two")]


def calibration():
    truth = Corrections(memory_efficiency=0.8, overhead_cycles_per_op=40)
    return calibrate([Point(c.model, corrected_cycles(c, truth), c) for c in COSTS])


def test_table_of_a_calibration():
    found = calibration()
    text = table_text([calibration_table(found)])
    for error in found.errors("before"):
        assert f"{100 * error:+.1f} %" in text
    assert "+0.0 %" in text or "-0.0 %" in text
    assert "memory_efficiency 0.8 (0.8..0.8)" in text
    assert calibration_text(found) == (
        "memory_efficiency 0.8 (0.8..0.8), overhead_cycles_per_op 40 (40..40); "
        "2 parameters from 3 points leave 1 degree of freedom; expect ±0.0 %"
    )


def test_parameters_without_effect_are_told():
    points = [Point(c.model, c.total_cycles + 10, c) for c in COSTS]
    found = calibrate(points, parameters=("dram_efficiency",))
    assert calibration_text(found).endswith("without effect: dram_efficiency")
    assert "leave 2 degrees of freedom" in calibration_text(found)


def test_beats_beside_published_ones():
    published = PublishedPoint("conv", 1000, 200, 100, 50, "here")
    rows = beat_rows(cost_of(op_cost()), published)
    assert [(r["port"], r["direction"], r["predicted_beats"]) for r in rows] == [
        ("axi0", "read", 205),
        ("axi0", "written", 100),
        ("axi1", "read", 40),
    ]
    assert [row["error"] for row in rows] == pytest.approx([0.025, 0, -0.2])
    text = table_text([beat_table(rows)])
    assert "+2.5 %" in text
    assert "-20.0 %" in text
