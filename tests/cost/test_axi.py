# SPDX-License-Identifier: Apache-2.0
"""Beats of the AXI ports, counted by hand."""

from __future__ import annotations

import pytest
from hand_made_costs import cost_of, cpu_op, op_cost

from npusim.cost.axi import Beats, axi_beats
from npusim.cost.result import Traffic
from npusim.errors import ConfigError, UnknownNameError

COST = cost_of(op_cost(), op_cost("again"), cpu_op())


def test_beats_of_two_operations():
    # 1640 bytes read and 800 written in SRAM, 320 read in flash, by each
    assert axi_beats(COST) == {"axi0": Beats(2 * 205, 2 * 100), "axi1": Beats(2 * 40, 0)}
    assert axi_beats(COST, 16) == {"axi0": Beats(2 * 103, 2 * 50), "axi1": Beats(2 * 20, 0)}


def test_bytes_are_rounded_up_in_every_operation():
    single = op_cost(traffic={"sram": Traffic({"feature_maps": 4, "weights": 5}, {"scales": 1}, 0)})
    assert axi_beats(cost_of(single, single))["axi0"] == Beats(4, 2)


def test_a_memory_at_another_port():
    found = axi_beats(COST, ports={"off_chip_flash": "axi0"})
    assert found == {"axi0": Beats(2 * 245, 2 * 100), "axi1": Beats(0, 0)}


def test_what_is_refused():
    with pytest.raises(ConfigError, match=r"^beat_bytes must be in 1\.\.64, got 0$"):
        axi_beats(COST, 0)
    with pytest.raises(UnknownNameError, match=r"^port must be one of axi0, axi1, got 'axi2'"):
        axi_beats(COST, ports={"sram": "axi2"})
    with pytest.raises(UnknownNameError, match=r"^role of a memory must be .*got 'rom'"):
        axi_beats(COST, ports={"rom": "axi0"})
    with pytest.raises(UnknownNameError, match=r"^role of a memory must be .*got 'tape'"):
        axi_beats(cost_of(op_cost(traffic={"tape": Traffic({}, {}, 0)})))
