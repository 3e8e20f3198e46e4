# SPDX-License-Identifier: Apache-2.0
"""Sections about costs and schemes: their numbers are those of the cost."""

from __future__ import annotations

import dataclasses
from collections import Counter

import numpy as np
import pytest
from hand_made_costs import NETWORK

from npusim.cost.explain import waterfall
from npusim.cost.lowering import program
from npusim.cost.what_if import Setup, Workload
from npusim.network import Network
from npusim.network_builder import NetworkBuilder
from npusim.report.estimates import Estimate
from npusim.report.page import Section, rows_of
from npusim.report.page_costs import _bounds, _stretches, cost_section
from npusim.report.page_matrix import comparison
from npusim.report.page_schemes import scheme_section
from npusim.schemes.condition import conditions
from npusim.schemes.lab import compare

SETUPS = (Setup("ethos-u55-128"), Setup("ethos-u55-32", overrides={"sram_bytes_per_cycle": 4}))
MACHINES = ("ethos-u55-128", "ethos-u55-32 sram_bytes_per_cycle=4")


@pytest.fixture(scope="module")
def network() -> Network:
    """A convolution, one around it, their sum, and a softmax of many parts."""
    net, rng = NetworkBuilder("net"), np.random.default_rng(0)
    x = first = net.input((1, 8, 8, 8), scale=0.02)
    for name in ("conv", "around"):
        codes = rng.integers(-9, 10, (8, 3, 3, 8)).astype(np.int8)
        codes[:4] = 0
        weights = net.constant(codes, scales=0.01)
        y = net.op("CONV_2D", x, weights, net.bias([0] * 8, x, weights), scale=0.1, name=name)
        first, x = (y, y) if name == "conv" else (first, y)
    x = net.op("ADD", first, y, scale=0.1, name="sum")
    return net.build(net.op("SOFTMAX", x, scale=1 / 256, zero_point=-128, beta=1.0, name="softmax"))


@pytest.fixture(scope="module")
def found(network) -> list[Estimate]:
    workload = Workload.of(network)
    targets = [(setup.machine(), setup.overrides) for setup in SETUPS]
    return [Estimate(workload.cost(target), target, changes) for target, changes in targets]


@pytest.fixture(scope="module")
def section(network, found) -> Section:
    return cost_section(found, program(network))


def total(section: Section, data: str, column: str) -> dict[str, float]:
    sums: Counter[str] = Counter()
    for row in rows_of(section.data[data]):
        sums[row["machine"]] += row[column]
    return dict(sums)


def test_stages_add_up_to_the_cycles(section, found):
    cycles = {name: each.cost.total_cycles for name, each in zip(MACHINES, found, strict=True)}
    assert total(section, "stages", "cycles") == pytest.approx(cycles)
    assert total(section, "operations", "cycles") == cycles
    ideal = [row for row in rows_of(section.data["stages"]) if row["stage"] == "ideal"]
    first = sum(row["cycles"] for row in ideal if row["machine"] == MACHINES[0])
    assert first == pytest.approx(waterfall(found[0].cost).cycles_by_stage["ideal"])


def test_bytes_are_those_of_the_traffic(section, found):
    expected = {
        name: sum(
            sum(moved.read_bytes.values()) + sum(moved.written_bytes.values())
            for op in each.cost.ops
            for moved in op.traffic.values()
        )
        for name, each in zip(MACHINES, found, strict=True)
    }
    assert total(section, "traffic", "bytes") == expected


def test_parts_of_one_operation_are_drawn_as_one(section, found):
    n_parts = sum(op.source == "softmax" for op in found[0].cost.ops)
    names = section.data["layers"]["layer"]
    assert n_parts > 10
    assert names[:3] == ["conv", "around", "sum"]
    assert names[3] == f"softmax ({n_parts} parts)"
    assert len(section.data["operations"]["op"]) == 2 * len(found[0].cost.ops)


def test_the_drawing_has_widths_zeros_and_connections(section):
    layers = rows_of(section.data["layers"])
    assert [row["what"] for row in layers[:3]] == ["conv 3×3", "conv 3×3", "add"]
    assert [row["channels"] for row in layers[:3]] == [8, 8, 8]
    assert layers[0]["kept_fraction"] == pytest.approx(0.5, abs=0.05)
    assert [row["skips"] for row in layers[:3]] == [[], [], [2]]
    assert layers[2]["bits"] is None


def test_the_roofline_has_a_knee_at_the_peak(section):
    roofs = [row for row in rows_of(section.data["roofs"]) if row["machine"] == MACHINES[0]]
    by_roof = {name: [r for r in roofs if r["roof"] == name] for name in {r["roof"] for r in roofs}}
    assert sorted(by_roof) == ["flash: 1 B/cycle", "sram: 8 B/cycle"]
    for points in by_roof.values():
        assert [point["macs_per_cycle"] for point in points][1:] == pytest.approx([128, 128])
        low, knee, _ = (point["macs_per_byte"] for point in points)
        assert points[0]["macs_per_cycle"] == pytest.approx(128 * low / knee)


def test_memory_is_the_arena_in_time():
    rows = _stretches(NETWORK)
    ends = [1000 * cycles / 500e6 for cycles in (0, 1000, 1700, 4200)]
    assert [(row["start ms"], row["end ms"]) for row in rows] == [
        *((0, ends[1]), (0, ends[2]), (ends[1], ends[3]), (0, ends[1]))
    ]
    assert (rows[1]["low KiB"], rows[1]["high KiB"]) == (1008 / 1024, 1808 / 1024)
    assert [row["when"] == "alive at the peak" for row in rows] == [True, True, False, True]


def test_only_bounds_that_occur_are_in_the_legend():
    assert _bounds([NETWORK]) == ["mac", "flash"]


def test_one_machine_needs_no_choice(network, found):
    one = cost_section(found[:1], program(network))
    assert one.filters == ()
    assert one.title == "net on ethos-u55-128"
    assert cost_section(found, program(network)).filters[0].column == "machine"


def test_the_comparison_has_all_pairs(found):
    section = comparison(found)
    rows = rows_of(section.data["costs"])
    assert [row["machine"] for row in rows] == list(MACHINES)
    assert [row["cycles"] for row in rows] == [each.cost.total_cycles for each in found]
    cells = rows_of(section.data["cells"])
    for measure in {cell["measure"] for cell in cells}:
        own = [cell for cell in cells if cell["measure"] == measure]
        assert max(cell["relative"] for cell in own) == 1
        assert [cell["value"] for cell in own] == [row[measure] for row in rows]


def test_schemes_have_the_lab_s_bytes(network):
    measured = compare(network, names=["raw", "huffman"], conditions=conditions([1.0, 0.25]))
    section = scheme_section([measured])
    rows = {(row["condition"], row["scheme"]): row for row in rows_of(section.data["schemes"])}
    for point in measured.points:
        for result in point.results:
            row = rows[str(point.condition), result.scheme]
            assert (row["bytes"], row["kind"]) == (result.n_bytes, "scheme")
            assert row["front"] == result.on_front
        assert rows[str(point.condition), "bound entropy"]["kind"] == "bound"


def test_without_traffic_there_is_no_roofline(network, found):
    still = tuple(dataclasses.replace(op, traffic={}) for op in found[0].cost.ops)
    cost = dataclasses.replace(found[0].cost, ops=still, arena=())
    section = cost_section([dataclasses.replace(found[0], cost=cost)], program(network))
    assert [part.name for part in section.parts] == ["cycles", "architecture", "operations"]
    assert section.data["layers"]["layer"][0] == "conv"
