# SPDX-License-Identifier: Apache-2.0
"""Tables and rows of costs."""

from __future__ import annotations

import dataclasses

import pytest
from hand_made_costs import MEMORY_BOUND, NETWORK, cost_of, cpu_op, op_cost

from npusim.cli.output import csv_text, table_text
from npusim.cost.explain import diff_costs, waterfall
from npusim.cost.result import Traffic
from npusim.errors import UnknownNameError
from npusim.npu import get
from npusim.report import costs


def test_rows_of_operations():
    rows = costs.op_rows(NETWORK)
    assert [tuple(row) for row in rows] == [costs.ROW_COLUMNS] * 3
    assert [row["name"] for row in rows] == ["conv", "add", "dense"]
    assert [row["cycles"] for row in rows] == [1000, 700, 2500]
    assert [row["utilisation"] for row in rows] == pytest.approx([0.5, 0, 2000 / 128 / 2500])
    first, add, _ = rows
    assert (first["sram_read_bytes"], first["sram_written_bytes"]) == (1640, 800)
    assert (first["flash_read_bytes"], first["flash_cycles"], first["dram_cycles"]) == (320, 330, 0)
    assert (first["block"], add["block"]) == ("4x8x16", "")
    assert (first["n_depth_slices"], first["model"]) == (1, "net")
    assert len(csv_text(rows, costs.ROW_COLUMNS).splitlines()) == 4


def test_rows_have_the_json_s_values():
    for row, values in zip(costs.op_rows(NETWORK), NETWORK.to_json()["ops"], strict=True):
        for name in set(row) & set(values) - {"block"}:
            assert row[name] == values[name], name


def test_an_npu_without_a_preset():
    cost = dataclasses.replace(NETWORK, npu="mine")
    mine = get("ethos-u55-128").replace(name="mine", macs_per_cycle=64)
    assert costs.op_rows(cost, mine)[0]["utilisation"] == pytest.approx(1)  # 1000 cycles at least
    assert costs.cost_rows([cost], [mine])[0]["npu"] == "mine"
    with pytest.raises(UnknownNameError, match=r"^npu must be one of .*, got 'mine'"):
        costs.op_rows(cost)


def test_sorting():
    assert [op.name for op in costs.sorted_ops(NETWORK, "cycles")] == ["dense", "conv", "add"]
    assert [op.name for op in costs.sorted_ops(NETWORK, "name")] == ["add", "conv", "dense"]
    assert [op.name for op in costs.sorted_ops(NETWORK, "flash_read_bytes")] == [
        *("dense", "conv", "add")
    ]
    with pytest.raises(UnknownNameError, match=r"^column must be .*did you mean 'cycles'\?$"):
        costs.sorted_ops(NETWORK, "cycels")
    for column in costs.OP_COLUMNS:
        assert len(costs.sorted_ops(cost_of(*NETWORK.ops, cpu_op()), column)) == 4


def test_rows_of_networks():
    other = dataclasses.replace(NETWORK, npu="ethos-u55-256", arena_limit_bytes=100)
    rows = costs.cost_rows([NETWORK, other])
    assert [tuple(row) for row in rows] == [costs.COST_COLUMNS] * 2
    assert [row["total_cycles"] for row in rows] == [4200, 4200]
    assert [row["fits"] for row in rows] == [True, False]
    assert rows[0]["utilisation"] == pytest.approx(2 * rows[1]["utilisation"])
    assert rows[0]["inference_s"] == 4200 / 500e6
    values = NETWORK.to_json()
    assert all(rows[0][name] == values[name] for name in set(rows[0]) & set(values))


def test_table_of_operations():
    text = table_text([costs.op_table(NETWORK)])
    assert "net on ethos-u55-128, Ethos_U55_High_End_Embedded, Shared_Sram" in text
    for word in ("conv", "fully_connected", "4,200", "66,000", "59.5", "4x8x16", "flash read B"):
        assert word in text, word
    assert "flash written" not in text  # nothing is written there
    assert "0.008 ms at 500 MHz; arena 2,108 B; flash 320 B" in text
    staged = dataclasses.replace(NETWORK, dram_peak_bytes=1234)
    assert "; SRAM 2,108 B; DRAM 1,234 B; flash 320 B" in table_text([costs.op_table(staged)])
    assert "dram" not in text
    dram = op_cost(traffic={"dram": Traffic({"feature_maps": 7777}, {}, 1)})
    assert "7,777" in table_text([costs.op_table(cost_of(dram))])


def test_table_of_networks():
    other = dataclasses.replace(NETWORK, model="b", npu="ethos-u55-64", arena_limit_bytes=100)
    text = table_text([costs.cost_table([NETWORK, other])])
    for word in ("ethos-u55-64", "4,200", "0.008", "2.1 (too large)", "0.3"):
        assert word in text, word


def test_table_of_bounds():
    text = table_text([costs.bound_table(NETWORK)])
    places = [text.index(word) for word in ("flash", "mac", "output")]
    assert places == sorted(places)
    assert "59.5" in text


def test_table_of_a_waterfall():
    text = table_text([costs.waterfall_table(waterfall(NETWORK))])
    assert "net: where 4,200 cycles go" in text
    assert "all multipliers busy" in text
    assert text.rstrip().splitlines()[-2].count("4,200") == 1  # all of them at the end
    assert "0.0" in table_text([costs.waterfall_table(waterfall(cost_of()))])


def test_table_of_a_difference():
    after = cost_of(op_cost(cycles=900, bound="output"), NETWORK.ops[1], cpu_op(), model="new")
    text = table_text([costs.diff_table(diff_costs(NETWORK, after))])
    assert "net on ethos-u55-128 → new on ethos-u55-128" in text
    assert "-100" in text
    assert "mac → output" in text
    assert "-2,000" in text  # dense against custom, at the same position
    assert "flash → cpu" in text
    assert "add" not in text  # as before
    assert "0.008 ms → 0.004 ms; MACs 66,000 → 64,000" in text


def test_notes():
    cost = cost_of(cpu_op(), arena_limit_bytes=100, notes=("custom is not in the total",))
    assert costs.notes(cost) == [
        "net: custom is not in the total",
        "net: the arena takes 3,000 bytes, 100 are allowed",
        "net: cpu 'custom' is on the CPU: kind must be known, got CUSTOM",
    ]
    assert costs.notes(cost_of(MEMORY_BOUND)) == []
