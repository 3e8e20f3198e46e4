# SPDX-License-Identifier: Apache-2.0
"""Waterfalls, bounds, differences and widths, on costs written by hand."""

from __future__ import annotations

import dataclasses
import json

import pytest
from hand_made_costs import MEMORY_BOUND, NETWORK, OUTPUT_BOUND, cost_of, cpu_op, op_cost
from hypothesis import given
from hypothesis import strategies as st

from npusim.cost.explain import (
    STAGES,
    bound_shares,
    diff_costs,
    op_waterfall,
    waterfall,
    width_steps,
)
from npusim.errors import ConfigError, UnknownNameError
from npusim.npu import get

NPU = "ethos-u55-128"


def stages(op, npu=NPU):
    return {
        name: cycles for name, cycles in op_waterfall(op, npu).cycles_by_stage.items() if cycles
    }


class TestWaterfall:
    def test_of_operations_by_hand(self):
        assert stages(op_cost()) == {
            **{"ideal": 500, "padding": 300, "fill": 100, "weight_dma": 100}
        }
        assert stages(OUTPUT_BOUND) == {"output": 600, "fill": 100}
        # 2000 MACs on 128 multipliers; half of the weights' 2400 bytes of 2500 are read again
        dense = stages(MEMORY_BOUND)
        assert dense["ideal"] == pytest.approx(15.625)
        assert dense["padding"] == pytest.approx(200 - 15.625)
        assert (dense["fill"], dense["weight_dma"]) == (150, 50)
        assert dense["refetch"] == pytest.approx(2100 * 1200 / 2500)
        assert dense["memory"] == pytest.approx(2100 * 1300 / 2500)
        issue = dataclasses.replace(op_cost(), bound="issue")
        assert stages(issue)["issue"] == 100
        assert stages(cpu_op(cycles=77)) == {"cpu": 77}
        assert stages(cpu_op(cycles=0)) == {}
        assert op_waterfall(cpu_op(cycles=0), NPU).utilisation == 0

    def test_of_a_network(self):
        found = waterfall(NETWORK)
        assert found.cycles == pytest.approx(NETWORK.total_cycles)
        assert found.utilisation == pytest.approx((64_000 + 2000) / 128 / NETWORK.total_cycles)
        twice = waterfall(NETWORK, "ethos-u55-256")
        assert twice.utilisation == pytest.approx(found.utilisation / 2)
        values = json.loads(json.dumps(found.to_json()))
        assert list(values["cycles_by_stage"]) == list(STAGES)
        own = get(NPU).replace(name="mine", macs_per_cycle=64)
        assert waterfall(dataclasses.replace(NETWORK, npu="mine"), own).utilisation == (
            pytest.approx(2 * found.utilisation)
        )
        with pytest.raises(UnknownNameError, match=r"^npu must be one of .*, got 'mine'"):
            waterfall(dataclasses.replace(NETWORK, npu="mine"))

    @given(
        st.tuples(*[st.integers(0, 5000)] * 6),
        st.sampled_from(["mac", "issue", "sram"]),
        st.integers(0, 10**6),
    )
    def test_stages_add_up_whatever_the_figures(self, figures, bound, macs):
        names = ("mac_cycles", "output_cycles", "compute_cycles", "npu_cycles", "cycles")
        op = op_cost(**dict(zip(names, figures, strict=False)), bound=bound, macs=macs)
        found = op_waterfall(op, NPU)
        assert found.cycles == pytest.approx(op.cycles)
        assert min(found.cycles_by_stage.values()) >= 0
        assert 0 <= found.utilisation <= 1


def test_bounds_are_sorted_by_cycles():
    found = bound_shares(cost_of(*NETWORK.ops, op_cost(), cpu_op(cycles=0)))
    assert [(part.bound, part.n_ops, part.cycles) for part in found] == [
        ("flash", 1, 2500),
        ("mac", 2, 2000),
        ("output", 1, 700),
        ("cpu", 1, 0),
    ]
    assert sum(part.share for part in found) == pytest.approx(1)
    assert bound_shares(cost_of()) == ()


class TestDiff:
    def pairs(self, before, after):
        found = diff_costs(cost_of(*map(op_cost, before)), cost_of(*map(op_cost, after)))
        return [(d.before and d.before.name, d.after and d.after.name) for d in found.ops]

    def test_matching(self):
        assert self.pairs("abc", "abc") == [("a", "a"), ("b", "b"), ("c", "c")]
        assert self.pairs("abc", "ac") == [("a", "a"), ("b", None), ("c", "c")]
        assert self.pairs("ac", "abc") == [("a", "a"), (None, "b"), ("c", "c")]
        assert self.pairs("xyz", "abc") == [("x", "a"), ("y", "b"), ("z", "c")]
        assert self.pairs("axc", "ayc") == [("a", "a"), ("x", "y"), ("c", "c")]
        assert self.pairs("aab", "abba") == [("a", "a"), ("b", "b"), (None, "b"), ("a", "a")]
        assert self.pairs("", "a") == [(None, "a")]
        assert self.pairs("ab", "") == [("a", None), ("b", None)]

    @given(st.text("abcd", max_size=6), st.text("abcd", max_size=6))
    def test_every_operation_is_there_once(self, before, after):
        found = self.pairs(before, after)
        assert sorted(b for b, _ in found if b) == sorted(before)
        assert [a for _, a in found if a] == list(after)

    def test_changes(self):
        after = cost_of(op_cost(cycles=900), OUTPUT_BOUND, model="new", flash_bytes=300)
        found = diff_costs(NETWORK, after)
        assert [(d.name, d.cycles) for d in found.ops] == [
            ("conv", -100),
            ("add", 0),
            ("dense", -2500),
        ]
        assert found.totals["total_cycles"] == (4200, 1600)
        assert found.totals["flash_bytes"] == (320, 300)
        assert sum(d.cycles for d in found.ops) == 1600 - 4200
        values = json.loads(json.dumps(found.to_json()))
        assert values["after"]["model"] == "new"
        assert values["ops"][2]["after"] is None
        assert values["ops"][2]["before"]["bound"] == "flash"


STAIRS = {16: 25_715, 17: 75_844, 24: 75_967, 32: 75_092, 33: 187_414}
"""A 3x3 convolution by its width, as Arm's compiler costs it."""


class TestWidths:
    def cost(self, width):
        return STAIRS[max(w for w in STAIRS if w <= width)] if width >= 16 else 20_000

    def test_steps_down_and_free_widths(self):
        found = width_steps(self.cost, 17)
        assert (found.narrower, found.narrower_cost) == (16, 25_715)
        assert (found.widest_free, found.widest_free_cost) == (32, 75_092)
        found = width_steps(self.cost, 33, most=33)
        assert (found.narrower, found.widest_free) == (32, 33)
        assert width_steps(self.cost, 33, saving=0.7).narrower == 16

    def test_none(self):
        found = width_steps(lambda width: 5, 8, most=8)
        assert (found.narrower, found.narrower_cost, found.widest_free) == (None, None, 8)
        assert width_steps(self.cost, 17, least=17).narrower is None
        assert width_steps(lambda width: width, 8, saving=0).narrower == 7

    def test_each_width_is_costed_once(self):
        asked = []
        width_steps(lambda width: asked.append(width) or 1, 20)
        assert sorted(asked) == [*range(1, 21), 32]

    def test_what_is_refused(self):
        for values, message in (
            ({"width": 0}, r"^width must be in 1\.\.65536, got 0"),
            ({"width": 8, "least": 9}, r"^least must be in 1\.\.8, got 9"),
            ({"width": 8, "most": 7}, r"^most must be in 8\.\.65536, got 7"),
            ({"width": 8, "saving": 2}, r"^saving must be in 0\.\.1, got 2"),
        ):
            with pytest.raises(ConfigError, match=message):
                width_steps(self.cost, **values)
        with pytest.raises(ConfigError, match=r"^cost of width 8 must be a finite number, got nan"):
            width_steps(lambda width: float("nan"), 8)
