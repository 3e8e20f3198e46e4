# SPDX-License-Identifier: Apache-2.0
"""Energies against sums worked out by hand, their bands, and constants that users bring."""

from __future__ import annotations

import itertools
import json

import numpy as np
import pytest
from hand_made_costs import MEMORY_BOUND, NETWORK, cost_of, cpu_op, op_cost

from npusim.cost.energy import COMPONENTS, calibrate_energy, energy, energy_ratio
from npusim.cost.energy_constants import TAGS, Band, Constant, energy_constants
from npusim.cost.result import Traffic
from npusim.errors import ConfigError, UnknownNameError
from npusim.schemes.decoder import Decoder

SHIPPED = energy_constants().by_name
ONE = {name: 1 for name in SHIPPED if name != "node_exponent"}
"""Every event costs one picojoule; leakage is 1 pJ a nanosecond."""


def exact(component, cost, constants=ONE):
    band = energy(cost, constants).by_component[component]
    assert band.low == band.value == band.high
    return band.value


def test_events_of_a_convolution_by_hand():
    cost = cost_of(op_cost())
    assert exact("compute", cost) == 64_000 + 5 * 10 * 16
    assert exact("shram", cost) == 64_000 + 2 * 8 * (1000 + 800)
    assert exact("sram", cost) == 8 * (1000 + 600 + 40 + 800)
    assert exact("flash", cost) == 8 * 320
    assert exact("decode", cost) == 8 * (600 + 300)
    assert exact("leakage", cost) == pytest.approx(1000 + 2000)  # cycles of 2 ns
    assert exact("dram", cost) == exact("cpu", cost) == 0


def test_staged_weights_are_decoded_once_for_each_time_they_are_read_from_the_buffer():
    staged = {
        "sram": Traffic({"weights": 700}, {"weights": 300}, 0),
        "off_chip_flash": Traffic({"weights": 300}, {}, 0),
    }
    assert exact("decode", cost_of(op_cost(traffic=staged))) == 8 * 700


def test_an_operation_of_the_cpu_takes_what_its_cycles_do():
    cost = cost_of(cpu_op(cycles=500))
    assert exact("cpu", cost) == 500
    assert exact("leakage", cost) == pytest.approx(1000)
    assert exact("compute", cost) == 0


def test_bands_are_sums_of_lows_and_of_highs():
    found = energy(NETWORK)
    assert set(found.by_component) == {*COMPONENTS}
    for end in ("low", "value", "high"):
        by_op = sum(getattr(op.total_pj, end) for op in found.ops)
        by_component = sum(getattr(band, end) for band in found.by_component.values())
        assert getattr(found.total_pj, end) == pytest.approx(by_op) == pytest.approx(by_component)
    assert 0 < found.total_pj.low < found.total_pj.value < found.total_pj.high
    compute = energy(cost_of(op_cost()), node_nm=22).by_component["compute"]
    scaled = [(22 / 45) ** exponent for exponent in (2.1, 1.6, 1.0)]
    assert compute.low == pytest.approx(64_000 * 0.04 + 800 * 2.0 * scaled[0])
    assert compute.value == pytest.approx(64_000 * 0.23 + 800 * 4.0 * scaled[1])
    assert compute.high == pytest.approx(64_000 * 0.6 + 800 * 15.0 * scaled[2])


def test_every_constant_has_an_effect():
    roles = ("sram", "on_chip_flash", "off_chip_flash", "dram")
    traffic = {role: Traffic({"weights": 100, "feature_maps": 50}, {}, 10) for role in roles}
    costs = [
        cost_of(op_cost(traffic=traffic, ifm_bits=bits), cpu_op(), sram_peak_bytes=peak)
        for bits, peak in ((8, 1 << 16), (16, 1 << 18), (8, 1 << 20), (8, (1 << 20) + 1))
    ]
    costs.append(cost_of(op_cost(decode_cycles=50), scheme_decoder=Decoder("weight")))
    memories = (None, {"on_chip_flash": "embedded_flash", "dram": "hyperram"})

    def totals(constants):
        return [
            energy(cost, constants, node_nm=16, memories=names).total_pj.value
            for cost, names in itertools.product(costs, memories)
        ]

    base = totals(None)
    for name, constant in SHIPPED.items():
        doubled = {"value": 2 * constant.value, "high": 2 * constant.high}
        others = totals({name: doubled})
        assert others != base, name
        if name == "node_exponent":
            assert sum(others) < sum(base)
        else:
            assert all(new >= old for new, old in zip(others, base, strict=True)), name


def test_constants_are_documented():
    assert len(SHIPPED) >= 15
    for constant in SHIPPED.values():
        assert constant.unit
        assert len(constant.source) > 10
        assert constant.tag in TAGS
        assert constant.low < constant.value < constant.high


def test_sram_is_of_the_class_that_holds_the_arena():
    names = [
        energy(cost_of(op_cost(), sram_peak_bytes=peak)).technologies["sram"]
        for peak in (1, 1 << 16, (1 << 16) + 1, 1 << 18, 1 << 20, (1 << 20) + 1, 1 << 24)
    ]
    assert names == [
        *("sram_64kib", "sram_64kib", "sram_256kib", "sram_256kib", "sram_1mib"),
        *("sram_4mib", "sram_4mib"),
    ]
    small = cost_of(op_cost(), sram_peak_bytes=1 << 17, dram_peak_bytes=1 << 22)
    assert energy(small).technologies["sram"] == "sram_256kib"
    given = energy(small, memories={"sram": "sram_4mib"})
    assert given.technologies == {"sram": "sram_4mib", "off_chip_flash": "nor_flash"}


def test_a_smaller_node_takes_less_where_constants_scale():
    old, new = (energy(NETWORK, node_nm=node).by_component for node in (40, 16))
    for name in ("compute", "shram", "sram", "decode"):
        assert new[name].value < old[name].value
        assert new[name].low < old[name].low
    assert new["flash"] == old["flash"]
    at_own_node = energy_constants().price("mac_int8_pj", 22.0)
    assert at_own_node == Band(0.04, 0.23, 0.6)


def test_energy_is_uncalibrated_until_somebody_measures():
    found = energy(NETWORK, {"mac_int8_pj": 0.2})
    assert (found.calibrated, found.label) == (False, "uncalibrated")
    found = energy(NETWORK, {"mac_int8_pj": 0.2, "calibration": "board 7"})
    assert (found.calibrated, found.label) == (True, "calibrated: board 7")
    assert found.to_json()["calibrated"] is True


def test_power():
    cost = cost_of(op_cost())
    found = energy(cost)
    seconds = 1000 / 500e6
    assert found.average_mw.value == pytest.approx(found.total_pj.value * 1e-12 / seconds * 1e3)
    assert energy(cost_of()).average_mw == Band(0, 0, 0)


def test_json_is_in_microjoules():
    values = json.loads(json.dumps(energy(NETWORK).to_json()))
    found = energy(NETWORK)
    assert values["energy_uj"]["high"] == pytest.approx(found.total_pj.high / 1e6)
    assert [op["name"] for op in values["ops"]] == ["conv", "add", "dense"]
    assert values["technologies"] == {"sram": "sram_64kib", "off_chip_flash": "nor_flash"}
    assert "rule of thumb" in values["node_rule"]
    parts = values["ops"][2]["energy_uj_by_component"]
    assert max(parts, key=lambda name: parts[name]["value"]) == "flash"


class TestOverrides:
    def test_a_number_is_exact_and_holds_at_any_node(self):
        for node in (16, 40):
            price = energy_constants({"shram_pj_per_bit": 0.2}).price("shram_pj_per_bit", node)
            assert price == Band(0.2, 0.2, 0.2)

    def test_a_table_changes_some_fields(self):
        found = energy_constants({"leakage_mw": {"value": 3, "tag": "measured"}})
        assert found.by_name["leakage_mw"].value == 3
        assert found.by_name["leakage_mw"].tag == "measured"
        assert found.by_name["leakage_mw"].high == SHIPPED["leakage_mw"].high

    def test_a_file(self, tmp_path):
        path = tmp_path / "chip.toml"
        path.write_text('calibration = "my chip"\nmac_int8_pj = 0.1\n[leakage_mw]\nlow = 0.5\n')
        found = energy_constants(path)
        assert found.calibration == "my chip"
        assert found.by_name["mac_int8_pj"].high == 0.1
        assert found.by_name["leakage_mw"].low == 0.5
        assert energy(NETWORK, str(path)).label == "calibrated: my chip"

    def test_what_is_refused(self, tmp_path):
        for given, message in (
            ({"mac_int8_pj": -1}, r"^mac_int8_pj must be in 0\.\.1e\+09, got -1$"),
            ({"mac_int8_pj": "much"}, r"^mac_int8_pj must be real numbers, got dtype"),
            ({"mac_int8_pj": {"low": 9}}, "rise from low over value to high, got 9, 0.23, 0.6$"),
            ({"mac_int8_pj": {"node_nm": 0}}, "^node_nm of mac_int8_pj must be"),
            ({"calibration": 3}, "^calibration must be a text, got 3$"),
        ):
            with pytest.raises(ConfigError, match=message):
                energy_constants(given)
        with pytest.raises(UnknownNameError, match=r"got 'mac_int9_pj'; did you mean 'mac_int"):
            energy_constants({"mac_int9_pj": 1})
        with pytest.raises(UnknownNameError, match=r"did you mean 'value'"):
            energy_constants({"mac_int8_pj": {"valeu": 1}})
        with pytest.raises(
            UnknownNameError, match=r"^tag of mac_int8_pj must be one of .*measured"
        ):
            energy_constants({"mac_int8_pj": {"tag": "guess"}})
        with pytest.raises(ConfigError, match=r"must be in a readable file, got '.*none\.toml'"):
            energy_constants(tmp_path / "none.toml")
        (tmp_path / "bad.toml").write_text("a = ")
        with pytest.raises(ConfigError, match=r"^energy constants must be TOML, got '.*bad\.toml'"):
            energy_constants(tmp_path / "bad.toml")

    def test_memories_that_are_refused(self):
        with pytest.raises(UnknownNameError, match=r"^role of a memory must be one of .*'srma'"):
            energy(NETWORK, memories={"srma": "mram"})
        with pytest.raises(UnknownNameError, match=r"^technology of sram must be one of sram_1mib"):
            energy(NETWORK, memories={"sram": "mram"})
        strange = cost_of(op_cost(traffic={"tape": Traffic({}, {}, 0)}))
        with pytest.raises(UnknownNameError, match=r"^role of a memory must be .*got 'tape'"):
            energy(strange)

    def test_nodes_that_are_refused(self):
        for node in (2, 181, float("nan")):
            with pytest.raises(ConfigError, match=r"^node_nm must be .*, got"):
                energy(NETWORK, node_nm=node)

    def test_constants_must_rise(self):
        with pytest.raises(
            ConfigError, match=r"^x must rise from low over value to high, got 1, 3"
        ):
            Constant("x", 3, 1, 2, "pJ", None, "measured", "here")


class TestRatio:
    SMALLER = cost_of(op_cost(macs=32_000), model="smaller")

    def test_extremes_are_those_of_all_corners(self):
        first, second = energy(self.SMALLER), energy(cost_of(MEMORY_BOUND))
        found = energy_ratio(first, second)
        names = sorted({*first.events, *second.events})
        ends = [(first.prices[name].low, first.prices[name].high) for name in names]
        corners = np.array(list(itertools.product(*ends)))
        above, below = (
            corners @ [e.events.get(name, 0) for name in names] for e in (first, second)
        )
        assert found.low == pytest.approx((above / below).min())
        assert found.high == pytest.approx((above / below).max())
        assert found.value == pytest.approx(first.total_pj.value / second.total_pj.value)

    def test_it_is_closer_than_the_bands(self):
        whole, part = energy(cost_of(op_cost())), energy(self.SMALLER)
        found = energy_ratio(part, whole)
        assert part.total_pj.high > whole.total_pj.low  # the bands say nothing
        assert found.high < 1  # but it takes less, whatever the constants
        same = energy_ratio(whole, whole)
        assert (same.low, same.value, same.high) == pytest.approx((1, 1, 1))

    def test_what_cannot_be_compared(self):
        with pytest.raises(ConfigError, match=r"same constants .* got net \(22 nm\) and net \(16"):
            energy_ratio(energy(NETWORK), energy(NETWORK, node_nm=16))
        with pytest.raises(ConfigError, match=r"^energy of empty must be more than 0, got 0$"):
            energy_ratio(energy(NETWORK), energy(cost_of(model="empty")))


class TestCalibrateEnergy:
    COSTS = (NETWORK, cost_of(op_cost(), model="one"), cost_of(MEMORY_BOUND, model="other"))

    def test_finds_a_factor(self):
        measured = [(cost, 3 * energy(cost).total_pj.value / 1e6) for cost in self.COSTS]
        constants = calibrate_energy(measured, "three networks")
        for cost, microjoules in measured:
            found = energy(cost, constants)
            assert found.total_pj.value == pytest.approx(1e6 * microjoules)
            assert found.total_pj.high == pytest.approx(found.total_pj.low)
            assert found.label == "calibrated: three networks"
            parts = energy(cost).by_component
            for name, band in found.by_component.items():  # totals say nothing of components
                assert band.high == pytest.approx(3 * parts[name].high)

    def test_the_band_is_the_largest_error_without_the_network(self):
        truths = [
            energy(cost).total_pj.value / 1e6 * f
            for cost, f in zip(self.COSTS, (1, 2, 1), strict=True)
        ]
        constants = calibrate_energy(list(zip(self.COSTS, truths, strict=True)), "x")
        # without the second, the factor is 1, half of what it needs
        assert constants.total_error == pytest.approx(0.5)
        found = energy(NETWORK, constants).total_pj
        assert found.high / found.value == pytest.approx(1.5)
        assert found.low / found.value == pytest.approx(0.5)
        factor = constants.by_name["leakage_mw"].value / SHIPPED["leakage_mw"].value
        assert factor == pytest.approx(2.5 / 2.25)  # least squares of relative errors, by hand
        assert constants.by_name["node_exponent"] == SHIPPED["node_exponent"]

    def test_what_is_refused(self):
        with pytest.raises(ConfigError, match=r"^measured must hold at least 2 networks, got 1$"):
            calibrate_energy([(NETWORK, 1.0)], "x")
        with pytest.raises(ConfigError, match=r"^microjoules of net must be"):
            calibrate_energy([(NETWORK, 0.0), (NETWORK, 1.0)], "x")
        with pytest.raises(ConfigError, match=r"^what was measured must be a text, got ''$"):
            calibrate_energy([(NETWORK, 1.0)] * 2, "")
        with pytest.raises(ConfigError, match=r"^energy of a measured network must be more than 0"):
            calibrate_energy([(cost_of(), 1.0)] * 2, "x")
