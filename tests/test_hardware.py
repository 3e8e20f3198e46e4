# SPDX-License-Identifier: Apache-2.0
"""Machines: presets, resolved memories, overrides, JSON; what is refused and in which words."""

from __future__ import annotations

import dataclasses
import json
import re
import subprocess
import sys
from importlib import resources

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from npusim import npu
from npusim.errors import ConfigError, UnknownNameError
from npusim.hardware import (
    Machine,
    machine,
    memory_mode_names,
    parse_settings,
    system_config_names,
)
from npusim.memories import Memory, MemoryMode, MemorySpec, SystemConfig, resolve

U55_SYSTEMS = ("Ethos_U55_Deep_Embedded", "Ethos_U55_High_End_Embedded")


class TestPresets:
    def test_arm_s_and_vendors_systems_are_there(self):
        names = system_config_names()
        assert {*U55_SYSTEMS, "Ethos_U65_Client_Server", "RTSS_HP_SRAM_OSPI"} <= set(names)
        assert not [name for name in names if "U85" in name]
        assert {"Sram_Only", "Shared_Sram", "Dedicated_Sram_384KB"} <= set(memory_mode_names())

    def test_each_group_says_where_it_is_from(self):
        text = resources.files("npusim").joinpath("memory_presets.json").read_text("utf-8")
        assert all(len(group["source"]) > 20 for group in json.loads(text)["groups"])

    def test_every_system_works_in_some_mode_with_every_npu(self):
        for npu_name in npu.names():
            for name in system_config_names():
                one = machine(npu_name, name, "Sram_Only")
                assert one.constants == one.feature_maps == one.staging
                assert one.staging.name == "sram"

    @pytest.mark.parametrize(
        ("system", "sram", "flash", "clock_hz"),
        [
            ("Ethos_U55_High_End_Embedded", 8.0, 1.0, 500e6),
            ("Ethos_U55_Deep_Embedded", 8.0, 0.5, 200e6),
            ("RTSS_HP_SRAM_MRAM", 6.096, 0.968, 400e6),
            ("RTSS_HP_SRAM_OSPI", 6.096, 0.416, 400e6),
            ("RTSS_HE_SRAM_MRAM", 8.0, 2.424, 160e6),
            ("Seeed_Grove_Vision_AI_V2", 8.0, 0.125, 400e6),
        ],
    )
    def test_bandwidth_is_the_fraction_of_the_npu_s_own_port(self, system, sram, flash, clock_hz):
        one = machine("ethos-u55-256", system)
        assert one.feature_maps.bytes_per_cycle == pytest.approx(sram, rel=1e-12)
        assert one.constants.bytes_per_cycle == pytest.approx(flash, rel=1e-12)
        assert one.clock_hz == clock_hz
        assert machine("ethos-u65-256", system).feature_maps.bytes_per_cycle == pytest.approx(
            2 * sram, rel=1e-12
        )

    def test_the_default_is_arm_s_usual_machine(self):
        one = machine()
        assert (one.npu.name, one.system.name) == ("ethos-u55-128", "Ethos_U55_High_End_Embedded")
        assert one.feature_maps == Memory("sram", 8.0, 32, 32, 32)
        assert one.constants == Memory("off_chip_flash", 1.0, 64, 0, 128)

    def test_the_compiler_s_own_default_goes_by_the_npu(self):
        small = machine("ethos-u55-32", "internal-default", "internal-default")
        large = machine("ethos-u65-512", "internal-default", "internal-default")
        assert (small.system.name, small.mode.name) == (U55_SYSTEMS[1], "Shared_Sram")
        assert large.system.name == "Ethos_U65_Client_Server"
        assert large.mode.arena_cache_size_bytes == 384 * 1024
        own = npu.get("ethos-u55-32").replace(name="mine")
        with pytest.raises(ConfigError, match=r"'internal-default' must be asked .*, got 'mine'"):
            machine(own, "internal-default")

    @pytest.mark.parametrize(
        ("arguments", "message"),
        [
            (("ethos-u55-100",), "npu must be one of .*; did you mean 'ethos-u55-"),
            (
                ("ethos-u55-32", "Ethos_U55_High_End"),
                "system config must be one of .* got 'Ethos_U55_High_End'; did you mean",
            ),
            (("ethos-u55-32", U55_SYSTEMS[0], "Sram"), "memory mode must be one of .* got 'Sram'"),
            (("ethos-u55-32", None), "system config must be one of .* got None"),
        ],
    )
    def test_unknown_names_are_refused_with_a_guess(self, arguments, message):
        with pytest.raises(UnknownNameError, match=message):
            machine(*arguments)


class TestMachine:
    @pytest.mark.parametrize(
        ("system", "mode", "staged", "spills"),
        [
            ("Ethos_U55_High_End_Embedded", "Sram_Only", False, False),
            ("Ethos_U55_High_End_Embedded", "Shared_Sram", True, False),
            ("Ethos_U65_High_End", "Dedicated_Sram", True, True),
            ("RTSS_HP_DTCM_SRAM", "Dtcm_Cache", True, True),
        ],
    )
    def test_what_is_copied_follows_from_the_memories(self, system, mode, staged, spills):
        one = machine("ethos-u55-256", system, mode)
        assert (one.weights_are_staged, one.spills) == (staged, spills)

    def test_ports_are_as_wide_as_the_npu_s_unless_the_compiler_s_quirk_is_asked_for(self):
        def flash(npu_name: str, system: str, quirk: bool) -> float:
            return machine(npu_name, system, vela_axi_quirk=quirk).constants.bytes_per_cycle

        vendor, arm = "RTSS_HE_SRAM_MRAM", U55_SYSTEMS[1]
        assert flash("ethos-u55-128", vendor, True) == 2 * flash("ethos-u55-128", vendor, False)
        assert flash("ethos-u55-128", arm, True) == flash("ethos-u55-128", arm, False)
        assert flash("ethos-u65-256", vendor, True) == flash("ethos-u65-256", vendor, False)
        assert 2 * flash("ethos-u65-256", arm, True) == flash("ethos-u65-256", arm, False)

    def test_outstanding_transactions_limit_only_where_asked_for(self):
        free, limited = machine(), machine(outstanding_limits=True)
        assert free.feature_maps.read_bytes_per_cycle == free.feature_maps.bytes_per_cycle == 8.0
        assert limited.feature_maps.bytes_per_cycle == 8.0
        assert limited.feature_maps.max_reads == 4
        assert limited.feature_maps.read_bytes_per_cycle == 4 * 32 / 32
        assert limited.constants.read_bytes_per_cycle == 1.0  # 2 * 128 / 64 is more
        one = machine(overrides={"off_chip_flash_max_reads": 1, "sram_max_writes": 2})
        one = one.override({"off_chip_flash_read_latency_cycles": 1024})
        assert one.constants.read_bytes_per_cycle == 128 / 1024
        assert one.feature_maps.write_bytes_per_cycle == 2 * 32 / 32
        assert one.feature_maps.read_bytes_per_cycle == 8.0

    @given(st.integers(1, 64), st.integers(0, 2000), st.floats(0.01, 64))
    @settings(derandomize=True, deadline=None)
    def test_more_transactions_are_never_slower(self, n, latency, peak):
        few, more = (Memory("sram", peak, latency, latency, 32, None, k, k) for k in (n, n + 1))
        assert few.read_bytes_per_cycle <= more.read_bytes_per_cycle <= peak
        assert few.write_bytes_per_cycle == few.read_bytes_per_cycle

    @pytest.mark.parametrize(
        ("system", "mode", "message"),
        [
            (
                U55_SYSTEMS[1],
                "Dedicated_Sram",
                "memory mode 'Dedicated_Sram' must keep feature maps in sram or dram, got "
                "off_chip_flash (axi1 of system config 'Ethos_U55_High_End_Embedded')",
            ),
            (
                "Ethos_U65_High_End",
                MemoryMode("m", "axi0", "axi1", "axi0"),
                "memory mode 'm' must keep constants in dram or on_chip_flash or off_chip_flash, "
                "got sram (axi0 of system config 'Ethos_U65_High_End')",
            ),
            (
                "Ethos_U65_High_End",
                MemoryMode("m", "axi1", "axi1", "axi1"),
                "memory mode 'm' must keep staging in sram, got dram",
            ),
        ],
    )
    def test_modes_that_do_not_suit_a_system_are_refused(self, system, mode, message):
        with pytest.raises(ConfigError, match=re.escape(message)):
            machine("ethos-u65-256", system, mode)

    def test_an_npu_of_one_port_reaches_one_memory(self):
        small = npu.get("ethos-u55-32").replace(n_axi_ports=1)
        assert machine(small, memory_mode="Sram_Only").constants.name == "sram"
        with pytest.raises(ConfigError, match=r"'Shared_Sram' must use axi0 alone, got axi1 and"):
            machine(small)

    def test_resolve_is_what_the_properties_show(self):
        one = machine("ethos-u65-256", "Ethos_U65_High_End", "Dedicated_Sram_512KB")
        memories = resolve(one.npu, one.system, one.mode)
        assert memories.feature_maps == one.feature_maps == one.constants
        assert memories.staging == one.staging == one.system.axi0.at(one.npu, one.clock_hz)

    @pytest.mark.parametrize("quirk", [False, True])
    @pytest.mark.parametrize("npu_name", npu.names())
    def test_json_round_trip(self, npu_name, quirk):
        one = machine(
            npu_name,
            "Ethos_U65_High_End",
            "Dedicated_Sram_384KB",
            overrides={"sram_bytes_per_s": 3.2e9, "dram_size_bytes": 1 << 20},
            outstanding_limits=True,
            vela_axi_quirk=quirk,
        )
        again = Machine.from_json(json.loads(json.dumps(one.to_json(), allow_nan=False)))
        assert again == one
        assert again.memories == one.memories
        assert again.content_key == one.content_key

    @pytest.mark.parametrize(
        ("change", "error", "message"),
        [
            (lambda v: v.pop("npu"), ConfigError, "a machine must have the key 'npu', got none"),
            (lambda v: v.update(npu=3), ConfigError, "npu must have keys and values, got int"),
            (lambda v: v["npu"].pop("n_cores"), ConfigError, "npu must have the key 'n_cores'"),
            (
                lambda v: v["npu"].update(n_core=1),
                UnknownNameError,
                "key of npu must be one of .*'n_core'; did you mean 'n_cores'",
            ),
            (lambda v: v.update(x=1), UnknownNameError, "key of a machine must be one of"),
            (
                lambda v: v["system_config"]["axi1"].pop("role"),
                ConfigError,
                "axi1 of system_config must have the key 'role', got none",
            ),
            (
                lambda v: v["memory_mode"].update(staging="axi2"),
                UnknownNameError,
                "staging of memory mode 'Shared_Sram' must be one of axi0, axi1, got 'axi2'",
            ),
        ],
    )
    def test_bad_json_is_refused(self, change, error, message):
        values = machine().to_json()
        change(values)
        with pytest.raises(error, match=message):
            Machine.from_json(values)

    def test_content_key_depends_on_content_alone(self):
        one = machine()
        other = Machine(
            one.npu.replace(name="mine"),
            dataclasses.replace(one.system, name="mine"),
            dataclasses.replace(one.mode, name="mine"),
        )
        assert other != one
        assert other.content_key == one.content_key
        same = one.override({"sram_bytes_per_cycle": 8, "off_chip_flash_bytes_per_s": 0.5e9})
        assert same.content_key == one.content_key

    @pytest.mark.parametrize("name", list(machine().field_values()))
    def test_content_key_depends_on_every_field(self, name):
        one = machine(overrides={"sram_ports_used": 2})
        old = one.field_values()[name]
        if isinstance(old, tuple):
            new = tuple(value + 1 for value in old)
        elif name == "clock_hz":
            new = 2 * old
        elif name == "n_axi_ports":
            one, new = machine(memory_mode="Sram_Only"), 1
        elif name == "n_cores":
            new = 2
        else:
            new = 7 if old is None else old + 1
        if name.endswith("ports_used"):
            one = one.override({name: 1})
        assert one.override({name: new}).content_key != one.content_key

    def test_content_key_is_the_same_in_every_process(self):
        program = "from npusim.hardware import machine; print(machine().content_key)"
        done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
        assert done.stdout.strip() == machine().content_key
        assert re.fullmatch("[0-9a-f]{32}", machine().content_key)


class TestOverride:
    def test_of_every_part(self):
        one = machine(
            overrides={
                "shram_banks": 48,
                "sram_bytes_per_cycle": 4,
                "clock_hz": np.float64(250e6),
                "arena_cache_size_bytes": np.int64(65536),
                "activation_cycles_per_element": [2, 1, 0],
            }
        )
        assert one.npu.shram_banks == 48
        assert one.npu.activation_cycles_per_element == (2.0, 1.0, 0.0)
        assert one.feature_maps.bytes_per_cycle == 4.0
        assert type(one.system.clock_hz) is float
        assert type(one.mode.arena_cache_size_bytes) is int
        assert one.constants == machine().constants

    def test_bandwidth_in_each_of_three_ways(self):
        one = machine("ethos-u55-128").override({"axi_width_bytes": 16})
        assert one.feature_maps.bytes_per_cycle == 16.0
        assert one.override({"sram_clock_scale": 0.5}).feature_maps.bytes_per_cycle == 8.0
        assert one.override({"sram_ports_used": 2}).feature_maps.bytes_per_cycle == 32.0
        fixed = one.override({"sram_bytes_per_s": 1e9})
        assert fixed.feature_maps.bytes_per_cycle == 2.0
        assert fixed.override({"clock_hz": 1e9}).feature_maps.bytes_per_cycle == 1.0
        wide = one.override({"sram_ports_used": 2}).override({"sram_bytes_per_cycle": 3})
        assert wide.feature_maps.bytes_per_cycle == 3.0

    def test_is_undone_by_the_values_there_were(self):
        one = machine("ethos-u55-64", "RTSS_HP_DTCM_SRAM", "Dtcm_Cache")
        changed = one.override({"sram_size_bytes": 7, "dram_bytes_per_cycle": 2, "n_cores": 2})
        assert changed != one
        assert changed.override(one.field_values()) == one

    def test_one_memory_at_both_ports_stays_one(self):
        sram = MemorySpec("sram", clock_scale=1.0)
        system = SystemConfig("twice", 1e9, sram, sram)
        one = machine(system_config=system, memory_mode="Sram_Only")
        assert one.override({"sram_burst_bytes": 64}).system.axi1.burst_bytes == 64

    @pytest.mark.parametrize("name", ["sram_byte_per_cycle", "dram_bytes_per_cycle", "name"])
    def test_unknown_fields_are_refused(self, name):
        with pytest.raises(
            UnknownNameError, match=f"field of the hardware must be .* got '{name}'"
        ):
            machine().override({name: 1})

    def test_a_guess_is_made(self):
        with pytest.raises(UnknownNameError, match="did you mean 'sram_bytes_per_cycle'"):
            machine().override({"sram_byte_per_cycle": 1})

    @pytest.mark.parametrize(
        ("values", "message"),
        [
            ({"sram_bytes_per_cycle": 0}, "sram_bytes_per_cycle must be more than 0 and finite"),
            ({"sram_bytes_per_cycle": -1.5}, "sram_bytes_per_cycle must be .*, got -1.5"),
            ({"sram_bytes_per_cycle": float("nan")}, "sram_bytes_per_cycle must be .*, got nan"),
            ({"sram_bytes_per_s": float("inf")}, "sram_bytes_per_s must be .*, got inf"),
            ({"sram_clock_scale": 10**400}, "sram_clock_scale must be more than 0 and finite"),
            ({"sram_clock_scale": "1"}, "sram_clock_scale must be one number, got '1'"),
            ({"sram_clock_scale": True}, "sram_clock_scale must be one number, got True"),
            ({"clock_hz": 0}, "clock_hz of system config .* must be more than 0"),
            ({"clock_hz": None}, "clock_hz of system config .* must be one number, got None"),
            ({"sram_burst_bytes": 0}, r"sram_burst_bytes must be in 1\.\..*, got 0"),
            ({"sram_burst_bytes": 1.5}, "sram_burst_bytes must be an integer, got 1.5"),
            ({"sram_read_latency_cycles": -1}, r"sram_read_latency_cycles must be in 0\.\."),
            ({"sram_size_bytes": 0}, r"sram_size_bytes must be in 1\.\..*, got 0"),
            ({"arena_cache_size_bytes": 0}, r"arena_cache_size_bytes must be in 1\.\."),
            (
                {"shram_banks": 0},
                r"shram_banks of npu 'ethos-u55-128' must be in 1\.\.65536, got 0",
            ),
            (
                {"output_cycles_per_element": [0] * 8},
                "output_cycles_per_element of npu 'ethos-u55-128' must be more than 0",
            ),
            (
                {"sram_bytes_per_cycle": 1, "sram_clock_scale": 1},
                "bandwidth of memory 'sram' must be given as one of clock_scale, bytes_per_cycle, "
                "bytes_per_s, got clock_scale and bytes_per_cycle",
            ),
            ({"sram_clock_scale": None}, "bandwidth of memory 'sram' must be .*, got none"),
            (
                {"sram_bytes_per_cycle": 1, "sram_ports_used": 2},
                "sram_ports_used must be 1 where sram_bytes_per_cycle is the bandwidth of all",
            ),
        ],
    )
    def test_values_out_of_range_are_refused(self, values, message):
        with pytest.raises(ConfigError, match=message):
            machine().override(values)


class TestRecords:
    def test_memories_that_share_a_role_must_be_one(self):
        specs = (MemorySpec("sram", clock_scale=scale) for scale in (1.0, 0.5))
        with pytest.raises(ConfigError, match=r"must differ in role or be one, got two .* sram"):
            SystemConfig("s", 1e9, *specs)

    @pytest.mark.parametrize(
        ("make", "error", "message"),
        [
            (lambda: MemorySpec("ram", clock_scale=1), UnknownNameError, "memory must be one of"),
            (lambda: Memory("ram", 1, 0, 0, 1), UnknownNameError, "memory must be one of"),
            (lambda: Memory("sram", 0, 0, 0, 1), ConfigError, "sram_bytes_per_cycle must be more"),
            (lambda: Memory("sram", 1, 0, 0, 0), ConfigError, "sram_burst_bytes must be in 1"),
            (
                lambda: SystemConfig("", 1, MemorySpec("sram", 1.0), MemorySpec("dram", 1.0)),
                ConfigError,
                "system config name must be text, got ''",
            ),
            (
                lambda: SystemConfig("s", 1, MemorySpec("sram", 1.0), None),
                ConfigError,
                "axi1 of system config 's' must be a MemorySpec, got None",
            ),
            (
                lambda: MemoryMode(None, "axi0", "axi0", "axi0"),
                ConfigError,
                "memory mode name must be text, got None",
            ),
            (
                lambda: MemoryMode("m", "Axi0", "axi0", "axi0"),
                UnknownNameError,
                "constants of memory mode 'm' must be one of axi0, axi1, got 'Axi0'",
            ),
        ],
    )
    def test_bad_ones_are_refused(self, make, error, message):
        with pytest.raises(error, match=message):
            make()


class TestSettings:
    def test_values(self):
        texts = ["sram_bytes_per_cycle=4", "clock_hz = 250e6", "a=0.5", "b=None", "c=1, .5,0"]
        assert parse_settings(texts) == {
            "sram_bytes_per_cycle": 4,
            "clock_hz": 250_000_000,
            "a": 0.5,
            "b": None,
            "c": (1, 0.5, 0),
        }

    def test_of_nothing(self):
        assert parse_settings([]) == {}

    def test_feed_an_override(self):
        one = machine(overrides=parse_settings(["sram_max_reads=2", "sram_burst_bytes=16.0"]))
        assert one.feature_maps.read_bytes_per_cycle == 2 * 16 / 32

    @pytest.mark.parametrize(
        ("texts", "message"),
        [
            (["clock_hz"], "a setting must be name=value, got 'clock_hz'"),
            (["=4"], "a setting must be name=value, got '=4'"),
            (["clock_hz=fast"], "value of a setting must be a number, got 'clock_hz=fast'"),
            (["clock_hz="], "value of a setting must be a number, got 'clock_hz='"),
            (["a=1,none"], "value of a setting must be a number, got 'a=1,none'"),
            (["a=1", "a=2"], "setting 'a' must be given once, got it again: 'a=2'"),
        ],
    )
    def test_that_are_none_are_refused(self, texts, message):
        with pytest.raises(ConfigError, match=re.escape(message)):
            parse_settings(texts)

    @pytest.mark.parametrize("value", ["nan", "inf", "-1", "0"])
    def test_numbers_that_are_no_bandwidth_are_refused(self, value):
        with pytest.raises(
            ConfigError, match="sram_bytes_per_cycle must be more than 0 and finite"
        ):
            machine(overrides=parse_settings([f"sram_bytes_per_cycle={value}"]))
